//! A log that cannot be written, and output that nobody reads: nothing depends on either.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _},
    os::unix::net::UnixDatagram,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

use nix::sys::signal::Signal;
use redirector_tests::{
    HANG,
    client::Conversation,
    command::{must, spawn},
    daemon::{Daemon, binary},
    dir::Dir,
    eventually::eventually,
    exec::{ACTIVATED, Exec, PYTHON, Stage, code},
    log::Log,
    server::Server,
    topology::{POD_V4, POD_V6, Topology, at},
    world::{World, count},
};

use super::SECOND;

/// Attach, change under traffic, ends, death and drain, with a log that nobody reads.
#[track_caller]
fn assert_lives(daemon: Daemon) -> u64 {
    let (mut world, proxy) = (World::with(daemon, Topology::new()), Server::here("proxy"));
    let _app = Server::inside(&world.net.pod, "app", 80);
    let answer = world.steer("http", "tcp:80", &proxy.destination());
    assert_eq!(answer["result"], "attached", "{answer:#}");
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, 80)), "proxy");
    }
    let other = Server::here("other");
    world.under_load(&["proxy", "other"], || {
        for change in 0..20 {
            let server = [&other, &proxy][change % 2];
            let answer = world.steer("http", "tcp:80", &server.destination());
            assert_eq!(answer["result"], "changed", "{answer:#}");
        }
    });
    world.open(at(POD_V4, 80)).0.reset();
    let (mut ends, _) = world.open(at(POD_V6, 80));
    ends.echo("as ever").unwrap();
    ends.finish().unwrap();
    // Something to say at least: there is no file.
    world.daemon.signal(Signal::SIGHUP);

    let second = Topology::new();
    world.cli().json(&["attach", &second.pod.target(), "--match", "tcp:80", "--to", &proxy.destination()]);
    let dies = Conversation::open(&second.client, at(POD_V4, 80)).unwrap();
    second.pod.delete();
    eventually("the namespace dies and is forgotten", 2 * SECOND, || {
        let list = world.list();
        let is_gone = !second.is_joined() && list["namespaces"].as_array().unwrap().len() == 1;
        if is_gone { Ok(()) } else { Err(list) }
    });
    drop(dies);

    let lost = count(&world.list(), "/daemon/log_lines_lost");
    let mut open: Vec<_> = [POD_V4, POD_V6].map(|pod| world.open(at(pod, 80)).0).into();
    world.daemon.signal(Signal::SIGTERM);
    eventually("new connections are the application's", SECOND, || {
        let now = world.answer(at(POD_V4, 80));
        if now == "app" { Ok(()) } else { Err(now) }
    });
    for conversation in &mut open {
        conversation.echo("still there").unwrap();
    }
    for conversation in open {
        conversation.finish().unwrap();
    }
    let status = world.daemon.wait();
    assert!(status.success(), "must drain and exit with 0: {status}");
    lost
}

#[test]
fn a_daemon_whose_logs_reader_is_gone_does_everything_and_counts_lines() {
    assert!(assert_lives(Daemon::logging_to(Log::closed(), &[])) > 0);
}

#[test]
fn a_daemon_whose_log_nobody_reads_does_everything() {
    assert_lives(Daemon::logging_to(Log::unread(), &[]));
}

#[test]
fn a_daemon_whose_log_nobody_reads_and_somebody_made_non_blocking_does_everything() {
    assert_lives(Daemon::logging_to(Log::unread_and_non_blocking(), &["--log-format", "json"]));
}

#[test]
fn a_daemon_whose_log_is_on_a_full_disk_does_everything_and_counts_lines() {
    assert!(assert_lives(Daemon::logging_to(Log::full(), &["--log-format", "json"])) > 0);
}

#[test]
fn a_daemon_whose_terminal_is_closed_does_everything_and_counts_lines() {
    assert!(assert_lives(Daemon::logging_to(Log::closed_terminal(), &[])) > 0);
}

#[test]
fn a_daemon_that_is_started_without_stderr_does_everything() {
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" 2>&-", "sh"]).arg(binary()).arg("run");
    assert_lives(Daemon::spawn(&mut command, &[]));
}

#[test]
fn a_daemon_whose_supervisor_does_not_listen_reads_its_file_again_and_ends() {
    let dir = Dir::new();
    let path = dir.join("redirector.toml");
    fs::write(&path, "").unwrap();
    let mut daemon = Daemon::with_log_read(&["--config", path.to_str().unwrap()]);
    let full = UnixDatagram::unbound().unwrap();
    full.connect(daemon.dir().join("notify.sock")).unwrap();
    full.set_nonblocking(true).unwrap();
    while full.send(b"STATUS=full").is_ok() {}
    daemon.signal(Signal::SIGHUP);
    eventually("the file is applied", SECOND, || {
        let log = daemon.log();
        if log.iter().any(|line| line.contains("the file is applied")) { Ok(()) } else { Err(log) }
    });
    daemon.stop();
}

