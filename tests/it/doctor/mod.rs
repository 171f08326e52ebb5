//! `redirector doctor`: what it says where everything works, where something is missing, and that it leaves nothing.

mod patient;

use std::{
    fs,
    os::{fd::AsFd as _, unix::net::UnixListener},
    process::Stdio,
};

use redirector::kernel::{Instance, attached_programs};
use redirector_tests::{
    cli::document,
    command,
    daemon::{Daemon, binary_for_everybody},
    dir::Dir,
    eventually::{at_intervals, eventually},
    scale::step,
    snapshot::Snapshot,
};

use self::patient::{Patient, as_root, locked_memory, maps_without_privilege, said};
use super::SECOND;

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
            ("seccomp notification", "warning"),
            ("packet filters", "note"),
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
            ("seccomp notification", "warning"),
            ("packet filters", "note"),
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
    foreign.attach(patient.netns.open().as_fd()).unwrap();
    let document = patient.assert(as_root(), &[("other programs", "note")]);
    assert!(said(&document, "other programs", "found").contains(&id), "{document:#}");
    drop(foreign);
}

/// What could stay of it, besides what its own namespace shows: names, pins, mounts.
fn traces() -> Vec<String> {
    let list = |folder: &str| {
        let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        entries.map(|entry| entry.path().display().to_string()).collect::<Vec<_>>()
    };
    // Those of other tests and of other programs come and go.
    let mut traces: Vec<_> = ["/run/netns", "/sys/fs/bpf", "/run/redirector"].map(list).concat();
    traces.extend(list("/run").into_iter().filter(|path| path.contains("redirector")));
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
        moment += step();
    }
    assert!(moment > 0, "it was never killed");
    assert_eq!(traces(), traces_before);
}
