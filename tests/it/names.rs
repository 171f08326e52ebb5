//! Destinations that move: a host name's addresses, and the namespace that a name or an engine leads to. What a failure
//! disproves is not believed any longer.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use redirector_tests::{
    client::answer,
    daemon::Daemon,
    dir::Dir,
    eventually::eventually,
    fake_engine::{engine, inspected, json, version},
    name_server::NameServer,
    netns::Netns,
    server::{Place, Server, echo},
    topology::{POD_V4, Topology, at},
    world::{World, count},
};
use serde_json::Value;

use crate::SECOND;

/// Where something listens, and where it is later.
const OLD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const NEW: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// Only what a failed dial asks for.
const NEVER: &[&str] = &["--resolve-interval", "0s"];

/// A daemon in a namespace of its own, with a name server of its own.
struct Named {
    world: World,
    home: Netns,
    names: NameServer,
}

impl Named {
    #[track_caller]
    fn with(options: &[&str]) -> Self {
        let home = Netns::new();
        home.ip("link set lo up");
        let names = NameServer::inside(&home);
        let world = World::with(home.enter(|| names.daemon(options)), Topology::new());
        Self { world, home, names }
    }

    #[track_caller]
    fn server(&self, name: &str, address: IpAddr) -> Server {
        Server::start(Place::In(&self.home), name, &[at(address, 8080)], echo)
    }
}

#[test]
fn a_refused_dial_looks_the_name_up_again_and_no_client_is_lost() {
    let named = Named::with(NEVER);
    named.names.says("moves.test", &[OLD]);
    let old = named.server("old", OLD);
    // One entry for all of them.
    named.world.steer("fixed", "tcp:80", "moves.test:8080");
    named.world.steer("same", "tcp:81", "MOVES.test:8080");
    named.world.steer("client", "tcp:8080", "moves.test:*");
    for port in [80, 81, 8080] {
        assert_eq!(named.world.answer(at(POD_V4, port)), "old");
    }
    assert_eq!(named.names.asked("moves.test"), 2, "one look-up, of two families");
    drop(old);
    let _new = named.server("new", NEW);
    named.names.says("moves.test", &[NEW]);
    for port in [8080, 80, 81] {
        eventually("a second has gone by since the last look-up", SECOND, || {
            match named.world.answer(at(POD_V4, port)).as_str() {
                "new" => Ok(()),
                other => Err(other.to_owned()),
            }
        });
    }
    let pod = named.world.eventually_at_rest();
    let refused = count(&pod, "/connections/failed/connect_refused");
    println!("{refused} refused before the name could be looked up again");
    assert!(named.names.asked("moves.test") <= 2 * (2 + usize::try_from(refused).unwrap()));
}

#[test]
fn a_dial_that_is_not_answered_goes_on_where_the_name_is_now() {
    let named = Named::with(NEVER);
    // A device that swallows everything.
    named.home.ip("link add void type veth peer name end\nlink set end up\nlink set void arp off up\n\
         address add 192.0.2.254/24 dev void");
    named.names.says("moves.test", &[[192, 0, 2, 1].into()]);
    named.world.steer("there", "tcp:80", "moves.test:8080");
    let _new = named.server("new", NEW);
    named.names.says("moves.test", &[NEW]);
    assert_eq!(named.world.answer(at(POD_V4, 80)), "new");
}

