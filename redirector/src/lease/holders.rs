//! Which processes have a listener that was given away, as `/proc` shows them.
//!
//! A look takes one duplicate of each socket, however many there are, and compares the others with that one where
//! they are. What it costs is bounded ([`Budget`]), so it may see a part only: then nothing is known of what it has
//! not found.

use std::{
    collections::{HashMap, HashSet},
    fs,
    hash::{BuildHasher as _, RandomState},
    io,
    ops::ControlFlow,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::{Mutex, PoisonError},
};

use nix::sys::signal::Signal;
use socket2::SockRef;

use super::{
    budget::Budget,
    leased::LeasedSocket,
    task::{FdKind, Process, Task},
};
use crate::sys::{
    aside::{Aside, Taken},
    namespace::{FileOf, is_same_file, is_same_table, pidfd_open, pidfd_send_signal},
    socket::is_listening,
};

/// How far a look got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coverage {
    /// Who was not found is not there.
    All,
    /// Who was not found may be there.
    Part,
}

/// Where somebody has a socket. It says nothing about a moment later: what is taken from there must be looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketAt {
    pub(crate) task: Task,
    pub(crate) fd: i32,
    pub(crate) inode: u64,
    pub(crate) cookie: u64,
}

impl SocketAt {
    /// A duplicate of the socket.
    pub(crate) fn take<'a>(&self, aside: &'a Aside) -> io::Result<Taken<'a>> {
        let socket = self.task.take(aside, self.fd, self.inode)?;
        // Cookies are never used again; inode numbers are.
        let is_it = SockRef::from(&socket).cookie()? == self.cookie;
        if is_it { Ok(socket) } else { Err(io::Error::other("another socket was got")) }
    }
}

/// A process that has one of the listeners.
#[derive(Debug)]
pub(crate) struct HoldingProcess {
    pid: i32,
    process: OwnedFd,
    pub(crate) place: SocketAt,
}

/// What is taken in one look at most: sockets come and go under the same inode number.
const TAKEN: u32 = 256;

/// Threads of one process with tables of fds of their own that are looked at.
const TABLES: usize = 64;

/// What came of a look.
pub(crate) struct Searched<'a> {
    pub(crate) seen: Coverage,
    /// A duplicate of each socket that was found, by cookie.
    pub(crate) taken: HashMap<u64, Taken<'a>>,
}

/// Goes through everybody who has one of these sockets, this process apart: once for each process and socket. Who got
/// them comes first. Blocks.
pub(crate) fn search<'a>(
    aside: &'a Aside,
    sockets: &'a [LeasedSocket],
    found: impl FnMut(&HoldingProcess) -> ControlFlow<()>,
) -> Searched<'a> {
    let mut look = Look {
        aside,
        sockets,
        found,
        budget: Budget::new(),
        different: sockets.iter().map(|one| one.cookie).collect::<HashSet<_>>().len(),
        takes: TAKEN,
        outcome: Searched { seen: Coverage::All, taken: HashMap::new() },
    };
    // Whoever wants no more has broken off.
    let _end: ControlFlow<()> = look.all();
    look.outcome
}

/// The processes there are, this one apart. Those with few files come first: whoever has many may hide there what he has
/// himself, but nothing of others. Those with as many begin anywhere: a look that sees a part must not always see the same.
fn others() -> io::Result<Vec<i32>> {
    let own = i32::try_from(std::process::id()).ok();
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    pids.retain(|pid| Some(*pid) != own);
    let any = RandomState::new();
    // Their number, from Linux 6.2 on; 0 before.
    let files = |pid: i32| fs::metadata(format!("/proc/{pid}/fd")).map_or(0, |folder| folder.len());
    pids.sort_by_cached_key(|pid| (files(*pid), any.hash_one(pid)));
    Ok(pids)
}

struct Look<'a, F> {
    aside: &'a Aside,
    sockets: &'a [LeasedSocket],
    found: F,
    budget: Budget,
    /// One that is for both families is there twice.
    different: usize,
    takes: u32,
    outcome: Searched<'a>,
}

