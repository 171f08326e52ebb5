//! System calls of the daemon that fail, and calls at which it is killed, one after the other: what is there then is what was
//! there before, or what was to be, and never anything between. `cargo xtask soak inject` runs these: all calls; CI every tenth.

mod hand_off;

use std::{fs, net::TcpStream, os::unix::process::ExitStatusExt as _, process::Command};

use nix::sys::signal::Signal;
use redirector_tests::{
    HANG,
    cli::Cli,
    client::answer,
    command::Outcome,
    daemon::Daemon,
    dir::Dir,
    eventually::eventually,
    exec::Exec,
    inject::{Fault, Faults},
    scale::numbers,
    server::Server,
    snapshot::Snapshot,
    topology::{POD_V4, POD_V6, Topology, at},
    world::{World, count},
};
use serde_json::json;
use socket2::{Domain, Socket, Type};

use super::SECOND;

/// Whether the change has been made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Before,
    After,
}

/// A change of what is steered, by commands. In these words `POD` and `CLIENT` are the namespaces, `ONE` and `TWO` servers, and
/// `FEW` and `MORE` files.
struct Change {
    /// Lead to what is there before.
    prepare: &'static [&'static str],
    change: &'static str,
    /// Leads back.
    back: &'static str,
    /// Asserts what becomes of clients.
    traffic: fn(&World, When),
}

/// The first rule of a namespace.
const ATTACH: Change = Change {
    prepare: &[],
    change: "attach POD --name web --match tcp:80 --to ONE",
    back: "detach POD",
    traffic: |world, when| expect(world, 80, if when == When::After { "one" } else { "refused" }),
};

/// One more, beside another.
const SECOND_RULE: Change = Change {
    prepare: &["attach POD --name web --match tcp:80 --to ONE"],
    change: "attach POD --name more --match tcp:81 --from 10.77.0.0/24 --from fd77::/64 --to TWO",
    back: "detach POD --rule more",
    traffic: |world, when| {
        expect(world, 80, "one");
        expect(world, 81, if when == When::After { "two" } else { "refused" });
    },
};

/// One that needs sockets of its own in the namespace.
const DROP: Change = Change {
    prepare: &["attach POD --name web --match tcp:80 --to ONE"],
    change: "attach POD --name hole --match any:82 --to drop",
    back: "detach POD --rule hole",
    traffic: |world, when| {
        expect(world, 80, "one");
        if when == When::After {
            expect_dropped(world, "hole");
        } else {
            expect(world, 82, "refused");
        }
    },
};

/// Another destination for a rule that is there.
const CHANGED_RULE: Change = Change {
    prepare: &["attach POD --name web --match tcp:80 --to ONE"],
    change: "attach POD --name web --match tcp:80 --to TWO",
    back: "attach POD --name web --match tcp:80 --to ONE",
    traffic: |world, when| expect(world, 80, if when == When::After { "two" } else { "one" }),
};

/// The last rule goes.
const DETACH: Change = Change {
    prepare: &["attach POD --name web --match tcp:80 --to ONE"],
    change: "detach POD",
    back: "attach POD --name web --match tcp:80 --to ONE",
    traffic: |world, when| expect(world, 80, if when == When::After { "refused" } else { "one" }),
};

/// One of two goes.
const DETACH_ONE: Change = Change {
    prepare: &[
        "attach POD --name web --match tcp:80 --to ONE",
        "attach POD --name hole --match any:82 --to drop",
    ],
    change: "detach POD --rule hole",
    back: "attach POD --name hole --match any:82 --to drop",
    traffic: |world, when| {
        expect(world, 80, "one");
        if when == When::After {
            expect(world, 82, "refused");
        } else {
            expect_dropped(world, "hole");
        }
    },
};

