//! The file system that a virtual machine starts with: a tree, written as a cpio archive (`newc`), uncompressed.
//! The kernel unpacks it into memory; decompressing there would take longer than reading more.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use cpio::newc::{Builder, ModeFileType, trailer};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Directory {
        mode: u32,
    },
    Link {
        to: PathBuf,
    },
    /// Of this machine, with its mode and its time: Python compares the time with that of its byte code.
    Copy {
        from: PathBuf,
    },
    Bytes {
        bytes: Vec<u8>,
        mode: u32,
    },
}

/// What goes into it, by absolute path.
#[derive(Clone, Default)]
pub(crate) struct Image {
    nodes: BTreeMap<PathBuf, Node>,
}

impl Image {
    pub(crate) fn directory(&mut self, path: &str, mode: u32) {
        self.parents(Path::new(path));
        self.nodes.insert(path.into(), Node::Directory { mode });
    }

    pub(crate) fn link(&mut self, path: &str, to: &str) {
        self.parents(Path::new(path));
        self.nodes.insert(path.into(), Node::Link { to: to.into() });
    }

    pub(crate) fn bytes(&mut self, path: &str, bytes: Vec<u8>, mode: u32) {
        self.parents(Path::new(path));
        self.nodes.insert(path.into(), Node::Bytes { bytes, mode });
    }

    /// A file of this machine under another name.
    pub(crate) fn copy_to(&mut self, path: &str, from: &Path) {
        self.parents(Path::new(path));
        self.nodes.insert(path.into(), Node::Copy { from: from.to_owned() });
    }

    /// A file or a link of this machine where it is here, with every link on the way to it. Gives the file that
    /// is meant in the end.
    pub(crate) fn copy(&mut self, path: &Path) -> Result<PathBuf> {
        // The ends of links: /etc/alternatives has some of two.
        let mut links = 0;
        let mut done = PathBuf::from("/");
        let mut left: Vec<_> = names(path).rev().collect();
        while let Some(name) = left.pop() {
            if name.as_os_str() == ".." {
                done.pop();
                continue;
            }
            let here = done.join(&name);
            let found = fs::symlink_metadata(&here).with_context(|| format!("stat `{}`", here.display()))?;
            if found.is_symlink() {
                links += 1;
                if links > 40 {
                    bail!("too many links on the way to `{}`", path.display());
                }
                let to =
                    fs::read_link(&here).with_context(|| format!("read the link `{}`", here.display()))?;
                if to.is_absolute() {
                    done = PathBuf::from("/");
                }
                left.extend(names(&to).rev());
                self.nodes.insert(here, Node::Link { to });
                continue;
            }
            if found.is_dir() {
                self.nodes.entry(here.clone()).or_insert(Node::Directory { mode: found.mode() & 0o7777 });
            } else {
                self.nodes.insert(here.clone(), Node::Copy { from: here.clone() });
            }
            done = here;
        }
        Ok(done)
    }

    /// A directory of this machine with everything in it that `wanted` agrees to.
    pub(crate) fn copy_tree(&mut self, path: &Path, wanted: &impl Fn(&Path) -> bool) -> Result<()> {
        self.copy(path)?;
        for entry in fs::read_dir(path).with_context(|| format!("read `{}`", path.display()))? {
            let entry = entry.context("read a directory")?.path();
            if !wanted(&entry) {
                continue;
            }
            if entry.is_dir() && !entry.is_symlink() {
                self.copy_tree(&entry, wanted)?;
            } else {
                self.copy(&entry)?;
            }
        }
        Ok(())
    }

    /// Every file of this machine that is in it.
    pub(crate) fn copied(&self) -> Vec<PathBuf> {
        let copied = self.nodes.values().filter_map(|node| match node {
            Node::Copy { from } => Some(from.clone()),
            _ => None,
        });
        copied.collect()
    }

    fn parents(&mut self, path: &Path) {
        for parent in path.ancestors().skip(1).filter(|parent| *parent != Path::new("/")) {
            self.nodes.entry(parent.to_owned()).or_insert(Node::Directory { mode: 0o755 });
        }
    }

    /// Writes the archive and gives its size.
    pub(crate) fn write(&self, path: &Path) -> Result<u64> {
        let writing = || format!("write `{}`", path.display());
        let mut out = BufWriter::new(File::create(path).with_context(writing)?);
        for (index, (name, node)) in self.nodes.iter().enumerate() {
            // Names that sort first come first: a directory before what is in it.
            let name = name.strip_prefix("/").unwrap_or(name);
            let name = name.to_str().with_context(|| format!("`{}` is not UTF-8", name.display()))?;
            let entry = Builder::new(name).ino(u32::try_from(index + 1)?);
            out = write_node(entry, node, out)
                .with_context(|| format!("write `{name}` into `{}`", path.display()))?;
        }
        let mut out = trailer(out).with_context(writing)?;
        out.flush().with_context(writing)?;
        Ok(fs::metadata(path).with_context(writing)?.len())
    }
}

/// The names on the way to a path, `..` among them.
fn names(path: &Path) -> impl DoubleEndedIterator<Item = PathBuf> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("..")),
        _ => None,
    })
}

fn write_node<W: io::Write>(entry: Builder, node: &Node, out: W) -> Result<W> {
    let (entry, bytes) = match node {
        Node::Directory { mode } => {
            (entry.mode(*mode).set_mode_file_type(ModeFileType::Directory), Vec::new())
        }
        Node::Link { to } => (
            entry.mode(0o777).set_mode_file_type(ModeFileType::Symlink),
            to.as_os_str().as_encoded_bytes().to_vec(),
        ),
        Node::Bytes { bytes, mode } => {
            (entry.mode(*mode).set_mode_file_type(ModeFileType::Regular), bytes.clone())
        }
        Node::Copy { from } => {
            let bytes = fs::read(from).with_context(|| format!("read `{}`", from.display()))?;
            let found = fs::metadata(from).with_context(|| format!("stat `{}`", from.display()))?;
            let entry = entry.mode(found.permissions().mode() & 0o7777).mtime(u32::try_from(found.mtime())?);
            (entry.set_mode_file_type(ModeFileType::Regular), bytes)
        }
    };
    let mut writer = entry.write(out, u32::try_from(bytes.len())?);
    writer.write_all(&bytes)?;
    Ok(writer.finish()?)
}
