//! The service with a file of its own, as docs/configuration.md sets it up.

use anyhow::{Result, ensure};

use super::{Machine, usage};

const FILE: &str = "/etc/redirector.toml";
const DROP_IN: &str = "/etc/systemd/system/redirector.service.d";

/// It begins with its file, and `systemctl reload` applies it again. Leaves the service as it was.
pub(super) fn apply(machine: &Machine, namespace: &str) -> Result<()> {
    write(machine, namespace, "first")?;
    machine.run(&format!(
        "set -e
         mkdir -p {DROP_IN}
         printf '[Service]\\nExecStart=\\nExecStart=/usr/bin/redirector run --config {FILE}\\n' > {DROP_IN}/own.conf
         systemctl daemon-reload
         systemctl restart redirector"
    ))?;
    // Ready is when the file is applied.
    let list = machine.run("redirector list --json")?;
    let rule = usage::namespaces(&list)?.first().map(|one| one["rules"][0]["name"].clone());
    ensure!(rule == Some("first".into()), "the service begins with its file: {list}");
    write(machine, namespace, "second")?;
    machine.run("systemctl reload redirector")?;
    // Before systemd 253 nobody waits for the end of it.
    machine.run("timeout 60 bash -c 'until redirector list | grep --quiet second; do :; done'")?;
    machine.run(&format!(
        "set -e
         rm --recursive {DROP_IN} {FILE}
         systemctl daemon-reload
         systemctl restart redirector"
    ))?;
    let list = machine.run("redirector list --json")?;
    ensure!(usage::namespaces(&list)?.is_empty(), "without a file it begins with nothing: {list}");
    Ok(())
}

fn write(machine: &Machine, namespace: &str, rule: &str) -> Result<()> {
    let target = format!("[[namespace]]\\ntarget = \"netns:{namespace}\"\\n");
    let rule =
        format!("[[namespace.rule]]\\nname = \"{rule}\"\\nmatch = [\"tcp:80\"]\\nto = [\"reject\"]\\n");
    machine.run(&format!("printf '{target}{rule}' > {FILE}")).map(drop)
}
