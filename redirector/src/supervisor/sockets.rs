//! The sockets of ours inside one namespace: what the rules there need, and no more. Whoever is steered can hold its ports,
//! so rules that need none must not ask for any.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, MutexGuard, PoisonError},
};

use redirector_ebpf::{CONSUMER_RELAY, PROTOCOL_TCP, slot};
use socket2::{Domain, Protocol, Socket, Type};

use super::{blocking, failed, namespace::Namespace, steering};
use crate::{
    config::Target,
    control::Error,
    listener::{self, BindError, Listener, Reach, Search, make_inside},
    netns::{Family, NetnsCookie},
    sys::{SyscallError, named},
};

/// What a rule set needs.
#[derive(Debug)]
pub(super) struct Needs {
    /// Connections may be for the relay.
    pub(super) relay: bool,
    /// Packets of these protocols may be left without an answer.
    pub(super) black_hole: Vec<u32>,
}

/// The relay's listeners. They are made before the first rule that needs the relay comes into force, and stay until the
/// namespace is detached: there may be connections in their queues.
#[derive(Debug, Default)]
pub(super) struct Relay {
    listeners: Vec<Arc<Listener>>,
    /// Whether a rule that needs them has been in force. Before that nobody can be in their queues.
    is_accepting: bool,
}

/// Leads to the namespace while we steer it: a socket that has no port, and takes nothing.
///
/// # Errors
///
/// When it cannot be made there.
pub(super) fn anchor(fd: &OwnedFd, netns: NetnsCookie, target: &Target) -> Result<Socket, Error> {
    let unbound = || {
        let made = named("socket", Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)));
        let made = made.map_err(|error| BindError::Syscall(Reach::Ipv4, error))?;
        Ok(vec![(Family::Ipv4, made)])
    };
    let made = make_inside(fd, netns, unbound).map_err(|source| failed("attach", target, &source))?;
    let (_, socket) = made.into_iter().next().expect("one was made");
    Ok(socket)
}

/// Makes what is needed and is not there yet. What no rule in force needs stays until [`Namespace::settle_sockets`].
///
/// # Errors
///
/// When it cannot be made there.
pub(super) async fn make_sockets(netns: &Arc<Namespace>, fd: OwnedFd, needs: Needs) -> Result<(), Error> {
    make_sockets_with(Search::Every, netns, fd, needs).await
}

async fn make_sockets_with(
    search: Search,
    netns: &Arc<Namespace>,
    fd: OwnedFd,
    needs: Needs,
) -> Result<(), Error> {
    let made = Arc::clone(netns);
    blocking(move || {
        if needs.relay {
            made.make_listeners(&fd)?;
        }
        let mut black_hole = made.black_hole.lock().unwrap_or_else(PoisonError::into_inner);
        black_hole.make((&needs.black_hole, search), (&fd, made.cookie, &made.target), &made.instance)
    })
    .await?;
    netns.watch_black_hole();
    Ok(())
}

impl Namespace {
    /// The relay's listeners.
    pub(super) fn listeners(&self) -> Vec<Arc<Listener>> {
        self.relay().listeners.clone()
    }

    /// Blocks.
    fn make_listeners(&self, fd: &OwnedFd) -> Result<(), Error> {
        let mut relay = self.relay();
        if !relay.listeners.is_empty() {
            return Ok(());
        }
        let sockets = make_inside(fd, self.cookie, listener::bind_own_pair);
        let sockets = sockets.map_err(|source| failed("attach", &self.target, &source))?;
        let mut made = Vec::new();
        for (family, socket) in sockets {
            let listener = Listener::new(family, socket);
            let listener = listener.map_err(|source| failed("attach", &self.target, &source))?;
            self.fill_slot(&listener).map_err(|source| failed("attach", &self.target, &source))?;
            made.push(Arc::new(listener));
        }
        relay.listeners = made;
        Ok(())
    }

    /// Rules have come into force, or could not: what they need is used from now on, and what none needs goes.
    pub(super) fn settle_sockets(self: &Arc<Self>) {
        let needs = self.published.load().current.needs();
        self.black_hole
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .keep(&needs.black_hole, &self.instance);
        let mut relay = self.relay();
        if relay.is_accepting {
            return;
        }
        if !needs.relay {
            relay.listeners.clear();
            return;
        }
        relay.is_accepting = true;
        for listener in &relay.listeners {
            self.acceptors.spawn(steering::accept(Arc::clone(self), Arc::clone(listener)));
        }
    }

    /// Makes what a rule in force needs and had no port, where it is time for another try. That is a cheap one: who holds all
    /// ports must not keep us busy.
    pub(super) async fn complete_black_hole(self: &Arc<Self>) -> Result<(), Error> {
        if !self.black_hole.lock().unwrap_or_else(PoisonError::into_inner).is_due() {
            return Ok(());
        }
        let fd = self.open().map_err(|error| failed("open", &self.target, &error))?;
        make_sockets_with(Search::Few, self, fd, self.published.load().current.needs()).await
    }

    /// Lets go of all of them.
    pub(super) fn close_sockets(&self) {
        self.relay().listeners.clear();
        self.black_hole.lock().unwrap_or_else(PoisonError::into_inner).keep(&[], &self.instance);
        drop(self.anchor.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Puts a listener into its slot. An empty slot of a family that the kernel has not stays empty.
    pub(super) fn fill_slot(&self, listener: &Listener) -> Result<(), SyscallError> {
        let slot = slot(CONSUMER_RELAY, PROTOCOL_TCP, listener.family().bit());
        self.instance.set_listener(slot, (*listener.get()).as_fd())
    }

    fn relay(&self) -> MutexGuard<'_, Relay> {
        self.relay.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
