//! Asks an engine which containers there are, whenever something has happened to one.

use std::sync::Arc;

use crate::{
    config::Engine,
    locate::EngineError,
    supervisor::{
        Supervisor,
        follow::{RETRIES, backoff},
    },
};

impl Supervisor {
    /// Looks at one engine whenever it is asked to, until the daemon ends.
    pub(in crate::supervisor) async fn discover(self: Arc<Self>, engine: Engine) {
        let asked = &self.discovery.at(engine).asked;
        let mut pauses = backoff(RETRIES);
        loop {
            asked.notified().await;
            while let Err(error) = self.look_around(engine).await {
                let why = error.to_string();
                if self.discovery.is_deaf(engine, Some(&why)) {
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
    async fn look_around(self: &Arc<Self>, engine: Engine) -> Result<(), EngineError> {
        let _turn = self.discovery.at(engine).turn.lock().await;
        if !self.discovery.is_looking_at(engine) {
            return Ok(());
        }
        let specs = self.discovery.specs();
        let changed = std::mem::take(&mut *self.discovery.at(engine).changed());
        let found = self.gather(engine, &specs, &changed).await;
        let found = found.inspect_err(|_| self.discovery.at(engine).changed().extend(changed.clone()))?;
        if self.discovery.is_deaf(engine, None) {
            tracing::info!(%engine, "told again which containers there are");
        }
        let mut table = self.table.lock().await;
        if self.discovery.specs() != specs {
            // A file that looks for nothing waits for nobody.
            self.discovery.at(engine).changed().extend(changed);
            self.discovery.look(engine);
        } else if !self.is_ending() {
            self.settle(&mut table, engine, found).await;
        }
        Ok(())
    }
}
