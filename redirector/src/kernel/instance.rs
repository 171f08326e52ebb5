//! Load, publish, attach, ask.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
};

use aya::{EbpfLoader, maps::Map, programs::SkLookup};
use redirector_ebpf::{FAMILY_IPV6, Flow, MAX_RULES, Words};

use super::{
    Bypass, Counters,
    object::{OBJECT, PROGRAM},
};
use crate::{
    matcher::Image,
    sys::{SyscallError, bpf, named},
};

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

impl InstanceError {
    /// The errno at the end of the chain, where there is one.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return error.raw_os_error();
            }
            cause = error.source();
        }
        None
    }
}

/// A loaded program and its maps.
#[derive(Debug)]
pub struct Instance {
    program: OwnedFd,
    /// The fd of a rule set, by size: there is one in one of them.
    rules: [bpf::Map<u32, u32>; 3],
    /// Which of them has the rule set in force.
    in_force: Mutex<Option<usize>>,
    /// An fd when it is written, a cookie when it is read.
    listeners: bpf::Map<u32, u64>,
    /// What keeps the relay's own connections from being steered.
    pub bypass: Arc<Bypass>,
    /// What the program counts.
    pub counters: Counters,
}

impl Instance {
    /// Loads the program with maps of its own, and counters for as many rules as a namespace can have. It runs nowhere
    /// until [`Self::attach`].
    ///
    /// # Errors
    ///
    /// As [`Self::load_for`].
    pub fn load() -> Result<Self, InstanceError> {
        Self::load_for(u32::try_from(MAX_RULES).expect("few"))
    }

    /// Loads the program with maps of its own, and counters for so many rules. It runs nowhere until [`Self::attach`].
    ///
    /// # Errors
    ///
    /// Without CAP_BPF and CAP_NET_ADMIN, or when the kernel refuses the program (minimum kernel 5.10).
    pub fn load_for(rules: u32) -> Result<Self, InstanceError> {
        // The object has no CO-RE relocations, so the kernel's own BTF need not be parsed for each namespace.
        let mut loader = EbpfLoader::new();
        loader.btf(None).map_max_entries("RULE_COUNTERS", rules);
        let mut ebpf = loader.load(OBJECT).map_err(InstanceError::Load)?;
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
            ) => Ok(named("dup", data.fd().as_fd().try_clone_to_owned())?),
            _ => Err(InstanceError::Object(name)),
        };
        let call = "bpf BPF_OBJ_GET_INFO_BY_FD map";
        Ok(Self {
            program,
            rules: [
                named(call, bpf::Map::new(take("RULES_SMALL")?))?,
                named(call, bpf::Map::new(take("RULES_MEDIUM")?))?,
                named(call, bpf::Map::new(take("RULES_LARGE")?))?,
            ],
            in_force: Mutex::default(),
            listeners: named(call, bpf::Map::new(take("LISTENERS")?))?,
            bypass: Arc::new(Bypass::new(named(call, bpf::Map::new(take("BYPASS")?))?)),
            counters: Counters::new(
                named(call, bpf::PerCpuArray::new(take("RULE_COUNTERS")?))?,
                named(call, bpf::PerCpuArray::new(take("NETNS_COUNTERS")?))?,
            ),
        })
    }

    /// Makes a rule set the one that the next packet sees. The switch is one pointer; when this returns no
    /// packet is being decided by the one before (the kernel waits for an RCU grace period after an update of a
    /// map of maps: `maybe_wait_bpf_programs`, kernel/bpf/syscall.c). So it blocks for some milliseconds.
    ///
    /// # Errors
    ///
    /// Without memory; the rule set before stays in force.
    pub fn publish(&self, image: &Image) -> Result<(), SyscallError> {
        let (size, inner) = match image {
            Image::Small(words) => (0, inner(words)?),
            Image::Medium(words) => (1, inner(words)?),
            Image::Large(words) => (2, inner(words)?),
        };
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let number = u32::try_from(inner.as_raw_fd()).expect("an open fd is not negative");
        named("bpf BPF_MAP_UPDATE_ELEM RULES", self.rules[size].update(&0, &number, bpf::Update::Any))?;
        // The program takes the smallest that is there. A larger one before is out of force by now, and nobody looks at it
        // any more; a smaller one is in force until it is taken out.
        if let Some(before) = in_force.filter(|before| *before != size)
            && let Err(error) = named("bpf BPF_MAP_DELETE_ELEM RULES", self.rules[before].delete(&0))
        {
            if before < size {
                named("bpf BPF_MAP_DELETE_ELEM RULES", self.rules[size].delete(&0))?;
                return Err(error);
            }
            tracing::error!(%error, "take out the rule set before; its memory is lost until the namespace is let go of");
        }
        *in_force = Some(size);
        Ok(())
    }

    /// Puts a listener into a slot, atomically instead of the one before.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` for a socket that does not listen.
    pub fn set_listener(&self, slot: u32, listener: BorrowedFd<'_>) -> Result<(), SyscallError> {
        let value = u64::try_from(listener.as_raw_fd()).expect("an open fd is not negative");
        named("bpf BPF_MAP_UPDATE_ELEM LISTENERS", self.listeners.update(&slot, &value, bpf::Update::Any))
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

    /// Bytes of machine code that the program is; 0 when the kernel interprets it.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_OBJ_GET_INFO_BY_FD`.
    pub fn machine_code_length(&self) -> Result<u32, SyscallError> {
        named("bpf BPF_OBJ_GET_INFO_BY_FD program", bpf::program_info(self.program.as_fd()))
            .map(|info| info.machine_code_length)
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

/// A map that holds an image.
fn inner<const N: usize>(words: &Words<N>) -> Result<OwnedFd, SyscallError> {
    let map = named("bpf BPF_MAP_CREATE rule set", bpf::Map::<u32, [u32; N]>::array_of_one())?;
    named("bpf BPF_MAP_UPDATE_ELEM rule set", map.update(&0, &words.0, bpf::Update::Any))?;
    Ok(map.into())
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
