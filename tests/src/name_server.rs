//! A name server that answers what a test wants, and a daemon that asks it.

use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    process::{self, Command},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    daemon::{Daemon, binary},
    dir::Dir,
    netns::Netns,
};

/// Types of records (RFC 1035, RFC 3596).
const A: u16 = 1;
const AAAA: u16 = 28;

/// A name server on a loopback address, in UDP. It knows nobody when it begins.
#[derive(Debug)]
pub struct NameServer {
    table: Arc<Mutex<HashMap<String, Entry>>>,
    is_done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    dir: Dir,
}

#[derive(Debug, Default)]
struct Entry {
    /// `None`: silence.
    addresses: Option<Vec<IpAddr>>,
    /// Queries for addresses of either family.
    asked: usize,
}

impl NameServer {
    /// Starts one on 127.0.0.1 of a namespace.
    #[track_caller]
    #[must_use]
    pub fn inside(netns: &Netns) -> Self {
        Self::of(netns.enter(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).expect("bind port 53")))
    }

    /// Starts one in the namespace of the tests, on an address that nobody else has.
    #[track_caller]
    #[must_use]
    pub fn here() -> Self {
        let third = u8::try_from(process::id() % 250).expect("it is small");
        let mut addresses = (1..255).map(|fourth| Ipv4Addr::new(127, 53, third, fourth));
        let socket = addresses.find_map(|address| UdpSocket::bind((address, 53)).ok());
        Self::of(socket.expect("an address with a free port 53"))
    }

    #[track_caller]
    fn of(socket: UdpSocket) -> Self {
        let address = socket.local_addr().expect("its address").ip();
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("SO_RCVTIMEO");
        let (table, is_done) =
            (Arc::<Mutex<HashMap<String, Entry>>>::default(), Arc::<AtomicBool>::default());
        let thread = thread::spawn({
            let (table, is_done) = (Arc::clone(&table), Arc::clone(&is_done));
            move || {
                let mut query = [0; 512];
                while !is_done.load(Ordering::Relaxed) {
                    let Ok((length, peer)) = socket.recv_from(&mut query) else { continue };
                    let answer = answer(&query[..length], &mut lock(&table));
                    if let Some(answer) = answer {
                        // Who asked may have gone.
                        drop(socket.send_to(&answer, peer));
                    }
                }
            }
        });
        let dir = Dir::new();
        fs::write(dir.join("hosts"), "").expect("write hosts");
        fs::write(dir.join("nsswitch.conf"), "hosts: files dns\n").expect("write nsswitch.conf");
        // Silence lasts 2 s for getaddrinfo(3), and not 10: tests wait for the end of it.
        let servers = format!("nameserver {address}\noptions timeout:2 attempts:1\n");
        fs::write(dir.join("resolv.conf"), servers).expect("write resolv.conf");
        Self { table, is_done, thread: Some(thread), dir }
    }

    /// From now on a name has these addresses; without any it does not exist.
    pub fn says(&self, name: &str, addresses: &[IpAddr]) {
        self.table().entry(name.to_owned()).or_default().addresses = Some(addresses.to_owned());
    }

    /// From now on nothing is answered to questions for a name.
    pub fn is_silent_about(&self, name: &str) {
        self.table().entry(name.to_owned()).or_default().addresses = None;
    }

    /// Queries for a name until now. A look-up asks for two families, and again where there is no answer.
    #[must_use]
    pub fn asked(&self, name: &str) -> usize {
        self.table().get(name).map_or(0, |entry| entry.asked)
    }

    /// Starts a daemon that asks this server and nobody else.
    #[track_caller]
    #[must_use]
    pub fn daemon(&self, options: &[&str]) -> Daemon {
        let script = "mount --bind \"$0\" /etc && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "slave", "--", "sh", "-c", script]);
        command.arg(self.dir.path()).arg(binary()).arg("run");
        Daemon::spawn(&mut command, options)
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        lock(&self.table)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.is_done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn lock(table: &Mutex<HashMap<String, Entry>>) -> MutexGuard<'_, HashMap<String, Entry>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The answer to a query with one question (RFC 1035, 4.1).
fn answer(query: &[u8], table: &mut HashMap<String, Entry>) -> Option<Vec<u8>> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    let question = query.get(12..at + 4)?;
    let entry =
        table.entry(labels.join(".")).or_insert_with(|| Entry { addresses: Some(Vec::new()), asked: 0 });
    entry.asked += 1;
    let addresses = entry.addresses.as_ref()?;
    let records: Vec<Vec<u8>> = addresses
        .iter()
        .filter_map(|address| match address {
            IpAddr::V4(address) if kind == A => Some(address.octets().to_vec()),
            IpAddr::V6(address) if kind == AAAA => Some(address.octets().to_vec()),
            _ => None,
        })
        .collect();
    let rcode = if addresses.is_empty() { 3 } else { 0 };
    let mut answer = query.get(..2)?.to_vec();
    // A response, recursion was wanted and is there.
    answer.extend([0x81, 0x80 | rcode, 0, 1, 0, u8::try_from(records.len()).ok()?, 0, 0, 0, 0]);
    answer.extend(question);
    for record in records {
        // The name of the question; kind, class IN, a time to live of 0.
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 0, 0, u8::try_from(record.len()).ok()?]);
        answer.extend(record);
    }
    Some(answer)
}
