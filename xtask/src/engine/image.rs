//! The image of the demo's and the tests' containers: busybox alone. No registry is asked.

use std::{
    fs,
    os::unix::fs::symlink,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::{Engine, LIMIT};
use crate::{demo::interrupt::Interrupt, tool};

/// Its name.
pub(crate) const IMAGE: &str = "localhost/busybox:demo";

/// What is made an image of.
const BUSYBOX: &str = "/bin/busybox";

pub(super) fn import(interrupt: &Interrupt, engine: &Engine) -> Result<()> {
    let root = engine.path("root");
    for directory in ["bin", "etc", "tmp"] {
        fs::create_dir_all(root.join(directory)).context("make the image's directories")?;
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).with_context(|| format!("copy `{BUSYBOX}`"))?;
    let applets = tool::call_quietly(Command::new(BUSYBOX).arg("--list"))?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).with_context(|| format!("link `{applet}`"))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").context("write etc/passwd")?;
    fs::write(root.join("etc/group"), "root:x:0:\n").context("write etc/group")?;

    let archive = engine.path("image.tar");
    tool::call_quietly(tool::command("tar")?.arg("-C").arg(&root).arg("-cf").arg(&archive).arg("."))?;
    let mut import = engine.client()?;
    // An imported image has no PATH.
    import.args(["import", "--change", "ENV PATH=/bin", "--change", "CMD [\"sleep\", \"infinity\"]"]);
    import.arg(&archive).arg(IMAGE).stdin(Stdio::null());
    let imported = interrupt.output(&mut import, LIMIT)?;
    if !imported.status.success() {
        bail!("import the image: {}", String::from_utf8_lossy(&imported.stderr).trim());
    }
    Ok(())
}
