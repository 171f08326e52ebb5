//! `redirector exec`: a program with steered listeners, for as long as it runs.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use nix::sys::signal::{Signal, kill};
use redirector_tests::{
    cli::error,
    client::{Conversation, Stop, answer_here, visit},
    command::Outcome,
    daemon::Daemon,
    eventually::eventually,
    exec::{ACTIVATED, Exec, PYTHON, Stage, assert_true_addresses, code, sockets_of},
    server::Server,
    snapshot::Snapshot,
    topology::{POD_V4, POD_V6, at},
    world::World,
};

use super::SECOND;

/// What `exec` itself says when it fails: one line, and its own exit code.
#[track_caller]
pub(crate) fn failure(outcome: &Outcome) -> String {
    error(outcome, 125)
}

#[test]
fn the_exit_code_is_that_of_cmd() {
    for stage in Stage::both() {
        let _app = Server::inside(&stage.net.pod, "app", 80);
        let before = stage.snapshot();
        let text = stage.program("text", "no program");
        let folder = stage.dir.path().to_str().unwrap().to_owned();
        let cases: [(&[&str], i32); 8] = [
            (&["true"], 0),
            (&["sh", "-c", "exit 7"], 7),
            (&["sh", "-c", "kill -TERM $$"], 128 + 15),
            (&["sh", "-c", "kill -KILL $$"], 128 + 9),
            (&["/nonexistent/program"], 127),
            (&["rdt-no-such-program"], 127),
            (&[&text], 126),
            (&[&folder], 126),
        ];
        for (words, expected) in cases {
            let outcome = stage.run("", words);
            assert_eq!(code(outcome.status), expected, "{words:?}{outcome}");
            if expected == 126 || expected == 127 {
                assert!(error(&outcome, expected).contains(words[0]), "must name it{outcome}");
            }
            stage.assert_forgotten();
            Snapshot::of(&stage.net.pod).assert_same_as(&before);
            assert_eq!(stage.answers(), ["app", "app"]);
        }
    }
}

#[test]
fn a_failure_of_redirector_is_125_and_leaves_nothing() {
    for stage in Stage::both() {
        let before = stage.snapshot();
        let template = stage.program("template", "{port}");
        let cases = [
            ("--user rdt-nobody".to_owned(), "rdt-nobody"),
            ("--user root".to_owned(), "root"),
            ("--user 0".to_owned(), "0"),
            ("--render /nonexistent/template=/tmp/x".to_owned(), "/nonexistent/template"),
            (format!("--render {template}=/nonexistent/file"), "/nonexistent/file"),
        ];
        for (options, naming) in cases {
            let outcome = stage.run(&options, &["true"]);
            assert!(failure(&outcome).contains(naming), "must name {naming}{outcome}");
        }
        for (target, naming) in [("netns:rdt-none", "rdt-none"), ("self", "self"), ("pid:1", "pid:1")] {
            let outcome = stage.cli().run(&["exec", target, "--match", "tcp:80", "--", "true"]);
            assert!(failure(&outcome).contains(naming), "must name {naming}{outcome}");
        }
        // What cannot be a command at all is wrong usage, as everywhere.
        for words in [&["exec", "self", "--match", "tcp:80"][..], &["exec", "self", "--", "true"]] {
            error(&stage.cli().run(words), 2);
        }
        stage.assert_forgotten();
        Snapshot::of(&stage.net.pod).assert_same_as(&before);
    }
}

