//! The two namespaces of the demo, and the veth pair that joins them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::interrupt::Interrupt;
use crate::tool;

/// Where redirector steers.
pub(crate) const SERVER: Namespace = Namespace {
    name: "ns1",
    v4: Ipv4Addr::new(10, 123, 0, 1),
    v6: Ipv6Addr::new(0xfd00, 0x123, 0, 0, 0, 0, 0, 1),
};
/// Where the client is.
pub(crate) const CLIENT: Namespace = Namespace {
    name: "ns2",
    v4: Ipv4Addr::new(10, 123, 0, 2),
    v6: Ipv6Addr::new(0xfd00, 0x123, 0, 0, 0, 0, 0, 2),
};

const DEVICE: &str = "eth0";

#[derive(Clone, Copy)]
pub(crate) struct Namespace {
    pub(crate) name: &'static str,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

impl Namespace {
    pub(crate) fn path(self) -> PathBuf {
        PathBuf::from("/run/netns").join(self.name)
    }

    /// Its address in the family of `other`.
    pub(crate) fn address_like(self, other: SocketAddr) -> IpAddr {
        if other.is_ipv4() { self.v4.into() } else { self.v6.into() }
    }

    pub(crate) fn sockets(self, port: u16) -> Vec<SocketAddr> {
        let mut sockets = vec![SocketAddr::from((self.v4, port))];
        if has_ipv6() {
            sockets.push(SocketAddr::from((self.v6, port)));
        }
        sockets
    }

    /// The inode of the namespace, as `readlink /proc/PID/ns/net` shows it.
    pub(crate) fn inode(self) -> Result<u64> {
        let path = self.path();
        Ok(path.metadata().with_context(|| format!("stat `{}`", path.display()))?.ino())
    }

    /// A command that runs `program` with the network of this namespace and everything else of ours.
    ///
    /// Not `ip netns exec`: that hides what is mounted under /sys as well.
    pub(crate) fn command(self, program: &PathBuf) -> Result<Command> {
        let mut command = tool::command("nsenter")?;
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        Ok(command)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A kernel may run without it.
fn has_ipv6() -> bool {
    PathBuf::from("/proc/net/if_inet6").exists()
}

pub(crate) fn refuse_taken_names() -> Result<()> {
    for namespace in [SERVER, CLIENT] {
        refuse_taken_name(namespace)?;
    }
    Ok(())
}

fn refuse_taken_name(namespace: Namespace) -> Result<()> {
    if namespace.path().symlink_metadata().is_ok() {
        bail!(
            "a network namespace `{namespace}` exists already and the demo makes its own: \
             end the other demo, or `ip netns delete {namespace}` if nobody needs it"
        );
    }
    Ok(())
}

/// The namespaces that we made. Deleting them deletes the devices in them.
pub(crate) struct Network {
    made: Vec<Namespace>,
}

impl Network {
    pub(crate) fn create(interrupt: &Interrupt) -> Result<Self> {
        refuse_taken_names()?;
        let mut network = Self { made: Vec::new() };
        for namespace in [SERVER, CLIENT] {
            if let Err(error) = ip(&["netns", "add", namespace.name]) {
                // Somebody was quicker. `ip netns add` never takes over a name.
                refuse_taken_name(namespace)?;
                return Err(error);
            }
            network.made.push(namespace);
            interrupt.check()?;
        }
        network.join()?;
        Ok(network)
    }

    fn join(&self) -> Result<()> {
        // Made inside: neither end is ever in the namespace of the host, where its name could clash.
        let (here, there) = (SERVER.name, CLIENT.name);
        let veth =
            ["-n", here, "link", "add", DEVICE, "type", "veth", "peer", "name", DEVICE, "netns", there];
        ip(&veth)?;
        for namespace in &self.made {
            let name = namespace.name;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
            ip(&["-n", name, "link", "set", DEVICE, "up"])?;
            let address = format!("{}/24", namespace.v4);
            ip(&["-n", name, "address", "add", &address, "dev", DEVICE])?;
            if has_ipv6() {
                // Without nodad it could not be used for the first second or two.
                let address = format!("{}/64", namespace.v6);
                ip(&["-n", name, "address", "add", &address, "dev", DEVICE, "nodad"])?;
            }
        }
        Ok(())
    }

    pub(crate) fn remove(&mut self) -> Result<()> {
        let mut result = Ok(());
        while let Some(namespace) = self.made.pop() {
            if let Err(error) = ip(&["netns", "delete", namespace.name]) {
                result = Err(error);
            }
        }
        result
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tool::note(&format!("{error:#}"));
        }
    }
}

/// Runs `ip` to its end whatever signals come: what is half made, or half removed, would have no owner.
fn ip(arguments: &[&str]) -> Result<()> {
    tool::call_quietly(tool::command("ip")?.args(arguments).process_group(0)).map(drop)
}
