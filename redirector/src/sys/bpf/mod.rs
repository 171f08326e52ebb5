//! bpf(2) calls that aya has not, or not for `sk_lookup`: links that can be asked, map values by fd, and the
//! program's test run.
//!
//! Layouts are those of `union bpf_attr` in `include/uapi/linux/bpf.h`
//! (<https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/bpf.h>). Fields are only ever added, and
//! the kernel takes shorter attributes than its own, so each struct ends where our use of it ends.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use bytemuck::{Pod, Zeroable};

use super::{inject, owned};

mod link;
mod make;
mod test_run;

pub use link::{LinkInfo, link_by_id, link_create, link_detach, link_info, link_update};
pub use make::{
    Instruction, MapShape, array_of_bytes, array_of_maps, freeze, map, sk_lookup_program, sockmap,
    verifier_log,
};
pub use test_run::{SkLookup, TestRunResult, test_run};

/// A command of bpf(2), and what an error calls it.
#[derive(Clone, Copy)]
struct Command(i64, &'static str);

const MAP_CREATE: Command = Command(0, "bpf BPF_MAP_CREATE");
const MAP_LOOKUP_ELEM: Command = Command(1, "bpf BPF_MAP_LOOKUP_ELEM");
const MAP_UPDATE_ELEM: Command = Command(2, "bpf BPF_MAP_UPDATE_ELEM");
const MAP_DELETE_ELEM: Command = Command(3, "bpf BPF_MAP_DELETE_ELEM");
const PROG_LOAD: Command = Command(5, "bpf BPF_PROG_LOAD");
const PROG_TEST_RUN: Command = Command(10, "bpf BPF_PROG_TEST_RUN");
const PROG_GET_FD_BY_ID: Command = Command(13, "bpf BPF_PROG_GET_FD_BY_ID");
const OBJ_GET_INFO_BY_FD: Command = Command(15, "bpf BPF_OBJ_GET_INFO_BY_FD");
const PROG_QUERY: Command = Command(16, "bpf BPF_PROG_QUERY");
const MAP_FREEZE: Command = Command(22, "bpf BPF_MAP_FREEZE");
const LINK_CREATE: Command = Command(28, "bpf BPF_LINK_CREATE");
const LINK_UPDATE: Command = Command(29, "bpf BPF_LINK_UPDATE");
const LINK_GET_FD_BY_ID: Command = Command(30, "bpf BPF_LINK_GET_FD_BY_ID");
const LINK_DETACH: Command = Command(34, "bpf BPF_LINK_DETACH");

const ATTACH_SK_LOOKUP: u32 = 36;

/// One bpf(2) call. Every attribute struct of this file is plain integers; those that are addresses point at
/// buffers that the caller keeps borrowed over the call.
fn bpf<A: Pod>(Command(command, name): Command, attr: &mut A) -> io::Result<i64> {
    inject::point(name)?;
    // SAFETY: `attr` is a live value of the size that is given; what its addresses point at is promised above.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn address<T: ?Sized>(value: &T) -> u64 {
    std::ptr::from_ref(value).cast::<u8>().addr() as u64
}

fn address_mut<T: ?Sized>(value: &mut T) -> u64 {
    std::ptr::from_mut(value).cast::<u8>().expose_provenance() as u64
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("an open fd is not negative")
}

/// `struct bpf_map_info` up to the sizes.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct MapInfo {
    map_type: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
}

/// A map whose keys and values have the size of these types, which the kernel has confirmed: it reads and writes
/// as many bytes as the map was made with, whatever it is given.
#[derive(Debug)]
pub struct Map<K, V> {
    fd: OwnedFd,
    types: PhantomData<fn(K, V)>,
}