#[test]
fn a_socket_that_somebody_else_serves_is_no_reason_to_go_alone() {
    // Not one of ours, but it is there: only when nobody is, a daemon of our own may take over.
    let stage = Stage::alone();
    let path = stage.dir.join("none.handoff.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let outcome = stage.run("", &["true"]);
    assert!(failure(&outcome).contains(path.to_str().unwrap()), "{outcome}");
}

#[test]
fn cmd_serves_true_clients_at_their_original_destination() {
    for stage in Stage::both() {
        let _app = Server::inside(&stage.net.pod, "app", 80);
        let before = stage.snapshot();
        let mut cmd = stage.serve("", "cmd");
        for pod in [POD_V4, POD_V6] {
            for _ in 0..20 {
                let mut conversation = Conversation::open(&stage.net.client, at(pod, 80)).unwrap();
                let greeting = conversation.greeting().unwrap();
                assert_eq!(greeting.server, "cmd");
                assert_true_addresses(&greeting, conversation.stream().local_addr().unwrap(), at(pod, 80));
                conversation.echo("ping").unwrap();
                conversation.finish().unwrap();
            }
        }
        // From inside the pod, too.
        assert_eq!(visit(&stage.net.pod, at([127, 0, 0, 1].into(), 80)).unwrap().server, "cmd");
        assert_eq!(cmd.end(Signal::SIGTERM), 128 + 15);
        stage.assert_forgotten();
        assert_eq!(stage.answers(), ["app", "app"]);
        Snapshot::of(&stage.net.pod).assert_same_as(&before);
    }
}

#[test]
fn with_a_daemon_exec_becomes_cmd() {
    let stage = Stage::with_daemon();
    let cmd = Exec::start(&mut stage.exec("--match tcp:80", &["sh", "-c", "echo $$; exec cat"]));
    assert_eq!(cmd.line(), cmd.pid().to_string());
}

#[test]
fn signals_reach_cmd() {
    const SIGNALS: [Signal; 6] =
        [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGTERM];
    let script = "
import signal, sys
wanted = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
print('ready', flush=True)
while True:
    got = signal.Signals(signal.sigwait(wanted))
    print(got.name, flush=True)
    if got == signal.SIGTERM:
        sys.exit(9)
";
    for stage in Stage::both() {
        let mut cmd = Exec::start(&mut stage.exec("--match tcp:80", &[PYTHON, "-c", script]));
        cmd.expect_line("ready");
        for signal in SIGNALS {
            cmd.signal(signal);
            assert_eq!(cmd.line(), signal.as_str());
        }
        assert_eq!(cmd.code(), 9);
        stage.assert_forgotten();
    }
}

#[test]
fn cmd_gets_the_listeners_as_systemd_would_pass_them_and_no_other_fd() {
    let script = "
echo $LISTEN_FDS
echo $LISTEN_PID $$
echo $LISTEN_FDNAMES
for fd in /proc/$$/fd/*; do [ -e \"$fd\" ] && echo \"${fd##*/}\"; done
echo end
exec cat";
    for stage in Stage::both() {
        let target = stage.net.pod.target().replace(':', "=");
        let command = &mut stage.exec("--match tcp:80 --name web", &["sh", "-c", script]);
        // What was there before is not true any more.
        command.envs([("LISTEN_FDS", "9"), ("LISTEN_PID", "1"), ("LISTEN_FDNAMES", "other")]);
        let mut cmd = Exec::start(command);
        assert_eq!(cmd.line(), "2");
        let pids = cmd.line();
        let (listen_pid, pid) = pids.split_once(' ').unwrap();
        assert_eq!(listen_pid, pid);
        assert_eq!(cmd.line(), format!("{target}/web/ipv4:{target}/web/ipv6"));
        // A shell has some of its own.
        let mut alone = Exec::start(Command::new("sh").args(["-c", script]));
        let mut expected = alone.expect_line("end").split_off(3);
        assert!(!expected.contains(&"3".to_owned()), "{expected:?}");
        expected.extend(["3".to_owned(), "4".to_owned()]);
        expected.sort();
        assert_eq!(cmd.expect_line("end"), expected);
        let of_cmd = sockets_of(pid);
        assert_eq!(of_cmd.len(), 2, "{of_cmd:?}");
        // Blocking, and listening, one of each family.
        for fd in [3, 4] {
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            assert_eq!(u32::from_str_radix(flags.trim(), 8).unwrap() & 0o4000, 0, "O_NONBLOCK: {info}");
        }
    }
}

