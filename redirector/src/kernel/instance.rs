//! Load, publish, attach, ask.

use std::{
    fs, io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use redirector_ebpf::is_of_hand_off;

use super::{
    Bypass, Counters, Ingress, InstanceError, RuleSet, RuleSets, Shared,
    counters::Array,
    filler::Demand,
    loaded::{Counting, InForce, Loaded, Maps, Shape, load, put},
    own_listeners::OwnListeners,
    parts::Parts,
    stock::InstanceKind,
};
use crate::sys::{SyscallError, bpf, named};

/// A rule set that can be put into force: all that can be missing has been made.
#[derive(Debug)]
pub struct Prepared(Next);

#[derive(Debug)]
enum Next {
    /// The same program goes on with another image.
    Image(InForce),
    /// Another program, and counters where it needs more.
    Program { loaded: Loaded, more: Option<Array> },
}

/// The program of one namespace, and its maps. While it is attached, dropping it detaches it at once, even when the process is
/// killed. It does not keep the namespace alive.
#[derive(Debug)]
pub struct Instance {
    shared: Arc<Shared>,
    ingress: Ingress,
    loaded: Arc<Mutex<Loaded>>,
    link: Mutex<Option<Link>>,
    /// An fd when it is written, a cookie when it is read.
    listeners: bpf::Map<u32, u64>,
    own_listeners: OwnListeners,
    /// What keeps the relay's own connections from being steered.
    pub bypass: Arc<Bypass>,
    /// What the program counts.
    pub counters: Counters,
}

/// While it is there, packets are steered.
#[derive(Debug)]
struct Link {
    fd: OwnedFd,
    _demand: Demand,
}

/// A new namespace has counters for so many rules. Where that is not enough it has four times as many, and so on.
const FEW_RULES: u32 = 16;

fn counters_for(rules: u32) -> u32 {
    let mut counters = FEW_RULES;
    while counters < rules {
        counters *= 4;
    }
    counters
}

impl Instance {
    /// Loads the program without rules, with counters for a few, and with nothing shared. It runs nowhere until
    /// [`Self::attach`].
    ///
    /// # Errors
    ///
    /// As [`Self::load_with`].
    pub fn load() -> Result<Self, InstanceError> {
        Self::load_with(&Arc::default(), &RuleSet::default(), FEW_RULES, Ingress::Read)
    }

    /// Loads the program with a rule set in force, and counters for so many rules. It runs nowhere until [`Self::attach`].
    ///
    /// # Errors
    ///
    /// Without CAP_BPF and CAP_NET_ADMIN, or when the kernel refuses the program (minimum kernel 5.10).
    pub fn load_with(
        shared: &Arc<Shared>,
        rule_set: &RuleSet,
        rules: u32,
        ingress: Ingress,
    ) -> Result<Self, InstanceError> {
        let kind = InstanceKind { shape: Shape::of(rule_set), counted: counters_for(rules) };
        let Parts { listeners, bypass, own_listeners, counters, loaded } =
            shared.parts(rule_set, kind, ingress)?;
        Ok(Self {
            shared: Arc::clone(shared),
            ingress,
            loaded: Arc::new(Mutex::new(loaded)),
            link: Mutex::default(),
            listeners,
            own_listeners,
            bypass: Arc::new(bypass),
            counters,
        })
    }

    /// Maps that each of its programs has.
    fn maps(&self) -> Maps<'_> {
        Maps {
            listeners: self.listeners.as_fd(),
            bypass: &self.bypass,
            own_listeners: self.own_listeners.map().as_fd(),
        }
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn link(&self) -> MutexGuard<'_, Option<Link>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rule sets that other namespaces may have too.
    #[must_use]
    pub fn rule_sets(&self) -> &RuleSets {
        &self.shared.rule_sets
    }

    /// Makes a rule set the one that the next packet sees, and has counters for so many rules.
    ///
    /// # Errors
    ///
    /// As [`Self::prepare`] and [`Self::switch`]; the rule set before stays in force.
    pub fn publish(&self, rule_set: &RuleSet, rules: u32) -> Result<(), InstanceError> {
        let prepared = self.prepare(rule_set, rules)?;
        self.switch(prepared).map(drop)
    }

    /// Makes what is needed to put a rule set into force. Nothing of it is yet.
    ///
    /// Where an image has another length, or looks at more than the program can, or rules need more counters, that is another
    /// program with the same maps. What was counted stays counted.
    ///
    /// # Errors
    ///
    /// As [`Self::load_with`].
    pub fn prepare(&self, rule_set: &RuleSet, rules: u32) -> Result<Prepared, InstanceError> {
        let loaded = self.loaded();
        if loaded.shape.suffices_for(Shape::of(rule_set)) && rules <= loaded.counted {
            return Ok(Prepared(Next::Image(InForce::new(rule_set)?)));
        }
        let counted = self.counters.capacity();
        let more = if rules <= counted { None } else { Some(Array::make(counters_for(rules))?) };
        let maps = self.maps();
        let identity = self.shared.identity(self.ingress);
        let in_force = InForce::new(rule_set)?;
        let loaded = match &more {
            Some(more) => {
                let counting = Counting { map: more.as_fd(), rules: counters_for(rules) };
                load(identity, &maps, counting, in_force)
            }
            None => self
                .counters
                .with_last(|map| load(identity, &maps, Counting { map, rules: counted }, in_force)),
        }?;
        Ok(Prepared(Next::Program { loaded, more }))
    }

    /// Makes what was prepared last what the next packet sees: one pointer. When this returns no packet is being decided by
    /// what was before, so it blocks for some milliseconds. Gives what was before: to switch to it makes nothing new.
    ///
    /// # Errors
    ///
    /// As [`bpf::link_update`], and [`InstanceError::Outdated`]; what was before stays in force.
    pub fn switch(&self, Prepared(next): Prepared) -> Result<Prepared, InstanceError> {
        let mut loaded = self.loaded();
        match next {
            Next::Image(next) if !loaded.shape.suffices_for(next.shape) => Err(InstanceError::Outdated),
            Next::Image(next) => {
                put(&loaded.rules, &next.map)?;
                loaded.twin = None;
                Ok(Prepared(Next::Image(std::mem::replace(&mut loaded.in_force, next))))
            }
            Next::Program { loaded: new, more } => {
                if let Some(link) = &*self.link() {
                    named("bpf BPF_LINK_UPDATE", bpf::link_update(link.fd.as_fd(), new.program.as_fd()))?;
                }
                more.into_iter().for_each(|more| self.counters.add(more));
                let before = std::mem::replace(&mut *loaded, new);
                // Nothing has waited until no packet is in the program before; this does.
                if let Err(error) = put(&loaded.rules, &loaded.in_force.map) {
                    tracing::error!(%error, "wait for packets that the program before decides");
                }
                Ok(Prepared(Next::Program { loaded: before, more: None }))
            }
        }
    }

    /// Another program on the same listeners and bypass entries, with the rule set that is in force now. It is attached nowhere.
    pub(super) fn load_another(
        &self,
        ingress: Ingress,
        counters: &Counters,
    ) -> Result<OwnedFd, InstanceError> {
        let in_force = self.loaded().in_force.clone();
        let maps = self.maps();
        let identity = self.shared.identity(ingress);
        let rules = counters.capacity();
        Ok(counters.with_last(|map| load(identity, &maps, Counting { map, rules }, in_force))?.program)
    }

    /// Whether the kernel tells by which interface packets come.
    #[must_use]
    pub fn reads_ingress(&self) -> bool {
        self.shared.reads_ingress()
    }

    /// The id of the map that holds the rule set in force.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_MAP_LOOKUP_ELEM`.
    pub fn rule_set_id(&self) -> Result<Option<u32>, SyscallError> {
        named("bpf BPF_MAP_LOOKUP_ELEM RULES", self.loaded().rules.lookup(&0))
    }

    /// Puts a listener into a slot, atomically instead of the one before. One of a hand-off nobody gets to by its own address from
    /// here on, until it is closed.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` for a socket that does not listen.
    pub fn set_listener(&self, slot: u32, listener: BorrowedFd<'_>) -> Result<(), SyscallError> {
        if is_of_hand_off(slot) {
            self.own_listeners.enter(listener)?;
        }
        let value = u64::try_from(listener.as_raw_fd()).expect("an open fd is not negative");
        named("bpf BPF_MAP_UPDATE_ELEM LISTENERS", self.listeners.update(&slot, &value, bpf::Update::Any))
    }

    /// Whether a listener of a hand-off is bound to this address.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_MAP_LOOKUP_ELEM`.
    pub fn has_own_listener(&self, address: SocketAddr) -> Result<bool, SyscallError> {
        self.own_listener(address).map(|found| found.is_some())
    }

    /// The cookie of the listener of a hand-off that is bound to this address, as long as anybody has it open and it listens.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_MAP_LOOKUP_ELEM`.
    pub fn own_listener(&self, address: SocketAddr) -> Result<Option<u64>, SyscallError> {
        named("bpf BPF_MAP_LOOKUP_ELEM OWN_LISTENERS", self.own_listeners.get(address))
    }

    /// The SOCKMAP, for [`super::fill_slot`].
    #[must_use]
    pub fn listeners(&self) -> BorrowedFd<'_> {
        self.listeners.as_fd()
    }

    /// Nobody gets to a listener by its own address from here on, before it is in a slot.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_MAP_UPDATE_ELEM`.
    pub fn guard(&self, listener: BorrowedFd<'_>) -> Result<(), SyscallError> {
        self.own_listeners.enter(listener)
    }

    /// Empties a slot. One that is empty already is no error.
    pub fn clear_listener(&self, slot: u32) {
        // EINVAL and ENOENT, by kernel, say that it was empty; there is nothing else to fail.
        if let Err(error) = self.listeners.delete(&slot) {
            tracing::trace!(%error, slot, "bpf BPF_MAP_DELETE_ELEM LISTENERS");
        }
    }

    /// The socket cookie of the listener in a slot.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_MAP_LOOKUP_ELEM`.
    pub fn listener_cookie(&self, slot: u32) -> Result<Option<u64>, SyscallError> {
        named("bpf BPF_MAP_LOOKUP_ELEM LISTENERS", self.listeners.lookup(&slot))
    }

    /// Attaches the program to a namespace (an nsfs fd), once. The caller has made sure that listeners and rules are
    /// in place: from here on packets are steered.
    ///
    /// # Errors
    ///
    /// `E2BIG` when the namespace has 64 `sk_lookup` programs already.
    pub fn attach(&self, netns: BorrowedFd<'_>) -> Result<(), SyscallError> {
        // Held so that no other program takes the place of this one meanwhile.
        let loaded = self.loaded();
        let fd = named("bpf BPF_LINK_CREATE", bpf::link_create(loaded.program.as_fd(), netns))?;
        let twin = loaded.twin.as_ref().map(|_| Arc::downgrade(&self.loaded));
        *self.link() = Some(Link { fd, _demand: Demand::begin(&self.shared, twin) });
        Ok(())
    }

    /// Detaches it at once, for good, also where somebody else has the link.
    pub fn detach(&self) {
        if let Some(link) = self.link().take()
            && let Err(error) = bpf::link_detach(link.fd.as_fd())
        {
            // Closing it does as much, where nobody else has it.
            tracing::debug!(%error, "bpf BPF_LINK_DETACH");
        }
    }

    /// What the kernel says of its attachment: ids, and the inode of the namespace, 0 when that is gone. `None` when it is not
    /// attached.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_OBJ_GET_INFO_BY_FD`.
    pub fn link_info(&self) -> Option<Result<bpf::LinkInfo, SyscallError>> {
        let info = |link: &Link| named("bpf BPF_OBJ_GET_INFO_BY_FD link", bpf::link_info(link.fd.as_fd()));
        self.link().as_ref().map(info)
    }

    /// The program's id.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_OBJ_GET_INFO_BY_FD`.
    pub fn program_id(&self) -> Result<u32, SyscallError> {
        named("bpf BPF_OBJ_GET_INFO_BY_FD program", bpf::program_info(self.loaded().program.as_fd()))
            .map(|info| info.id)
    }

    /// Bytes of machine code that the program is; 0 when the kernel interprets it.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_OBJ_GET_INFO_BY_FD`.
    pub fn machine_code_length(&self) -> Result<u32, SyscallError> {
        named("bpf BPF_OBJ_GET_INFO_BY_FD program", bpf::program_info(self.loaded().program.as_fd()))
            .map(|info| info.machine_code_length)
    }

    /// Instructions that the verifier has walked to load the program, each as often as it did: what a load costs, whatever the
    /// machine. `None` where the kernel does not tell (before 5.16).
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_OBJ_GET_INFO_BY_FD`.
    pub fn verified_instructions(&self) -> Result<Option<u32>, SyscallError> {
        let info = bpf::program_info(self.loaded().program.as_fd());
        let verified = named("bpf BPF_OBJ_GET_INFO_BY_FD program", info)?.verified_instructions;
        Ok(Some(verified).filter(|verified| *verified > 0))
    }

    /// Bytes of kernel memory that this namespace takes: program, maps, and the rule set that others may share. Neither the
    /// one bypass map of all namespaces nor sockets are counted.
    ///
    /// # Errors
    ///
    /// When `/proc/self/fdinfo` cannot be read.
    pub fn kernel_memory(&self) -> io::Result<u64> {
        let code = self.machine_code_length().map_err(io::Error::other)?;
        let counters: u64 = self.counters.with_all(locked_memory).into_iter().sum::<io::Result<_>>()?;
        let Loaded { program, rules, in_force, shape: _, counted: _, twin: _ } = &*self.loaded();
        let fds = [program.as_fd(), rules.as_fd(), in_force.map.as_fd(), self.listeners.as_fd()];
        Ok(fds.into_iter().map(locked_memory).sum::<io::Result<u64>>()? + counters + u64::from(code))
    }

    /// Calls with the program.
    pub(super) fn with_program<T>(&self, call: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
        call(self.loaded().program.as_fd())
    }
}

/// What the kernel says that a map or a program takes, its machine code apart.
fn locked_memory(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let bytes = info.lines().find_map(|line| line.strip_prefix("memlock:"));
    bytes.and_then(|bytes| bytes.trim().parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
