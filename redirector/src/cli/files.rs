//! Several configuration files, as `apply` and `run` take them: each is a set of its own, unless they are given one name.

use std::{
    fs, io, mem,
    path::{self, Path, PathBuf},
};

use super::{
    exit::Failure,
    file::{SourceFile, problems},
};
use crate::{
    config::{
        SetName,
        file::{ConfigFile, DaemonOptions, Problem},
    },
    control::{ApplyRequest, Error, FileSet, Refusal},
};

/// What somebody has named: files, and directories of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Paths {
    pub(super) all: Vec<PathBuf>,
    /// Those that need not be there.
    pub(super) optional: Vec<PathBuf>,
}

impl Paths {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty() && self.optional.is_empty()
    }
}

/// Whether a file is read once, or has to be there to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Once,
    AgainAndAgain,
}

/// ConfigFiles that could be read.
#[derive(Debug, Default)]
pub(super) struct Sources {
    list: Vec<(SetName, SourceFile)>,
    /// Sets that are empty: their file need not be there, and is not.
    absent: Vec<SetName>,
    /// Directories that were read whole.
    directories: Vec<String>,
}

/// ConfigFiles without problems.
#[derive(Debug, Default)]
pub(super) struct ConfigFiles {
    sources: Sources,
    /// One for each source.
    list: Vec<ConfigFile>,
}

/// A problem, and of which file it is.
pub(super) type FileProblem<'a> = (&'a SourceFile, Problem);

impl Sources {
    /// Reads them: of a directory each `*.toml` in it, by name.
    pub(super) fn read(paths: &Paths, reading: Reading) -> Result<Self, Failure> {
        let mut sources = Self::default();
        for path in &paths.all {
            sources.add(path, reading)?;
        }
        for path in &paths.optional {
            match fs::metadata(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let absolute = path::absolute(path)?.display().to_string();
                    sources.absent.push(SetName::new(&absolute));
                    sources.directories.push(absolute);
                }
                _ => sources.add(path, reading)?,
            }
        }
        Ok(sources)
    }

    fn add(&mut self, path: &Path, reading: Reading) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::text(format!("file `{}`: {error}", path.display()));
        if !path.is_dir() {
            let source = match reading {
                Reading::Once => SourceFile::read(path)?,
                Reading::AgainAndAgain => SourceFile::read_again(path)?,
            };
            let set = match path.to_str() {
                Some(SetName::UNNAMED) => SetName::default(),
                _ => SetName::new(&fs::canonicalize(path).map_err(failed)?.display().to_string()),
            };
            self.list.push((set, source));
            return Ok(());
        }
        let entries = fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(failed)?;
        let is_meant = |path: &PathBuf| path.extension().is_some_and(|one| one == "toml") && !path.is_dir();
        let mut files: Vec<_> = entries.iter().map(fs::DirEntry::path).filter(is_meant).collect();
        files.sort();
        for file in files {
            self.add(&file, reading)?;
        }
        self.directories.push(fs::canonicalize(path).map_err(failed)?.display().to_string());
        Ok(())
    }

    /// What they say; else everything that is wrong with one of them.
    pub(super) fn parse(self) -> Result<ConfigFiles, (Self, Vec<(usize, Problem)>)> {
        let (mut list, mut wrong) = (Vec::new(), Vec::new());
        for (index, (_, source)) in self.list.iter().enumerate() {
            match source.parse() {
                Ok(file) => list.push(file),
                Err(problems) => wrong.extend(problems.into_iter().map(|problem| (index, problem))),
            }
        }
        if wrong.is_empty() { Ok(ConfigFiles { sources: self, list }) } else { Err((self, wrong)) }
    }

    /// As [`Self::parse`], the problems told.
    pub(super) fn parse_or_tell(self) -> Result<ConfigFiles, Failure> {
        self.parse().map_err(|(sources, wrong)| {
            let mut wrong = wrong.into_iter().peekable();
            let mut all = Vec::new();
            while let Some((index, first)) = wrong.next() {
                let mut of_file = vec![first];
                while let Some((_, problem)) = wrong.next_if(|(next, _)| *next == index) {
                    of_file.push(problem);
                }
                all.push((index, of_file));
            }
            let told = all.iter().map(|(index, of_file)| sources.list[*index].1.refuse(of_file));
            let mut told: Vec<_> = told.collect();
            match told.len() {
                1 => told.remove(0),
                count => Failure::usage(format!("{count} files have problems; nothing is changed")),
            }
        })
    }

    /// One of them.
    pub(super) fn source(&self, index: usize) -> &SourceFile {
        &self.list[index].1
    }
}

impl ConfigFiles {
    /// `[daemon]`, of the one that has it.
    ///
    /// # Errors
    ///
    /// When several have.
    pub(super) fn daemon(&self) -> Result<DaemonOptions, Failure> {
        let said = self.sources.list.iter().zip(&self.list);
        let mut said = said.filter(|(_, file)| file.daemon != DaemonOptions::default());
        let Some(((first, _), file)) = said.next() else { return Ok(DaemonOptions::default()) };
        match said.next() {
            None => Ok(file.daemon.clone()),
            Some(((other, _), _)) => {
                Err(Failure::usage(format!("file `{other}`: `[daemon]` is in `{first}` already")))
            }
        }
    }

