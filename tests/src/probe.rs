//! What the running kernel really has, tried out. Knows nothing of the table in [`features`](crate::features).

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    os::unix::net::UnixStream,
};

use nix::libc;
use redirector::{
    kernel::probe,
    sys::{
        SyscallError,
        namespace::pidfd_open_thread,
        socket::{netns_cookie, option, set_option},
    },
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
        // ENOTSUPP is the kernel's own: include/linux/errno.h.
        Feature::TestRun => worked(feature, probe::test_run(), 524),
        Feature::NetnsCookie => {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
            is_known(feature, netns_cookie(&socket).map(drop))
        }
        // The verifier says so.
        Feature::IngressIfindex => worked(feature, probe::ingress_ifindex(), libc::EACCES),
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
        Feature::ThreadPidfd => {
            let thread = nix::unistd::gettid().as_raw();
            match pidfd_open_thread(thread) {
                Ok(_) => true,
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => false,
                Err(error) => panic!("{feature:?}: {error}"),
            }
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

/// Whether a probe of the product's own worked; `missing` is what a kernel without it says.
#[track_caller]
fn worked(feature: Feature, probed: Result<(), SyscallError>, missing: i32) -> bool {
    match probed {
        Ok(()) => true,
        Err(error) if error.source.raw_os_error() == Some(missing) => false,
        Err(error) => panic!("{feature:?}: {error}: {}", error.source),
    }
}
