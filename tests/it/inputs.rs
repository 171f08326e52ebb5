//! Wrong input: the exit code, one line that names what is wrong, and nothing changed.

use std::{
    fs,
    net::Shutdown,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::Path,
    process::Command,
};

use redirector_tests::{
    cli::{Cli, error},
    command::{self, must},
    daemon::{Daemon, binary, binary_for_everybody},
    dir::Dir,
    topology::{POD_V4, at},
    world::World,
};
use socket2::SockRef;

/// An attach of the pod, but for one thing.
const ATTACH: [(&str, i32, &str); 68] = [
    // Targets that are none.
    ("nowhere --match tcp:80 --to reject", 2, "nowhere"),
    ("netns: --match tcp:80 --to reject", 2, "netns:"),
    ("netns:a/b --match tcp:80 --to reject", 2, "netns:a/b"),
    ("netns:.. --match tcp:80 --to reject", 2, "netns:.."),
    ("path:run/netns/x --match tcp:80 --to reject", 2, "run/netns/x"),
    ("pid:0 --match tcp:80 --to reject", 2, "pid:0"),
    ("pid:99999999999 --match tcp:80 --to reject", 2, "99999999999"),
    ("pid:one --match tcp:80 --to reject", 2, "one"),
    ("self:1 --match tcp:80 --to reject", 2, "self:1"),
    ("cookie:0 --match tcp:80 --to reject", 2, "cookie:0"),
    ("docker:we/b --match tcp:80 --to reject", 2, "we/b"),
    // Targets that are not there.
    ("netns:rdt-none --match tcp:80 --to reject", 3, "rdt-none"),
    ("path:{dir}/none --match tcp:80 --to reject", 3, "{dir}/none"),
    ("path:{dir}/file/none --match tcp:80 --to reject", 3, "{dir}/file/none"),
    ("pid:{dead} --match tcp:80 --to reject", 3, "{dead}"),
    ("cookie:18446744073709551615 --match tcp:80 --to reject", 3, "18446744073709551615"),
    // Targets that are something else.
    ("path:{dir}/file --match tcp:80 --to reject", 1, "{dir}/file"),
    ("path:{dir}/fifo --match tcp:80 --to reject", 1, "{dir}/fifo"),
    ("path:{dir}/socket --match tcp:80 --to reject", 1, "{dir}/socket"),
    ("path:{dir} --match tcp:80 --to reject", 1, "{dir}"),
    ("path:/dev/null --match tcp:80 --to reject", 1, "/dev/null"),
    ("path:/proc/self/ns/mnt --match tcp:80 --to reject", 1, "/proc/self/ns/mnt"),
    ("path:/proc/self/ns/user --match tcp:80 --to reject", 1, "/proc/self/ns/user"),
    // The host, by whatever name.
    ("pid:1 --match tcp:80 --to reject", 1, "pid:1"),
    ("path:/proc/1/ns/net --match tcp:80 --to reject", 1, "/proc/1/ns/net"),
    ("self --match tcp:80 --to reject", 1, "self"),
    // Matches.
    ("{pod} --match 80 --to reject", 2, "tcp:80"),
    ("{pod} --match sctp:53 --to reject", 2, "sctp"),
    ("{pod} --match udp:53 --to 127.0.0.1:53", 2, "UDP cannot be taken to"),
    ("{pod} --match any:53 --to original", 2, "UDP cannot be taken to"),
    ("{pod} --match tcp:0 --to reject", 2, "tcp:0"),
    ("{pod} --match tcp:65536 --to reject", 2, "65536"),
    ("{pod} --match tcp:90-80 --to reject", 2, "tcp:80-90"),
    ("{pod} --match tcp:80,,81 --to reject", 2, "80,,81"),
    ("{pod} --match tcp:10.0.0.1 --to reject", 2, "10.0.0.1"),
    ("{pod} --match tcp:10.0.0.1/8:80 --to reject", 2, "10.0.0.0/8"),
    ("{pod} --match tcp:fd00::1:80 --to reject", 2, "fd00::1"),
    ("{pod} --match tcp:[::ffff:10.0.0.1]:80 --to reject", 2, "10.0.0.1"),
    ("{pod} --match tcp:80 --match tcp:80 --to reject", 2, "tcp:80"),
    ("{pod} --to reject", 2, "--match"),
    // Destinations.
    ("{pod} --match tcp:80", 2, "--to"),
    ("{pod} --match tcp:80 --to nowhere", 2, "nowhere"),
    ("{pod} --match tcp:80 --to 127.0.0.1", 2, "127.0.0.1"),
    ("{pod} --match tcp:80 --to 127.0.0.1:0", 2, "127.0.0.1:0"),
    ("{pod} --match tcp:80 --to 0.0.0.0:80", 2, "0.0.0.0"),
    ("{pod} --match tcp:80 --to ::1:80", 2, "::1"),
    ("{pod} --match tcp:80 --to docker:80", 2, "docker"),
    ("{pod} --match tcp:80 --to unix:run/x.sock", 2, "run/x.sock"),
    ("{pod} --match tcp:80 --to reject --to pass", 2, "pass"),
    // Options.
    ("{pod} --match tcp:80 --to reject --name -x", 2, "-x"),
    ("{pod} --match tcp:80 --to reject --name a/b", 2, "a/b"),
    ("{pod} --match tcp:80 --to reject --connect-timeout 0s", 2, "0s"),
    ("{pod} --match tcp:80 --to reject --idle-timeout soon", 2, "soon"),
    ("{pod} --match tcp:80 --to reject --idle-timeout 25days", 2, "25days"),
    ("{pod} --match tcp:80 --to reject --balance random", 2, "--balance"),
    // Sources, exceptions, priorities.
    ("{pod} --match tcp:80 --to reject --from 10.0.0.1/8", 2, "10.0.0.0/8"),
    ("{pod} --match tcp:80 --to reject --from fd00::1/8", 2, "fd00::/8"),
    ("{pod} --match tcp:80 --to reject --from ::ffff:10.0.0.1", 2, "10.0.0.1"),
    ("{pod} --match tcp:80 --to reject --from client", 2, "client"),
    ("{pod} --match tcp:80 --to reject --from 10.0.0.1 --from 10.0.0.1/32", 2, "there twice"),
    ("{pod} --match tcp:10.0.0.1:80 --to reject --from fd00::/8", 2, "no source is"),
    ("{pod} --match tcp:80 --to reject --except 80", 2, "tcp:80"),
    ("{pod} --match tcp:80 --to reject --except tcp:81", 2, "nothing in common"),
    ("{pod} --match tcp:10.0.0.1:80 --to reject --except tcp:10.0.0.2:80", 2, "nothing in common"),
    ("{pod} --match tcp:80 --to reject --except tcp:80", 2, "nothing is left"),
    ("{pod} --match tcp:80 --to reject --priority 2147483648", 2, "2147483648"),
    ("{pod} --match tcp:80 --to reject --priority high", 2, "high"),
    ("{pod} --match tcp:80 --to reject --priority 1 --priority 2", 2, "--priority"),
];

