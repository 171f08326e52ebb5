//! `cargo xtask test --vm-self-test`: machines that do not pass, each in a way of its own, and whether the
//! verdict tells them apart. Boots a kernel for each; takes a minute.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::{
    base,
    console::{Stage, Verdict},
    image::Image,
    kernel,
    machine::{self, Accelerator, QEMU},
    protocol::JOB,
    series::Series,
    system,
    watch::Limits,
    words,
};
use crate::{
    demo::interrupt::Interrupt,
    prepare::{self, Purpose},
    tool,
};

/// Longer than a kernel is silent while it boots in software.
const SILENCE: Duration = Duration::from_secs(25);

struct Bench {
    interrupt: Interrupt,
    accelerator: Accelerator,
    kernel: PathBuf,
    folder: TempDir,
}

type Check = (&'static str, fn(&Bench) -> Result<Verdict>, fn(&Verdict) -> bool);

const CHECKS: [Check; 9] = [
    ("tests that pass", |bench| bench.job("echo all well"), |verdict| *verdict == Verdict::Passed),
    (
        "a test that panics",
        |bench| bench.job("echo 'test a::b ... FAILED'; exit 101"),
        |verdict| *verdict == Verdict::Failed("exit status: 101".into()),
    ),
    (
        "tests that a signal ends",
        |bench| bench.job("kill -SEGV $$"),
        |verdict| matches!(verdict, Verdict::Failed(status) if status.starts_with("signal: 11")),
    ),
    (
        "a test that hangs",
        |bench| bench.job("echo waiting; sleep 1000"),
        |verdict| *verdict == Verdict::Hung(Stage::Tests, SILENCE),
    ),
    (
        "tests without an end",
        |bench| bench.endless(),
        |verdict| matches!(verdict, Verdict::Overtime(Stage::Tests, _)),
    ),
    (
        "tests that cannot be started",
        |bench| bench.boot("job", b"/nonexistent\0"),
        |verdict| matches!(verdict, Verdict::Broken(error) if error.contains("/nonexistent")),
    ),
    (
        "a kernel that panics",
        |bench| bench.boot("panic", b""),
        |verdict| matches!(verdict, Verdict::Panicked(Stage::Tests, line) if line.contains("Attempted to kill init")),
    ),
    (
        "a machine that dies early",
        |bench| bench.boot("die", b""),
        |verdict| matches!(verdict, Verdict::Died(Stage::Tests, _)),
    ),
    (
        "a kernel that does not boot",
        |bench| bench.bogus_kernel(),
        |verdict| matches!(verdict, Verdict::NotBooted(_)),
    ),
];

/// How many of [`CHECKS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    Whole,
    /// Those that are over when the machine is: a verdict that takes patience is looked at by hand.
    Quick,
}

/// Checks that take patience: nothing happens, until a limit ends them.
const PATIENT: [&str; 3] = ["a test that hangs", "tests without an end", "a kernel that does not boot"];

pub(crate) fn run(extent: Extent) -> Result<()> {
    without_qemu()?;
    prepare::ensure(Purpose::Machines)?;
    let kernels = kernel::fetch(&[Series::Numbered(6, 18)])?;
    let kernel = kernels.into_iter().next().context("no kernel")?.image;
    let interrupt = Interrupt::install()?;
    let accelerator = Accelerator::choose(&interrupt, &kernel)?;
    let folder = tempfile::tempdir().context("make a temporary directory")?;
    let bench = Bench { interrupt, accelerator, kernel, folder };
    for (name, run, is_right) in CHECKS {
        if extent == Extent::Quick && PATIENT.contains(&name) {
            continue;
        }
        let verdict = run(&bench).with_context(|| name.to_owned())?;
        tool::note(&format!("{name}: {verdict}"));
        ensure!(is_right(&verdict), "{name}: another verdict was to be expected: {verdict:?}");
    }
    tool::note("each verdict was right");
    Ok(())
}

/// Without QEMU, and without the means to install it, the package is named and nothing is skipped.
fn without_qemu() -> Result<()> {
    let mut command = Command::new(tool::myself()?);
    let output = command.args(["prepare", "machines"]).env("PATH", "/nonexistent").output();
    let output = output.with_context(|| format!("start {}", tool::show(&command)))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let wanted = format!("`{QEMU}` is missing: apt-get install qemu-system-x86");
    ensure!(output.status.code() == Some(1) && said.contains(&wanted), "no QEMU: {}: {said}", output.status);
    tool::note(&format!("no QEMU: {}", said.trim()));
    Ok(())
}

impl Bench {
    fn job(&self, script: &str) -> Result<Verdict> {
        self.boot("job", &words(["/bin/sh", "-c", script].into_iter().map(str::as_bytes)))
    }

    fn boot(&self, mode: &str, job: &[u8]) -> Result<Verdict> {
        let limits = Limits { silence: SILENCE, ..Limits::DEFAULT };
        machine::run(&self.interrupt, self.accelerator, &self.kernel, &self.image(job)?, mode, limits)
            .map(|report| report.verdict)
    }

    fn endless(&self) -> Result<Verdict> {
        let job =
            words(["/bin/sh", "-c", "while sleep 1; do echo more; done"].into_iter().map(str::as_bytes));
        let limits = Limits { silence: SILENCE, overall: SILENCE };
        machine::run(&self.interrupt, self.accelerator, &self.kernel, &self.image(&job)?, "job", limits)
            .map(|report| report.verdict)
    }

    fn bogus_kernel(&self) -> Result<Verdict> {
        let kernel = self.folder.path().join("bogus");
        fs::write(&kernel, [0x55; 64 << 10]).with_context(|| format!("write `{}`", kernel.display()))?;
        let limits = Limits { silence: SILENCE, overall: SILENCE };
        machine::run(&self.interrupt, self.accelerator, &kernel, &self.image(b"")?, "job", limits)
            .map(|report| report.verdict)
    }

    fn image(&self, job: &[u8]) -> Result<PathBuf> {
        let mut image: Image = base(&self.folder)?;
        for program in ["sh", "sleep"] {
            system::add_program(&mut image, program)?;
        }
        system::libraries(&mut image)?;
        image.bytes(JOB, job.to_vec(), 0o644);
        let path: &Path = self.folder.path();
        let path = path.join("image.cpio");
        image.write(&path)?;
        Ok(path)
    }
}
