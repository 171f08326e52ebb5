//! What is found, and what is known of it while its engine is silent.

use super::*;
use crate::{
    config::Label,
    intent::testing::{check, container_and_id, lines, name, spec},
};

impl Discovered {
    /// One with these rules, found by the first that is looked for.
    pub(crate) fn of(container: Container, rules: Vec<RuleSpec>) -> Self {
        Self {
            container,
            rules: rules.into_iter().map(|rule| (0, rule)).collect(),
            by: BTreeMap::from([(0, Vec::new())]),
            labels: Labels::new(),
            image: None,
        }
    }
}

/// `NAME PORT, NAME PORT`.
pub(super) fn specs(text: &str) -> Vec<RuleSpec> {
    let rules = text.split(',').map(str::trim).filter(|rule| !rule.is_empty());
    rules
        .map(|rule| rule.split_once(' ').map(|(named, says)| spec(Some(named), says)).expect("NAME PORT"))
        .collect()
}

/// `CONTAINER=ID NAME PORT, NAME PORT; …`.
pub(super) fn found(text: &str) -> BTreeMap<ContainerId, Discovered> {
    let read = |line: &str| {
        let (of, rules) = line.split_once(' ').unwrap_or((line, ""));
        let (container, id) = container_and_id(of);
        (id, Discovered::of(container, specs(rules)))
    };
    lines(text).map(read).collect()
}

/// `LABEL NAME PORT, …` of Docker; without rules the labels say them.
fn looked_for(text: &str) -> Vec<DiscoverSpec> {
    let read = |line: &str| {
        let (label, rules) = line.split_once(' ').unwrap_or((line, ""));
        let label: Label = label.parse().unwrap();
        let read = serde_json::json!({"docker": {"label": label}, "rule": specs(rules)});
        serde_json::from_value(read).expect("what is looked for")
    };
    lines(text).map(read).collect()
}

/// Each line: the rules that a container has, those that another of what is looked for has for it, and all of them.
#[test]
fn a_container_has_of_each_name_the_rule_of_what_is_looked_for_first() {
    let cases = [
        ["", "a 80", "a:1"],
        ["a 80", "b 81", "a:0 b:1"],
        ["a 80", "", "a:0"],
        // All or none of what one says.
        ["a 80", "a 81, b 82", "a:0 wrong 1"],
        ["a 80, b 81", "a 80, b 81, c 82", "a:0 b:0 wrong 2"],
        ["a 80", "a 80", "a:0 wrong 1"],
    ];
    check(&cases, |case| {
        let mut one = Discovered::of(container_and_id("docker:web=1").0, specs(case[0]));
        let wrong = one.with(1, specs(case[1])).err();
        let rules = one.rules.iter().map(|(by, rule)| format!("{}:{by}", rule.name.as_ref().unwrap()));
        let wrong = wrong.map(|why| format!("wrong {}", why.len()));
        rules.chain(wrong).collect::<Vec<_>>().join(" ")
    });
}

/// Each line: what was looked for, what is looked for now, and what is known of two containers without asking: one with the label
/// `x`, and the rule `own` by its labels, and one with `y=1`.
#[test]
fn of_a_silent_engine_is_known_what_it_has_told_before() {
    let cases = [
        ["x", "x", "1:own"],
        ["x", "x a 80", "1:a"],
        ["x", "x a 80; y=1 a 80", "1:a 2:a"],
        ["x", "y=2 a 80", ""],
        ["x", "", ""],
        ["x", "y a 80; x", "1:own 2:a"],
        // What labels say is known of those that have had rules by them.
        ["x a 80", "x", "1:"],
        ["z; x", "z; x", "1:"],
    ];
    check(&cases, |case| {
        let mut known = found("docker:one=1 own 1; docker:two=2 b 2");
        for (one, label) in known.values_mut().zip([("x", ""), ("y", "1")]) {
            one.labels.insert(label.0.into(), label.1.into());
        }
        let discovery = Discovery::default();
        replace(&discovery, looked_for(case[0]), AllFound::from([(Engine::Docker, known)]));
        let recalled = discovery.recall(Engine::Docker, &looked_for(case[1]));
        let told = recalled.iter().map(|(id, one)| {
            let rules: Vec<_> =
                one.rules.iter().filter_map(|(_, rule)| Some(rule.name.clone()?.to_string())).collect();
            format!("{}:{}", &id.to_string()[..1], rules.join("+"))
        });
        told.collect::<Vec<_>>().join(" ")
    });
}

