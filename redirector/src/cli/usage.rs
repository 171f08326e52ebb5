//! Answers to a command line that names no command to run: help, the version, a usage error.

use std::process::ExitCode;

use super::{
    exit::{USAGE, finish, say},
    output,
};

/// Help and version as clap prints them; of an error its first line, which names the object.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // clap writes it, in colours where there is a terminal.
        return finish(output::print(|_| error.print()).map(drop));
    }
    let text = error.render().to_string();
    // A list of what is missing goes over lines that are indented.
    let mut lines = text.lines().take_while(|line| !line.is_empty());
    let mut line = lines.next().unwrap_or_default().to_owned();
    for more in lines {
        line.push(' ');
        line.push_str(more.trim());
    }
    say("error", line.strip_prefix("error: ").unwrap_or(&line));
    say("hint", "`redirector help` shows the commands, `redirector help COMMAND` its options");
    USAGE.into()
}
