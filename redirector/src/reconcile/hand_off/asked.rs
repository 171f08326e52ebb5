//! A request for listeners one by one.

use std::{fs::File, num::NonZeroU16, os::fd::OwnedFd};

use crate::{
    control::{Caller, Code, Enclosed, Error},
    netns::NetnsFile,
    sys,
};

/// How a receiver asks for its listeners one by one.
pub(super) struct OnDemand {
    pub(super) fd: OwnedFd,
    pub(super) port: NonZeroU16,
    /// The namespace that it is in.
    pub(super) home: NetnsFile,
}

/// Takes what a request with `listen_as` needs; finds out before anything is made whether it can work.
pub(super) fn asked(
    port: Option<NonZeroU16>,
    enclosed: Enclosed,
    caller: Caller,
    receiver: &OwnedFd,
) -> Result<Option<OnDemand>, Error> {
    let (port, fd) = match (port, enclosed) {
        (None, Enclosed::Nothing) => return Ok(None),
        (Some(port), Enclosed::Asked(fd)) => (port, fd),
        (None, _) => return Err(Error::new(Code::Usage, "request: there are fds, and no `listen_as`")),
        (Some(_), _) => {
            return Err(Error::new(Code::Usage, "request: `listen_as` needs one fd, a seccomp listener"));
        }
    };
    let failed = |why: &str| Error::new(Code::Failed, format!("listen_as: {why}"));
    let Some(pid) = caller.pid else {
        return Err(failed("the program is in another PID namespace than the daemon"));
    };
    let home = File::open(format!("/proc/{pid}/ns/net")).and_then(NetnsFile::of);
    let home = home.map_err(|error| failed(&format!("open `/proc/{pid}/ns/net`: {error}")))?;
    // It has no such fd: what counts is whether it may be looked at.
    match sys::namespace::pidfd_getfd(receiver, i32::MAX) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let error = failed(&format!("pidfd_getfd of process {pid}: {error}"));
            Err(error.with_hint("the daemon needs CAP_SYS_PTRACE to look at what the program listens with"))
        }
        _ => Ok(Some(OnDemand { fd, port, home })),
    }
}