/// One file, after another.
fn replace(discovery: &Discovery, specs: Vec<DiscoverSpec>, found: AllFound) {
    let specs = specs.into_iter().map(|spec| (SetName::default(), spec)).collect();
    discovery.replace(specs, (|_: &SetName| false, BTreeMap::new()), found);
}

/// What one set looks for, and names itself, is not another's to end.
#[test]
fn each_set_looks_for_what_it_has() {
    let discovery = Discovery::default();
    let [mine, other] = ["mine", "other"].map(SetName::new);
    let of = |set: &SetName, text: &str| -> Vec<_> {
        looked_for(text).into_iter().map(|spec| (set.clone(), spec)).collect()
    };
    let stays = |set: &SetName| *set != mine;
    let own = OwnRules::of(&[]);
    let all = [of(&mine, "x a 80"), of(&other, "y b 81")].concat();
    let named = BTreeMap::from([(mine.clone(), own.clone()), (other.clone(), own)]);
    discovery.replace(all, (stays, named), AllFound::new());
    let (kept, _) = discovery.of_sets(stays);
    assert_eq!(kept, of(&other, "y b 81"));
    discovery.replace(kept, (stays, BTreeMap::new()), AllFound::new());
    assert_eq!(discovery.specs(), looked_for("y b 81"));
    assert_eq!(discovery.state().own.keys().collect::<Vec<_>>(), [&other]);
}

#[test]
fn the_engines_that_are_looked_at_are_those_of_the_file_and_a_failure_is_news_once() {
    let discovery = Discovery::default();
    assert!(!discovery.is_looking_at(Engine::Docker));
    replace(&discovery, looked_for("x a 80"), AllFound::new());
    assert!(discovery.is_looking_at(Engine::Docker) && !discovery.is_looking_at(Engine::Podman));
    let news = [Some("late"), Some("late"), Some("gone"), None, None];
    assert_eq!(news.map(|why| discovery.is_deaf(Engine::Docker, why)), [true, false, true, true, false]);
    discovery.is_deaf(Engine::Docker, Some("late"));
    assert_eq!(discovery.view()[0].why.as_deref(), Some("late"));
    // It is kept by a file that looks there, and by no other.
    replace(&discovery, looked_for("y a 80"), AllFound::new());
    assert_eq!(discovery.view()[0].why.as_deref(), Some("late"));
    replace(&discovery, Vec::new(), AllFound::new());
    replace(&discovery, looked_for("x a 80"), AllFound::new());
    assert_eq!(discovery.view()[0].why, None);
    discovery.detached([(container_and_id("docker:x=1").1, name("a"))]);
    assert_eq!(discovery.state().detached.len(), 1);
    replace(&discovery, looked_for("x a 80"), AllFound::new());
    assert!(discovery.state().detached.is_empty(), "the next file has all of it again");
}

/// Only who is looked at is asked after.
#[test]
fn what_has_happened_to_a_container_is_noted_for_an_engine_that_is_looked_at() {
    let discovery = Discovery::default();
    replace(&discovery, looked_for("x a 80"), AllFound::new());
    let (_, id) = container_and_id("docker:x=1");
    for engine in Engine::ALL {
        discovery.look_after(engine, Some(&id));
        discovery.look_after(engine, None);
    }
    assert_eq!(Engine::ALL.map(|engine| discovery.at(engine).changed().len()), [1, 0]);
}