/// Whole command lines.
const COMMANDS: [(&str, i32, &str); 28] = [
    ("", 2, ""),
    ("explain {pod} x", 2, "flow `x`"),
    ("explain {pod}", 2, "FLOW"),
    ("explain nowhere --shadowed", 2, "nowhere"),
    ("verify {pod}", 2, "verify"),
    ("attach", 2, "TARGET"),
    ("attach {pod} extra --match tcp:80 --to reject", 2, "extra"),
    ("detach", 2, "TARGET"),
    ("detach {pod} --rule none", 3, "none"),
    ("detach {pod} --rule a/b", 2, "a/b"),
    ("detach {client}", 3, "{client}"),
    ("detach netns:rdt-none", 3, "rdt-none"),
    ("detach nowhere", 2, "nowhere"),
    ("list {client}", 3, "{client}"),
    ("list netns:rdt-none", 3, "rdt-none"),
    ("list nowhere", 2, "nowhere"),
    ("list {pod} {pod}", 2, "{pod}"),
    ("list --colour", 2, "--colour"),
    ("doctor {pod}", 2, "{pod}"),
    ("doctor --fix", 2, "--fix"),
    ("cleanup {pod} extra", 2, "extra"),
    ("cleanup nowhere", 2, "nowhere"),
    ("cleanup netns:rdt-none", 3, "rdt-none"),
    ("cleanup path:{dir}/file", 1, "{dir}/file"),
    ("completions", 2, "SHELL"),
    ("completions tcsh", 2, "tcsh"),
    ("man", 2, "DIR"),
    ("man {dir}/file", 1, "{dir}/file"),
];

