//! What becomes of rules that follow a target where that leads, case by case.

use super::*;
use crate::{
    intent::{
        Subject,
        testing::{check, followed, name, rule, target, told},
    },
    reconcile::testing::{OURS, Scene, elsewhere, found, in_force, redirector, variant},
};

/// What somebody has seen of a target: `PLACE TARGET[=ID]`, and what is not as usual there.
///
/// Gives what becomes of each rule (`+` for one that is new, `~` for one that is changed, `=` for one that is there), why others wait,
/// where rules were; what is in force then, and what is wanted.
fn follow(scene: &mut Scene, line: &str) -> String {
    let words: Vec<_> = line.split(' ').collect();
    let [place, of, rest @ ..] = &words[..] else { panic!("`{line}`") };
    let (target, id, _) = followed(of);
    let place = place.parse().unwrap();
    let mut seen = found(place, id);
    let ours = scene.standing(place).map(|_| redirector(OURS));
    let (mut programs, mut tells) = (Vec::from_iter(ours), Tells::Ingress);
    let mut due: Vec<_> = scene.store.of(&Subject::from(&target)).map(|(_, one)| one.clone()).collect();
    for word in rest {
        match *word {
            "lo-is-down" => seen.survey.loopback_up = false,
            "other-redirector" => programs.push(redirector(OURS + 1)),
            "no-ingress" => tells = Tells::NoIngress,
            "was-82" => due.iter_mut().for_each(|one| one.rule = rule(one.rule.name.as_str(), "82")),
            "was-more" => {
                due.extend(due.first().cloned().map(|one| Intended { rule: rule("z", "80"), ..one }));
            }
            other => panic!("{other}"),
        }
    }
    let due = due.into_iter().map(|rule| Due { rule, whereabouts: Whereabouts::default() }).collect();
    put(scene, &target, seen, (&programs, tells), due)
}

fn put(
    scene: &mut Scene,
    target: &Target,
    found: Found,
    kernel: (&[AttachedProgram], Tells),
    due: Vec<Due>,
) -> String {
    let at = found.cookie;
    let place = FoundTarget { target, found: Arc::new(found) };
    let planned = plan(scene.standing(at.0), &scene.store, &place, kernel, due);
    let put = |one: &Put| {
        let mark = match one.result {
            AttachResult::Attached => "+",
            AttachResult::Changed => "~",
            _ => "=",
        };
        let was = one.was.as_ref().map(|id| format!("<{}", &id.to_string()[..1]));
        format!("{}{mark}{}", one.name, was.unwrap_or_default())
    };
    let puts = planned.puts.iter().map(put);
    let waits = planned.waits.iter().map(|(name, why)| format!("{name}!{}", variant(why)));
    let left = planned.left.iter().map(|(at, name)| format!("left {at}/{name}"));
    let rules: Vec<_> = puts.chain(waits).chain(left).collect();
    let in_force = in_force(planned.part.as_ref());
    scene.store.edit(planned.edit);
    format!("{} | {in_force} | {}", rules.join(" "), told(&scene.store))
}

/// Each line: what there is, what was seen, what becomes of it.
#[track_caller]
fn check_all(cases: &[[&str; 3]]) {
    check(cases, |case| follow(&mut Scene::of(case[0]), case[1]));
}

#[test]
fn all_rules_of_a_container_come_at_once() {
    check_all(&[
        ["- a 80 api docker:web=1", "7 docker:web=1", "a+ | a 80 #0+ | 7 a 80 api docker:web=1"],
        [
            "- a 80 api docker:web=1; - b 81 file docker:web=1",
            "7 docker:web=1",
            "a+ b+ | a 80 #0+, b 81 #1+ | 7 a 80 api docker:web=1; 7 b 81 file docker:web=1",
        ],
        [
            "7 x 1 api; 7 y 2>handoff lease; - a 80 api docker:web=1",
            "7 docker:web=1",
            "a+ | a 80 #2+, x 1 #0, y 2>handoff #1 | 7 x 1 api; 7 y 2>handoff lease; 7 a 80 api docker:web=1",
        ],
        // Those of others are not looked at.
        [
            "- a 80 api docker:side=2; - a 81 api docker:web=1",
            "7 docker:web=1",
            "a+ | a 81 #0+ | - a 80 api docker:side=2; 7 a 81 api docker:web=1",
        ],
        ["- a 80 api podman:web=1", "7 docker:web=1", " | - | - a 80 api podman:web=1"],
        // One is new, one is there.
        [
            "7 a 80 api docker:web=1; - b 81 api docker:web=1",
            "7 docker:web=1",
            "a= b+ | a 80 #0, b 81 #1+ | 7 a 80 api docker:web=1; 7 b 81 api docker:web=1",
        ],
    ]);
}

