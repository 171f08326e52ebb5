//! The daemon's own ends of the connections that it makes outside of steered namespaces.
//!
//! A destination can lead, by whatever route, to an address of a namespace that is steered, and from there to us
//! again. Such a connection, as it is accepted, has the same two addresses as one that we have made. Address translation
//! on the way hides it.
//!
//! The same addresses prove nothing where addresses repeat: another connection can have both in another namespace.
//! So the two sockets' sequence numbers are compared. The kernel chooses the first one of each connection so that
//! no other has it (RFC 6528), and both ends know it (`sys::sequence`). That is exact: 32 bits on top of
//! two equal addresses, and asked only when these are equal.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use socket2::Socket;

use crate::{
    netns::NetnsCookie,
    sys::{self, sequence::Unknown},
};

/// More than threads that dial, so that they seldom meet.
const SHARDS: usize = 64;

/// So many that a steered address seldom shares one with an address that is dialled.
const DESTINATIONS: usize = 1024;

/// An end without what only its own namespace knows: the interface of a link-local address.
type End = (IpAddr, u16);

fn end(address: SocketAddr) -> End {
    (address.ip().to_canonical(), address.port())
}

/// The number, if the kernel has told it. A connection that has come to harm by the question is an error.
fn known(first: Result<u32, Unknown>) -> io::Result<Option<u32>> {
    match first {
        Ok(first) => Ok(Some(first)),
        Err(Unknown::NotTold(_)) => Ok(None),
        Err(stuck @ Unknown::Stuck(_)) => Err(io::Error::other(stuck)),
    }
}

/// A connection, as the one who makes it sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct BothEnds {
    from: End,
    to: End,
}

/// A connection of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct OwnConnection {
    ends: BothEnds,
    netns: NetnsCookie,
    /// The sequence number of its first byte, if the kernel has told it.
    first: Option<u32>,
}

/// Connections to some of all addresses.
#[derive(Debug, Default)]
struct Shard {
    /// How many are being made or are open.
    count: AtomicUsize,
    /// Those who connect hold it for reading, from before connect(2) until the connection is entered. Whoever holds it for
    /// writing knows that each connection that can have been answered is entered.
    connecting: RwLock<()>,
}

/// How many of each are entered. Of equal ones the first may be closed, its guard not yet dropped.
type Entered = BTreeMap<OwnConnection, usize>;

/// The connections that are being made or are open.
#[derive(Debug)]
pub(crate) struct Outgoing {
    destinations: Box<[Shard]>,
    shards: [Mutex<Entered>; SHARDS],
}

impl Default for Outgoing {
    fn default() -> Self {
        Self {
            destinations: (0..DESTINATIONS).map(|_| Shard::default()).collect(),
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }
}

/// Begins to connect a socket.
pub(super) fn begin(socket: &Socket, to: SocketAddr) -> io::Result<()> {
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(()),
    }
}

impl Outgoing {
    fn destination(&self, (address, port): End) -> &Shard {
        let last = match address {
            IpAddr::V4(v4) => v4.octets()[3],
            IpAddr::V6(v6) => v6.octets()[15],
        };
        &self.destinations[(usize::from(port) + 64 * usize::from(last)) % DESTINATIONS]
    }

