//! `redirector doctor`: what it says where everything works, where something is missing, and that it leaves nothing.

use std::{
    collections::BTreeMap,
    fs,
    os::{fd::AsFd as _, unix::net::UnixListener},
    path::Path,
    process::{Command, Stdio},
};

use nix::sys::resource::{Resource, getrlimit};
use redirector::kernel::{Instance, attached_programs};
use redirector_tests::{
    cli::document,
    command::{self, Outcome},
    daemon::{Daemon, binary, binary_for_everybody},
    dir::Dir,
    eventually::{at_intervals, eventually},
    kernel::{has_capability, sysctl, version},
    netns::Netns,
    snapshot::Snapshot,
};
use serde_json::Value;

use super::SECOND;

/// Statuses by name.
type Statuses = BTreeMap<&'static str, &'static str>;

const CAP_SYS_RESOURCE: u32 = 24;

/// Which statuses root must get in a namespace of its own, without a daemon, on this very kernel.
fn as_root() -> Statuses {
    let since = |oldest: (u32, u32), otherwise| if version() >= oldest { "ok" } else { otherwise };
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
        // 5.10 has got it since, as Debian packages it.
        ("test run", if_so(version() >= (5, 13) || version() == (5, 10), "note")),
        ("ingress_ifindex", since((5, 17), "note")),
        ("netns cookie", since((5, 14), "note")),
        ("pidfd_open", "ok"),
        ("pidfd_getfd", "ok"),
        ("SO_PEERPIDFD", since((6, 5), "note")),
        ("attach", "ok"),
        ("steering IPv4", "ok"),
        ("steering IPv6", "ok"),
        ("open files", if_so((files - files / 4) / 2 >= 1000, "warning")),
        ("locked memory", locked_memory(has_capability(CAP_SYS_RESOURCE))),
        ("bpffs", if_so(mounts.lines().any(|line| line.contains(" /sys/fs/bpf bpf ")), "note")),
        ("cgroup", if_so(Path::new("/sys/fs/cgroup/cgroup.controllers").exists(), "note")),
        ("other programs", "ok"),
        ("daemon", "note"),
    ])
}

/// Before Linux 5.11 BPF maps count, and the limit can be raised with a capability only.
fn locked_memory(can_be_raised: bool) -> &'static str {
    let unlimited = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap().1 == nix::libc::RLIM_INFINITY;
    if version() >= (5, 11) || unlimited || can_be_raised { "ok" } else { "warning" }
}

/// Whether maps can be made without a capability.
fn maps_without_privilege() -> &'static str {
    if sysctl("kernel/unprivileged_bpf_disabled").as_deref() == Some("0") { "ok" } else { "fail" }
}

/// `PREFIX… redirector doctor`, in a namespace without anybody's programs.
struct Patient {
    netns: Netns,
    prefix: Vec<String>,
    program: String,
    socket: String,
}