impl<K: Pod, V: Pod> Map<K, V> {
    /// Takes a map of any type but a per-CPU one. Minimum kernel 4.13.
    ///
    /// # Errors
    ///
    /// `EINVAL` when the sizes are others; else as bpf(2) `BPF_OBJ_GET_INFO_BY_FD`.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let info: MapInfo = get_info(fd.as_fd())?;
        if (info.key_size, info.value_size) != (size::<K>(), size::<V>()) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(Self { fd, types: PhantomData })
    }

    /// Sets one element.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_MAP_UPDATE_ELEM`.
    pub fn update(&self, key: &K, value: &V, how: Update) -> io::Result<()> {
        let mut attr = element(self.fd.as_fd(), address(key), address(value), how as u64);
        bpf(MAP_UPDATE_ELEM, &mut attr).map(drop)
    }

    /// One element, or `None` where there is none (`ENOENT`).
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_MAP_LOOKUP_ELEM`.
    pub fn lookup(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = V::zeroed();
        let mut attr = element(self.fd.as_fd(), address(key), address_mut(&mut value), 0);
        found(bpf(MAP_LOOKUP_ELEM, &mut attr)).map(|found| found.map(|_| value))
    }

    /// Removes one element; an absent one is not an error.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_MAP_DELETE_ELEM`.
    pub fn delete(&self, key: &K) -> io::Result<()> {
        let mut attr = element(self.fd.as_fd(), address(key), 0, 0);
        found(bpf(MAP_DELETE_ELEM, &mut attr)).map(drop)
    }
}

#[cfg(test)]
impl<K, V> Map<K, V> {
    /// A file that is no map: each call fails.
    pub(crate) fn of_nothing() -> Self {
        Self { fd: std::fs::File::open("/dev/null").expect("/dev/null").into(), types: PhantomData }
    }
}

impl<K, V> AsFd for Map<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<K, V> From<Map<K, V>> for OwnedFd {
    fn from(map: Map<K, V>) -> Self {
        map.fd
    }
}

/// A per-CPU array.
#[derive(Debug)]
pub struct PerCpuArray<V> {
    fd: OwnedFd,
    cpus: usize,
    types: PhantomData<fn(V)>,
}

impl<V: Pod> PerCpuArray<V> {
    /// Takes a per-CPU array. Minimum kernel 4.13.
    ///
    /// # Errors
    ///
    /// `EINVAL` when the sizes are others; else as bpf(2) `BPF_OBJ_GET_INFO_BY_FD`, or when the possible CPUs
    /// cannot be read.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        const { assert!(size_of::<V>().is_multiple_of(8), "the kernel rounds these values up to 8 bytes") };
        let info: MapInfo = get_info(fd.as_fd())?;
        if (info.key_size, info.value_size) != (size::<u32>(), size::<V>()) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let cpus = aya::util::nr_cpus()
            .map_err(|(path, error)| io::Error::new(error.kind(), format!("read `{path}`: {error}")))?;
        Ok(Self { fd, cpus, types: PhantomData })
    }

    /// The values of every possible CPU.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_MAP_LOOKUP_ELEM`.
    pub fn lookup(&self, key: u32) -> io::Result<Vec<V>> {
        let mut values = vec![V::zeroed(); self.cpus];
        let mut attr = element(self.fd.as_fd(), address(&key), address_mut(&mut values[..]), 0);
        bpf(MAP_LOOKUP_ELEM, &mut attr)?;
        Ok(values)
    }

    /// Sets the values of every CPU to 0.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_MAP_UPDATE_ELEM`.
    pub fn clear(&self, key: u32) -> io::Result<()> {
        let values = vec![V::zeroed(); self.cpus];
        let mut attr = element(self.fd.as_fd(), address(&key), address(&values[..]), 0);
        bpf(MAP_UPDATE_ELEM, &mut attr).map(drop)
    }
}

/// Sets the one element of an array of bytes.
///
/// # Errors
///
/// `EINVAL` when they are not as long as the map's value; else as bpf(2) `BPF_MAP_UPDATE_ELEM`.
pub fn update_bytes(map: BorrowedFd<'_>, value: &[u8]) -> io::Result<()> {
    let info: MapInfo = get_info(map)?;
    if info.key_size != size::<u32>() || usize::try_from(info.value_size) != Ok(value.len()) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut attr = element(map, address(&0_u32), address(value), Update::Any as u64);
    bpf(MAP_UPDATE_ELEM, &mut attr).map(drop)
}

