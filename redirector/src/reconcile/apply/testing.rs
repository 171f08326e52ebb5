//! What tests have of a file: entries as text, and what applying them comes to.
//!
//! An entry is `[found|stays|follows] TARGET[=ID]@PLACE NAME PORT[>TO], NAME PORT[>TO]`. The place is the number of a namespace, `-`
//! where nothing is there, `?` where that cannot be told, `!` where it cannot be opened, `!!` where that is the file's fault. `found`
//! is a container that was found by a label, `stays` one that is not followed, `follows` a name that is. Found ones come last, by
//! their ids.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    places::{Led, Located},
    plan::{Now, plan, unknown},
    request::Request,
    scope::SetScope,
    set_aside::{EntryAside, SetAside},
    wanted::{Unplanned, Waits},
};
use crate::{
    config::{Container, Engine, RuleSpec, SetName, Target, file::NamespaceSpec},
    control::{Change, Code, Error, Refusal},
    dial::Whereabouts,
    intent::{
        Prune, Subject,
        testing::{container_and_id, lines, spec, target, told},
    },
    locate::{ContainerId, EngineError, Engines},
    netns::NetnsCookie,
    reconcile::{
        discover::{AllFound, Discovered, OwnRules},
        judge::Tells,
        testing::{OURS, Scene, found, in_force, redirector},
    },
};

/// What is wanted, and what a look has found for each entry.
pub(super) struct File {
    pub(super) request: Request,
    pub(super) looked: Vec<Led>,
}

impl File {
    /// Reads entries. Options: `prune`, `lenient`, `again=PLACE,PLACE` of what was set aside, `set=NAME`, `deaf` of an engine.
    pub(super) fn of(text: &str, options: &str) -> Self {
        let (mut namespaces, mut all_found, mut looked) = (Vec::new(), AllFound::new(), Vec::new());
        for (entry, text) in lines(text).enumerate() {
            let read = Entry::of(text);
            looked.push(read.led(entry));
            match (read.is_found, read.container) {
                (true, Some((container, id))) => {
                    let of_engine = all_found.entry(container.engine).or_default();
                    of_engine.insert(id, Discovered::of(container, read.rules));
                }
                _ => namespaces.push(read.namespace),
            }
        }
        let (mut prune, mut deaf, mut lenient, mut again, mut set) =
            (Prune::No, BTreeMap::new(), false, None, None);
        for option in options.split_whitespace() {
            match option.split_once('=').unwrap_or((option, "")) {
                ("prune", _) => prune = Prune::Api,
                ("lenient", _) => lenient = true,
                ("deaf", _) => drop(deaf.insert(Engine::Docker, unreachable_engine())),
                ("again", places) => again = Some(places),
                ("set", name) => set = Some(name),
                _ => {}
            }
        }
        let asides = |places: &str| -> Vec<EntryAside> {
            let places = places.split(',').map(|place| place.parse().ok().map(NetnsCookie));
            let specs = namespaces.iter().zip(places);
            specs
                .map(|(spec, at)| EntryAside::new((spec.clone(), SetName::default()), "before".into(), at))
                .collect()
        };
        let again = again.map(asides).map(|list| {
            let set_aside = SetAside::default();
            set_aside.replace(&SetScope::default(), list);
            set_aside.again().1
        });
        let mut request = Request::new(namespaces, (prune, false), (all_found, &deaf), &OwnRules::default());
        if let Some(set) = set {
            request = request.of_set(SetName::new(set));
        }
        if lenient {
            request = request.lenient();
        }
        if let Some(again) = again {
            request = request.again(again);
        }
        Self { request, looked }
    }

    /// Something is not as usual in a namespace.
    fn look_again(&mut self, options: &str) {
        for option in options.split_whitespace() {
            let Some((what, place)) = option.split_once('=') else { continue };
            for led in &mut self.looked {
                let Led::There(there) = led else { continue };
                let there = Arc::get_mut(there).expect("nobody else has it");
                match what {
                    _ if place != there.cookie.to_string() => {}
                    "lo-is-down" => there.survey.loopback_up = false,
                    "other-redirector" => there.programs = vec![redirector(OURS), redirector(OURS + 1)],
                    _ => {}
                }
            }
        }
    }
}

/// One entry.
struct Entry {
    namespace: NamespaceSpec,
    container: Option<(Container, ContainerId)>,
    rules: Vec<RuleSpec>,
    is_found: bool,
    place: String,
}

impl Entry {
    fn of(text: &str) -> Self {
        let (head, rules) = text.split_once('@').expect("TARGET@PLACE");
        let (place, rules) = rules.split_once(' ').unwrap_or((rules, ""));
        let (kind, named) = head.rsplit_once(' ').unwrap_or(("", head));
        let container = named.contains('=').then(|| container_and_id(named));
        let target = match &container {
            Some((container, _)) => Target::Container(container.clone()),
            None => target(named),
        };
        let read = |rule: &str| {
            let (named, says) = rule.trim().split_once(' ').expect("NAME PORT");
            spec(Some(named), says)
        };
        let rules: Vec<_> = rules.split(',').filter(|rule| !rule.trim().is_empty()).map(read).collect();
        let follow = match kind {
            "stays" => Some(false),
            "follows" => Some(true),
            _ => None,
        };
        let namespace = NamespaceSpec { target, follow, host_netns: false, rules: rules.clone() };
        Self { namespace, container, rules, is_found: kind == "found", place: place.to_owned() }
    }

