//! Edits of what is wanted, and what is asked of it.

use super::*;
use crate::intent::testing::{check, lines, name, spec, store, target, told, wanted};

impl Store {
    /// Every rule that is wanted, by subject and name.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Subject, &Intended)> {
        self.rules.iter().flat_map(|(subject, rules)| rules.values().map(move |one| (subject, one)))
    }

    /// Where rules are that follow a container, found out anew.
    fn followed_anew(&self) -> BTreeMap<NetnsCookie, Arc<Followed>> {
        let mut followed = BTreeMap::<_, Arc<Followed>>::new();
        for (container, one) in self.following() {
            let Some(at) = one.at else { continue };
            let here = Arc::make_mut(followed.entry(at).or_default());
            here.entry(one.rule.name.clone()).or_default().insert(container.clone());
        }
        followed
    }
}

fn subject(text: &str) -> Subject {
    match text.parse() {
        Ok(cookie) => NetnsCookie(cookie).into(),
        Err(_) => (&target(text)).into(),
    }
}

/// Does one thing with what is wanted: `put LINE; drop SUBJECT NAME`, or `bury PLACE`.
fn change(store: &mut Store, what: &str) -> Option<BTreeSet<Target>> {
    if let Some(place) = what.strip_prefix("bury ") {
        return Some(store.bury(NetnsCookie(place.parse().unwrap())));
    }
    let mut edit = Edit::default();
    for line in lines(what) {
        match line.split_once(' ').unwrap() {
            ("put", line) => {
                let (subject, intended) = wanted(line);
                edit.put(subject, intended);
            }
            ("drop", line) => {
                let (of, named) = line.split_once(' ').unwrap();
                edit.drop(subject(of), &name(named));
            }
            (other, _) => panic!("{other}"),
        }
    }
    store.edit(edit);
    None
}

fn joined(items: impl IntoIterator<Item = impl ToString>) -> String {
    items.into_iter().map(|one| one.to_string()).collect::<Vec<_>>().join(" ")
}

/// Each line: what is wanted, what is done, what is wanted then. Where rules are is known to the end all the time.
#[test]
fn what_is_wanted_is_what_was_put_and_not_dropped() {
    let cases = [
        ["", "put 7 a 80 api", "7 a 80 api"],
        ["", "put - a 80 api docker:web=1", "- a 80 api docker:web=1"],
        ["7 a 80 api", "put 7 a 81 file", "7 a 81 file"],
        ["7 a 80 api", "put 7 b 80 api", "7 a 80 api; 7 b 80 api"],
        ["7 a 80 api", "put 8 a 80 api", "7 a 80 api; 8 a 80 api"],
        ["7 a 80 api", "put 7 a 80 api docker:web=1", "7 a 80 api; 7 a 80 api docker:web=1"],
        ["3 a 80 api docker:web=1", "put 7 a 80 api docker:web=2", "7 a 80 api docker:web=2"],
        ["- a 80 api docker:web=1", "put 7 a 80 api docker:web=1", "7 a 80 api docker:web=1"],
        ["7 a 80 api docker:web=1", "put - a 80 api docker:web=1", "- a 80 api docker:web=1"],
        [
            "7 a 80 api docker:web=1",
            "put 7 a 80 api podman:web=1",
            "7 a 80 api docker:web=1; 7 a 80 api podman:web=1",
        ],
        ["7 a 80 api", "drop 7 a", ""],
        ["7 a 80 api; 7 b 81 api", "drop 7 a", "7 b 81 api"],
        [
            "7 a 80 api docker:side=1; 7 a 80 api docker:web=1",
            "drop docker:side a",
            "7 a 80 api docker:web=1",
        ],
        ["7 a 80 api docker:web=1", "drop 7 a", "7 a 80 api docker:web=1"],
        ["7 a 80 api", "drop 8 a", "7 a 80 api"],
        ["7 a 80 api", "drop 7 b", "7 a 80 api"],
        ["", "drop docker:web a", ""],
        // What goes goes first, in whatever order it is said.
        ["7 a 80 api", "put 7 a 81 file; drop 7 a", "7 a 81 file"],
        ["7 a 80 api docker:web=1", "put 7 a 80 file; drop docker:web a", "7 a 80 file"],
        ["7 a 80 api", "put 7 a 81 api; put 7 a 82 api", "7 a 82 api"],
        ["7 a 80 api", "bury 7", ""],
        ["7 a 80 api", "bury 8", "7 a 80 api"],
        ["7 a 80 api docker:web=1; 7 b 81 file", "bury 7", "- a 80 api docker:web=1"],
        ["7 a 80 found docker:web=1", "bury 7", "- a 80 found docker:web=1"],
        ["7 a 80>handoff lease", "bury 7", ""],
        [
            "7 a 80 api docker:side=1; 7 a 80 api docker:web=1",
            "bury 7",
            "- a 80 api docker:side=1; - a 80 api docker:web=1",
        ],
        [
            "7 a 80 api docker:web=1; 8 b 81 api docker:web=1",
            "bury 7",
            "- a 80 api docker:web=1; 8 b 81 api docker:web=1",
        ],
    ];
    check(&cases, |case| {
        let mut store = store(case[0]);
        assert_eq!(store.followed, store.followed_anew(), "before");
        change(&mut store, case[1]);
        assert_eq!(store.followed, store.followed_anew(), "after");
        told(&store)
    });
}

