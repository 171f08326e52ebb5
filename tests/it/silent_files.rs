//! Files of a file system that does not answer: who asks for them may wait, and nobody else.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use redirector_tests::{
    client::Conversation,
    command::spawn,
    dir::Dir,
    eventually::eventually,
    exec::{Exec, PYTHON},
    server::Server,
    topology::{POD_V4, at},
    world::{World, count},
};

use super::SECOND;

const FUSE: &str = include_str!("../programs/silent_fuse.py");

/// Sends requests that are none, each with the file. Who starts programs must not have it: a copy is closed at each start.
const SENDER: &str = "
import json, os, socket, sys
path, file, first = sys.argv[1:]
fd = os.open(file, os.O_RDONLY)
def send():
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(path)
    socket.send_fds(connection, [b'{}'], [fd])
    return connection
def assert_refused(connection):
    assert json.loads(connection.recv(65536))['error']['code'] == 'usage'
for number in range(int(first)):
    assert_refused(send())
print('refused', flush=True)
connections = [send() for number in range(100)]
print('sent', flush=True)
for connection in connections:
    assert_refused(connection)
print('all refused', flush=True)
os._exit(0)
";

/// It is there until this is dropped.
struct SilentFiles {
    at: Dir,
    server: Child,
    /// Ends with it.
    user: Option<Exec>,
}

impl SilentFiles {
    #[track_caller]
    fn mount() -> Self {
        let at = Dir::new();
        let mut command = Command::new(PYTHON);
        command.args(["-c", FUSE]).arg(at.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut server = spawn(&mut command);
        let mut said = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n", "FUSE");
        Self { at, server, user: None }
    }

    /// Nothing is answered that was asked, but by an error.
    #[track_caller]
    fn end(&mut self) {
        drop(self.server.stdin.take());
        self.server.wait().expect("wait for the file system's end");
    }

    /// Closing it is not answered.
    fn file(&self) -> PathBuf {
        self.at.join("file")
    }

    /// Looking for it is not answered.
    fn silent(&self) -> PathBuf {
        self.at.join("silent")
    }
}

impl Drop for SilentFiles {
    fn drop(&mut self) {
        // Before its user, which cannot end without.
        self.end();
    }
}

/// More than the daemon has threads that serve.
fn many() -> usize {
    (2 * thread::available_parallelism().unwrap().get()).min(32)
}

#[test]
fn files_whose_close_does_not_end_come_with_requests_and_hold_nobody_up() {
    let world = World::new();
    let server = Server::here("server");
    world.steer("web", "tcp:80", &server.destination());
    let before = world.daemon.fds_at_rest();
    let mut files = SilentFiles::mount();
    let mut command = Command::new(PYTHON);
    command.args(["-c", SENDER]).arg(world.daemon.socket().with_file_name("handoff.sock"));
    let sender = Exec::start(command.arg(files.file()).arg(many().to_string()));
    let sender = files.user.insert(sender);
    assert_eq!(sender.line(), "refused");
    assert_eq!(world.answer(at(POD_V4, 80)), "server");
    // There is a bound, behind which they wait.
    assert_eq!(sender.line(), "sent");
    assert_eq!(world.answer(at(POD_V4, 80)), "server");
    let threads = fs::read_dir(format!("/proc/{}/task", world.daemon.pid())).unwrap().count();
    assert!(threads < 250, "{threads} threads");
    files.end();
    let sender = files.user.as_mut().unwrap();
    assert_eq!(sender.line(), "all refused");
    assert_eq!(sender.code(), 0);
    world.daemon.eventually_has_fds(before);
}

#[test]
fn a_path_that_is_not_answered_for_holds_up_dials_to_it_alone() {
    let (world, dir, mut files) = (World::new(), Dir::new(), SilentFiles::mount());
    let (real, path) = (dir.join("real"), dir.join("path"));
    let _server = Server::unix(&real, "server");
    let other = Server::here("other");
    let lead_to = |socket: &Path| {
        let next = dir.join("next");
        symlink(socket, &next).unwrap();
        fs::rename(&next, &path).unwrap();
    };
    lead_to(&real);
    let to = format!("unix:{}", path.display());
    world.attach(&format!("--name unix --match tcp:80 --to {to} --connect-timeout 1s"));
    world.steer("other", "tcp:81", &other.destination());
    assert_eq!(world.answer(at(POD_V4, 80)), "server");
    lead_to(&files.silent());
    let clients: Vec<_> =
        (0..many()).map(|_| Conversation::open(&world.net.client, at(POD_V4, 80)).unwrap()).collect();
    assert_eq!(world.answer(at(POD_V4, 81)), "other");
    for mut client in clients {
        client.greeting().unwrap_err();
    }
    assert!(count(&world.pod(), "/connections/failed/connect_timeout") > 0);
    files.end();
    lead_to(&real);
    eventually("the server is found again", SECOND * 2, || match world.answer(at(POD_V4, 80)).as_str() {
        "server" => Ok(()),
        other => Err(other.to_owned()),
    });
}
