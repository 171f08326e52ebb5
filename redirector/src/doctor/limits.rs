//! Resource limits (getrlimit(2)).

use nix::sys::resource::{Resource, getrlimit};

use super::{Check, Status, system};
use crate::daemon::affordable_connections;

/// With fewer connections a busy service behind a relay meets the limit.
const FEW: usize = 1000;

/// `files`: open files that the daemon could have.
pub(super) fn checks(files: u64) -> Vec<Check> {
    vec![open_files(files), locked_memory()]
}

fn open_files(files: u64) -> Check {
    let name = "open files";
    let connections = affordable_connections(files);
    let found = format!("at most {files}: the daemon relays {connections} connections at once");
    if connections >= FEW {
        return Check::ok(name, found);
    }
    let hint = "raise the hard limit: `ulimit -Hn 65536`, LimitNOFILE= of a systemd unit, --ulimit nofile= of a \
                container";
    Check::not_ok(name, Status::Warning, found, hint)
}

fn locked_memory() -> Check {
    /// BPF memory counts as locked before this version, and for the cgroup from it on.
    const NOT_LOCKED: (u32, u32) = (5, 11);
    let name = "locked memory";
    if system::running().is_none_or(|version| version >= NOT_LOCKED) {
        return Check::ok(name, "not limited for BPF since Linux 5.11");
    }
    let hint = "before Linux 5.11 BPF maps count as locked memory: give the daemon CAP_SYS_RESOURCE, or \
                `ulimit -l unlimited`";
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok((nix::libc::RLIM_INFINITY, _)) => Check::ok(name, "unlimited, which counts before Linux 5.11"),
        Ok((bytes, _)) => Check::not_ok(name, Status::Warning, format!("{bytes} bytes"), hint),
        Err(errno) => {
            Check::not_ok(name, Status::Warning, format!("getrlimit RLIMIT_MEMLOCK: {errno}"), hint)
        }
    }
}
