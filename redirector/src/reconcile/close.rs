//! `close`: connections that nobody wants any more are reset. The rules stay as they are.

use super::{places::seek, refused::Refused, world::World};
use crate::{
    control::{Caller, CloseRequest, CloseResult, Closed, Error, SCHEMA},
    netns::NetnsCookie,
};

/// `POST /v1/close`.
///
/// # Errors
///
/// When the namespace has never been steered, or not for long.
pub(crate) async fn close(world: &World, caller: Caller, request: CloseRequest) -> Result<Closed, Error> {
    let CloseRequest { target, client, rule } = request;
    let sought = seek(world, &target, caller).await;
    let named = || sought.find(world).ok().map(|netns| netns.cookie);
    let at: Option<NetnsCookie> = sought.cookie().or_else(named);
    // Those that are not steered any more have connections, too.
    let living = world.maker.all.living().into_iter().filter(|netns| Some(netns.cookie) == at);
    let living: Vec<_> = living.collect();
    if living.is_empty() {
        return Err(sought.find(world).err().unwrap_or_else(|| Refused::NotSteered(target).into()));
    }
    let closed = living.iter().map(|netns| {
        netns.share.roster.close(|whose| {
            let is_client = client.is_none_or(|client| client.contains(whose.client.0.ip()));
            is_client && rule.as_ref().is_none_or(|rule| *rule == whose.rule.name)
        })
    });
    let connections = closed.sum::<usize>() as u64;
    let client = client.map(|client| client.to_string());
    tracing::info!(%target, client, rule = rule.as_ref().map(ToString::to_string), connections, by = %caller, "close");
    let cookie = at.map_or(0, |at| at.0);
    Ok(Closed { schema: SCHEMA, result: CloseResult::Closed, target, cookie, connections })
}
