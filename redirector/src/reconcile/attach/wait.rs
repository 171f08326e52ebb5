//! A rule for a target that is not there.

use std::sync::Arc;

use redirector_ebpf::MAX_RULES;

use super::wanted::{For, Mode};
use crate::{
    config::{Origin, RuleSpec, Target},
    control::{AttachResult, Attached, ChangeSide, Error, SCHEMA},
    intent::{Edit, Follows, HostNetns, Intended, Subject},
    locate::{ContainerId, TargetError},
    reconcile::{
        refused::Refused,
        turn::{turn_of, with_places},
        world::World,
    },
    text::chain,
};

/// What a rule waits for: why it does, and the container if one was seen.
pub(super) struct Absent {
    id: Option<ContainerId>,
    why: String,
}

impl From<&TargetError> for Absent {
    fn from(error: &TargetError) -> Self {
        let id = match error {
            TargetError::NotRunning { id, .. } => Some(id.clone()),
            _ => None,
        };
        Self { id, why: chain(error) }
    }
}

/// Keeps a rule for a target that is not there.
///
/// # Errors
///
/// When the daemon is ending, too many rules wait, or a file has one of that name for it.
pub(super) async fn wait_for(
    world: &World,
    target: &Target,
    Absent { id, why }: Absent,
    (spec, host_netns): (RuleSpec, HostNetns),
    (whom, mode): (For, Mode),
) -> Result<Attached, Error> {
    let _turn = turn_of(world, |store| with_places(store, [target])).await;
    world.goes_on()?;
    let (name, edit, changed) = {
        let store = world.intent();
        let name = spec.name.clone().unwrap_or_else(|| store.name_for(target, &spec));
        let subject = Subject::from(target);
        if store.of(&subject).filter(|(other, _)| **other != name).count() >= MAX_RULES {
            return Err(Refused::TooManyFollow { target: target.clone(), rule: name }.into());
        }
        let rule = Arc::new(spec.named(name.clone()));
        let before = store.followed(target, &name);
        let follows = |once: bool| Some(target.clone()).filter(|_| !once);
        let changed = before.filter(|before| before.rule != rule).map(|before| {
            let was = ChangeSide { rule: before.rule.to_spec(), follows: follows(before.is_once()) };
            (was, ChangeSide { rule: rule.to_spec(), follows: follows(whom == For::Namespace) })
        });
        let mut edit = Edit::default();
        match before.filter(|before| before.origin == Origin::File) {
            Some(files) if files.rule != rule => {
                return Err(Refused::OfFileFor { target: target.clone(), rule: name }.into());
            }
            // A file's rule that says the same waits already, and stays the file's.
            Some(_) => {}
            None => {
                // Where it is in force, and of which container, is not what has changed.
                let id = before.and_then(Intended::id).cloned().or(id);
                let at = before.and_then(|before| before.at);
                let once = whom == For::Namespace;
                let follows = Some(Box::new(Follows { id, why, found: false, once }));
                edit.put(target, Intended { rule, origin: Origin::Api, set: None, host_netns, at, follows });
            }
        }
        (name, edit, changed)
    };
    let (before, after) = changed.unzip();
    if mode == Mode::Real && !edit.put.is_empty() {
        world.intend(edit);
        // It may be there by now.
        world.news.look_at([target.clone()]);
        tracing::info!(%target, rule = %name, "the rule waits until its target is there");
    }
    Ok(Attached {
        schema: SCHEMA,
        result: AttachResult::Waiting,
        dry_run: mode == Mode::Dry,
        target: target.clone(),
        cookie: 0,
        rule: name,
        before,
        after,
        warnings: Vec::new(),
        foreign_programs: Vec::new(),
        existing_connections: 0,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[tokio::test]
    async fn nothing_is_kept_for_a_target_when_the_daemon_ends() {
        let world = World::empty();
        for (text, whom) in
            [("docker:web", For::Target), ("netns:web", For::Target), ("path:/x", For::Namespace)]
        {
            world.ending.store(false, Ordering::Relaxed);
            let target: Target = text.parse().unwrap();
            let wait = || {
                let spec = serde_json::from_str(r#"{"match": ["tcp:80"], "to": ["pass"]}"#).unwrap();
                let absent = Absent { id: None, why: "not there".into() };
                wait_for(&world, &target, absent, (spec, HostNetns::Refused), (whom, Mode::Real))
            };
            wait().await.unwrap();
            let once: Vec<_> = world.intent().following().map(|(_, one)| one.is_once()).collect();
            assert_eq!(once, [whom == For::Namespace]);
            let drop = [((&target).into(), "rule-1".parse().unwrap())].into();
            world.intend(Edit { drop, put: Vec::new() });
            world.ending.store(true, Ordering::Relaxed);
            assert_eq!(wait().await.unwrap_err().message, "the daemon is stopping");
            assert_eq!(world.intent().following().count(), 0);
        }
    }
}
