//! A configuration file, as commands get it: read, and its problems told each with its place.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::exit::Failure;
use crate::{
    config::file::{ConfigFile, MAX_SIZE, Position, Problem},
    control::Refusal,
    text,
};

/// As many are told as fit on some screens.
const TOLD: usize = 200;

/// A file that could be read.
#[derive(Debug)]
pub(super) struct SourceFile {
    path: PathBuf,
    content: Vec<u8>,
}

impl SourceFile {
    /// Reads a file; `-` is standard input.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::text(format!("file `{}`: {error}", path.display()));
        let mut content = Vec::new();
        // One byte more shows that there is more.
        let most = MAX_SIZE as u64 + 1;
        if path == Path::new("-") {
            io::stdin().lock().take(most).read_to_end(&mut content)
        } else {
            File::open(path).and_then(|file| file.take(most).read_to_end(&mut content))
        }
        .map_err(failed)?;
        if content.len() > MAX_SIZE {
            let message = format!(
                "file `{}`: larger than {} MiB, the most that is read",
                path.display(),
                MAX_SIZE >> 20
            );
            return Err(Failure::usage(message));
        }
        Ok(Self { path: path.to_owned(), content })
    }

    /// Reads a daemon's own file, which is there to be read again: a pipe would be empty then, and wait for a writer.
    pub(super) fn read_again(path: &Path) -> Result<Self, Failure> {
        let kind = fs::metadata(path).map(|metadata| metadata.file_type());
        if path == Path::new("-") || kind.is_ok_and(|kind| !kind.is_file() && !kind.is_dir()) {
            let message =
                format!("file `{}`: not a file that can be read again, as SIGHUP asks for", path.display());
            return Err(Failure::usage(message));
        }
        Self::read(path)
    }

    /// What it says; else everything that is wrong with it.
    pub(super) fn parse(&self) -> Result<ConfigFile, Vec<Problem>> {
        ConfigFile::parse(&self.content)
    }

    /// As [`Self::parse`], the problems told.
    pub(super) fn parse_or_tell(&self) -> Result<ConfigFile, Failure> {
        self.parse().map_err(|problems| self.refuse(&problems))
    }

    /// One of them.
    pub(super) fn problem(file: &ConfigFile, refusal: &Refusal) -> Problem {
        Problem {
            place: file.place(refusal.namespace, refusal.rule).unwrap_or_default(),
            message: refusal.message.clone(),
            hint: refusal.hint.clone(),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Tells a problem.
    pub(super) fn tell(&self, Problem { place, message, hint }: &Problem) {
        self.say_at("error", *place, message);
        if let Some(hint) = hint {
            self.say_at("hint", *place, hint);
        }
    }

    /// Tells the problems, and what comes of them.
    pub(super) fn refuse(&self, problems: &[Problem]) -> Failure {
        problems.iter().take(TOLD).for_each(|problem| self.tell(problem));
        Failure::usage(format!(
            "file `{}`: {}; nothing is changed",
            self.path.display(),
            self::problems(problems.len())
        ))
    }

    /// Tells what may surprise.
    pub(super) fn warn(&self, warnings: &[Problem]) {
        for Problem { place, message, .. } in warnings.iter().take(TOLD) {
            self.say_at("warning", *place, message);
        }
    }

    /// One line about a place.
    fn say_at(&self, what: &str, place: Position, text: &str) {
        let path = self.path.display().to_string();
        super::exit::say_plainly(&format!("{}:{place}: {what}: {text}", text::escaped(&path)));
    }
}

/// So many problems, in words.
pub(super) fn problems(count: usize) -> String {
    let counted = counted(count, "problem");
    if count > TOLD { format!("{counted}, of which the first {TOLD} are told") } else { counted }
}

/// So many things, in words.
pub(super) fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