    /// What they want, each as a set of its own, or all as one of this name.
    pub(super) fn request(&self, set: Option<&SetName>) -> ApplyRequest {
        let files = self.sources.list.iter().zip(&self.list);
        let mut sets: Vec<FileSet> = Vec::new();
        for ((own, _), file) in files {
            let set = set.unwrap_or(own);
            let (namespaces, discover) = (file.namespaces.clone(), file.discover.clone());
            match sets.iter_mut().find(|known| known.set == *set) {
                Some(known) => {
                    known.namespaces.extend(namespaces);
                    known.discover.extend(discover);
                }
                None => sets.push(FileSet { set: set.clone(), namespaces, discover }),
            }
        }
        if let Some(set) = set.filter(|_| sets.is_empty()) {
            sets.push(FileSet { set: set.clone(), ..FileSet::default() });
        }
        let absent = self.sources.absent.iter().map(|set| FileSet { set: set.clone(), ..FileSet::default() });
        sets.extend(absent);
        let directories = if set.is_none() { self.sources.directories.clone() } else { Vec::new() };
        ApplyRequest { sets, directories, ..ApplyRequest::default() }
    }

    /// Which file a problem is of, and where it is there.
    pub(super) fn problem(&self, refusal: &Refusal) -> FileProblem<'_> {
        let mut namespace = refusal.namespace;
        for (index, file) in self.list.iter().enumerate() {
            if namespace < file.namespaces.len() {
                let local = Refusal { namespace, ..refusal.clone() };
                return (self.sources.source(index), SourceFile::problem(file, &local));
            }
            namespace -= file.namespaces.len();
        }
        let last = self.sources.list.len().saturating_sub(1);
        (self.sources.source(last), SourceFile::problem(&ConfigFile::default(), refusal))
    }

    /// The target that a problem is about.
    pub(super) fn target(&self, refusal: &Refusal) -> Option<String> {
        let mut all = self.list.iter().flat_map(|file| &file.namespaces);
        all.nth(refusal.namespace).map(|spec| spec.target.to_string())
    }

    /// What is wrong with them where they are to be applied.
    pub(super) fn problems(&self, error: &Error) -> Vec<FileProblem<'_>> {
        error.problems.iter().map(|refusal| self.problem(refusal)).collect()
    }

    /// Tells why they are not applied.
    pub(super) fn refused(&self, mut error: Error) -> Failure {
        let told = self.problems(&error);
        told.iter().for_each(|(source, problem)| source.tell(problem));
        let count = told.len();
        let of = match &self.sources.list[..] {
            [(_, source)] => format!("file `{}`: ", source.path().display()),
            _ => String::new(),
        };
        if count == 0 {
            return error.into();
        }
        let message = format!("{of}{}; nothing is changed", problems(count));
        mem::take(&mut error.hint);
        Failure::from(Error { message, ..error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_its_files_by_name_and_each_is_a_set() {
        let dir = tempfile::tempdir().unwrap();
        let rule = "[[namespace.rule]]\nmatch = [\"tcp:80\"]\nto = [\"reject\"]\n";
        let write = |name: &str, target: &str| {
            let text = format!("[[namespace]]\ntarget = \"{target}\"\n{rule}");
            fs::write(dir.path().join(name), text).unwrap();
        };
        write("b.toml", "netns:b");
        write("a.toml", "netns:a");
        write("c.conf", "netns:c");
        fs::create_dir(dir.path().join("d.toml")).unwrap();
        let absent = dir.path().join("absent.toml");
        let paths = Paths { all: vec![dir.path().to_owned()], optional: vec![absent.clone()] };
        let files = Sources::read(&paths, Reading::AgainAndAgain).unwrap().parse().ok().unwrap();
        let request = files.request(None);
        let canonical = fs::canonicalize(dir.path()).unwrap();
        let sets: Vec<_> = request.sets.iter().map(|one| one.set.to_string()).collect();
        let name = |name: &str| canonical.join(name).display().to_string();
        assert_eq!(sets, [name("a.toml"), name("b.toml"), absent.display().to_string()]);
        assert_eq!(request.directories[0], canonical.display().to_string());
        let targets: Vec<_> =
            request.sets.iter().flat_map(|one| &one.namespaces).map(|one| one.target.to_string()).collect();
        assert_eq!(targets, ["netns:a", "netns:b"]);
        // A problem of the second namespace is the second file's.
        let refusal =
            Refusal { namespace: 1, rule: Some(0), message: "no".into(), hint: None, is_flaw: true };
        let (source, problem) = files.problem(&refusal);
        assert!(source.path().ends_with("b.toml") && problem.message == "no", "{problem:?}");
        assert_eq!(files.target(&refusal).as_deref(), Some("netns:b"));
        let named = files.request(Some(&SetName::new("team")));
        assert_eq!((named.sets.len(), named.sets[0].namespaces.len(), named.directories.len()), (2, 2, 0));
    }

    #[test]
    fn only_one_file_says_how_the_daemon_is_set_up() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { all: vec![dir.path().to_owned()], optional: Vec::new() };
        let read = || Sources::read(&paths, Reading::Once).unwrap().parse().ok().unwrap();
        assert_eq!(read().daemon().ok(), Some(DaemonOptions::default()));
        fs::write(dir.path().join("a.toml"), "[daemon]\nmax_connections = 7\n").unwrap();
        assert!(read().daemon().is_ok_and(|daemon| daemon.max_connections.is_some()));
        fs::write(dir.path().join("b.toml"), "[daemon]\nmax_connections = 8\n").unwrap();
        assert!(read().daemon().is_err());
    }
}
