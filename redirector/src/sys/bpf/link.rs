//! A program's attachment to a namespace.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use bytemuck::{Pod, Zeroable};

use super::{
    ATTACH_SK_LOOKUP, GetFdById, LINK_CREATE, LINK_DETACH, LINK_GET_FD_BY_ID, LINK_UPDATE, bpf, get_info,
    number, owned,
};

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches an `sk_lookup` program to a namespace (an nsfs fd). The program is detached when the link's last fd
/// is closed. Minimum kernel 5.9.
///
/// # Errors
///
/// As bpf(2) `BPF_LINK_CREATE`; `E2BIG` when the namespace has 64 links already.
pub fn link_create(program: BorrowedFd<'_>, netns: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr = LinkCreate {
        prog_fd: number(program),
        target_fd: number(netns),
        attach_type: ATTACH_SK_LOOKUP,
        flags: 0,
    };
    bpf(LINK_CREATE, &mut attr).map(owned)
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// Puts another program in the place of that of a link, atomically as packets see it. Minimum kernel 5.9.
///
/// # Errors
///
/// As bpf(2) `BPF_LINK_UPDATE`; `ENOLINK` when the namespace is gone.
pub fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr =
        LinkUpdate { link_fd: number(link), new_prog_fd: number(program), flags: 0, old_prog_fd: 0 };
    bpf(LINK_UPDATE, &mut attr).map(drop)
}

/// `struct bpf_link_info` of a netns link, up to its own part.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct LinkInfo {
    /// `BPF_LINK_TYPE_NETNS` is 5.
    pub link_type: u32,
    /// Of this link.
    pub id: u32,
    /// Of the program.
    pub program_id: u32,
    padding: u32,
    /// Inode of the namespace; 0 when it is gone or the link is detached.
    pub netns_inode: u32,
    /// `BPF_SK_LOOKUP`.
    pub attach_type: u32,
}

/// Asks a link. Minimum kernel 5.8.
///
/// # Errors
///
/// As bpf(2) `BPF_OBJ_GET_INFO_BY_FD`.
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    get_info(link)
}

/// Opens a link, whoever has it. Minimum kernel 5.8.
///
/// # Errors
///
/// As bpf(2) `BPF_LINK_GET_FD_BY_ID`; `ENOENT` when it has ended meanwhile.
pub fn link_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = GetFdById::new(id);
    bpf(LINK_GET_FD_BY_ID, &mut attr).map(owned)
}

/// Detaches a link for everybody who has it. It stays, and is attached nowhere. Minimum kernel 5.9.
///
/// # Errors
///
/// As bpf(2) `BPF_LINK_DETACH`.
pub fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = number(link);
    bpf(LINK_DETACH, &mut attr).map(drop)
}
