//! `redirector exec` under test, and programs for it to run.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver},
    },
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    HANG,
    cli::Cli,
    client::{Greeting, answer},
    command::{self, Outcome},
    daemon::Daemon,
    dir::Dir,
    eventually::{at_intervals, eventually},
    snapshot::Snapshot,
    topology::Topology,
};

/// A pod and a client, and `redirector exec` with or without a daemon.
#[derive(Debug)]
pub struct Stage {
    /// `None`: nobody serves the control socket.
    pub daemon: Option<Daemon>,
    /// The namespaces.
    pub net: Topology,
    /// Files of the test. `$TMPDIR` of what it runs is `tmp` in it.
    pub dir: Dir,
}

impl Stage {
    /// With a daemon.
    #[track_caller]
    #[must_use]
    pub fn with_daemon() -> Self {
        Self::of(Some(Daemon::start()))
    }

    /// With one whose log the test reads.
    #[track_caller]
    #[must_use]
    pub fn with_log_read() -> Self {
        Self::of(Some(Daemon::with_log_read(&[])))
    }

    /// Without one.
    #[track_caller]
    #[must_use]
    pub fn alone() -> Self {
        Self::of(None)
    }

    /// Both, one after the other.
    pub fn both() -> impl Iterator<Item = Self> {
        [Self::with_daemon as fn() -> Self, Self::alone].into_iter().map(|stage| stage())
    }

    #[track_caller]
    fn of(daemon: Option<Daemon>) -> Self {
        let stage = Self { daemon, net: Topology::new(), dir: Dir::new() };
        fs::create_dir(stage.tmp()).expect("make a directory");
        stage
    }

    fn tmp(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    /// The daemon's command line, or one for nobody's socket.
    #[must_use]
    pub fn cli(&self) -> Cli {
        self.daemon.as_ref().map_or_else(|| Cli::new(&self.dir.join("none.sock")), Daemon::cli)
    }

    /// `redirector exec POD OPTIONS -- WORDS`. Options are words, as on a command line without quotes.
    #[track_caller]
    #[must_use]
    pub fn exec(&self, options: &str, words: &[&str]) -> Command {
        let target = self.net.pod.target();
        let options = ["exec", &target].into_iter().chain(options.split_whitespace());
        let words: Vec<_> = options.chain(["--"]).chain(words.iter().copied()).collect();
        let mut command = self.cli().command(&words);
        command.env("TMPDIR", self.tmp());
        command
    }

    /// Runs a command to its end by `exec --match tcp:80`.
    #[track_caller]
    pub fn run(&self, options: &str, words: &[&str]) -> Outcome {
        command::run(&mut self.exec(&format!("--match tcp:80 {options}"), words))
    }

    /// A socket-activated server on port 80 of the pod. It runs when this returns, and the rule is in force.
    #[track_caller]
    #[must_use]
    pub fn serve(&self, options: &str, name: &str) -> Exec {
        let script = self.program("activated.py", ACTIVATED);
        let mut exec =
            Exec::start(&mut self.exec(&format!("--match tcp:80 {options}"), &[PYTHON, &script, name]));
        exec.expect_line("ready");
        exec
    }

    /// A file with a program that everybody may read.
    #[track_caller]
    #[must_use]
    pub fn program(&self, name: &str, text: &str) -> String {
        let path = self.dir.join(name);
        fs::write(&path, text).expect("write a program");
        path.to_str().expect("UTF-8").to_owned()
    }

    /// What the pod looks like, when nothing changes there by itself any more: the kernel adds a link-local address
    /// a second or two after the device is up, and routes change when the carrier is there.
    #[track_caller]
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.net.pod.must("ip", &["-6", "address", "flush", "dev", "eth0", "scope", "link"]);
        eventually("the carrier is there", Duration::from_secs(1), || {
            let routes = self.net.pod.must("ip", &["route", "show", "table", "all"]).stdout;
            let routes6 = self.net.pod.must("ip", &["-6", "route", "show", "table", "all"]).stdout;
            let addresses = self.net.pod.must("ip", &["address"]).stdout;
            let all = format!("{routes}{routes6}{addresses}");
            if ["linkdown", "tentative", "fe80"].iter().any(|word| all.contains(word)) {
                Err(all)
            } else {
                Ok(())
            }
        });
        Snapshot::of(&self.net.pod)
    }

    /// Who answers the client on port 80.
    #[track_caller]
    #[must_use]
    pub fn answers(&self) -> [String; 2] {
        use crate::topology::{POD_V4, POD_V6, at};
        [POD_V4, POD_V6].map(|pod| answer(&self.net.client, at(pod, 80)))
    }

    /// Waits until this is who answers the client.
    #[track_caller]
    pub fn eventually_answers(&self, name: &str) {
        eventually(&format!("`{name}` answers"), Duration::from_secs(1), || {
            let now = self.answers();
            if now.iter().all(|one| one == name) { Ok(()) } else { Err(now) }
        });
    }

    /// Asserts that no rule is left, nor a temporary file.
    #[track_caller]
    pub fn assert_forgotten(&self) {
        if let Some(daemon) = &self.daemon {
            eventually("the rule is gone", Duration::from_secs(1), || {
                let list = daemon.cli().json(&["list"]);
                if list["namespaces"] == serde_json::json!([]) { Ok(()) } else { Err(list) }
            });
        }
        let left: Vec<_> = fs::read_dir(self.tmp()).expect("read $TMPDIR").flatten().collect();
        assert!(left.is_empty(), "left in $TMPDIR: {left:?}");
    }
}

