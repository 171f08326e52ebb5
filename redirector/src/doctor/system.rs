//! The kernel's version, and what is mounted.

use std::{fs, path::Path};

use nix::sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, FsType, statfs};

use super::{Check, Status, namespaces::MOUNT_PROC};

/// The oldest kernel that is claimed to work.
const OLDEST: (u32, u32) = (5, 10);

const RELEASE: &str = "/proc/sys/kernel/osrelease";

pub(super) fn kernel() -> Check {
    let name = "kernel";
    match fs::read_to_string(RELEASE) {
        Ok(release) => {
            let release = release.trim().to_owned();
            if version(&release).is_none_or(|version| version >= OLDEST) {
                Check::ok(name, release)
            } else {
                Check::not_ok(name, Status::Warning, release, "Linux 5.10 is the oldest that is tried")
            }
        }
        Err(error) => {
            let found = format!("open `{RELEASE}`: {error}");
            Check::not_ok(name, Status::Warning, found, MOUNT_PROC)
        }
    }
}

/// The version of the running kernel, as far as it says one.
pub(super) fn running() -> Option<(u32, u32)> {
    version(&fs::read_to_string(RELEASE).ok()?)
}

/// `6.12.3-amd64` is 6.12.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

pub(super) fn mounts() -> Vec<Check> {
    vec![bpffs(), cgroup()]
}

fn bpffs() -> Check {
    const PLACE: &str = "/sys/fs/bpf";
    let name = "bpffs";
    let found = match kind(PLACE) {
        Ok(kind) if kind == BPF_FS_MAGIC => return Check::ok(name, format!("mounted at {PLACE}")),
        Ok(_) => format!("not mounted at {PLACE}"),
        Err(errno) => format!("statfs `{PLACE}`: {errno}"),
    };
    let hint = format!("nothing needs it: redirector pins nothing. `mount -t bpf bpf {PLACE}` mounts it");
    Check::not_ok(name, Status::Note, found, hint)
}

fn cgroup() -> Check {
    const PLACE: &str = "/sys/fs/cgroup";
    const UNIFIED: &str = "/sys/fs/cgroup/unified";
    let name = "cgroup";
    let is_v2 = |place| kind(place).is_ok_and(|kind| kind == CGROUP2_SUPER_MAGIC);
    let found = if is_v2(PLACE) {
        return Check::ok(name, "v2");
    } else if is_v2(UNIFIED) {
        format!("v1, with v2 at {UNIFIED}")
    } else if Path::new(PLACE).read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        "v1".into()
    } else {
        format!("not mounted at {PLACE}")
    };
    Check::not_ok(name, Status::Note, found, "nothing needs it: redirector does not look at cgroups")
}

fn kind(place: &str) -> nix::Result<FsType> {
    statfs(place).map(|system| system.filesystem_type())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_every_distribution_are_versions() {
        for (release, expected) in [
            ("6.18.5", Some((6, 18))),
            ("5.10.0-32-cloud-amd64\n", Some((5, 10))),
            ("7.0-rc1", Some((7, 0))),
            ("6.6.87.2-microsoft-standard-WSL2", Some((6, 6))),
            ("next", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
    }
}
