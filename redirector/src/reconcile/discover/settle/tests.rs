//! What becomes of rules when an engine says which containers there are.

use super::*;
use crate::{
    config::{RuleName, SetName, Target, file::NamespaceSpec},
    intent::testing::{check, container_and_id, id, name, store, told},
    reconcile::discover::{
        OwnRules,
        tests::{found, specs},
    },
};

/// Each line: what is wanted, which containers there are, what is wanted then, and where rules were that have gone.
#[test]
fn rules_of_a_found_container_end_with_it_and_go_by_its_name() {
    let cases = [
        ["7 a 80 found docker:web=1", "docker:web=1", "7 a 80 found docker:web=1 | "],
        ["7 a 80 found docker:web=1", "", " | 7/a"],
        ["- a 80 found docker:web=1", "", " | "],
        ["7 a 80 found docker:web=1", "docker:new=1", "7 a 80 found docker:new=1 | 7/a"],
        ["- a 80 found docker:web=1", "docker:new=1", "- a 80 found docker:new=1 | "],
        // Another one has the name.
        ["7 a 80 found docker:web=1", "docker:web=2", " | 7/a"],
        ["7 a 80 found docker:web=1", "docker:old=1; docker:web=2", "7 a 80 found docker:old=1 | 7/a"],
        // Two that change their names at once.
        [
            "7 a 80 found docker:x=1; 8 a 81 found docker:y=2",
            "docker:x=2; docker:y=1",
            "8 a 81 found docker:x=2; 7 a 80 found docker:y=1 | 7/a 8/a",
        ],
        [
            "7 a 80 found docker:x=1; 8 a 81 found docker:y=2; 9 a 82 found docker:z=3",
            "docker:y=1; docker:z=2; docker:x=3",
            "9 a 82 found docker:x=3; 7 a 80 found docker:y=1; 8 a 81 found docker:z=2 | 7/a 8/a 9/a",
        ],
        // Of the other name there is one that somebody wants.
        ["7 a 80 found docker:x=1; 8 a 81 api docker:y=2", "docker:y=1", "8 a 81 api docker:y=2 | 7/a"],
        ["7 a 80 found docker:x=1; 8 a 81 file docker:y=2", "docker:y=1", "8 a 81 file docker:y=2 | 7/a"],
        [
            "7 a 80 found docker:x=1; 8 b 81 api docker:y=2",
            "docker:y=1",
            "7 a 80 found docker:y=1; 8 b 81 api docker:y=2 | 7/a",
        ],
        [
            "7 a 80 found docker:x=1; 8 a 81 found docker:y=2",
            "docker:y=1",
            "7 a 80 found docker:y=1 | 7/a 8/a",
        ],
        // What was not found is not looked at, nor what is another engine's.
        [
            "7 a 80 file docker:web=1; 8 b 81 api docker:web=1",
            "",
            "7 a 80 file docker:web=1; 8 b 81 api docker:web=1 | ",
        ],
        ["7 a 80 found podman:web=1", "", "7 a 80 found podman:web=1 | "],
        ["7 a 80 api", "", "7 a 80 api | "],
    ];
    check(&cases, |case| {
        let mut store = store(case[0]);
        let (edit, left) = moved(&store, Engine::Docker, &found(case[1]));
        let left: Vec<_> = left.iter().map(|(at, name)| format!("{at}/{name}")).collect();
        store.edit(edit);
        let mut told: Vec<_> = told(&store).split("; ").map(str::to_owned).collect();
        told.sort_by_key(|line| line.split(' ').nth(4).map(str::to_owned));
        format!("{} | {}", told.join("; "), left.join(" "))
    });
}

/// Each line: what is wanted, a container that was found, what the file says of containers itself, what was detached of it, what is
/// wanted then, and of how many rules it is told that they are in the way.
#[test]
fn a_found_container_gets_what_it_has_not_and_nobody_keeps_from_it() {
    let cases = [
        ["", "docker:web=1 a 80", "", "", "- a 80 found docker:web=1 | 0"],
        ["", "docker:web=1 a 80, b 81", "", "", "- a 80 found docker:web=1; - b 81 found docker:web=1 | 0"],
        ["", "docker:web=1", "", "", " | 0"],
        [
            "7 a 80 found docker:web=1",
            "docker:web=1 a 80, b 81",
            "",
            "",
            "7 a 80 found docker:web=1; - b 81 found docker:web=1 | 0",
        ],
        ["", "docker:web=1 a 80, b 81", "docker:web a", "", "- b 81 found docker:web=1 | 0"],
        ["", "docker:web=1 a 80", "docker:111111111111 a", "", " | 0"],
        ["", "docker:web=1 a 80", "docker:other a", "", "- a 80 found docker:web=1 | 0"],
        ["", "docker:web=1 a 80, b 81", "", "a", "- b 81 found docker:web=1 | 0"],
        [
            "- a 81 api docker:web=1",
            "docker:web=1 a 80, b 81",
            "",
            "",
            "- a 81 api docker:web=1; - b 81 found docker:web=1 | 1",
        ],
        ["- a 81 file docker:web=1", "docker:web=1 a 80", "", "", "- a 81 file docker:web=1 | 0"],
        ["7 a 81 api", "docker:web=1 a 80", "", "", "7 a 81 api; - a 80 found docker:web=1 | 0"],
    ];
    check(&cases, |case| {
        let mut store = store(case[0]);
        let own = case[2].split_once(' ').map(|(target, named)| NamespaceSpec {
            target: target.parse().unwrap(),
            follow: None,
            host_netns: false,
            rules: specs(&format!("{named} 1")),
        });
        let detached = Some(case[3]).filter(|named| !named.is_empty()).map(|named| (id("1"), name(named)));
        let state = State {
            own: BTreeMap::from([(SetName::default(), OwnRules::of(own.as_slice()))]),
            detached: detached.into_iter().collect(),
            ..State::default()
        };
        let (mut edit, mut in_the_way) = (Edit::default(), 0);
        for (id, one) in &mut found(case[1]) {
            place(&store, &state, (id, one), &mut edit);
            in_the_way += one.by.values().map(Vec::len).sum::<usize>();
        }
        store.edit(edit);
        format!("{} | {in_the_way}", told(&store))
    });
}

/// Each line: what a file names, the container, the rule, whether the file has it for that container.
#[test]
fn a_file_names_a_container_by_its_name_or_its_id_or_the_begin_of_that() {
    let full = "1".repeat(64);
    let by_full = format!("docker:{full}");
    let cases = [
        ["docker:web", "docker:web=1", "a", "true"],
        ["docker:web", "docker:web=1", "b", "false"],
        ["docker:web", "docker:other=1", "a", "false"],
        ["docker:web", "podman:web=1", "a", "false"],
        ["docker:111111111111", "docker:web=1", "a", "true"],
        ["docker:111111111111", "docker:web=2", "a", "false"],
        ["docker:11111111111", "docker:web=1", "a", "false"],
        ["podman:111111111111", "docker:web=1", "a", "false"],
        [&by_full, "docker:web=1", "a", "true"],
        ["netns:web", "docker:web=1", "a", "false"],
        ["docker:zzzzzzzzzzzz", "docker:zzzzzzzzzzzz=1", "a", "true"],
    ];
    check(&cases, |case| {
        let target: Target = case[0].parse().unwrap();
        let spec = NamespaceSpec { target, follow: None, host_netns: false, rules: specs("a 80") };
        let (container, id) = container_and_id(case[1]);
        let named: RuleName = name(case[2]);
        OwnRules::of(&[spec]).has(&container, &id, &named).to_string()
    });
}
