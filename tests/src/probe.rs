//! What the running kernel really has, tried out. Knows nothing of the table in [`features`](crate::features).

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
};

use aya::{
    EbpfLoader,
    programs::{ProgramError, SkLookup},
};
use nix::libc;
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, Symbol, SymbolSection},
};
use redirector::sys::{
    bpf::{self, test_run},
    socket::{netns_cookie, option, set_option},
};

use crate::features::Feature;

/// Whether the running kernel has a feature.
///
/// # Panics
///
/// When the kernel refuses in another way than a kernel that does not know the feature.
#[track_caller]
#[must_use]
pub fn has(feature: Feature) -> bool {
    match feature {
        Feature::TestRun => test_run_works(),
        Feature::NetnsCookie => {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
            is_known(feature, netns_cookie(&socket).map(drop))
        }
        Feature::IngressIfindex => may_read_ingress_ifindex(),
        Feature::LocalPortRange => {
            const IP_LOCAL_PORT_RANGE: i32 = 51;
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
            is_known(feature, set_option(&socket, libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, 0))
        }
        Feature::PeerPidfd => {
            const SO_PEERPIDFD: i32 = 77;
            let (one, _other) = UnixStream::pair().expect("a pair of sockets");
            let pidfd = option::<i32>(&one, libc::SOL_SOCKET, SO_PEERPIDFD);
            is_known(feature, pidfd.and_then(|pidfd| Ok(nix::unistd::close(pidfd)?)))
        }
    }
}

#[track_caller]
fn is_known(feature: Feature, result: io::Result<()>) -> bool {
    match result {
        Ok(()) => true,
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => false,
        Err(error) => panic!("{feature:?}: {error}"),
    }
}

/// `r0 = 1; exit`, or pass.
const PASS: [u64; 2] = [instruction(0xb7, 0, 0, 1), instruction(0x95, 0, 0, 0)];

fn test_run_works() -> bool {
    let program = load(&PASS).expect("load a program that does nothing");
    let tcp = bpf::SkLookup { family: 2, protocol: 6, ..Default::default() };
    match test_run(program.as_fd(), &tcp, 1) {
        Ok(result) => {
            assert_eq!(result.verdict, 1, "{result:?}");
            true
        }
        // ENOTSUPP is the kernel's own: include/linux/errno.h.
        Err(error) if error.raw_os_error() == Some(524) => false,
        Err(error) => panic!("BPF_PROG_TEST_RUN: {error}"),
    }
}

fn may_read_ingress_ifindex() -> bool {
    /// Of `struct bpf_sk_lookup`, include/uapi/linux/bpf.h.
    const OFFSET: i16 = 64;
    // `r0 = *(u32 *)(r1 + OFFSET)` before the others.
    match load(&[instruction(0x61, 0x10, OFFSET, 0), PASS[0], PASS[1]]) {
        Ok(_) => true,
        Err(ProgramError::LoadError { io_error, .. }) if io_error.raw_os_error() == Some(libc::EACCES) => {
            false
        }
        Err(error) => panic!("load a program that reads ingress_ifindex: {error}"),
    }
}

/// `struct bpf_insn`.
const fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> u64 {
    let (offset, immediate) = (offset.to_ne_bytes(), immediate.to_ne_bytes());
    u64::from_ne_bytes([
        code,
        registers,
        offset[0],
        offset[1],
        immediate[0],
        immediate[1],
        immediate[2],
        immediate[3],
    ])
}

/// An `sk_lookup` program of these instructions. It goes by an ELF object because aya loads no other.
fn load(instructions: &[u64]) -> Result<OwnedFd, ProgramError> {
    const NAME: &str = "probe";
    let bytes: Vec<u8> = instructions.iter().flat_map(|instruction| instruction.to_ne_bytes()).collect();
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::default());
    let section = object.add_section(Vec::new(), b"sk_lookup".to_vec(), SectionKind::Text);
    object.append_section_data(section, &bytes, 8);
    object.add_symbol(Symbol {
        name: NAME.into(),
        value: 0,
        size: bytes.len() as u64,
        kind: SymbolKind::Text,
        scope: SymbolScope::Linkage,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    });
    let object = object.write().expect("write an object");
    let mut ebpf = EbpfLoader::new().btf(None).load(&object).expect("read the object");
    let program: &mut SkLookup =
        ebpf.program_mut(NAME).expect("the program").try_into().expect("an sk_lookup program");
    program.load()?;
    Ok(program.fd()?.as_fd().try_clone_to_owned().expect("dup"))
}
