//! Capabilities (capabilities(7)), each with what the daemon needs it for.

use std::{fs, io};

use super::{Check, Status, namespaces};

struct Need {
    name: &'static str,
    /// Its number in include/uapi/linux/capability.h.
    number: u32,
    /// What it means when it is missing.
    otherwise: Status,
    what_for: &'static str,
}

const SYS_ADMIN: u32 = 21;
const BPF: u32 = 39;

const NEEDS: [Need; 8] = [
    Need { name: "CAP_BPF", number: BPF, otherwise: Status::Fail, what_for: "to load the program" },
    Need {
        name: "CAP_NET_ADMIN",
        number: 12,
        otherwise: Status::Fail,
        what_for: "for SOCKMAPs, and for listeners that take every address",
    },
    Need {
        name: "CAP_SYS_ADMIN",
        number: SYS_ADMIN,
        otherwise: Status::Fail,
        what_for: "to make sockets inside other namespaces (setns)",
    },
    Need {
        name: "CAP_SYS_PTRACE",
        number: 19,
        otherwise: Status::Warning,
        what_for: "to see the namespaces of other users' processes, and to end the listeners of a program",
    },
    Need {
        name: "CAP_KILL",
        number: 5,
        otherwise: Status::Warning,
        what_for: "to end an `exec` command of another user when its namespace dies",
    },
    Need { name: "CAP_SETUID", number: 7, otherwise: Status::Note, what_for: "for `exec --user`" },
    Need { name: "CAP_SETGID", number: 6, otherwise: Status::Note, what_for: "for `exec --user`" },
    Need {
        name: "CAP_SYS_RESOURCE",
        number: 24,
        otherwise: Status::Note,
        what_for: "to raise limits above the hard ones, which is tried and not needed",
    },
];

/// Capabilities without which nothing can be steered, and that this process does not have. What cannot be seen is not missing.
#[must_use]
pub fn missing() -> Vec<&'static str> {
    let Ok(effective) = effective() else { return Vec::new() };
    let place = namespaces::user_namespace().unwrap_or(namespaces::UserNamespace::Initial);
    let is_missing =
        |need: &&Need| need.otherwise == Status::Fail && check(need, effective, place).status == Status::Fail;
    NEEDS.iter().filter(is_missing).map(|need| need.name).collect()
}

pub(super) fn checks() -> Vec<Check> {
    match effective().and_then(|effective| Ok((effective, namespaces::user_namespace()?))) {
        Ok((effective, place)) => NEEDS.iter().map(|need| check(need, effective, place)).collect(),
        Err(error) => {
            let found = format!("read CapEff of /proc/self/status: {error}");
            vec![Check::not_ok("capabilities", Status::Warning, found, namespaces::MOUNT_PROC)]
        }
    }
}

fn check(need: &Need, effective: u64, place: namespaces::UserNamespace) -> Check {
    let &Need { name, number, otherwise, what_for } = need;
    let has = |number: u32| effective & (1 << number) != 0;
    if place == namespaces::UserNamespace::Other && otherwise == Status::Fail {
        let found = format!("in this user namespace only; needed {what_for}");
        return Check::not_ok(name, otherwise, found, namespaces::USE_THE_INITIAL);
    }
    if has(number) {
        return Check::ok(name, format!("there, {what_for}"));
    }
    // `bpf_capable`, include/linux/capability.h.
    if number == BPF && has(SYS_ADMIN) {
        return Check::ok(name, format!("not there, {what_for}: CAP_SYS_ADMIN includes it"));
    }
    let found = format!("not there, {what_for}");
    let hint = match otherwise {
        Status::Note => format!("only where that is wanted: run it as root, and give a container {name}"),
        _ => format!("run it as root, and give a container {name}"),
    };
    Check::not_ok(name, otherwise, found, hint)
}

fn effective() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = line.ok_or(io::ErrorKind::InvalidData)?;
    u64::from_str_radix(set.trim(), 16).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use namespaces::UserNamespace::{Initial, Other};

    #[test]
    fn sys_admin_includes_bpf_and_nothing_else() {
        for (set, expected) in [
            (u64::MAX, [Status::Ok, Status::Ok, Status::Ok]),
            (1 << SYS_ADMIN, [Status::Ok, Status::Fail, Status::Ok]),
            (1 << BPF, [Status::Ok, Status::Fail, Status::Fail]),
            (0, [Status::Fail, Status::Fail, Status::Fail]),
        ] {
            let found = [0, 1, 2].map(|index| check(&NEEDS[index], set, Initial).status);
            assert_eq!(found, expected, "{set:#x}");
        }
        assert_eq!(check(&NEEDS[0], u64::MAX, Other).status, Status::Fail);
    }
}
