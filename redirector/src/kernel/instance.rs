//! Load, publish, attach, ask.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
};

use aya::{
    EbpfLoader,
    maps::{Map, MapData},
    programs::SkLookup,
};
use redirector_ebpf::{FAMILY_IPV6, Flow, RuleSet};

use super::{
    Bypass, Counters,
    object::{OBJECT, PROGRAM},
};
use crate::sys::{SyscallError, bpf, named};

/// Why an instance could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// The verifier's log is in the chain.
    #[error("load the kernel program")]
    Load(#[source] aya::EbpfError),
    /// The verifier's log is in the chain.
    #[error("load the kernel program")]
    Program(#[source] aya::programs::ProgramError),
    /// The embedded object is not the one that this code was written for.
    #[error("the kernel object has no `{0}`")]
    Object(&'static str),
    /// A call on its maps or its link.
    #[error("kernel program's maps and link")]
    Syscall(#[from] SyscallError),
}

/// A loaded program and its maps.
#[derive(Debug)]
pub struct Instance {
    program: OwnedFd,
    rules: MapData,
    listeners: MapData,
    /// What keeps the relay's own connections from being steered.
    pub bypass: Arc<Bypass>,
    /// What the program counts.
    pub counters: Counters,
}

impl Instance {
    /// Loads the program with maps of its own. It runs nowhere until [`Self::attach`].
    ///
    /// # Errors
    ///
    /// Without CAP_BPF and CAP_NET_ADMIN, or when the kernel refuses the program (minimum kernel 5.10).
    pub fn load() -> Result<Self, InstanceError> {
        // The object has no CO-RE relocations, so the kernel's own BTF need not be parsed for each namespace.
        let mut ebpf = EbpfLoader::new().btf(None).load(OBJECT).map_err(InstanceError::Load)?;
        let program: &mut SkLookup = ebpf
            .program_mut(PROGRAM)
            .ok_or(InstanceError::Object(PROGRAM))?
            .try_into()
            .map_err(InstanceError::Program)?;
        program.load().map_err(InstanceError::Program)?;
        let fd = program.fd().map_err(InstanceError::Program)?.as_fd().try_clone_to_owned();
        let program = named("dup", fd)?;
        let mut take = |name| match ebpf.take_map(name) {
            Some(
                Map::ArrayOfMaps(data) | Map::SockMap(data) | Map::HashMap(data) | Map::PerCpuArray(data),
            ) => Ok(data),
            _ => Err(InstanceError::Object(name)),
        };
        Ok(Self {
            program,
            rules: take("RULES")?,
            listeners: take("LISTENERS")?,
            bypass: Arc::new(Bypass::new(take("BYPASS")?)),
            counters: Counters::new(take("RULE_COUNTERS")?, take("NETNS_COUNTERS")?),
        })
    }

    /// Makes a rule set the one that the next packet sees. The switch is one pointer; when this returns no
    /// packet is being decided by the one before (the kernel waits for an RCU grace period after an update of a
    /// map of maps: `maybe_wait_bpf_programs`, kernel/bpf/syscall.c). So it blocks for some milliseconds.
    ///
    /// # Errors
    ///
    /// Without memory; the rule set before stays in force.
    pub fn publish(&self, set: &RuleSet) -> Result<(), SyscallError> {
        let inner = named("bpf BPF_MAP_CREATE rule set", bpf::create_array_of_one::<RuleSet>())?;
        let update = bpf::map_update(inner.as_fd(), &0_u32, set, bpf::Update::Any);
        named("bpf BPF_MAP_UPDATE_ELEM rule set", update)?;
        let number = u32::try_from(inner.as_raw_fd()).expect("an open fd is not negative");
        let update = bpf::map_update(self.rules.fd().as_fd(), &0_u32, &number, bpf::Update::Any);
        named("bpf BPF_MAP_UPDATE_ELEM RULES", update)
    }

    /// Puts a listener into a slot, atomically instead of the one before.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` for a socket that does not listen.
    pub fn set_listener(&self, slot: u32, listener: BorrowedFd<'_>) -> Result<(), SyscallError> {
        let value = u64::try_from(listener.as_raw_fd()).expect("an open fd is not negative");
        let update = bpf::map_update(self.listeners.fd().as_fd(), &slot, &value, bpf::Update::Any);
        named("bpf BPF_MAP_UPDATE_ELEM LISTENERS", update)
    }

    /// The socket cookie of the listener in a slot.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_MAP_LOOKUP_ELEM`.
    pub fn listener_cookie(&self, slot: u32) -> Result<Option<u64>, SyscallError> {
        named("bpf BPF_MAP_LOOKUP_ELEM LISTENERS", bpf::map_lookup(self.listeners.fd().as_fd(), &slot))
    }

    /// Attaches the program to a namespace (an nsfs fd). The caller has made sure that listeners and rules are
    /// in place: from here on packets are steered.
    ///
    /// # Errors
    ///
    /// `E2BIG` when the namespace has 64 `sk_lookup` programs already.
    pub fn attach(&self, netns: BorrowedFd<'_>) -> Result<Link, SyscallError> {
        let link = bpf::link_create(self.program.as_fd(), netns);
        named("bpf BPF_LINK_CREATE", link).map(Link)
    }

    /// The program's id.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_OBJ_GET_INFO_BY_FD`.
    pub fn program_id(&self) -> Result<u32, SyscallError> {
        named("bpf BPF_OBJ_GET_INFO_BY_FD program", bpf::program_info(self.program.as_fd()))
            .map(|info| info.id)
    }

    /// Runs the program on a made-up packet, as often as `repeat` says. Minimum kernel 5.13.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_PROG_TEST_RUN`.
    pub fn test_run(&self, flow: &Flow, repeat: u32) -> io::Result<bpf::TestRunResult> {
        let is_ipv6 = flow.family == FAMILY_IPV6;
        let remote_port = u16::try_from(flow.remote_port).map_err(io::Error::other)?;
        let mut context = bpf::SkLookup {
            family: u32::try_from(if is_ipv6 { libc::AF_INET6 } else { libc::AF_INET }).expect("small"),
            protocol: flow.protocol,
            remote_port: remote_port.to_be(),
            local_port: flow.local_port,
            ..bpf::SkLookup::default()
        };
        if is_ipv6 {
            context.remote_ip6 = flow.remote_address;
            context.local_ip6 = flow.local_address;
        } else {
            context.remote_ip4 = flow.remote_address[0];
            context.local_ip4 = flow.local_address[0];
        }
        bpf::test_run(self.program.as_fd(), &context, repeat)
    }
}

/// A program's attachment to a namespace. Dropping it detaches at once, even when the process is killed. It
/// does not keep the namespace alive.
#[derive(Debug)]
pub struct Link(OwnedFd);

impl Link {
    /// Asks the kernel: ids, and the inode of the namespace, 0 when that is gone.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_OBJ_GET_INFO_BY_FD`.
    pub fn info(&self) -> Result<bpf::LinkInfo, SyscallError> {
        named("bpf BPF_OBJ_GET_INFO_BY_FD link", bpf::link_info(self.0.as_fd()))
    }
}
