//! A rule for a container that is not running.

use std::sync::Arc;

use redirector_ebpf::MAX_RULES;

use super::wanted::Mode;
use crate::{
    config::{Container, Origin, RuleSpec, Target},
    control::{AttachResult, Attached, Error, SCHEMA},
    intent::{Edit, Follows, HostNetns, Intended, Subject},
    locate::ContainerId,
    reconcile::{
        refused::Refused,
        turn::{turn_of, with_places},
        world::World,
    },
};

/// Keeps a rule for a container that is not running.
///
/// # Errors
///
/// When the daemon is ending, too many rules wait, or a file has one of that name for it.
pub(super) async fn wait_for(
    world: &World,
    container: &Container,
    (id, why): (ContainerId, String),
    (spec, host_netns): (RuleSpec, HostNetns),
    mode: Mode,
) -> Result<Attached, Error> {
    let _turn = turn_of(world, |store| with_places(store, [container])).await;
    world.goes_on()?;
    let target = Target::Container(container.clone());
    let (name, edit) = {
        let store = world.intent();
        let name = spec.name.clone().unwrap_or_else(|| store.name_for(container, &spec));
        let subject = Subject::from(container);
        if store.of(&subject).filter(|(other, _)| **other != name).count() >= MAX_RULES {
            return Err(Refused::TooManyFollow { target, rule: name }.into());
        }
        let rule = Arc::new(spec.named(name.clone()));
        let before = store.followed(container, &name);
        let mut edit = Edit::default();
        match before.filter(|before| before.origin == Origin::File) {
            Some(files) if files.rule != rule => {
                return Err(Refused::OfFileFor { container: container.clone(), rule: name }.into());
            }
            // A file's rule that says the same waits already, and stays the file's.
            Some(_) => {}
            None => {
                // Where it is in force, and of which container, is not what has changed.
                let id = before.and_then(Intended::id).cloned().unwrap_or(id);
                let at = before.and_then(|before| before.at);
                let follows = Some(Box::new(Follows { id, why, found: false }));
                edit.put(container, Intended { rule, origin: Origin::Api, host_netns, at, follows });
            }
        }
        (name, edit)
    };
    if mode == Mode::Real && !edit.put.is_empty() {
        world.intend(edit);
        // It may run by now.
        world.news.look_at([container.clone()]);
        tracing::info!(target = %container, rule = %name, "the rule waits until the container runs");
    }
    Ok(Attached {
        schema: SCHEMA,
        result: AttachResult::Waiting,
        dry_run: mode == Mode::Dry,
        target,
        cookie: 0,
        rule: name,
        warnings: Vec::new(),
        foreign_programs: Vec::new(),
        existing_connections: 0,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::config::Engine;

    #[tokio::test]
    async fn nothing_is_kept_for_a_container_when_the_daemon_ends() {
        let world = World::empty();
        let container = Container { engine: Engine::Docker, name: "web".into() };
        let wait = || {
            let id = ContainerId::new("0".repeat(64)).unwrap();
            let spec = serde_json::from_str(r#"{"match": ["tcp:80"], "to": ["pass"]}"#).unwrap();
            wait_for(&world, &container, (id, "not running".into()), (spec, HostNetns::Refused), Mode::Real)
        };
        wait().await.unwrap();
        assert_eq!(world.intent().following().count(), 1);
        world.intend(Edit {
            drop: [((&container).into(), "rule-1".parse().unwrap())].into(),
            put: Vec::new(),
        });
        world.ending.store(true, Ordering::Relaxed);
        assert_eq!(wait().await.unwrap_err().message, "the daemon is stopping");
        assert_eq!(world.intent().following().count(), 0);
    }
}
