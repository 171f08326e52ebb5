//! Paths that lead through a process. Its number is another process's when it has ended, and that is never meant.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::signal::Signal;
use redirector_tests::{
    cli::error,
    daemon::Daemon,
    dir::{Dir, unique},
    eventually::eventually,
    holder::Holder,
    netns::Netns,
    server::Server,
    topology::{POD_V4, Topology, at},
    world::World,
};

use crate::{SECOND, names::Web};

/// A process in a network namespace of its own, whose fd 3 is that.
fn process() -> Holder {
    let script = "exec 3</proc/self/ns/net; exec cat";
    Holder::start(Command::new("unshare").args(["--net", "--", "sh", "-c", script]))
}

/// A process like that with the number of one that has ended.
fn process_with(pid: u32) -> Holder {
    eventually(&format!("a process has the number {pid}"), SECOND, || {
        // Somebody else's process may come between, and be gone a moment later.
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
        let holder = process();
        if holder.pid() == pid { Ok(holder) } else { Err(holder.pid()) }
    })
}

/// A link in /run/netns, as many make it for a container's first process.
struct Name(PathBuf);

impl Name {
    fn of(pid: u32) -> Self {
        let path = PathBuf::from(format!("/run/netns/rdt-{}", unique()));
        symlink(format!("/proc/{pid}/ns/net"), &path).unwrap();
        Self(path)
    }

