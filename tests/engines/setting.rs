//! An engine, a daemon that finds its containers, and a server outside of both.

use redirector_tests::{
    cli::Cli,
    client::{Conversation, Greeting, answer, visit},
    daemon::Daemon,
    engine::Engine,
    eventually::eventually,
    server::Server,
};
use serde_json::Value;

use crate::AT_ONCE;

/// What most tests need. The daemon ends first, the engine last.
pub(crate) struct Setting {
    pub(crate) daemon: Daemon,
    pub(crate) proxy: Server,
    pub(crate) engine: Engine,
}

/// The port that is steered.
pub(crate) const PORT: u16 = 8080;

impl Setting {
    pub(crate) fn new(kind: &'static str) -> Self {
        let engine = Engine::start(kind);
        let daemon = Daemon::with(&[&engine.option()]);
        Self { daemon, proxy: Server::here("proxy"), engine }
    }

    pub(crate) fn cli(&self) -> Cli {
        self.daemon.cli()
    }

    /// Steers the port of a container to the server outside; gives the answer.
    #[track_caller]
    pub(crate) fn steer(&self, container: &str, options: &[&str]) -> Value {
        let (target, matching, to) =
            (self.engine.target(container), format!("tcp:{PORT}"), self.proxy.destination());
        let attach = ["attach", &target, "--name", "web", "--match", &matching, "--to", &to];
        self.cli().json(&[&attach, options].concat())
    }

    /// Who answers at the port of a container, to a client on the host's side of the bridge.
    #[track_caller]
    pub(crate) fn answer(&self, container: &str) -> String {
        answer(self.engine.netns(), self.engine.socket_of(container, PORT))
    }

    /// A whole conversation with a container, which must go well.
    #[track_caller]
    pub(crate) fn visit(&self, container: &str) -> Greeting {
        let to = self.engine.socket_of(container, PORT);
        visit(self.engine.netns(), to).unwrap_or_else(|error| panic!("a visit to {container}, {to}: {error}"))
    }

    /// A connection to a container that stays open.
    #[track_caller]
    pub(crate) fn open(&self, container: &str) -> Conversation {
        let to = self.engine.socket_of(container, PORT);
        let mut conversation = Conversation::open(self.engine.netns(), to).expect("connect");
        assert_eq!(conversation.greeting().expect("a greeting").server, "proxy");
        conversation
    }

    #[track_caller]
    pub(crate) fn list(&self) -> Value {
        self.cli().json(&["list"])
    }

    /// The targets that are steered, and those that wait.
    #[track_caller]
    pub(crate) fn targets(&self) -> (Vec<String>, Vec<String>) {
        let list = self.list();
        let of = |key: &str| {
            let one = |view: &Value| view["target"].as_str().expect("a target").to_owned();
            list[key].as_array().expect("an array").iter().map(one).collect()
        };
        (of("namespaces"), of("waiting"))
    }

    /// Waits until `list` says something of itself.
    #[track_caller]
    pub(crate) fn eventually(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        eventually(what, AT_ONCE, || {
            let list = self.list();
            if is(&list) { Ok(list) } else { Err(list) }
        })
    }

    /// Waits until a container's rule is in force in a namespace other than `before`; gives its cookie.
    #[track_caller]
    pub(crate) fn eventually_steered(&self, container: &str, before: u64) -> u64 {
        let target = self.engine.target(container);
        let here = |list: &Value| {
            let namespaces = list["namespaces"].as_array().expect("an array");
            let mut cookies = namespaces
                .iter()
                .filter(|view| view["target"] == target)
                .filter_map(|view| view["cookie"].as_u64());
            cookies.find(|cookie| *cookie != before)
        };
        let list = self.eventually("the container is steered again", |list| here(list).is_some());
        here(&list).expect("a cookie")
    }

    /// Waits until nothing is steered and a container's rules wait; gives why.
    #[track_caller]
    pub(crate) fn eventually_waiting(&self, container: &str) -> String {
        let target = self.engine.target(container);
        let list = self.eventually("its rule waits", |list| {
            list["namespaces"] == serde_json::json!([]) && list["waiting"][0]["target"] == target
        });
        list["waiting"][0]["why"].as_str().expect("a reason").to_owned()
    }

    /// Waits until nothing is steered, and nothing waits.
    #[track_caller]
    pub(crate) fn eventually_nothing(&self) {
        self.eventually("nothing is steered", |list| {
            list["namespaces"] == serde_json::json!([]) && list["waiting"] == serde_json::json!([])
        });
    }
}

/// The cookie of an answer.
#[track_caller]
pub(crate) fn cookie(answer: &Value) -> u64 {
    answer["cookie"].as_u64().unwrap_or_else(|| panic!("no cookie: {answer:#}"))
}
