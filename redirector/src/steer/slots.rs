//! The relay's listeners inside one namespace, and their slots in its SOCKMAP.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use redirector_ebpf::{CONSUMER_RELAY, PROTOCOL_TCP, slot};
use socket2::{Domain, Protocol, Socket, Type};

use super::error::failed;
use crate::{
    config::Target,
    control::Error,
    kernel::Instance,
    listener::{self, BindError, Listener, Reach, Reaching, make_inside},
    netns::{Family, NetnsCookie},
    sys::{SyscallError, named},
};

/// The relay's listeners. They are made before the first rule that needs the relay comes into force, and stay until the
/// namespace is detached: there may be connections in their queues.
#[derive(Debug, Default)]
pub(crate) struct Relay {
    listeners: Vec<Arc<Listener>>,
    /// Whether a rule that needs them has been in force. Before that nobody can be in their queues.
    is_accepting: bool,
}

impl Relay {
    /// Makes them where they are not there, and fills their slots. Blocks.
    ///
    /// # Errors
    ///
    /// When they cannot be made there.
    pub(crate) fn make(
        &mut self,
        (fd, netns, target): (&OwnedFd, NetnsCookie, &Target),
        instance: &Instance,
    ) -> Result<(), Error> {
        if !self.listeners.is_empty() {
            return Ok(());
        }
        let sockets = make_inside(fd, netns, listener::bind_own_pair);
        let sockets = sockets.map_err(|source| failed("attach", target, &source))?;
        let mut made = Vec::new();
        for (family, socket) in sockets {
            let listener = Listener::new(family, socket);
            let listener = listener.map_err(|source| failed("attach", target, &source))?;
            fill(instance, &listener).map_err(|source| failed("attach", target, &source))?;
            made.push(Arc::new(listener));
        }
        self.listeners = made;
        Ok(())
    }

    /// Those that there are.
    pub(crate) fn listeners(&self) -> &[Arc<Listener>] {
        &self.listeners
    }

    /// Rules have come into force, or could not. Gives the listeners that are to be accepted from, from now on; those that no
    /// rule has ever needed go.
    pub(crate) fn settle(&mut self, is_needed: impl FnOnce() -> bool) -> &[Arc<Listener>] {
        if self.is_accepting {
            return &[];
        }
        if !is_needed() {
            self.listeners.clear();
            return &[];
        }
        self.is_accepting = true;
        &self.listeners
    }

    /// Lets go of them.
    pub(crate) fn close(&mut self) {
        self.listeners.clear();
    }
}

/// Puts a listener of the relay into its slot. An empty slot of a family that the kernel has not stays empty.
pub(crate) fn fill(instance: &Instance, listener: &Listener) -> Result<(), SyscallError> {
    instance.set_listener(slot_of(listener), (*listener.get()).as_fd())
}

/// Whether a listener is in its slot.
pub(crate) fn is_in_slot(instance: &Instance, listener: &Listener) -> bool {
    let cookie = listener.cookie().ok();
    cookie.is_some() && instance.listener_cookie(slot_of(listener)).ok().flatten() == cookie
}

/// Whether the slot has our listener *and* it listens: after `ss -K` from inside the cookie is still there.
pub(crate) fn is_healthy(instance: &Instance, listener: &Listener) -> bool {
    listener.is_listening() && is_in_slot(instance, listener)
}

fn slot_of(listener: &Listener) -> u32 {
    slot(CONSUMER_RELAY, PROTOCOL_TCP, listener.family().bit())
}

/// Puts listeners into a consumer's slots. Dropping the sockets empties the slots.
///
/// # Errors
///
/// As bpf(2) `BPF_MAP_UPDATE_ELEM`.
pub(crate) fn fill_consumer(
    instance: &Instance,
    consumer: u32,
    listeners: &Reaching,
    target: &Target,
) -> Result<(), Error> {
    let each = listeners
        .iter()
        .flat_map(|(reach, socket)| reach.families().iter().map(move |family| (family, socket)));
    each.into_iter().try_for_each(|(family, socket)| {
        let filled = instance.set_listener(slot(consumer, PROTOCOL_TCP, family.bit()), socket.as_fd());
        filled.map_err(|source| failed("attach", target, &source))
    })
}

/// Empties a consumer's slots: whoever still holds listeners that were in them gets nothing more.
pub(crate) fn empty_consumer(instance: &Instance, consumer: u32) {
    for family in [Family::Ipv4, Family::Ipv6] {
        instance.clear_listener(slot(consumer, PROTOCOL_TCP, family.bit()));
    }
}

/// Leads to the namespace while we steer it: a socket that has no port, and takes nothing.
///
/// # Errors
///
/// When it cannot be made there.
pub(crate) fn anchor(fd: &OwnedFd, netns: NetnsCookie, target: &Target) -> Result<Socket, Error> {
    let unbound = || {
        let made = named("socket", Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)));
        let made = made.map_err(|error| BindError::Syscall(Reach::Ipv4, error))?;
        Ok(vec![(Family::Ipv4, made)])
    };
    let made = make_inside(fd, netns, unbound).map_err(|source| failed("attach", target, &source))?;
    let (_, socket) = made.into_iter().next().expect("one was made");
    Ok(socket)
}