    fn target(&self) -> String {
        format!("netns:{}", self.0.file_name().unwrap().to_str().unwrap())
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

/// A server in the namespace of a process.
fn server(process: &Holder, name: &str) -> Server {
    let netns = Netns::at(Path::new(&format!("/proc/{}/ns/net", process.pid())));
    netns.ip("link set lo up");
    Server::inside(&netns, name, 8080)
}

#[test]
fn a_path_through_a_process_that_has_ended_never_leads_to_another_with_its_number() {
    let world = World::new();
    let tenant = process();
    let pid = tenant.pid();
    let (dir, name) = (Dir::new(), Name::of(pid));
    let (by_link, by_folder) = (dir.join("link"), dir.join("folder"));
    symlink(format!("/proc/{pid}/ns/net"), &by_link).unwrap();
    symlink(format!("/proc/{pid}"), &by_folder).unwrap();
    let targets = [
        format!("pid:{pid}"),
        format!("path:/proc/{pid}/ns/net"),
        format!("path:/proc/{pid}/task/{pid}/ns/net"),
        format!("path:/proc/{pid}/fd/3"),
        format!("path:/proc/{pid}/root/proc/{pid}/ns/net"),
        format!("path:{}", by_link.display()),
        format!("path:{}/ns/net", by_folder.display()),
        name.target(),
    ];
    let tenants = server(&tenant, "tenant");
    let ports: Vec<u16> = (80..).take(targets.len()).collect();
    for (port, target) in ports.iter().zip(&targets) {
        let there = format!("{target}/127.0.0.1:8080");
        world.steer(&format!("r{port}"), &format!("tcp:{port}"), &there);
        assert_eq!(world.answer(at(POD_V4, *port)), "tenant", "{target}");
    }
    // A destination that is found again by its name, beside them.
    let named = Topology::new();
    let text = named.pod.name();
    let first = Server::inside(&named.pod, "first", 8080);
    world.steer("named", "tcp:79", &format!("netns:{text}/127.0.0.1:8080"));
    drop((tenants, first));
    drop(tenant);
    named.pod.delete();
    let stranger = process_with(pid);
    let strangers = server(&stranger, "stranger");
    let never = || {
        for (port, target) in ports.iter().zip(&targets) {
            let answer = world.answer(at(POD_V4, *port));
            assert!(["reset", "refused"].contains(&&*answer), "{target}: {answer}");
        }
    };
    never();
    let again = Topology::around(Netns::named(&text));
    let _server = Server::inside(&again.pod, "again", 8080);
    eventually("what has a name is found again", SECOND * 2, || {
        match world.answer(at(POD_V4, 79)).as_str() {
            "again" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    // Three failures take a rule down, and from then on it is tried by the daemon.
    (0..3).for_each(|_| never());
    for port in &ports {
        eventually("the rule is down", SECOND, || {
            let rule = world.rule(&format!("r{port}"));
            if rule["state"] == "down" { Ok(()) } else { Err(rule) }
        });
    }
    assert_eq!(strangers.accepted(), 0);
}

#[test]
fn a_name_that_comes_to_lead_through_a_process_is_not_followed_there() {
    let world = World::new();
    let other = Topology::new();
    let (dir, first) = (Dir::new(), Server::inside(&other.pod, "first", 8080));
    let link = dir.join("link");
    symlink(other.pod.path(), &link).unwrap();
    let there = format!("path:{}/127.0.0.1:8080", link.display());
    world.steer("there", "tcp:80", &there);
    world.steer("beside", "tcp:82", &there);
    assert_eq!(world.answer(at(POD_V4, 80)), "first");
    let process = process();
    let servers = server(&process, "process");
    fs::remove_file(&link).unwrap();
    symlink(format!("/proc/{}/ns/net", process.pid()), &link).unwrap();
    drop(first);
    other.pod.delete();
    eventually("the rule is down", SECOND * 2, || {
        let (answer, rule) = (world.answer(at(POD_V4, 80)), world.rule("there"));
        assert!(["reset", "refused"].contains(&&*answer), "{answer}");
        if rule["state"] == "down" { Ok(()) } else { Err(rule) }
    });
    assert_eq!(servers.accepted(), 0);
    // Who names it now means this process.
    world.steer("again", "tcp:81", &there);
    world.steer("there", "tcp:80", &there);
    for port in [80, 81] {
        assert_eq!(world.answer(at(POD_V4, port)), "process");
    }
    // And no other rule that does.
    let answer = world.answer(at(POD_V4, 82));
    assert!(["reset", "refused"].contains(&&*answer), "{answer}");
}

#[test]
fn a_rule_that_follows_has_no_destination_that_is_a_process_and_no_help_recommends_such_a_path() {
    let daemon = Daemon::start();
    for to in
        ["pid:1/127.0.0.1:80", "path:/proc/1/ns/net/127.0.0.1:80", "path:/proc/self/ns/net/127.0.0.1:80"]
    {
        let attach = ["attach", "docker:web", "--follow", "--match", "tcp:80", "--to", to];
        let said = error(&daemon.cli().run(&attach), 2);
        assert!(said.contains("cannot be found again"), "{said}");
    }
    let attach = ["attach", "path:/etc/passwd", "--match", "tcp:80", "--to", "pass"];
    let outcome = daemon.cli().run(&attach);
    assert!(outcome.stderr.contains("pid:N") && !outcome.stderr.contains("/proc/"), "{outcome}");
    let help = daemon.cli().run(&["attach", "--help"]);
    assert!(!help.stdout.contains("/proc/"), "{help}");
}

#[test]
fn what_is_set_aside_is_not_tried_again_in_another_process_with_its_number() {
    let (tenant, lasting, other) = (process(), process(), Netns::new());
    let (pid, dir, name) = (tenant.pid(), Dir::new(), Name::of(tenant.pid()));
    let link = dir.join("link");
    symlink(format!("/proc/{pid}"), &link).unwrap();
    let targets = [
        format!("pid:{pid}"),
        format!("path:/proc/{pid}/fd/3"),
        format!("path:{}/ns/net", link.display()),
        name.target(),
    ];
    // Its `lo` is down, so that none of it can be made.
    let namespace = |number: usize, target: &str, to: &str| {
        let rule = |number: usize, to: &str| {
            format!("[[namespace.rule]]\nname = \"r{number}\"\nmatch = [\"tcp:{number}\"]\nto = [\"{to}\"]\n")
        };
        format!(
            "[[namespace]]\ntarget = \"{target}\"\n{}{}",
            rule(number, to),
            rule(number + 100, "original")
        )
    };
    let of_targets = targets.iter().enumerate().map(|(index, one)| namespace(80 + index, one, "reject"));
    let mut text: String = of_targets.collect();
    text += &namespace(90, &format!("pid:{}", lasting.pid()), "reject");
    // Where only the destination is a process.
    let destination = format!("{}/127.0.0.1:8080", targets[2]);
    text += &namespace(91, &other.target(), &destination);
    let path = dir.join("redirector.toml");
    fs::write(&path, text).unwrap();
    let daemon = Daemon::with(&["--config", path.to_str().unwrap()]);
    let count = |part: &str| daemon.cli().json(&["list"])[part].as_array().map(Vec::len).unwrap();
    assert_eq!([count("namespaces"), count("waiting")], [0, 6]);
    drop(tenant);
    let stranger = process_with(pid);
    let _server = server(&stranger, "stranger");
    other.ip("link set lo up");
    Netns::at(Path::new(&format!("/proc/{}/ns/net", lasting.pid()))).ip("link set lo up");
    let why = "whose number may be another process's by now";
    for target in targets.iter().chain([&other.target()]) {
        eventually("it is tried again, and is still set aside", SECOND * 8, || {
            let told = daemon.log_with(&["ERROR", "still set aside", target, why, "apply the file again"]);
            if told.is_empty() { Err(daemon.log()) } else { Ok(()) }
        });
    }
    // A process that has not ended is the one that was meant.
    let list = daemon.cli().json(&["list"]);
    assert_eq!([count("namespaces"), count("waiting")], [1, 5], "{list:#}");
    assert_eq!(list["namespaces"][0]["target"], format!("pid:{}", lasting.pid()), "{list:#}");
    // Who applies the file means who is there now.
    daemon.signal(Signal::SIGHUP);
    eventually("all of it is in force", SECOND, || {
        let now = [count("namespaces"), count("waiting")];
        if now == [3, 0] { Ok(()) } else { Err(now) }
    });
}

#[test]
fn a_rule_that_follows_a_container_goes_to_no_process_that_a_name_leads_through() {
    let (dir, process, other) = (Dir::new(), process(), Topology::new());
    let (servers, _named) = (server(&process, "process"), Server::inside(&other.pod, "named", 8080));
    let name = Name::of(process.pid());
    let (file, folder) = (dir.join("file"), dir.join("folder"));
    symlink(format!("/proc/{}/ns/net", process.pid()), &file).unwrap();
    symlink(format!("/proc/{}", process.pid()), &folder).unwrap();
    let targets =
        [format!("path:{}", file.display()), format!("path:{}/ns/net", folder.display()), name.target()];
    let net = Topology::around(Netns::of_process());
    let (_web, daemon) = Web::daemon(&dir, net.pod.pid(), &[]);
    let world = World::with(daemon, net);
    let mut text = "[[namespace]]\ntarget = \"docker:web\"\nfollow = true\n".to_owned();
    for (port, target) in (80..).zip(&targets) {
        let to = format!("{target}/127.0.0.1:8080");
        let attach = ["attach", "docker:web", "--follow", "--match", "tcp:79", "--to", &to];
        let said = error(&world.cli().run(&attach), 1);
        assert!(said.contains("a process cannot be found again"), "{said}");
        text +=
            &format!("[[namespace.rule]]\nname = \"r{port}\"\nmatch = [\"tcp:{port}\"]\nto = [\"{to}\"]\n");
    }
    let path = dir.join("file.toml");
    fs::write(&path, text).unwrap();
    world.cli().json(&["apply", path.to_str().unwrap()]);
    for port in 80..83 {
        let answer = world.answer(at(POD_V4, port));
        assert!(["reset", "refused"].contains(&&*answer), "{answer}");
        assert_eq!(world.rule(&format!("r{port}"))["state"], "down");
    }
    assert_eq!(servers.accepted(), 0);
    // What has a name again is found.
    fs::remove_file(&file).unwrap();
    symlink(other.pod.path(), &file).unwrap();
    eventually("the rule is up", SECOND * 2, || match world.answer(at(POD_V4, 80)).as_str() {
        "named" => Ok(()),
        other => Err(other.to_owned()),
    });
}
