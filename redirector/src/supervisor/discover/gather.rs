//! What an engine says: which containers there are, and which rules each has.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures_util::{StreamExt as _, stream};
use nix::unistd::Uid;

use super::{AllFound, Discovered};
use crate::{
    config::{Engine, Label, RuleSpec, file::DiscoverSpec, has_rules, rules_of},
    supervisor::Supervisor,
    target::{ContainerId, EngineError, Engines, Labelled, Labels},
};

/// Containers that are asked for at once.
const AT_ONCE: usize = 8;

/// One question to an engine, with what has been answered already.
struct Gathering<'a> {
    engines: &'a Engines,
    engine: Engine,
    /// Its socket's other end is root, or whoever we are.
    is_trusted: Option<bool>,
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

impl Supervisor {
    /// The containers that are looked for, at each engine. Of an engine that does not tell, those that were known; and why it
    /// does not.
    pub(in crate::supervisor) async fn gather_all(
        &self,
        specs: &[DiscoverSpec],
    ) -> (AllFound, Vec<EngineError>) {
        let (mut found, mut deaf) = (AllFound::new(), Vec::new());
        for engine in
            Engine::ALL.into_iter().filter(|engine| specs.iter().any(|one| one.of(*engine).is_some()))
        {
            match self.gather(engine, specs).await {
                Ok(of_engine) => drop(found.insert(engine, of_engine)),
                Err(error) => {
                    deaf.push(error);
                    found.insert(engine, self.discovery.recall(engine, specs));
                }
            }
        }
        (found, deaf)
    }

    /// The containers that are looked for, at one engine.
    pub(super) async fn gather(
        &self,
        engine: Engine,
        specs: &[DiscoverSpec],
    ) -> Result<BTreeMap<ContainerId, Discovered>, EngineError> {
        let known = self.discovery.known(engine);
        let engines = self.opener.engines();
        // Docker tells of an end before its list knows. Whoever asks for the container itself waits until it does.
        let changed: Vec<_> = self.discovery.changed().extract_if(.., |(one, _)| *one == engine).collect();
        let runs = stream::iter(changed).map(|(_, id)| async move { (engines.runs(engine, &id).await, id) });
        let runs: Vec<_> = runs.buffer_unordered(AT_ONCE).collect().await;
        let ended: Vec<_> = runs.into_iter().filter(|(runs, _)| matches!(runs, Ok(false))).collect();
        let mut gathering = Gathering { engines, engine, is_trusted: None, images: HashMap::new() };
        let mut found: BTreeMap<ContainerId, Discovered> = BTreeMap::new();
        for (index, spec) in specs.iter().enumerate() {
            let Some(label) = spec.of(engine) else { continue };
            for labelled in engines.labelled(engine, label).await? {
                let one = found.entry(labelled.id.clone()).or_insert_with(|| Discovered {
                    container: labelled.container.clone(),
                    rules: Vec::new(),
                    placed: known.get(&labelled.id).map(|one| one.placed.clone()).unwrap_or_default(),
                    by: BTreeMap::new(),
                    labels: labelled.labels.clone(),
                    image: known.get(&labelled.id).and_then(|one| one.image.clone()),
                });
                let rules = match gathering.rules(spec, label, &labelled, &mut one.image).await {
                    Ok(rules) => one.with(index, rules),
                    Err(Unknown::Wrong(why)) => Err(why),
                    Err(Unknown::Engine(error)) => return Err(error),
                };
                one.by.insert(index, rules.err().unwrap_or_default());
            }
        }
        for (_, id) in ended {
            found.remove(&id);
        }
        Ok(found)
    }
}

impl Discovered {
    /// Gives it more rules, or says why not.
    pub(super) fn with(&mut self, by: usize, rules: Vec<RuleSpec>) -> Result<(), Vec<String>> {
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

impl Gathering<'_> {
    /// The rules that a container has for one label.
    async fn rules(
        &mut self,
        spec: &DiscoverSpec,
        label: &Label,
        labelled: &Labelled,
        image: &mut Option<Labels>,
    ) -> Result<Vec<RuleSpec>, Unknown> {
        if !spec.reads_labels() {
            return Ok(spec.rules.clone());
        }
        let wrong = |why: String| Err(Unknown::Wrong(vec![why]));
        let mut labels = labelled.labels.clone();
        if !has_rules(&labels) {
            return wrong("no label `redirector.rule.NAME.KEY` of it says a rule".into());
        }
        if !self.is_trusted().await? {
            return wrong(format!(
                "{} is another user's: what its containers' labels say is not taken for a rule, write rules into the file",
                self.engine
            ));
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
        rules_of(&labels, label).map_err(Unknown::Wrong)
    }

    /// Whoever can be told by labels where connections go can have the daemon, with its rights, go there.
    async fn is_trusted(&mut self) -> Result<bool, EngineError> {
        if let Some(known) = self.is_trusted {
            return Ok(known);
        }
        let owner = Uid::from_raw(self.engines.owner(self.engine).await?);
        Ok(*self.is_trusted.insert(owner.is_root() || owner == Uid::effective()))
    }

    async fn image_labels(&mut self, image: &str) -> Result<Result<Labels, String>, EngineError> {
        if let Some(known) = self.images.get(image) {
            return Ok(Ok(known.clone()));
        }
        match self.engines.image_labels(self.engine, image).await {
            Ok(labels) => {
                self.images.insert(image.to_owned(), labels.clone());
                Ok(Ok(labels))
            }
            // It may have been removed while its containers run.
            Err(error) if error.is_refusal() => Ok(Err(error.to_string())),
            Err(error) => Err(error),
        }
    }
}
