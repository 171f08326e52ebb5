//! Rules of a namespace that can never decide.

use std::sync::Arc;

use tokio::sync::Mutex;

use crate::{
    config::Target,
    control::{Caller, Code, Error, SCHEMA, Shadows},
    matcher,
    reconcile::{World, seek},
    steer::blocking,
};

/// `GET /v1/shadowed`. One at a time: who relays wants the other processors.
pub(crate) async fn shadows(
    world: &World,
    one_at_a_time: &Mutex<()>,
    caller: Caller,
    target: Target,
) -> Result<Shadows, Error> {
    let sought = seek(world, &target, caller).await;
    let netns = sought.find(world)?;
    // In nobody's turn: that may take seconds, and the rules are what they are.
    let rules = Arc::clone(&netns.published.load().current);
    let (named, cookie, count) = (netns.target.clone(), netns.cookie.0, rules.rules().len() as u64);
    let _turn = one_at_a_time.lock().await;
    blocking(move || {
        let found = matcher::shadowed(&rules.placed(), &rules.rule_set.image);
        let found = found.map_err(|error| Error::chain(Code::Failed, &error))?;
        let shadowed = found.into_iter().map(Into::into).collect();
        Ok(Shadows { schema: SCHEMA, target: named, cookie, rules: count, shadowed })
    })
    .await
}
