//! A view of Debian's archive of our own: the suites that have the kernels we want, beside those of the system.
//! The system's lists, sources and pins are neither read nor changed, but for the archive's address.
//! Needs no root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::tool;

/// Signs every suite of the last releases.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Backports keep old kernels by version. The others have one series each: 5.10, 6.1, 6.12.
const SUITES: &str = "trixie-backports";
const SECURITY_SUITES: &str = "bullseye-security bookworm-security trixie-security";

pub(crate) struct Apt {
    configuration: PathBuf,
}

impl Apt {
    /// Writes the configuration below `folder` and fetches the lists.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let sources = folder.join("sources.d");
        for below in [&sources, &folder.join("lists/partial"), &folder.join("archives/partial")] {
            fs::create_dir_all(below).with_context(|| format!("make the directory `{}`", below.display()))?;
        }
        let (main, security) = archives()?;
        let stanzas = [(main, SUITES), (security, SECURITY_SUITES)].map(|(address, suites)| {
            format!("Types: deb\nURIs: {address}\nSuites: {suites}\nComponents: main\nSigned-By: {KEYRING}\n")
        });
        write(&sources.join("kernels.sources"), &stanzas.join("\n"))?;
        let apt = Self { configuration: folder.join("apt.conf") };
        let folder = folder.display();
        write(
            &apt.configuration,
            &format!(
                "Dir::Etc::SourceList \"/dev/null\";\n\
                 Dir::Etc::SourceParts \"{folder}/sources.d\";\n\
                 Dir::Etc::Preferences \"/dev/null\";\n\
                 Dir::Etc::PreferencesParts \"/dev/null\";\n\
                 Dir::State::Lists \"{folder}/lists\";\n\
                 Dir::Cache \"{folder}\";\n\
                 APT::Architecture \"amd64\";\n\
                 APT::Sandbox::User \"root\";\n\
                 Acquire::Languages \"none\";\n\
                 Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n"
            ),
        )?;
        tool::call_quietly(apt.command("apt-get")?.args(["-qq", "update"]))
            .context("fetch the lists of kernel packages")?;
        Ok(apt)
    }

    /// The releases (`6.18.15+deb13-cloud-amd64`) that there are packages of.
    pub(crate) fn releases(&self) -> Result<Vec<String>> {
        let pattern = r"^linux-image-[0-9]+\.[0-9]+\..*-cloud-amd64$";
        let found = tool::call_quietly(self.command("apt-cache")?.args(["search", "--names-only", pattern]))?;
        let names = found.lines().filter_map(|line| line.split(' ').next());
        Ok(names.filter_map(|name| name.strip_prefix("linux-image-")).map(str::to_owned).collect())
    }

    /// Downloads and unpacks everything that `release` consists of into `folder`.
    pub(crate) fn unpack(&self, release: &str, folder: &Path) -> Result<()> {
        let pattern = format!(
            "^linux-(image|binary|modules|base)-{}$",
            release.replace('.', r"\.").replace('+', r"\+")
        );
        let found =
            tool::call_quietly(self.command("apt-cache")?.args(["search", "--names-only", &pattern]))?;
        let names: Vec<_> = found.lines().filter_map(|line| line.split(' ').next()).collect();
        tool::note(&format!("downloading {}: apt-get download", names.join(" ")));
        let mut download = self.command("apt-get")?;
        tool::call_quietly(download.args(["-qq", "download"]).args(&names).current_dir(folder))?;
        for entry in fs::read_dir(folder).with_context(|| format!("read `{}`", folder.display()))? {
            let package = entry.context("read a directory")?.path();
            if package.extension().is_some_and(|extension| extension == "deb") {
                tool::call_quietly(tool::command("dpkg-deb")?.arg("-x").arg(&package).arg(folder))?;
                fs::remove_file(&package).with_context(|| format!("remove `{}`", package.display()))?;
            }
        }
        Ok(())
    }

    fn command(&self, program: &str) -> Result<Command> {
        let mut command = tool::command(program)?;
        command.env("APT_CONFIG", &self.configuration);
        Ok(command)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write `{}`", path.display()))
}

/// Where this machine has its packages from: the archive, and that of security updates.
fn archives() -> Result<(String, String)> {
    let mut targets = tool::command("apt-get")?;
    targets.args(["indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"]);
    let targets = tool::call_quietly(&mut targets)?;
    let mut main = None;
    let mut security = None;
    for (release, address) in targets.lines().filter_map(|line| line.split_once(' ')) {
        match address.trim_end_matches('/').rsplit('/').next() {
            Some("debian") => main = main.or(Some(address.to_owned())),
            Some("debian-security") if release.ends_with("-security") => {
                security = security.or(Some(address.to_owned()));
            }
            _ => {}
        }
    }
    let (Some(main), Some(security)) = (main, security) else {
        bail!(
            "apt's sources name no Debian archive (…/debian and …/debian-security): the kernels of the virtual \
             machines are Debian's packages"
        );
    };
    Ok((main, security))
}
