//! What the demo and the tests need from the system, and root has to do: packages, and the BPF file system.

use std::{path::Path, process::Command};

use anyhow::{Result, bail};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::{privilege, tool};

const BPFFS: &str = "/sys/fs/bpf";

#[derive(clap::Args)]
pub(crate) struct Options {
    purpose: Purpose,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Purpose {
    Demo,
    Tests,
    /// Container engines of our own.
    Engines,
    /// Virtual machines that run the tests.
    Machines,
    /// What users install.
    Dist,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Self::Demo => "demo",
            Self::Tests => "tests",
            Self::Engines => "engines",
            Self::Machines => "machines",
            Self::Dist => "dist",
        }
    }
}

/// A program of the system, and the Debian package that brings it.
struct Need {
    program: &'static str,
    package: &'static str,
    /// What cannot go on without it. Single tests can fail by themselves.
    vital: &'static [Purpose],
    wanted: &'static [Purpose],
}

const NEEDS: [Need; 31] = {
    use Purpose::{Demo, Dist, Engines, Machines, Tests};
    [
        Need { program: "qemu-system-x86_64", package: "qemu-system-x86", vital: &[Machines], wanted: &[] },
        Need { program: "ip", package: "iproute2", vital: &[Demo, Tests, Machines, Engines], wanted: &[] },
        Need {
            program: "nsenter",
            package: "util-linux",
            vital: &[Demo, Tests, Machines, Engines],
            wanted: &[],
        },
        // Docker's client is both engines'.
        Need { program: "docker", package: "docker.io", vital: &[Engines], wanted: &[] },
        Need { program: "dockerd", package: "docker.io", vital: &[Engines], wanted: &[] },
        Need { program: "podman", package: "podman", vital: &[Engines], wanted: &[] },
        Need { program: "runc", package: "runc", vital: &[Engines], wanted: &[] },
        Need { program: "/usr/lib/podman/netavark", package: "netavark", vital: &[Engines], wanted: &[] },
        Need {
            program: "/usr/lib/podman/aardvark-dns",
            package: "aardvark-dns",
            vital: &[Engines],
            wanted: &[],
        },
        // A collector of logs, in a container.
        Need { program: "rsyslogd", package: "rsyslog", vital: &[], wanted: &[Tests] },
        Need { program: "/bin/busybox", package: "busybox-static", vital: &[Engines], wanted: &[] },
        Need { program: "ss", package: "iproute2", vital: &[Machines], wanted: &[Tests] },
        Need { program: "nft", package: "nftables", vital: &[Machines], wanted: &[Tests] },
        Need { program: "iptables", package: "iptables", vital: &[Machines, Engines], wanted: &[Tests] },
        // What the pages tell to type.
        Need { program: "curl", package: "curl", vital: &[], wanted: &[Tests] },
        // Servers behind a steered namespace.
        Need { program: "haproxy", package: "haproxy", vital: &[Machines], wanted: &[Tests] },
        Need { program: "nginx", package: "nginx-light", vital: &[Machines], wanted: &[Tests] },
        Need {
            program: "/usr/bin/python3",
            package: "python3-minimal",
            vital: &[Machines],
            wanted: &[Tests],
        },
        Need { program: "/usr/bin/pip3", package: "python3-pip", vital: &[Tests, Machines], wanted: &[] },
        // Shells that completions are for, and what renders manual pages.
        Need { program: "bash", package: "bash", vital: &[], wanted: &[Tests] },
        Need { program: "zsh", package: "zsh", vital: &[], wanted: &[Tests] },
        Need { program: "fish", package: "fish", vital: &[], wanted: &[Tests] },
        Need { program: "groff", package: "groff-base", vital: &[], wanted: &[Tests] },
        // An image is made of programs and their libraries, and of packages with kernels.
        Need { program: "strip", package: "binutils", vital: &[Machines, Dist], wanted: &[] },
        Need { program: "ldd", package: "libc-bin", vital: &[Machines], wanted: &[] },
        Need { program: "dpkg-deb", package: "dpkg", vital: &[Machines], wanted: &[] },
        Need { program: "systemd-analyze", package: "systemd", vital: &[Dist], wanted: &[] },
        Need { program: "xz", package: "xz-utils", vital: &[Dist], wanted: &[] },
        Need { program: "lintian", package: "lintian", vital: &[], wanted: &[Dist] },
        // A system to install on, and one that is old.
        Need { program: "systemd-nspawn", package: "systemd-container", vital: &[], wanted: &[Dist] },
        Need { program: "debootstrap", package: "debootstrap", vital: &[], wanted: &[Dist] },
    ]
};

