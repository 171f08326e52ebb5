//! Programs of the system: where they are, and running one to its end.

use std::{
    env,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

/// Where administrators' programs are. A user's PATH often leaves these out, on Debian for one.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// The program called `name`, on PATH or where administrators' programs are.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(SYSTEM_DIRECTORIES.map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}

/// A command for the program called `name`.
pub(crate) fn command(name: &str) -> Result<Command> {
    find(name).map(Command::new).with_context(|| format!("`{name}` is not installed"))
}

/// The running xtask: hidden commands are started from it.
pub(crate) fn myself() -> Result<PathBuf> {
    env::current_exe().context("read the path of the running xtask")
}

/// Runs `command`, which shares our standard streams, and fails if it does.
pub(crate) fn call(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {}", show(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", show(command));
    }
    Ok(())
}

/// Runs `command` quietly; what it wrote to stderr becomes part of the error.
pub(crate) fn call_quietly(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {}", show(command)))?;
    if !output.status.success() {
        let cause = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed: {}: {}", show(command), output.status, cause.trim().replace('\n', "; "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `command` as one would type it, without its environment.
pub(crate) fn show(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    format!("`{}`", words.join(" "))
}

/// One line about what we do. A closed stderr must not end us: clean-up goes through here too.
pub(crate) fn note(line: &str) {
    drop(writeln!(io::stderr(), "xtask: {line}"));
}
