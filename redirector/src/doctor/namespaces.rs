//! Where this process is, and whether it can go elsewhere.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use anyhow::{Context as _, ensure};

use super::{Check, Status};
use crate::{
    locate,
    netns::{self, NetnsCookie},
    text::chain,
};

pub(super) const USE_THE_INITIAL: &str =
    "run it outside of user namespaces, as root of the host: a rootless container cannot load the program";

pub(super) const MOUNT_PROC: &str = "mount /proc: the daemon needs it";

/// Whose capabilities ours are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UserNamespace {
    /// The machine's.
    Initial,
    /// Only those over what belongs to another user namespace.
    Other,
}

/// Where this process is.
///
/// # Errors
///
/// As readlink(2): without `/proc`.
pub(super) fn user_namespace() -> io::Result<UserNamespace> {
    /// `PROC_USER_INIT_INO`, include/linux/proc_ns.h: the initial user namespace always has this inode.
    const INITIAL: &str = "user:[4026531837]";
    let own = fs::read_link("/proc/self/ns/user")?;
    Ok(if own == Path::new(INITIAL) { UserNamespace::Initial } else { UserNamespace::Other })
}

pub(super) fn checks() -> Vec<Check> {
    let name = "user namespace";
    let user = match user_namespace() {
        Ok(UserNamespace::Initial) => Check::ok(name, "the initial one"),
        Ok(UserNamespace::Other) => Check::not_ok(name, Status::Fail, "not the initial one", USE_THE_INITIAL),
        Err(error) => {
            let found = format!("readlink `/proc/self/ns/user`: {error}");
            Check::not_ok(name, Status::Warning, found, MOUNT_PROC)
        }
    };
    vec![user, network_namespaces(), host_view()]
}

fn network_namespaces() -> Check {
    let name = "network namespaces";
    match enter_a_new_one() {
        Ok(()) => Check::ok(name, "one was made, left, and entered again (unshare, setns)"),
        Err(error) => {
            let hint = "the kernel needs CONFIG_NET_NS, and the daemon CAP_SYS_ADMIN and /proc";
            Check::not_ok(name, Status::Fail, chain(error.as_ref()), hint)
        }
    }
}

fn enter_a_new_one() -> anyhow::Result<()> {
    let made = netns::in_new(|| {
        let file = open_own();
        NetnsCookie::here().map(|cookie| (file, cookie))
    });
    let (file, cookie) = made.context("unshare CLONE_NEWNET")??;
    let file = file?;
    let seen = netns::enter(&file, NetnsCookie::here).context("setns CLONE_NEWNET")??;
    ensure!(seen == cookie, "setns CLONE_NEWNET: it leads to another namespace");
    Ok(())
}

/// The namespace of this thread, as an nsfs file.
pub(super) fn open_own() -> io::Result<File> {
    let path = "/proc/thread-self/ns/net";
    File::open(path).map_err(|error| io::Error::new(error.kind(), format!("open `{path}`: {error}")))
}

fn host_view() -> Check {
    let name = "host view";
    match locate::sees_host() {
        Ok(()) => Check::ok(name, "PID 1's namespaces and mounts can be seen"),
        Err(why) => {
            let hint = "share the host's PID namespace (`--pid=host`), or detach namespaces before they end: \
                        else the daemon cannot learn that they did";
            Check::not_ok(name, Status::Warning, why, hint)
        }
    }
}
