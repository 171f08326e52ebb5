//! Files that `--render` makes: written as the user that runs CMD, beside the one that is meant, and put into its place
//! whole.
//!
//! Nothing is opened that is there already: no symbolic link is followed from the last part of the path, and no FIFO or
//! device can hold us up.

use std::{
    fs::{self, File, Metadata, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::Path,
};

use tempfile::NamedTempFile;

use super::{Failure, placeholders::Placeholders, user::User};
use crate::sys;

/// A template that has been read, and the file that it is for.
#[derive(Debug)]
pub(super) struct Render {
    template: String,
    file: String,
}

impl Render {
    /// Reads the templates, and tries whether the files can be made: before there is a rule.
    pub(super) fn prepare(all: &[(String, String)], user: Option<&User>) -> Result<Vec<Self>, Failure> {
        let read = |(template, file): &(String, String)| {
            let text = fs::read_to_string(template);
            let text = text.map_err(|error| failed("read the template", template, &error))?;
            Ok(Self { template: text, file: file.clone() })
        };
        let all = all.iter().map(read).collect::<Result<Vec<_>, Failure>>()?;
        let try_all = || all.iter().try_for_each(Self::try_to_begin);
        match user {
            // This process is needed as it is.
            Some(user) if !all.is_empty() => {
                let tried = sys::in_child(|| {
                    user.become_it().and_then(|()| try_all()).err().map(|failure| failure.to_string())
                });
                let tried = tried.map_err(|error| Failure::failed(&error).of_exec())?;
                match tried {
                    None => {}
                    Some(why) => return Err(Failure::text(why).of_exec()),
                }
            }
            _ => try_all()?,
        }
        Ok(all)
    }

    /// The file's text.
    pub(super) fn filled(&self, placeholders: &Placeholders) -> Result<String, Failure> {
        placeholders.fill(&self.template)
    }

    /// Makes the file. This process is the user that runs CMD by now.
    pub(super) fn write(&self, text: &str) -> Result<(), Failure> {
        let mut new = self.begin()?;
        new.write_all(text.as_bytes()).map_err(|error| self.error(&error))?;
        new.persist(&self.file).map(drop).map_err(|failure| self.error(&failure.error))
    }

    /// Whether a file can be made beside it. One without a name, where the file system has such: whatever ends this process
    /// then leaves nothing.
    fn try_to_begin(&self) -> Result<(), Failure> {
        let before = self.before()?;
        let mut nameless = OpenOptions::new();
        nameless.write(true).custom_flags(libc::O_TMPFILE);
        match nameless.open(self.beside()) {
            Ok(made) => self.make_as(before.as_ref(), &made),
            // `EISDIR`: the kernel's own way to say so, before it knew of O_TMPFILE.
            Err(failure) if matches!(failure.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
                self.begin().map(drop)
            }
            Err(failure) => Err(self.error(&failure)),
        }
    }

    /// An empty file beside it, with its owner and mode.
    fn begin(&self) -> Result<NamedTempFile, Failure> {
        let before = self.before()?;
        let usual = Permissions::from_mode(0o666);
        let new =
            tempfile::Builder::new().prefix(".redirector-").permissions(usual).tempfile_in(self.beside());
        let new = new.map_err(|error| self.error(&error))?;
        self.make_as(before.as_ref(), new.as_file())?;
        Ok(new)
    }

    /// What is there already.
    fn before(&self) -> Result<Option<Metadata>, Failure> {
        match fs::symlink_metadata(&self.file) {
            Ok(metadata) if metadata.is_file() => Ok(Some(metadata)),
            Ok(metadata) => {
                let why = format!("it is {}, not a regular file", kind(metadata.file_type()));
                Err(self.error(&io::Error::other(why)))
            }
            Err(failure) if failure.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(failure) => Err(self.error(&failure)),
        }
    }

    fn beside(&self) -> &Path {
        match Path::new(&self.file).parent() {
            Some(directory) if directory != Path::new("") => directory,
            _ => Path::new("."),
        }
    }

    /// Gives a file the owner and the mode of the one that was there before.
    fn make_as(&self, before: Option<&Metadata>, made: &File) -> Result<(), Failure> {
        let Some(before) = before else { return Ok(()) };
        let make = || {
            let now = made.metadata()?;
            if (now.uid(), now.gid()) != (before.uid(), before.gid()) {
                match fchown(made, Some(before.uid()), Some(before.gid())) {
                    // Another user's, in a directory where this one may replace it.
                    Err(failure) if failure.kind() == io::ErrorKind::PermissionDenied => {}
                    result => result?,
                }
            }
            made.set_permissions(Permissions::from_mode(before.mode() & 0o777))
        };
        make().map_err(|error| self.error(&error))
    }

    fn error(&self, error: &io::Error) -> Failure {
        failed("write", &self.file, error)
    }
}

fn kind(kind: fs::FileType) -> &'static str {
    if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

fn failed(call: &str, path: &str, error: &io::Error) -> Failure {
    Failure::failed(&io::Error::new(error.kind(), format!("{call} `{path}`: {error}"))).of_exec()
}
