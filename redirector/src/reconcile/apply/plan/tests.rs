//! What a file changes, case by case.

use super::*;
use crate::{
    intent::testing::{check, store},
    reconcile::{
        apply::testing::apply,
        testing::{Scene, in_force},
    },
};

mod left_out;

/// Each line: what there is, the file, options, what it comes to.
#[track_caller]
fn check_all(cases: &[[&str; 4]]) {
    check(cases, |case| apply(&mut Scene::of(case[0]), case[1], case[2]));
}

#[test]
fn what_is_in_a_namespace_becomes_what_the_file_wants_there() {
    check_all(&[
        ["", "netns:n@7 a 80", "", "+7/a | 7: a 80 #0+ | 7 a 80 file"],
        ["", "netns:n@7 a 80, b 81", "", "+7/a +7/b | 7: a 80 #0+, b 81 #1+ | 7 a 80 file; 7 b 81 file"],
        ["7 a 80 file", "netns:n@7 a 80", "", "=1 |  | 7 a 80 file"],
        ["7 a 81 file", "netns:n@7 a 80", "", "~7/a | 7: a 80 #0+ | 7 a 80 file"],
        ["7 a 80 file; 7 b 81 file", "netns:n@7 a 80", "", "-7/b =1 | 7: a 80 #0 | 7 a 80 file"],
        [
            "7 a 80 file; 7 b 81 file",
            "netns:n@7 b 81, c 82",
            "",
            "+7/c -7/a =1 | 7: b 81 #1, c 82 #2+ | 7 b 81 file; 7 c 82 file",
        ],
        ["7 b 81 file", "netns:n@7 a 80", "", "+7/a -7/b | 7: a 80 #1+ | 7 a 80 file"],
        [
            "",
            "netns:n@7 a 80; netns:m@8 a 81",
            "",
            "+7/a +8/a | 7: a 80 #0+; 8: a 81 #0+ | 7 a 80 file; 8 a 81 file",
        ],
        ["", "", "", " |  | "],
    ]);
}

#[test]
fn what_somebody_else_has_made_stays_and_may_be_in_the_way() {
    check_all(&[
        ["7 b 81 api", "netns:n@7 a 80", "", "+7/a | 7: a 80 #1+, b 81 #0 | 7 a 80 file; 7 b 81 api"],
        ["7 b 81 api", "netns:n@7 a 80", "prune", "+7/a -7/b | 7: a 80 #1+ | 7 a 80 file"],
        ["7 a 80 api", "netns:n@7 a 80", "", "=1 |  | 7 a 80 file"],
        ["7 a 81 api", "netns:n@7 a 80", "", "refused 0.0 OfAttach!"],
        ["7 a 81 api", "netns:n@7 a 80", "prune", "~7/a | 7: a 80 #0+ | 7 a 80 file"],
        ["7 a 81 none", "netns:n@7 a 80", "", "refused 0.0 OfAttach!"],
        ["7 a 80 none", "netns:n@7 a 80", "", "=1 |  | 7 a 80 file"],
        ["7 a 80>handoff lease", "netns:n@7 a 80", "", "refused 0.0 OfProgram!"],
        ["7 a 80>handoff lease", "netns:n@7 a 80", "prune", "refused 0.0 OfProgram!"],
        [
            "7 x 1>handoff lease",
            "netns:n@7 a 80",
            "prune",
            "+7/a | 7: a 80 #1+, x 1>handoff #0 | 7 a 80 file; 7 x 1>handoff lease",
        ],
        // All that is wrong is told.
        ["7 a 81 api; 7 b 81 api", "netns:n@7 a 80, b 80", "", "refused 0.0 OfAttach!, 0.1 OfAttach!"],
        ["7 a 81 api", "netns:n@7 a 80; netns:m@! b 80", "", "refused 0.0 OfAttach!, 1.* Gone"],
    ]);
}

#[test]
fn a_namespace_that_the_file_does_not_name_loses_what_is_the_files() {
    check_all(&[
        ["3 a 80 file", "netns:n@7 b 81", "", "+7/b -3/a | 3: nothing; 7: b 81 #0+ | 7 b 81 file"],
        ["3 a 80 file", "", "", "-3/a | 3: nothing | "],
        ["3 a 80 api", "", "", " |  | 3 a 80 api"],
        ["3 a 80 api", "", "prune", "-3/a | 3: nothing | "],
        ["3 a 80 none", "", "", " |  | "],
        ["3 a 80 none", "", "prune", "-3/a | 3: nothing | "],
        ["3 a 80 file; 3 b 81 api", "", "", "-3/a | 3: b 81 #1 | 3 b 81 api"],
        ["3 a 80>handoff lease", "", "prune", " |  | 3 a 80>handoff lease"],
        // In the turn of somebody else it is his.
        ["3 a 80 file", "", "not-held=3", " |  | 3 a 80 file"],
        ["3 a 80 file; 4 a 80 file", "", "not-held=3", "-4/a | 4: nothing | 3 a 80 file"],
    ]);
}