/// Does all of it: here when we are root, by sudo when something is missing and there is one.
pub(crate) fn ensure(purpose: Purpose) -> Result<()> {
    let complete = missing(purpose).is_empty() && (purpose == Purpose::Machines || bpffs_is_mounted());
    if privilege::is_root() || (!complete && !privilege::can_become_root()) {
        return run(&Options { purpose });
    }
    if complete {
        return Ok(());
    }
    tool::call(privilege::command(&tool::myself()?, &[])?.args(["prepare", purpose.name()]))
}

/// The half that runs as root. Without root it says what is missing, and fails if that is vital.
pub(crate) fn run(options: &Options) -> Result<()> {
    install(options.purpose)?;
    if options.purpose != Purpose::Machines {
        mount_bpffs();
    }
    Ok(())
}

fn missing(purpose: Purpose) -> Vec<&'static Need> {
    NEEDS
        .iter()
        .filter(|need| need.vital.contains(&purpose) || need.wanted.contains(&purpose))
        .filter(|need| tool::find(need.program).is_none())
        .collect()
}

fn install(purpose: Purpose) -> Result<()> {
    let mut packages: Vec<_> = missing(purpose).iter().map(|need| need.package).collect();
    if packages.is_empty() {
        return Ok(());
    }
    packages.sort_unstable();
    packages.dedup();
    let packages = packages.join(" ");
    if privilege::is_root() && tool::find("apt-get").is_some() {
        tool::note(&format!("installing {packages}: apt-get install {packages}"));
        if let Err(error) = apt_get_install(&packages) {
            tool::note(&format!("{error:#}"));
        }
    }
    for need in missing(purpose) {
        let Need { program, package, vital, .. } = need;
        let line = format!("`{program}` is missing: apt-get install {package}");
        if vital.contains(&purpose) {
            bail!("{line}");
        }
        tool::note(&line);
    }
    Ok(())
}

fn apt_get_install(packages: &str) -> Result<()> {
    let install = || {
        let mut command = apt_get();
        command.args(["install", "--yes", "--no-install-recommends"]).args(packages.split(' '));
        tool::call_quietly(&mut command)
    };
    // A new machine has no package lists, an old one has lists of versions that are gone.
    install().or_else(|_| tool::call_quietly(apt_get().arg("update")).and_then(|_| install())).map(drop)
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.arg("-qq").env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn bpffs_is_mounted() -> bool {
    statfs(Path::new(BPFFS)).is_ok_and(|system| system.filesystem_type() == BPF_FS_MAGIC)
}

/// Systemd mounts it, other init systems and containers do not. Only pinning needs it, so we go on without.
fn mount_bpffs() {
    if bpffs_is_mounted() {
        return;
    }
    let line = format!("mount -t bpf bpf {BPFFS}");
    let mounted = tool::command("mount")
        .and_then(|mut mount| tool::call_quietly(mount.args(["-t", "bpf", "bpf", BPFFS])));
    match mounted {
        Ok(_) => tool::note(&format!("mounted the BPF file system: {line}")),
        Err(error) => tool::note(&format!("the BPF file system is not mounted: {line}: {error:#}")),
    }
}