impl<F: FnMut(&HoldingProcess) -> ControlFlow<()>> Look<'_, F> {
    fn all(&mut self) -> ControlFlow<()> {
        let first: HashSet<i32> = self.sockets.iter().filter_map(|one| one.receiver).collect();
        first.iter().try_for_each(|pid| self.process(*pid))?;
        let others = if self.sockets.is_empty() { Ok(Vec::new()) } else { others() };
        let Ok(others) = others else { return self.is_partial() };
        for pid in others.into_iter().filter(|pid| !first.contains(pid)) {
            if self.budget.is_spent() {
                return self.is_partial();
            }
            self.process(pid)?;
        }
        ControlFlow::Continue(())
    }

    /// Notes that something is not seen.
    fn is_partial(&mut self) -> ControlFlow<()> {
        self.outcome.seen = Coverage::Part;
        ControlFlow::Continue(())
    }

    /// Whether a thread has files, as far as that can be seen.
    fn has_files(&mut self, task: Task) -> bool {
        task.has_files().unwrap_or_else(|_| {
            self.outcome.seen = Coverage::Part;
            false
        })
    }

    fn process(&mut self, pid: i32) -> ControlFlow<()> {
        self.budget.begin_process();
        let mut tables = Vec::new();
        let mut here = HashSet::new();
        // Its first thread comes first. It may have ended, and others may have tables of their own.
        if self.has_files(Task(pid)) {
            tables.push(pid);
            self.table(pid, Task(pid), &mut here)?;
        }
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
            // It has ended.
            return ControlFlow::Continue(());
        };
        let tasks = tasks.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        for task in tasks.filter(|task| *task != pid) {
            if !self.budget.spend() {
                return self.is_partial();
            }
            // Without kcmp(2) each is taken for having the first one's.
            let is_known = |table: &i32| is_same_table(*table, task).unwrap_or(true);
            if tables.iter().any(is_known) || !self.has_files(Task(task)) {
                continue;
            }
            if tables.len() == TABLES {
                return self.is_partial();
            }
            tables.push(task);
            self.table(pid, Task(task), &mut here)?;
        }
        ControlFlow::Continue(())
    }

    /// Looks at one table of fds. `here`: the cookies that were found in this process.
    fn table(&mut self, pid: i32, task: Task, here: &mut HashSet<u64>) -> ControlFlow<()> {
        for (fd, file) in task.files() {
            if here.len() == self.different {
                break;
            }
            if !self.budget.spend() {
                return self.is_partial();
            }
            let FdKind::Socket(inode) = file else { continue };
            let Some(socket) = self.sockets.iter().find(|one| one.inode == inode) else { continue };
            if here.contains(&socket.cookie) {
                continue;
            }
            let place = SocketAt { task, fd, inode, cookie: socket.cookie };
            // Before it is made sure that it has the socket: then it is the one that has.
            let Ok(process) = pidfd_open(pid) else { continue };
            if self.is_there(&place) {
                here.insert(place.cookie);
                let holder = HoldingProcess { pid, process, place };
                (self.found)(&holder)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Whether it is the socket, and not another one with its inode number.
    fn is_there(&mut self, place: &SocketAt) -> bool {
        if let Some(taken) = self.outcome.taken.get(&place.cookie) {
            let own = FileOf { thread: self.aside.thread(), fd: taken.as_fd().as_raw_fd() };
            match is_same_file(own, FileOf { thread: place.task.0, fd: place.fd }) {
                Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {}
                same => return same.unwrap_or(false),
            }
        }
        let Some(left) = self.takes.checked_sub(1) else {
            self.outcome.seen = Coverage::Part;
            return false;
        };
        self.takes = left;
        match place.take(self.aside) {
            Ok(taken) => {
                self.outcome.taken.entry(place.cookie).or_insert(taken);
                true
            }
            Err(error) => {
                // Files that come and go are not to be had; that says nothing about those that stay.
                if !matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EBADF)) {
                    self.outcome.seen = Coverage::Part;
                }
                false
            }
        }
    }
}

/// A place where one of these is that still listens.
pub(crate) fn find(aside: &Aside, sockets: &[LeasedSocket]) -> Option<SocketAt> {
    let mut place = None;
    let Searched { taken, .. } = search(aside, sockets, |holder| {
        place = Some(holder.place);
        ControlFlow::Break(())
    });
    // All who have it have the same one.
    place.filter(|place| taken.get(&place.cookie).is_some_and(listens))
}

pub(crate) fn listens(socket: &Taken<'_>) -> bool {
    is_listening(socket).unwrap_or(false)
}