#[test]
fn wrong_input_is_refused_by_name_and_changes_nothing() {
    let world = World::new();
    world.steer("http", "tcp:80", "reject");
    let dir = Dir::new();
    fs::write(dir.join("file"), "").unwrap();
    let _socket = UnixListener::bind(dir.join("socket")).unwrap();
    must(Command::new("mkfifo").arg(dir.join("fifo")));
    let dead = {
        let mut child = command::spawn(&mut Command::new("true"));
        child.wait().unwrap();
        child.id().to_string()
    };
    let fill = |text: &str| {
        text.replace("{pod}", &world.target())
            .replace("{client}", &world.net.client.target())
            .replace("{dir}", &dir.path().display().to_string())
            .replace("{dead}", &dead)
    };
    let before = world.list();
    let fds = world.daemon.fds_at_rest();
    let attaches = ATTACH.map(|(line, code, naming)| (format!("attach {line}"), code, naming));
    let commands = COMMANDS.map(|(line, code, naming)| (line.to_owned(), code, naming));
    let mut wrong = Vec::new();
    for (line, code, naming) in attaches.into_iter().chain(commands) {
        let (line, naming) = (fill(&line), fill(naming));
        let words: Vec<_> = line.split_whitespace().collect();
        let outcome = world.cli().run(&words);
        // All of them, so that one does not hide the others.
        let said = std::panic::catch_unwind(|| error(&outcome, code));
        if !said.is_ok_and(|said| said.contains(&naming)) {
            wrong.push(format!("expected exit {code} and `{naming}`{outcome}"));
        }
        assert_eq!(world.list(), before, "changed by `{line}`");
    }
    assert!(wrong.is_empty(), "{} wrong: {}", wrong.len(), wrong.join("\n"));
    world.daemon.eventually_has_fds(fds);
    assert_eq!(world.answer(at(POD_V4, 80)), "refused");
}

#[test]
fn the_hosts_namespace_is_refused_with_a_hint() {
    let world = World::new();
    for target in ["self", "path:/proc/self/ns/net", &format!("pid:{}", std::process::id())] {
        let outcome = world.cli().run(&["attach", target, "--match", "tcp:80", "--to", "pass"]);
        error(&outcome, 1);
        assert!(
            outcome.stderr.lines().any(|line| line.starts_with("hint: ") && line.contains("--host-netns")),
            "{outcome}"
        );
    }
}

#[test]
fn help_and_version_are_no_errors_and_help_shows_only_what_there_is() {
    let cli = Cli::new(Path::new("/nowhere"));
    for words in [&["--help"][..], &["help"], &["--version"], &["attach", "--help"], &["help", "run"]] {
        let outcome = cli.run(words).success();
        assert!(!outcome.stdout.is_empty() && outcome.stderr.is_empty(), "{outcome}");
    }
    let help = cli.run(&["--help"]).stdout;
    for command in [
        "run",
        "attach",
        "detach",
        "list",
        "explain",
        "check",
        "apply",
        "export",
        "exec",
        "doctor",
        "cleanup",
        "completions",
        "man",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
    }
    for later in ["verify", "metrics"] {
        assert!(!help.contains(later), "`{later}` does not exist yet: {help}");
    }
}