#[test]
fn what_attach_has_for_somebody_else_stays_when_a_file_has_the_same_rule_there() {
    const SHARED: &str = "7 a 80 api docker:web=1; 7 a 80 file docker:side=1";
    const OF_ATTACH: &str = "7 a 80 api docker:web=1";
    let left = format!("~7/a |  | {OF_ATTACH}");
    check_all(&[
        [SHARED, "docker:side=1@7 a 80", "", &format!("=1 |  | 7 a 80 file docker:side=1; {OF_ATTACH}")],
        [SHARED, "docker:side=1@7 a 80", "prune", "~7/a |  | 7 a 80 file docker:side=1"],
        // The file wants it no more: in a namespace that it names, and in one that it does not.
        [SHARED, "docker:side=1@7", "", &left],
        [SHARED, "", "", &left],
        [SHARED, "docker:side=1@7", "prune", "-7/a | 7: nothing | "],
        [SHARED, "", "prune", "-7/a | 7: nothing | "],
        ["7 a 80 file; 7 a 80 api docker:web=1", "", "", &left],
        // Not for all who are there any more.
        [SHARED, "stays docker:side=1@7 a 80", "", &format!("~7/a |  | 7 a 80 file; {OF_ATTACH}")],
        // It cannot be two things.
        [SHARED, "docker:side=1@7 a 81", "", "refused 0.0 OfAttach!"],
        [SHARED, "docker:side=1@7 a 81", "prune", "~7/a | 7: a 81 #0+ | 7 a 81 file docker:side=1"],
    ]);
}

#[test]
fn a_file_has_rules_follow_their_containers() {
    check_all(&[
        ["", "docker:web=1@7 a 80", "", "+7/a | 7: a 80 #0+ | 7 a 80 file docker:web=1"],
        ["", "stays docker:web=1@7 a 80", "", "+7/a | 7: a 80 #0+ | 7 a 80 file"],
        ["7 a 80 file docker:web=1", "docker:web=1@7 a 80", "", "=1 |  | 7 a 80 file docker:web=1"],
        [
            "7 a 81 file docker:web=1",
            "docker:web=1@7 a 80",
            "",
            "~7/a | 7: a 80 #0+ | 7 a 80 file docker:web=1",
        ],
        // To follow, or not to any more, is a change; the kernel has nothing to do.
        ["7 a 80 file", "docker:web=1@7 a 80", "", "~7/a |  | 7 a 80 file docker:web=1"],
        ["7 a 80 file docker:web=1", "stays docker:web=1@7 a 80", "", "~7/a |  | 7 a 80 file"],
        ["7 a 80 file docker:web=1", "docker:other=1@7 a 80", "", "~7/a |  | 7 a 80 file docker:other=1"],
        ["7 a 80 api docker:web=1", "docker:web=1@7 a 80", "", "=1 |  | 7 a 80 file docker:web=1"],
        ["7 a 80 api", "docker:web=1@7 a 80", "", "refused 0.0 OfAttach!"],
        ["7 a 80 api", "docker:web=1@7 a 80", "prune", "~7/a |  | 7 a 80 file docker:web=1"],
        ["7 a 80 file docker:web=1", "", "", "-7/a | 7: nothing | "],
        // It is where the container was.
        [
            "3 a 80 file docker:web=1",
            "docker:web=2@7 a 80",
            "",
            "+7/a -3/a | 3: nothing; 7: a 80 #0+ | 7 a 80 file docker:web=2",
        ],
        ["3 a 81 api docker:web=1", "docker:web=2@7 a 80", "", "refused 0.0 OfAttach!"],
        [
            "3 a 81 api docker:web=1",
            "docker:web=2@7 a 80",
            "prune",
            "+7/a -3/a | 3: nothing; 7: a 80 #0+ | 7 a 80 file docker:web=2",
        ],
        [
            "3 a 80 api docker:web=1",
            "docker:web=2@7 a 80",
            "",
            "+7/a -3/a | 3: nothing; 7: a 80 #0+ | 7 a 80 file docker:web=2",
        ],
        [
            "3 a 80 api docker:web=1",
            "docker:web=2@7 a 80; netns:n@3 b 81",
            "",
            "+7/a +3/b -3/a | 3: b 81 #1+; 7: a 80 #0+ | 3 b 81 file; 7 a 80 file docker:web=2",
        ],
        [
            "3 a 80 api docker:web=1",
            "docker:web=2@7 a 80; netns:n@3 a 81",
            "",
            "+7/a ~3/a | 3: a 81 #0+; 7: a 80 #0+ | 3 a 81 file; 7 a 80 file docker:web=2",
        ],
        [
            "3 a 80 api docker:side=3; 3 a 80 api docker:web=1",
            "docker:web=2@7 a 80",
            "",
            "+7/a | 7: a 80 #0+ | 3 a 80 api docker:side=3; 7 a 80 file docker:web=2",
        ],
    ]);
}

