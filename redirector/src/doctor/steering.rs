//! The whole of it, once: a connection to one address that another socket takes.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::fd::AsFd as _,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use redirector_ebpf::{CONSUMER_RELAY, PROTOCOL_TCP, slot};
use socket2::Socket;

use super::{Check, Status, namespaces::open_own};
use crate::{
    config::{Destination, RuleSpec},
    kernel::{Instance, RuleSet, attached_programs},
    listener::{self, BindError, Reach},
    matcher::{Placed, compile},
    netns::{self, Family},
    text::chain,
};

/// The longest that a connection inside one machine may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where nobody listens in a new namespace.
const PORT: u16 = 80;

const HINT: &str = "mend what failed above first; if nothing did, please report it as a bug";

pub(super) fn checks() -> Vec<Check> {
    let attach = match in_new(attach) {
        Ok(()) => Check::ok("attach", "a program was attached to a new namespace, and detached"),
        Err(error) => Check::not_ok("attach", Status::Fail, chain(error.as_ref()), HINT),
    };
    let ipv4 = match in_new(|| steer(Family::Ipv4)) {
        Ok(found) => Check::ok("steering IPv4", found),
        Err(error) => Check::not_ok("steering IPv4", Status::Fail, chain(error.as_ref()), HINT),
    };
    // Where IPv4 can be steered, redirector is of use.
    let otherwise = if ipv4.status == Status::Ok { Status::Warning } else { Status::Fail };
    let ipv6 = match in_new(|| steer(Family::Ipv6)) {
        Ok(found) => Check::ok("steering IPv6", found),
        Err(error) if matches!(error.downcast_ref(), Some(BindError::NoFamily(_))) => {
            let hint = "nothing is lost: no IPv6 connection can arrive here";
            Check::not_ok("steering IPv6", Status::Note, chain(error.as_ref()), hint)
        }
        Err(error) => Check::not_ok("steering IPv6", otherwise, chain(error.as_ref()), HINT),
    };
    vec![attach, ipv4, ipv6]
}

fn in_new<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    netns::in_new(work).context("unshare CLONE_NEWNET")?
}

fn attach() -> anyhow::Result<()> {
    let instance = Instance::load()?;
    let netns = open_own()?;
    let count = || attached_programs(netns.as_fd()).map(|programs| programs.len());
    instance.attach(netns.as_fd())?;
    ensure!(count().context("bpf BPF_PROG_QUERY")? == 1, "bpf BPF_LINK_CREATE: no program is attached");
    instance.detach();
    ensure!(count().context("bpf BPF_PROG_QUERY")? == 0, "close the link: the program is still attached");
    Ok(())
}

/// Gives what was seen.
fn steer(family: Family) -> anyhow::Result<String> {
    netns::raise_loopback().context("set the loopback device up")?;
    let listener = listener::bind(Reach::only(family))?;
    let bound = address_of(&listener.local_addr().context("getsockname")?)?;
    let address: IpAddr = match family {
        Family::Ipv4 => Ipv4Addr::LOCALHOST.into(),
        Family::Ipv6 => Ipv6Addr::LOCALHOST.into(),
    };
    let destination = SocketAddr::from((address, PORT));
    let instance = Instance::load()?;
    instance.set_listener(slot(CONSUMER_RELAY, PROTOCOL_TCP, family.bit()), listener.as_fd())?;
    let rules = rules()?;
    instance.publish(&rules, 1)?;
    instance.attach(open_own()?.as_fd())?;
    let client = TcpStream::connect_timeout(&destination, PATIENCE)
        .with_context(|| format!("connect to {destination}, which is steered"))?;
    let (accepted, peer) = accept(&listener).context("accept a steered connection")?;
    let seen = address_of(&accepted.local_addr().context("getsockname")?)?;
    ensure!(seen == destination, "getsockname is {seen}, not the original destination {destination}");
    let (peer, own) = (address_of(&peer)?, client.local_addr().context("getsockname")?);
    ensure!(peer == own, "getpeername is {peer}, not the client {own}");
    // So that nothing of it lingers.
    accepted.set_linger(Some(Duration::ZERO)).context("setsockopt SO_LINGER")?;
    drop((accepted, client));
    instance.detach();
    let after = TcpStream::connect_timeout(&destination, PATIENCE);
    ensure!(
        after.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused),
        "connect to {destination} after detach: it is not refused"
    );
    Ok(format!("a connection to {destination} reached the listener on {bound}, with both its addresses"))
}

fn accept(listener: &Socket) -> io::Result<(Socket, socket2::SockAddr)> {
    let timeout = PollTimeout::try_from(PATIENCE).map_err(io::Error::other)?;
    let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    if poll(&mut fds, timeout)? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    listener.accept()
}

fn address_of(address: &socket2::SockAddr) -> anyhow::Result<SocketAddr> {
    address.as_socket().context("not an IP address")
}

/// Every port to the relay's listeners.
fn rules() -> anyhow::Result<RuleSet> {
    let spec: RuleSpec = serde_json::from_value(serde_json::json!({
        "match": ["tcp:*"], "to": [Destination::Original.to_string()],
    }))?;
    let rule = spec.named("doctor".parse()?);
    Ok(compile([Placed::new(&rule, 0)])?.into())
}