impl Patient {
    fn new(prefix: &str) -> Self {
        Self {
            netns: Netns::new(),
            prefix: prefix.split_whitespace().map(str::to_owned).collect(),
            program: binary().display().to_string(),
            socket: "/nowhere/control.sock".into(),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut words = self.prefix.iter().chain([&self.program]);
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).arg("doctor").args(arguments);
        command.env("REDIRECTOR_SOCKET", &self.socket).env_remove("RUST_LOG");
        command
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Outcome {
        self.netns.enter(|| command::run(&mut self.command(arguments)))
    }

    /// Asserts every status, that each that is not `ok` has a hint, that the text says the same, and what that
    /// means for the exit code. Gives the document.
    #[track_caller]
    fn assert(&self, root: Statuses, others: &[(&'static str, &'static str)]) -> Value {
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
fn said<'a>(document: &'a Value, name: &str, field: &str) -> &'a str {
    let mut checks = document["checks"].as_array().expect("an array").iter();
    let check =
        checks.find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name}: {document:#}"));
    check[field].as_str().unwrap_or_else(|| panic!("no {field}: {check}"))
}

#[test]
fn for_root_steering_works_and_was_tried() {
    let document = Patient::new("").assert(as_root(), &[]);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(said(&document, "kernel", "found"), release.trim());
    for (name, destination) in [("steering IPv4", "127.0.0.1:80"), ("steering IPv6", "[::1]:80")] {
        let found = said(&document, name, "found");
        assert!(found.contains(destination), "{found}");
    }
}

#[test]
fn for_nobody_it_says_what_is_missing() {
    let dir = Dir::new();
    let mut nobody = Patient::new("setpriv --reuid 65534 --regid 65534 --clear-groups --");
    nobody.program = binary_for_everybody(&dir).display().to_string();
    let document = nobody.assert(
        as_root(),
        &[
            ("network namespaces", "fail"),
            ("host view", "warning"),
            ("CAP_BPF", "fail"),
            ("CAP_NET_ADMIN", "fail"),
            ("CAP_SYS_ADMIN", "fail"),
            ("CAP_SYS_PTRACE", "warning"),
            ("CAP_KILL", "warning"),
            ("CAP_SETUID", "note"),
            ("CAP_SETGID", "note"),
            ("CAP_SYS_RESOURCE", "note"),
            ("bpf", maps_without_privilege()),
            ("map of maps", maps_without_privilege()),
            ("SOCKMAP", "fail"),
            ("sk_lookup program", "fail"),
            ("JIT", "note"),
            ("test run", "note"),
            ("ingress_ifindex", "note"),
            ("attach", "fail"),
            ("steering IPv4", "fail"),
            ("steering IPv6", "fail"),
            ("locked memory", locked_memory(false)),
            ("other programs", "note"),
        ],
    );
    assert!(said(&document, "CAP_BPF", "hint").contains("root"), "{document:#}");
    assert!(said(&document, "network namespaces", "found").contains("unshare"), "{document:#}");
}

#[test]
fn in_a_user_namespace_it_says_that_its_capabilities_do_not_count() {
    let document = Patient::new("unshare --user --map-root-user --").assert(
        as_root(),
        &[
            ("user namespace", "fail"),
            ("host view", "warning"),
            ("CAP_BPF", "fail"),
            ("CAP_NET_ADMIN", "fail"),
            ("CAP_SYS_ADMIN", "fail"),
            ("CAP_SYS_RESOURCE", "ok"),
            ("bpf", maps_without_privilege()),
            ("map of maps", maps_without_privilege()),
            ("SOCKMAP", "fail"),
            ("sk_lookup program", "fail"),
            ("JIT", "note"),
            ("test run", "note"),
            ("ingress_ifindex", "note"),
            ("attach", "fail"),
            ("steering IPv4", "fail"),
            ("steering IPv6", "fail"),
            ("locked memory", locked_memory(false)),
            ("other programs", "note"),
        ],
    );
    assert!(said(&document, "user namespace", "hint").contains("user namespaces"), "{document:#}");
}

#[test]
fn without_cap_sys_admin_steering_cannot_work() {
    let document = Patient::new("setpriv --bounding-set -cap_21 --inh-caps -cap_21 --").assert(
        as_root(),
        &[
            ("network namespaces", "fail"),
            ("CAP_SYS_ADMIN", "fail"),
            ("SOCKMAP", "fail"),
            ("attach", "fail"),
            ("steering IPv4", "fail"),
            ("steering IPv6", "fail"),
        ],
    );
    assert!(said(&document, "CAP_SYS_ADMIN", "hint").contains("CAP_SYS_ADMIN"), "{document:#}");
}

#[test]
fn without_cap_bpf_it_works_because_cap_sys_admin_includes_it() {
    let document =
        Patient::new("setpriv --bounding-set -cap_39 --inh-caps -cap_39 --").assert(as_root(), &[]);
    let found = said(&document, "CAP_BPF", "found");
    assert!(found.starts_with("not there") && found.contains("CAP_SYS_ADMIN"), "{found}");
}

#[test]
fn without_cap_sys_ptrace_it_warns_and_steering_works() {
    let document = Patient::new("setpriv --bounding-set -cap_19 --inh-caps -cap_19 --")
        .assert(as_root(), &[("CAP_SYS_PTRACE", "warning"), ("host view", "warning")]);
    assert!(said(&document, "host view", "found").contains("PID"), "{document:#}");
}

#[test]
fn with_few_open_files_it_says_how_many_connections_that_is() {
    let document = Patient::new("prlimit --nofile=64:64 --").assert(as_root(), &[("open files", "warning")]);
    let found = said(&document, "open files", "found");
    assert!(found.contains("64") && found.contains("16 connections"), "{found}");
    assert!(said(&document, "open files", "hint").contains("ulimit"), "{document:#}");
}

#[test]
fn in_a_container_without_bpffs_that_is_a_note() {
    let dir = Dir::new();
    let script = dir.join("without-bpffs");
    // It may not have been mounted at all, or more than once.
    fs::write(&script, "while umount /sys/fs/bpf 2>/dev/null; do :; done\nexec \"$@\"\n").unwrap();
    let prefix = format!("unshare --mount --propagation private -- sh {}", script.display());
    let document = Patient::new(&prefix).assert(as_root(), &[("bpffs", "note")]);
    assert!(said(&document, "bpffs", "hint").contains("mount -t bpf"), "{document:#}");
}

#[test]
fn without_proc_or_sys_it_says_so_and_does_not_hang() {
    for (hidden, failing) in [("/proc", "network namespaces"), ("/sys", "sk_lookup program")] {
        let script = format!("mount -t tmpfs none {hidden} && exec \"$@\"");
        let mut patient = Patient::new("unshare --mount --propagation private -- sh -c");
        patient.prefix.extend([script, "sh".into()]);
        let outcome = patient.run(&["--json"]);
        assert_eq!(outcome.code(), 1, "{outcome}");
        let document = document(&outcome);
        assert_eq!(said(&document, failing, "status"), "fail", "{document:#}");
        let told = ["found", "hint"].map(|field| said(&document, failing, field).contains(hidden));
        assert_eq!(told, [true, true], "{document:#}");
    }
}

#[test]
fn a_daemon_that_answers_is_seen_and_one_that_hangs_does_not_hang_it() {
    let daemon = Daemon::start();
    let mut patient = Patient::new("");
    patient.socket = daemon.socket().display().to_string();
    let document = patient.assert(as_root(), &[("daemon", "ok")]);
    assert!(said(&document, "daemon", "found").contains(&patient.socket), "{document:#}");
    let dir = Dir::new();
    let silent = dir.join("silent.sock");
    let _listener = UnixListener::bind(&silent).unwrap();
    patient.socket = silent.display().to_string();
    let document = patient.assert(as_root(), &[]);
    assert!(said(&document, "daemon", "found").contains("no answer"), "{document:#}");
}

#[test]
fn programs_in_its_namespace_are_named() {
    let patient = Patient::new("");
    let foreign = Instance::load().unwrap();
    let id = foreign.program_id().unwrap().to_string();
    let link = foreign.attach(patient.netns.open().as_fd()).unwrap();
    let document = patient.assert(as_root(), &[("other programs", "note")]);
    assert!(said(&document, "other programs", "found").contains(&id), "{document:#}");
    drop((link, foreign));
}

/// What could stay of it, besides what its own namespace shows: names, pins, mounts.
fn traces() -> Vec<String> {
    let list = |folder: &str| {
        let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        entries.map(|entry| entry.path().display().to_string()).collect::<Vec<_>>()
    };
    // Those of other tests come and go.
    let mut traces: Vec<_> = ["/run/netns", "/sys/fs/bpf", "/run/redirector", "/run"].map(list).concat();
    traces.retain(|path| !path.contains("/rdt-"));
    traces.sort();
    traces
}

#[test]
fn it_steers_nobody_while_it_runs_and_leaves_nothing() {
    let patient = Patient::new("");
    let (before, traces_before) = (Snapshot::of(&patient.netns), traces());
    let mut child = patient
        .netns
        .enter(|| command::spawn(patient.command(&["--json"]).stdin(Stdio::null()).stdout(Stdio::null())));
    let status = eventually("the doctor has ended", SECOND * 2, || {
        let programs = attached_programs(patient.netns.open().as_fd()).expect("ask for programs");
        assert_eq!(programs, [], "it steers the namespace that it runs in");
        child.try_wait().expect("wait").ok_or("it runs")
    });
    assert!(status.success(), "{status}");
    Snapshot::of(&patient.netns).assert_same_as(&before);
    assert_eq!(traces(), traces_before);
}

#[test]
fn killed_in_the_middle_it_leaves_nothing() {
    let patient = Patient::new("");
    let (before, traces_before) = (Snapshot::of(&patient.netns), traces());
    let mut moment = 0;
    // At a later moment each time, until it ends before it is killed.
    loop {
        let mut child = patient
            .netns
            .enter(|| command::spawn(patient.command(&[]).stdin(Stdio::null()).stdout(Stdio::null())));
        at_intervals(moment, || {});
        child.kill().expect("kill the doctor");
        let status = child.wait().expect("wait");
        if status.success() {
            break;
        }
        Snapshot::of(&patient.netns).assert_same_as(&before);
        moment += 1;
    }
    assert!(moment > 0, "it was never killed");
    assert_eq!(traces(), traces_before);
}
