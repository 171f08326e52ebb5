//! `cargo xtask soak`: tests that take long, by theme. By hand, before an issue is called resolved; CI runs a tenth.
//!
//! A test is of a theme when it is marked so, `#[ignore = "soak: THEME"]`; and ordinary tests are when the theme says so. Here
//! both run with `REDIRECTOR_TEST_SCALE=soak`. CI runs only the marked ones, without it: they try a tenth then
//! (`tests/src/scale.rs`). The ordinary ones have run with all other tests, and their loads there are the tenth.

mod list;

use std::{
    ffi::OsStr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use self::list::{Test, tests_of};
use crate::{
    build,
    cargo::{self, Executable, Needs},
    prepare::{self, Purpose},
    privilege, pypi, setup, tool,
};

/// Tests with something in common.
struct Theme {
    name: &'static str,
    about: &'static str,
    /// Ordinary tests that have larger loads here: what their names begin with.
    ordinary: &'static [&'static str],
    marked: Marked,
}

/// What the tests that are marked with a theme do in CI.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Marked {
    /// They try a tenth.
    Tenth,
    /// Nothing: ordinary tests do the same with less.
    Nothing,
}

/// A mark names one of these.
const THEMES: [Theme; 5] = [
    Theme {
        name: "inject",
        about: "the n-th system call fails, or kills the daemon: each n",
        ordinary: &[],
        marked: Marked::Tenth,
    },
    Theme {
        name: "fuzz",
        about: "bytes near to good ones for each parser of what others write: 100,000 each",
        ordinary: &["parsers::"],
        marked: Marked::Nothing,
    },
    Theme {
        name: "generated",
        about: "generated rules, files and packets: ten times as many cases",
        ordinary: &["model::generated::", "explain::", "files::generated::"],
        marked: Marked::Nothing,
    },
    Theme {
        name: "counts",
        about: "changes under traffic, and what is killed on the way: ten times as often",
        ordinary: &[
            "changes::",
            "files::apply::",
            "files::killed::",
            "follow::many_",
            "relay::",
            "servers::",
        ],
        marked: Marked::Nothing,
    },
    Theme {
        name: "half-closed",
        about: "clients that read slowly or late: 3,000, and for more than a minute",
        ordinary: &["progress::"],
        marked: Marked::Nothing,
    },
];

/// What CI gives a theme. More is said, and is no failure: a machine may be slow.
const TENTH: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this theme
    pub(crate) theme: Option<String>,
    /// Show the themes and their tests, and run none
    #[arg(long)]
    pub(crate) list: bool,
    /// Only what CI runs: a tenth of what is marked
    #[arg(long, conflicts_with = "list")]
    pub(crate) tenth: bool,
}

/// How much of a theme is run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    Tenth,
}

impl Options {
    /// What CI runs.
    pub(crate) fn tenth() -> Self {
        Self { theme: None, list: false, tenth: true }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let themes: Vec<_> = THEMES
        .iter()
        .filter(|theme| options.theme.as_deref().is_none_or(|name| name == theme.name))
        .collect();
    if themes.is_empty() {
        let names: Vec<_> = THEMES.iter().map(|theme| theme.name).collect();
        bail!("there is no such theme; themes are {}", names.join(", "));
    }
    if options.list {
        return show(&themes);
    }
    if !options.tenth {
        return soak(&themes, Part::Whole);
    }
    let themes: Vec<_> = themes.into_iter().filter(|theme| theme.marked == Marked::Tenth).collect();
    if themes.is_empty() {
        bail!("CI runs nothing of this theme: ordinary tests do the same with less");
    }
    soak(&themes, Part::Tenth)
}

/// Each executable that has tests, with them.
fn found() -> Result<Vec<(Executable, Vec<Test>)>> {
    let executables = cargo::executables(&["test", "--no-run", "--locked", "--workspace"])?;
    let mut found = Vec::new();
    for executable in executables {
        let tests = tests_of(&executable.path)?;
        if let Some(test) = tests.iter().find(|test| test.theme().is_some_and(|name| !is_known(name))) {
            bail!("{}: xtask/src/soak.rs has no theme `{}`", test.name, test.theme().unwrap_or_default());
        }
        found.push((executable, tests));
    }
    Ok(found)
}

fn is_known(name: &str) -> bool {
    THEMES.iter().any(|theme| theme.name == name)
}

impl Theme {
    /// Whether a test is run with so much of this theme.
    fn has(&self, test: &Test, part: Part) -> bool {
        match (test.theme(), part) {
            (Some(theme), Part::Whole) => theme == self.name,
            (Some(theme), Part::Tenth) => theme == self.name && self.marked == Marked::Tenth,
            (None, Part::Whole) => {
                !test.is_ignored() && self.ordinary.iter().any(|begin| test.name.starts_with(begin))
            }
            (None, Part::Tenth) => false,
        }
    }

