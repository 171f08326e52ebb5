//! `--to unix:` and the sockets by which redirector is commanded: no client gets there.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use redirector_tests::{
    cli::error,
    command::must,
    daemon::Daemon,
    dir::Dir,
    eventually::eventually,
    server::Server,
    topology::{POD_V4, at},
    world::{World, count},
};

use crate::SECOND;

/// What is mounted on a file, for as long as this is there.
struct Mounted(PathBuf);

impl Mounted {
    fn on(path: &Path, what: &Path) -> Self {
        fs::write(path, "").unwrap();
        must(std::process::Command::new("mount").arg("--bind").arg(what).arg(path));
        Self(path.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        must(std::process::Command::new("umount").arg(&self.0));
    }
}

/// Every way to a socket, of which only the last is by its own name.
fn ways(socket: &Path, dir: &Dir) -> (Vec<PathBuf>, Mounted) {
    let name = socket.file_name().unwrap().to_str().unwrap();
    let beside = |kind: &str| dir.join(&format!("{kind}-{name}"));
    let (hard, soft, bound) = (beside("hard"), beside("soft"), beside("bound"));
    // On the same file system.
    fs::hard_link(socket, &hard).unwrap();
    symlink(socket, &soft).unwrap();
    let mounted = Mounted::on(&bound, socket);
    let through = PathBuf::from(format!("/proc/{}/root{}", std::process::id(), socket.display()));
    (vec![hard, soft, bound, through, socket.to_owned()], mounted)
}

fn handoff(daemon: &Daemon) -> PathBuf {
    daemon.dir().join("handoff.sock")
}

#[test]
fn a_rule_to_a_socket_of_the_daemon_is_refused_by_whatever_path() {
    let world = World::new();
    let (target, dir) = (world.target(), Dir::new());
    for socket in [world.daemon.socket().to_owned(), handoff(&world.daemon)] {
        let (ways, _mounted) = ways(&socket, &dir);
        for way in &ways {
            let to = format!("unix:{}", way.display());
            let outcome = world.cli().run(&["attach", &target, "--match", "tcp:80", "--to", &to]);
            let said = error(&outcome, 1);
            assert!(said.contains(&to) && said.contains("control socket"), "{said}");
            let file = dir.join("file.toml");
            let rule = format!("[[namespace.rule]]\nmatch = [\"tcp:80\"]\nto = [\"{to}\"]\n");
            fs::write(&file, format!("[[namespace]]\ntarget = \"{target}\"\n{rule}")).unwrap();
            let outcome = world.cli().run(&["apply", &file.display().to_string()]);
            assert!(outcome.code() == 1 && outcome.stderr.contains("control socket"), "{outcome}");
        }
    }
    assert_eq!(world.list()["namespaces"], serde_json::json!([]));
}

#[test]
fn a_path_that_comes_to_lead_to_a_control_socket_is_not_connected_to() {
    let world = World::new();
    let (dir, other, aside) = (Dir::new(), Daemon::start(), [Dir::new(), Dir::new()]);
    let (real, path) = (dir.join("real"), dir.join("path"));
    let _server = Server::unix(&real, "server");
    let lead_to = |socket: &Path| {
        let next = dir.join("next");
        symlink(socket, &next).unwrap();
        fs::rename(&next, &path).unwrap();
    };
    lead_to(&real);
    world.steer("unix", "tcp:80", &format!("unix:{}", path.display()));
    assert_eq!(world.answer(at(POD_V4, 80)), "server");
    let mut failed = 0;
    // Its own, and those of another daemon, which are known by who listens there.
    for (socket, aside) in [world.daemon.socket(), other.socket()].into_iter().zip(&aside) {
        let (ways, _mounted) = ways(socket, aside);
        for way in &ways {
            lead_to(way);
            assert!(["reset", "refused"].contains(&&*world.answer(at(POD_V4, 80))), "{}", way.display());
            eventually("the rule is up or down", SECOND, || {
                let now = count(&world.pod(), "/connections/failed/own_socket");
                let is_down = world.rule("unix")["state"] == "down";
                if now > failed || is_down {
                    failed = now;
                    Ok(())
                } else {
                    Err(now)
                }
            });
        }
        let relayed = count(&world.pod(), "/connections/relayed");
        lead_to(&real);
        eventually("the server is found again", SECOND * 2, || match world.answer(at(POD_V4, 80)).as_str() {
            "server" => Ok(()),
            other => Err(other.to_owned()),
        });
        assert_eq!(relayed, count(&world.pod(), "/connections/relayed") - 1);
    }
    assert!(failed > 0);
}

#[test]
fn a_rule_to_a_socket_of_another_daemon_is_refused() {
    let (world, other) = (World::new(), Daemon::start());
    let target = world.target();
    for socket in [other.socket().to_owned(), handoff(&other)] {
        let to = format!("unix:{}", socket.display());
        let outcome = world.cli().run(&["attach", &target, "--match", "tcp:80", "--to", &to]);
        assert!(error(&outcome, 1).contains("control socket"), "{outcome}");
    }
}

#[test]
fn check_tells_a_rule_that_leads_to_a_socket_of_the_daemon_whose_file_it_is() {
    let dir = Dir::new();
    let (file, cli) = (dir.join("file.toml"), redirector_tests::cli::Cli::new(&dir.join("none")));
    let rules = |daemon: &str, path: &str| {
        let rule = format!("[[namespace.rule]]\nmatch = [\"tcp:80\"]\nto = [\"unix:{path}\"]\n");
        fs::write(&file, format!("{daemon}[[namespace]]\ntarget = \"netns:a\"\n{rule}")).unwrap();
        cli.run(&["check", &file.display().to_string()])
    };
    let daemon = "[daemon]\nsocket = \"/run/a/control.sock\"\n";
    let default = "/run/redirector/handoff.sock";
    for (daemon, path) in [(daemon, "/run/a/control.sock"), (daemon, "/run/a/handoff.sock"), ("", default)] {
        let outcome = rules(daemon, path);
        assert!(outcome.code() == 2 && outcome.stderr.contains("control socket"), "{outcome}");
    }
    assert_eq!(rules("", "/run/a/control.sock").code(), 0);
}

#[test]
fn a_rule_to_an_engines_socket_is_made_with_a_warning() {
    let dir = Dir::new();
    let (docker, link) = (dir.join("docker"), dir.join("link"));
    let _server = Server::unix(&docker, "docker");
    symlink(&docker, &link).unwrap();
    let option = format!("--docker-socket={}", docker.display());
    let world = World::with(Daemon::with(&[&option]), redirector_tests::topology::Topology::new());
    let attached = world.steer("unix", "tcp:80", &format!("unix:{}", link.display()));
    let warnings = attached["warnings"].as_array().unwrap();
    assert!(warnings.iter().any(|one| one.as_str().unwrap().contains("engine")), "{attached:#}");
    assert_eq!(world.answer(at(POD_V4, 80)), "docker");
    let plain = dir.join("plain");
    let _server = Server::unix(&plain, "plain");
    let attached = world.steer("plain", "tcp:81", &format!("unix:{}", plain.display()));
    assert_eq!(attached["warnings"], serde_json::json!([]));
}
