//! Of `redirector apply`, `check` and `export`.

use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Prints a line for each rule that becomes other: + it is new, ~ it is changed, - it goes.
The file has all of its rules: one that was applied and is not in the file any more goes. Rules of `attach` stay, unless
the file says the same, and leases always do.

Exit codes: 0 applied, or nothing is other; 5 a dry run found differences; 2 the file has problems; 1 it could not be
applied, and nothing is changed.")]
pub(in crate::cli) struct Apply {
    /// The file; `-` is standard input
    #[arg(value_name = "FILE")]
    pub(in crate::cli) file: PathBuf,

    /// Say what would be done, but do nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,

    /// Take over the rules of `attach` as well: those that the file does not have go
    #[arg(long)]
    pub(in crate::cli) prune: bool,

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