    /// It has tests, and each beginning of a name is that of one.
    fn check(&self, tests: &[&Test], part: Part) -> Result<()> {
        if !tests.iter().any(|test| self.has(test, part)) {
            bail!("no test is of the theme `{}`", self.name);
        }
        let is_none = |begin: &&&str| !tests.iter().any(|test| test.name.starts_with(**begin));
        if let Some(begin) = self.ordinary.iter().find(is_none) {
            bail!("xtask/src/soak.rs: theme `{}`: no test's name begins with `{begin}`", self.name);
        }
        Ok(())
    }
}

/// None of the themes is empty. That there was nothing to run would look like success.
fn check(themes: &[&Theme], found: &[(Executable, Vec<Test>)], part: Part) -> Result<()> {
    let tests: Vec<_> = found.iter().flat_map(|(_, tests)| tests).collect();
    themes.iter().try_for_each(|theme| theme.check(&tests, part))
}

fn show(themes: &[&Theme]) -> Result<()> {
    setup::for_build()?;
    let found = found()?;
    check(themes, &found, Part::Whole)?;
    for theme in themes {
        println!("{}: {}", theme.name, theme.about);
        for test in found.iter().flat_map(|(_, tests)| tests).filter(|test| theme.has(test, Part::Whole)) {
            println!("    {}", test.name);
        }
    }
    Ok(())
}

fn soak(themes: &[&Theme], part: Part) -> Result<()> {
    if !privilege::can_become_root() {
        bail!("the tests need root, and there is no `sudo` for this user");
    }
    prepare::ensure(Purpose::Tests)?;
    let (redirector, injecting, envoy, xtask) =
        (build::redirector()?, injecting()?, pypi::envoy()?, tool::myself()?);
    let mut environment = vec![
        ("REDIRECTOR_BIN", redirector.as_os_str()),
        ("REDIRECTOR_INJECT_BIN", injecting.as_os_str()),
        ("ENVOY", envoy.as_os_str()),
        ("XTASK", xtask.as_os_str()),
    ];
    if part == Part::Whole {
        environment.push(("REDIRECTOR_TEST_SCALE", OsStr::new("soak")));
    }
    let found = found()?;
    check(themes, &found, part)?;
    let mut failed = Vec::new();
    for theme in themes {
        tool::note(&format!("soak: {}: {}", theme.name, theme.about));
        let (start, mut count) = (Instant::now(), 0);
        for (executable, tests) in &found {
            let names: Vec<_> =
                tests.iter().filter(|test| theme.has(test, part)).map(|test| test.name.as_str()).collect();
            if names.is_empty() {
                continue;
            }
            count += names.len();
            if !passes(executable, &names, &environment)? {
                failed.push(format!("{} ({})", theme.name, executable.target));
            }
        }
        let time = start.elapsed();
        tool::note(&format!("soak: {}: {count} tests in {:.0} s", theme.name, time.as_secs_f64()));
        if part == Part::Tenth && time > TENTH {
            tool::note(&format!("soak: {}: that is more than {TENTH:?}: make its tenth smaller", theme.name));
        }
    }
    if !failed.is_empty() {
        bail!("tests failed in {}", failed.join(", "));
    }
    Ok(())
}

fn passes(executable: &Executable, names: &[&str], environment: &[(&str, &OsStr)]) -> Result<bool> {
    let mut command = match executable.needs() {
        Needs::Nothing => {
            let mut command = Command::new(&executable.path);
            command.envs(environment.iter().copied());
            command
        }
        needs => {
            if needs == Needs::Engines {
                prepare::ensure(Purpose::Engines)?;
            }
            privilege::command(&executable.path, environment)?
        }
    };
    command.args(["--include-ignored", "--exact"]).args(names);
    let directory: &Path = &tool::root().join(&executable.package);
    command.env("CARGO_MANIFEST_DIR", directory).current_dir(directory);
    let status = command.status().with_context(|| format!("start {}", executable.path.display()))?;
    Ok(status.success())
}

/// Builds the binary whose system calls fail when a plan says so. With the features of all packages, as tests are built, so
/// that only `redirector` itself is built again.
fn injecting() -> Result<std::path::PathBuf> {
    setup::for_build()?;
    let built = cargo::executables(&[
        "build",
        "--locked",
        "--workspace",
        "--bin",
        "redirector-inject",
        "--features",
        "redirector/inject",
    ])?;
    let binary = built.into_iter().find(|executable| executable.target == "bin redirector-inject");
    Ok(binary.context("cargo named no binary `redirector-inject`")?.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEME: Theme =
        Theme { name: "theme", about: "", ordinary: &["one::", "two::"], marked: Marked::Tenth };

    fn check(theme: &Theme, part: Part, tests: &[Test]) -> Option<String> {
        let tests: Vec<_> = tests.iter().collect();
        theme.check(&tests, part).err().map(|error| error.to_string())
    }

    #[test]
    fn a_theme_without_tests_and_a_beginning_of_no_name_are_errors() {
        let ordinary = |name| Test::of(name, None);
        let marked = || Test::of("other::marked", Some("soak: theme"));
        let all = [ordinary("one::a"), ordinary("two::b"), marked()];
        assert_eq!(check(&THEME, Part::Whole, &all), None);
        assert_eq!(check(&THEME, Part::Tenth, &all), None);
        let said = check(&THEME, Part::Whole, &[ordinary("one::a"), marked()]).unwrap();
        assert!(said.contains("`two::`"), "{said}");
        let said = check(&THEME, Part::Tenth, &[ordinary("one::a"), ordinary("two::b")]).unwrap();
        assert!(said.contains("`theme`"), "{said}");
        let said = check(&THEME, Part::Whole, &[]).unwrap();
        assert!(said.contains("`theme`"), "{said}");
        let none = Theme { ordinary: &[], marked: Marked::Nothing, ..THEME };
        let said = check(&none, Part::Whole, &all[..2]).unwrap();
        assert!(said.contains("`theme`"), "{said}");
    }

    #[test]
    fn a_theme_that_is_none_or_of_which_ci_runs_nothing_is_an_error() {
        for theme in ["none", "fuzz"] {
            let options = Options { theme: Some(theme.to_owned()), list: false, tenth: true };
            let said = run(&options).unwrap_err().to_string();
            assert!(said.contains("theme"), "{said}");
        }
    }
}
