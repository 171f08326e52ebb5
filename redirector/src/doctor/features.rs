//! What the kernel can do, each with what is lost without it.

use std::{
    net::TcpListener,
    os::{fd::AsFd as _, unix::net::UnixStream},
};

use super::{Check, Status};
use crate::{
    kernel::{Instance, probe},
    netns,
    sys::{
        SyscallError, named,
        namespace::{pidfd_getfd, pidfd_open},
        seccomp::{ask_about_listen, is_asked},
        socket,
    },
    text::chain,
};

/// What was tried, and what it means when it does not work.
struct Feature {
    name: &'static str,
    works: &'static str,
    otherwise: Status,
    hint: &'static str,
}

impl Feature {
    fn check(&self, result: Result<(), String>) -> Check {
        let &Self { name, works, otherwise, hint } = self;
        match result {
            Ok(()) => Check::ok(name, works),
            Err(why) => Check::not_ok(name, otherwise, why, hint),
        }
    }

    fn syscall(&self, result: Result<(), SyscallError>) -> Check {
        self.check(result.map_err(|error| chain(&error)))
    }
}

const BPF: Feature = Feature {
    name: "bpf",
    works: "maps can be made",
    otherwise: Status::Fail,
    hint: "run it as root; the kernel needs CONFIG_BPF_SYSCALL, and a container must allow bpf(2)",
};
const MAP_OF_MAPS: Feature = Feature {
    name: "map of maps",
    works: "an inner map can be replaced",
    otherwise: Status::Fail,
    hint: "as for `bpf`; rules are published as one inner map",
};
const SOCKMAP: Feature = Feature {
    name: "SOCKMAP",
    works: "takes a listener",
    otherwise: Status::Fail,
    hint: "run it as root; a kernel before 5.13 needs CONFIG_BPF_STREAM_PARSER",
};
const TEST_RUN: Feature = Feature {
    name: "test run",
    works: "sk_lookup programs can be run on made-up packets",
    otherwise: Status::Note,
    hint: "Linux 5.13 and CAP_BPF; steering does not need it",
};
const INGRESS_IFINDEX: Feature = Feature {
    name: "ingress_ifindex",
    works: "programs can see by which interface a packet came",
    otherwise: Status::Note,
    hint: "Linux 5.17 and CAP_BPF; steering does not need it",
};
const NETNS_COOKIE: Feature = Feature {
    name: "netns cookie",
    works: "namespaces have numbers that are never used again",
    otherwise: Status::Note,
    hint: "Linux 5.14; without it `list` shows inode numbers, which are used again when a namespace is gone",
};
const PIDFD_OPEN: Feature = Feature {
    name: "pidfd_open",
    works: "processes can be told apart for certain",
    otherwise: Status::Warning,
    hint: "Linux 5.3, and a container must allow pidfd_open(2); without it `pid:`, `self` and hand-off fail",
};
const PIDFD_GETFD: Feature = Feature {
    name: "pidfd_getfd",
    works: "listeners of a program can be ended",
    otherwise: Status::Warning,
    hint: "Linux 5.6, and a container must allow pidfd_getfd(2); without it a program that has listeners keeps a \
           namespace that has ended",
};
const PEER_PIDFD: Feature = Feature {
    name: "SO_PEERPIDFD",
    works: "who asks for listeners is known for certain",
    otherwise: Status::Note,
    hint: "Linux 6.5; without it who asks is known by process id, which may be another's when the asker has ended",
};

const SECCOMP_NOTIFICATION: Feature = Feature {
    name: "seccomp notification",
    works: "programs that make their own listeners can be given those of a namespace",
    otherwise: Status::Warning,
    hint: "Linux 5.9 and CAP_SYS_ADMIN, and no other seccomp notification around it; without it `exec --listen-as` fails",
};
const PACKET_FILTERS: Feature = Feature {
    name: "packet filters",
    works: "nf_tables and legacy iptables can be asked for what they have",
    otherwise: Status::Note,
    hint: "CAP_NET_ADMIN, and netlink must be allowed; without nf_tables there is nothing to tell. Without it `explain` does not say \
           which packet filters there are",
};

pub(super) fn checks() -> Vec<Check> {
    let [program, machine_code] = program();
    vec![
        BPF.syscall(probe::maps()),
        MAP_OF_MAPS.syscall(probe::map_of_maps()),
        SOCKMAP.check(sockmap()),
        program,
        machine_code,
        TEST_RUN.syscall(probe::test_run()),
        INGRESS_IFINDEX.syscall(probe::ingress_ifindex()),
        NETNS_COOKIE.syscall(netns_cookie()),
        PIDFD_OPEN.syscall(own_pidfd().map(drop)),
        PIDFD_GETFD.syscall(own_fd()),
        PEER_PIDFD.syscall(peer_pidfd()),
        SECCOMP_NOTIFICATION.check(seccomp_notification()),
        PACKET_FILTERS.check(packet_filters()),
    ]
}

