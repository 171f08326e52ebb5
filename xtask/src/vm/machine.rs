//! One virtual machine: QEMU, and what executes its instructions.

use std::{
    fs::File,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{
    console::{End, Report, Verdict},
    watch::{self, Limits},
};
use crate::{
    demo::interrupt::{self, Interrupt},
    tool,
};

pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// What executes the machine's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    Kvm,
    /// In software, some twenty times slower.
    Tcg,
}

impl Accelerator {
    fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// KVM where it can run this kernel. A /dev/kvm that opens proves little: inside a virtual machine QEMU may
    /// find a register that it cannot set, or an instruction that is not emulated, and end.
    pub(crate) fn choose(interrupt: &Interrupt, kernel: &Path) -> Result<Self> {
        let usable = File::options().read(true).write(true).open("/dev/kvm").is_ok();
        if usable && reaches_the_missing_root(interrupt, kernel)? {
            return Ok(Self::Kvm);
        }
        tool::note("no KVM: virtual machines run in software, some twenty times slower");
        Ok(Self::Tcg)
    }
}

/// Boots the kernel with KVM and nothing to run: when it comes so far as to complain, KVM works.
fn reaches_the_missing_root(interrupt: &Interrupt, kernel: &Path) -> Result<bool> {
    let mut command = qemu(Accelerator::Kvm, kernel)?;
    command.args(["-append", "console=ttyS0 quiet panic=-1"]).stderr(Stdio::null());
    let mut qemu = Ended(interrupt::spawn(&mut command)?);
    let limit = Duration::from_secs(10);
    let output = watch::read(&mut qemu.0)?;
    let limits = Limits { silence: limit, overall: limit };
    let (console, _) = watch::follow(interrupt, &output, limits, |_| Ok(()))?;
    Ok(console.is_decided())
}

/// Boots a machine, shows what it says, and waits until it has ended or a limit is exceeded. One that the emulator has
/// crashed is booted again.
pub(crate) fn run(
    interrupt: &Interrupt,
    accelerator: Accelerator,
    kernel: &Path,
    image: &Path,
    mode: &str,
    limits: Limits,
) -> Result<Report> {
    unless_emulator_errs(accelerator, || {
        let mut command = qemu(accelerator, kernel)?;
        command.arg("-initrd").arg(image);
        // An oops ends the machine too.
        command.args(["-append", &format!("console=ttyS0 quiet panic=-1 oops=panic -- vm-init {mode}")]);
        let mut qemu = Ended(interrupt::spawn(&mut command)?);
        let output = watch::read(&mut qemu.0)?;
        let (console, end) = watch::follow(interrupt, &output, limits, watch::show)?;
        let end = match end {
            Some(end) => end,
            None => End::Exit(qemu.0.wait().context("wait for QEMU")?.to_string()),
        };
        Ok(console.conclude(end))
    })
}

/// How often a machine is booted that the emulator crashes.
const BOOTS: usize = 3;

fn unless_emulator_errs(
    accelerator: Accelerator,
    mut boot: impl FnMut() -> Result<Report>,
) -> Result<Report> {
    for _ in 1..BOOTS {
        let report = boot()?;
        let is_crash = matches!(report.verdict, Verdict::NotBooted(_) | Verdict::Panicked(..));
        if !(is_crash && report.stray_breakpoint && accelerator == Accelerator::Tcg) {
            return Ok(report);
        }
        tool::note(&format!(
            "the emulator ran a breakpoint that was not there any more; once more ({report})"
        ));
    }
    boot()
}

fn qemu(accelerator: Accelerator, kernel: &Path) -> Result<Command> {
    let mut command = tool::command(QEMU)?;
    command.args(["-accel", accelerator.name(), "-cpu", "max", "-smp", "2", "-m", "2048"]);
    // No disk, no network: nothing of this machine can be reached. A kernel that panics restarts the machine at
    // once (`panic=-1`), and that ends it.
    command.args(["-nodefaults", "-nic", "none", "-display", "none", "-no-reboot", "-serial", "stdio"]);
    command.arg("-kernel").arg(kernel).stdin(Stdio::null()).stdout(Stdio::piped());
    Ok(command)
}

/// No machine outlives us.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::console::Console;

    /// What follows from each console in turn, and how many machines were booted.
    fn boots(accelerator: Accelerator, consoles: &[&str]) -> (Verdict, usize) {
        let mut boots = 0;
        let report = unless_emulator_errs(accelerator, || {
            let mut console = Console::new();
            console.read(consoles[boots].as_bytes());
            boots += 1;
            Ok(console.conclude(End::Exit("exit status: 0".into())))
        });
        (report.unwrap().verdict, boots)
    }

    const PANIC: &str = "[ 1.1] Kernel panic - not syncing: Fatal exception in interrupt\r\n";
    const STRAY: &str =
        "[ 1.0] Oops: int3: 0000 [#1] SMP NOPTI\r\n[ 1.1] Kernel panic - not syncing: Fatal exception\r\n";
    const OLD_STRAY: &str =
        "[ 3.0] int3: 0000 [#1] PREEMPT SMP NOPTI\r\n[ 3.1] Kernel panic - not syncing: Fatal exception\r\n";
    const PASSED: &str = "redirector-vm: testing\r\nredirector-vm: passed\r\n";
    const FAILED: &str =
        "redirector-vm: testing\r\nint3: 0000 [#1]\r\nredirector-vm: failed: exit status: 101\r\n";

    #[test]
    fn a_machine_that_the_emulator_crashes_is_booted_again() {
        assert_eq!(boots(Accelerator::Tcg, &[STRAY, OLD_STRAY, PASSED]), (Verdict::Passed, 3));
    }

    #[test]
    fn a_machine_that_crashes_each_time_does_not_pass() {
        let (verdict, boots) = boots(Accelerator::Tcg, &[STRAY, STRAY, STRAY]);
        assert!(matches!(verdict, Verdict::NotBooted(_)), "{verdict:?}");
        assert_eq!(boots, BOOTS);
    }

    #[test]
    fn nothing_else_is_the_emulators_fault() {
        for (accelerator, console) in
            [(Accelerator::Tcg, PANIC), (Accelerator::Tcg, FAILED), (Accelerator::Kvm, STRAY)]
        {
            let (verdict, boots) = boots(accelerator, &[console, PASSED]);
            assert_ne!(verdict, Verdict::Passed, "{console}");
            assert_eq!(boots, 1, "{console}");
        }
    }
}
