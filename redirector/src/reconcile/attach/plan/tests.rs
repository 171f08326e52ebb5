//! What an attach comes to, case by case.

use super::*;
use crate::{
    intent::testing::{check, followed, name, spec, target, told},
    reconcile::{
        attach::When,
        testing::{Scene, elsewhere, variant},
    },
};

/// `WHOM PLACE TARGET[=ID] NAME PORT[>TO] [process]`; the name `_` is none. `WHOM` has a `!` where the host's namespace may be
/// meant.
fn attach(scene: &mut Scene, line: &str) -> String {
    let words: Vec<_> = line.split(' ').collect();
    let [whom, place, to, named, says, means @ ..] = &words[..] else { panic!("`{line}`") };
    let host_netns = if whom.ends_with('!') { HostNetns::Allowed } else { HostNetns::Refused };
    let whom = match whom.trim_end_matches('!') {
        "namespace" => For::Namespace,
        "target" => For::Target,
        "program" => For::Program(When::AtOnce(crate::config::Listeners::Both)),
        other => panic!("{other}"),
    };
    let (target, id, _) = followed(to);
    let place = place.parse().unwrap();
    let asked = Asked {
        target: &target,
        at: NetnsCookie(place),
        id: id.as_ref(),
        spec: spec(Some(*named).filter(|named| *named != "_"), says),
        whom: &whom,
        host_netns,
        means_process: !means.is_empty(),
    };
    match plan(scene.standing(place), &scene.store, asked) {
        Err(refused) => format!("refused {}", variant(&refused)),
        Ok(AttachPlan { result, is_other, rule, before, index, consumer, edit, left }) => {
            assert_eq!(before.is_some(), result == AttachResult::Changed);
            let mut told_of = format!("{} {} #{index}", variant(&result).to_lowercase(), rule.name);
            if consumer != CONSUMER_RELAY {
                told_of.extend([" consumer ", &consumer.to_string()]);
            }
            if !is_other {
                told_of.push_str(" same");
            }
            if let Some(left) = left {
                told_of.extend([" left ", &left.to_string()]);
            }
            scene.store.edit(edit);
            format!("{told_of} | {}", told(&scene.store))
        }
    }
}

/// Each line: what there is, what is asked for, and what it comes to: the answer, and what is wanted then.
#[track_caller]
fn check_all(cases: &[[&str; 3]]) {
    check(cases, |case| attach(&mut Scene::of(case[0]), case[1]));
}

#[test]
fn a_rule_is_new_or_changed_or_what_it_was() {
    check_all(&[
        ["", "namespace 7 netns:n a 80", "attached a #0 | 7 a 80 api"],
        ["", "namespace 7 netns:n _ 80", "attached rule-1 #0 | 7 rule-1 80 api"],
        [
            "7 rule-1 81 api",
            "namespace 7 netns:n _ 80",
            "attached rule-2 #1 | 7 rule-1 81 api; 7 rule-2 80 api",
        ],
        [
            "7 rule-2 81 api",
            "namespace 7 netns:n _ 80",
            "attached rule-1 #1 | 7 rule-1 80 api; 7 rule-2 81 api",
        ],
        ["7 a 80 api", "namespace 7 netns:n a 80", "unchanged a #0 same | 7 a 80 api"],
        ["7 a 80 api", "namespace 7 netns:n a 81", "changed a #0 | 7 a 81 api"],
        ["7 a 80 api; 7 b 81 api", "namespace 7 netns:n b 82", "changed b #1 | 7 a 80 api; 7 b 82 api"],
        // Without a name it is the one that says the same.
        ["7 a 80 api", "namespace 7 netns:n _ 80", "unchanged a #0 same | 7 a 80 api"],
        // With one it is not.
        ["7 a 80 api", "namespace 7 netns:n b 80", "attached b #1 | 7 a 80 api; 7 b 80 api"],
        // Of another namespace it is none.
        ["3 a 80 api", "namespace 7 netns:n a 81", "attached a #0 | 3 a 80 api; 7 a 81 api"],
        ["3 a 80 api", "namespace 7 netns:n _ 80", "attached rule-1 #0 | 3 a 80 api; 7 rule-1 80 api"],
        // What nobody wanted is somebody's now.
        ["7 a 80 none", "namespace 7 netns:n a 80", "unchanged a #0 same | 7 a 80 api"],
    ]);
}