/// The listener is in a namespace of its own: nobody can meet it.
fn sockmap() -> Result<(), String> {
    let tried = netns::in_new(|| {
        let listener = TcpListener::bind("127.0.0.1:0");
        let listener = listener.map_err(|error| format!("bind `127.0.0.1:0`: {error}"))?;
        probe::sockmap(listener.as_fd()).map_err(|error| chain(&error))
    });
    tried.map_err(|error| format!("unshare CLONE_NEWNET: {error}"))?
}

/// Our own object, and whether it is machine code.
fn program() -> [Check; 2] {
    let (name, jit) = ("sk_lookup program", "JIT");
    let unknown = |why| Check::not_ok(jit, Status::Note, why, "mend `sk_lookup program` first");
    match Instance::load() {
        Ok(instance) => {
            let jit = match instance.machine_code_length() {
                Ok(0) => {
                    let hint = "`sysctl net.core.bpf_jit_enable=1` makes programs faster";
                    Check::not_ok(jit, Status::Warning, "the kernel interprets the program", hint)
                }
                Ok(bytes) => Check::ok(jit, format!("the program is {bytes} bytes of machine code")),
                Err(error) => unknown(chain(&error)),
            };
            [Check::ok(name, "the verifier takes it"), jit]
        }
        Err(error) => {
            let hint = match error.raw_os_error() {
                Some(libc::EPERM) => "run it as root, outside of user namespaces",
                Some(libc::EMFILE | libc::ENFILE) => "raise the limit of open files, see `open files` below",
                _ if chain(&error).contains(" `/sys/") => "mount /sys",
                _ => "the kernel needs to be 5.10 or newer, with CONFIG_BPF_SYSCALL and CONFIG_INET",
            };
            let check = Check::not_ok(name, Status::Fail, shortened(chain(&error)), hint);
            [check, unknown("not known: there is no program".into())]
        }
    }
}

/// The verifier's log can be long. What went wrong is at its end, what was done at its beginning.
fn shortened(text: String) -> String {
    const END: usize = 200;
    let count = text.chars().count();
    if count <= 2 * END {
        return text;
    }
    let begin: String = text.chars().take(END).collect();
    let end: String = text.chars().skip(count - END).collect();
    format!("{begin} … {end}")
}

fn pair() -> Result<(UnixStream, UnixStream), SyscallError> {
    named("socketpair AF_UNIX", UnixStream::pair())
}

fn packet_filters() -> Result<(), String> {
    let asked = netns::in_new(netns::netfilter).map_err(|error| format!("unshare CLONE_NEWNET: {error}"))?;
    asked.base_chains.map(drop).and(asked.legacy_tables.map(drop))
}

fn netns_cookie() -> Result<(), SyscallError> {
    named("getsockopt SO_NETNS_COOKIE", socket::netns_cookie(&pair()?.0)).map(drop)
}

fn own_pidfd() -> Result<std::os::fd::OwnedFd, SyscallError> {
    let own = i32::try_from(std::process::id()).expect("process ids fit");
    named("pidfd_open", pidfd_open(own))
}

fn own_fd() -> Result<(), SyscallError> {
    use std::os::fd::AsRawFd as _;
    let (one, _other) = pair()?;
    named("pidfd_getfd", pidfd_getfd(own_pidfd()?, one.as_raw_fd())).map(drop)
}

fn peer_pidfd() -> Result<(), SyscallError> {
    named("getsockopt SO_PEERPIDFD", socket::exact_peer_pidfd(&pair()?.0)).map(drop)
}

/// On a thread of its own: it cannot be undone. That thread calls nothing that anybody would be asked about.
fn seccomp_notification() -> Result<(), String> {
    let tried = std::thread::Builder::new().name("seccomp".into()).spawn(|| match ask_about_listen() {
        Ok(fd) if is_asked(&fd) => Ok(()),
        Ok(_) => Err("seccomp: what it gave is no notification fd".to_owned()),
        Err(error) => Err(format!("seccomp SECCOMP_SET_MODE_FILTER: {error}")),
    });
    let tried = tried.map_err(|error| format!("start a thread: {error}"))?;
    tried.join().unwrap_or_else(|_| Err("seccomp: the thread that tried it has panicked".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_keeps_both_its_ends() {
        let log = format!("load{}refused", "é".repeat(500));
        let short = shortened(log);
        assert!(short.starts_with("load") && short.ends_with("refused") && short.chars().count() < 410);
        assert_eq!(shortened("short".into()), "short");
    }
}
