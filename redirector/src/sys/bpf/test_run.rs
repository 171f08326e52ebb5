//! The test run of a program, and what it is run on.

use std::{io, os::fd::BorrowedFd};

use bytemuck::{Pod, Zeroable};

use super::{PROG_TEST_RUN, address, address_mut, bpf, number};

/// `struct bpf_sk_lookup`: the context of a test run. Addresses in network byte order.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct SkLookup {
    /// Out: cookie of the selected socket, or 0.
    pub cookie: u64,
    /// `AF_INET` or `AF_INET6`.
    pub family: u32,
    /// IP protocol number.
    pub protocol: u32,
    /// Client, IPv4.
    pub remote_ip4: u32,
    /// Client, IPv6.
    pub remote_ip6: [u32; 4],
    /// Client's port, network byte order.
    pub remote_port: u16,
    /// Always 0.
    pub padding: u16,
    /// Original destination, IPv4.
    pub local_ip4: u32,
    /// Original destination, IPv6.
    pub local_ip6: [u32; 4],
    /// Original destination's port, host byte order.
    pub local_port: u32,
    /// Must be 0.
    pub ingress_ifindex: u32,
    /// Rounds the size up to 8 bytes, as the kernel's.
    pub end: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// What a test run gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestRunResult {
    /// `SK_PASS` is 1, `SK_DROP` is 0.
    pub verdict: u32,
    /// Cookie of the selected socket, or 0.
    pub cookie: u64,
    /// Mean of the repetitions, in nanoseconds.
    pub nanoseconds: u32,
}

/// Runs an `sk_lookup` program on a made-up packet. Minimum kernel 5.13.
///
/// # Errors
///
/// As bpf(2) `BPF_PROG_TEST_RUN`.
pub fn test_run(program: BorrowedFd<'_>, context: &SkLookup, repeat: u32) -> io::Result<TestRunResult> {
    let size = u32::try_from(size_of::<SkLookup>()).expect("72");
    let mut out = SkLookup::default();
    let mut attr = TestRun {
        prog_fd: number(program),
        repeat,
        ctx_size_in: size,
        ctx_size_out: size,
        ctx_in: address(context),
        ctx_out: address_mut(&mut out),
        ..TestRun::zeroed()
    };
    bpf(PROG_TEST_RUN, &mut attr)?;
    Ok(TestRunResult { verdict: attr.retval, cookie: out.cookie, nanoseconds: attr.duration })
}
