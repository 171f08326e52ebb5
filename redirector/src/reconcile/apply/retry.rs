//! Another try at what was set aside.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    Attempt, LookedFor, request::Request, scope::SetScope, set_aside::EntryAside, wanted::Unplanned,
};
use crate::{
    control::{Applied, Caller, Refusal},
    intent::Prune,
    reconcile::{discover::OwnRules, world::World},
    steer::complete_black_hole,
};

/// Between two tries to make what could not be made.
const RETRY: Duration = Duration::from_secs(5);

/// Tries again what could not be made, until the daemon ends.
pub(crate) async fn retry(world: Arc<World>) {
    loop {
        tokio::time::sleep(RETRY).await;
        if world.is_ending() {
            return;
        }
        complete_black_holes(&world).await;
        retry_once(&world).await;
    }
}

async fn retry_once(world: &World) {
    let (list, again) = world.set_aside.again();
    if list.is_empty() {
        return;
    }
    let namespaces = list.iter().map(|one| one.spec.clone()).collect();
    let none = (BTreeMap::new(), &BTreeMap::new());
    let sets: Vec<_> = list.iter().map(|one| one.set.clone()).collect();
    let scope = SetScope::these(sets.clone(), Vec::new());
    let request = Request::new(namespaces, (Prune::No, false), none, &OwnRules::default());
    let mut request = request.of_sets(sets, scope).again(again);
    let caller = Caller::this_process();
    match Attempt::look(world, caller, &request).await.make(&mut request, &LookedFor::default()).await {
        Ok(applied) => tell(&list, &applied),
        Err(Unplanned::Outdated(_)) => {}
        Err(Unplanned::Refused(error)) => tracing::debug!(%error, "try again what was set aside"),
    }
}

/// Makes what `drop` leads to where there was no port for it.
async fn complete_black_holes(world: &World) {
    for netns in world.steered.all() {
        let _turn = world.turns.of(netns.cookie).await;
        if let Err(error) = complete_black_hole(&netns).await {
            tracing::error!(netns = %netns.target, %error, "make what `drop` leads to");
        }
    }
}

/// Tells what has become of another try.
fn tell(before: &[EntryAside], applied: &Applied) {
    let left: BTreeMap<usize, &Refusal> =
        applied.set_aside.iter().map(|refusal| (refusal.namespace, refusal)).collect();
    for (index, one) in before.iter().enumerate() {
        let target = &one.spec.target;
        if let Some(why) = applied.waiting.iter().find(|refusal| refusal.namespace == index) {
            tracing::warn!(%target, "what was set aside is gone, and is waited for: {}", why.message);
            continue;
        }
        match left.get(&index) {
            None => tracing::info!(%target, "what was set aside is in force"),
            Some(why) if why.message != one.why() => {
                tracing::error!(%target, hint = why.hint, "still set aside: {}", why.message);
            }
            Some(_) => {}
        }
    }
}