#[test]
fn the_daemon_has_no_duplicate_of_what_it_gave_away() {
    let stage = Stage::with_daemon();
    let cmd = stage.serve("", "cmd");
    let of_cmd = sockets_of(cmd.pid());
    assert_eq!(of_cmd.len(), 2, "{of_cmd:?}");
    let daemon = stage.daemon.as_ref().unwrap();
    eventually("the daemon has closed them", SECOND, || {
        let both: Vec<_> = daemon.fds().into_iter().filter(|fd| of_cmd.contains(fd)).collect();
        if both.is_empty() { Ok(()) } else { Err(both) }
    });
    let list = daemon.cli().json(&["list"]);
    let rule = &list["namespaces"][0]["rules"][0];
    assert_eq!(rule["origin"], "lease", "{list:#}");
    assert_eq!(rule["lease"]["pid"], cmd.pid().as_raw(), "{list:#}");
    for listener in rule["lease"]["listeners"].as_array().unwrap() {
        assert_eq!(listener["healthy"], true, "{list:#}");
    }
}

#[test]
fn placeholders_stand_for_the_listeners_in_arguments_variables_and_templates() {
    for stage in Stage::both() {
        let template = stage.program("template", "a={fd4} b={listen6}\n{\"c\": {}} {port}\n");
        let file = stage.dir.join("rendered");
        let options =
            format!("--match tcp:80 --env WHERE={{listen4}};x=y --render {template}={}", file.display());

        let script = "echo $1; echo $WHERE; exec cat";
        let cmd = Exec::start(
            &mut stage
                .exec(&options, &["sh", "-c", script, "sh", "{fd4}-{fd6}-{listen4}-{listen6}-{port}-{fd5}"]),
        );
        let line = cmd.line();
        let words: Vec<_> = line.split('-').collect();
        let &[fd4, fd6, listen4, listen6, port, other] = &words[..] else { panic!("{line}") };
        assert_eq!((fd4, fd6, other), ("3", "4", "{fd5}"));
        let v4: SocketAddr = listen4.parse().unwrap();
        let v6: SocketAddr = listen6.parse().unwrap();
        assert!(v4.is_ipv4() && v6.is_ipv6(), "{line}");
        assert_eq!([v4.port().to_string(), v6.port().to_string()], [port, port]);
        assert_eq!(cmd.line(), format!("{listen4};x=y"));
        let rendered = fs::read_to_string(&file).unwrap();
        assert_eq!(rendered, format!("a=3 b={listen6}\n{{\"c\": {{}}}} {port}\n"));
        // They are where the pod's own list of sockets has them.
        let sockets = stage.net.pod.must("ss", &["-Htln"]).stdout;
        for address in [listen4, listen6] {
            assert!(sockets.contains(address), "{address}: {sockets}");
        }
    }
}

/// CMD shows its own /proc/PID/status, and waits.
const STATUS: [&str; 3] = ["cat", "/proc/self/status", "-"];

