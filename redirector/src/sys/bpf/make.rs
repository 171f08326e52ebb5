//! Programs and maps without an object file: enough to try what a kernel can do.

use std::{
    io,
    marker::PhantomData,
    os::fd::{BorrowedFd, OwnedFd},
};

use bytemuck::{Pod, Zeroable};

use super::{ATTACH_SK_LOOKUP, MAP_CREATE, Map, PROG_LOAD, address, bpf, number, owned, size};

const MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
const MAP_TYPE_SOCKMAP: u32 = 15;
const PROG_TYPE_SK_LOOKUP: u32 = 30;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
}

/// Makes a SOCKMAP with one slot: an fd when it is written, a cookie when it is read. Needs CAP_BPF and
/// CAP_NET_ADMIN. Minimum kernel for listeners 5.7.
///
/// # Errors
///
/// As bpf(2) `BPF_MAP_CREATE`.
pub fn sockmap() -> io::Result<Map<u32, u64>> {
    make(MAP_TYPE_SOCKMAP, 0)
}

/// Makes an array with one slot for a map like `inner`: an fd when it is written, an id when it is read. Minimum
/// kernel 4.12.
///
/// # Errors
///
/// As bpf(2) `BPF_MAP_CREATE`.
pub fn array_of_maps(inner: BorrowedFd<'_>) -> io::Result<Map<u32, u32>> {
    make(MAP_TYPE_ARRAY_OF_MAPS, number(inner))
}

fn make<K: Pod, V: Pod>(map_type: u32, inner_map_fd: u32) -> io::Result<Map<K, V>> {
    let mut attr = MapCreate {
        map_type,
        key_size: size::<K>(),
        value_size: size::<V>(),
        max_entries: 1,
        map_flags: 0,
        inner_map_fd,
    };
    let fd = bpf(MAP_CREATE, &mut attr).map(owned)?;
    Ok(Map { fd, types: PhantomData })
}

/// One instruction (`struct bpf_insn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    /// `exit`: the result is in register 0.
    pub const EXIT: Self = Self::new(0x95, 0, 0, 0, 0);

    /// Sets register 0 to a number.
    #[must_use]
    pub const fn result(value: i32) -> Self {
        Self::new(0xb7, 0, 0, 0, value)
    }

    /// Reads 4 bytes of the context, to which register 1 points when a program begins, into register 0.
    #[must_use]
    pub const fn read_context(offset: i16) -> Self {
        Self::new(0x61, 0, 1, offset, 0)
    }

    const fn new(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Self {
        // Two bit fields of 4 bits, whose order is the machine's.
        let registers = if cfg!(target_endian = "little") {
            source << 4 | destination
        } else {
            destination << 4 | source
        };
        Self { code, registers, offset, immediate }
    }
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ProgramLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// Loads an `sk_lookup` program. It runs nowhere. Needs CAP_BPF. Minimum kernel 5.9.
///
/// # Errors
///
/// As bpf(2) `BPF_PROG_LOAD`: `EACCES` when the verifier refuses it.
pub fn sk_lookup_program(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let mut attr = ProgramLoad {
        prog_type: PROG_TYPE_SK_LOOKUP,
        insn_cnt: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        insns: address(instructions),
        license: address(c"Dual MIT/GPL"),
        expected_attach_type: ATTACH_SK_LOOKUP,
        ..ProgramLoad::zeroed()
    };
    bpf(PROG_LOAD, &mut attr).map(owned)
}
