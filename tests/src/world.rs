//! What most tests begin with: a pod, a client, and the daemon.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use serde_json::Value;

use crate::{
    cli::Cli,
    client::{Conversation, Greeting, Stop, answer, visit, visit_here},
    daemon::Daemon,
    eventually::eventually,
    topology::{POD_V4, POD_V6, Topology, at},
};

/// A pod and a client, and a daemon that steers nothing yet.
#[derive(Debug)]
pub struct World {
    /// The daemon. First, so that it is stopped while the namespaces are there.
    pub daemon: Daemon,
    /// The namespaces.
    pub net: Topology,
}

impl World {
    /// Makes one.
    #[track_caller]
    #[must_use]
    pub fn new() -> Self {
        Self::with(Daemon::start(), Topology::new())
    }

    /// Of these.
    #[must_use]
    pub fn with(daemon: Daemon, net: Topology) -> Self {
        Self { daemon, net }
    }

    /// The daemon's command line.
    #[must_use]
    pub fn cli(&self) -> Cli {
        self.daemon.cli()
    }

    /// The pod, as a target.
    #[track_caller]
    #[must_use]
    pub fn target(&self) -> String {
        self.net.pod.target()
    }

    /// Attaches a rule to the pod, which must succeed. Options are words, as on a command line without quotes.
    #[track_caller]
    pub fn attach(&self, options: &str) -> Value {
        let target = self.target();
        let words: Vec<_> = ["attach", &target].into_iter().chain(options.split_whitespace()).collect();
        self.cli().json(&words)
    }

    /// Steers a match to a destination under a name.
    #[track_caller]
    pub fn steer(&self, name: &str, matching: &str, to: &str) -> Value {
        self.attach(&format!("--name {name} --match {matching} --to {to}"))
    }

    /// Detaches every rule of the pod, which must succeed.
    #[track_caller]
    pub fn detach(&self) -> Value {
        self.cli().json(&["detach", &self.target()])
    }

    /// Everything that `list` says.
    #[track_caller]
    #[must_use]
    pub fn list(&self) -> Value {
        self.cli().json(&["list"])
    }

    /// What `list` says about the pod, which must be steered.
    #[track_caller]
    #[must_use]
    pub fn pod(&self) -> Value {
        let mut list = self.cli().json(&["list", &self.target()]);
        let namespaces = list["namespaces"].as_array_mut().expect("an array");
        assert_eq!(namespaces.len(), 1, "{namespaces:#?}");
        namespaces.remove(0)
    }

    /// What `list` says about a rule of the pod.
    #[track_caller]
    #[must_use]
    pub fn rule(&self, name: &str) -> Value {
        let pod = self.pod();
        let rules = pod["rules"].as_array().expect("an array");
        rules
            .iter()
            .find(|rule| rule["name"] == name)
            .unwrap_or_else(|| panic!("no `{name}`: {pod:#}"))
            .clone()
    }

    /// Waits until `list` says something about the pod: `what`, which the value at `pointer` tells.
    #[track_caller]
    pub fn eventually(&self, what: &str, pointer: &str, is: impl Fn(&Value) -> bool) -> Value {
        eventually(what, Duration::from_secs(1), || {
            let pod = self.pod();
            if is(pod.pointer(pointer).unwrap_or(&Value::Null)) { Ok(pod) } else { Err(pod) }
        })
    }

    /// Waits until the daemon has no connection any more, lingering ones included.
    #[track_caller]
    pub fn eventually_at_rest(&self) -> Value {
        self.eventually("no connection is left", "/connections", |connections| {
            connections["active"] == 0 && connections["lingering"] == 0
        })
    }

    /// Who answers the client.
    #[track_caller]
    #[must_use]
    pub fn answer(&self, to: SocketAddr) -> String {
        answer(&self.net.client, to)
    }

    /// A whole conversation of the client, which must go well.
    #[track_caller]
    pub fn visit(&self, to: SocketAddr) -> Greeting {
        visit(&self.net.client, to).unwrap_or_else(|error| panic!("a visit to {to}: {error}"))
    }

    /// A connection of the client that stays open, and who answered.
    #[track_caller]
    pub fn open(&self, to: SocketAddr) -> (Conversation, String) {
        let mut conversation = Conversation::open(&self.net.client, to)
            .unwrap_or_else(|error| panic!("connect to {to}: {error}"));
        let greeting =
            conversation.greeting().unwrap_or_else(|error| panic!("a greeting from {to}: {error}"));
        (conversation, greeting.server)
    }
}

/// As many as connect at the same time as fast as they can.
const CLIENTS: usize = 4;

impl World {
    /// Has four clients connect to port 80 of the pod as fast as they can while `act` acts. Each connection must be served by
    /// one of these servers. How many there were.
    #[track_caller]
    pub fn under_load(&self, servers: &[&str], act: impl FnOnce()) -> usize {
        // For more connections in a minute than there are ports.
        self.net.client.sysctl("net/ipv4/ip_local_port_range", "1024 65535");
        self.net.client.sysctl("net/ipv4/tcp_tw_reuse", "1");
        let (done, visits) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let stop = Stop(&done);
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| {
                    let to = at([POD_V4, POD_V6][number % 2], 80);
                    let (done, visits) = (&done, &visits);
                    scope.spawn(move || {
                        self.net.client.enter(|| {
                            while !done.load(Ordering::Relaxed) {
                                let greeting =
                                    visit_here(to).map_err(|error| format!("client {number}: {error}"))?;
                                if !servers.contains(&&*greeting.server) {
                                    return Err(format!("client {number}: served by {greeting:?}"));
                                }
                                visits.fetch_add(1, Ordering::Relaxed);
                            }
                            Ok(())
                        })
                    })
                })
                .collect();
            act();
            drop(stop);
            for client in clients {
                client.join().expect("no panic").expect("each connection is served");
            }
        });
        visits.into_inner()
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// A counter of a document, 0 where there is none.
#[must_use]
pub fn count(document: &Value, pointer: &str) -> u64 {
    document.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}