#[test]
fn a_rule_whose_container_is_not_running_waits() {
    check_all(&[
        ["", "docker:web=1@- a 80", "", "+wait/a |  | - a 80 file docker:web=1"],
        ["- a 80 file docker:web=1", "docker:web=1@- a 80", "", "=1 |  | - a 80 file docker:web=1"],
        ["- a 81 file docker:web=1", "docker:web=1@- a 80", "", "~wait/a |  | - a 80 file docker:web=1"],
        ["- a 80 file docker:web=1", "docker:web=2@- a 80", "", "=1 |  | - a 80 file docker:web=1"],
        ["- a 80 file docker:web=1", "", "", "-wait/a |  | "],
        [
            "- a 80 file docker:web=1",
            "docker:web=1@7 a 80",
            "",
            "+7/a | 7: a 80 #0+ | 7 a 80 file docker:web=1",
        ],
        ["- a 80 file docker:web=1", "", "not-held=docker:web", " |  | - a 80 file docker:web=1"],
        // Of `attach`.
        ["- a 80 api docker:web=1", "docker:web=1@- a 80", "", "=1 |  | - a 80 file docker:web=1"],
        ["- a 81 api docker:web=1", "docker:web=1@- a 80", "", "refused 0.0 OfAttach!"],
        ["- a 81 api docker:web=1", "docker:web=1@- a 80", "prune", "~wait/a |  | - a 80 file docker:web=1"],
        ["- a 80 api docker:web=1", "", "", " |  | - a 80 api docker:web=1"],
        ["- a 80 api docker:web=1", "", "prune", "-wait/a |  | "],
        // Its namespace lives on without it: what says the same stays there until it comes.
        ["7 a 80 file docker:web=1", "docker:web=1@- a 80", "", "=1 |  | 7 a 80 file docker:web=1"],
        [
            "7 a 80 file docker:web=1",
            "docker:web=1@- a 81",
            "",
            "~wait/a | 7: nothing | - a 81 file docker:web=1",
        ],
        [
            "7 a 80 file docker:web=1; 7 b 81 file",
            "docker:web=1@- a 80",
            "",
            "-7/b =1 | 7: a 80 #0 | 7 a 80 file docker:web=1",
        ],
        [
            "7 a 80 file docker:web=1",
            "docker:web=1@- a 80; netns:n@7 b 81",
            "",
            "+7/b =1 | 7: a 80 #0, b 81 #1+ | 7 b 81 file; 7 a 80 file docker:web=1",
        ],
        [
            "7 a 80 file docker:web=1; 8 x 1 file",
            "docker:web=1@- a 81; netns:m@8 x 1",
            "",
            "~wait/a =1 | 7: nothing | 8 x 1 file; - a 81 file docker:web=1",
        ],
        // One that is followed by two names, one of which is not running.
        [
            "7 a 80 file docker:side=2; 7 a 80 file docker:web=1",
            "docker:side=2@7 a 80; docker:web=1@- a 80",
            "",
            "~7/a =1 |  | 7 a 80 file docker:side=2; - a 80 file docker:web=1",
        ],
        // The name was two containers' while the engine was asked.
        ["", "docker:web=1@7 a 80; docker:web=2@- a 80", "", "+7/a | 7: a 80 #0+ | 7 a 80 file docker:web=1"],
    ]);
}

