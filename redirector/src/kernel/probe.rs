//! What the running kernel can do, found out by doing it.
//!
//! Nothing here is attached anywhere, and all of it is gone when a function returns. A refusal is no answer to
//! whether a kernel *has* something: without the capability that is named with each, it is `EPERM`.

use std::{
    io,
    mem::offset_of,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use crate::sys::{
    SyscallError,
    bpf::{self, Instruction, Map, SkLookup, Update},
    named,
};

/// BPF at all: makes a map. Needs CAP_BPF where the sysctl `kernel.unprivileged_bpf_disabled` is not 0.
///
/// # Errors
///
/// As bpf(2) `BPF_MAP_CREATE`; `ENOSYS` from a kernel without bpf(2).
pub fn maps() -> Result<(), SyscallError> {
    named("bpf BPF_MAP_CREATE array", Map::<u32, u32>::array_of_one("probe")).map(drop)
}

/// A map of maps, whose inner map can be replaced: makes one and does so. Needs what [`maps`] needs.
///
/// # Errors
///
/// As bpf(2).
pub fn map_of_maps() -> Result<(), SyscallError> {
    let inner = named("bpf BPF_MAP_CREATE array", Map::<u32, u32>::array_of_one("probe"))?;
    let outer = named("bpf BPF_MAP_CREATE array of maps", bpf::array_of_maps(inner.as_fd(), "probe"))?;
    let fd = u32::try_from(inner.as_fd().as_raw_fd()).expect("an open fd is not negative");
    named("bpf BPF_MAP_UPDATE_ELEM array of maps", outer.update(&0, &fd, Update::Any))
}

/// A SOCKMAP that takes a TCP listener, and names it by its cookie. Needs CAP_BPF and CAP_NET_ADMIN.
///
/// # Errors
///
/// As bpf(2); `EOPNOTSUPP` where only connected sockets are taken (before Linux 5.7).
pub fn sockmap(listener: BorrowedFd<'_>) -> Result<(), SyscallError> {
    let map = named("bpf BPF_MAP_CREATE SOCKMAP", bpf::sockmap())?;
    let fd = u64::try_from(listener.as_raw_fd()).expect("an open fd is not negative");
    named("bpf BPF_MAP_UPDATE_ELEM SOCKMAP", map.update(&0, &fd, Update::Any))?;
    let cookie = named("bpf BPF_MAP_LOOKUP_ELEM SOCKMAP", map.lookup(&0))?;
    let expected = named("getsockopt SO_COOKIE", socket2::SockRef::from(&listener).cookie())?;
    let same = if cookie == Some(expected) { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) };
    named("bpf BPF_MAP_LOOKUP_ELEM SOCKMAP cookie", same)
}

const PASS: [Instruction; 2] = [Instruction::result(1), Instruction::EXIT];

/// Test runs of `sk_lookup` programs. Needs CAP_BPF. Minimum kernel 5.13.
///
/// # Errors
///
/// As bpf(2) `BPF_PROG_LOAD`, `BPF_PROG_TEST_RUN`; error 524 (`ENOTSUPP`) from a kernel that has none.
pub fn test_run() -> Result<(), SyscallError> {
    let program = named("bpf BPF_PROG_LOAD", bpf::sk_lookup_program(&PASS, "probe"))?;
    let context = SkLookup {
        family: u32::try_from(libc::AF_INET).expect("2"),
        protocol: u32::try_from(libc::IPPROTO_TCP).expect("6"),
        ..SkLookup::default()
    };
    let run = bpf::test_run(program.as_fd(), &context, 1).and_then(|run| match run.verdict {
        1 => Ok(()),
        verdict => Err(io::Error::other(format!("the verdict is {verdict}, not 1"))),
    });
    named("bpf BPF_PROG_TEST_RUN", run)
}

/// Whether a program may read by which interface a packet came. Needs CAP_BPF. Minimum kernel 5.17.
///
/// # Errors
///
/// As bpf(2) `BPF_PROG_LOAD`; `EACCES` from the verifier of a kernel whose context does not have it.
pub fn ingress_ifindex() -> Result<(), SyscallError> {
    let offset = i16::try_from(offset_of!(SkLookup, ingress_ifindex)).expect("64");
    let [result, exit] = PASS;
    let program = [Instruction::read_context(offset), result, exit];
    named("bpf BPF_PROG_LOAD that reads ingress_ifindex", bpf::sk_lookup_program(&program, "probe")).map(drop)
}