#[test]
fn what_a_program_holds_is_in_the_way_and_takes_no_other_rules_name() {
    check_all(&[
        ["", "program 7 netns:n a 80>handoff", "attached a #0 consumer 1 | 7 a 80>handoff lease"],
        [
            "7 a 80>handoff lease",
            "program 7 netns:n b 80>handoff",
            "attached b #1 consumer 2 | 7 a 80>handoff lease; 7 b 80>handoff lease",
        ],
        // It is never the one that says the same.
        [
            "7 a 80>handoff lease",
            "program 7 netns:n _ 80>handoff",
            "attached rule-1 #1 consumer 2 | 7 a 80>handoff lease; 7 rule-1 80>handoff lease",
        ],
        ["7 a 80>handoff lease", "namespace 7 netns:n a 80", "refused NameTaken"],
        ["7 a 80>handoff lease", "target 7 docker:web=1 a 80", "refused NameTaken"],
        ["7 a 80>handoff lease", "program 7 netns:n a 80>handoff", "refused NameTaken"],
        ["7 a 80 api", "program 7 netns:n a 80>handoff", "refused NameTaken"],
        ["7 a 80 file", "program 7 netns:n a 80>handoff", "refused NameTaken"],
        // What waits for a container waits on: it comes when the program has ended.
        [
            "- a 80 api docker:web=1",
            "program 7 docker:web=1 a 80>handoff",
            "attached a #0 consumer 1 | 7 a 80>handoff lease; - a 80 api docker:web=1",
        ],
        [
            "- a 80 file docker:web=1",
            "program 7 docker:web=1 a 80>handoff",
            "attached a #0 consumer 1 | 7 a 80>handoff lease; - a 80 file docker:web=1",
        ],
    ]);
}

#[test]
fn what_a_file_says_is_for_the_file_to_change() {
    check_all(&[
        ["7 a 80 file", "namespace 7 netns:n a 81", "refused OfFile"],
        ["7 a 80 file", "namespace 7 netns:n a 80", "unchanged a #0 same | 7 a 80 file"],
        ["7 a 80 file", "namespace 7 netns:n _ 80", "unchanged a #0 same | 7 a 80 file"],
        ["7 a 80 file", "namespace 7 netns:n _ 81", "attached rule-1 #1 | 7 a 80 file; 7 rule-1 81 api"],
        // Whether it follows as well.
        ["7 a 80 file", "target 7 docker:web=1 a 80", "unchanged a #0 same | 7 a 80 file"],
        [
            "7 a 80 file docker:web=1",
            "namespace 7 docker:web=1 a 80",
            "unchanged a #0 same | 7 a 80 file docker:web=1",
        ],
        ["7 a 80 file docker:web=1", "namespace 7 netns:n a 81", "refused OfFile"],
        ["7 a 80 found docker:web=1", "target 7 docker:web=1 a 81", "refused OfFile"],
        [
            "7 a 80 found docker:web=1",
            "target 7 docker:web=1 _ 80",
            "unchanged a #0 same | 7 a 80 found docker:web=1",
        ],
        // Also of a rule that waits for the container, or is where that was.
        ["- a 80 file docker:web=1", "target 7 docker:web=1 a 81", "refused OfFileFor"],
        ["- a 80 file docker:web=1", "namespace 7 docker:web=1 a 81", "refused OfFileFor"],
        ["- a 80 found docker:web=1", "target 7 docker:web=1 a 81", "refused OfFileFor"],
        ["3 a 80 file docker:web=1", "target 7 docker:web=2 a 81", "refused OfFileFor"],
        ["- a 80 found docker:web=1", "target 7 docker:web=2 a 80", "refused OfFileFor"],
        ["7 a 82 api; - a 80 file docker:web=1", "namespace 7 docker:web=1 a 81", "refused OfFileFor"],
        // It comes, and stays the file's.
        [
            "- a 80 file docker:web=1",
            "target 7 docker:web=1 a 80",
            "attached a #0 | 7 a 80 file docker:web=1",
        ],
        [
            "- a 80 file docker:web=1",
            "namespace 7 docker:web=2 a 80",
            "attached a #0 | 7 a 80 file docker:web=2",
        ],
        [
            "- a 80 found docker:web=1",
            "target 7 docker:web=1 a 80",
            "attached a #0 | 7 a 80 found docker:web=1",
        ],
        [
            "3 a 80 file docker:web=1",
            "target 7 docker:web=2 a 80",
            "attached a #0 left 3 | 7 a 80 file docker:web=2",
        ],
        [
            "7 a 81 api; - a 80 file docker:web=1",
            "target 7 docker:web=1 a 80",
            "changed a #0 | 7 a 80 file docker:web=1",
        ],
        [
            "7 a 80 api; - a 80 file docker:web=1",
            "target 7 docker:web=1 a 80",
            "changed a #0 same | 7 a 80 file docker:web=1",
        ],
        // Who does not name the container does not mean that rule.
        [
            "- a 80 file docker:web=1",
            "namespace 7 netns:n a 81",
            "attached a #0 | 7 a 81 api; - a 80 file docker:web=1",
        ],
    ]);
}

