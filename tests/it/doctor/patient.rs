//! Who the doctor looks at, and what it must find.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use nix::sys::resource::{Resource, getrlimit};
use redirector_tests::{
    cli::document,
    command::{self, Outcome},
    daemon::binary,
    features::{Feature, Version},
    kernel::{has_capability, sysctl},
    netns::Netns,
};
use serde_json::Value;

/// Statuses by name.
pub(super) type Statuses = BTreeMap<&'static str, &'static str>;

const CAP_SYS_RESOURCE: u32 = 24;

/// Which statuses root must get in a namespace of its own, without a daemon, on this very kernel.
pub(super) fn as_root() -> Statuses {
    let noted = |feature: Feature| if feature.is_here() { "ok" } else { "note" };
    let if_so = |so: bool, otherwise| if so { "ok" } else { otherwise };
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    // Root of a container, or one with less than all capabilities, may not see where PID 1 is.
    let sees_pid_1 = fs::read_link("/proc/self/ns/pid").unwrap() == Path::new("pid:[4026531836]")
        && fs::metadata("/proc/1/ns/net").is_ok();
    let files = getrlimit(Resource::RLIMIT_NOFILE).unwrap().1;
    Statuses::from([
        ("kernel", "ok"),
        ("user namespace", "ok"),
        ("network namespaces", "ok"),
        ("host view", if_so(sees_pid_1, "warning")),
        ("CAP_BPF", "ok"),
        ("CAP_NET_ADMIN", "ok"),
        ("CAP_SYS_ADMIN", "ok"),
        ("CAP_SYS_PTRACE", "ok"),
        ("CAP_KILL", "ok"),
        ("CAP_SETUID", "ok"),
        ("CAP_SETGID", "ok"),
        ("CAP_SYS_RESOURCE", if_so(has_capability(CAP_SYS_RESOURCE), "note")),
        ("bpf", "ok"),
        ("map of maps", "ok"),
        ("SOCKMAP", "ok"),
        ("sk_lookup program", "ok"),
        ("JIT", if_so(sysctl("net/core/bpf_jit_enable").as_deref() != Some("0"), "warning")),
        ("test run", noted(Feature::TestRun)),
        ("ingress_ifindex", noted(Feature::IngressIfindex)),
        ("netns cookie", noted(Feature::NetnsCookie)),
        ("pidfd_open", "ok"),
        ("pidfd_getfd", "ok"),
        ("SO_PEERPIDFD", noted(Feature::PeerPidfd)),
        ("seccomp notification", "ok"),
        ("packet filters", "ok"),
        ("attach", "ok"),
        ("steering IPv4", "ok"),
        ("steering IPv6", "ok"),
        ("open files", if_so((files - files / 4) / 2 >= 1000, "warning")),
        ("locked memory", locked_memory(has_capability(CAP_SYS_RESOURCE))),
        ("bpffs", if_so(mounts.lines().any(|line| line.contains(" /sys/fs/bpf bpf ")), "note")),
        ("cgroup", if_so(Path::new("/sys/fs/cgroup/cgroup.controllers").exists(), "note")),
        ("other programs", "ok"),
        ("daemon", "note"),
        ("docker", "note"),
        ("podman", "note"),
    ])
}

/// Before Linux 5.11 BPF maps count, and the limit can be raised with a capability only.
pub(super) fn locked_memory(can_be_raised: bool) -> &'static str {
    let unlimited = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap().1 == nix::libc::RLIM_INFINITY;
    if Version::running() >= Version(5, 11) || unlimited || can_be_raised { "ok" } else { "warning" }
}

/// Whether maps can be made without a capability.
pub(super) fn maps_without_privilege() -> &'static str {
    if sysctl("kernel/unprivileged_bpf_disabled").as_deref() == Some("0") { "ok" } else { "fail" }
}

/// `PREFIX… redirector doctor`, in a namespace without anybody's programs.
pub(super) struct Patient {
    pub(super) netns: Netns,
    pub(super) prefix: Vec<String>,
    pub(super) program: String,
    pub(super) socket: String,
}

