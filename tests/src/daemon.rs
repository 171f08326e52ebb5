//! The daemon under test.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader, ErrorKind},
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    cli::Cli,
    command::{pid, spawn},
    dir::Dir,
    eventually::{at_intervals, eventually},
    log::Log,
    netns::Netns,
};

/// The binary under test: `$REDIRECTOR_BIN`, else the development build of this repository.
#[must_use]
pub fn binary() -> PathBuf {
    let path = env::var_os("REDIRECTOR_BIN").map_or_else(
        || {
            let target = env::var_os("CARGO_TARGET_DIR")
                .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
            target.join("debug/redirector")
        },
        PathBuf::from,
    );
    assert!(path.exists(), "`{}` is missing: build it, or name it in $REDIRECTOR_BIN", path.display());
    path
}

/// A running daemon with a control socket of its own. Dropping it stops it and asserts that it exits with 0;
/// when the test is failing already, it is killed and its log printed.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    /// The daemon itself, where the child is only its parent.
    inner: Option<Pid>,
    exited: Option<ExitStatus>,
    socket: PathBuf,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    /// Where the log goes when nobody reads it.
    elsewhere: Option<Log>,
    /// Kept: it has more to say than that it is ready.
    notify: UnixDatagram,
    dir: Dir,
}

impl Daemon {
    /// Starts it and waits until it says that it is ready.
    #[track_caller]
    #[must_use]
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// With further options of `redirector run`.
    #[track_caller]
    #[must_use]
    pub fn with(options: &[&str]) -> Self {
        Self::spawn(Command::new(binary()).arg("run"), options)
    }

    /// With a command that ends in `redirector run`.
    #[track_caller]
    #[must_use]
    pub fn spawn(command: &mut Command, options: &[&str]) -> Self {
        let dir = Dir::new();
        Self::in_dir(dir.join("control.sock"), dir, command, options)
    }

    /// With a log that the test reads, whatever `$REDIRECTOR_TEST_LOG` says of others.
    #[track_caller]
    #[must_use]
    pub fn with_log_read(options: &[&str]) -> Self {
        Self::spawn_with_log_read(Command::new(binary()).arg("run"), options)
    }

    /// The same, with a command that ends in `redirector run`.
    #[track_caller]
    #[must_use]
    pub fn spawn_with_log_read(command: &mut Command, options: &[&str]) -> Self {
        let dir = Dir::new();
        Self::logging(None, dir.join("control.sock"), dir, command, options)
    }

    /// With everything logged, to a place where nobody reads it.
    #[track_caller]
    #[must_use]
    pub fn logging_to(log: Log, options: &[&str]) -> Self {
        let dir = Dir::new();
        let mut command = Command::new(binary());
        command.arg("run");
        Self::logging(Some(log), dir.join("control.sock"), dir, &mut command, options)
    }

    /// On a control socket that may have been another daemon's.
    #[track_caller]
    #[must_use]
    pub fn at(socket: &Path, command: &mut Command, options: &[&str]) -> Self {
        Self::in_dir(socket.to_owned(), Dir::new(), command, options)
    }

    #[track_caller]
    fn in_dir(socket: PathBuf, dir: Dir, command: &mut Command, options: &[&str]) -> Self {
        Self::logging(Log::of_environment(), socket, dir, command, options)
    }

    #[track_caller]
    fn logging(log: Option<Log>, socket: PathBuf, dir: Dir, command: &mut Command, options: &[&str]) -> Self {
        let path = dir.join("notify.sock");
        let notify = UnixDatagram::bind(&path).expect("bind NOTIFY_SOCKET");
        // The daemon may be another user's.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("set the mode of NOTIFY_SOCKET");
        command
            .arg("--socket")
            .arg(&socket)
            .args(options)
            .env("NOTIFY_SOCKET", &path)
            .env_remove("REDIRECTOR_SOCKET")
            .env_remove("RUST_LOG")
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if let Some(log) = &log {
            command.env("RUST_LOG", "trace").stderr(log.stderr());
        }
        let mut child = spawn(command);
        // Ours would be a reader, or a writer, that is not gone.
        command.stderr(Stdio::null());
        let elsewhere = log;
        let log = Arc::new(Mutex::new(Vec::new()));
        let reader = child.stderr.take().map(|stderr| {
            let (log, stderr) = (Arc::clone(&log), BufReader::new(stderr));
            thread::spawn(move || {
                for line in stderr.split(b'\n').map_while(Result::ok) {
                    log.lock().expect("no panic").push(String::from_utf8_lossy(&line).into_owned());
                }
            })
        });
        let mut daemon =
            Self { child, inner: None, exited: None, socket, log, reader, elsewhere, notify, dir };
        daemon.wait_until_ready();
        daemon
    }