/// A server that is started by socket activation.
pub const ACTIVATED: &str = include_str!("../programs/activated.py");

/// The system's own: the one of a user's `$PATH` may be where other users cannot go.
pub const PYTHON: &str = "/usr/bin/python3";

/// A command that runs, usually `redirector exec`. It is ended when this is dropped.
#[derive(Debug)]
pub struct Exec {
    child: Child,
    status: Option<ExitStatus>,
    stdin: Option<ChildStdin>,
    stdout: Receiver<String>,
    stderr: Arc<Mutex<Vec<String>>>,
}

impl Exec {
    /// Starts it. Its standard input stays open.
    #[track_caller]
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command::spawn(command);
        let (sender, stdout) = mpsc::channel();
        let stderr = Arc::new(Mutex::new(Vec::new()));
        // They end when the last process that has the pipes does.
        each_line(child.stdout.take().expect("a pipe"), move |line| drop(sender.send(line)));
        each_line(child.stderr.take().expect("a pipe"), {
            let stderr = Arc::clone(&stderr);
            move |line| stderr.lock().expect("no panic").push(line)
        });
        let stdin = child.stdin.take();
        Self { child, status: None, stdin, stdout, stderr }
    }

    /// The process that was started. With a daemon it is CMD.
    #[must_use]
    pub fn pid(&self) -> Pid {
        command::pid(&self.child)
    }

    /// The next line of its standard output.
    #[track_caller]
    #[must_use]
    pub fn line(&self) -> String {
        self.stdout
            .recv_timeout(HANG)
            .unwrap_or_else(|error| panic!("a line of stdout: {error}; stderr: {:#?}", self.stderr()))
    }

    /// The next line of its standard output; `None` when it has closed that without one.
    #[track_caller]
    #[must_use]
    pub fn line_before_end(&self) -> Option<String> {
        match self.stdout.recv_timeout(HANG) {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(error) => panic!("a line of stdout or its end: {error}; stderr: {:#?}", self.stderr()),
        }
    }

    /// Lines of its standard output until this one comes.
    #[track_caller]
    pub fn expect_line(&mut self, wanted: &str) -> Vec<String> {
        let mut before = Vec::new();
        loop {
            match self.line() {
                line if line == wanted => return before,
                line => before.push(line),
            }
        }
    }

    /// What it has said on standard error until now.
    #[must_use]
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.lock().expect("no panic").clone()
    }

    /// Waits for a line of its standard error that contains this.
    #[track_caller]
    pub fn expect_on_stderr(&self, part: &str) {
        eventually(&format!("`{part}` on stderr"), Duration::from_secs(1), || {
            let lines = self.stderr();
            if lines.iter().any(|line| line.contains(part)) { Ok(()) } else { Err(lines) }
        });
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        assert!(self.status.is_none(), "it has ended");
        kill(self.pid(), signal).expect("signal it");
    }

    /// Writes a line to its standard input.
    #[track_caller]
    pub fn tell(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("its standard input is open");
        writeln!(stdin, "{line}").expect("write to its standard input");
    }

    /// Closes its standard input.
    pub fn close_stdin(&mut self) {
        drop(self.stdin.take());
    }

    /// Waits until it has ended, and gives what a shell would: the exit code, or 128 and the signal.
    #[track_caller]
    pub fn code(&mut self) -> i32 {
        let child = &mut self.child;
        let status = self.status.unwrap_or_else(|| {
            eventually("it has ended", Duration::from_secs(5), || {
                child.try_wait().expect("wait").ok_or("it runs")
            })
        });
        self.status = Some(status);
        code(status)
    }

    /// Ends it with a signal and waits.
    #[track_caller]
    pub fn end(&mut self, signal: Signal) -> i32 {
        self.signal(signal);
        self.code()
    }
}

/// An exit code as a shell gives it.
#[must_use]
pub fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).expect("it has ended")
}

fn each_line(pipe: impl Read + Send + 'static, mut act: impl FnMut(String) + Send + 'static) {
    thread::spawn(move || BufReader::new(pipe).lines().map_while(Result::ok).for_each(&mut act));
}

impl Drop for Exec {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("stderr of process {}: {:#?}", self.pid(), self.stderr());
        }
        self.close_stdin();
        if self.status.is_none() {
            // A signal to be passed on, then one that nothing withstands.
            for signal in [Signal::SIGTERM, Signal::SIGKILL] {
                if let Err(errno) = kill(self.pid(), signal) {
                    eprintln!("signal process {}: {errno}", self.pid());
                }
                for _ in 0..100 {
                    self.status = self.child.try_wait().expect("wait");
                    if self.status.is_some() {
                        return;
                    }
                    at_intervals(1, || {});
                }
            }
        }
    }
}

/// A greeting must name the client that asked, and what it asked for.
#[track_caller]
pub fn assert_true_addresses(
    greeting: &Greeting,
    client: std::net::SocketAddr,
    original: std::net::SocketAddr,
) {
    assert_eq!(greeting.peer, Some(client), "the true client");
    assert_eq!(greeting.local, Some(original), "the original destination");
}

/// The fds of a process that are sockets, as the links in /proc name them.
#[must_use]
pub fn sockets_of(pid: impl std::fmt::Display) -> Vec<String> {
    let links = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
        links.map(|link| link.display().to_string()).collect()
    };
    let all = links(Path::new(&format!("/proc/{pid}/fd")));
    all.into_iter().filter(|link| link.starts_with("socket:")).collect()
}
