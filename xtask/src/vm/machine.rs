//! One virtual machine: QEMU, and what executes its instructions.

use std::{
    fs::File,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{
    console::{End, Report},
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

/// Boots a machine, shows what it says, and waits until it has ended or a limit is exceeded.
pub(crate) fn run(
    interrupt: &Interrupt,
    accelerator: Accelerator,
    kernel: &Path,
    image: &Path,
    mode: &str,
    limits: Limits,
) -> Result<Report> {
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
