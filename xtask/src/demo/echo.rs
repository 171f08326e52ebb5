//! The service that the demo's connections end at: it answers with what it received.
//!
//! A process of its own in the namespace where the demo was started. It tells its starter, as lines of JSON on
//! stdout, where it listens and what came, so that the demo shows what arrived and does not assume it.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::MetadataExt as _,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::interrupt::{self, Interrupt};
use crate::tool;

const START_LIMIT: Duration = Duration::from_secs(10);
/// The most of one connection's bytes that are told. All are echoed.
const TOLD: usize = 4096;

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    Listening { address: SocketAddr, namespace: u64 },
    Ended { peer: SocketAddr, text: String },
}

pub(crate) struct Echo {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Inode of the network namespace that it listens in, read by itself.
    pub(crate) namespace: u64,
    pub(crate) events: Receiver<Event>,
}

impl Echo {
    pub(crate) fn start(interrupt: &Interrupt) -> Result<Self> {
        let mut command = Command::new(tool::myself()?);
        command.arg("echo").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = interrupt::spawn(&mut command)?;
        let stdout = child.stdout.take().context("take the stdout of the echo service")?;
        let (sender, events) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Ok(event) = serde_json::from_str(&line) else { break };
                // Read on when nobody listens any more: the service must not block on a full pipe.
                drop(sender.send(event));
            }
        });
        let unset = SocketAddr::from(([0, 0, 0, 0], 0));
        // From here on the child has an owner that ends it.
        let mut echo = Self { child, address: unset, namespace: 0, events };
        let Event::Listening { address, namespace } =
            interrupt.receive("start of the echo service", START_LIMIT, &echo.events)?
        else {
            bail!("the echo service did not say where it listens");
        };
        (echo.address, echo.namespace) = (address, namespace);
        Ok(echo)
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        if let Err(error) = interrupt::end_by_force(&mut self.child) {
            tool::note(&format!("echo service: {error:#}"));
        }
    }
}

/// The service itself. It ends with its stdin, so it does not outlive a starter that was killed.
pub(crate) fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").context("bind 127.0.0.1:0")?;
    let namespace = fs::metadata("/proc/self/ns/net").context("stat `/proc/self/ns/net`")?.ino();
    tell(&Event::Listening { address: listener.local_addr().context("getsockname")?, namespace })?;
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                if let Err(error) = stream.context("accept").and_then(echo) {
                    tool::note(&format!("echo service: {error:#}"));
                }
            });
        }
    });
    io::copy(&mut io::stdin(), &mut io::sink()).context("read stdin").map(drop)
}

fn echo(mut stream: TcpStream) -> Result<()> {
    let peer = stream.peer_addr().context("getpeername")?;
    let mut told = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = stream.read(&mut buffer).context("read")?;
        if count == 0 {
            break;
        }
        let received = &buffer[..count];
        told.extend_from_slice(&received[..count.min(TOLD - told.len())]);
        stream.write_all(received).context("write")?;
    }
    drop(stream);
    tell(&Event::Ended { peer, text: String::from_utf8_lossy(&told).into_owned() })
}

fn tell(event: &Event) -> Result<()> {
    let mut line = serde_json::to_string(event).context("serialise an event")?;
    line.push('\n');
    // One write a line: connections tell at the same time.
    io::stdout().lock().write_all(line.as_bytes()).context("write to stdout")
}