#[test]
fn a_rule_begins_to_follow_a_container_and_ends_with_the_last_word() {
    check_all(&[
        ["", "target 7 docker:web=1 a 80", "attached a #0 | 7 a 80 api docker:web=1"],
        ["7 a 80 api", "target 7 docker:web=1 a 80", "changed a #0 same | 7 a 80 api docker:web=1"],
        ["7 a 80 api", "target 7 docker:web=1 a 81", "changed a #0 | 7 a 81 api docker:web=1"],
        [
            "7 a 80 api docker:web=1",
            "target 7 docker:web=1 a 80",
            "unchanged a #0 same | 7 a 80 api docker:web=1",
        ],
        [
            "7 a 80 api docker:web=1",
            "target 7 docker:web=1 _ 80",
            "unchanged a #0 same | 7 a 80 api docker:web=1",
        ],
        ["7 a 80 api docker:web=1", "namespace 7 docker:web=1 a 80", "changed a #0 same | 7 a 80 api"],
        ["7 a 80 api docker:web=1", "namespace 7 netns:n a 80", "changed a #0 same | 7 a 80 api"],
        [
            "7 a 80 api docker:web=1",
            "target! 7 docker:web=1 a 80",
            "changed a #0 same | 7 a 80 api! docker:web=1",
        ],
        // Another name of the same container, or another container that shares the namespace.
        [
            "7 a 80 api docker:web=1",
            "target 7 docker:other=1 a 80",
            "changed a #0 same | 7 a 80 api docker:other=1",
        ],
        [
            "7 a 80 api docker:web=1",
            "target 7 docker:other=1 a 81",
            "changed a #0 | 7 a 81 api docker:other=1",
        ],
        [
            "7 a 80 api docker:side=2; 7 a 80 api docker:web=1",
            "target 7 docker:web=1 a 80",
            "unchanged a #0 same | 7 a 80 api docker:web=1",
        ],
        // It was elsewhere, with the container that had the name.
        [
            "3 a 80 api docker:web=1",
            "target 7 docker:web=2 a 80",
            "attached a #0 left 3 | 7 a 80 api docker:web=2",
        ],
        [
            "3 a 80 api docker:web=1",
            "target 7 docker:web=2 a 81",
            "attached a #0 left 3 | 7 a 81 api docker:web=2",
        ],
        [
            "3 a 80 api docker:web=1",
            "target 7 docker:side=2 a 80",
            "attached a #0 | 7 a 80 api docker:side=2; 3 a 80 api docker:web=1",
        ],
        ["3 a 80 api docker:web=1", "namespace 7 docker:web=2 a 80", "attached a #0 left 3 | 7 a 80 api"],
        [
            "3 a 80 api docker:web=1; 7 a 80 api",
            "namespace 7 docker:web=2 a 80",
            "changed a #0 same left 3 | 7 a 80 api",
        ],
        // It has waited.
        ["- a 80 api docker:web=1", "target 7 docker:web=1 a 80", "attached a #0 | 7 a 80 api docker:web=1"],
        ["- a 80 api docker:web=1", "namespace 7 docker:web=1 a 80", "attached a #0 | 7 a 80 api"],
        ["7 a 80 api; - a 81 api docker:web=1", "namespace 7 docker:web=1 a 81", "changed a #0 | 7 a 81 api"],
        [
            "7 a 80 api; - a 81 api docker:web=1",
            "target 7 docker:web=1 a 80",
            "changed a #0 same | 7 a 80 api docker:web=1",
        ],
    ]);
}

