//! Asks an engine which containers there are, whenever something has happened to one.

use std::sync::Arc;

use super::{gather::gather, settle::settle};
use crate::{
    config::Engine,
    locate::EngineError,
    reconcile::{follow::RETRIES, world::World},
    steer::backoff,
};

/// Looks at one engine whenever it is asked to, until the daemon ends.
pub(crate) async fn discover(world: Arc<World>, engine: Engine) {
    let discovery = &world.discovery;
    let asked = &discovery.at(engine).asked;
    let mut pauses = backoff(RETRIES);
    loop {
        asked.notified().await;
        while let Err(error) = look_around(&world, engine).await {
            let why = error.to_string();
            if discovery.is_deaf(engine, Some(&why)) {
                tracing::warn!(why, "not told which containers there are; trying again");
            }
            tokio::select! {
                () = tokio::time::sleep(pauses.next().unwrap_or(RETRIES.1)) => {}
                () = asked.notified() => {}
            }
        }
        pauses = backoff(RETRIES);
    }
}

/// Looks, and acts on what it sees.
async fn look_around(world: &World, engine: Engine) -> Result<(), EngineError> {
    let discovery = &world.discovery;
    let _turn = discovery.at(engine).turn.lock().await;
    if !discovery.is_looking_at(engine) {
        return Ok(());
    }
    let specs = discovery.specs();
    let changed = std::mem::take(&mut *discovery.at(engine).changed());
    let found = gather(world, engine, &specs, &changed).await;
    let found = found.inspect_err(|_| discovery.at(engine).changed().extend(changed.clone()))?;
    if discovery.is_deaf(engine, None) {
        tracing::info!(%engine, "told again which containers there are");
    }
    if !settle(world, engine, &specs, found).await {
        // A file that looks for nothing waits for nobody.
        discovery.at(engine).changed().extend(changed);
        discovery.look(engine);
    }
    Ok(())
}