#[test]
fn a_rule_that_cannot_be_waits_and_the_others_come() {
    const TWO: &str = "- a 80>original api docker:web=1; - b 81 api docker:web=1";
    check_all(&[
        [
            TWO,
            "7 docker:web=1 lo-is-down",
            "b+ a!LoopbackDown | b 81 #0+ | - a 80>original api docker:web=1; 7 b 81 api docker:web=1",
        ],
        [
            "- a 80%eth0 api docker:web=1; - b 81 api docker:web=1",
            "7 docker:web=1 no-ingress",
            "b+ a!NoIngress | b 81 #0+ | - a 80%eth0 api docker:web=1; 7 b 81 api docker:web=1",
        ],
        // An interface that is not there may come.
        [
            "- a 80%eth9 api docker:web=1",
            "7 docker:web=1",
            "a+ | a 80%eth9 #0+ | 7 a 80%eth9 api docker:web=1",
        ],
        [
            "- a 80 api docker:web=1",
            "7 docker:web=1 other-redirector",
            "a!OtherRedirector | - | - a 80 api docker:web=1",
        ],
        [
            "- a 80~ api docker:web=1",
            "7 docker:web=1 other-redirector",
            "a+ | a 80~ #0+ | 7 a 80~ api docker:web=1",
        ],
        [
            "7 x 1 api; 7 a 80 api docker:web=1; - b 81 api docker:web=1",
            "7 docker:web=1 other-redirector",
            "a= b!OtherRedirector | - | 7 x 1 api; 7 a 80 api docker:web=1; - b 81 api docker:web=1",
        ],
        // What is in force there stays in force.
        [
            "7 a 80>original api docker:web=1",
            "7 docker:web=1 lo-is-down",
            "a!LoopbackDown | - | 7 a 80>original api docker:web=1",
        ],
    ]);
}

#[test]
fn no_rule_takes_the_place_of_anothers() {
    check_all(&[
        [
            "7 a 80 api; - a 81 api docker:web=1",
            "7 docker:web=1",
            "a!NameTakenThere | - | 7 a 80 api; - a 81 api docker:web=1",
        ],
        // Not even by saying the same: that one ends with its namespace, and with its file.
        [
            "7 a 80 api; - a 80 api docker:web=1",
            "7 docker:web=1",
            "a!NameTakenThere | - | 7 a 80 api; - a 80 api docker:web=1",
        ],
        [
            "7 a 80 file; - a 80 api docker:web=1",
            "7 docker:web=1",
            "a!NameTakenThere | - | 7 a 80 file; - a 80 api docker:web=1",
        ],
        [
            "7 a 80 none; - a 80 api docker:web=1",
            "7 docker:web=1",
            "a!NameTakenThere | - | - a 80 api docker:web=1",
        ],
        [
            "7 a 80>handoff lease; - a 80 api docker:web=1",
            "7 docker:web=1",
            "a!NameTaken | - | 7 a 80>handoff lease; - a 80 api docker:web=1",
        ],
        [
            "7 a 80 api; - a 81 api docker:web=1; - b 82 api docker:web=1",
            "7 docker:web=1",
            "b+ a!NameTakenThere | a 80 #0, b 82 #1+ | 7 a 80 api; - a 81 api docker:web=1; 7 b 82 api docker:web=1",
        ],
        // Of several names of a container each may say the same.
        [
            "7 a 80 api docker:111=1; - a 80 api docker:web=1",
            "7 docker:web=1",
            "a= | - | 7 a 80 api docker:111=1; 7 a 80 api docker:web=1",
        ],
        [
            "7 a 80 api docker:side=2; - a 81 api docker:web=1",
            "7 docker:web=1",
            "a!NameTakenThere | - | 7 a 80 api docker:side=2; - a 81 api docker:web=1",
        ],
        // What is for this container alone is changed; not what another wants as it is, which would change it back.
        [
            "7 a 80 none; 7? a 81 api docker:web=1",
            "7 docker:web=1",
            "a~ | a 81 #0+ | 7 a 81 api docker:web=1",
        ],
        [
            "7 a 80 api docker:side=2; 7? a 81 api docker:web=1",
            "7 docker:web=1",
            "a!NameTakenThere | - | 7 a 80 api docker:side=2; 7 a 81 api docker:web=1",
        ],
        [
            "7 a 80 api docker:side=2; 7? a 81 api docker:web=1",
            "7 docker:side=2",
            "a= | - | 7 a 80 api docker:side=2; 7 a 81 api docker:web=1",
        ],
    ]);
}

