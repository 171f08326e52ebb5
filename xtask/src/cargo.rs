//! Calling cargo, and learning from its messages where it put what it built.

use std::{
    env,
    ffi::{OsStr, OsString},
    io::BufReader,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::{Message, TargetKind};

use crate::tool;

/// An executable that cargo built, or had built before.
pub(crate) struct Executable {
    pub(crate) path: PathBuf,
    /// The folder of its package in the repository, which is the package's name for all but `tests`.
    pub(crate) package: String,
    /// `lib`, `bin` or `test`, and the name of the target.
    pub(crate) target: String,
}

/// What an executable's tests need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Needs {
    /// Nothing: they run as the user.
    Nothing,
    /// Root, and namespaces of their own; a virtual machine will do.
    Root,
    /// Root and container engines.
    Engines,
}

impl Executable {
    pub(crate) fn needs(&self) -> Needs {
        match &*self.target {
            "test it" => Needs::Root,
            "test engines" => Needs::Engines,
            _ => Needs::Nothing,
        }
    }
}

/// The cargo that runs us, at the root of the repository.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(tool::root()).args(arguments);
    command
}

/// Runs `cargo ARGUMENTS` and returns the executables it names.
///
/// Their paths are read from cargo because target/ may be elsewhere (`CARGO_TARGET_DIR`, a user's configuration).
pub(crate) fn executables(arguments: &[&str]) -> Result<Vec<Executable>> {
    let mut command = command(arguments);
    command.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {}", tool::show(&command)))?;
    let stdout = child.stdout.take().context("take the stdout of cargo")?;
    let mut found = Vec::new();
    for message in Message::parse_stream(BufReader::new(stdout)) {
        let Message::CompilerArtifact(artifact) = message.context("read a message of cargo")? else {
            continue;
        };
        let Some(path) = artifact.executable else { continue };
        let folder = artifact.manifest_path.parent().and_then(|folder| folder.file_name());
        let kind = artifact.target.kind.first().map_or("?".to_owned(), TargetKind::to_string);
        found.push(Executable {
            path: path.into(),
            package: folder.unwrap_or_default().to_owned(),
            target: format!("{kind} {}", artifact.target.name),
        });
    }
    let status = child.wait().context("wait for cargo")?;
    if !status.success() {
        bail!("{} failed: {status}", tool::show(&command));
    }
    Ok(found)
}

/// Those that have a test to run. None is no pass: a filter may be misspelt.
pub(crate) fn matching(executables: Vec<Executable>, arguments: &[OsString]) -> Result<Vec<Executable>> {
    let mut matching = Vec::new();
    for executable in executables {
        if arguments.is_empty() || has_matching_tests(&executable, arguments)? {
            matching.push(executable);
        }
    }
    if matching.is_empty() {
        bail!("no test matches {:?}", arguments.join(OsStr::new(" ")));
    }
    Ok(matching)
}

/// An error when one of several filters matches no test: beside the others nobody would see it.
pub(crate) fn check_each(executables: &[Executable], arguments: &[OsString]) -> Result<()> {
    let filters = filters(arguments);
    if filters.is_empty() {
        return Ok(());
    }
    let mut names = Vec::new();
    for executable in executables {
        names.extend(tests(executable, arguments)?);
    }
    match filters.into_iter().find(|filter| !names.iter().any(|name| name.contains(filter))) {
        Some(filter) => bail!("no test matches `{filter}`"),
        None => Ok(()),
    }
}

/// Those of the harness's arguments that are parts of names.
fn filters(arguments: &[OsString]) -> Vec<&str> {
    /// Options whose value may be a word of its own.
    const WITH_VALUE: [&str; 7] =
        ["--skip", "--test-threads", "--logfile", "--format", "--color", "--shuffle-seed", "-Z"];
    let mut words = arguments.iter().filter_map(|word| word.to_str());
    let mut filters = Vec::new();
    while let Some(word) = words.next() {
        if WITH_VALUE.contains(&word) {
            words.next();
        } else if !word.starts_with('-') {
            filters.push(word);
        }
    }
    filters
}

fn has_matching_tests(executable: &Executable, arguments: &[OsString]) -> Result<bool> {
    tests(executable, arguments).map(|tests| !tests.is_empty())
}

/// Asks the harness itself, so that `--exact`, `--skip` and `--ignored` count as it counts them.
fn tests(executable: &Executable, arguments: &[OsString]) -> Result<Vec<String>> {
    let list = tool::call_quietly(Command::new(&executable.path).args(arguments).arg("--list"))?;
    Ok(list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_told_from_options_and_their_values() {
        let words = ["death::", "--skip", "slow", "--nocapture", "--test-threads=1", "-Z", "x", "drop::"];
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        assert_eq!(filters(&words), ["death::", "drop::"]);
    }

    #[test]
    fn a_filter_that_matches_nothing_is_an_error_beside_one_that_matches() {
        // This very binary.
        let path = std::env::current_exe().unwrap();
        let own = [Executable { path, package: "xtask".into(), target: "bin xtask".into() }];
        let check = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            check_each(&own, &words).err().map(|error| error.to_string())
        };
        assert_eq!(check(&["cargo::tests::", "a_filter_that_"]), None);
        assert_eq!(check(&[]), None);
        let said = check(&["cargo::tests::", "no_such_test"]).unwrap();
        assert!(said.contains("`no_such_test`"), "{said}");
    }
}
