//! One page.

use std::io;

use clap::Command;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::{
    examples,
    sections::{self, Entry},
};

/// `redirector-attach`.
pub(super) fn title(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

/// The page of a command that has been built.
pub(super) fn render(command: &Command) -> io::Result<Vec<u8>> {
    let name = command.get_name();
    let version = format!("redirector {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).title(title(command)).source(version).manual("redirector");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    let mut synopsis = Roff::new();
    synopsis.control("SH", ["SYNOPSIS"]);
    // As `--help` has it: the generator's own leaves out what options take.
    let usage = command.clone().render_usage().to_string();
    synopsis.text([bold(usage.trim_start_matches("Usage: "))]);
    synopsis.to_writer(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut rest = Roff::new();
    if let Some(notes) = command.get_after_help() {
        rest.control("SH", ["NOTES"]);
        prose(&mut rest, &notes.to_string());
    }
    list(&mut rest, "EXIT STATUS", &sections::exit_codes(name));
    list(&mut rest, "ENVIRONMENT", &sections::environment(name));
    list(&mut rest, "FILES", &sections::files(name));
    rest.control("SH", ["EXAMPLES"]);
    for (what, line) in examples::of(name) {
        rest.control("PP", []);
        rest.text([roman(*what)]);
        rest.control("RS", ["4"]);
        preformatted(&mut rest, line);
        rest.control("RE", []);
    }
    if name != "redirector" {
        rest.control("SH", ["SEE ALSO"]);
        rest.text([bold("redirector"), roman("(1), "), bold("redirector.toml"), roman("(5)")]);
    }
    rest.to_writer(&mut page)?;
    Ok(page)
}

/// Paragraphs; lines that are indented stay as they are.
pub(super) fn prose(roff: &mut Roff, text: &str) {
    for line in text.lines() {
        if line.starts_with(' ') {
            preformatted(roff, line);
        } else if line.is_empty() {
            roff.control("PP", []);
        } else {
            roff.text([roman(line)]);
        }
    }
}

/// Lines as they are.
pub(super) fn preformatted(roff: &mut Roff, text: &str) {
    roff.control("nf", []);
    for line in text.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
}

fn list(roff: &mut Roff, heading: &str, entries: &[Entry]) {
    roff.control("SH", [heading]);
    for (name, what) in entries {
        roff.control("TP", []);
        roff.text([bold(*name)]);
        roff.text([roman(*what)]);
    }
}
