//! Work on files of other processes, on a thread that has a table of files of its own.
//!
//! Whoever has had a file decides how long close(2) takes: a socket can linger, and a file system in user space
//! answers when it likes. Files that are taken count against a limit, too. So such a file never comes into the table
//! of this process: closing a duplicate there, and making such a thread, would write back what the file has (`flush`).
//! It comes into that of a thread which begins with an empty one. When the thread ends, the kernel
//! releases what is left in it, and for a thread that ends no socket lingers (`PF_EXITING` in `inet_release`,
//! net/ipv4/af_inet.c).

use std::{
    fmt, io,
    marker::PhantomData,
    mem::ManuallyDrop,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
    path::Path,
    sync::{Mutex, PoisonError, mpsc},
    thread,
};

use super::{
    inject::point,
    namespace::{pidfd_getfd, pidfd_open},
};

/// Says that this thread has a table of files of its own. Fds of other threads mean nothing here.
#[derive(Debug)]
pub struct Aside {
    thread: i32,
    /// It stays on its thread.
    _stays: PhantomData<*const ()>,
}

/// A file that another process has, too. The end of the thread releases it, never close(2).
pub struct Taken<'a>(ManuallyDrop<OwnedFd>, PhantomData<&'a Aside>);

impl AsFd for Taken<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl fmt::Debug for Taken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Taken").field(&self.0.as_raw_fd()).finish()
    }
}

impl Aside {
    /// The number of this thread.
    #[must_use]
    pub fn thread(&self) -> i32 {
        self.thread
    }

    /// Duplicates another process's fd.
    ///
    /// # Errors
    ///
    /// As [`pidfd_getfd`].
    pub fn take(&self, pidfd: impl AsFd, fd: RawFd) -> io::Result<Taken<'_>> {
        pidfd_getfd(pidfd, fd).map(|file| Taken(ManuallyDrop::new(file), PhantomData))
    }
}

/// Work that has begun.
#[derive(Debug)]
pub struct Running<T> {
    /// The thread that does it.
    pub thread: i32,
    /// What comes of it. It ends without it when the work has panicked.
    pub result: mpsc::Receiver<T>,
}

/// Runs a closure on a thread that has no files but duplicates of these, in this order. What comes of it must hold no
/// fd, which would mean another file here, and the closure must wake no task: the runtime would write to an fd that
/// means another file there. Returns when the duplicates are made, without waiting for the work.
///
/// # Errors
///
/// When the thread cannot be made, or as close_range(2), pidfd_open(2), pidfd_getfd(2).
pub fn run<T: Send + 'static>(
    files: &[BorrowedFd<'_>],
    work: impl FnOnce(&Aside, &[OwnedFd]) -> T + Send + 'static,
) -> io::Result<Running<T>> {
    let numbers: Vec<RawFd> = files.iter().map(std::os::fd::AsRawFd::as_raw_fd).collect();
    let (begun, has_begun) = mpsc::sync_channel(1);
    let (done, result) = mpsc::sync_channel(1);
    thread::Builder::new().name("aside".into()).spawn(move || {
        let aside = Aside { thread: nix::unistd::gettid().as_raw(), _stays: PhantomData };
        let duplicates = leave_files().and_then(|()| duplicates(&numbers));
        let (files, told) = match duplicates {
            Ok(files) => (files, Ok(aside.thread)),
            Err(error) => (Vec::new(), Err(error)),
        };
        let is_ready = told.is_ok();
        if begun.send(told).is_ok() && is_ready {
            // Nobody may wait for it any more.
            let _told: Result<(), _> = done.send(work(&aside, &files));
        }
        // One of them may be the last duplicate by now: released with the rest.
        files.into_iter().for_each(std::mem::forget);
    })?;
    let thread = has_begun.recv().map_err(io::Error::other)??;
    Ok(Running { thread, result })
}

