//! The thread that fills the stock.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
};

use super::{Shared, loaded::Loaded, stock::Step};

/// A namespace that is steered: while there is one, the stock is filled.
#[derive(Debug)]
pub(super) struct Demand(Arc<Shared>);

impl Demand {
    /// Begins now. The rule set of a `twin` is one that another namespace has too: the map of that one takes the place of
    /// its own.
    pub(super) fn begin(shared: &Arc<Shared>, twin: Option<Weak<Mutex<Loaded>>>) -> Self {
        if shared.stock.begin(twin) {
            let filled = Arc::clone(shared);
            let filler = thread::Builder::new().name("stock".into()).spawn(move || fill(&filled));
            if let Err(error) = filler {
                give_up(shared, &error);
            }
        }
        Self(Arc::clone(shared))
    }
}

impl Drop for Demand {
    fn drop(&mut self) {
        self.0.stock.end();
    }
}

/// Makes what is missing.
fn fill(shared: &Shared) {
    let stock = &shared.stock;
    loop {
        stock.wait_for_quiet();
        match stock.next() {
            None => return,
            Some(Step::Join(loaded)) => {
                if let Some(loaded) = loaded.upgrade() {
                    let mut loaded = loaded.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Err(error) = loaded.join_twin() {
                        tracing::warn!(%error, "share a rule set with another namespace; goes on with a copy");
                    }
                }
            }
            Some(Step::Make(kind)) => match shared.blank(kind) {
                Ok(parts) => stock.put(kind, parts),
                Err(error) => {
                    give_up(shared, &error);
                    return;
                }
            },
        }
    }
}

fn give_up(shared: &Shared, error: &dyn std::error::Error) {
    shared.stock.give_up();
    tracing::debug!(%error, "make kernel programs ahead; the next attach makes its own");
}