/// A file with many problems, each of which is a line of the log whenever it is read.
fn problems(lines: usize) -> String {
    let long = "x".repeat(1000);
    let rules = (0..lines).map(|number| format!("[[namespace.rule]]\nname = \"{number}-{long}\"\n"));
    format!("[[namespace]]\ntarget = \"netns:none\"\n{}", rules.collect::<String>())
}

/// How many lines these say are lost.
fn said_lost(lines: &[String]) -> u64 {
    let said = lines.iter().filter(|line| line.contains("log lines lost"));
    said.map(|line| {
        let number = line.rsplit("lost=").next().and_then(|rest| rest.split_whitespace().next());
        number.and_then(|number| number.parse::<u64>().ok()).unwrap_or_else(|| panic!("no number: {line}"))
    })
    .sum()
}

#[test]
fn lines_that_found_no_place_are_counted_and_said_in_the_log_when_somebody_reads_again() {
    let dir = Dir::new();
    let path = dir.join("redirector.toml");
    fs::write(&path, "").unwrap();
    let mut daemon = Daemon::logging_to(Log::unread(), &["--config", path.to_str().unwrap()]);
    let memory = daemon.anonymous_kib();
    fs::write(&path, problems(2000)).unwrap();
    let lost = eventually("lines are lost", 2 * SECOND, || {
        daemon.signal(Signal::SIGHUP);
        let lost = count(&daemon.cli().json(&["list"]), "/daemon/log_lines_lost");
        if lost > 0 { Ok(lost) } else { Err("none is lost") }
    });
    let grown = daemon.anonymous_kib() - memory;
    assert!(grown < 64 << 10, "what waits to be written takes {grown} KiB");
    let text = daemon.cli().run(&["list"]).success().stdout;
    assert!(text.contains("lines of the daemon's log are lost"), "{text}");

    let reader = daemon.elsewhere().unwrap().reader();
    let (sender, lines) = mpsc::channel();
    let reading = thread::spawn(move || {
        BufReader::new(reader).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
    });
    let mut said = 0;
    while said < lost {
        said += said_lost(&[lines.recv_timeout(HANG).expect("a line")]);
    }
    // From now on the log is whole again.
    daemon.stop();
    daemon.forget_log();
    reading.join().unwrap();
    assert!(lines.try_iter().any(|line| line.contains("stopping")));
}

/// A file system of 64 KiB.
struct SmallDisk(Dir);

impl SmallDisk {
    fn new() -> Self {
        let dir = Dir::new();
        must(Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(dir.path()));
        Self(dir)
    }

    /// Takes what is left of it.
    fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).unwrap();
        let error = io::copy(&mut io::repeat(b'x'), &mut file).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(self.0.path()).status());
    }
}

#[test]
fn a_disk_that_was_full_gets_whole_lines_again_and_how_many_are_missing() {
    let disk = SmallDisk::new();
    let path = disk.0.join("log");
    let file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    disk.fill();
    let mut daemon = Daemon::logging_to(Log::file(file), &[]);
    let lost = eventually("lines are lost", 2 * SECOND, || {
        daemon.signal(Signal::SIGHUP);
        let lost = count(&daemon.cli().json(&["list"]), "/daemon/log_lines_lost");
        if lost > 0 { Ok(lost) } else { Err("none is lost") }
    });
    fs::remove_file(disk.0.join("filler")).unwrap();
    let lines = || -> Vec<String> {
        let text = fs::read_to_string(&path).unwrap();
        text.lines().map(str::to_owned).collect()
    };
    // Although nothing is logged any more.
    eventually("it is said that lines are lost", 4 * SECOND, || {
        if said_lost(&lines()) >= lost { Ok(()) } else { Err(lines()) }
    });
    daemon.stop();
    let all = lines();
    let notice = all.iter().position(|line| line.contains("log lines lost")).unwrap();
    for line in &all[notice..] {
        assert!(line.starts_with("20") && line.contains("redirector"), "a whole line: {line:?}");
    }
}

/// Runs a command to its end: its exit code, and what it says on stderr.
#[track_caller]
fn end_of(command: &mut Command) -> (i32, String) {
    let mut child = spawn(command.stdin(Stdio::null()));
    let status = eventually("it ends", 2 * SECOND, || child.try_wait().unwrap().ok_or("it runs"));
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said).unwrap();
    }
    (code(status), said)
}