#[test]
fn a_rule_whose_target_is_not_there_waits_and_stays_where_it_comes_to_unless_it_follows() {
    check_all(&[
        ["", "netns:n@- a 80", "", "+wait/a |  | - a 80 file netns:n^"],
        ["", "path:/x@- a 80, b 81", "", "+wait/a +wait/b |  | - a 80 file path:/x^; - b 81 file path:/x^"],
        ["", "follows netns:n@- a 80", "", "+wait/a |  | - a 80 file netns:n"],
        ["", "docker:web@- a 80", "", "+wait/a |  | - a 80 file docker:web"],
        ["", "stays docker:web=1@- a 80", "", "+wait/a |  | - a 80 file docker:web=1^"],
        ["- a 80 file netns:n^", "netns:n@- a 80", "", "=1 |  | - a 80 file netns:n^"],
        ["- a 81 file netns:n^", "netns:n@- a 80", "", "~wait/a |  | - a 80 file netns:n^"],
        ["- a 80 file netns:n^", "", "", "-wait/a |  | "],
        ["- a 80 file netns:n^", "netns:n@7 a 80", "", "+7/a | 7: a 80 #0+ | 7 a 80 file"],
        ["- a 80 file netns:n^", "follows netns:n@7 a 80", "", "+7/a | 7: a 80 #0+ | 7 a 80 file netns:n"],
        ["7 a 80 file", "follows netns:n@7 a 80", "", "~7/a |  | 7 a 80 file netns:n"],
        ["7 a 80 file netns:n", "follows netns:n@7 a 80", "", "=1 |  | 7 a 80 file netns:n"],
        ["7 a 80 file netns:n", "netns:n@7 a 80", "", "~7/a |  | 7 a 80 file"],
        // What it meant lives on without the name: no rule of the file is there any more, but one that follows.
        ["7 a 80 file", "netns:n@- a 80", "", "-7/a +wait/a | 7: nothing | - a 80 file netns:n^"],
        ["7 a 80 file netns:n", "follows netns:n@- a 80", "", "=1 |  | 7 a 80 file netns:n"],
        // Of `attach`.
        ["- a 80 api netns:n^", "netns:n@- a 80", "", "=1 |  | - a 80 file netns:n^"],
        ["- a 81 api netns:n^", "netns:n@- a 80", "", "refused 0.0 OfAttach!"],
        // Where nobody can tell whether it is there, what is in force stays until somebody can.
        ["7 a 80 file docker:web=1", "docker:web@? a 80", "", "=1 |  | 7 a 80 file docker:web=1"],
        ["7 a 80 file docker:web=1", "docker:web@? a 81", "", "~wait/a |  | 7 a 81 file docker:web=1"],
        [
            "7 a 80 file docker:web=1",
            "docker:web@- a 81",
            "",
            "~wait/a | 7: nothing | - a 81 file docker:web=1",
        ],
    ]);
}

#[test]
fn a_set_has_its_own_rules_and_touches_no_other_sets() {
    check_all(&[
        ["", "netns:n@7 a 80", "set=mine", "+7/a | 7: a 80 #0+ | 7 a 80 file:mine"],
        ["7 a 80 file:mine", "netns:n@7 a 80", "set=mine", "=1 |  | 7 a 80 file:mine"],
        ["7 a 81 file:mine", "netns:n@7 a 80", "set=mine", "~7/a | 7: a 80 #0+ | 7 a 80 file:mine"],
        ["7 a 80 file:mine; 7 b 81 file:other", "", "set=mine", "-7/a | 7: b 81 #1 | 7 b 81 file:other"],
        [
            "7 b 81 file:other",
            "netns:n@7 a 80",
            "set=mine",
            "+7/a | 7: a 80 #1+, b 81 #0 | 7 a 80 file:mine; 7 b 81 file:other",
        ],
        ["7 a 80 file:other", "netns:n@7 a 80", "set=mine", "refused 0.0 OfSet!"],
        ["7 a 81 file:other", "netns:n@7 a 80", "set=mine", "refused 0.0 OfSet!"],
        ["7 a 81 file:other", "netns:n@7 a 80", "set=mine prune", "refused 0.0 OfSet!"],
        // Of `attach`: what says the same becomes the set's.
        ["7 a 80 api", "netns:n@7 a 80", "set=mine", "=1 |  | 7 a 80 file:mine"],
        ["7 a 81 api", "netns:n@7 a 80", "set=mine", "refused 0.0 OfAttach!"],
        // What nobody has named leaves to sets what they have, as `export | apply -` does.
        ["7 a 80 file:other", "netns:n@7 a 80", "", "=1 |  | 7 a 80 file:other"],
        ["7 a 81 file:other", "netns:n@7 a 80", "", "refused 0.0 OfSet!"],
        [
            "7 a 80 file:other; 7 b 81 file:-",
            "netns:n@7 a 80",
            "",
            "-7/b =1 | 7: a 80 #0 | 7 a 80 file:other",
        ],
        // The same of what waits.
        ["- a 80 file:other netns:n^", "netns:n@- a 80", "set=mine", "refused 0.0 OfSet!"],
        ["- a 80 file:other netns:n^", "netns:n@- a 80", "", "=1 |  | - a 80 file:other netns:n^"],
        ["- a 80 file:other docker:web=1", "", "set=mine", " |  | - a 80 file:other docker:web=1"],
        ["- a 80 file:mine docker:web=1", "", "set=mine", "-wait/a |  | "],
        ["- a 80 file:mine netns:n^", "netns:n@7 a 80", "set=mine", "+7/a | 7: a 80 #0+ | 7 a 80 file:mine"],
        // What labels have found is no set's.
        [
            "7 a 80 found docker:web=1",
            "found docker:web=1@7 a 80",
            "set=mine",
            "=1 |  | 7 a 80 found docker:web=1",
        ],
    ]);
}

