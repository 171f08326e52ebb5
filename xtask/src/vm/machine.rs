//! One virtual machine: QEMU, what comes from its console, and the limits that end it.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::console::{Console, End, Report};
use crate::tool;

pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// What a machine must not exceed.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Without a word on the console.
    pub(crate) silence: Duration,
    /// From start to end.
    pub(crate) overall: Duration,
}

impl Limits {
    /// Longer than any call of a test waits (100 s, `HANG` in `tests/src/lib.rs`), and than a kernel takes to boot.
    pub(crate) const DEFAULT: Self =
        Self { silence: Duration::from_secs(240), overall: Duration::from_secs(30 * 60) };
}

/// Once there is a verdict, a machine has so long to turn itself off.
const FAREWELL: Duration = Duration::from_secs(20);

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
    pub(crate) fn choose(kernel: &Path) -> Result<Self> {
        let usable = File::options().read(true).write(true).open("/dev/kvm").is_ok();
        if usable && reaches_the_missing_root(kernel)? {
            return Ok(Self::Kvm);
        }
        tool::note("no KVM: virtual machines run in software, some twenty times slower");
        Ok(Self::Tcg)
    }
}

/// Boots the kernel with KVM and nothing to run: when it comes so far as to complain, KVM works.
fn reaches_the_missing_root(kernel: &Path) -> Result<bool> {
    let mut command = qemu(Accelerator::Kvm, kernel)?;
    command.args(["-append", "console=ttyS0 quiet panic=-1"]).stderr(Stdio::null());
    let mut qemu = Ended(command.spawn().with_context(|| format!("start {}", tool::show(&command)))?);
    let limit = Duration::from_secs(10);
    let output = read(&mut qemu.0)?;
    let (console, _) = follow(&output, Limits { silence: limit, overall: limit }, |_| Ok(()))?;
    Ok(console.is_decided())
}

/// Boots a machine, shows what it says, and waits until it has ended or a limit is exceeded.
pub(crate) fn run(
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
    let mut qemu = Ended(command.spawn().with_context(|| format!("start {}", tool::show(&command)))?);
    let output = read(&mut qemu.0)?;
    let (console, end) = follow(&output, limits, show)?;
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

/// A thread reads, because a read has no time limit.
fn read(qemu: &mut Child) -> Result<Receiver<Vec<u8>>> {
    let mut stdout = qemu.stdout.take().context("take the stdout of QEMU")?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stdout.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    Ok(receiver)
}

/// Until the console is closed, which gives no end, or a limit is exceeded.
fn follow(
    output: &Receiver<Vec<u8>>,
    limits: Limits,
    show: impl Fn(&[u8]) -> Result<()>,
) -> Result<(Console, Option<End>)> {
    let mut console = Console::new();
    let mut deadline = Instant::now() + limits.overall;
    let mut decided = false;
    loop {
        if console.is_decided() && !decided {
            decided = true;
            deadline = deadline.min(Instant::now() + FAREWELL);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match output.recv_timeout(limits.silence.min(left)) {
            Ok(bytes) => {
                console.read(&bytes);
                show(&bytes)?;
            }
            Err(RecvTimeoutError::Disconnected) => return Ok((console, None)),
            Err(RecvTimeoutError::Timeout) if left <= limits.silence => {
                return Ok((console, Some(End::Overtime(limits.overall))));
            }
            Err(RecvTimeoutError::Timeout) => return Ok((console, Some(End::Silence(limits.silence)))),
        }
    }
}

/// A console ends its lines with CR LF.
fn show(bytes: &[u8]) -> Result<()> {
    let bytes: Vec<_> = bytes.iter().copied().filter(|byte| *byte != b'\r').collect();
    let mut stdout = io::stdout().lock();
    stdout.write_all(&bytes).and_then(|()| stdout.flush()).context("write to stdout")
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
