//! Of `redirector apply`, `check` and `export`.

use std::path::PathBuf;

use crate::config::SetName;

/// A name that is no path, and not the one of standard input.
fn set(name: &str) -> Result<SetName, String> {
    match name {
        "" | SetName::UNNAMED => Err("a set needs a name".into()),
        _ if name.starts_with('/') => {
            Err("a set that is named by a path is that file's: leave `--set` out".into())
        }
        _ if name.len() > 255 || name.chars().any(char::is_control) => Err("not a name".into()),
        _ => Ok(SetName::new(name)),
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Prints a line for each rule that becomes other: + it is new, ~ it is changed, - it goes.
A file has all of its rules: one that it had when it was applied before, and has not any more, goes. So do those of a file that is
gone from a directory. Rules of other files stay. Rules of `attach` stay, unless the file says the same, and those of `exec`
always do. What standard input says is a set without a name; what it has as another set has it stays that set's.

Exit codes: 0 applied, or nothing is other; 5 a dry run found differences; 2 the file has problems; 1 it could not be
applied, and nothing is changed.")]
pub(in crate::cli) struct Apply {
    /// Files, and directories whose `*.toml` are read; `-` is standard input
    #[arg(value_name = "FILE", required = true)]
    pub(in crate::cli) files: Vec<PathBuf>,

    /// The name of the set that all of them are [default: each file is a set, named by its path]
    #[arg(long, value_name = "NAME", value_parser = set)]
    pub(in crate::cli) set: Option<SetName>,

    /// Replace the rules of every other set as well
    #[arg(long)]
    pub(in crate::cli) replace: bool,

    /// Say what would be done, but do nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,

    /// Take over the rules of `attach` as well: those that the file does not have go
    #[arg(long)]
    pub(in crate::cli) prune: bool,

    /// Let rules wait for targets that are not there yet, and be down while their destination is not found
    #[arg(long)]
    pub(in crate::cli) wait: bool,

    /// Print a JSON document
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Export {
    /// Print a JSON document
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Check {
    /// The file; `-` is standard input
    #[arg(value_name = "FILE", required_unless_present = "schema", conflicts_with = "schema")]
    pub(in crate::cli) file: Option<PathBuf>,

    /// Print the JSON schema of configuration files instead
    #[arg(long)]
    pub(in crate::cli) schema: bool,

    /// Print a JSON document
    #[arg(long, conflicts_with = "schema")]
    pub(in crate::cli) json: bool,
}