    #[track_caller]
    fn wait_until_ready(&mut self) {
        self.notify.set_read_timeout(Some(Duration::from_millis(100))).expect("SO_RCVTIMEO");
        let mut message = [0; 1024];
        eventually("the daemon is ready", Duration::from_secs(3), || match self.notify.recv(&mut message) {
            Ok(length) => {
                let text = String::from_utf8_lossy(&message[..length]).into_owned();
                if text.lines().any(|line| line == "READY=1") { Ok(()) } else { Err(text) }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                assert!(self.child.try_wait().expect("wait").is_none(), "the daemon ended at once");
                Err("silence".to_owned())
            }
            Err(error) => panic!("NOTIFY_SOCKET: {error}"),
        });
    }

    /// The last status that it has told its supervisor since somebody asked, if it has told one.
    #[track_caller]
    #[must_use]
    pub fn status(&self) -> Option<String> {
        self.notify.set_nonblocking(true).expect("O_NONBLOCK");
        let mut message = [0; 1024];
        let told = std::iter::from_fn(|| {
            self.notify.recv(&mut message).ok().map(|length| message[..length].to_vec())
        });
        let told: Vec<_> = told.map(|message| String::from_utf8_lossy(&message).into_owned()).collect();
        let mut lines = told.iter().flat_map(|message| message.lines()).rev();
        lines.find_map(|line| line.strip_prefix("STATUS=")).map(str::to_owned)
    }

    /// In a PID namespace of its own, where it sees nobody's processes but its own.
    #[track_caller]
    #[must_use]
    pub fn in_pid_namespace() -> Self {
        Self::in_pid_namespace_with(&[])
    }

    /// The same, with options of `run`.
    #[track_caller]
    #[must_use]
    pub fn in_pid_namespace_with(options: &[&str]) -> Self {
        // With the first name `ip netns` makes its folder a mount of its own, which has to be there before it is copied.
        drop(Netns::new());
        let mut command = Command::new("unshare");
        // Mounts that are made later are seen there too, as those of `ip netns` are.
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "slave", "--"]);
        let mut daemon = Self::spawn(command.arg(binary()).arg("run"), options);
        let parent = daemon.child.id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))
            .expect("CONFIG_PROC_CHILDREN");
        daemon.inner = Some(Pid::from_raw(children.trim().parse().expect("one child")));
        daemon
    }

    /// Its control socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Its command line.
    #[must_use]
    pub fn cli(&self) -> Cli {
        Cli::new(&self.socket)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.inner
            .map_or(self.child.id(), |pid| u32::try_from(pid.as_raw()).expect("process ids are positive"))
    }

    /// What it has logged until now.
    #[track_caller]
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        assert!(
            self.elsewhere.is_none(),
            "nobody reads this log: `Daemon::with_log_read` is for tests that do"
        );
        self.said()
    }

    /// Where it logs to, when that is not read.
    #[must_use]
    pub fn elsewhere(&self) -> Option<&Log> {
        self.elsewhere.as_ref()
    }

    /// Closes our own end of a log that nobody reads: a reader of it comes to its end then.
    pub fn forget_log(&mut self) {
        self.elsewhere = None;
    }

    fn said(&self) -> Vec<String> {
        self.log.lock().expect("no panic").clone()
    }

    /// Lines of its log with all of these words.
    #[track_caller]
    #[must_use]
    pub fn log_with(&self, words: &[&str]) -> Vec<String> {
        self.log().into_iter().filter(|line| words.iter().all(|word| line.contains(word))).collect()
    }

    /// Waits until its log has a line with all of these words, which comes after what is logged has come to pass: the lines.
    #[track_caller]
    #[must_use]
    pub fn eventually_says(&self, words: &[&str]) -> Vec<String> {
        eventually(&format!("it says {words:?}"), Duration::from_secs(1), || {
            let lines = self.log_with(words);
            if lines.is_empty() { Err(self.log()) } else { Ok(lines) }
        })
    }

    /// Sends it a signal. After SIGSTOP it has stopped: kill(2) returns before all of its threads have.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        assert!(self.exited.is_none(), "the daemon has ended");
        let daemon = self.inner.unwrap_or(pid(&self.child));
        kill(daemon, signal).expect("signal the daemon");
        if signal == Signal::SIGSTOP {
            eventually("the daemon has stopped", Duration::from_secs(1), || {
                let threads = fs::read_dir(format!("/proc/{daemon}/task")).expect("its threads");
                let stat = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("stat"));
                let stats: Vec<_> = threads.filter_map(Result::ok).filter_map(|one| stat(one).ok()).collect();
                let has_stopped =
                    |stat: &String| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'));
                if stats.iter().all(has_stopped) { Ok(()) } else { Err(stats) }
            });
        }
    }

    /// Kills it, and waits until it is gone.
    #[track_caller]
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    /// Stops it with SIGTERM; it must exit with 0.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.wait();
        assert!(status.success(), "the daemon must exit with 0 after SIGTERM: {status}");
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        if let Some(status) = self.exited {
            return status;
        }
        let child = &mut self.child;
        let status = eventually("the daemon has ended", Duration::from_secs(5), || {
            child.try_wait().expect("wait").ok_or("it runs")
        });
        self.exited = Some(status);
        status
    }

    /// Its open fds: what each is. Those of kernel programs that it has made ahead are left out.
    #[must_use]
    pub fn fds(&self) -> Vec<String> {
        let mut fds = Fds::of(self.pid());
        fds.leave_out_stock();
        fds.links
    }

    /// How many kernel programs it has that are not attached to a namespace.
    #[must_use]
    pub fn unattached_programs(&self) -> usize {
        Fds::of(self.pid()).unattached
    }

    /// How many fds it has while it does nothing. It looks around now and then, which takes one for a moment: so
    /// the least of several looks.
    #[must_use]
    pub fn fds_at_rest(&self) -> usize {
        let mut least = usize::MAX;
        at_intervals(5, || least = least.min(self.fds().len()));
        least
    }

    /// Waits until it has no more than so many fds.
    #[track_caller]
    pub fn eventually_has_fds(&self, count: usize) {
        eventually("all other fds are closed", Duration::from_secs(2), || {
            let now = self.fds();
            if now.len() <= count { Ok(()) } else { Err(now) }
        });
    }

    /// Its anonymous memory (`RssAnon`), in KiB.
    #[must_use]
    pub fn anonymous_kib(&self) -> i64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
        line.trim().trim_end_matches(" kB").parse().expect("a number of kB")
    }

    /// The CPU time it has used, user and system.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        let stat = self.proc("stat");
        // The name before may hold anything; utime and stime are fields 14 and 15 of proc_pid_stat(5).
        let fields: Vec<_> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("ticks")).sum();
        // USER_HZ is 100 on every architecture that Rust has a standard library for.
        Duration::from_millis(ticks * 10)
    }

    fn proc(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.pid())).expect("read the daemon's /proc")
    }

    fn print_log(&self) {
        eprintln!("daemon {} said:", self.pid());
        for line in self.said() {
            eprintln!("  {line}");
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            if self.exited.is_none() {
                drop(self.child.kill());
                drop(self.child.wait());
            }
            self.end_log();
            self.print_log();
            return;
        }
        if self.exited.is_none() {
            self.stop();
        }
        self.end_log();
        let panics: Vec<_> = self.said().into_iter().filter(|line| line.contains("panicked at")).collect();
        if !panics.is_empty() {
            self.print_log();
            panic!("the daemon panicked: {panics:#?}");
        }
    }
}

