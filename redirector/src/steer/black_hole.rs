//! What `drop` leads to: sockets inside the namespace, of which no client ever hears.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use backon::ExponentialBackoff;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use redirector_ebpf::{CONSUMER_BLACK_HOLE, PROTOCOL_TCP, PROTOCOL_UDP, slot};
use socket2::Socket;
use tokio::io::{Interest, unix::AsyncFd};
use tokio_util::sync::CancellationToken;

use super::{backoff::backoff, error::failed};
use crate::{
    config::Target,
    control::Error,
    kernel::Instance,
    listener::{self, BindError, Bound, Search, make_inside},
    netns::{Family, NetnsCookie},
    observe::RateLimit,
    sys,
};

/// The sockets of one namespace. They are there while a rule needs them.
#[derive(Debug, Default)]
pub(crate) struct BlackHole {
    holes: Vec<Hole>,
    /// From the first of them on.
    alarm: Option<Arc<Alarm>>,
    is_watched: bool,
    lacks: Lacks,
}

/// Families for which there was no UDP port, and when one is looked for again.
#[derive(Debug, Default)]
struct Lacks {
    families: Vec<Family>,
    next: Option<(Instant, ExponentialBackoff)>,
    said: RateLimit,
}

/// Between looks for a port where others have held all: first, and at most. Who holds them must not have us look all the time.
const LOOKS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

impl Lacks {
    /// Notes for which families there is none.
    fn set(&mut self, families: Vec<Family>, target: &Target) {
        if families.is_empty() && !self.families.is_empty() {
            tracing::info!(netns = %target, "there are UDP ports again for what `drop` leads to");
        }
        if families == self.families {
            return;
        }
        self.families = families;
        let mut pauses = backoff(LOOKS);
        let next = || (Instant::now() + pauses.next().unwrap_or(LOOKS.1), pauses);
        self.next = (!self.families.is_empty()).then(next);
        if self.next.is_some()
            && let Some(suppressed) = self.said.pass()
        {
            let families: Vec<_> = self.families.iter().map(ToString::to_string).collect();
            let families = families.join(", ");
            tracing::warn!(
                netns = %target, families, suppressed,
                "sockets inside hold every UDP port: rules that `drop` UDP there refuse it instead"
            );
        }
    }

    /// Whether it is time to look for them again. Then the next time is later.
    fn is_due(&mut self, now: Instant) -> bool {
        let Some((at, pauses)) = self.next.as_mut().filter(|(at, _)| now >= *at) else { return false };
        *at = now + pauses.next().unwrap_or(LOOKS.1);
        true
    }
}

/// Those that there are.
const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

/// Tells that a socket was killed from inside. It holds none: one that is closed is gone from there.
#[derive(Debug)]
pub(crate) struct Alarm {
    /// There is none any more to be watched.
    pub(crate) over: CancellationToken,
    epoll: Epoll,
    /// A duplicate of it, that the runtime waits for.
    raised: AsyncFd<OwnedFd>,
}

impl Alarm {
    fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let raised = sys::async_fd(epoll.0.try_clone()?, Interest::READABLE)?;
        Ok(Self { over: CancellationToken::new(), epoll, raised })
    }

    fn add(&self, socket: &Socket) -> io::Result<()> {
        // Errors and the end are told always, and each only once.
        self.epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLET, 0)).map_err(io::Error::from)
    }

    pub(crate) async fn raised(&self) -> io::Result<()> {
        loop {
            let mut ready = self.raised.readable().await?;
            let mut events = [EpollEvent::empty(); 8];
            if self.epoll.wait(&mut events, EpollTimeout::ZERO)? > 0 {
                return Ok(());
            }
            ready.clear_ready();
        }
    }
}

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

/// UDP sockets of these families, where there is a port for them; the families without one are put to the others. Without a port
/// packets are refused that should be dropped: that is the next best, and the rules are in force.
fn udp_where_there_is_a_port(
    families: &[Family],
    search: Search,
    without: &mut Vec<Family>,
) -> Result<Bound, BindError> {
    let mut made = Bound::new();
    for family in families {
        match listener::bind_mute_udp(*family, search) {
            Ok(socket) => made.extend(socket.map(|socket| (*family, socket))),
            Err(BindError::NoPort(_)) => without.push(*family),
            Err(error) => return Err(error),
        }
    }
    Ok(made)
}