#[test]
fn who_is_told_that_rules_wait_is_each_container_of_a_namespace_that_has_died() {
    let cases = [
        ["7 a 80 api", ""],
        ["7 a 80 api docker:web=1; 7 b 81 api docker:web=1", "docker:web"],
        [
            "7 a 80 api docker:web=1; 7 a 80 api podman:web=1; 8 c 1 api docker:other=2",
            "docker:web podman:web",
        ],
        ["- a 80 api docker:web=1", ""],
    ];
    check(&cases, |case| {
        let mut store = store(case[0]);
        let waiting = joined(change(&mut store, "bury 7").unwrap());
        let whys =
            store.all().filter(|(_, one)| one.follows.as_ref().is_some_and(|one| one.why.contains("ended")));
        assert_eq!(whys.count() > 0, !waiting.is_empty());
        waiting
    });
}

/// Each line: what is wanted, what is asked, the answer.
#[test]
fn what_is_wanted_can_be_asked_by_place_name_and_container() {
    const SHARED: &str = "7 a 80 api docker:web=1; 7 a 80 file docker:side=2; - b 81 found docker:web=1; 8 a 82 found podman:web=3";
    let cases = [
        // Of several who want it the first of: lease, file, api.
        ["7 a 80 api", "origin 7 a", "Some(Api)"],
        ["7 a 80 api; 7 a 80 file docker:web=1", "origin 7 a", "Some(File)"],
        ["7 a 80 file; 7 a 80>handoff lease docker:web=1", "origin 7 a", "Some(Lease)"],
        [SHARED, "origin 7 a", "Some(File)"],
        [SHARED, "origin 7 b", "None"],
        [SHARED, "origin 9 a", "None"],
        [SHARED, "owners 7 a", "docker:side docker:web"],
        [SHARED, "owners 8 a", "podman:web"],
        [SHARED, "owners 7 b", ""],
        ["7 a 80 api", "owners 7 a", ""],
        [SHARED, "found 8 a", "true"],
        [SHARED, "found 7 a", "false"],
        ["7 a 80 found docker:web=1; 7 a 80 file docker:side=2", "found 7 a", "false"],
        ["", "found 7 a", "false"],
        [SHARED, "namesakes a", "docker:side docker:web podman:web"],
        [SHARED, "namesakes b", "docker:web"],
        [SHARED, "namesakes c", ""],
        ["7 a 80 api", "namesakes a", ""],
        [SHARED, "containers docker", "docker:side docker:web"],
        [SHARED, "containers podman", "podman:web"],
        [SHARED, "with 3", "podman:web"],
        // By who has made what is there.
        ["7 a 80 api; 8 a 80 file; 9 a 80>handoff lease", "places file", "8"],
        ["7 a 80 api; 8 a 80 file; 9 a 80>handoff lease", "places api", "7"],
        ["7 a 80 api; 7 b 81 file; 9 a 80>handoff lease", "places lease", "9"],
        ["7 a 80 api; 7 b 81 file", "places file", "7"],
        ["- a 80 file docker:web=1", "places file", ""],
        ["", "places file", ""],
        // A name for what has none.
        ["", "name docker:web 80", "rule-1"],
        ["- rule-1 80 api docker:web=1", "name docker:web 81", "rule-2"],
        ["- rule-1 80 api docker:web=1", "name docker:web 80", "rule-1"],
        ["- mine 80 api docker:web=1", "name docker:web 80", "mine"],
        ["- rule-2 80 api docker:web=1", "name docker:web 81", "rule-1"],
        ["- rule-1 80 api docker:side=1", "name docker:web 80", "rule-1"],
        ["7 rule-1 80 api", "name docker:web 81", "rule-1"],
    ];
    check(&cases, |case| {
        let store = store(case[0]);
        let words: Vec<_> = case[1].split(' ').collect();
        let place = || NetnsCookie(words[1].parse().unwrap());
        let engine = || if words[1] == "docker" { Engine::Docker } else { Engine::Podman };
        match words[0] {
            "origin" => format!("{:?}", store.origin(place(), &name(words[2]))),
            "owners" => joined(store.owners(place(), &name(words[2]))),
            "found" => store.here(place()).is_found(&name(words[2])).to_string(),
            "namesakes" => joined(store.namesakes(&[name(words[1])])),
            "containers" => joined(store.containers(engine(), |_, _| true)),
            "with" => {
                let has =
                    |_: &Container, id: Option<&ContainerId>| id.is_some_and(|id| id.starts_with(words[1]));
                joined(store.containers(Engine::Podman, has))
            }
            "places" => joined(store.places(|origin| origin.to_string() == words[1])),
            "name" => store.name_for(&target(words[1]), &spec(None, words[2])).to_string(),
            other => panic!("{other}"),
        }
    });
}