/// Fields of that.
#[track_caller]
fn status(cmd: &Exec) -> impl Fn(&str) -> String + use<> {
    let mut lines = vec![cmd.line()];
    while !lines.last().expect("one").starts_with("nonvoluntary_ctxt_switches:") {
        lines.push(cmd.line());
    }
    move |field| {
        let line = lines.iter().find_map(|line| line.strip_prefix(&format!("{field}:")));
        let line = line.unwrap_or_else(|| panic!("no {field}: {lines:#?}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn with_user_cmd_is_that_user_and_has_no_capability() {
    for stage in Stage::both() {
        for (user, uid, gid) in [("nobody", 65534, 65534), ("65534", 65534, 65534), ("54321", 54321, 54321)] {
            let cmd = Exec::start(&mut stage.exec(&format!("--match tcp:80 --user {user}"), &STATUS));
            let status = status(&cmd);
            assert_eq!(status("Uid"), [uid; 4].map(|id| id.to_string()).join(" "));
            assert_eq!(status("Gid"), [gid; 4].map(|id| id.to_string()).join(" "));
            assert_eq!(status("Groups"), gid.to_string());
            for set in ["CapEff", "CapPrm", "CapAmb"] {
                assert_eq!(status(set), "0000000000000000", "{set}");
            }
            assert_eq!(status("NoNewPrivs"), "1");
        }
    }
}

#[test]
fn without_user_cmd_is_who_runs_exec() {
    let stage = Stage::with_daemon();
    let cmd = Exec::start(&mut stage.exec("--match tcp:80", &STATUS));
    let status = status(&cmd);
    assert_eq!(status("Uid"), "0 0 0 0");
    assert_eq!(status("NoNewPrivs"), "0");
    // Nothing of ours is left in the process but what was asked for.
    let direct = self::status(&Exec::start(Command::new(STATUS[0]).args(&STATUS[1..])));
    for field in ["SigIgn", "SigBlk", "CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd", "Groups", "Seccomp"] {
        assert_eq!(status(field), direct(field), "{field}");
    }
}

#[test]
fn a_caller_whose_capabilities_outlive_setuid_does_not_give_them_to_cmd() {
    for stage in Stage::both() {
        let exec = stage.exec("--match tcp:80 --user nobody", &STATUS);
        let mut command = Command::new("setpriv");
        command.args(["--inh-caps", "+net_admin", "--ambient-caps", "+net_admin"]);
        command.args(["--securebits", "+no_setuid_fixup", "--"]);
        command.arg(exec.get_program()).args(exec.get_args());
        command.envs(exec.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let cmd = Exec::start(&mut command);
        let status = status(&cmd);
        assert_eq!(status("Uid"), "65534 65534 65534 65534");
        for set in ["CapEff", "CapPrm", "CapAmb"] {
            assert_eq!(status(set), "0000000000000000", "{set}");
        }
    }
}

#[test]
fn a_server_that_is_another_user_serves() {
    for stage in Stage::both() {
        let cmd = stage.serve("--user nobody", "cmd");
        assert_eq!(stage.answers(), ["cmd", "cmd"]);
        drop(cmd);
        stage.assert_forgotten();
    }
}

#[test]
fn when_the_namespace_dies_cmd_is_ended() {
    for stage in Stage::both() {
        let mut cmd = stage.serve("", "cmd");
        let mut open = Conversation::open(&stage.net.client, at(POD_V4, 80)).unwrap();
        open.greeting().unwrap();
        stage.net.pod.delete();
        assert_eq!(cmd.code(), 128 + 15);
        assert_is_gone(&stage);
    }
}

#[track_caller]
pub(crate) fn assert_is_gone(stage: &Stage) {
    eventually("the kernel has let the namespace go", SECOND * 2, || {
        if stage.net.is_joined() { Err("it is there") } else { Ok(()) }
    });
    stage.assert_forgotten();
}

#[test]
fn when_the_namespace_dies_a_cmd_that_ignores_sigterm_is_killed() {
    for stage in Stage::both() {
        let script = "trap '' TERM; echo ready; exec cat";
        let mut cmd =
            Exec::start(&mut stage.exec("--match tcp:80 --kill-after 300ms", &["sh", "-c", script]));
        cmd.expect_line("ready");
        stage.net.pod.delete();
        assert_eq!(cmd.code(), 128 + 9);
        assert_is_gone(&stage);
    }
}

#[test]
fn when_the_namespace_dies_a_cmd_has_the_time_that_it_was_given() {
    let stage = Stage::with_daemon();
    let script = "trap 'echo told; read line; exit 5' TERM; echo ready; while :; do read line; done";
    let mut cmd = Exec::start(&mut stage.exec("--match tcp:80 --kill-after 1h", &["sh", "-c", script]));
    cmd.expect_line("ready");
    stage.net.pod.delete();
    assert_eq!(cmd.line(), "told");
    cmd.close_stdin();
    assert_eq!(cmd.code(), 5);
    assert_is_gone(&stage);
}

#[test]
fn several_workers_accept_and_the_death_of_one_never_stops_steering() {
    for stage in Stage::both() {
        let script = stage.program("activated.py", ACTIVATED);
        let mut cmd = Exec::start(&mut stage.exec("--match tcp:80", &[PYTHON, &script, "cmd", "4"]));
        let workers = cmd.expect_line("ready");
        let mut workers: Vec<i32> =
            workers.iter().map(|line| line.strip_prefix("worker ").unwrap().parse().unwrap()).collect();
        assert_eq!(workers.len(), 4);
        while workers.len() > 1 {
            let answers: Vec<_> = (0..20).flat_map(|_| stage.answers()).collect();
            assert!(
                answers.iter().all(|one| workers.iter().any(|pid| *one == format!("cmd-{pid}"))),
                "{workers:?}: {answers:?}"
            );
            kill_and_wait(workers.pop().unwrap());
        }
        let last = format!("cmd-{}", workers[0]);
        assert_eq!(stage.answers(), [&*last, &*last]);
        cmd.close_stdin();
        assert_eq!(cmd.code(), 0);
        stage.assert_forgotten();
    }
}

/// Kills a process of the test that is not its child.
#[track_caller]
pub(crate) fn kill_and_wait(pid: i32) {
    kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    eventually("it is dead", SECOND, || {
        // A zombie has no fds any more.
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_else(|_| "() X".to_owned());
        let state = state.rsplit_once(") ").unwrap().1.chars().next();
        if matches!(state, Some('Z' | 'X')) { Ok(()) } else { Err(state) }
    });
}

#[test]
fn a_worker_that_outlives_cmd_gets_nothing_more_with_end_with_cmd() {
    for stage in Stage::both() {
        let _app = Server::inside(&stage.net.pod, "app", 80);
        let script = stage.program("activated.py", ACTIVATED);
        let options = "--match tcp:80 --end-with-cmd";
        let exec = &mut stage.exec(options, &[PYTHON, &script, "cmd", "1"]);
        let mut cmd = Exec::start(exec);
        let worker: i32 = cmd.expect_line("ready")[0].strip_prefix("worker ").unwrap().parse().unwrap();
        let worker_name = format!("cmd-{worker}");
        assert_eq!(stage.answers(), [&*worker_name, &*worker_name]);
        let mut open = Conversation::open(&stage.net.client, at(POD_V4, 80)).unwrap();
        open.greeting().unwrap();
        // CMD itself, which without a daemon is a child.
        let parent = parent_of(worker);
        kill(nix::unistd::Pid::from_raw(parent), Signal::SIGKILL).unwrap();
        assert_eq!(cmd.code(), 128 + 9);
        stage.eventually_answers("app");
        stage.assert_forgotten();
        assert_eq!(sockets_of(worker).len(), 3, "the worker has two listeners and a connection");
        // A connection that it has goes on.
        open.echo("still there").unwrap();
        // Who comes next in that place has it alone.
        let next = stage.serve("", "next");
        assert_eq!(stage.answers(), ["next", "next"]);
        drop(next);
        stage.assert_forgotten();
        drop(cmd);
    }
}

#[test]
fn a_worker_that_outlives_cmd_is_ended_when_the_namespace_dies() {
    // It ends when it is asked to, and not before it is killed.
    for (trap, died_of) in [("", "15"), ("trap '' TERM;", "9")] {
        for stage in Stage::both() {
            let script = format!("{trap} exec 9<&0; cat <&9 & echo $!; wait");
            let options = "--match tcp:80 --kill-after 300ms --end-with-cmd";
            let cmd = &mut stage.exec(options, &["sh", "-c", &script]);
            let mut cmd = Exec::start(cmd);
            let worker: i32 = cmd.line().parse().unwrap();
            kill(nix::unistd::Pid::from_raw(parent_of(worker)), Signal::SIGKILL).unwrap();
            assert_eq!(cmd.code(), 128 + 9);
            stage.assert_forgotten();
            assert_eq!(sockets_of(worker).len(), 2, "the worker has both listeners");
            println!("the worker is to die of signal {died_of}");
            if stage.daemon.is_none() {
                // Nobody is left who could learn that the namespace dies: it is its holder's.
                kill(nix::unistd::Pid::from_raw(worker), Signal::SIGKILL).unwrap();
            }
            stage.net.pod.delete();
            assert_is_gone(&stage);
        }
    }
}

/// What scripts here have in common. Their listener is fd 3.
const HOLDING: &str = "
import os, signal, socket, sys, time
def say(*words):
    os.write(1, (' '.join(map(str, words)) + '\\n').encode())
one = socket.socket(fileno=3)
def until_it_is_shut_down():
    try:
        while True: one.accept()
    except OSError: pass
";

#[test]
fn workers_that_are_forked_while_others_are_ended_are_asked_to_end_too_and_nobody_is_asked_twice() {
    let stage = Stage::with_daemon();
    // Its listener is shut down by a look that has passed everybody who was there.
    let script = format!(
        "{HOLDING}
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(os.getpid()))
say('ready')
until_it_is_shut_down()
for number in range(3):
    child = os.fork()
    if not child:
        told.clear()
        while os.getpid() not in told: time.sleep(0.01)
        os._exit(0)
    os.waitpid(child, 0)
    say('ended', number)
say('asked', len(told))
"
    );
    let mut cmd = Exec::start(&mut stage.exec("--match tcp:80 --kill-after 1h", &[PYTHON, "-c", &script]));
    cmd.expect_line("ready");
    stage.net.pod.delete();
    for line in ["ended 0", "ended 1", "ended 2", "asked 1"] {
        assert_eq!(cmd.line(), line);
    }
    assert_eq!(cmd.code(), 0);
    assert_is_gone(&stage);
}

#[test]
fn workers_that_are_forked_while_others_are_killed_are_killed_too() {
    let stage = Stage::with_daemon();
    let path = stage.dir.join("sink");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(stage.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // The worker is found by the look alone. Its end is the end of the connection.
    let script = format!(
        "{HOLDING}
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if not os.fork():
    sink = socket.socket(socket.AF_UNIX)
    sink.connect('{}')
    socket.send_fds(sink, [b'x'], [3])
    os.close(1)
    while True: time.sleep(1000)
say('ready')
while True: time.sleep(1000)
",
        path.display()
    );
    let options = "--match tcp:80 --user nobody --kill-after 300ms";
    let mut cmd = Exec::start(&mut stage.exec(options, &[PYTHON, "-c", &script]));
    cmd.expect_line("ready");
    // Somebody else's, who is not ended.
    let other = "
import os, signal, socket, sys
sink = socket.socket(fileno=0)
_, fds, _, _ = socket.recv_fds(sink, 1, 1)
assert not sink.recv(1)
for number in range(3):
    child = os.fork()
    if not child:
        os.setresuid(NOBODY, NOBODY, NOBODY)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True: signal.pause()
    status = os.waitpid(child, 0)[1]
    print(os.waitstatus_to_exitcode(status), flush=True)
";
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap().uid;
    let other = other.replace("NOBODY", &nobody.to_string());
    let (stream, _) = listener.accept().unwrap();
    let mut command = Command::new(PYTHON);
    command.args(["-c", &other]).stdin(std::os::fd::OwnedFd::from(stream));
    let other = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    stage.net.pod.delete();
    assert_eq!(cmd.code(), 128 + 9);
    let outcome = other.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&outcome.stdout), "-9\n-9\n-9\n");
    assert_is_gone(&stage);
}

#[track_caller]
fn parent_of(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_cmd_that_closes_its_listeners_leaves_clients_to_on_unavailable() {
    for stage in Stage::both() {
        let _app = Server::inside(&stage.net.pod, "app", 80);
        for (option, expected) in [("reject", "refused"), ("pass", "app")] {
            let options = format!("--match tcp:80 --on-unavailable {option}");
            let script = "exec 3<&- 4<&-; echo ready; exec cat";
            let mut cmd = Exec::start(&mut stage.exec(&options, &["sh", "-c", script]));
            cmd.expect_line("ready");
            assert_eq!(stage.answers(), [expected, expected]);
            cmd.close_stdin();
            assert_eq!(cmd.code(), 0);
            stage.assert_forgotten();
            assert_eq!(stage.answers(), ["app", "app"]);
        }
    }
}

/// Who answers a client that asks without a pause while CMD is killed.
#[track_caller]
fn answers_while_killed(stage: &Stage, on_unavailable: &str) -> Vec<String> {
    let mut cmd = stage.serve(&format!("--on-unavailable {on_unavailable}"), "cmd");
    let done = AtomicBool::new(false);
    let ask = || {
        let mut answers = Vec::new();
        while !done.load(Ordering::Relaxed) {
            answers.extend([POD_V4, POD_V6].map(|pod| answer_here(at(pod, 80))));
        }
        answers
    };
    let answers = thread::scope(|scope| {
        let stop = Stop(&done);
        let netns = &stage.net.client;
        let client = scope.spawn(move || netns.enter(ask));
        stage.eventually_answers("cmd");
        assert_eq!(cmd.end(Signal::SIGKILL), 128 + 9);
        stage.eventually_answers("app");
        drop(stop);
        client.join().unwrap()
    });
    stage.assert_forgotten();
    assert_eq!(answers.last().unwrap(), "app");
    answers
}

#[test]
fn when_cmd_is_killed_clients_get_what_on_unavailable_says_and_none_hangs() {
    let stage = Stage::with_daemon();
    let _app = Server::inside(&stage.net.pod, "app", 80);
    for (option, allowed) in [
        // What was in its queue, or open, is reset or closed by the kernel.
        ("pass", &["cmd", "reset", "closed", "app"][..]),
        ("reject", &["cmd", "reset", "closed", "refused", "app"]),
    ] {
        let answers = answers_while_killed(&stage, option);
        println!("{option}: {} answers", answers.len());
        assert!(answers.iter().all(|one| allowed.contains(&&**one)), "{answers:?}");
    }
}

#[test]
fn rules_beside_the_one_of_exec_stay() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    world.steer("http", "tcp:81", &proxy.destination());
    let stage = Stage { daemon: None, net: world.net, dir: redirector_tests::dir::Dir::new() };
    let daemon: Daemon = world.daemon;
    let target = stage.net.pod.target();
    let run = |words: &[&str]| {
        let words = [&["exec", &target, "--match", "tcp:80", "--name", "lease", "--"], words].concat();
        daemon.cli().command(&words)
    };
    let script = stage.program("activated.py", ACTIVATED);
    let mut cmd = Exec::start(&mut run(&[PYTHON, &script, "cmd"]));
    cmd.expect_line("ready");
    assert_eq!(stage.answers(), ["cmd", "cmd"]);
    // A name that is taken.
    for name in ["http", "lease"] {
        let words = ["exec", &target, "--match", "tcp:82", "--name", name, "--", "true"];
        assert!(failure(&daemon.cli().run(&words)).contains(name));
    }
    let words = ["attach", &target, "--match", "tcp:80", "--name", "lease", "--to", "reject"];
    assert!(error(&daemon.cli().run(&words), 1).contains("lease"));
    assert_eq!(stage.answers(), ["cmd", "cmd"]);
    cmd.end(Signal::SIGTERM);
    stage.eventually_answers("refused");
    assert_eq!(redirector_tests::client::answer(&stage.net.client, at(POD_V4, 81)), "proxy");
    eventually("only the rule of exec is gone", SECOND, || {
        let list = daemon.cli().json(&["list"]);
        if list["namespaces"][0]["rules"].as_array().unwrap().len() == 1 { Ok(()) } else { Err(list) }
    });
    daemon.cli().json(&["detach", &target]);
}

#[test]
fn a_daemon_that_is_killed_leaves_cmd_running_and_clients_to_the_application() {
    let mut stage = Stage::with_daemon();
    let _app = Server::inside(&stage.net.pod, "app", 80);
    let mut cmd = stage.serve("", "cmd");
    let mut open = Conversation::open(&stage.net.client, at(POD_V6, 80)).unwrap();
    open.greeting().unwrap();
    stage.daemon.as_mut().unwrap().kill();
    assert_eq!(stage.answers(), ["app", "app"]);
    open.echo("still there").unwrap();
    assert_eq!(cmd.end(Signal::SIGTERM), 128 + 15);
}

#[test]
fn a_script_may_be_run_without_the_right_to_read_it() {
    // Rights are those of the user that CMD runs as.
    let stage = Stage::with_daemon();
    let private = stage.program("private", "#!/bin/sh\nexit 3\n");
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(stage.run("", &[&private]).code(), 3);
    let outcome = stage.run("--user nobody", &[&private]);
    assert!(error(&outcome, 126).contains(&private), "{outcome}");
    stage.assert_forgotten();
}

#[test]
fn help_says_that_a_listener_is_a_key() {
    let outcome = Stage::alone().cli().run(&["exec", "--help"]).success();
    for words in ["open connections inside that namespace", "LISTEN_FDS", "{fd4}", "125", "128+N"] {
        assert!(outcome.stdout.contains(words), "{words}{outcome}");
    }
}