impl BlackHole {
    /// Makes those of these protocols that are not there, in a namespace, and puts them into their slots. Blocks.
    pub(crate) fn make(
        &mut self,
        (protocols, search): (&[u32], Search),
        (fd, cookie, target): (&OwnedFd, NetnsCookie, &Target),
        instance: &Instance,
    ) -> Result<(), Error> {
        let is_there = |protocol| self.holes.iter().any(|hole| hole.protocol == protocol);
        let mut missing: Vec<_> = protocols.iter().copied().filter(|one| !is_there(*one)).collect();
        // Of UDP there may be one family, and a port for the other by now.
        let udp = if is_there(PROTOCOL_UDP) { self.lacks.families.clone() } else { FAMILIES.to_vec() };
        missing.retain(|one| *one != PROTOCOL_UDP);
        if protocols.contains(&PROTOCOL_UDP) && !udp.is_empty() {
            missing.push(PROTOCOL_UDP);
        }
        let mut made = Vec::new();
        let mut lacks = None;
        for protocol in missing {
            let alarm = match &self.alarm {
                Some(alarm) => alarm,
                None => self
                    .alarm
                    .insert(Arc::new(Alarm::new().map_err(|source| failed("attach", target, &source))?)),
            };
            let error = |source| failed("attach", target, &source);
            let sockets = if protocol == PROTOCOL_TCP {
                make_inside(fd, cookie, listener::bind_own_pair)
            } else {
                let without = lacks.insert(Vec::new());
                make_inside(fd, cookie, || udp_where_there_is_a_port(&udp, search, without))
            };
            let sockets = sockets.map_err(|source| failed("attach", target, &source))?;
            for (family, socket) in sockets {
                if protocol == PROTOCOL_TCP {
                    listener::mute(&socket).map_err(error)?;
                }
                let hole = Hole { protocol, family, socket };
                instance.set_listener(hole.slot(), hole.socket.as_fd()).map_err(error)?;
                alarm.add(&hole.socket).map_err(|source| failed("attach", target, &source))?;
                made.push(hole);
            }
        }
        self.holes.extend(made);
        if let Some(families) = lacks {
            self.lacks.set(families, target);
        }
        Ok(())
    }

    /// What tells of their deaths, for whoever is to listen; `None` where there is none, or somebody listens.
    pub(crate) fn unwatched(&mut self) -> Option<Arc<Alarm>> {
        let alarm = self.alarm.clone()?;
        (!std::mem::replace(&mut self.is_watched, true)).then_some(alarm)
    }

    /// Whether there was no port for one of them, and it is time to look for one again.
    pub(crate) fn is_due(&mut self) -> bool {
        self.lacks.is_due(Instant::now())
    }

    /// Takes away those of other protocols.
    pub(crate) fn keep(&mut self, protocols: &[u32], instance: &Instance) {
        for gone in self.holes.extract_if(.., |hole| !protocols.contains(&hole.protocol)) {
            instance.clear_listener(gone.slot());
        }
        if !protocols.contains(&PROTOCOL_UDP) {
            self.lacks = Lacks::default();
        }
        if self.holes.is_empty()
            && let Some(alarm) = self.alarm.take()
        {
            alarm.over.cancel();
            self.is_watched = false;
        }
    }

    /// Whether a socket of it, known by its cookie, takes what comes and answers nothing; `None` for another socket.
    pub(crate) fn health_of(&self, cookie: u64) -> Option<bool> {
        let hole = self.holes.iter().find(|hole| hole.socket.cookie().is_ok_and(|own| own == cookie))?;
        let is_listening = || sys::socket::is_listening(&hole.socket).unwrap_or(false);
        Some(hole.protocol != PROTOCOL_TCP || is_listening())
    }

    /// Puts back what was killed from inside, or pushed out of its slot. How many listeners were put back, and how many slots.
    pub(crate) fn mend(&self, instance: &Instance) -> io::Result<(u64, u64)> {
        let (mut revived, mut restored) = (0, 0);
        for hole in &self.holes {
            let socket = &hole.socket;
            // A UDP socket that was killed takes packets as before, and only has an error to tell.
            drop(socket.take_error());
            if hole.protocol == PROTOCOL_TCP && !sys::socket::is_listening(socket)? {
                sys::socket::listen(socket, 1)?;
                revived += 1;
            } else if instance.listener_cookie(hole.slot()).map_err(io::Error::other)?
                == Some(socket.cookie()?)
            {
                continue;
            } else {
                restored += 1;
            }
            instance.set_listener(hole.slot(), socket.as_fd()).map_err(io::Error::other)?;
        }
        Ok((revived, restored))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_looked_for_seldom_where_others_hold_all_and_soon_again_where_that_is_new() {
        let (mut lacks, begin) = (Lacks::default(), Instant::now());
        assert!(!lacks.is_due(begin), "nothing is missing");
        let target = "netns:test".parse().unwrap();
        let mut looks = || {
            lacks.set(FAMILIES.to_vec(), &target);
            let ticks = (0..720).map(|tick| begin + Duration::from_secs(5) * tick);
            let looks: Vec<_> = ticks.filter(|now| lacks.is_due(*now)).map(|now| now - begin).collect();
            lacks.set(Vec::new(), &target);
            looks
        };
        for _ in 0..2 {
            let looks = looks();
            assert!(looks[0] <= Duration::from_secs(5), "{looks:?}");
            assert!((10..25).contains(&looks.len()), "in an hour: {looks:?}");
        }
        assert!(!lacks.is_due(begin + Duration::from_secs(3600)), "nothing is missing any more");
    }
}
