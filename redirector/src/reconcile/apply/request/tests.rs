//! What of a request is left out, and what is left.

use std::collections::BTreeSet;

use super::*;
use crate::{
    intent::testing::check,
    reconcile::apply::testing::{File, problems, refused, unreachable_engine},
};

/// What is wanted entry by entry, what waits, what is set aside.
fn left(request: &Request) -> String {
    let entries = 0..request.namespaces.len();
    let of_entry = |entry: usize| {
        let rules: Vec<_> = request.wanted_by(entry, None).map(|one| one.rule.name.to_string()).collect();
        let waits = if request.waits(entry).is_some() { "?" } else { "" };
        format!("{}{waits}", rules.join(" "))
    };
    let wanted: Vec<_> = entries.map(of_entry).collect();
    let waits =
        request.waiting_rules().into_iter().map(|(waits, one)| format!("{}.{}", waits.entry, one.rule.name));
    let waits: Vec<_> = waits.collect();
    let aside: Vec<_> = request.aside().keys().map(ToString::to_string).collect();
    format!("{} | {} | {}", wanted.join(", "), waits.join(" "), aside.join(" "))
}

/// Each line: options, what is wrong in turn, what is left of two entries of a file and two containers that were found, each with
/// rules `a` and `b`.
#[test]
fn only_what_is_wrong_is_left_out() {
    const ALL: &str = "netns:n@7 a 80, b 81; netns:m@8 a 80, b 81; found docker:x=1@9 a 80, b 81; found docker:y=2@9 a 80, b 81";
    let cases = [
        ["", "", "a b, a b, a b, a b |  | "],
        // The file itself: nothing is left.
        ["", "0.0", "refused 0.0 Gone"],
        ["", "0.0!", "refused 0.0 Gone!"],
        ["", "0.* 2.0", "refused 0.* Gone"],
        // A rule of one that was found waits, and is dropped when it cannot even wait.
        ["", "2.0", "a b, a b, b, a b | 2.a | "],
        ["", "2.0 3.1", "a b, a b, b, a | 2.a 3.b | "],
        ["", "2.0; 2.0", "a b, a b, b, a b |  | "],
        ["", "2.0; 2.1", "a b, a b, , a b | 2.a 2.b | "],
        ["", "2.0; 2.0; 2.0", "refused 2.0 Gone"],
        // All of it waits.
        ["", "2.*", "a b, a b, a b?, a b |  | "],
        ["", "2.*; 2.0", "a b, a b, b?, a b |  | "],
        ["", "2.*; 2.*", "refused 2.* Gone"],
        ["", "2.0; 2.*", "a b, a b, a b?, a b |  | "],
        // A namespace of the file, where that may be.
        ["lenient", "0.0", "a b, a b, a b, a b |  | 0"],
        ["lenient", "0.0 1.*", "a b, a b, a b, a b |  | 0 1"],
        ["lenient", "0.0 2.1", "a b, a b, a, a b | 2.b | 0"],
        ["lenient", "0.0!", "refused 0.0 Gone!"],
        ["lenient", "0.0 1.0!", "refused 1.0 Gone!"],
        ["lenient", "0.0; 0.1", "refused 0.1 Gone"],
        ["again=7,8", "0.0!", "a b, a b, a b, a b |  | 0"],
        ["again=7,8", "0.0! 1.0", "a b, a b, a b, a b |  | 0 1"],
        ["deaf", "", "a b, a b, a b?, a b? |  | "],
    ];
    check(&cases, |case| {
        let mut request = File::of(ALL, case[0]).request;
        for wrong in case[1].split("; ").filter(|wrong| !wrong.is_empty()) {
            if let Err(error) = request.set_aside(problems(wrong)) {
                return refused(&error);
            }
        }
        left(&request)
    });
}

/// Each line: the file, and the rules that are left of what was found.
#[test]
fn what_a_file_says_of_a_container_itself_goes_before_what_has_found_it() {
    let cases = [
        ["found docker:x=1@9 a 80, b 81", "a b"],
        ["docker:x=1@9 a 1; found docker:x=1@9 a 80, b 81", "a, b"],
        ["docker:y=1@9 a 1; found docker:x=1@9 a 80, b 81", "a, a b"],
        ["podman:x=1@9 a 1; found docker:x=1@9 a 80", "a, a"],
        ["docker:111111111111=1@9 a 1; found docker:x=1@9 a 80, b 81", "a, b"],
        ["docker:222222222222=1@9 a 1; found docker:x=1@9 a 80", "a, a"],
        // So short it is a name.
        ["docker:11111111111=1@9 a 1; found docker:x=1@9 a 80", "a, a"],
        ["podman:111111111111=1@9 a 1; found docker:x=1@9 a 80", "a, a"],
        ["docker:x=1@9 a 1, b 2; found docker:x=1@9 a 80, b 81", "a b, "],
        ["stays docker:x=1@9 a 1; found docker:x=1@9 a 80", "a, "],
    ];
    check(&cases, |case| left(&File::of(case[0], "").request).split(" | ").next().unwrap().to_owned());
}

#[test]
fn an_entry_says_what_it_is_about() {
    let strict = File::of("docker:x=1@7 a 80; netns:n@8 b 81; found docker:y=2@9 c 82", "").request;
    assert_eq!(
        (0..4).map(|entry| strict.discovered(entry).is_some()).collect::<Vec<_>>(),
        [false, false, true, false]
    );
    assert_eq!(strict.by_id(2).unwrap().to_string(), format!("docker:{}", "2".repeat(64)));
    assert!(strict.by_id(0).is_none() && strict.was_at(0).is_none() && !strict.is_again());
    assert!(strict.replaces(NetnsCookie(7)));
    let follows = |entry| strict.wanted_by(entry, None).map(|one| one.follows.len()).collect::<Vec<_>>();
    assert_eq!([follows(0), follows(1), follows(2)], [[1], [0], [1]]);
    let again = File::of("netns:n@8 b 81; netns:m@9 b 81", "again=7,-").request;
    assert_eq!((again.was_at(0), again.was_at(1), again.was_at(2)), (Some(NetnsCookie(7)), None, None));
    assert!(again.is_again() && again.replaces(NetnsCookie(7)) && !again.replaces(NetnsCookie(8)));
    let goes = |options| {
        let request = File::of("", options).request;
        [Origin::File, Origin::Api, Origin::Lease].map(|origin| request.goes(origin))
    };
    assert_eq!((goes(""), goes("prune")), ([true, false, false], [true, true, false]));
}

#[test]
fn a_warning_is_told_of_what_waits_and_not_that_its_engine_is_deaf() {
    let deaf = BTreeMap::from([(Engine::Docker, unreachable_engine())]);
    let file = || File::of("netns:n@7 a 80; found docker:x=1@9 a 80, b 81", "");
    let mut request = file().request;
    assert_eq!(request.warnings(&BTreeMap::new()), Vec::<String>::new());
    request.set_aside(problems("1.0")).unwrap();
    assert_eq!(request.warnings(&BTreeMap::new()), ["docker:x: waits: gone"]);
    // One that cannot even wait is told as what is wrong with the container.
    request.set_aside(problems("1.0")).unwrap();
    assert_eq!(request.warnings(&BTreeMap::new()), ["docker:x: gone"]);
    let silent = File::of("found docker:x=1@9 a 80", "deaf").request;
    assert_eq!(silent.warnings(&deaf), Vec::<String>::new());
    let whole: BTreeSet<_> = silent.warnings(&BTreeMap::new()).into_iter().collect();
    assert!(whole.iter().all(|told| told.starts_with("docker:x: waits: docker at ")), "{whole:?}");
}