#[test]
fn a_name_is_followed_to_another_container_and_a_label_is_not() {
    check_all(&[
        ["7 a 80 api docker:web=1", "7 docker:web=1", "a= | - | 7 a 80 api docker:web=1"],
        ["3 a 80 api docker:web=1", "7 docker:web=1", "a+ left 3/a | a 80 #0+ | 7 a 80 api docker:web=1"],
        ["3 a 80 api docker:web=1", "7 docker:web=2", "a+<1 left 3/a | a 80 #0+ | 7 a 80 api docker:web=2"],
        ["- a 80 api docker:web=1", "7 docker:web=2", "a+<1 | a 80 #0+ | 7 a 80 api docker:web=2"],
        // Another container has the name, in the namespace of the one before.
        ["7 a 80 api docker:web=1", "7 docker:web=2", "a=<1 | - | 7 a 80 api docker:web=2"],
        [
            "3 a 80 api docker:web=1; 3 b 81 api docker:web=1",
            "7 docker:web=1",
            "a+ b+ left 3/a left 3/b | a 80 #0+, b 81 #1+ | 7 a 80 api docker:web=1; 7 b 81 api docker:web=1",
        ],
        // One that was found is that container, whatever it is called.
        ["- a 80 found docker:web=1", "7 docker:web=1", "a+ | a 80 #0+ | 7 a 80 found docker:web=1"],
        ["- a 80 found docker:web=1", "7 docker:web=2", " | - | - a 80 found docker:web=1"],
        ["3 a 80 found docker:web=1", "7 docker:web=1", "a+ left 3/a | a 80 #0+ | 7 a 80 found docker:web=1"],
        [
            "- a 80 found docker:web=1; - b 81 api docker:web=1",
            "7 docker:web=2",
            "b+<1 | b 81 #0+ | - a 80 found docker:web=1; 7 b 81 api docker:web=2",
        ],
        // What somebody has said stays said.
        ["- a 80 file! docker:web=1", "7 docker:web=1", "a+ | a 80 #0+ | 7 a 80 file! docker:web=1"],
    ]);
}

#[test]
fn what_was_changed_since_somebody_looked_is_left_to_whoever_has_changed_it() {
    check_all(&[
        ["- a 80 api docker:web=1", "7 docker:web=1 was-82", " | - | - a 80 api docker:web=1"],
        ["- a 80 api docker:web=1", "7 docker:web=1 was-more", "a+ | a 80 #0+ | 7 a 80 api docker:web=1"],
        ["7 a 80 api docker:web=1", "7 docker:web=1 was-82", " | - | 7 a 80 api docker:web=1"],
        ["", "7 docker:web=1 was-more", " | - | "],
    ]);
}

#[test]
fn where_there_is_room_for_one_it_is_for_one_that_can_be() {
    let mut scene = Scene::full_but(7, 1);
    scene.store = crate::intent::testing::store(
        "- a 80>original api docker:web=1; - b 81 api docker:web=1; - c 82 api docker:web=1",
    );
    let told = follow(&mut scene, "7 docker:web=1 lo-is-down");
    assert!(told.starts_with("b+ a!LoopbackDown c!TooManyRules |"), "{}", &told[..60]);
}