    fn led(&self, entry: usize) -> Led {
        let refusal =
            |is_flaw| Refusal { namespace: entry, rule: None, message: "gone".into(), hint: None, is_flaw };
        match (&*self.place, &self.container) {
            ("!", _) => Led::Nowhere(refusal(false)),
            ("!!", _) => Led::Nowhere(refusal(true)),
            ("-" | "?", of) => {
                let id = of.as_ref().map(|(_, id)| id.clone());
                let (target, why) = (self.namespace.target.clone(), "it is not there".into());
                Led::Waits(Waits { entry, target, id, why, is_unknown: self.place == "?" })
            }
            (place, of) => {
                let id = of.as_ref().map(|(_, id)| id.clone());
                Led::There(Arc::new(found(place.parse().expect("a place"), id)))
            }
        }
    }
}

/// Why an engine does not tell.
pub(super) fn unreachable_engine() -> EngineError {
    let nowhere = || "/nonexistent/engine.sock".into();
    let engines = Engines::default().with(Engine::Docker, nowhere()).with(Engine::Podman, nowhere());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(engines.hold(Engine::Docker)).map(|_| ()).expect_err("nobody is there")
}

/// Applies a file to what there is: what becomes of each rule (`+`, `~`, `-` with the place, or with `wait`), how many stay as they are;
/// what is in force then where that is other; what is wanted then; what was set aside.
pub(super) fn apply(scene: &mut Scene, text: &str, options: &str) -> String {
    let mut file = File::of(text, options);
    file.look_again(options);
    let File { mut request, looked } = file;
    let is_held = |subject: &Subject| match subject {
        Subject::Files => true,
        Subject::Netns(cookie) => !options.contains(&format!("not-held={cookie}")),
        Subject::Target(target) => !options.contains(&format!("not-held={target}")),
    };
    loop {
        let places = Located::of(&looked, &request);
        let left_out: Vec<_> = places.left_out(&request).keys().map(ToString::to_string).collect();
        let of_place = |there| unknown(scene.standing.get(&place_of(there)), there, &request);
        let new = places.there.iter().flat_map(of_place).filter(|_| !options.contains("unknown"));
        let known = new.map(|one| (one.at, Whereabouts::default())).collect();
        let now =
            Now { standing: &scene.standing, intent: &scene.store, tells: Tells::Ingress, holds: &is_held };
        let outcome = match plan(now, &request, places, known) {
            Ok(outcome) => outcome,
            Err(Unplanned::Outdated(_)) => return "outdated".into(),
            Err(Unplanned::Refused(error)) => match request.set_aside(error) {
                Ok(()) => continue,
                Err(error) => return refused(&error),
            },
        };
        let mut words: Vec<_> = outcome.changes.iter().map(change).collect();
        words.extend((outcome.unchanged > 0).then(|| format!("={}", outcome.unchanged)));
        let others = outcome.plan.parts.iter().filter(|part| part.is_other());
        let mut forced: Vec<_> =
            others.map(|part| format!("{}: {}", part.cookie, in_force(Some(part)))).collect();
        forced.sort();
        scene.store.edit(outcome.plan.edit);
        let told = format!("{} | {} | {}", words.join(" "), forced.join("; "), told(&scene.store));
        return if left_out.is_empty() { told } else { format!("{told} | aside {}", left_out.join(",")) };
    }
}

fn place_of(there: &super::places::There) -> NetnsCookie {
    there.found.cookie
}

fn change(change: &Change) -> String {
    let sign = match (&change.before, &change.after) {
        (None, _) => "+",
        (_, None) => "-",
        _ => "~",
    };
    let place = if change.cookie == 0 { "wait".into() } else { change.cookie.to_string() };
    format!("{sign}{place}/{}", change.rule)
}

/// Which entries and rules are to blame, and in short why; `!` where it is the file.
pub(super) fn refused(error: &Error) -> String {
    const WHY: [(&str, &str); 9] = [
        ("the set `", "OfSet"),
        ("one of `attach`", "OfAttach"),
        ("a program has listeners", "OfProgram"),
        ("has another rule of that name", "Twin"),
        ("the file has that rule there itself", "FilesOwn"),
        ("`lo` is down", "LoopbackDown"),
        ("another redirector", "OtherRedirector"),
        ("rules", "MoreThanFit"),
        ("gone", "Gone"),
    ];
    let told = error.problems.iter().map(|problem| {
        let why = WHY.iter().find(|(part, _)| problem.message.contains(part)).map_or("?", |(_, why)| why);
        let rule = problem.rule.map_or_else(|| "*".into(), |rule| rule.to_string());
        let flaw = if problem.is_flaw { "!" } else { "" };
        format!("{}.{rule} {why}{flaw}", problem.namespace)
    });
    format!("refused {}", told.collect::<Vec<_>>().join(", "))
}

/// An error about entries and rules: `ENTRY.RULE[!]`, the rule `*` where it is all of the entry.
pub(super) fn problems(text: &str) -> Error {
    let problems = text.split_whitespace().map(|word| {
        let is_flaw = word.ends_with('!');
        let (entry, rule) = word.trim_end_matches('!').split_once('.').expect("ENTRY.RULE");
        let (namespace, rule) = (entry.parse().expect("a number"), rule.parse().ok());
        Refusal { namespace, rule, message: "gone".into(), hint: None, is_flaw }
    });
    Error { problems: problems.collect(), ..Error::new(Code::Failed, "wrong") }
}