#[test]
fn a_daemon_that_cannot_be_reached_is_exit_4_and_named() {
    let dir = Dir::new();
    let file = dir.join("file");
    fs::write(&file, "").unwrap();
    let stale = dir.join("stale");
    leave_stale(&stale);
    let long = dir.join(&"x".repeat(120));
    for socket in [&dir.join("none"), &dir.join("no/such/folder"), &file, &stale, &long, dir.path()] {
        let cli = Cli::new(socket);
        for words in
            [&["list"][..], &["detach", "self"], &["attach", "self", "--match", "tcp:80", "--to", "pass"]]
        {
            let outcome = cli.run(words);
            assert!(error(&outcome, 4).contains(&socket.display().to_string()), "{outcome}");
        }
    }
    // A mistake is told before nobody is there.
    error(&Cli::new(&stale).run(&["attach", "nowhere", "--match", "tcp:80", "--to", "pass"]), 2);
}

#[test]
fn the_option_names_the_socket_before_the_environment_does() {
    let world = World::new();
    let socket = world.daemon.socket().display().to_string();
    let elsewhere = Cli::new(Path::new("/nowhere/control.sock"));
    elsewhere.run(&["--socket", &socket, "list"]).success();
    elsewhere.run(&["list", "--socket", &socket]).success();
}

/// A command that another user runs, without any privilege.
fn as_nobody(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(program);
    command
}

#[test]
fn another_user_is_refused_by_the_socket() {
    let world = World::new();
    let dir = Dir::new();
    let program = binary_for_everybody(&dir);
    let mut command = as_nobody(&program);
    let outcome = command::run(command.arg("list").env("REDIRECTOR_SOCKET", world.daemon.socket()));
    assert!(error(&outcome, 4).contains("ermission"), "must say that it is a matter of permission{outcome}");
}

#[test]
fn a_daemon_without_privileges_does_not_start_and_says_which_are_missing() {
    let dir = Dir::new();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let program = binary_for_everybody(&dir);
    let socket = dir.join("control.sock");
    // Nobody at all, root with one capability less, and root in a user namespace of its own.
    let without = |capability: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", capability, "--inh-caps", capability, "--"]).arg(&program);
        command
    };
    let mut other = Command::new("unshare");
    other.args(["--user", "--map-root-user", "--"]).arg(&program);
    let all = "CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN are missing";
    for (mut command, missing) in [
        (as_nobody(&program), all),
        (without("-cap_12"), "CAP_NET_ADMIN is missing"),
        (without("-cap_21"), "CAP_SYS_ADMIN is missing"),
        (other, all),
    ] {
        let outcome = command::run(command.arg("run").arg("--socket").arg(&socket));
        assert!(error(&outcome, 1).contains(missing), "{outcome}");
        assert!(outcome.stderr.contains("hint: run it as root"), "{outcome}");
        assert!(!socket.exists(), "it must not look as if there were a daemon");
    }
    // The daemon of a program is one as well.
    let words = ["exec", "self", "--match", "tcp:80", "--", "true"];
    let outcome = command::run(as_nobody(&program).args(words).env("REDIRECTOR_SOCKET", &socket));
    assert!(error(&outcome, 125).contains(all), "{outcome}");
    let outcome = command::run(as_nobody(&program).arg("doctor"));
    let first = outcome.stdout.lines().next().unwrap_or_default();
    assert!(first.starts_with("not root") && first.contains("CAP_BPF"), "{outcome}");
}

/// A socket file without anybody behind it.
fn leave_stale(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    // Closing alone is not enough: programs that other tests start have it too, between fork and exec.
    SockRef::from(&listener).shutdown(Shutdown::Both).unwrap();
}

/// `redirector run`, which must end by itself.
#[track_caller]
fn run(dir: &Dir, socket: &str) -> command::Outcome {
    command::run(Command::new(binary()).args(["run", "--socket", socket]).current_dir(dir.path()))
}

