//! What is kept of what could not be made.

use super::*;
use crate::intent::testing::{check, lines, name, spec, target};

/// `TARGET@PLACE NAME NAME …`, the place `-` where it led nowhere.
fn asides(text: &str) -> Vec<EntryAside> {
    let read = |line: &str| {
        let (head, names) = line.split_once(' ').unwrap_or((line, ""));
        let (to, place) = head.split_once('@').unwrap();
        let rules = names.split_whitespace().map(|named| spec(Some(named), "80")).collect();
        let spec = NamespaceSpec { target: target(to), follow: None, host_netns: false, rules };
        EntryAside::new((spec, SetName::default()), "why".into(), place.parse().ok().map(NetnsCookie))
    };
    lines(text).map(read).collect()
}

fn told(set_aside: &SetAside) -> String {
    let told = |one: &EntryAside| {
        let rules = one.spec.rules.iter().map(|rule| format!(" {}", rule.name.as_ref().unwrap()));
        format!("{}{}", one.spec.target, rules.collect::<String>())
    };
    set_aside.list().iter().map(told).collect::<Vec<_>>().join("; ")
}

/// Each line: what is set aside; `TARGET PLACE [NAME]` of a detach; the rules that are forgotten, and what is left.
#[test]
fn what_is_detached_is_forgotten_by_its_target_and_by_its_namespace() {
    const TWO: &str = "netns:n@7 a b; docker:web@- a c";
    let cases = [
        [TWO, "netns:n -", "a b | docker:web a c | 1"],
        [TWO, "netns:n - a", "a | netns:n b; docker:web a c | 2"],
        [TWO, "netns:other 7", "a b | docker:web a c | 1"],
        [TWO, "netns:other 7 b", "b | netns:n a; docker:web a c | 2"],
        [TWO, "netns:other 8", " | netns:n a b; docker:web a c | 2"],
        [TWO, "netns:other -", " | netns:n a b; docker:web a c | 2"],
        [TWO, "docker:web -", "a c | netns:n a b | 1"],
        [TWO, "docker:web - x", " | netns:n a b; docker:web a c | 2"],
        ["netns:n@7 a; netns:m@7 b", "netns:n 7", "a b |  | 0"],
        ["", "netns:n 7", " |  | 0"],
    ];
    check(&cases, |case| {
        let set_aside = SetAside::default();
        set_aside.replace(&SetScope::default(), asides(case[0]));
        let (_, again) = set_aside.again();
        let words: Vec<_> = case[1].split(' ').collect();
        let at = words[1].parse().ok().map(NetnsCookie);
        let rule = words.get(2).map(|named| name(named));
        let gone = set_aside.forget((&target(words[0]), at), rule.as_ref());
        // Whoever tries it again meanwhile tries what is not wanted any more.
        assert_eq!(set_aside.is_outdated(&again), !gone.is_empty());
        let gone: Vec<_> = gone.iter().map(ToString::to_string).collect();
        format!("{} | {} | {}", gone.join(" "), told(&set_aside), *set_aside.count().borrow())
    });
}

/// Each line: what was set aside, what becomes of the list while it is tried again, what is left of the try, what is set aside then.
#[test]
fn what_somebody_does_meanwhile_is_not_undone_by_another_try() {
    let cases = [
        ["netns:n@7 a", "", "", ""],
        ["netns:n@7 a", "", "netns:n@7 a", "netns:n a"],
        ["netns:n@7 a; netns:m@8 b", "", "netns:m@8 b", "netns:m b"],
        ["netns:n@7 a b", "forget a", "netns:n@7 a b", "netns:n b"],
        ["netns:n@7 a", "forget a", "netns:n@7 a", ""],
        ["netns:n@7 a; netns:m@8 a", "file netns:m@8 c", "netns:n@7 a; netns:m@8 a", "netns:m c"],
        ["netns:n@7 a", "file netns:x@8 c", "netns:n@7 a", "netns:x c"],
    ];
    check(&cases, |case| {
        let set_aside = SetAside::default();
        set_aside.replace(&SetScope::default(), asides(case[0]));
        let (_, again) = set_aside.again();
        match case[1].split_once(' ') {
            Some(("forget", named)) => drop(set_aside.forget((&target("netns:n"), None), Some(&name(named)))),
            Some((_, file)) => set_aside.replace(&SetScope::default(), asides(file)),
            None => {}
        }
        assert_eq!(set_aside.is_outdated(&again), !case[1].is_empty());
        set_aside.settle(&again, asides(case[2]));
        assert!(set_aside.is_outdated(&again));
        told(&set_aside)
    });
}

#[test]
fn where_each_led_is_known_to_the_next_try() {
    let set_aside = SetAside::default();
    set_aside.replace(&SetScope::default(), asides("netns:n@7 a; netns:m@- b"));
    let (list, again) = set_aside.again();
    assert_eq!((list.len(), list[0].why()), (2, "why"));
    assert_eq!([0, 1, 2].map(|entry| again.at(entry)), [Some(NetnsCookie(7)), None, None]);
    assert!(again.replaces(NetnsCookie(7)) && !again.replaces(NetnsCookie(8)));
    let seen = |only: Option<(&str, Option<u64>)>| {
        let only = only.map(|(to, at)| (target(to), at.map(NetnsCookie)));
        set_aside.view(only.as_ref().map(|(to, at)| (to, *at))).len()
    };
    assert_eq!(seen(None), 2);
    assert_eq!(seen(Some(("netns:m", None))), 1);
    assert_eq!(seen(Some(("netns:x", Some(7)))), 1);
    assert_eq!(seen(Some(("netns:x", None))), 0);
}
