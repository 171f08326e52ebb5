//! What the tests need of a system, copied from this machine into an image: programs with their shared
//! libraries, and the files that those read.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::image::Image;
use crate::tool;

/// What tests start, and what scripts of tests start.
const PROGRAMS: [&str; 29] = [
    "cat",
    "chmod",
    "env",
    "haproxy",
    "id",
    "ip",
    "ip6tables-legacy",
    "iptables",
    "iptables-legacy",
    "kill",
    "ls",
    "mkdir",
    "mkfifo",
    "mount",
    "nft",
    "nginx",
    "nsenter",
    "prlimit",
    "rm",
    "setpriv",
    "sh",
    "sleep",
    "ss",
    "stat",
    "sysctl",
    "true",
    "umount",
    "uname",
    "unshare",
];

/// The one that tests name by its path.
const PYTHON: &str = "/usr/bin/python3";

/// Settings of programs, where they are.
const TREES: [&str; 2] = ["/etc/iproute2", "/usr/share/iproute2"];

/// What lives beside the standard library of Python and takes more room than it.
const NOT_OF_PYTHON: [&str; 10] = [
    "dist-packages",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
];

/// An image in which programs run.
pub(crate) fn base() -> Result<Image> {
    let mut image = Image::default();
    for (path, mode) in
        [("/dev", 0o755), ("/proc", 0o555), ("/sys", 0o555), ("/root", 0o700), ("/tmp", 0o1777)]
    {
        image.directory(path, mode);
    }
    for path in ["/run", "/var/lib/nginx", "/var/log/nginx", "/var/tmp"] {
        image.directory(path, 0o755);
    }
    image.link("/var/run", "/run");
    for (path, text) in [
        ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
        ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
    ] {
        image.bytes(path, text.into(), 0o644);
    }
    image.copy(Path::new("/etc/passwd"))?;
    image.copy(Path::new("/etc/group"))?;
    Ok(image)
}

/// Every program of the system that the tests start.
pub(crate) fn programs(image: &mut Image) -> Result<()> {
    for program in PROGRAMS {
        add_program(image, program)?;
    }
    for tree in TREES.iter().map(Path::new).filter(|tree| tree.is_dir()) {
        image.copy_tree(tree, &|_| true)?;
    }
    python(image)
}

/// A program where this machine has it.
pub(crate) fn add_program(image: &mut Image, program: &str) -> Result<()> {
    let path =
        tool::find(program).with_context(|| format!("`{program}` is not installed, and tests need it"))?;
    image.copy(&path).map(drop)
}

fn python(image: &mut Image) -> Result<()> {
    let program = image.copy(Path::new(PYTHON))?;
    // `python3.11` has its library in `/usr/lib/python3.11`.
    let name = program.file_name().unwrap_or_default();
    let wanted = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !NOT_OF_PYTHON.contains(&&*name) && !name.starts_with("config-")
    };
    image.copy_tree(&Path::new("/usr/lib").join(name), &wanted)
}

/// The shared libraries of everything that is in the image: last, when all else is.
pub(crate) fn libraries(image: &mut Image) -> Result<()> {
    let mut found = BTreeSet::new();
    for file in image.copied() {
        if is_elf(&file)? {
            found.extend(needed(&file).with_context(|| format!("the libraries of `{}`", file.display()))?);
        }
    }
    found.iter().try_for_each(|library| image.copy(library).map(drop))
}

fn is_elf(path: &Path) -> Result<bool> {
    use std::io::Read as _;
    let mut magic = Vec::new();
    let file = fs::File::open(path).with_context(|| format!("open `{}`", path.display()))?;
    file.take(4).read_to_end(&mut magic).with_context(|| format!("read `{}`", path.display()))?;
    Ok(magic == b"\x7fELF")
}

/// As the dynamic linker of this machine finds them, itself among them.
fn needed(path: &Path) -> Result<Vec<PathBuf>> {
    let output = tool::command("ldd")?.arg(path).output().context("start `ldd`")?;
    // It fails for a program that has none.
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut found = Vec::new();
    for line in lines.lines() {
        anyhow::ensure!(!line.ends_with("not found"), "{}", line.trim());
        found.extend(line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from));
    }
    Ok(found)
}