#[test]
fn a_control_socket_that_cannot_be_had_is_refused_by_name() {
    let dir = Dir::new();
    fs::write(dir.join("file"), "precious").unwrap();
    std::os::unix::fs::symlink(dir.join("file"), dir.join("link")).unwrap();
    fs::create_dir(dir.join("folder")).unwrap();
    let inside = dir.path().display().to_string();
    for socket in [
        format!("{inside}/file"),
        format!("{inside}/link"),
        format!("{inside}/folder"),
        format!("{inside}/file/control.sock"),
        format!("{inside}/no/such/control.sock"),
        format!("{inside}/{}", "x".repeat(120)),
        "no/such/control.sock".to_owned(),
        "/proc/control.sock".to_owned(),
    ] {
        let outcome = run(&dir, &socket);
        assert!(error(&outcome, 1).contains(&socket), "{outcome}");
    }
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "precious");
    assert!(dir.join("folder").is_dir());
    for (option, naming) in [
        ("--drain-timeout=soon", "soon"),
        ("--drain-timeout=-1s", "-1s"),
        ("--max-connections=0", "0"),
        ("--max-connections=many", "many"),
        ("--max-connections=-1", "-1"),
        ("--metrics=127.0.0.1:9", "--metrics"),
    ] {
        let outcome = command::run(Command::new(binary()).args(["run", option]).current_dir(dir.path()));
        assert!(error(&outcome, 2).contains(naming), "{outcome}");
    }
}

#[test]
fn a_second_daemon_on_the_same_socket_is_refused_and_the_first_goes_on() {
    let world = World::new();
    world.steer("http", "tcp:80", "reject");
    let socket = world.daemon.socket().display().to_string();
    for _ in 0..2 {
        let outcome = run(&Dir::new(), &socket);
        assert!(error(&outcome, 1).contains(&socket), "{outcome}");
    }
    assert_eq!(world.pod()["rules"][0]["name"], "http");
    assert_eq!(world.answer(at(POD_V4, 80)), "refused");
}

#[test]
fn a_second_daemon_may_have_its_sockets_beside_those_of_the_first() {
    let first = Daemon::start();
    let (dir, net) = (first.socket().parent().unwrap(), redirector_tests::topology::Topology::new());
    for name in ["second.sock", "third"] {
        let socket = dir.join(name);
        let handoff = dir.join(format!("{}.handoff.sock", name.trim_end_matches(".sock")));
        let second = Daemon::at(&socket, Command::new(binary()).arg("run"), &[]);
        assert!(handoff.exists() && dir.join("handoff.sock").exists(), "each has its own");
        // A program gets its listeners from the daemon that is named.
        let words = ["exec", &net.pod.target(), "--match", "tcp:80", "--name", "own", "--", "sh", "-c"];
        let list = format!("{} list", binary().display());
        let words: Vec<_> = words.into_iter().chain([&*list]).collect();
        let outcome = second.cli().run(&words).success();
        assert!(outcome.stdout.contains("own"), "{outcome}");
        assert!(first.cli().json(&["list"])["namespaces"].as_array().unwrap().is_empty());
        // What a killed one leaves is removed, and what the first has is not.
        let mut second = second;
        second.kill();
        let outcome = second.cli().run(&["cleanup"]).success();
        for file in [&socket, &handoff] {
            assert!(outcome.stdout.contains(&file.display().to_string()) && !file.exists(), "{outcome}");
        }
        assert!(dir.join("handoff.sock").exists());
    }
    first.cli().json(&["list"]);
}

#[test]
fn a_stale_socket_is_replaced_and_removed_in_the_end() {
    let dir = Dir::new();
    let stale = dir.join("stale.sock");
    leave_stale(&stale);
    let daemon = Daemon::at(&stale, Command::new(binary()).arg("run"), &[]);
    daemon.cli().json(&["list"]);
    drop(daemon);
    assert!(!stale.exists());
}
