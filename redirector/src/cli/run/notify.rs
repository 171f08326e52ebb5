//! What the supervisor of this process is told (sd_notify(3)): by a thread, because it may not listen.

use std::{
    sync::{
        OnceLock,
        mpsc::{self, SyncSender},
    },
    thread,
};

use sd_notify::NotifyState;

/// States that wait to be told, at most.
const WAITING: usize = 64;

/// Tells it in the order of the calls, and waits for nobody.
pub(super) fn notify(states: &[NotifyState<'static>]) {
    static TELLER: OnceLock<SyncSender<Vec<NotifyState<'static>>>> = OnceLock::new();
    let teller = TELLER.get_or_init(|| {
        let (sender, receiver) = mpsc::sync_channel::<Vec<NotifyState<'static>>>(WAITING);
        let tell = move || {
            for states in receiver {
                if let Err(error) = sd_notify::notify(&states) {
                    tracing::warn!(%error, "sd_notify");
                }
            }
        };
        if let Err(error) = thread::Builder::new().name("notify".into()).spawn(tell) {
            tracing::warn!(%error, "no thread for sd_notify");
        }
        sender
    });
    if teller.try_send(states.to_vec()).is_err() {
        tracing::warn!("sd_notify: nobody takes what is told");
    }
}
