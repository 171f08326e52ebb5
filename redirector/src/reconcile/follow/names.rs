//! Follows targets that no engine tells of: names of `ip netns`, and paths.
//!
//! What is mounted, and where, says when there is something to do; a look around says what a change of mounts does not show, as a
//! symbolic link that is new.

use std::{sync::Arc, time::Duration};

use super::looks::TargetLooks;
use crate::{
    config::Target,
    locate::{MountChanges, file_of},
    netns::NetnsFile,
    reconcile::world::World,
    sys::blocking::blocking,
};

/// Between two looks at all of them.
const TICK: Duration = Duration::from_secs(2);

/// Follows them until the daemon ends.
pub(crate) async fn follow_names(world: Arc<World>, mounts: MountChanges) {
    let mut news = world.news.hear();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut looks = TargetLooks::new(&world);
    loop {
        let has_names = world.intent().has_names();
        tokio::select! {
            () = mounts.changed(), if has_names => {
                let changed = changed(&world).await;
                world.news.look_at(changed);
            }
            _ = tick.tick(), if has_names => {
                // Those whose rules cannot be put have pauses of their own.
                let changed = changed(&world).await;
                world.news.look_at(changed.into_iter().filter(|target| !looks.is_stuck(target)));
            }
            changed = news.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = looks.ended() => {}
        }
        looks.begin(|target| target.container().is_none());
    }
}

/// Those that lead to another namespace than the one where their rules are.
async fn changed(world: &World) -> Vec<Target> {
    let names = world.intent().names();
    let known = names.into_iter().map(|(target, places)| {
        let file_at = |place| world.steered.get(place).map(|netns| netns.file);
        let files: Vec<_> = places.into_iter().map(|place| place.and_then(file_at)).collect();
        (target, files)
    });
    let known: Vec<_> = known.collect();
    let looked = blocking(move || {
        let changed = known.into_iter().filter(|(target, files)| is_elsewhere(file_of(target), files));
        changed.map(|(target, _)| target).collect()
    });
    looked.await.unwrap_or_default()
}

/// Whether a target leads to a namespace, and rules of it are in another one, or in none. Where it leads nowhere, its rules
/// stay where they are for as long as that lives.
fn is_elsewhere(now: Option<NetnsFile>, rules_at: &[Option<NetnsFile>]) -> bool {
    now.is_some() && rules_at.iter().any(|at| *at != now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_looked_at_when_its_rules_are_not_where_it_leads() {
        let file = |inode| Some(NetnsFile { dev: 4, inode });
        for (now, rules_at, expected) in [
            (None, vec![None], false),
            (None, vec![file(1)], false),
            (file(1), vec![None], true),
            (file(1), vec![file(1)], false),
            (file(2), vec![file(1)], true),
            (file(1), vec![file(1), None], true),
        ] {
            assert_eq!(is_elsewhere(now, &rules_at), expected, "{now:?} {rules_at:?}");
        }
    }
}
