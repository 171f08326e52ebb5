//! The tests of an executable, with what they are marked with.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::tool;

/// A test, as the harness names it.
#[derive(Deserialize)]
pub(super) struct Test {
    pub(super) name: String,
    ignore: bool,
    #[serde(default)]
    ignore_message: String,
}

impl Test {
    #[cfg(test)]
    pub(super) fn of(name: &str, mark: Option<&str>) -> Self {
        let ignore_message = mark.unwrap_or_default().to_owned();
        Self { name: name.to_owned(), ignore: mark.is_some(), ignore_message }
    }

    /// The theme that it is marked with: the first word after `soak: `.
    pub(super) fn theme(&self) -> Option<&str> {
        self.ignore_message.strip_prefix("soak: ")?.split_whitespace().next()
    }

    pub(super) fn is_ignored(&self) -> bool {
        self.ignore
    }
}

/// What a line of the list is about.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    event: String,
}

/// Asks the harness. Only its JSON says what tests are marked with, and that form is not stable.
pub(super) fn tests_of(executable: &Path) -> Result<Vec<Test>> {
    let mut command = Command::new(executable);
    command.args(["--list", "--format", "json", "-Z", "unstable-options"]).env("RUSTC_BOOTSTRAP", "1");
    let list = tool::call_quietly(&mut command)?;
    let mut tests = Vec::new();
    for text in list.lines() {
        let line: Line =
            serde_json::from_str(text).with_context(|| format!("read a list of tests: {text}"))?;
        if line.kind == "test" && line.event == "discovered" {
            tests.push(serde_json::from_str(text).with_context(|| format!("read a test: {text}"))?);
        }
    }
    Ok(tests)
}
