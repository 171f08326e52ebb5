//! PID 1 of a virtual machine: makes the machine one where the tests can run, runs them, says how they ended, and
//! turns the machine off. Nothing but this runs there.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    process::{Command, ExitStatus},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::{
        reboot::{RebootMode, reboot},
        resource::{Resource, setrlimit},
        wait::{WaitStatus, wait},
    },
    unistd::sync,
};

use super::protocol::{ENVOY, JOB, MODULES, Message, REDIRECTOR};

#[derive(clap::Args)]
pub(crate) struct Options {
    mode: Mode,
}

/// What to do. All but the first are for `--vm-self-test`.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// Run the job
    Job,
    /// End, which makes the kernel panic
    Panic,
    /// Turn the machine off without a verdict
    Die,
}

/// Type, where, options.
const MOUNTS: [(&str, &str, &str); 10] = [
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", "mode=0755"),
    ("devpts", "/dev/pts", "mode=0620"),
    ("tmpfs", "/dev/shm", "mode=1777"),
    ("tmpfs", "/tmp", "mode=1777"),
    ("tmpfs", "/run", "mode=0755"),
    ("bpf", "/sys/fs/bpf", "mode=0700"),
    ("cgroup2", "/sys/fs/cgroup", ""),
    ("debugfs", "/sys/kernel/debug", ""),
];

/// More than any test needs. Not more: HAProxy and others make tables for as many as there may be.
const OPEN_FILES: u64 = 20_000;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(crate) fn run(options: &Options) -> Result<()> {
    if std::process::id() != 1 {
        bail!("`vm-init` is PID 1 of a virtual machine");
    }
    match options.mode {
        Mode::Job => {
            let verdict = job().unwrap_or_else(|error| Message::Broken(format!("{error:#}")));
            // What the kernel says must not come between.
            drop(fs::write("/proc/sys/kernel/printk", "1"));
            say(&verdict)?;
        }
        Mode::Panic => {
            say(&Message::Testing)?;
            bail!("the end of PID 1 is what was asked for");
        }
        Mode::Die => say(&Message::Testing)?,
    }
    sync();
    match reboot(RebootMode::RB_POWER_OFF) {
        Err(errno) => Err(errno).context("turn the machine off"),
    }
}

/// A line of its own, whatever stood on the console before.
fn say(message: &Message) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "\n{}", message.line()).and_then(|()| stdout.flush()).context("write to the console")
}

fn job() -> Result<Message> {
    for (kind, path, options) in MOUNTS {
        mount_one(kind, path, options)?;
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("read the kernel's release")?;
    say(&Message::Started(release.trim().to_owned()))?;
    insert_modules()?;
    setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES).context("setrlimit RLIMIT_NOFILE")?;
    let status = run_to_end(Command::new("ip").args(["link", "set", "lo", "up"]).env("PATH", PATH))?;
    if !status.success() {
        bail!("`ip link set lo up` failed: {status}");
    }
    let words = fs::read(JOB).with_context(|| format!("read `{JOB}`"))?;
    let mut words =
        words.split_inclusive(|byte| *byte == 0).map(|word| OsStr::from_bytes(&word[..word.len() - 1]));
    let program = words.next().with_context(|| format!("`{JOB}` is empty"))?;
    let mut command = Command::new(program);
    // With the time of each test: see `test::timing`.
    command.args(words).args(["-Z", "unstable-options", "--report-time"]).env_clear().current_dir("/");
    command.envs([("PATH", PATH), ("HOME", "/root"), ("LANG", "C.UTF-8"), ("RUSTC_BOOTSTRAP", "1")]);
    command.envs([("REDIRECTOR_BIN", REDIRECTOR), ("ENVOY", ENVOY), ("REDIRECTOR_TEST_SCALE", "small")]);
    say(&Message::Testing)?;
    let status = run_to_end(&mut command)?;
    Ok(if status.success() { Message::Passed } else { Message::Failed(status.to_string()) })
}

fn mount_one(kind: &str, path: &str, options: &str) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("make the directory `{path}`"))?;
    mount(Some(kind), path, Some(kind), MsFlags::empty(), Some(options))
        .with_context(|| format!("mount {kind} on `{path}`"))
}

fn insert_modules() -> Result<()> {
    let Ok(folder) = fs::read_dir(MODULES) else { return Ok(()) };
    let paths: io::Result<Vec<_>> = folder.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.with_context(|| format!("read `{MODULES}`"))?;
    paths.sort();
    paths
        .iter()
        .try_for_each(|path| insert(path).with_context(|| format!("insert the module `{}`", path.display())))
}

fn insert(path: &Path) -> Result<()> {
    let file = fs::File::open(path)?;
    Ok(finit_module(&file, c"", ModuleInitFlags::empty())?)
}

/// Runs a command, and takes care of everybody's orphans meanwhile, as PID 1 has to.
fn run_to_end(command: &mut Command) -> Result<ExitStatus> {
    let program = command.get_program().to_owned();
    let starting = || format!("start `{}`", program.display());
    let child = command.spawn().with_context(starting)?;
    let id = i32::try_from(child.id()).with_context(starting)?;
    loop {
        // ExitStatus::from_raw takes the number of wait(2), nix gives it taken apart.
        let raw = match wait().with_context(|| format!("wait for `{}`", program.display()))? {
            WaitStatus::Exited(pid, code) if pid.as_raw() == id => code << 8,
            WaitStatus::Signaled(pid, signal, _) if pid.as_raw() == id => signal as i32,
            _ => continue,
        };
        return Ok(std::os::unix::process::ExitStatusExt::from_raw(raw));
    }
}