impl Daemon {
    fn end_log(&mut self) {
        // Its stderr is closed now. Nobody else has it: the daemon starts no programs.
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
    }
}

/// A copy of the binary that every user may run, whatever the rights of the folder it was built in.
#[must_use]
pub fn binary_for_everybody(dir: &Dir) -> PathBuf {
    let copy = dir.join("redirector");
    fs::copy(binary(), &copy).expect("copy the binary");
    assert_eq!(copy.extension(), None::<&OsStr>);
    copy
}

/// Open fds of a process.
struct Fds {
    /// What each is.
    links: Vec<String>,
    /// BPF programs among them that no BPF link among them is of.
    unattached: usize,
    is_steering: bool,
}

impl Fds {
    const PROGRAM: &str = "anon_inode:bpf-prog";
    const MAP: &str = "anon_inode:bpf-map";

    fn of(pid: u32) -> Self {
        let folder = fs::read_dir(format!("/proc/{pid}/fd")).expect("read a process's fds");
        let (mut links, mut programs, mut attached) = (Vec::new(), Vec::new(), Vec::new());
        for entry in folder.filter_map(Result::ok) {
            let Ok(link) = fs::read_link(entry.path()) else { continue };
            let link = link.as_os_str().display().to_string();
            let program = || {
                let fd = entry.file_name();
                let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", fd.display())).ok()?;
                info.lines().find_map(|line| Some(line.strip_prefix("prog_id:")?.trim().to_owned()))
            };
            if link == Self::PROGRAM {
                programs.extend(program());
            } else if link.starts_with("anon_inode:bpf") && link != Self::MAP {
                attached.extend(program());
            }
            links.push(link);
        }
        let unattached = programs.iter().filter(|program| !attached.contains(program)).count();
        Self { links, unattached, is_steering: !attached.is_empty() }
    }

    /// A daemon that steers has up to 8 programs in stock, each with 4 maps. One that steers nothing has none: what it has then is
    /// too much.
    fn leave_out_stock(&mut self) {
        let in_stock = if self.is_steering { self.unattached.min(8) } else { 0 };
        for (what, count) in [(Self::PROGRAM, in_stock), (Self::MAP, 4 * in_stock)] {
            let mut left = count;
            self.links.retain(|link| {
                let goes = left > 0 && link == what;
                left -= usize::from(goes);
                !goes
            });
        }
    }
}
