//! What goes by a detach, case by case.

use super::*;
use crate::{
    intent::testing::{check, name, target, told},
    reconcile::testing::Scene,
};

/// The place that a target leads to, and the rule that is named.
fn read(line: &str) -> (Target, u64, Option<RuleName>) {
    let words: Vec<_> = line.split(' ').collect();
    let place = words[1].parse().unwrap_or_default();
    (target(words[0]), place, words.get(2).map(|named| name(named)))
}

/// Each line: what there is; `TARGET PLACE [NAME]`, the place `-` where nothing is steered; the rules that are told, from where they
/// go, and what is wanted then.
#[track_caller]
fn check_all(cases: &[[&str; 3]]) {
    check(cases, |case| {
        let (mut scene, (target, place, rule)) = (Scene::of(case[0]), read(case[1]));
        let gone = Gone::of(&scene.store, &target, scene.standing(place), rule.as_ref());
        assert_eq!(gone.is_empty(), gone.rules.is_empty());
        let rules: Vec<_> = gone.rules.iter().map(ToString::to_string).collect();
        let from =
            gone.places.iter().flat_map(|(at, names)| names.iter().map(move |name| format!("{at}/{name}")));
        let from: Vec<_> = from.collect();
        scene.store.edit(gone.edit);
        format!("{} | {} | {}", rules.join(" "), from.join(" "), told(&scene.store))
    });
}

#[test]
fn one_rule_of_a_namespace_goes_or_all_of_them_whoever_wants_them_there() {
    const BOTH: &str = "7 a 80 api; 7 b 81 file";
    check_all(&[
        [BOTH, "netns:n 7 a", "a | 7/a | 7 b 81 file"],
        [BOTH, "netns:n 7 b", "b | 7/b | 7 a 80 api"],
        [BOTH, "netns:n 7", "a b | 7/a 7/b | "],
        [BOTH, "netns:n 7 c", " |  | 7 a 80 api; 7 b 81 file"],
        [BOTH, "netns:n -", " |  | 7 a 80 api; 7 b 81 file"],
        ["7 a 80 api; 8 a 80 api", "netns:n 7", "a | 7/a | 8 a 80 api"],
        ["7 a 80>handoff lease", "netns:n 7 a", "a | 7/a | "],
        ["7 a 80 none", "netns:n 7 a", "a | 7/a | "],
        ["7 a 80 api docker:web=1", "netns:n 7 a", "a | 7/a | "],
        // Followed by two names.
        ["7 a 80 api docker:side=1; 7 a 80 file docker:web=1", "netns:n 7", "a | 7/a | "],
        ["7 a 80 api docker:side=1; 7 a 80 file docker:web=1", "docker:web 7 a", "a | 7/a | "],
        // What waits for a container is not the namespace's.
        ["7 a 80 api; - b 81 api docker:web=1", "netns:n 7", "a | 7/a | - b 81 api docker:web=1"],
    ]);
}

