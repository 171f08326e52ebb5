//! Programs and maps without an object file: enough to try what a kernel can do.

use std::{
    io, iter,
    marker::PhantomData,
    os::fd::{BorrowedFd, OwnedFd},
};

use bytemuck::{Pod, Zeroable};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use super::{
    ATTACH_SK_LOOKUP, MAP_CREATE, MAP_FREEZE, Map, PROG_LOAD, address, address_mut, bpf, number, owned, size,
};

const MAP_TYPE_ARRAY: u32 = 2;
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
    numa_node: u32,
    map_name: [u8; 16],
}

/// What a map is: the fields of `BPF_MAP_CREATE`.
#[derive(Clone, Copy, Debug)]
pub struct MapShape<'a> {
    /// `enum bpf_map_type`.
    pub map_type: u32,
    /// Bytes.
    pub key_size: u32,
    /// Bytes.
    pub value_size: u32,
    /// Elements.
    pub max_entries: u32,
    /// `BPF_F_...`.
    pub flags: u32,
    /// A map like those that a map of maps holds.
    pub inner: Option<BorrowedFd<'a>>,
    /// For people, at most 15 bytes of it: letters, digits, `_`, `.`.
    pub name: &'a str,
}

/// What a name is in an attribute: at most 15 bytes, and zeros.
fn object_name(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let length = name.len().min(15);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    bytes
}

/// Makes a map. Minimum kernel, for the name, 4.15.
///
/// # Errors
///
/// As bpf(2) `BPF_MAP_CREATE`.
pub fn map(shape: &MapShape<'_>) -> io::Result<OwnedFd> {
    let mut attr = MapCreate {
        map_type: shape.map_type,
        key_size: shape.key_size,
        value_size: shape.value_size,
        max_entries: shape.max_entries,
        map_flags: shape.flags,
        inner_map_fd: shape.inner.map_or(0, number),
        numa_node: 0,
        map_name: object_name(shape.name),
    };
    counted(|| bpf(MAP_CREATE, &mut attr)).map(owned)
}

/// A call that makes something that counts against the limit of locked memory, before Linux 5.11: where it says `EPERM`, it is
/// tried again without that limit. aya does the same.
fn counted(mut call: impl FnMut() -> io::Result<i64>) -> io::Result<i64> {
    let unlimited = RLIM_INFINITY;
    match call() {
        Err(error)
            if error.raw_os_error() == Some(libc::EPERM)
                && setrlimit(Resource::RLIMIT_MEMLOCK, unlimited, unlimited).is_ok() =>
        {
            call()
        }
        result => result,
    }
}

/// Makes an array with one element of so many bytes. Minimum kernel 4.15.
///
/// # Errors
///
/// As bpf(2) `BPF_MAP_CREATE`; `E2BIG` above 4 MiB less a page, by kernel.
pub fn array_of_bytes(value_size: usize, name: &str) -> io::Result<OwnedFd> {
    let value_size = u32::try_from(value_size).map_err(io::Error::other)?;
    map(&MapShape {
        map_type: MAP_TYPE_ARRAY,
        key_size: size::<u32>(),
        value_size,
        max_entries: 1,
        flags: 0,
        inner: None,
        name,
    })
}

impl<K: Pod, V: Pod> Map<K, V> {
    /// Makes an array with one element, and a name for people. Minimum kernel 4.15.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_MAP_CREATE`.
    pub fn array_of_one(name: &str) -> io::Result<Self> {
        of_one(MAP_TYPE_ARRAY, None, name)
    }
}

/// Takes from user space the right to change a map, for good: to the verifier what it holds is then known. Minimum kernel 5.2.
///
/// # Errors
///
/// As bpf(2) `BPF_MAP_FREEZE`.
pub fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    bpf(MAP_FREEZE, &mut number(map)).map(drop)
}

/// Makes a SOCKMAP with one slot: an fd when it is written, a cookie when it is read. Needs CAP_BPF and
/// CAP_NET_ADMIN. Minimum kernel for listeners 5.7.
///
/// # Errors
///
/// As bpf(2) `BPF_MAP_CREATE`.
pub fn sockmap() -> io::Result<Map<u32, u64>> {
    of_one(MAP_TYPE_SOCKMAP, None, "probe")
}

/// Makes an array with one slot for a map like `inner`: an fd when it is written, an id when it is read. Minimum
/// kernel 4.15, for the name.
///
/// # Errors
///
/// As bpf(2) `BPF_MAP_CREATE`.
pub fn array_of_maps(inner: BorrowedFd<'_>, name: &str) -> io::Result<Map<u32, u32>> {
    of_one(MAP_TYPE_ARRAY_OF_MAPS, Some(inner), name)
}

fn of_one<K: Pod, V: Pod>(map_type: u32, inner: Option<BorrowedFd<'_>>, name: &str) -> io::Result<Map<K, V>> {
    let shape = MapShape {
        map_type,
        key_size: size::<K>(),
        value_size: size::<V>(),
        max_entries: 1,
        flags: 0,
        inner,
        name,
    };
    let fd = map(&shape)?;
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

    /// From its parts, the registers as they are in memory.
    #[must_use]
    pub const fn from_parts(code: u8, registers: u8, offset: i16, immediate: i32) -> Self {
        Self { code, registers, offset, immediate }
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

/// Loads an `sk_lookup` program. It runs nowhere. Needs CAP_BPF. Minimum kernel 5.9. The name is for people, as that of a map.
///
/// # Errors
///
/// As bpf(2) `BPF_PROG_LOAD`: `EACCES` when the verifier refuses it.
pub fn sk_lookup_program(instructions: &[Instruction], name: &str) -> io::Result<OwnedFd> {
    load(instructions, name, &mut [])
}

/// What the verifier says to a program that it refuses, the end of it.
#[must_use]
pub fn verifier_log(instructions: &[Instruction]) -> String {
    let mut log = vec![0_u8; 16 << 20];
    let _refused: io::Result<OwnedFd> = load(instructions, "", &mut log);
    let length = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    let begin = length.saturating_sub(1024);
    String::from_utf8_lossy(&log[begin..length]).into_owned()
}

fn load(instructions: &[Instruction], name: &str, log: &mut [u8]) -> io::Result<OwnedFd> {
    let mut attr = ProgramLoad {
        prog_type: PROG_TYPE_SK_LOOKUP,
        insn_cnt: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        insns: address(instructions),
        license: address(c"Dual MIT/GPL"),
        expected_attach_type: ATTACH_SK_LOOKUP,
        log_level: (!log.is_empty()).into(),
        log_size: u32::try_from(log.len()).map_err(io::Error::other)?,
        log_buf: if log.is_empty() { 0 } else { address_mut(log) },
        prog_name: object_name(name),
        ..ProgramLoad::zeroed()
    };
    let mut tries = iter::repeat_with(|| counted(|| bpf(PROG_LOAD, &mut attr))).take(LOAD_TRIES);
    let loaded =
        tries.find(|tried| !matches!(tried, Err(error) if error.kind() == io::ErrorKind::WouldBlock));
    loaded.unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into())).map(owned)
}

/// The verifier stops with `EAGAIN` when a signal comes (`do_check`, kernel/bpf/verifier.c). As often as libbpf tries
/// (`PROG_LOAD_ATTEMPTS`).
const LOAD_TRIES: usize = 5;
