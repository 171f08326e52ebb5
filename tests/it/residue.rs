//! What redirector leaves behind: nothing.

use std::{io::ErrorKind, time::Duration};

use redirector_tests::{
    client::Conversation,
    daemon::Daemon,
    eventually::eventually,
    server::Server,
    snapshot::Snapshot,
    topology::{POD_V4, POD_V6, Topology, at},
    world::World,
};

/// A pod with an application, steered in every way that needs something in the namespace.
struct Scene {
    before: Snapshot,
    world: World,
    /// A connection to the application from before there was any steering.
    old: Conversation,
    _app: Server,
    _proxy: Server,
}

impl Scene {
    #[track_caller]
    fn with(daemon: Daemon) -> Self {
        let (world, proxy) = (World::with(daemon, Topology::new()), Server::here("proxy"));
        let app = Server::inside(&world.net.pod, "app", 80);
        let (old, _) = world.open(at(POD_V4, 80));
        let before = Snapshot::of(&world.net.pod);
        world.steer("http", "tcp:80", &proxy.destination());
        world.steer("rest", "tcp:81-90", "original");
        world.steer("no", "tcp:91", "reject");
        let scene = Self { before, world, old, _app: app, _proxy: proxy };
        scene.assert_answers("proxy");
        assert_ne!(Snapshot::of(&scene.world.net.pod), scene.before, "steering must be seen in a snapshot");
        scene
    }

    #[track_caller]
    fn assert_answers(&self, name: &str) {
        for pod in [POD_V4, POD_V6] {
            assert_eq!(self.world.answer(at(pod, 80)), name);
        }
    }

    /// At once: nothing is waited for.
    #[track_caller]
    fn assert_as_before(&mut self) {
        self.old.echo("never harmed").unwrap();
        self.assert_answers("app");
        Snapshot::of(&self.world.net.pod).assert_same_as(&self.before);
        // Where `reject` was there is nobody, as before.
        assert_eq!(self.world.answer(at(POD_V4, 91)), "refused");
    }
}

fn assert_reset(conversation: &mut Conversation) {
    assert_eq!(conversation.rest().unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_killed_daemon_leaves_the_namespace_as_it_was_at_once() {
    let mut scene = Scene::with(Daemon::start());
    let mut open = [POD_V4, POD_V6].map(|pod| scene.world.open(at(pod, 80)).0);
    scene.world.daemon.kill();
    scene.assert_as_before();
    // The kernel closes what the daemon had open: FIN, or RST where bytes were under way.
    open.iter_mut().for_each(|conversation| drop(conversation.rest()));
}

#[test]
fn detach_leaves_the_namespace_as_it_was_at_once() {
    let mut scene = Scene::with(Daemon::start());
    scene.world.detach();
    scene.assert_as_before();
}

#[test]
fn detach_with_an_open_connection_leaves_only_that() {
    let mut scene = Scene::with(Daemon::start());
    let (mut open, _) = scene.world.open(at(POD_V4, 80));
    scene.world.detach();
    scene.assert_as_before();
    open.echo("still there").unwrap();
    open.finish().unwrap();
    Snapshot::of(&scene.world.net.pod).assert_same_as(&scene.before);
}

#[test]
fn a_stop_leaves_the_namespace_as_it_was_at_once() {
    // With nothing to drain the time for it does not matter.
    let mut scene = Scene::with(Daemon::with(&["--drain-timeout", "1h"]));
    scene.world.eventually_at_rest();
    scene.world.daemon.stop();
    scene.assert_as_before();
    assert!(!scene.world.daemon.socket().exists(), "a daemon that was stopped removes its socket");
}

#[test]
fn a_stop_resets_what_is_open_at_the_drain_deadline() {
    let mut scene = Scene::with(Daemon::with(&["--drain-timeout", "300ms"]));
    let mut open = [POD_V4, POD_V6].map(|pod| scene.world.open(at(pod, 80)).0);
    scene.world.daemon.stop();
    scene.assert_as_before();
    open.iter_mut().for_each(assert_reset);
}

#[test]
fn a_stop_waits_for_what_is_open_while_new_connections_reach_the_application() {
    let mut scene = Scene::with(Daemon::with(&["--drain-timeout", "1h"]));
    let (mut open, _) = scene.world.open(at(POD_V4, 80));
    scene.world.daemon.signal(nix::sys::signal::Signal::SIGTERM);
    eventually("new connections reach the application", Duration::from_secs(1), || {
        match scene.world.answer(at(POD_V4, 80)) {
            seen if seen == "app" => Ok(()),
            seen => Err(seen),
        }
    });
    // Handshakes that were under way are given a moment.
    eventually("the namespace is as it was", Duration::from_secs(1), || {
        let now = Snapshot::of(&scene.world.net.pod);
        if now == scene.before { Ok(()) } else { Err(now) }
    });
    open.echo("still there").unwrap();
    open.finish().unwrap();
    assert!(scene.world.daemon.wait().success());
    scene.assert_as_before();
}

#[test]
fn a_second_signal_ends_the_drain() {
    let mut scene = Scene::with(Daemon::with(&["--drain-timeout", "1h"]));
    let (mut open, _) = scene.world.open(at(POD_V4, 80));
    scene.world.daemon.signal(nix::sys::signal::Signal::SIGTERM);
    eventually("the first signal is taken", Duration::from_secs(1), || {
        match scene.world.answer(at(POD_V4, 80)) {
            seen if seen == "app" => Ok(()),
            seen => Err(seen),
        }
    });
    scene.world.daemon.signal(nix::sys::signal::Signal::SIGINT);
    scene.world.daemon.wait();
    assert_reset(&mut open);
    scene.assert_as_before();
}

#[test]
fn a_daemon_that_was_killed_can_be_followed_by_another_on_the_same_socket() {
    let mut scene = Scene::with(Daemon::start());
    scene.world.daemon.kill();
    assert!(scene.world.daemon.socket().exists(), "SIGKILL leaves the socket file");
    let mut command = std::process::Command::new(redirector_tests::daemon::binary());
    let again = Daemon::at(scene.world.daemon.socket(), command.arg("run"), &[]);
    let answer = again.cli().json(&["list"]);
    assert_eq!(answer["namespaces"], serde_json::json!([]), "a new daemon steers nothing: {answer:#}");
    scene.assert_as_before();
}