impl<V> AsFd for PerCpuArray<V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct MapElement {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn element(map: BorrowedFd<'_>, key: u64, value: u64, flags: u64) -> MapElement {
    MapElement { map_fd: number(map), padding: 0, key, value, flags }
}

/// Flags of [`Map::update`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Update {
    /// Make or replace.
    Any = 0,
    /// Make only: `EEXIST` else.
    New = 1,
}

fn found(result: io::Result<i64>) -> io::Result<Option<i64>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn size<T>() -> u32 {
    u32::try_from(size_of::<T>()).expect("map keys, values and infos are small")
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct GetInfo {
    fd: u32,
    info_length: u32,
    info: u64,
}

/// `struct bpf_prog_info` as far as we look. A kernel whose own is shorter leaves the rest as it is: 0.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct ProgramInfo {
    /// `BPF_PROG_TYPE_SK_LOOKUP` is 30.
    pub program_type: u32,
    /// Of this program.
    pub id: u32,
    tag: [u8; 8],
    /// Bytes of machine code; 0 when the kernel interprets the program.
    pub machine_code_length: u32,
    translated_length: u32,
    instructions: [u64; 2],
    load_time: u64,
    created_by_uid: u32,
    map_count: u32,
    map_ids: u64,
    name: [u8; 16],
    /// Where it is bound, line numbers, how often it has run.
    unread: [u64; 17],
    /// Instructions that the verifier has walked, each as often as it did; 0 before Linux 5.16.
    pub verified_instructions: u32,
    unread_id: u32,
}

const _: () = assert!(std::mem::offset_of!(ProgramInfo, verified_instructions) == 216);

impl ProgramInfo {
    /// The name that its loader gave it, at most 15 bytes.
    #[must_use]
    pub fn name(&self) -> String {
        let length = self.name.iter().position(|byte| *byte == 0).unwrap_or(self.name.len());
        String::from_utf8_lossy(&self.name[..length]).into_owned()
    }
}

/// Asks a program. Minimum kernel 4.13, the name 4.15.
///
/// # Errors
///
/// As bpf(2) `BPF_OBJ_GET_INFO_BY_FD`.
pub fn program_info(program: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    get_info(program)
}

fn get_info<I: Pod>(fd: BorrowedFd<'_>) -> io::Result<I> {
    let mut info = I::zeroed();
    let info_length = size::<I>();
    let mut attr = GetInfo { fd: number(fd), info_length, info: address_mut(&mut info) };
    bpf(OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct GetFdById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

impl GetFdById {
    fn new(id: u32) -> Self {
        Self { id, next_id: 0, open_flags: 0 }
    }
}

/// Opens a program by its id. Needs CAP_SYS_ADMIN. Minimum kernel 4.13.
///
/// # Errors
///
/// As bpf(2) `BPF_PROG_GET_FD_BY_ID`; `ENOENT` when it has been unloaded meanwhile.
pub fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = GetFdById::new(id);
    bpf(PROG_GET_FD_BY_ID, &mut attr).map(owned)
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ProgQuery {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_count: u32,
    padding: u32,
}

/// The ids of the `sk_lookup` programs of a namespace (an nsfs fd), in the order in which they run. Minimum
/// kernel 5.9.
///
/// # Errors
///
/// As bpf(2) `BPF_PROG_QUERY`.
pub fn query_programs(netns: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    /// `netns_bpf_max_progs`, kernel/bpf/net_namespace.c.
    const MAX: usize = 64;
    let mut ids = [0_u32; MAX];
    let mut attr = ProgQuery {
        target_fd: number(netns),
        attach_type: ATTACH_SK_LOOKUP,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: address_mut(&mut ids),
        prog_count: u32::try_from(MAX).expect("64"),
        padding: 0,
    };
    bpf(PROG_QUERY, &mut attr)?;
    let count = usize::try_from(attr.prog_count).expect("u32 fits").min(MAX);
    Ok(ids[..count].to_vec())
}
