//! The modules that the tests need, in the order in which they can be inserted, as bytes that a kernel takes.

use std::{
    collections::HashMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// What the kernels of clouds have as modules and the tests use. On a machine they are loaded on demand.
const WANTED: [&str; 19] = [
    "veth",
    "dummy",
    "bridge",
    // `ss`, and `ss -K`.
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "raw_diag",
    "unix_diag",
    // `nft list ruleset`, and `iptables`, which is nft.
    "nf_tables",
    "nft_compat",
    "nft_chain_nat",
    "nft_ct",
    // What packet filters do to what is steered.
    "nft_nat",
    "nft_redir",
    "nft_socket",
    "nft_tproxy",
    "xt_tcpudp",
    "xt_conntrack",
    // Files that are not answered for.
    "fuse",
];

pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) image: Vec<u8>,
}

/// All that is wanted and what that depends on, in order. What is built into the kernel is left out.
pub(crate) fn collect(folder: &Path) -> Result<Vec<Module>> {
    let mut files = HashMap::new();
    index(&folder.join("kernel"), &mut files)?;
    let path = folder.join("modules.builtin");
    let builtin = fs::read_to_string(&path).with_context(|| format!("read `{}`", path.display()))?;
    let builtin = builtin.lines().map(|line| name(Path::new(line))).collect();
    let mut collection = Collection { files, builtin, modules: Vec::new() };
    for wanted in WANTED {
        collection.add(wanted)?;
    }
    Ok(collection.modules)
}

struct Collection {
    files: HashMap<String, PathBuf>,
    builtin: Vec<String>,
    modules: Vec<Module>,
}

impl Collection {
    fn add(&mut self, name: &str) -> Result<()> {
        if self.modules.iter().any(|module| module.name == name)
            || self.builtin.iter().any(|known| known == name)
        {
            return Ok(());
        }
        let Some(path) = self.files.get(name) else {
            bail!("the kernel has no module `{name}`, neither built in nor as a file");
        };
        let image = read(path)?;
        for needed in
            depends(&image).with_context(|| format!("`{}` does not say what it needs", path.display()))?
        {
            self.add(&needed)?;
        }
        self.modules.push(Module { name: name.to_owned(), image });
        Ok(())
    }
}

fn index(folder: &Path, files: &mut HashMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("read `{}`", folder.display()))? {
        let path = entry.context("read a directory")?.path();
        if path.is_dir() {
            index(&path, files)?;
        } else {
            files.insert(name(&path), path);
        }
    }
    Ok(())
}

/// The kernel writes `-` as `_` in names, but not in those of files.
fn name(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    file.split('.').next().unwrap_or_default().replace('-', "_")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(path).with_context(|| format!("read `{}`", path.display()))?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => Ok(bytes),
        Some("xz") => {
            let mut image = Vec::new();
            let mut reader = lzma_rust2::XzReader::new(&bytes[..], true);
            reader.read_to_end(&mut image).with_context(|| format!("decompress `{}`", path.display()))?;
            Ok(image)
        }
        _ => bail!("`{}` is compressed in a way that is not known here", path.display()),
    }
}

/// `depends=a,b` among the NUL-terminated strings of the section `.modinfo`.
fn depends(image: &[u8]) -> Option<Vec<String>> {
    let strings = image.split(|byte| *byte == 0);
    let list = strings.filter_map(|string| string.strip_prefix(b"depends=")).next()?;
    let list = String::from_utf8_lossy(list);
    Some(list.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_depends_on_is_read_from_its_strings() {
        let image = b"\x7fELF\0license=GPL\0depends=stp,llc,nf-x\0retpoline=Y\0";
        assert_eq!(depends(image).unwrap(), ["stp", "llc", "nf_x"]);
        assert_eq!(depends(b"\0depends=\0").unwrap(), Vec::<String>::new());
        assert_eq!(depends(b"\0license=GPL\0"), None);
    }

    #[test]
    fn names_are_the_kernels() {
        assert_eq!(name(Path::new("kernel/net/ipv4/tcp_diag.ko.xz")), "tcp_diag");
        assert_eq!(name(Path::new("kernel/crypto/crc32c-intel.ko")), "crc32c_intel");
    }
}
