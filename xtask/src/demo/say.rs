//! The demo's client: sends one message, reads the answer to its end. A process of its own, because the demo
//! starts it inside a namespace.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{interrupt::Interrupt, network::Namespace};
use crate::tool;

const LIMIT: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Options {
    to: SocketAddr,
    message: String,
}

/// What the client saw.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Said {
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) reply: String,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let Options { to, message } = options;
    let mut stream = TcpStream::connect_timeout(to, LIMIT).with_context(|| format!("connect to {to}"))?;
    // Now: a connection that both sides have ended has no peer any more.
    let local = stream.local_addr().context("getsockname")?;
    let peer = stream.peer_addr().context("getpeername")?;
    stream.set_read_timeout(Some(LIMIT)).context("set SO_RCVTIMEO")?;
    stream.write_all(message.as_bytes()).with_context(|| format!("write to {to}"))?;
    stream.shutdown(Shutdown::Write).with_context(|| format!("shutdown of the connection to {to}"))?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).with_context(|| format!("read from {to}"))?;
    println!("{}", serde_json::to_string(&Said { local, peer, reply }).context("serialise the answer")?);
    Ok(())
}

/// Sends `message` to `to` from a socket made inside `from`.
pub(crate) fn say(interrupt: &Interrupt, from: Namespace, to: SocketAddr, message: &str) -> Result<Said> {
    let mut command = from.command(&tool::myself()?)?;
    command.args(["say", &to.to_string(), message]);
    // Connecting, and reading, each have LIMIT.
    let answer = interrupt.call(&mut command, 3 * LIMIT)?;
    serde_json::from_str(&answer).with_context(|| format!("parse the answer of the client: {answer:?}"))
}