/// Gives this thread a table of its own, with the standard streams only: what is logged must not go to a file that
/// was taken. Minimum kernel 5.9.
fn leave_files() -> io::Result<()> {
    const FIRST: libc::c_uint = 3;
    point("close_range")?;
    // SAFETY: takes integers only; nothing on this thread owns an fd yet.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Of files in the table of this process.
fn duplicates(numbers: &[RawFd]) -> io::Result<Vec<OwnedFd>> {
    let process = pidfd_open(nix::unistd::getpid().as_raw())?;
    numbers.iter().map(|number| pidfd_getfd(&process, *number)).collect()
}

/// Whether a thread of this process has not ended yet.
#[must_use]
pub fn is_there(thread: i32) -> bool {
    Path::new(&format!("/proc/self/task/{thread}")).exists()
}

/// Closes sockets that somebody else has had, without waiting for what that may entail: at the end of a thread, which this
/// is the number of.
pub fn let_go(files: Vec<OwnedFd>) -> Option<i32> {
    if files.is_empty() {
        return None;
    }
    let (closed, is_closed) = mpsc::channel::<()>();
    let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    // Ours are not the last duplicates then: those are released at the end of the thread.
    let held = run(&borrowed, move |_, _| is_closed.recv().is_err());
    if let Err(error) = &held {
        tracing::warn!(%error, "close files on a thread of its own");
        // What is no socket has no such option.
        files.iter().for_each(|file| drop(socket2::SockRef::from(file).set_linger(None)));
    }
    drop(files);
    drop(closed);
    held.ok().map(|running| running.thread)
}

/// Threads of such work, until they have ended: with them this process has what they have.
#[derive(Debug, Default)]
pub struct Threads(Mutex<Vec<i32>>);

impl Threads {
    /// One more.
    pub fn add(&self, thread: i32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
    }

    /// How many have not ended.
    pub fn left(&self) -> usize {
        let mut threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| is_there(*thread));
        threads.len()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
        time::{Duration, Instant},
    };

    use super::*;

    /// A socket whose close(2) takes this long, and its peer, which reads nothing.
    fn lingering(time: Duration) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        while stream.write(&[0; 65536]).is_ok() {}
        stream.set_nonblocking(false).unwrap();
        socket2::SockRef::from(&stream).set_linger(Some(time)).unwrap();
        (stream, peer)
    }

    #[test]
    fn a_lingering_socket_that_is_let_go_of_is_closed_and_nobody_waits() {
        const TIME: Duration = Duration::from_secs(600);
        let (stream, mut peer) = lingering(TIME);
        let begin = Instant::now();
        let_go(vec![stream.into()]);
        // It has been closed: the peer gets all, and the end.
        let read = peer.read_to_end(&mut Vec::new()).unwrap();
        println!("{read} bytes");
        assert!(begin.elapsed() < TIME);
    }

    #[test]
    fn what_is_taken_is_in_the_table_of_the_thread_alone() {
        let (stream, mut peer) = lingering(Duration::from_secs(600));
        let number = stream.as_raw_fd();
        let running = run(&[stream.as_fd()], move |aside, files| {
            let own = pidfd_open(nix::unistd::getpid().as_raw()).unwrap();
            let taken = aside.take(own, number).unwrap();
            let open = std::fs::read_dir("/proc/thread-self/fd").unwrap().count();
            let inode = |fd: BorrowedFd<'_>| nix::sys::stat::fstat(fd).unwrap().st_ino;
            (open, inode(taken.as_fd()) == inode(files[0].as_fd()), aside.thread())
        })
        .unwrap();
        let thread = running.thread;
        let (open, same, own) = running.result.recv().unwrap();
        // The standard streams, the duplicate, what was taken, and the directory itself.
        assert_eq!((open, same, own), (6, true, thread));
        while is_there(thread) {
            thread::yield_now();
        }
        let_go(vec![stream.into()]);
        peer.read_to_end(&mut Vec::new()).unwrap();
    }

    #[test]
    fn without_the_file_there_is_no_work() {
        let gone = std::fs::File::open("/dev/null").unwrap();
        // SAFETY: only its number is used.
        let borrowed = unsafe { BorrowedFd::borrow_raw(gone.as_raw_fd() + 10_000) };
        let error = run(&[borrowed], |_, _| ()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }
}
