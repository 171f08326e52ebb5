//! What an engine says: which containers there are, and which rules each has.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use futures_util::{StreamExt as _, future::join_all, stream};
use nix::unistd::Uid;

use super::{AllFound, Discovered};
use crate::{
    config::{Container, Engine, Label, RuleSpec, file::DiscoverSpec, has_rules, rules_of},
    locate::{ContainerId, EngineError, HeldEngine, Labelled, Labels},
    reconcile::world::World,
};

/// Containers that are asked for at once.
const AT_ONCE: usize = 8;

/// One question to an engine, with what has been answered already.
struct Gathering {
    engine: HeldEngine,
    /// All that are looked for there.
    labels: Vec<Label>,
    images: HashMap<String, Labels>,
}

/// Why a container has no rules: what is wrong with it, or that its engine does not tell.
enum Unknown {
    Wrong(Vec<String>),
    Engine(EngineError),
}

impl From<EngineError> for Unknown {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

/// The containers that are looked for, at each engine. Of an engine that does not tell, those that were known, and why it
/// does not.
pub(crate) async fn gather_all(
    world: &World,
    specs: &[DiscoverSpec],
) -> (AllFound, BTreeMap<Engine, EngineError>) {
    let engines = Engine::ALL.into_iter().filter(|engine| specs.iter().any(|one| one.of(*engine).is_some()));
    let asked = engines.map(async |engine| (engine, gather(world, engine, specs, &BTreeSet::new()).await));
    let (mut found, mut deaf) = (AllFound::new(), BTreeMap::new());
    for (engine, answer) in join_all(asked).await {
        let known = answer.unwrap_or_else(|error| {
            deaf.insert(engine, error);
            world.discovery.recall(engine, specs)
        });
        found.insert(engine, known);
    }
    (found, deaf)
}

/// The containers that are looked for, at one engine. Something has happened to the `changed` ones.
pub(crate) async fn gather(
    world: &World,
    engine: Engine,
    specs: &[DiscoverSpec],
    changed: &BTreeSet<ContainerId>,
) -> Result<BTreeMap<ContainerId, Discovered>, EngineError> {
    let known = world.discovery.known(engine);
    let held = world.opener.engines().hold(engine).await?;
    // Docker tells of an end before its list knows. Whoever asks for the container itself waits until it does.
    let held_engine = &held;
    let runs =
        stream::iter(changed.iter().cloned()).map(|id| async move { (held_engine.runs(&id).await, id) });
    let mut runs = runs.buffer_unordered(AT_ONCE);
    let mut ended = Vec::new();
    while let Some((runs, id)) = runs.next().await {
        match runs {
            Ok(false) => ended.push(id),
            Err(error) if error.is_of_engine() => return Err(error),
            // Nothing is known of it, and so nothing is other.
            Ok(true) | Err(_) => {}
        }
    }
    drop(runs);
    let labels = specs.iter().filter_map(|spec| spec.of(engine).cloned()).collect();
    let mut gathering = Gathering { engine: held, labels, images: HashMap::new() };
    let mut found: BTreeMap<ContainerId, Discovered> = BTreeMap::new();
    for (index, spec) in specs.iter().enumerate() {
        let Some(label) = spec.of(engine) else { continue };
        for labelled in gathering.engine.labelled(label).await? {
            let one = found.entry(labelled.id.clone()).or_insert_with(|| Discovered {
                container: Container { engine, name: labelled.name.clone() },
                rules: Vec::new(),
                by: BTreeMap::new(),
                labels: labelled.labels.clone(),
                image: known.get(&labelled.id).and_then(|one| one.image.clone()),
            });
            let rules = match gathering.rules(spec, &labelled, &mut one.image).await {
                Ok(rules) => one.with(index, rules),
                Err(Unknown::Wrong(why)) => Err(why),
                Err(Unknown::Engine(error)) => return Err(error),
            };
            one.by.insert(index, rules.err().unwrap_or_default());
        }
    }
    for id in ended {
        found.remove(&id);
    }
    Ok(found)
}

impl Discovered {
    /// Gives it more rules, or says why not.
    pub(crate) fn with(&mut self, by: usize, rules: Vec<RuleSpec>) -> Result<(), Vec<String>> {
        let names: HashSet<_> = self.rules.iter().map(|(_, rule)| &rule.name).collect();
        let why = |rule: &RuleSpec| {
            let name = rule.name.as_ref().filter(|_| names.contains(&rule.name))?;
            Some(format!("rule `{name}`: a `[[discover]]` before this one has a rule of that name for it"))
        };
        let wrong: Vec<_> = rules.iter().filter_map(why).collect();
        if !wrong.is_empty() {
            return Err(wrong);
        }
        self.rules.extend(rules.into_iter().map(|rule| (by, rule)));
        Ok(())
    }
}

impl Gathering {
    /// The rules that a container has for one that is looked for.
    async fn rules(
        &mut self,
        spec: &DiscoverSpec,
        labelled: &Labelled,
        image: &mut Option<Labels>,
    ) -> Result<Vec<RuleSpec>, Unknown> {
        let wrong = |why: String| Err(Unknown::Wrong(vec![why]));
        if labelled.is_in_host_network {
            return wrong("it uses the host's own network namespace: if you mean that, name it in a `[[namespace]]` with `host_netns = true`".into());
        }
        if !spec.reads_labels() {
            return Ok(spec.rules.clone());
        }
        let mut labels = labelled.labels.clone();
        if !has_rules(&labels) {
            return wrong("no label `redirector.rule.NAME.KEY` of it says a rule".into());
        }
        // Whoever can say by labels where connections go can have the daemon, with its rights, go there.
        let owner = Uid::from_raw(self.engine.owner());
        if !owner.is_root() && owner != Uid::effective() {
            return wrong(
                "its engine is another user's: what labels say there is not taken for a rule, write rules into the file".into(),
            );
        }
        if !spec.image_labels {
            let of_image = match image {
                Some(labels) => labels,
                None => match self.image_labels(&labelled.image).await? {
                    Ok(labels) => image.insert(labels),
                    Err(why) => {
                        return wrong(format!("what its image says cannot be told from what it says: {why}"));
                    }
                },
            };
            labels.retain(|key, value| of_image.get(key) != Some(value));
            if !has_rules(&labels) {
                return wrong("all its rules are its image's, which count with `image_labels = true`".into());
            }
        }
        rules_of(&labels, &self.labels, &spec.unix).map_err(Unknown::Wrong)
    }

    async fn image_labels(&mut self, image: &str) -> Result<Result<Labels, String>, EngineError> {
        if let Some(known) = self.images.get(image) {
            return Ok(Ok(known.clone()));
        }
        match self.engine.image_labels(image).await {
            Ok(labels) => {
                self.images.insert(image.to_owned(), labels.clone());
                Ok(Ok(labels))
            }
            Err(error) if error.is_of_engine() => Err(error),
            // It may have been removed while its containers run.
            Err(error) => Ok(Err(error.to_string())),
        }
    }
}
