//! Mounted namespaces, from mountinfo (proc_pid_mountinfo(5)).

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::sys::stat::makedev;

use crate::netns::NetnsFile;

/// The namespaces that are mounted in the mount namespace whose mountinfo this is. Paths need not be UTF-8: the
/// kernel escapes white space and backslashes only, and one strange name must not hide all other mounts.
pub(super) fn mounted(mountinfo: &Path) -> io::Result<Vec<NetnsFile>> {
    let bytes = fs::read(mountinfo)?;
    Ok(bytes.split(|byte| *byte == b'\n').filter_map(|line| parse(&String::from_utf8_lossy(line))).collect())
}

/// Where the mounts are seen that count for every daemon: PID 1's, and its own.
pub(super) fn own_tables() -> [PathBuf; 2] {
    ["/proc/1/mountinfo".into(), "/proc/self/mountinfo".into()]
}

/// `28 25 0:4 net:[4026532240] /run/netns/a rw shared:1 - nsfs nsfs rw`: the fields after the root may be any
/// number, up to a dash.
fn parse(line: &str) -> Option<NetnsFile> {
    let mut fields = line.split(' ').skip(2);
    let (major, minor) = fields.next()?.split_once(':')?;
    let inode = fields.next()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()?;
    let mut kind = fields.skip_while(|field| *field != "-").skip(1);
    (kind.next()? == "nsfs").then_some(())?;
    Some(NetnsFile { dev: makedev(major.parse().ok()?, minor.parse().ok()?), inode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounted_network_namespaces_are_taken() {
        let file = |minor, inode| Some(NetnsFile { dev: makedev(0, minor), inode });
        for (line, expected) in [
            ("28 25 0:4 net:[4026532240] /run/netns/a rw shared:1 - nsfs nsfs rw", file(4, 4_026_532_240)),
            ("28 25 0:4 net:[40] /run/netns/a\\040b rw - nsfs nsfs rw", file(4, 40)),
            ("28 25 0:4 net:[40] /x rw shared:1 master:2 - nsfs nsfs rw", file(4, 40)),
            ("28 25 0:4 net:[40] /run/netns/\u{fffd} rw - nsfs nsfs rw", file(4, 40)),
            ("28 25 0:4 mnt:[4026532240] /run/mnt rw - nsfs nsfs rw", None),
            ("28 25 0:30 /net:[1] /x rw - tmpfs tmpfs rw", None),
            ("28 25 0:30 net:[1] /x rw - fuse fuse rw", None),
            ("", None),
        ] {
            assert_eq!(parse(line), expected, "{line}");
        }
    }

    #[test]
    fn a_path_that_is_not_utf8_hides_no_mount() {
        let path = std::env::temp_dir().join(format!("redirector-mountinfo-{}", std::process::id()));
        let table = b"45 4 0:40 / /a\xff rw - tmpfs none rw\n28 25 0:4 net:[40] /n\xff rw - nsfs nsfs rw\n";
        fs::write(&path, table).unwrap();
        let mounted = mounted(&path);
        fs::remove_file(&path).unwrap();
        assert_eq!(mounted.unwrap(), [NetnsFile { dev: makedev(0, 4), inode: 40 }]);
    }

    #[test]
    fn this_process_has_a_mount_table() {
        assert!(mounted(Path::new("/proc/self/mountinfo")).is_ok());
    }
}
