//! A container engine of one's own: `xtask engine`, which `cargo xtask test` names in `$XTASK`.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, SocketAddr},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use serde_json::Value;

use crate::{
    command::{Outcome, must, run, spawn},
    netns::Netns,
};

/// A running engine. Dropping it removes its containers, and it.
#[derive(Debug)]
pub struct Engine {
    kind: &'static str,
    child: Child,
    said: Mutex<BufReader<ChildStdout>>,
    socket: String,
    host: String,
    image: String,
    netns: Netns,
}

impl Engine {
    /// Starts `docker`, `podman` or `rootless-podman`.
    #[track_caller]
    #[must_use]
    pub fn start(kind: &'static str) -> Self {
        let xtask = env::var_os("XTASK").expect("$XTASK names xtask: `cargo xtask test` sets it");
        let mut child =
            spawn(Command::new(xtask).args(["engine", kind]).stdin(Stdio::piped()).stdout(Stdio::piped()));
        let mut said = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        said.read_line(&mut line).expect("read what the engine says");
        let described: Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{kind} does not start: {error}"));
        let text =
            |name: &str| described[name].as_str().unwrap_or_else(|| panic!("no `{name}`: {line}")).to_owned();
        Self {
            kind: kind.trim_start_matches("rootless-"),
            said: Mutex::new(said),
            socket: text("socket"),
            host: text("host"),
            image: text("image"),
            netns: Netns::at(text("netns").as_ref()),
            child,
        }
    }

    /// `docker` or `podman`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// The option of `redirector run` that names its socket.
    #[must_use]
    pub fn option(&self) -> String {
        format!("--{}-socket={}", self.kind, self.socket)
    }

    /// The namespace that it is in, where its bridge is.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The image of its containers.
    #[must_use]
    pub fn image(&self) -> &str {
        &self.image
    }

    /// How a user names a container to redirector.
    #[must_use]
    pub fn target(&self, container: &str) -> String {
        format!("{}:{container}", self.kind)
    }

    /// A command of Docker's client, which Podman understands too.
    #[track_caller]
    pub fn try_client(&self, arguments: &[&str]) -> Outcome {
        run(Command::new("docker").args(arguments).env("DOCKER_HOST", &self.host))
    }

    /// A command that must succeed, and what it said.
    #[track_caller]
    pub fn client(&self, arguments: &[&str]) -> String {
        must(Command::new("docker").args(arguments).env("DOCKER_HOST", &self.host)).stdout.trim().to_owned()
    }

    /// Runs a container that sleeps; gives its id.
    #[track_caller]
    pub fn run(&self, name: &str, options: &[&str]) -> String {
        self.client(&[&["run", "--detach", "--name", name], options, &[&self.image]].concat())
    }

    /// The address of a running container on the bridge.
    #[track_caller]
    #[must_use]
    pub fn address(&self, container: &str) -> IpAddr {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address = self.client(&["inspect", container, "--format", format]);
        address.parse().unwrap_or_else(|_| panic!("`{container}` has no address: {address:?}"))
    }

    /// A port of a running container.
    #[track_caller]
    #[must_use]
    pub fn socket_of(&self, container: &str, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(container), port)
    }

    /// Its namespace.
    #[track_caller]
    #[must_use]
    pub fn netns_of(&self, container: &str) -> Netns {
        let pid = self.client(&["inspect", container, "--format", "{{.State.Pid}}"]);
        Netns::at(format!("/proc/{pid}/ns/net").as_ref())
    }

    /// Makes it `stop`, `kill` or `start` the engine's process.
    #[track_caller]
    pub fn tell(&self, what: &str) {
        let mut stdin = self.child.stdin.as_ref().expect("a pipe");
        writeln!(stdin, "{what}").expect("tell the engine");
        let mut line = String::new();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.read_line(&mut line).expect("read what the engine says");
        assert_eq!(line, "done\n", "{what}");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if let Err(error) = self.child.wait() {
            eprintln!("wait for {}: {error}", self.kind);
        }
    }
}