#[test]
fn what_only_waited_for_its_target_stays_where_it_comes_to() {
    check_all(&[
        ["- a 80 file netns:n^", "7 netns:n", "a+ | a 80 #0+ | 7 a 80 file"],
        ["- a 80 api path:/x^", "7 path:/x", "a+ | a 80 #0+ | 7 a 80 api"],
        ["- a 80 file docker:web^", "7 docker:web=1", "a+ | a 80 #0+ | 7 a 80 file"],
        ["- a 80 file netns:n", "7 netns:n", "a+ | a 80 #0+ | 7 a 80 file netns:n"],
        [
            "- a 80 file netns:n; - b 81 file netns:n^",
            "7 netns:n",
            "a+ b+ | a 80 #0+, b 81 #1+ | 7 b 81 file; 7 a 80 file netns:n",
        ],
        // A name has gone to another namespace.
        ["3 a 80 file netns:n", "7 netns:n", "a+ left 3/a | a 80 #0+ | 7 a 80 file netns:n"],
        // Somebody else has put the same there meanwhile: it is one rule, and a file's is the file's.
        ["- a 80 file netns:n^; 7 a 80 api", "7 netns:n", "a= | - | 7 a 80 file"],
        ["- a 80 api netns:n^; 7 a 80 file", "7 netns:n", "a= | - | 7 a 80 file"],
        [
            "- a 80 api netns:n^; 7 a 81 file",
            "7 netns:n",
            "a!NameTakenThere | - | 7 a 81 file; - a 80 api netns:n^",
        ],
    ]);
}

#[test]
fn where_nothing_is_other_for_the_kernel_there_is_no_part() {
    let mut scene = Scene::of("7 a 80 api docker:web=1; - b 81 api docker:web=1");
    let due = |scene: &Scene, named: &str| {
        let rule = scene.store.followed(&target("docker:web"), &name(named)).unwrap().clone();
        vec![Due { rule, whereabouts: Whereabouts::default() }]
    };
    let web = target("docker:web");
    for (named, is_part) in [("a", false), ("b", true)] {
        let due = due(&scene, named);
        let place = FoundTarget { target: &web, found: Arc::new(found(7, None)) };
        let programs = [redirector(OURS), redirector(9)];
        let planned = plan(scene.standing(7), &scene.store, &place, (&programs[..1], Tells::Ingress), due);
        assert_eq!(planned.part.is_some(), is_part, "{named}");
        if let Some(part) = planned.part {
            assert_eq!((part.reset.before.clone(), part.foreign.clone()), (vec![1], Some(Vec::new())));
            assert!(part.found.is_some() && part.reset.after.is_empty());
        }
    }
    // The id of one whose engine does not say it is the one before.
    let seen = found(7, None);
    let due = due(&scene, "b");
    let told = put(&mut scene, &web, seen, (&[], Tells::Ingress), due);
    assert!(told.ends_with("7 b 81 api docker:web=1"), "{told}");
}

#[tokio::test]
async fn a_destination_that_was_found_elsewhere_is_adopted_by_the_rule_that_is_there() {
    let to = target("netns:x");
    let mut scene = Scene::of("");
    scene.store = crate::intent::testing::store("7 a 80>netns:x/127.0.0.1:1 api docker:web=1");
    let (before, now) = (elsewhere(&to, 8), elsewhere(&target("netns:y"), 9));
    scene.force(7, rule("a", "80>netns:x/127.0.0.1:1"), before.clone());
    let (web, id, _) = followed("docker:web=1");
    let rule = scene.store.followed(&web, &name("a")).unwrap().clone();
    let due = vec![Due { rule, whereabouts: now }];
    let told = put(&mut scene, &web, found(7, id), (&[], Tells::Ingress), due);
    assert!(told.starts_with("a= | - |"), "{told}");
    let before = before.elsewhere.unwrap();
    assert!(before.is_in(NetnsCookie(9)) && !before.is_in(NetnsCookie(8)));
}
