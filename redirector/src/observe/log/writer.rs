//! The thread that writes the log: the only one that a log which cannot be written can hold up.

use std::{io, os::fd::AsFd, time::Duration};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::write,
};

use super::queue::{Entry, Queue};

/// How often it is tried again to say that lines were lost, when there is nothing else to write.
const RETRY: Duration = Duration::from_secs(2);

/// Writes what is in the queue, for ever. `notice` makes a line that says how many before it were lost.
pub(super) fn write_all(queue: &Queue, output: impl AsFd, notice: impl Fn(u64) -> Vec<u8>) {
    let mut output = Output { fd: output, is_torn: false };
    // Lost, and not said yet.
    let mut untold = 0;
    loop {
        let entry = queue.next((untold > 0).then_some(RETRY));
        if let Some(Entry::Lost(count)) = entry {
            untold += count;
        }
        if untold > 0 && output.put(&notice(untold)).is_ok() {
            untold = 0;
        }
        if let Some(Entry::Line(line)) = entry
            && (untold > 0 || output.put(&line).is_err())
        {
            queue.count_lost();
            untold += 1;
        }
    }
}

/// Where the lines go.
struct Output<F> {
    fd: F,
    /// What was written last is not a whole line.
    is_torn: bool,
}

impl<F: AsFd> Output<F> {
    /// Writes one line, after the end of one that was torn.
    fn put(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.write(b"\n")?;
            self.is_torn = false;
        }
        self.write(line)
    }

    fn write(&mut self, mut rest: &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            match write(&self.fd, rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.is_torn = rest[count - 1] != b'\n';
                    rest = &rest[count..];
                }
                Err(Errno::EINTR) => {}
                // Somebody else has made it non-blocking: it is shared with all who have it.
                Err(Errno::EAGAIN) => self.wait()?,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn wait(&self) -> io::Result<()> {
        match poll(&mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Whether something can be written to this within the time limit, a little of it at least. An error counts: it does not
/// wait either.
#[must_use]
pub fn is_writable(output: impl AsFd, limit: Duration) -> bool {
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    let mut one = [PollFd::new(output.as_fd(), PollFlags::POLLOUT)];
    poll(&mut one, limit).is_ok_and(|count| count > 0)
}
