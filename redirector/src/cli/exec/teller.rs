//! Who says on stderr what becomes of CMD's listeners: with a daemon this process is CMD and cannot.
//!
//! It is a process of its own, nobody's child, that has nothing but stderr and the connection on which the daemon tells. It ends
//! with the rule, or when the rule goes on without CMD: then `list` tells. Without a daemon it is the process that is one.

use std::{
    env, fs,
    hash::{BuildHasher as _, RandomState},
    io::{self, Read as _},
    net::SocketAddr,
    num::NonZeroU16,
    os::fd::{AsFd as _, OwnedFd},
    os::unix::net::UnixStream,
    process::Command,
};

use command_fds::{CommandFdExt as _, FdMapping};
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    poll::{PollTimeout, poll},
};

use super::exit;
use crate::{
    control::{LeaseNews, receive_notice, send_with_fds},
    sys::{self, socket::receive_with_fds},
};

/// Has a mark by which the processes are known that CMD has started.
const MARK: &str = "REDIRECTOR_EXEC";

/// The number of the fd by which somebody else tells.
const TELLER: &str = "REDIRECTOR_TELLER";

/// That number, for a child.
const FD: i32 = 3;

/// Takes over the connection on which the daemon tells.
#[derive(Debug)]
pub(super) struct Teller {
    socket: OwnedFd,
    mark: String,
}

/// When there is nothing more to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// The rule goes on without CMD, or is gone.
    CmdEnds,
    /// The rule is gone.
    Over,
}

impl Teller {
    /// One that was made for this process, or a new one.
    ///
    /// # Errors
    ///
    /// As socketpair(2), fork(2).
    pub(super) fn start() -> io::Result<Self> {
        let mark = env::var(MARK).ok();
        let inherited = env::var(TELLER).ok().and_then(|fd| fd.parse::<i32>().ok());
        if let (Some(mark), Some(fd)) = (mark, inherited.filter(|fd| *fd == FD)) {
            let socket = sys::owned(fd.into());
            fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
            return Ok(Self { socket, mark });
        }
        let (ours, theirs) = UnixStream::pair()?;
        let mark = new_mark();
        let known = mark.clone();
        sys::detached(theirs.into(), move |socket| tell(&socket, &known, Until::CmdEnds))?;
        Ok(Self { socket: ours.into(), mark })
    }

    /// Makes what CMD starts known by its mark, and lets it know of nothing else.
    pub(super) fn mark(&self, command: &mut Command) {
        command.env(MARK, &self.mark).env_remove(TELLER);
    }

    /// From here on it tells.
    pub(super) fn hand_over(&self, connection: &OwnedFd) {
        // It may have been killed: then nobody tells.
        drop(send_with_fds(&self.socket, b"x", &[connection.as_fd()]));
    }
}

/// A teller in this process, for a child that is started by this command. Ready when the rule is gone, or when the child has ended
/// without one.
pub(super) fn here(command: &mut Command) -> io::Result<tokio::sync::oneshot::Receiver<()>> {
    let (ours, theirs) = UnixStream::pair()?;
    let mark = new_mark();
    command.env(MARK, &mark).env(TELLER, FD.to_string());
    let mapping = FdMapping { parent_fd: theirs.into(), child_fd: FD };
    command.fd_mappings(vec![mapping]).map_err(io::Error::other)?;
    let (over, is_over) = tokio::sync::oneshot::channel();
    let ours = OwnedFd::from(ours);
    std::thread::Builder::new().name("teller".into()).spawn(move || {
        tell(&ours, &mark, Until::Over);
        // Nobody may wait for it any more.
        let _told: Result<(), ()> = over.send(());
    })?;
    Ok(is_over)
}

fn new_mark() -> String {
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}

/// Says what the daemon tells.
fn tell(socket: &OwnedFd, mark: &str, until: Until) {
    let connection = receive_with_fds(socket, &mut [0]).ok().and_then(|mut received| received.fds.pop());
    // There was no rule.
    let Some(connection) = connection else { return };
    while let Ok(Some(news)) = receive_notice(&connection) {
        match news {
            LeaseNews::Delivered => {}
            LeaseNews::ListensElsewhere { port, addresses } => {
                exit::say_in_time("warning", &elsewhere(port, &addresses));
            }
            LeaseNews::Held { pids } => {
                exit::say_in_time("note", &held(&pids));
                if until == Until::CmdEnds {
                    return;
                }
            }
            LeaseNews::Ended => {
                let count = left_behind(mark);
                if count > 0 {
                    exit::say_in_time("warning", &left(count));
                }
            }
        }
    }
}