/// A file changes one namespace and begins with another.
const APPLY: Change = Change {
    prepare: &["apply --set file FEW"],
    change: "apply --set file MORE",
    back: "apply --set file FEW",
    traffic: |world, when| {
        let after = when == When::After;
        expect(world, 80, if after { "two" } else { "one" });
        if after {
            expect_dropped(world, "hole");
        } else {
            expect(world, 82, "refused");
        }
        let client =
            redirector_tests::client::answer(&world.net.pod, at(redirector_tests::topology::CLIENT_V4, 80));
        assert_eq!(client, if after { "one" } else { "refused" });
    },
};

#[track_caller]
fn expect(world: &World, port: u16, server: &str) {
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, port)), server, "{pod}, port {port}");
    }
}

/// A packet for port 82 vanishes, and a rule counts it.
#[track_caller]
fn expect_dropped(world: &World, rule: &str) {
    let dropped = || count(&world.rule(rule), "/counters/dropped");
    let before = dropped();
    let socket = world.net.client.enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        socket.set_nonblocking(true).expect("O_NONBLOCK");
        drop(socket.connect(&at(POD_V4, 82).into()));
        socket
    });
    eventually("a packet is dropped", SECOND, || {
        let now = dropped();
        if now > before { Ok(()) } else { Err(now) }
    });
    drop(socket);
}

/// What the words of commands mean.
struct Words {
    one: Server,
    two: Server,
    dir: Dir,
}

impl Words {
    fn new() -> Self {
        Self { one: Server::here("one"), two: Server::here("two"), dir: Dir::new() }
    }

    /// Writes the files, for these namespaces.
    fn write(&self, net: &Topology) {
        let (pod, client) = (net.pod.target(), net.client.target());
        let namespace = |target: &str, to: &Server, more: &str| {
            let rule = "[[namespace.rule]]\nname = \"web\"\nmatch = [\"tcp:80\"]";
            format!("[[namespace]]\ntarget = \"{target}\"\n{rule}\nto = [\"{}\"]\n{more}", to.destination())
        };
        let hole = "[[namespace.rule]]\nname = \"hole\"\nmatch = [\"any:82\"]\nto = [\"drop\"]\n";
        fs::write(self.dir.join("few"), namespace(&pod, &self.one, "")).expect("write a file");
        let more = namespace(&pod, &self.two, hole) + &namespace(&client, &self.one, "");
        fs::write(self.dir.join("more"), more).expect("write a file");
    }