#[test]
fn a_name_that_moves_is_served_within_its_interval_although_a_stranger_answers_at_the_old_address() {
    let named = Named::with(&[]);
    named.names.says("moves.test", &[OLD]);
    let (_stranger, _new) = (named.server("stranger", OLD), named.server("new", NEW));
    named.world.steer("there", "tcp:80", "moves.test:8080");
    assert_eq!(named.world.answer(at(POD_V4, 80)), "stranger");
    named.names.says("moves.test", &[NEW]);
    eventually("the new address is served", SECOND * 5, || {
        match named.world.answer(at(POD_V4, 80)).as_str() {
            "new" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
}

#[test]
fn a_name_that_no_rule_in_force_has_is_not_looked_up() {
    let named = Named::with(&["--resolve-interval", "1s"]);
    for name in ["stays.test", "detached.test", "changed.test"] {
        named.names.says(name, &[OLD]);
    }
    named.world.steer("stays", "tcp:80", "stays.test:8080");
    named.world.steer("detached", "tcp:81", "detached.test:8080");
    named.world.steer("changed", "tcp:82", "changed.test:8080");
    named.world.cli().json(&["detach", &named.world.target(), "--rule", "detached"]);
    named.world.steer("changed", "tcp:82", "reject");
    let look_ups = |count| {
        let before = named.names.asked("stays.test");
        eventually("the name that is left is looked up", SECOND * count, || {
            let now = named.names.asked("stays.test") - before;
            if now >= 2 * count as usize { Ok(()) } else { Err(now) }
        });
    };
    // The rules before the last change are known for as long as there is no other change.
    look_ups(8);
    let before = ["detached.test", "changed.test"].map(|name| named.names.asked(name));
    look_ups(3);
    assert_eq!(["detached.test", "changed.test"].map(|name| named.names.asked(name)), before);
}

#[test]
fn while_the_name_server_is_silent_for_200_rules_dials_attaches_and_deaths_go_on_and_a_name_that_moves_is_served()
 {
    const RULES: usize = 200;
    // Where the daemon sees that namespaces die.
    let names = NameServer::here();
    let world = World::with(names.daemon(&["--resolve-interval", "1s"]), Topology::new());
    let old = Server::start(Place::Here, "old", &[at(OLD, 0)], echo);
    let port = old.addresses()[0].port();
    let _new = Server::start(Place::Here, "new", &[at(NEW, port)], echo);
    let name = |number| format!("host{number}.test");
    let mut file = format!("[[namespace]]\ntarget = \"{}\"\n", world.target());
    for number in 0..RULES {
        names.says(&name(number), &[OLD]);
        // One of them refuses.
        let port = if number == 0 { 1 } else { port };
        write!(
            file,
            "[[namespace.rule]]\nmatch = [\"tcp:{}\"]\nto = [\"{}:{port}\"]\n",
            1000 + number,
            name(number)
        )
        .unwrap();
    }
    names.says("moves.test", &[OLD]);
    write!(file, "[[namespace.rule]]\nmatch = [\"tcp:80\"]\nto = [\"moves.test:{port}\"]\n").unwrap();
    let dir = Dir::new();
    fs::write(dir.join("file.toml"), file).unwrap();
    world.cli().json(&["apply", &dir.join("file.toml").display().to_string()]);
    (0..RULES).for_each(|number| names.is_silent_about(&name(number)));
    let before: Vec<_> = (0..RULES).map(|number| names.asked(&name(number))).collect();
    eventually("as many look-ups wait as can", SECOND * 3, || {
        let waiting = (0..RULES).filter(|number| names.asked(&name(*number)) > before[*number]).count();
        if waiting >= 20 { Ok(()) } else { Err(waiting) }
    });
    // What is found where the name was last.
    for number in 1..RULES {
        let matched = u16::try_from(1000 + number).unwrap();
        assert_eq!(world.answer(at(POD_V4, matched)), "old", "{number}");
    }
    // Nobody waits for a name server before a refused client is told, but the first who asks.
    for _ in 0..3 {
        assert!(["reset", "refused"].contains(&&*world.answer(at(POD_V4, 1000))));
    }
    let other = Topology::new();
    world.cli().json(&["attach", &other.pod.target(), "--match", "tcp:80", "--to", &old.destination()]);
    assert_eq!(answer(&other.client, at(POD_V4, 80)), "old");
    names.says("other.test", &[OLD]);
    world.cli().json(&[
        "attach",
        &other.pod.target(),
        "--match",
        "tcp:81",
        "--to",
        &format!("other.test:{port}"),
    ]);
    assert_eq!(answer(&other.client, at(POD_V4, 81)), "old");
    other.pod.delete();
    eventually("the namespace is let go of", SECOND * 2, || {
        if other.is_joined() { Err(world.list()) } else { Ok(()) }
    });
    names.says("moves.test", &[NEW]);
    eventually("the new address is served", SECOND * 5, || match world.answer(at(POD_V4, 80)).as_str() {
        "new" => Ok(()),
        other => Err(other.to_owned()),
    });
    let fresh = Topology::new();
    let attach = ["attach", &fresh.pod.target(), "--match", "tcp:80", "--to"];
    let outcome = world.cli().run(&[&attach[..], &["unknown.test:80"]].concat());
    assert_eq!(outcome.code(), 1, "{outcome}");
    let threads = fs::read_dir(format!("/proc/{}/task", world.daemon.pid())).unwrap();
    let name = |thread: &fs::DirEntry| fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
    let looking = threads.filter_map(Result::ok).filter(|thread| name(thread).trim() == "look up").count();
    assert!((1..=4 + 4 + 4 + 64).contains(&looking), "{looking} threads wait for the name server");
}

/// The engine's container `web`: what is said of it, and a gate that holds the answer.
#[derive(Default)]
pub(crate) struct Web {
    says: Mutex<String>,
    is_held: Mutex<bool>,
    let_go: Condvar,
    asked: AtomicUsize,
}

impl Web {
    /// A daemon, and its engine with this container, which is what a process has.
    #[track_caller]
    pub(crate) fn daemon(dir: &Dir, pid: u32, options: &[&str]) -> (Arc<Self>, Daemon) {
        let web = Arc::new(Self::default());
        web.is(pid);
        let socket = dir.join("docker");
        let answers = Arc::clone(&web);
        engine(&socket, move |path| {
            if path.ends_with("/version") {
                return version();
            }
            answers.asked.fetch_add(1, Ordering::Relaxed);
            let held = answers.is_held.lock().unwrap();
            drop(answers.let_go.wait_while(held, |held| *held).unwrap());
            json(&answers.says.lock().unwrap())
        });
        let option = format!("--docker-socket={}", socket.display());
        let daemon = Daemon::with(&[&[&*option], options].concat());
        (web, daemon)
    }

    fn is(&self, pid: u32) {
        *self.says.lock().unwrap() = inspected(pid);
    }

    fn hold(&self) {
        *self.is_held.lock().unwrap() = true;
    }

    fn let_go(&self) {
        *self.is_held.lock().unwrap() = false;
        self.let_go.notify_all();
    }
}

#[test]
fn a_container_that_is_another_one_now_is_found_by_a_dial_that_fails_although_the_one_before_lives() {
    let (first, second) = (Topology::around(Netns::of_process()), Topology::around(Netns::of_process()));
    let dir = Dir::new();
    let (web, daemon) = Web::daemon(&dir, first.pod.pid(), NEVER);
    let world = World::with(daemon, Topology::new());
    let server = Server::inside(&first.pod, "first", 8080);
    world.steer("there", "tcp:80", "docker:web/127.0.0.1:8080");
    assert_eq!(world.answer(at(POD_V4, 80)), "first");
    let _server = Server::inside(&second.pod, "second", 8080);
    web.is(second.pod.pid());
    drop(server);
    eventually("the other is found", SECOND, || match world.answer(at(POD_V4, 80)).as_str() {
        "second" => Ok(()),
        other => Err(other.to_owned()),
    });
}

#[test]
fn a_container_that_is_another_one_now_is_found_within_the_interval_although_a_stranger_answers() {
    let (first, second) = (Topology::around(Netns::of_process()), Topology::around(Netns::of_process()));
    let dir = Dir::new();
    // Of a container six times as long.
    let (web, daemon) = Web::daemon(&dir, first.pod.pid(), &["--resolve-interval", "200ms"]);
    let world = World::with(daemon, Topology::new());
    let servers = [Server::inside(&first.pod, "first", 8080), Server::inside(&second.pod, "second", 8080)];
    world.steer("there", "tcp:80", "docker:web/127.0.0.1:8080");
    assert_eq!(world.answer(at(POD_V4, 80)), "first");
    web.is(second.pod.pid());
    eventually("the other is found", SECOND * 2, || match world.answer(at(POD_V4, 80)).as_str() {
        "second" => Ok(()),
        other => Err(other.to_owned()),
    });
    drop(servers);
}

#[test]
fn an_engine_slower_than_a_dial_is_asked_once_for_all_dials_and_the_next_dial_has_its_answer() {
    let (first, second) = (Topology::around(Netns::of_process()), Topology::around(Netns::of_process()));
    let dir = Dir::new();
    let (web, daemon) = Web::daemon(&dir, first.pod.pid(), NEVER);
    let world = World::with(daemon, Topology::new());
    let server = Server::inside(&first.pod, "first", 8080);
    let _second = Server::inside(&second.pod, "second", 8080);
    let options = "--match tcp:80 --to docker:web/127.0.0.1:8080 --connect-timeout 200ms";
    world.attach(&format!("--name there {options}"));
    assert_eq!(world.answer(at(POD_V4, 80)), "first");
    web.is(second.pod.pid());
    web.hold();
    let before = web.asked.load(Ordering::Relaxed);
    drop(server);
    first.pod.delete();
    let rule = |state: &str| -> Value {
        eventually(&format!("the rule is {state}"), SECOND * 2, || {
            let rule = world.rule("there");
            if rule["state"] == state { Ok(rule) } else { Err(rule) }
        })
    };
    rule("down");
    eventually("the engine is asked", SECOND * 2, || {
        if web.asked.load(Ordering::Relaxed) > before { Ok(()) } else { Err("it is not") }
    });
    // The daemon tries each second whether the destination is there, and gives up after 200 ms.
    redirector_tests::eventually::at_intervals(150, || ());
    let held = web.asked.load(Ordering::Relaxed) - before;
    assert_eq!(held, 1, "one look is under way, and the dials wait for that");
    web.let_go();
    rule("up");
    eventually("the next dial has its answer", SECOND, || match world.answer(at(POD_V4, 80)).as_str() {
        "second" => Ok(()),
        other => Err(other.to_owned()),
    });
    // Before and after it went there, and not again.
    let asked = web.asked.load(Ordering::Relaxed) - before;
    assert!(asked <= 4, "{asked} questions");
}

/// A machine whose name server comes up after the daemon, and a name that nobody has yet.
#[test]
fn a_rule_of_the_daemons_file_is_down_until_its_destination_has_an_address() {
    let (home, net, dir) = (Netns::new(), Topology::new(), Dir::new());
    home.ip("link set lo up");
    let names = NameServer::inside(&home);
    names.is_silent_about("silent.test");
    let rule = |name: &str, port: u16, more: &str| {
        format!(
            "[[namespace.rule]]\nname = \"{name}\"\nmatch = [\"tcp:{port}\"]\nto = [\"{name}.test:8080\"]\n{more}"
        )
    };
    let text = [
        format!("[[namespace]]\ntarget = \"{}\"\n", net.pod.target()),
        rule("silent", 80, ""),
        rule("nobody", 81, "on_unavailable = \"pass\"\n"),
        "[[namespace.rule]]\nname = \"other\"\nmatch = [\"tcp:82\"]\nto = [\"reject\"]\n".to_owned(),
    ];
    let path = dir.join("redirector.toml");
    fs::write(&path, text.concat()).expect("write the file");
    let path = path.to_str().expect("UTF-8");
    let _application = Server::inside(&net.pod, "application", 81);
    let daemon = home.enter(|| names.daemon(&["--config", path]));
    let named = Named { world: World::with(daemon, net), home, names };
    for name in ["silent", "nobody"] {
        assert_eq!(named.world.rule(name)["state"], "down");
    }
    // Meanwhile it is unavailable, and everything else is in force.
    assert_eq!(named.world.answer(at(POD_V4, 80)), "refused");
    assert_eq!(named.world.answer(at(POD_V4, 81)), "application");
    assert_eq!(named.world.rule("other")["state"], "up");
    let _server = named.server("server", OLD);
    for (name, port) in [("silent", 80), ("nobody", 81)] {
        named.names.says(&format!("{name}.test"), &[OLD]);
        eventually("it is up when its destination has an address", SECOND * 5, || {
            match named.world.answer(at(POD_V4, port)).as_str() {
                "server" => Ok(()),
                other => Err((other.to_owned(), named.world.rule(name))),
            }
        });
        assert_eq!(named.world.rule(name)["state"], "up");
    }
    // Whoever applies a file by hand is told at once, unless it is to wait.
    fs::write(path, text.concat().replace("nobody.test", "never.test")).expect("write the file");
    let apply = ["apply", path];
    let refused = redirector_tests::cli::error(&named.world.cli().run(&apply), 1);
    assert!(refused.contains("1 problem"), "{refused}");
    assert_eq!(named.world.answer(at(POD_V4, 81)), "server");
    let applied = named.world.cli().json(&[&apply[..], &["--wait"]].concat());
    assert!(applied["warnings"].to_string().contains("down until"), "{applied:#}");
    assert_eq!(named.world.answer(at(POD_V4, 81)), "application");
}