fn elsewhere(port: NonZeroU16, addresses: &[SocketAddr]) -> String {
    let Some(first) = addresses.first() else {
        return format!("CMD has not listened on port {port} (`--listen-as`) yet, nor on any other port");
    };
    let list = joined(addresses);
    let hint = first.port();
    format!(
        "CMD does not listen on port {port} (`--listen-as`), but on {list}, as without redirector: is `--listen-as {hint}` meant?"
    )
}

/// Processes that are named; `list` has all of them.
const NAMED: usize = 8;

fn held(pids: &[i32]) -> String {
    match pids {
        [] => {
            "CMD has ended, and somebody whom redirector does not see holds its listeners: the rule goes on"
                .into()
        }
        [one] => format!("CMD has ended, and process {one} holds its listeners: the rule goes on with it"),
        many => {
            let (named, others) = many.split_at(many.len().min(NAMED));
            let others =
                if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
            let named = joined(named);
            format!(
                "CMD has ended, and processes {named}{others} hold its listeners: the rule goes on with them"
            )
        }
    }
}

fn left(count: usize) -> String {
    let processes = if count == 1 { "1 process".to_owned() } else { format!("{count} processes") };
    format!(
        "CMD has ended and left {processes} behind, without listeners; does it put itself in the background? (nginx: `daemon off;`)"
    )
}

fn joined(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// How many processes CMD has started that live on. One that ends with it may need a moment for that.
fn left_behind(mark: &str) -> usize {
    const MOMENT: u16 = 300;
    if marked(mark) == 0 {
        return 0;
    }
    // Nothing to wait for but the time.
    let _slept = poll(&mut [], PollTimeout::from(MOMENT));
    marked(mark)
}

/// How many processes have the mark.
fn marked(mark: &str) -> usize {
    /// Of the variables of one process.
    const LONGEST: u64 = 1 << 20;
    let wanted = format!("{MARK}={mark}").into_bytes();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let has_it = |pid: &fs::DirEntry| {
        let is_process = pid.file_name().to_str().is_some_and(|name| name.parse::<i32>().is_ok());
        let mut variables = Vec::new();
        is_process
            && fs::File::open(pid.path().join("environ"))
                .and_then(|file| file.take(LONGEST).read_to_end(&mut variables))
                .is_ok()
            && variables.split(|byte| *byte == 0).any(|one| one == wanted)
    };
    pids.filter(has_it).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_known_by_the_mark_that_they_inherit() {
        let mark = new_mark();
        assert_eq!(marked(&mark), 0);
        let mut command = Command::new("cat");
        command.env(MARK, &mark).stdin(std::process::Stdio::piped());
        let mut children = [command.spawn().unwrap(), command.spawn().unwrap()];
        assert_eq!((marked(&mark), left_behind(&mark)), (2, 2));
        for child in &mut children {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
        assert_eq!((marked(&mark), left_behind(&mark)), (0, 0));
        assert_ne!(mark, new_mark());
    }

    #[test]
    fn each_line_names_what_it_is_about() {
        let port = NonZeroU16::new(80).unwrap();
        let addresses = ["0.0.0.0:8080".parse().unwrap(), "[::]:8080".parse().unwrap()];
        for (line, words) in [
            (elsewhere(port, &addresses), &["port 80 ", "0.0.0.0:8080, [::]:8080", "--listen-as 8080"][..]),
            (elsewhere(port, &[]), &["port 80 ", "nor on any other"]),
            (held(&[]), &["does not see"]),
            (held(&[7]), &["process 7 holds"]),
            (held(&[7, 8]), &["processes 7, 8 hold"]),
            (held(&(1..=10).collect::<Vec<_>>()), &["processes 1, 2,", "7, 8 and 2 more hold"]),
            (left(1), &["1 process behind", "daemon off;"]),
            (left(2), &["2 processes behind"]),
        ] {
            assert!(words.iter().all(|word| line.contains(word)), "{line}");
        }
    }
}