impl Patient {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            netns: Netns::new(),
            prefix: prefix.split_whitespace().map(str::to_owned).collect(),
            program: binary().display().to_string(),
            socket: "/nowhere/control.sock".into(),
        }
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut words = self.prefix.iter().chain([&self.program]);
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).arg("doctor").args(arguments);
        command.env("REDIRECTOR_SOCKET", &self.socket).env_remove("RUST_LOG");
        // Whatever engines this machine has.
        command.env("REDIRECTOR_DOCKER_SOCKET", "/nowhere/docker.sock");
        command.env("REDIRECTOR_PODMAN_SOCKET", "/nowhere/podman.sock");
        command
    }

    #[track_caller]
    pub(super) fn run(&self, arguments: &[&str]) -> Outcome {
        self.netns.enter(|| command::run(&mut self.command(arguments)))
    }

    /// Asserts every status, that each that is not `ok` has a hint, that the text says the same, and what that
    /// means for the exit code. Gives the document.
    #[track_caller]
    pub(super) fn assert(&self, root: Statuses, others: &[(&'static str, &'static str)]) -> Value {
        let mut expected = root;
        for (name, status) in others {
            assert!(expected.insert(name, status).is_some(), "{name}");
        }
        let outcome = self.run(&["--json"]);
        let document = document(&outcome);
        let checks = document["checks"].as_array().expect("an array");
        let mut seen = BTreeMap::new();
        for check in checks {
            let status = check["status"].as_str().expect("a status");
            seen.insert(check["name"].as_str().expect("a name"), status);
            assert_eq!(check["hint"].is_string(), status != "ok", "{check}");
            assert!(!check["found"].as_str().expect("what was found").is_empty(), "{check}");
        }
        assert_eq!(seen, expected, "{outcome}");
        assert_eq!(seen.len(), checks.len(), "a name twice{outcome}");
        let works = seen.values().all(|status| *status != "fail");
        assert_eq!(document["works"], works, "{outcome}");
        assert_eq!(outcome.code(), i32::from(!works), "{outcome}");
        self.assert_text(checks, works);
        document
    }

    #[track_caller]
    fn assert_text(&self, checks: &[Value], works: bool) {
        let outcome = self.run(&[]);
        assert_eq!(outcome.code(), i32::from(!works), "{outcome}");
        assert!(!outcome.stdout.contains('\x1b'), "colour{outcome}");
        let mut lines = outcome.stdout.lines();
        let mut columns = Vec::new();
        // One cause of many lines is said before them.
        let needed = ["CAP_BPF", "CAP_NET_ADMIN", "CAP_SYS_ADMIN"];
        let is_missing =
            |check: &&Value| check["status"] == "fail" && needed.iter().any(|one| check["name"] == *one);
        let missing: Vec<_> =
            checks.iter().filter(is_missing).filter_map(|check| check["name"].as_str()).collect();
        if !missing.is_empty() {
            let line = lines.next().unwrap_or_default();
            assert!(line.contains(&format!(": {} missing", missing.join(", "))), "{outcome}");
        }
        for check in checks {
            let text = |field: &str| check[field].as_str().unwrap_or_default();
            let line = lines.next().unwrap_or_default();
            let begin = format!("{:<7}  {}  ", text("status"), text("name"));
            assert!(line.starts_with(&begin), "`{line}` must begin with `{begin}`{outcome}");
            if check["hint"].is_string() {
                let line = lines.next().unwrap_or_default();
                assert_eq!(line.trim(), format!("hint: {}", text("hint")), "{outcome}");
                columns.push(line.find("hint: "));
            }
        }
        columns.dedup();
        assert!(columns.len() <= 1, "hints are not aligned{outcome}");
        if works {
            assert_eq!(lines.next(), Some("steering works here"), "{outcome}");
            assert_eq!(outcome.stderr, "");
        } else {
            let error = "error: steering cannot work here: ";
            assert!(outcome.stderr.starts_with(error) && outcome.stderr.lines().count() == 1, "{outcome}");
        }
        assert_eq!(lines.next(), None, "{outcome}");
    }
}

/// What was found, or the hint.
#[track_caller]
pub(super) fn said<'a>(document: &'a Value, name: &str, field: &str) -> &'a str {
    let mut checks = document["checks"].as_array().expect("an array").iter();
    let check =
        checks.find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name}: {document:#}"));
    check[field].as_str().unwrap_or_else(|| panic!("no {field}: {check}"))
}
