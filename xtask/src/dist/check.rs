//! `cargo xtask dist --check`: the package on a copy of this system and on an old Debian. It is installed, its service
//! started, real connections are steered, and after the purge nothing is left.
//!
//! All of it happens in a mount namespace of its own, and all traffic in network namespaces of its own. What was mounted
//! and started goes away when this process ends, in whatever way.

mod cgroups;
mod confined;
mod debian;
mod machine;
mod notify;
mod own_file;
mod residue;
mod system;
mod usage;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result};

use self::{
    machine::Machine,
    system::{Scratch, System},
};
use crate::{privilege, tool};

#[derive(clap::Args)]
pub(crate) struct Options {
    part: Part,
    #[arg(long)]
    binary: PathBuf,
    #[arg(long)]
    package: PathBuf,
}

/// What needs a process of its own.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Part {
    /// In the PID namespace that there is.
    Confined,
    /// In one of its own: no system goes on when this process ends.
    Installed,
}

/// As root, in a mount namespace of its own.
pub(super) fn start(binary: &Path, package: &Path) -> Result<()> {
    let unshare = tool::find("unshare").context("`unshare` is not installed")?;
    let myself = tool::myself()?;
    let alone: &[_] = &["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    for (part, namespaces) in [("confined", &["--mount"][..]), ("installed", alone)] {
        let mut command = privilege::command(&unshare, &[])?;
        command.args(namespaces).arg("--").arg(&myself).args(["dist-check", part]);
        tool::call(command.arg("--binary").arg(binary).arg("--package").arg(package))?;
    }
    Ok(())
}

/// The half that runs as root.
pub(crate) fn run(options: &Options) -> Result<()> {
    let scratch = Scratch::new()?;
    match options.part {
        Part::Confined => {
            confined::check(scratch.path(), &options.binary)?;
            tool::note("confined as the unit says, the daemon notices that a namespace dies");
        }
        Part::Installed => {
            for system in [System::copy_of_this(scratch.path())?, System::old(scratch.path())?] {
                let start = Instant::now();
                on(&system, &options.package).with_context(|| format!("on {}", system.name))?;
                let seconds = start.elapsed().as_secs_f64();
                tool::note(&format!("installed, used and purged on {}: {seconds:.1} s", system.name));
            }
            cgroups::remove()?;
        }
    }
    Ok(())
}

fn on(system: &System, package: &Path) -> Result<()> {
    usage::prepare(system, package)?;
    let machine = Machine::boot(system)?;
    let used = usage::install(&machine)
        .and_then(|()| usage::steer(&machine))
        .and_then(|()| usage::hand_off(&machine))
        .and_then(|()| own_file::apply(&machine, usage::NAMESPACE))
        .and_then(|()| usage::stop(&machine));
    if let Err(error) = used {
        tool::note(&machine.journal());
        return Err(error);
    }
    residue::purge(&machine, system)?;
    machine.power_off()
}
