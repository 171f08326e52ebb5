//! What `drop` leads to: sockets inside the namespace, of which no client ever hears.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use redirector_ebpf::{CONSUMER_BLACK_HOLE, PROTOCOL_TCP, slot};
use socket2::Socket;

use super::{
    attach::{Bound, make_inside},
    failed,
    namespace::Namespace,
};
use crate::{
    config::Target,
    control::Error,
    kernel::Instance,
    listener::{self, BindError},
    netns::{Family, NetnsCookie},
    sys,
};

/// The sockets of one namespace. They are there while a rule needs them.
#[derive(Debug, Default)]
pub(super) struct BlackHole(Vec<Hole>);

#[derive(Debug)]
struct Hole {
    protocol: u32,
    family: Family,
    socket: Socket,
}

impl Hole {
    fn slot(&self) -> u32 {
        slot(CONSUMER_BLACK_HOLE, self.protocol, self.family.bit())
    }
}

/// Without a port UDP packets are refused that should be dropped: that is the next best, and the rules are in force.
fn udp_if_there_is_a_port() -> Result<Bound, BindError> {
    match listener::bind_mute_udp() {
        Err(BindError::NoPort(_)) => Ok(Bound::new()),
        result => result,
    }
}

impl BlackHole {
    /// Makes those of these protocols that are not there, in a namespace, and puts them into their slots. Blocks.
    pub(super) fn make(
        &mut self,
        protocols: &[u32],
        (fd, cookie, target): (&OwnedFd, NetnsCookie, &Target),
        instance: &Instance,
    ) -> Result<(), Error> {
        let is_missing = |protocol: &&u32| self.0.iter().all(|hole| hole.protocol != **protocol);
        let mut made = Vec::new();
        for protocol in protocols.iter().filter(is_missing).copied() {
            let error = |source| failed("attach", target, &source);
            let sockets = if protocol == PROTOCOL_TCP {
                make_inside(fd, cookie, target, listener::bind_own_pair)?
            } else {
                make_inside(fd, cookie, target, udp_if_there_is_a_port)?
            };
            if sockets.is_empty() {
                tracing::warn!(
                    netns = %target,
                    "sockets inside hold every UDP port: rules that `drop` UDP there refuse it instead"
                );
            }
            for (family, socket) in sockets {
                if protocol == PROTOCOL_TCP {
                    listener::mute(&socket).map_err(error)?;
                }
                let hole = Hole { protocol, family, socket };
                instance.set_listener(hole.slot(), hole.socket.as_fd()).map_err(error)?;
                made.push(hole);
            }
        }
        self.0.extend(made);
        Ok(())
    }

    /// Whether one of these protocols has none.
    pub(super) fn lacks(&self, protocols: &[u32]) -> bool {
        protocols.iter().any(|protocol| self.0.iter().all(|hole| hole.protocol != *protocol))
    }

    /// Takes away those of other protocols.
    pub(super) fn keep(&mut self, protocols: &[u32], instance: &Instance) {
        for gone in self.0.extract_if(.., |hole| !protocols.contains(&hole.protocol)) {
            instance.clear_listener(gone.slot());
        }
    }

    /// Whether a socket of it, known by its cookie, takes what comes and answers nothing; `None` for another socket.
    pub(super) fn health_of(&self, cookie: u64) -> Option<bool> {
        let hole = self.0.iter().find(|hole| hole.socket.cookie().is_ok_and(|own| own == cookie))?;
        let is_listening = || sys::socket::is_listening(&hole.socket).unwrap_or(false);
        Some(hole.protocol != PROTOCOL_TCP || is_listening())
    }

    /// Puts back what was killed from inside, or pushed out of its slot. How many listeners were put back, and how many slots.
    pub(super) fn mend(&self, netns: &Namespace) -> io::Result<(u64, u64)> {
        let (mut revived, mut restored) = (0, 0);
        for hole in &self.0 {
            let socket = &hole.socket;
            if hole.protocol == PROTOCOL_TCP && !sys::socket::is_listening(socket)? {
                sys::socket::listen(socket, 1)?;
                revived += 1;
            } else if netns.instance.listener_cookie(hole.slot()).map_err(io::Error::other)?
                == Some(socket.cookie()?)
            {
                continue;
            } else {
                restored += 1;
            }
            netns.instance.set_listener(hole.slot(), socket.as_fd()).map_err(io::Error::other)?;
        }
        Ok((revived, restored))
    }
}
