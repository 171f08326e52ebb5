//! What a user does with the package, between installing and removing it.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::Stdio,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Machine, System};

const GREETING: &str = "hello from outside";
pub(super) const NAMESPACE: &str = "server";
const ADDRESSES: [&str; 2] = ["10.99.0.1", "fd99::1"];
const PACKAGE: &str = "root/package.deb";

/// A service outside of the namespaces, started by systemd for each connection. Its Unix socket is another user's:
/// to connect, root needs a capability.
const SOCKET: &str = "[Socket]
ListenStream=127.0.0.1:5000
ListenStream=/run/greeting.sock
SocketUser=nobody
SocketMode=0600
Accept=yes
";

/// Puts the package and the service into a system that is not up yet.
pub(super) fn prepare(system: &System, package: &Path) -> Result<()> {
    let package = fs::read(package).with_context(|| format!("read `{}`", package.display()))?;
    system.write(PACKAGE, package)?;
    system.write("etc/hosts", "127.0.0.1 localhost greeting.test\n")?;
    let units = "etc/systemd/system";
    system.write(&format!("{units}/greeting.socket"), SOCKET)?;
    let service =
        format!("[Service]\nExecStart=/bin/echo {GREETING}\nStandardInput=null\nStandardOutput=socket\n");
    system.write(&format!("{units}/greeting@.service"), service)
}

/// Installing does not start anything; starting does.
pub(super) fn install(machine: &Machine) -> Result<()> {
    machine.run(&format!("dpkg --install /{PACKAGE}"))?;
    for (question, expected) in [("is-enabled", "disabled"), ("is-active", "inactive")] {
        let line = format!("systemctl {question} redirector || true");
        let state = machine.run(&line)?;
        ensure!(state.trim() == expected, "after the installation the service is {}", state.trim());
    }
    // What this systemd does not know in the unit, it would say.
    let unknown = machine.run("systemd-analyze verify redirector.service 2>&1")?;
    ensure!(unknown.is_empty(), "systemd-analyze verify: {}", unknown.trim());
    let version = machine.run("redirector --version")?;
    ensure!(version.starts_with(&format!("redirector {}", super::super::VERSION)), "it is {version}");
    let unreachable = machine.refuses("redirector list")?;
    ensure!(unreachable.contains("/run/redirector/control.sock"), "without a daemon: {unreachable}");
    machine.run("systemctl start redirector greeting.socket")?;
    let list = machine.run("redirector list --json")?;
    ensure!(namespaces(&list)?.is_empty(), "a new daemon steers nothing: {list}");
    machine.run("systemctl reload redirector")?;
    let state = machine.run("systemctl is-active redirector")?;
    ensure!(state.trim() == "active", "after a reload the service is {}", state.trim());
    Ok(())
}

/// Two namespaces, made when the daemon was there already: it has to see mounts of the host that come later.
pub(super) fn steer(machine: &Machine) -> Result<()> {
    machine.run(
        "set -e
         for name in server client; do ip netns add $name; ip -n $name link set lo up; done
         ip -n server link add outside type veth peer name outside netns client
         for name in server client; do ip -n $name link set outside addrgenmode none up; done
         ip -n server address add 10.99.0.1/24 dev outside
         ip -n client address add 10.99.0.2/24 dev outside
         ip -n server address add fd99::1/64 dev outside nodad
         ip -n client address add fd99::2/64 dev outside nodad",
    )?;
    // Nothing listens there.
    for address in ADDRESSES {
        let refused = machine.refuses(&connect(address))?;
        ensure!(refused.contains("refused"), "connecting to {address}: {refused}");
    }
    let before = state(machine)?;
    // By address, by a name (musl has a resolver of its own), and the socket of another user.
    for destination in ["127.0.0.1:5000", "greeting.test:5000", "unix:/run/greeting.sock"] {
        let attach =
            format!("redirector attach netns:{NAMESPACE} --match tcp:80 --name greet --to {destination}");
        machine.run(&attach)?;
        for address in ADDRESSES {
            let answer = machine.run(&connect(address)).with_context(|| format!("to {destination}"))?;
            ensure!(answer.trim() == GREETING, "to {destination}, from {address} came `{answer}`");
        }
    }
    let list = machine.run("redirector list --json")?;
    let steered = namespaces(&list)?.first().map(|one| one["rules"][0]["counters"]["steered"].clone());
    ensure!(steered == Some(6.into()), "6 connections were steered: {list}");
    machine.run(&format!("redirector detach netns:{NAMESPACE}"))?;
    let after = state(machine)?;
    ensure!(before == after, "the namespace before attaching: {before}\nafter detaching: {after}");
    machine.refuses(&connect(ADDRESSES[0])).map(drop)
}

/// Hand-off to a server of another user that makes its own listener: the daemon has to reach into that process.
pub(super) fn hand_off(machine: &Machine) -> Result<()> {
    let server = format!(
        "use IO::Socket::INET; $| = 1;
         my $listener = IO::Socket::INET->new(LocalPort => 8080, Listen => 5) or die $!;
         print \"ready\\n\"; my $client = $listener->accept or die $!; print $client \"{GREETING}\\n\";"
    );
    let line = format!(
        "exec redirector exec netns:{NAMESPACE} --match tcp:80 --listen-as 8080 --user nobody -- perl -e '{server}'"
    );
    let mut exec = machine.command(&line);
    let mut exec = exec.stdout(Stdio::piped()).spawn().context("start `redirector exec`")?;
    let mut said = String::new();
    let stdout = exec.stdout.take().context("take the stdout of `redirector exec`")?;
    BufReader::new(stdout).read_line(&mut said).context("read the stdout of `redirector exec`")?;
    ensure!(said == "ready\n", "the server said `{said}`");
    let answer = machine.run(&connect(ADDRESSES[0]))?;
    ensure!(answer.trim() == GREETING, "from the server came `{answer}`");
    let status = exec.wait().context("wait for `redirector exec`")?;
    ensure!(status.success(), "`redirector exec` ended with {status}");
    Ok(())
}

pub(super) fn stop(machine: &Machine) -> Result<()> {
    machine.run(&format!("redirector attach netns:{NAMESPACE} --match tcp:80 --to reject"))?;
    machine.run("systemctl stop redirector greeting.socket")?;
    let ended = machine.run("systemctl show redirector --property=ActiveState,Result,NRestarts")?;
    for expected in ["ActiveState=inactive", "Result=success", "NRestarts=0"] {
        ensure!(ended.lines().any(|line| line == expected), "not {expected} but {ended}");
    }
    Ok(())
}

/// What a client in the other namespace gets from port 80.
fn connect(address: &str) -> String {
    format!("ip netns exec client bash -c 'exec 3<>/dev/tcp/{address}/80 && cat <&3'")
}

/// What there is in the steered namespace.
fn state(machine: &Machine) -> Result<String> {
    machine.run(&format!(
        "set -e
         ip -n {NAMESPACE} rule; ip -n {NAMESPACE} route show table all; ip -n {NAMESPACE} -6 route show table all
         ip -n {NAMESPACE} -o address; ip netns exec {NAMESPACE} ss --no-header --listening --all --tcp --udp --numeric state listening"
    ))
}

pub(super) fn namespaces(list: &str) -> Result<Vec<serde_json::Value>> {
    let document: serde_json::Value = serde_json::from_str(list).context("parse `redirector list --json`")?;
    match document["namespaces"].as_array() {
        Some(namespaces) => Ok(namespaces.clone()),
        None => bail!("`redirector list --json` has no namespaces: {list}"),
    }
}