#[test]
fn why_a_rule_waits_is_kept_with_that_rule_or_with_all_of_its_container() {
    let all = "- a 80 api docker:web=1; - b 81 api docker:web=1; - a 80 api docker:side=2; 7 a 80 api";
    let cases = [["a", "docker:web a"], ["b", "docker:web b"], ["c", ""], ["", "docker:web a, docker:web b"]];
    check(&cases, |case| {
        let mut store = store(all);
        let named = Some(case[0]).filter(|named| !named.is_empty()).map(name);
        store.wait_because(&target("docker:web"), named.as_ref(), "because");
        let told =
            store.following().filter(|(_, one)| one.follows.as_ref().is_some_and(|one| one.why == "because"));
        told.map(|(target, one)| format!("{target} {}", one.rule.name)).collect::<Vec<_>>().join(", ")
    });
}

/// Each line: what is wanted, what is done with it, and what the copy from before says.
#[test]
fn a_copy_stays_as_it_was_whatever_becomes_of_what_is_wanted() {
    let both = "7 a 80 api; 7 b 81 file; 7 a 80 api docker:web=1";
    let cases = [
        [both, "put 7 a 82 api", both],
        [both, "put 7 c 83 api docker:web=1", both],
        [both, "drop 7 a", both],
        [both, "drop docker:web a", both],
        [both, "bury 7", both],
    ];
    check(&cases, |case| {
        let mut store = store(case[0]);
        let copy = store.clone();
        change(&mut store, case[1]);
        assert_ne!(told(&store), told(&copy));
        assert_eq!(copy.followed, copy.followed_anew());
        told(&copy)
    });
}

#[test]
fn what_is_asked_of_each_rule_of_a_namespace_costs_the_same_however_many_others_there_are() {
    let looks_for_each = |rules: usize| {
        let own: Vec<_> = (0..rules).map(|number| format!("7 r{number} 80 api")).collect();
        let followed: Vec<_> =
            (0..rules).map(|number| format!("7 f{number} 80 api docker:c{number}=1")).collect();
        let store = store(&[own, followed].concat().join(";"));
        looks::taken();
        let here = store.here(NetnsCookie(7));
        for number in 0..rules {
            assert_eq!(here.origin(&name(&format!("r{number}"))), Some(Origin::Api));
            assert_eq!(here.owners(&name(&format!("f{number}"))).len(), 1);
            assert!(!here.is_found(&name(&format!("f{number}"))));
        }
        looks::taken() / rules
    };
    assert_eq!((looks_for_each(10), looks_for_each(1000)), (5, 5));
}
