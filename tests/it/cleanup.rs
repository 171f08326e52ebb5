//! `redirector cleanup`: it removes what the dead have left, and nothing else.

use std::{
    fs::{self, File},
    os::{
        fd::AsFd as _,
        unix::{
            fs::{PermissionsExt as _, chown, symlink},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use nix::sys::signal::Signal;
use redirector::kernel::Instance;
use redirector_tests::{
    cli::{Cli, document, error},
    command::{self, Outcome},
    daemon::{Daemon, binary, binary_for_everybody},
    dir::Dir,
    exec::Stage,
    world::World,
};
use serde_json::{Value, json};

/// `redirector cleanup`, for what is below `tmp`.
#[track_caller]
fn run(cli: &Cli, tmp: &Path, arguments: &[&str]) -> Outcome {
    command::run(cli.command(&[&["cleanup"], arguments].concat()).env("TMPDIR", tmp))
}

#[track_caller]
fn cleaned(cli: &Cli, tmp: &Path) -> Value {
    document(&run(cli, tmp, &["--json"]).success())
}

fn nothing() -> Value {
    json!({ "schema": 1, "removed": [], "kept": [], "programs": [] })
}

#[test]
fn the_sockets_of_a_killed_daemon_are_removed_once() {
    let tmp = Dir::new();
    let mut daemon = Daemon::start();
    let cli = daemon.cli();
    let sockets = [daemon.socket().to_owned(), daemon.socket().with_file_name("handoff.sock")];
    daemon.kill();
    assert!(sockets.iter().all(|socket| socket.exists()), "SIGKILL leaves the socket files");
    let removed = sockets.clone().map(|path| json!({ "path": path, "what": "socket" }));
    assert_eq!(
        cleaned(&cli, tmp.path()),
        json!({ "schema": 1, "removed": removed, "kept": [], "programs": [] })
    );
    assert!(!sockets.iter().any(|socket| socket.exists()));
    assert_eq!(cleaned(&cli, tmp.path()), nothing());
    let outcome = run(&cli, tmp.path(), &[]).success();
    assert_eq!((&*outcome.stdout, &*outcome.stderr), ("nothing to clean up\n", ""));
    let again = Daemon::at(&sockets[0], Command::new(binary()).arg("run"), &[]);
    again.cli().json(&["list"]);
}

#[test]
fn a_living_daemon_keeps_its_sockets_and_goes_on() {
    let (tmp, world) = (Dir::new(), World::new());
    world.steer("http", "tcp:80", "reject");
    let outcome = run(&world.cli(), tmp.path(), &[]).success();
    let lines: Vec<_> = outcome.stdout.lines().collect();
    let &[control, handoff, end] = &lines[..] else { panic!("{outcome}") };
    assert_eq!(control, format!("kept: {}: a daemon serves it", world.daemon.socket().display()));
    assert!(handoff.contains("handoff.sock: a daemon serves it"), "{outcome}");
    assert_eq!(end, "nothing to clean up");
    assert_eq!(world.pod()["rules"][0]["name"], "http");
}

#[test]
fn a_socket_that_redirector_did_not_make_is_left_alone() {
    let dir = Dir::new();
    let path = dir.join("control.sock");
    let cli = Cli::new(&path);
    assert_eq!(cleaned(&cli, dir.path()), nothing());
    drop(UnixListener::bind(&path).unwrap());
    assert_eq!(cleaned(&cli, dir.path()), nothing());
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    assert_eq!(cleaned(&cli, dir.path()), nothing());
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "it made something");
}

#[test]
fn another_user_is_told_that_he_may_not() {
    let (dir, mut daemon) = (Dir::new(), Daemon::start());
    daemon.kill();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
    command.arg(binary_for_everybody(&dir)).arg("cleanup").env("REDIRECTOR_SOCKET", daemon.socket());
    let outcome = command::run(&mut command);
    assert!(error(&outcome, 1).contains("control.sock.lock"), "{outcome}");
    assert!(daemon.socket().exists());
}

/// The directory that `exec` without a daemon has made.
#[track_caller]
fn private(tmp: &Path) -> PathBuf {
    let mut entries = fs::read_dir(tmp).expect("read the directory");
    entries.next().expect("a directory").expect("an entry").path()
}

#[test]
fn the_directory_of_an_exec_is_removed_when_it_was_killed_and_not_before() {
    let stage = Stage::alone();
    let tmp = stage.dir.join("tmp");
    let mut cmd = stage.serve("", "cmd");
    let directory = private(&tmp);
    let kept = json!([{ "path": directory, "why": "a running `exec` uses it" }]);
    assert_eq!(
        cleaned(&stage.cli(), &tmp),
        json!({ "schema": 1, "removed": [], "kept": kept, "programs": [] })
    );
    assert_eq!(stage.answers(), ["cmd", "cmd"]);
    cmd.end(Signal::SIGKILL);
    assert!(directory.exists(), "SIGKILL leaves it");
    let removed = json!([{ "path": directory, "what": "directory" }]);
    assert_eq!(
        cleaned(&stage.cli(), &tmp),
        json!({ "schema": 1, "removed": removed, "kept": [], "programs": [] })
    );
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0);
    assert_eq!(cleaned(&stage.cli(), &tmp), nothing());
}

/// Makes a directory of that name and mode, which nobody has touched for an hour.
fn old(tmp: &Dir, name: &str, mode: u32) -> PathBuf {
    let path = tmp.join(name);
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    grow_old(&path);
    path
}

fn grow_old(path: &Path) {
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    File::open(path).unwrap().set_modified(hour_ago).unwrap();
}

#[test]
fn only_directories_that_are_certainly_ours_are_removed() {
    let (tmp, elsewhere) = (Dir::new(), Dir::new());
    let cli = Cli::new(Path::new("/nowhere/control.sock"));
    let empty = old(&tmp, "redirector-exec-AAAAAA", 0o700);
    let open = old(&tmp, "redirector-exec-BBBBBB", 0o755);
    let longer = old(&tmp, "redirector-exec-CCCCCCC", 0o700);
    let others = old(&tmp, "redirector-exec-DDDDDD", 0o700);
    chown(&others, Some(65534), Some(65534)).unwrap();
    let target = old(&elsewhere, "redirector-exec-EEEEEE", 0o700);
    let link = tmp.join("redirector-exec-EEEEEE");
    symlink(&target, &link).unwrap();
    let file = tmp.join("redirector-exec-FFFFFF");
    fs::write(&file, "").unwrap();
    let filled = old(&tmp, "redirector-exec-GGGGGG", 0o700);
    fs::write(filled.join("precious"), "").unwrap();
    grow_old(&filled);
    let new = old(&tmp, "redirector-exec-HHHHHH", 0o700);
    File::open(&new).unwrap().set_modified(SystemTime::now()).unwrap();
    let mut document = cleaned(&cli, tmp.path());
    assert_eq!(document["removed"], json!([{ "path": empty, "what": "directory" }]), "{document:#}");
    let kept = document["kept"].as_array_mut().unwrap();
    kept.sort_by_key(|kept| kept["path"].to_string());
    let kept: Vec<_> = kept.iter().map(|kept| kept["path"].clone()).collect();
    assert_eq!(kept, [json!(filled), json!(new)]);
    for path in [&open, &longer, &others, &target, &link, &file, &filled.join("precious"), &new] {
        assert!(path.symlink_metadata().is_ok(), "{} is gone", path.display());
    }
}

#[test]
fn of_a_namespace_programs_of_others_are_reported_and_left_alone() {
    let (tmp, world) = (Dir::new(), World::new());
    let target = world.target();
    let clean = || document(&run(&world.cli(), tmp.path(), &[&target, "--json"]).success());
    assert_eq!(clean(), nothing());
    // A living daemon's is not reported.
    world.steer("http", "tcp:80", "reject");
    assert_eq!(clean(), nothing());
    let foreign = Instance::load().unwrap();
    let id = foreign.program_id().unwrap();
    foreign.attach(world.net.pod.open().as_fd()).unwrap();
    let document = clean();
    let programs = document["programs"].as_array().unwrap();
    assert_eq!(programs.len(), 1, "{document:#}");
    assert_eq!(programs[0]["id"], id, "{document:#}");
    let holders = programs[0]["held_by"].as_array().unwrap();
    assert!(holders.iter().any(|holder| holder["pid"] == std::process::id()), "{document:#}");
    let outcome = run(&world.cli(), tmp.path(), &[&target]).success();
    let said = format!("left alone: sk_lookup program {id} `redirector`, held by ");
    assert!(outcome.stdout.starts_with(&said), "{outcome}");
    assert!(outcome.stdout.ends_with("\nnothing to clean up\n"), "{outcome}");
    assert!(foreign.link_info().unwrap().unwrap().netns_inode != 0, "it must be attached still");
}