/// The cookies of those of these sockets that somebody holds. One look for all of them.
pub(crate) fn held(aside: &Aside, sockets: &[LeasedSocket]) -> (HashSet<u64>, Coverage) {
    let mut missing: HashSet<u64> = sockets.iter().map(|one| one.cookie).collect();
    let Searched { seen, taken } = search(aside, sockets, |holder| {
        missing.remove(&holder.place.cookie);
        if missing.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    (taken.into_keys().collect(), seen)
}

/// The processes that hold these sockets, by the cookies of these. One look for all of them.
pub(crate) fn holders_of(aside: &Aside, sockets: &[LeasedSocket]) -> (HashMap<u64, Vec<Process>>, Coverage) {
    let mut holders = HashMap::<u64, Vec<Process>>::new();
    let Searched { seen, .. } = search(aside, sockets, |holder| {
        // While it can be sent a signal, its number is nobody else's.
        if let Ok(process) = Process::at(holder.pid)
            && pidfd_send_signal(holder.process.as_fd(), 0).is_ok()
        {
            holders.entry(holder.place.cookie).or_default().push(process);
        }
        ControlFlow::Continue(())
    });
    (holders, seen)
}

/// What came of looking for who holds listeners, and shutting these down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShutDown {
    pub(crate) seen: Coverage,
    /// By anybody.
    pub(crate) is_held: bool,
}

impl ShutDown {
    /// Whether another look has nothing to do: everybody was seen, and who is to end has ended, and cannot fork.
    pub(crate) fn is_enough(self, order: Option<&Order>) -> bool {
        self.seen == Coverage::All && (order.is_none() || !self.is_held)
    }
}

/// A signal for who holds listeners, as far as it is this user's: anybody can be sent a listener. Each process gets it
/// once, in however many looks it is found: some programs take a second SIGTERM for impatience. Of many, those that have ended
/// are forgotten: a program may fork for as long as it may live.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) signal: Signal,
    user: u32,
    told: Mutex<HashSet<Process>>,
}

/// So many processes may have ended that are remembered as told.
const MANY: usize = 1024;

impl Order {
    pub(crate) fn new(signal: Signal, user: u32) -> Self {
        Self { signal, user, told: Mutex::default() }
    }

    /// Whether this process has not been told; from now on it has.
    pub(crate) fn is_new_to(&self, process: Process) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= told.capacity() && told.len() >= MANY {
            told.retain(|process| process.is_there());
            // Not again before it is twice as many.
            let left = told.len();
            told.reserve(left);
        }
        told.insert(process)
    }

    /// One that has ended needs no signal.
    fn give(&self, holder: &HoldingProcess) {
        let Ok(process) = Process::at(holder.pid) else { return };
        if Task(holder.pid).user().is_ok_and(|theirs| theirs == self.user) && self.is_new_to(process) {
            drop(pidfd_send_signal(holder.process.as_fd(), self.signal as i32));
        }
    }
}

/// Tells who holds them, and then shuts them down: who accepts from one is woken.
pub(crate) fn shut_down(aside: &Aside, sockets: &[LeasedSocket], order: Option<&Order>) -> ShutDown {
    let mut is_held = false;
    let Searched { seen, taken } = search(aside, sockets, |holder| {
        is_held = true;
        if let Some(order) = order {
            order.give(holder);
        }
        ControlFlow::Continue(())
    });
    for socket in taken.values() {
        // It was shut down before when this fails.
        drop(SockRef::from(socket).shutdown(std::net::Shutdown::Both));
    }
    ShutDown { seen, is_held }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_enough_when_it_saw_everybody_and_whoever_is_to_end_has_ended() {
        let order = Order::new(Signal::SIGKILL, 0);
        for (seen, is_held, tells, is_enough) in [
            (Coverage::All, false, true, true),
            // It may have forked since.
            (Coverage::All, true, true, false),
            (Coverage::Part, false, true, false),
            (Coverage::Part, true, true, false),
            // Who is not told does not end.
            (Coverage::All, true, false, true),
            (Coverage::Part, false, false, false),
        ] {
            let order = tells.then_some(&order);
            assert_eq!(
                ShutDown { seen, is_held }.is_enough(order),
                is_enough,
                "{seen:?}, {is_held}, {tells}"
            );
        }
    }

    #[test]
    fn each_process_is_told_once() {
        let order = Order::new(Signal::SIGTERM, 0);
        let own = Process::at(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(order.is_new_to(own));
        assert!(!order.is_new_to(own));
        assert!(Order::new(Signal::SIGKILL, 0).is_new_to(own));
        for number in 0..100 * MANY {
            assert!(order.is_new_to(Process::ended(number)));
        }
        assert!(order.told.lock().unwrap().len() < 10 * MANY);
        assert!(!order.is_new_to(own), "it has not ended");
    }
}