#[test]
fn a_command_whose_output_nobody_wants_ends_as_if_it_were_read_and_one_that_cannot_write_fails() {
    let world = World::new();
    world.steer("http", "tcp:80", "reject");
    let target = world.target();
    let dir = Dir::new();
    let file = dir.join("file.toml");
    let other = format!(
        "[[namespace]]\ntarget = \"{target}\"\n[[namespace.rule]]\nname = \"new\"\nmatch = [\"tcp:81\"]\nto = [\"reject\"]\n"
    );
    fs::write(&file, other).unwrap();
    let (file, pages) = (file.to_str().unwrap(), dir.join("pages"));
    let pages = pages.to_str().unwrap();
    let doctor = world.cli().run(&["doctor"]).code();
    let commands: &[(&[&str], i32)] = &[
        (&["list"], 0),
        (&["list", "--json"], 0),
        (&["list", "--watch=10ms"], 0),
        (&["list", "--watch=10ms", "--json"], 0),
        (&["attach", &target, "--name", "http", "--match", "tcp:80", "--to", "reject"], 0),
        (&["attach", &target, "--name", "more", "--match", "tcp:82", "--to", "reject", "--json"], 0),
        (&["explain", &target, "tcp 10.77.0.2:40000 -> 10.77.0.1:80"], 0),
        (&["explain", &target, "tcp 10.77.0.2:40000 -> 10.77.0.1:80", "--json"], 0),
        (&["explain", &target, "--shadowed"], 0),
        (&["explain", &target, "--shadowed", "--json"], 0),
        (&["apply", "--dry-run", file], 5),
        (&["apply", "--dry-run", "--json", file], 5),
        (&["check", file], 0),
        (&["check", "--json", file], 0),
        (&["check", "--schema"], 0),
        (&["export"], 0),
        (&["export", "--json"], 0),
        (&["doctor"], doctor),
        (&["doctor", "--json"], doctor),
        (&["completions", "bash"], 0),
        (&["completions", "zsh"], 0),
        (&["completions", "fish"], 0),
        (&["man", pages], 0),
        (&["help"], 0),
        (&["help", "exec"], 0),
        (&["--help"], 0),
        (&["--version"], 0),
        (&["cleanup"], 0),
        (&["detach", &target, "--rule", "more"], 0),
    ];
    for (words, expected) in commands {
        // Wrong words would pass everywhere.
        if !words.contains(&"--watch=10ms") && !words.contains(&"more") {
            assert_eq!(world.cli().run(words).code(), *expected, "{words:?}");
        }
        let to = |log: &Log| end_of(world.cli().command(words).stdout(log.stderr()).stderr(Stdio::piped()));
        let (code, said) = to(&Log::closed());
        assert_eq!(code, *expected, "{words:?}: {said}");
        assert!(!said.contains("panicked") && !said.contains("Broken pipe"), "{words:?}: {said}");
        if words.contains(&"detach") {
            continue;
        }
        let (code, said) = to(&Log::full());
        assert_eq!(code, 1, "{words:?}: {said}");
        assert!(said.contains("error: ") && said.contains("No space left"), "{words:?}: {said}");
        assert!(!said.contains("panicked"), "{words:?}: {said}");
    }
}

#[test]
fn an_exit_code_does_not_depend_on_whether_the_error_can_be_said() {
    let world = World::new();
    let target = world.target();
    let dir = Dir::new();
    let bad = dir.join("bad.toml");
    fs::write(&bad, problems(3)).unwrap();
    let bad = bad.to_str().unwrap();
    let commands: &[(&[&str], i32)] = &[
        (&["check", bad], 2),
        (&["check", "--json", bad], 2),
        (&["apply", bad], 2),
        (&["run", "--config", bad], 2),
        (&["list", "netns:rdt-none"], 3),
        (&["attach", &target, "--match", "tcp:80", "--to", "127.0.0.1:1"], 0),
        (&["--socket", "/nonexistent/socket", "list"], 4),
        (&["nonsense"], 2),
        (&["exec", "netns:rdt-none", "--match", "tcp:80", "--", "true"], 125),
        (&["exec", &target, "--match", "tcp:81", "--", "/nonexistent/program"], 127),
    ];
    for (words, expected) in commands {
        for log in [Log::closed(), Log::full(), Log::closed_terminal()] {
            let (code, _) = end_of(world.cli().command(words).stdout(Stdio::null()).stderr(log.stderr()));
            assert_eq!(code, *expected, "{words:?}, stderr {log:?}");
        }
    }
}

#[test]
fn exec_serves_whoever_reads_its_stderr_and_a_failing_one_ends() {
    for stage in Stage::both() {
        for log in [Log::closed, Log::unread, Log::full, Log::closed_terminal] {
            let script = stage.program("activated.py", ACTIVATED);
            let log = log();
            let mut exec = stage.exec("--match tcp:80", &[PYTHON, &script, "cmd"]);
            let mut child = spawn(exec.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log.stderr()));
            stage.eventually_answers("cmd");
            // Its standard input is closed for that, which ends it.
            assert_eq!(code(child.wait().unwrap()), 0);
            stage.assert_forgotten();
            // Its own error gets nowhere, and nobody waits for that.
            let mut exec = stage.exec("--match tcp:80", &["/nonexistent/program"]);
            assert_eq!(end_of(exec.stdout(Stdio::null()).stderr(log.stderr())).0, 127);
            stage.assert_forgotten();
        }
    }
}

#[test]
fn cmd_is_ended_by_a_broken_pipe_as_a_shell_would_have_it() {
    for stage in Stage::both() {
        let cmd = Exec::start(&mut stage.exec("--match tcp:80", &["cat", "/proc/self/status"]));
        let ignored = loop {
            let line = cmd.line();
            if let Some(set) = line.strip_prefix("SigIgn:") {
                break u64::from_str_radix(set.trim(), 16).unwrap();
            }
        };
        assert_eq!(ignored & 1 << (Signal::SIGPIPE as u64 - 1), 0, "SigIgn: {ignored:x}");
    }
}