    fn with<T>(&self, ends: BothEnds, act: impl FnOnce(&mut Entered) -> T) -> T {
        let shard = &self.shards[usize::from(ends.from.1) % SHARDS];
        act(&mut shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Begins to connect a socket of a namespace, and enters it before anybody can ask for it.
    pub(crate) fn connect(
        self: &Arc<Self>,
        socket: &Socket,
        netns: NetnsCookie,
        to: SocketAddr,
    ) -> io::Result<OutgoingGuard> {
        let coming = self.announce(end(to));
        let _connecting = self.destination(end(to)).connecting.read().unwrap_or_else(PoisonError::into_inner);
        begin(socket, to)?;
        let from = socket.local_addr()?.as_socket();
        let from = from.ok_or_else(|| io::Error::other("not an internet address"))?;
        let say = |error: &Unknown| tracing::debug!(%to, %error, "ask for a connection's sequence number");
        let first = known(sys::sequence::first_sent(socket).inspect_err(say))?;
        Ok(coming.enter(OwnConnection { ends: BothEnds { from: end(from), to: end(to) }, netns, first }))
    }

    fn announce(self: &Arc<Self>, to: End) -> Announced {
        self.destination(to).count.fetch_add(1, Ordering::SeqCst);
        Announced { outgoing: Arc::clone(self), to }
    }

    /// Whether a connection that was accepted is one of these: in which namespace we have made it. `first` asks its socket for
    /// the sequence number of the first byte from the client. Where the kernel does not tell it, of either
    /// socket, both addresses have to do.
    ///
    /// # Errors
    ///
    /// When the connection is over by having been asked.
    pub(crate) fn find(
        &self,
        client: SocketAddr,
        original: SocketAddr,
        first: impl FnOnce() -> Result<u32, Unknown>,
    ) -> io::Result<Option<NetnsCookie>> {
        let ends = BothEnds { from: end(client), to: end(original) };
        let destination = self.destination(ends.to);
        if destination.count.load(Ordering::SeqCst) == 0 {
            return Ok(None);
        }
        drop(destination.connecting.write().unwrap_or_else(PoisonError::into_inner));
        let least = OwnConnection { ends, netns: NetnsCookie(0), first: None };
        let candidates: Vec<_> = self.with(ends, |entered| {
            entered.range(least..).map(|(own, _)| *own).take_while(|own| own.ends == ends).collect()
        });
        if candidates.is_empty() {
            return Ok(None);
        }
        let say = |error: &Unknown| {
            tracing::debug!(%client, %original, %error, "ask for a connection's sequence number");
        };
        let first = known(first().inspect_err(say))?;
        let is_same = |own: &&OwnConnection| match (own.first, first) {
            // An end that has come counts as a byte.
            (Some(sent), Some(received)) => received.wrapping_sub(sent) <= 1,
            _ => true,
        };
        Ok(candidates.iter().find(is_same).map(|own| own.netns))
    }
}

/// A connection to an address, counted there until this is dropped.
#[derive(Debug)]
struct Announced {
    outgoing: Arc<Outgoing>,
    to: End,
}

impl Announced {
    fn enter(self, own: OwnConnection) -> OutgoingGuard {
        self.outgoing.with(own.ends, |entered| *entered.entry(own).or_default() += 1);
        OutgoingGuard { announced: self, own }
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.outgoing.destination(self.to).count.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct OutgoingGuard {
    announced: Announced,
    own: OwnConnection,
}

impl Drop for OutgoingGuard {
    fn drop(&mut self) {
        self.announced.outgoing.with(self.own.ends, |entered| {
            if let Some(count) = entered.get_mut(&self.own) {
                *count -= 1;
                if *count == 0 {
                    entered.remove(&self.own);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn own(netns: u64, from: &str, to: &str, first: Option<u32>) -> OwnConnection {
        let ends = BothEnds { from: end(address(from)), to: end(address(to)) };
        OwnConnection { ends, netns: NetnsCookie(netns), first }
    }

    fn enter(outgoing: &Arc<Outgoing>, own: OwnConnection) -> OutgoingGuard {
        outgoing.announce(own.ends.to).enter(own)
    }

    fn find(outgoing: &Outgoing, client: &str, original: &str, first: u32) -> Option<u64> {
        outgoing.find(address(client), address(original), || Ok(first)).unwrap().map(|netns| netns.0)
    }

    #[test]
    fn a_connection_is_ours_by_both_addresses_and_its_first_sequence_number() {
        let outgoing = Arc::new(Outgoing::default());
        let guard = enter(&outgoing, own(1, "10.0.0.1:40000", "10.0.0.2:80", Some(u32::MAX)));
        let asked = |client, original| {
            outgoing.find(address(client), address(original), || panic!("no need")).unwrap()
        };
        assert_eq!(asked("10.0.0.1:40000", "10.0.0.2:81"), None, "another port");
        assert_eq!(asked("10.0.0.1:40000", "10.0.0.3:80"), None, "another address");
        assert_eq!(asked("10.0.0.1:40001", "10.0.0.2:80"), None, "another client");
        assert_eq!(asked("10.0.0.2:80", "10.0.0.1:40000"), None, "the other way");
        assert_eq!(find(&outgoing, "10.0.0.1:40000", "10.0.0.2:80", u32::MAX), Some(1));
        assert_eq!(find(&outgoing, "10.0.0.1:40000", "10.0.0.2:80", 0), Some(1), "with its end");
        assert_eq!(find(&outgoing, "10.0.0.1:40000", "10.0.0.2:80", 1), None, "in another namespace");
        let unknown =
            |why| outgoing.find(address("10.0.0.1:40000"), address("10.0.0.2:80"), || Err(why)).ok();
        let why = || io::ErrorKind::PermissionDenied.into();
        assert_eq!(unknown(Unknown::NotTold(why())), Some(Some(NetnsCookie(1))));
        assert_eq!(unknown(Unknown::Stuck(why())), None, "it is nobody's any more");
        drop(guard);
        assert_eq!(asked("10.0.0.1:40000", "10.0.0.2:80"), None);
    }

    #[test]
    fn connections_with_the_same_ends_do_not_take_each_other_out() {
        let outgoing = Arc::new(Outgoing::default());
        let (from, to) = ("[fe80::1]:40000", "[fe80::2]:80");
        let all = [
            own(1, from, to, Some(7)),
            own(1, from, to, Some(7)),
            own(1, from, to, Some(9)),
            own(2, from, to, Some(100)),
            own(2, from, "[fe80::2]:81", Some(200)),
        ];
        let mut guards: Vec<_> = all.map(|own| Some(enter(&outgoing, own))).into_iter().collect();
        guards[0] = None;
        assert_eq!(find(&outgoing, from, to, 7), Some(1));
        guards[2] = None;
        assert_eq!(find(&outgoing, from, to, 9), None);
        assert_eq!(find(&outgoing, from, to, 7), Some(1));
        assert_eq!(find(&outgoing, from, to, 100), Some(2));
        guards[1] = None;
        assert_eq!(find(&outgoing, from, to, 7), None);
        // As the other namespace names the same address.
        let scoped = SocketAddr::V6(std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 40_000, 0, 3));
        assert_eq!(outgoing.find(scoped, address(to), || Ok(100)).unwrap(), Some(NetnsCookie(2)));
        assert_eq!(find(&outgoing, from, "[fe80::2]:81", 200), Some(2));
        guards.clear();
        assert!(outgoing.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
        assert!(outgoing.destinations.iter().all(|one| one.count.load(Ordering::SeqCst) == 0));
    }
}