#[test]
fn entries_that_mean_one_namespace_are_one() {
    check_all(&[
        [
            "",
            "netns:n@7 a 80; netns:m@7 b 81",
            "",
            "+7/a +7/b | 7: a 80 #0+, b 81 #1+ | 7 a 80 file; 7 b 81 file",
        ],
        ["", "netns:n@7 a 80; netns:m@7 a 80", "", "+7/a | 7: a 80 #0+ | 7 a 80 file"],
        ["", "netns:n@7 a 80; netns:m@7 a 81", "", "refused 1.0 Twin!"],
        [
            "",
            "docker:web=1@7 a 80; docker:side=2@7 a 80",
            "",
            "+7/a | 7: a 80 #0+ | 7 a 80 file docker:side=2; 7 a 80 file docker:web=1",
        ],
        [
            "7 a 80 file docker:side=2; 7 a 80 file docker:web=1",
            "docker:web=1@7 a 80; docker:side=2@7 a 80",
            "",
            "=1 |  | 7 a 80 file docker:side=2; 7 a 80 file docker:web=1",
        ],
        [
            "7 a 80 file docker:side=2; 7 a 80 file docker:web=1",
            "docker:web=1@7 a 80",
            "",
            "~7/a |  | 7 a 80 file docker:web=1",
        ],
        ["", "docker:web=1@7 a 80; docker:side=2@7 a 81", "", "refused 1.0 Twin!"],
    ]);
}

#[test]
fn a_namespace_has_no_more_rules_than_fit_and_new_ones_have_the_places_of_those_that_go() {
    let told = |scene: &mut Scene, options| apply(scene, "netns:n@7 a 80", options);
    assert_eq!(told(&mut Scene::full_but(7, 0), ""), "refused 0.0 MoreThanFit");
    let mut full = Scene::full_but(7, 0);
    full.store = store("7 r3 4 file");
    let whole = told(&mut full, "");
    assert!(whole.starts_with("+7/a -7/r3 | 7: a 80 #3+, r0 1 #0, r1 2 #1, "), "{}", &whole[..60]);
}

#[test]
fn a_part_says_which_counters_begin_anew_and_who_is_to_blame() {
    let file =
        crate::reconcile::apply::testing::File::of("netns:n@7 a 80, b 81; found docker:web=1@7 c 82", "");
    let scene = Scene::of("7 a 1 file; 7 x 2 file");
    let places = Located::of(&file.looked, &file.request);
    let new = unknown(scene.standing(7), &places.there[0], &file.request);
    let known = new.iter().map(|one| (one.at, Whereabouts::default())).collect();
    let now =
        Now { standing: &scene.standing, intent: &scene.store, tells: Tells::Ingress, holds: &|_| true };
    let outcome = plan(now, &file.request, places, known).unwrap();
    let part = &outcome.plan.parts[0];
    assert_eq!(in_force(Some(part)), "a 80 #0+, b 81 #2+, c 82 #3+");
    assert_eq!((&*part.reset.before, &*part.reset.after), (&[2, 3][..], &[][..]));
    // The one that was found, which can be left out.
    assert_eq!((part.blamed, part.gone().len()), (Some(1), 1));
    assert_eq!(new.len(), 3, "what is there as it is wanted is not looked up");
}
