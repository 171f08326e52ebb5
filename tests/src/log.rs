//! Where a daemon's log goes when nobody reads it.

use std::{
    env,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::fd::OwnedFd,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    pty::openpty,
};

/// A place for a log.
#[derive(Debug)]
pub struct Log {
    /// What the daemon gets as stderr.
    stderr: OwnedFd,
    /// Kept open, and not read before the test says so.
    reader: Option<OwnedFd>,
}

impl Log {
    /// A pipe whose reader is gone: `EPIPE`.
    #[must_use]
    pub fn closed() -> Self {
        let (_, writer) = io::pipe().expect("pipe");
        Self { stderr: writer.into(), reader: None }
    }

    /// A pipe that is full, with a reader that does not read: a write waits for ever.
    #[must_use]
    pub fn unread() -> Self {
        let (reader, mut writer) = io::pipe().expect("pipe");
        let size = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).expect("F_SETPIPE_SZ");
        writer.write_all(&vec![b'\n'; usize::try_from(size).expect("positive")]).expect("fill the pipe");
        Self { stderr: writer.into(), reader: Some(reader.into()) }
    }

    /// The same, where somebody has made it non-blocking: `EAGAIN`.
    #[must_use]
    pub fn unread_and_non_blocking() -> Self {
        let log = Self::unread();
        fcntl(&log.stderr, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("F_SETFL");
        log
    }

    /// A full disk: `ENOSPC`.
    #[must_use]
    pub fn full() -> Self {
        Self::file(OpenOptions::new().write(true).open("/dev/full").expect("open /dev/full"))
    }

    /// A terminal that is closed: `EIO`.
    #[must_use]
    pub fn closed_terminal() -> Self {
        let terminal = openpty(None, None).expect("openpty");
        drop(terminal.master);
        Self { stderr: terminal.slave, reader: None }
    }

    /// A file.
    #[must_use]
    pub fn file(file: File) -> Self {
        Self { stderr: file.into(), reader: None }
    }

    /// What `$REDIRECTOR_TEST_LOG` asks for, for every daemon whose log no test reads: `closed`, `unread` or `full`.
    #[must_use]
    pub(crate) fn of_environment() -> Option<Self> {
        match env::var("REDIRECTOR_TEST_LOG").ok()?.as_str() {
            "closed" => Some(Self::closed()),
            "unread" => Some(Self::unread()),
            "full" => Some(Self::full()),
            other => panic!("$REDIRECTOR_TEST_LOG: `{other}`: not closed, unread or full"),
        }
    }

    /// A copy of what a process gets as stderr.
    #[must_use]
    pub fn stderr(&self) -> OwnedFd {
        self.stderr.try_clone().expect("dup")
    }

    /// A reader of what the daemon writes, from now on: it ends when the daemon does.
    #[must_use]
    pub fn reader(&self) -> impl io::Read + Send + use<> {
        let reader = self.reader.as_ref().expect("this log can be read");
        let flags = fcntl(reader, FcntlArg::F_GETFL).expect("F_GETFL");
        assert_eq!(flags & OFlag::O_NONBLOCK.bits(), 0);
        File::from(reader.try_clone().expect("dup"))
    }
}
