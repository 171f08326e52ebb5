//! What the supervisor of this process is told (sd_notify(3)): by a thread, because it may not listen.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
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
    tell(Box::new(move || send(&states)));
}

/// Tells that the daemon is ready, and how it is, in one line.
pub(super) fn notify_ready(status: String) {
    tell(Box::new(move || send(&[NotifyState::Ready, NotifyState::Status(&status)])));
}

/// Tells how the daemon is, in one line.
pub(super) fn notify_status(status: String) {
    tell(Box::new(move || send(&[NotifyState::Status(&status)])));
}

/// Sends it to `$NOTIFY_SOCKET`, which may be an abstract socket: `@` stands for NUL then (sd_notify(3)).
fn send(states: &[NotifyState<'_>]) -> io::Result<()> {
    let socket = env::var_os("NOTIFY_SOCKET");
    let Some(name) = socket.as_ref().and_then(|socket| socket.as_bytes().strip_prefix(b"@")) else {
        return sd_notify::notify(states);
    };
    let message: String = states.iter().map(|state| format!("{state}\n")).collect();
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    socket.send(message.as_bytes()).map(drop)
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
