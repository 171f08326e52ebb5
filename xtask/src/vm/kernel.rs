//! A kernel: its image and its modules, from Debian's packages, kept outside of the repository.
//!
//! What was fetched once is not asked for again. To get newer ones, remove the cache.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{apt::Apt, series::Series};
use crate::tool;

#[derive(Clone)]
pub(crate) struct Kernel {
    pub(crate) series: Series,
    /// As `uname -r` says it.
    pub(crate) release: String,
    pub(crate) image: PathBuf,
    /// `…/modules/RELEASE`.
    pub(crate) modules: PathBuf,
}

/// `$XDG_CACHE_HOME/redirector`, else `~/.cache/redirector`.
pub(crate) fn cache() -> Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| env::home_dir().map(|home| home.join(".cache")))
        .context("neither $XDG_CACHE_HOME nor $HOME says where to keep kernels")?;
    Ok(base.join("redirector"))
}

/// The kernels of these series, fetched where they are not kept yet.
pub(crate) fn fetch(wanted: &[Series]) -> Result<Vec<Kernel>> {
    let cache = cache()?;
    fs::create_dir_all(&cache).with_context(|| format!("make the directory `{}`", cache.display()))?;
    // Another run may be fetching; it ends with this function.
    let lock = cache.join("lock");
    let lock_file = File::create(&lock).with_context(|| format!("open `{}`", lock.display()))?;
    lock_file.lock().with_context(|| format!("lock `{}`", lock.display()))?;
    let mut apt = None;
    let mut kernels = Vec::new();
    for series in wanted {
        let folder = cache.join("kernels").join(series.to_string());
        if !folder.exists() {
            let apt = match &apt {
                Some(apt) => apt,
                None => apt.insert(Apt::open(&cache.join("apt"))?),
            };
            get(apt, *series, &folder).with_context(|| format!("fetch kernel {series}"))?;
        }
        kernels.push(open(*series, &folder).with_context(|| {
            format!("kernel {series}: what is kept of it is not complete: remove `{}`", folder.display())
        })?);
    }
    Ok(kernels)
}

/// Unpacks beside `folder`, which appears when it is complete.
fn get(apt: &Apt, series: Series, folder: &Path) -> Result<()> {
    let releases = apt.releases()?;
    let release = newest_of(series, &releases)
        .with_context(|| format!("there is no package `linux-image-{series}.*-cloud-amd64`"))?;
    let partial = folder.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("remove `{}`", partial.display()))?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("make the directory `{}`", partial.display()))?;
    apt.unpack(release, &partial)?;
    fs::rename(&partial, folder).with_context(|| format!("rename to `{}`", folder.display()))
}

fn newest_of(series: Series, releases: &[String]) -> Option<&String> {
    let of_series = releases.iter().filter(|release| {
        let numbers = numbers(release);
        match series {
            Series::Numbered(major, minor) => numbers.starts_with(&[major, minor]),
            Series::Newest => true,
        }
    });
    of_series.max_by_key(|release| numbers(release))
}

/// Every number in a release, in order: enough to compare releases of one archive.
fn numbers(release: &str) -> Vec<u32> {
    release
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

fn open(series: Series, folder: &Path) -> Result<Kernel> {
    let mut found = Vec::new();
    for modules in ["usr/lib/modules", "lib/modules"] {
        for entry in fs::read_dir(folder.join(modules)).into_iter().flatten() {
            found.push(entry.context("read a directory")?.path());
        }
    }
    let [modules] = &found[..] else { bail!("{} directories of modules", found.len()) };
    let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // Packages of 7.1 and later keep it with the modules.
    let places = [folder.join(format!("boot/vmlinuz-{release}")), modules.join("vmlinuz")];
    let image = places.into_iter().find(|image| image.is_file()).context("no vmlinuz")?;
    tool::note(&format!("kernel {series}: {release}"));
    Ok(Kernel { series, release, image, modules: modules.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_release_of_a_series_is_by_numbers_not_by_letters() {
        let releases = [
            "6.1.0-0.deb11.52-cloud-amd64",
            "6.1.0-9-cloud-amd64",
            "6.1.0-56-cloud-amd64",
            "6.12.100+deb13-cloud-amd64",
            "6.12.94+deb13-cloud-amd64",
            "6.12.115+deb13.1-cloud-amd64",
        ]
        .map(str::to_owned);
        let newest = |series| newest_of(series, &releases).map(String::as_str);
        assert_eq!(newest(Series::Numbered(6, 1)), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(newest(Series::Numbered(6, 12)), Some("6.12.115+deb13.1-cloud-amd64"));
        assert_eq!(newest(Series::Newest), Some("6.12.115+deb13.1-cloud-amd64"));
        assert_eq!(newest(Series::Numbered(5, 10)), None);
    }
}