#[test]
fn what_follows_a_container_goes_wherever_it_is_and_where_it_waits() {
    check_all(&[
        ["7 a 80 api docker:web=1", "docker:web 7", "a | 7/a | "],
        ["7 a 80 api docker:web=1; - b 81 api docker:web=1", "docker:web 7", "a b | 7/a | "],
        ["7 a 80 api docker:web=1; 8 b 81 api docker:web=1", "docker:web 7", "a b | 7/a 8/b | "],
        ["7 a 80 api docker:web=1; 8 b 81 api docker:web=1", "docker:web -", "a b | 7/a 8/b | "],
        ["- a 80 api docker:web=1", "docker:web -", "a |  | "],
        ["- a 80 api docker:web=1", "docker:web - a", "a |  | "],
        ["- a 80 api docker:web=1", "docker:web - b", " |  | - a 80 api docker:web=1"],
        ["- a 80 api docker:web=1", "docker:other -", " |  | - a 80 api docker:web=1"],
        ["- a 80 api docker:web=1", "podman:web -", " |  | - a 80 api docker:web=1"],
        ["- a 80 found docker:web=1; 7 b 81 found docker:web=1", "docker:web 7", "b a | 7/b | "],
        // One rule is meant where it is, and where it is not there, where it follows the container.
        ["7 a 80 api; - a 81 api docker:web=1", "docker:web 7 a", "a | 7/a | - a 81 api docker:web=1"],
        ["7 x 1 api; - a 81 api docker:web=1", "docker:web 7 a", "a |  | 7 x 1 api"],
        ["7 x 1 api; 8 a 81 api docker:web=1", "docker:web 7 a", "a | 8/a | 7 x 1 api"],
        // All are meant: those that are there, and those that follow.
        ["7 a 80 api; - a 81 api docker:web=1", "docker:web 7", "a | 7/a | "],
        ["7 a 80 api; 8 a 81 api docker:web=1", "docker:web 7", "a | 7/a 8/a | "],
        // Where it is another container's as well, it goes.
        ["8 a 80 api docker:side=2; 8 a 80 api docker:web=1", "docker:web -", "a | 8/a | "],
    ]);
}

/// Each line: what there is, what is detached, all that this is about.
#[test]
fn a_detach_is_about_all_that_it_can_change() {
    let cases = [
        ["7 a 80 api", "pid:1 7", "7"],
        ["7 a 80 api", "netns:n 7", "7 netns:n"],
        ["7 a 80 api; 8 b 81 api netns:n", "netns:n 7", "7 8 netns:n"],
        ["7 a 80 api", "pid:1 -", ""],
        ["7 a 80 api docker:web=1", "pid:1 7", "7 docker:web"],
        ["7 a 80 api docker:web=1; 8 b 81 api docker:web=1", "pid:1 7", "7 8 docker:web"],
        ["", "docker:web -", "docker:web"],
        ["7 a 80 api docker:web=1; - b 81 api docker:web=1", "docker:web -", "7 docker:web"],
        ["7 a 80 api docker:side=2; 9 b 81 api docker:side=2", "docker:web 7", "7 9 docker:side docker:web"],
    ];
    check(&cases, |case| {
        let (scene, (target, place, _)) = (Scene::of(case[0]), read(case[1]));
        let about = about(&scene.store, &target, (None, scene.standing(place)));
        let each = about.iter().map(|subject| match subject {
            Subject::Files => "files".to_owned(),
            Subject::Netns(cookie) => cookie.to_string(),
            Subject::Target(target) => target.to_string(),
        });
        each.collect::<Vec<_>>().join(" ")
    });
}

#[test]
fn what_was_found_by_a_label_is_noted_when_it_is_detached() {
    let cases = [
        ["7 a 80 found docker:web=1; 7 b 81 api docker:web=1", "docker:web 7", "1/a"],
        ["7 a 80 found docker:side=2; 7 a 80 found docker:web=1", "netns:n 7 a", "2/a 1/a"],
        ["- a 80 found docker:web=1", "docker:web -", "1/a"],
        ["7 a 80 file docker:web=1", "docker:web 7", ""],
    ];
    check(&cases, |case| {
        let (scene, (target, place, rule)) = (Scene::of(case[0]), read(case[1]));
        let gone = Gone::of(&scene.store, &target, scene.standing(place), rule.as_ref());
        let found = found(&scene.store, &gone.edit);
        let each = found.iter().map(|(id, name)| format!("{}/{name}", &id.to_string()[..1]));
        each.collect::<Vec<_>>().join(" ")
    });
}

#[test]
fn what_was_set_aside_is_told_once_beside_what_was_in_force() {
    let cases = [["a b", "c", "a b c"], ["a b", "b c", "a b c"], ["", "a", "a"], ["a", "", "a"]];
    check(&cases, |case| {
        let names = |text: &str| text.split_whitespace().map(name).collect();
        let all = with(names(case[0]), names(case[1]));
        all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    });
}