#[test]
fn a_name_can_be_followed_and_a_rule_that_only_waited_for_it_waits_no_more() {
    check_all(&[
        ["", "target 7 netns:n a 80", "attached a #0 | 7 a 80 api netns:n"],
        ["", "target 7 path:/x a 80", "attached a #0 | 7 a 80 api path:/x"],
        ["7 a 80 api", "target 7 netns:n a 80", "changed a #0 same | 7 a 80 api netns:n"],
        ["7 a 80 api netns:n", "target 7 netns:n a 80", "unchanged a #0 same | 7 a 80 api netns:n"],
        ["7 a 80 api netns:n", "namespace 7 netns:n a 80", "changed a #0 same | 7 a 80 api"],
        ["3 a 80 api netns:n", "target 7 netns:n a 80", "attached a #0 left 3 | 7 a 80 api netns:n"],
        ["- a 80 api netns:n^", "namespace 7 netns:n a 80", "attached a #0 | 7 a 80 api"],
        ["- a 81 api netns:n^", "namespace 7 netns:n a 80", "attached a #0 | 7 a 80 api"],
        ["- a 80 api netns:n^", "target 7 netns:n a 80", "attached a #0 | 7 a 80 api netns:n"],
        ["- a 80 file netns:n^", "namespace 7 netns:n a 80", "attached a #0 | 7 a 80 file"],
        ["- a 80 file netns:n", "namespace 7 netns:n a 80", "attached a #0 | 7 a 80 file netns:n"],
        ["- a 81 file netns:n^", "namespace 7 netns:n a 80", "refused OfFileFor"],
        [
            "- a 80 api netns:m^",
            "namespace 7 netns:n a 80",
            "attached a #0 | 7 a 80 api; - a 80 api netns:m^",
        ],
    ]);
}