    #[track_caller]
    fn run(&self, world: &World, line: &str) -> Outcome {
        let words: Vec<_> = line.split(' ').map(|word| self.meaning(world, word)).collect();
        world.cli().run(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn meaning(&self, world: &World, word: &str) -> String {
        let file = |name: &str| self.dir.join(name).to_str().expect("ASCII").to_owned();
        match word {
            "POD" => world.target(),
            "CLIENT" => world.net.client.target(),
            "ONE" => self.one.destination(),
            "TWO" => self.two.destination(),
            "FEW" => file("few"),
            "MORE" => file("more"),
            word => word.to_owned(),
        }
    }
}

/// What is there.
struct Look {
    rules: String,
    namespaces: [Snapshot; 2],
}

impl Look {
    #[track_caller]
    fn at(world: &World) -> Self {
        Self { rules: rules(world), namespaces: namespaces(&world.net) }
    }

    #[track_caller]
    fn assert_same_as(&self, before: &Self) {
        assert_eq!(self.rules, before.rules);
        for (now, before) in self.namespaces.iter().zip(&before.namespaces) {
            now.assert_same_as(before);
        }
    }
}

#[track_caller]
fn rules(world: &World) -> String {
    world.cli().run(&["export"]).success().stdout
}

fn namespaces(net: &Topology) -> [Snapshot; 2] {
    [&net.pod, &net.client].map(Snapshot::of)
}

/// Makes a change again and again, and each time another call fails.
#[track_caller]
fn fail_each(first: usize, change: &Change) {
    let (words, faults) = (Words::new(), Faults::new());
    let world = World::with(faults.daemon(), Topology::new());
    words.write(&world.net);
    let (nothing, fds) = (Look::at(&world), world.daemon.fds_at_rest());
    for line in change.prepare {
        words.run(&world, line).success();
    }
    (change.traffic)(&world, When::Before);
    let mut changed = None;
    let (mut refused, mut tolerated) = (0, 0);
    for number in numbers(first) {
        let before = Look::at(&world);
        let (outcome, calls) = faults.during(Fault::Fail(number), || words.run(&world, change.change));
        let call = calls.get(number - 1);
        println!("{number}: {call:?}: {}: {}", outcome.code(), outcome.stderr.trim());
        if outcome.code() == 0 {
            tolerated += usize::from(call.is_some());
        } else {
            refused += 1;
            assert_eq!(outcome.code(), 1, "{outcome}");
            assert!(call.is_some(), "it must succeed where no call fails{outcome}");
            Look::at(&world).assert_same_as(&before);
            (change.traffic)(&world, When::Before);
            // Nothing of what failed is in the way.
            words.run(&world, change.change).success();
        }
        let now = rules(&world);
        assert_eq!(changed.get_or_insert_with(|| now.clone()), &now);
        (change.traffic)(&world, When::After);
        words.run(&world, change.back).success();
        assert_eq!(rules(&world), before.rules);
        (change.traffic)(&world, When::Before);
        if call.is_none() {
            break;
        }
    }
    println!("of the calls that failed {refused} were refused, and {tolerated} did no harm");
    for target in [world.target(), world.net.client.target()] {
        // The one that is not steered is said not to be.
        drop(world.cli().run(&["detach", &target]));
    }
    Look::at(&world).assert_same_as(&nothing);
    world.daemon.eventually_has_fds(fds);
}

/// Makes a change again and again, and each time the daemon is killed at another call.
#[track_caller]
fn kill_each(first: usize, change: &Change) {
    let (words, mut net) = (Words::new(), Topology::new());
    words.write(&net);
    let nothing = namespaces(&net);
    for number in numbers(first) {
        let faults = Faults::new();
        let world = World::with(faults.daemon(), net);
        for line in change.prepare {
            words.run(&world, line).success();
        }
        let (outcome, calls) = faults.during(Fault::Kill(number), || words.run(&world, change.change));
        let call = calls.get(number - 1);
        println!("{number}: {call:?}: {}: {}", outcome.code(), outcome.stderr.trim());
        let World { mut daemon, net: left } = world;
        net = left;
        if call.is_some() {
            assert_eq!(daemon.wait().signal(), Some(Signal::SIGKILL as i32));
        } else {
            outcome.success();
            daemon.kill();
        }
        for (now, nothing) in namespaces(&net).iter().zip(&nothing) {
            now.assert_same_as(nothing);
        }
        if call.is_none() {
            break;
        }
    }
}

#[test]
#[ignore = "soak: inject"]
fn another_redirector_is_not_overlooked_because_a_call_fails() {
    let (words, faults) = (Words::new(), Faults::new());
    let world = World::with(faults.daemon(), Topology::new());
    let other = Daemon::start();
    let target = world.target();
    other.cli().run(&["attach", &target, "--match", "tcp:80", "--to", &words.two.destination()]).success();
    let before = Look::at(&world);
    // They are few: it is refused before anything is made.
    for number in 1.. {
        let (outcome, calls) = faults.during(Fault::Fail(number), || words.run(&world, ATTACH.change));
        let call = calls.get(number - 1);
        println!("{number}: {call:?}: {}: {}", outcome.code(), outcome.stderr.trim());
        assert_eq!(outcome.code(), 1, "{outcome}");
        Look::at(&world).assert_same_as(&before);
        if call.is_none() {
            assert!(outcome.stderr.contains("another redirector is attached"), "{outcome}");
            break;
        }
    }
    expect(&world, 80, "two");
}

macro_rules! each_call {
    ($($fails:ident, $kills:ident: $change:ident from $first:literal;)+) => {$(
        #[test]
        #[ignore = "soak: inject"]
        fn $fails() {
            fail_each($first, &$change);
        }

        #[test]
        #[ignore = "soak: inject"]
        fn $kills() {
            kill_each($first, &$change);
        }
    )+};
}

each_call! {
    a_call_that_fails_in_an_attach_leaves_nothing_or_the_rule,
    a_kill_at_any_call_of_an_attach_leaves_nothing: ATTACH from 1;
    a_call_that_fails_in_a_second_attach_leaves_one_rule_or_two,
    a_kill_at_any_call_of_a_second_attach_leaves_nothing: SECOND_RULE from 2;
    a_call_that_fails_while_a_black_hole_is_made_leaves_none_or_all_of_it,
    a_kill_at_any_call_that_makes_a_black_hole_leaves_nothing: DROP from 3;
    a_call_that_fails_in_a_change_leaves_one_destination_or_the_other,
    a_kill_at_any_call_of_a_change_leaves_nothing: CHANGED_RULE from 4;
    a_call_that_fails_in_a_detach_leaves_the_rule_or_nothing,
    a_kill_at_any_call_of_a_detach_leaves_nothing: DETACH from 1;
    a_call_that_fails_in_a_detach_of_one_rule_leaves_two_or_one,
    a_kill_at_any_call_of_a_detach_of_one_rule_leaves_nothing: DETACH_ONE from 2;
    a_call_that_fails_in_an_apply_leaves_the_file_before_or_the_new_one,
    a_kill_at_any_call_of_an_apply_leaves_nothing: APPLY from 5;
}

#[test]
#[ignore = "soak: inject"]
fn a_panic_in_what_the_daemon_is_none_without_ends_it_with_a_message() {
    let (faults, net, dir) = (Faults::new(), Topology::new(), Dir::new());
    let socket = dir.join("control.sock");
    let mut command = faults.command(&["run", "--socket", socket.to_str().unwrap()]);
    let mut daemon = Exec::start(&mut command);
    let cli = Cli::new(&socket);
    eventually("it answers", SECOND * 3, || {
        let outcome = cli.run(&["list"]);
        if outcome.status.success() { Ok(()) } else { Err(outcome) }
    });
    cli.run(&["attach", &net.pod.target(), "--match", "tcp:80", "--to", "original"]).success();
    // Each two seconds it compares what should be with what is.
    let (code, calls) = faults.during(Fault::Panic(1), || daemon.code());
    assert_eq!(code, 1, "{calls:?}: {:#?}", daemon.stderr());
    daemon.expect_on_stderr("what tends what is steered has panicked: at `");
    assert_eq!(answer(&net.client, at(POD_V4, 80)), "refused", "nobody listens there");
}

#[test]
#[ignore = "soak: inject"]
fn a_call_that_fails_in_a_connection_harms_no_other_and_keeps_no_client_waiting() {
    let faults = Faults::new();
    let world = World::with(faults.daemon(), Topology::new());
    let there = at(redirector_tests::topology::CLIENT_V4, 8080);
    let _server = Server::inside(&world.net.client, "server", there.port());
    world.steer("web", "tcp:80", &format!("{}/{there}", world.net.client.target()));
    // They are few.
    for number in 1.. {
        let (answer, calls) = faults.during(Fault::Fail(number), || world.answer(at(POD_V4, 80)));
        let call = calls.get(number - 1);
        println!("{number}: {call:?}: {answer}");
        assert!(["server", "reset", "refused"].contains(&&*answer), "{answer}");
        eventually("the next client is served", SECOND, || match &*world.answer(at(POD_V4, 80)) {
            "server" => Ok(()),
            other => Err(other.to_owned()),
        });
        if call.is_none() {
            assert_eq!(answer, "server");
            break;
        }
    }
}
