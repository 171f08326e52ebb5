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

type Message = Box<dyn FnOnce() -> std::io::Result<()> + Send>;

/// Tells it in the order of the calls, and waits for nobody.
pub(super) fn notify(states: &[NotifyState<'static>]) {
    let states = states.to_vec();
    tell(Box::new(move || sd_notify::notify(&states)));
}

/// Tells that the daemon is ready, and how it is, in one line.
pub(super) fn notify_ready(status: String) {
    tell(Box::new(move || sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&status)])));
}

/// Tells how the daemon is, in one line.
pub(super) fn notify_status(status: String) {
    tell(Box::new(move || sd_notify::notify(&[NotifyState::Status(&status)])));
}

fn tell(message: Message) {
    static TELLER: OnceLock<SyncSender<Message>> = OnceLock::new();
    let teller = TELLER.get_or_init(|| {
        let (sender, receiver) = mpsc::sync_channel::<Message>(WAITING);
        let tell = move || {
            for message in receiver {
                if let Err(error) = message() {
                    tracing::warn!(%error, "sd_notify");
                }
            }
        };
        if let Err(error) = thread::Builder::new().name("notify".into()).spawn(tell) {
            tracing::warn!(%error, "no thread for sd_notify");
        }
        sender
    });
    if teller.try_send(message).is_err() {
        tracing::warn!("sd_notify: nobody takes what is told");
    }
}