/// Nobody has said that the rule that waits is meant.
#[test]
fn a_rule_without_a_name_takes_none_of_a_rule_that_waits_for_the_container() {
    check_all(&[
        [
            "- rule-1 80 api docker:web=1",
            "target 7 docker:web=1 _ 81",
            "attached rule-2 #0 | - rule-1 80 api docker:web=1; 7 rule-2 81 api docker:web=1",
        ],
        [
            "- rule-1 80 api docker:web=1",
            "namespace 7 docker:web=1 _ 81",
            "attached rule-2 #0 | 7 rule-2 81 api; - rule-1 80 api docker:web=1",
        ],
        [
            "- rule-1 80 file docker:web=1",
            "target 7 docker:web=1 _ 81",
            "attached rule-2 #0 | - rule-1 80 file docker:web=1; 7 rule-2 81 api docker:web=1",
        ],
        [
            "3 rule-1 80 api docker:web=1",
            "target 7 docker:web=2 _ 81",
            "attached rule-2 #0 | 3 rule-1 80 api docker:web=1; 7 rule-2 81 api docker:web=2",
        ],
        [
            "7 rule-2 1 api; - rule-1 80 api docker:web=1",
            "target 7 docker:web=1 _ 81",
            "attached rule-3 #1 | 7 rule-2 1 api; - rule-1 80 api docker:web=1; 7 rule-3 81 api docker:web=1",
        ],
        [
            "- rule-1 80 api docker:web=1",
            "program 7 docker:web=1 _ 81>handoff",
            "attached rule-2 #0 consumer 1 | 7 rule-2 81>handoff lease; - rule-1 80 api docker:web=1",
        ],
        // It says the same: then it is that one.
        ["- a 80 api docker:web=1", "target 7 docker:web=1 _ 80", "attached a #0 | 7 a 80 api docker:web=1"],
        [
            "3 a 80 api docker:web=1",
            "target 7 docker:web=2 _ 80",
            "attached a #0 left 3 | 7 a 80 api docker:web=2",
        ],
        // But not where another has the name.
        [
            "7 a 81 api; - a 80 api docker:web=1",
            "target 7 docker:web=1 _ 80",
            "attached rule-1 #1 | 7 a 81 api; - a 80 api docker:web=1; 7 rule-1 80 api docker:web=1",
        ],
        // What waits for another container has nothing to do with it.
        [
            "- rule-1 80 api docker:side=2",
            "target 7 docker:web=1 _ 81",
            "attached rule-1 #0 | - rule-1 80 api docker:side=2; 7 rule-1 81 api docker:web=1",
        ],
    ]);
}

#[test]
fn a_namespace_takes_as_many_rules_and_programs_as_there_is_room() {
    let mut full = Scene::full_but(7, 0);
    assert_eq!(attach(&mut full, "namespace 7 netns:n a 80"), "refused TooManyRules");
    assert!(attach(&mut full, "namespace 7 netns:n r5 80").starts_with("changed r5 #5 |"));
    assert!(attach(&mut full, "namespace 7 netns:n _ 6").starts_with("unchanged r5 #5 same |"));
    let mut nearly = Scene::full_but(7, 1);
    let last = redirector_ebpf::MAX_RULES - 1;
    assert!(attach(&mut nearly, "namespace 7 netns:n a 80").starts_with(&format!("attached a #{last} |")));
    let mut programs = Scene::full_of_programs(7);
    assert_eq!(attach(&mut programs, "program 7 netns:n a 80>handoff"), "refused TooManyPrograms");
    assert!(attach(&mut programs, "namespace 7 netns:n a 80").starts_with("attached a #15 |"));
    // The lowest that is free, of both.
    let standing = programs.standing.get_mut(&NetnsCookie(7)).unwrap();
    standing.rules.retain(|state| state.rule.name != name("r4"));
    let found = attach(&mut programs, "program 7 netns:n b 80>handoff");
    assert!(found.starts_with("attached b #3 consumer 4 |"), "{found}");
}

/// Each line: of whom the rule is, whether the process that it means was known as one, and what it comes to that somebody says the
/// same and means a process.
#[tokio::test]
async fn whoever_names_a_process_has_a_destination_of_his_own() {
    const TO: &str = "80>pid:1/127.0.0.1:1";
    let cases = [
        ["api", "no", "changed a #0"],
        ["api", "yes", "unchanged a #0 same"],
        ["file", "no", "unchanged a #0 same"],
        ["file", "yes", "unchanged a #0 same"],
    ];
    check(&cases, |case| {
        let mut scene = Scene::of("");
        scene.store = crate::intent::testing::store(&format!("7 a {TO} {}", case[0]));
        let of = if case[1] == "yes" { "pid:1" } else { "netns:x" };
        scene.force(7, crate::intent::testing::rule("a", TO), elsewhere(&target(of), 9));
        let told = attach(&mut scene, &format!("namespace 7 netns:n a {TO} process"));
        told.split(" | ").next().unwrap().to_owned()
    });
}
