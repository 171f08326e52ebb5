//! `redirector man`: the manual, one page for each command, and one for the configuration file.
//!
//! Options are those of the command line itself. What it does not know (exit codes, environment, files, examples) is
//! in `sections` and `examples`; a command without them does not build a page, and tests ask for all of them.

mod examples;
mod file;
mod page;
mod sections;

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use clap::CommandFactory as _;

use super::{args, exit::Failure, output};

pub(super) fn man(command: &args::Man) -> Result<(), Failure> {
    let failed = |call: &str, path: &Path, error: io::Error| {
        Failure::failed(&io::Error::new(error.kind(), format!("{call} `{}`: {error}", path.display())))
    };
    let directory = &command.directory;
    fs::create_dir_all(directory).map_err(|error| failed("make the directory", directory, error))?;
    for (name, page) in pages()? {
        let path = directory.join(name);
        fs::write(&path, page).map_err(|error| failed("write", &path, error))?;
        output::print(|out| writeln!(out, "{}", path.display()))?;
    }
    Ok(())
}

/// File names and what is in them.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut command = args::Args::command().disable_help_subcommand(true);
    command.build();
    let all = [&command].into_iter().chain(command.get_subcommands());
    all.map(|command| Ok((format!("{}.1", page::title(command)), page::render(command)?)))
        .chain([file::render().map(|page| (file::NAME.to_owned(), page))])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_with_every_section() {
        let pages = pages().unwrap();
        let count = args::Args::command().get_subcommands().count() + 2;
        assert_eq!(pages.len(), count);
        for (name, page) in pages.into_iter().filter(|(name, _)| name != file::NAME) {
            let page = String::from_utf8(page).unwrap();
            for section in ["NAME", "SYNOPSIS", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES"]
            {
                let heading = format!(".SH {section}\n");
                assert!(page.replace('"', "").contains(&heading), "{name} has no {section}: {page}");
            }
        }
    }
}
