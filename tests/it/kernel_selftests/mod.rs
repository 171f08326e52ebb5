//! The kernel's own tests of `sk_lookup`, and in `sockmap` those of listeners in a SOCKMAP, as far as they are about what
//! we use: no reuseport groups, no flags of `bpf_sk_assign`. Our rules `pass` and `reject`, and one that steers, play
//! the parts of their programs. Tests are named after theirs:
//! <https://github.com/torvalds/linux/blob/v6.12/tools/testing/selftests/bpf/prog_tests/sk_lookup.c>,
//! <https://github.com/torvalds/linux/blob/v6.12/tools/testing/selftests/bpf/prog_tests/sockmap_listen.c>.
//!
//! Shown elsewhere already:
//!
//! - "sk_assign returns EEXIST": `foreign::what_a_foreign_program_has_selected_stays_with_it_and_is_counted`. The rows here
//!   in which two programs steer count it too.
//! - What the program does with each errno, by test run:
//!   `model::a_slot_without_a_usable_socket_is_decided_by_on_unavailable_and_counted_by_errno`.
//! - The limit of 64 programs: `foreign::a_namespace_with_all_the_programs_it_can_have_is_refused_and_nothing_is_left`.
//! - `test_destroy_orphan_child`: `handoff::a_connection_that_waits_in_the_queue_of_a_dead_receiver_is_reset`.

mod refused;
mod sockmap;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::fd::{AsFd as _, OwnedFd},
};

use nix::sys::signal::Signal;
use redirector::{
    kernel::{Instance, attached_programs},
    sys::bpf::{self, Instruction},
};
use redirector_ebpf::{CONSUMER_RELAY, FAMILY_IPV4, FAMILY_IPV6, PROTOCOL_TCP, Unavailable, slot};
use redirector_tests::{
    HANG,
    eventually::eventually,
    server::{Place, Server, echo, listen},
    topology::{POD_V4, POD_V6, at},
    world::{World, count},
};
use serde_json::json;

use super::{
    SECOND,
    foreign::{attach_foreign, detach_foreign, publish_foreign},
    hostile::{kill_listener, listeners},
};

/// `EXT_PORT` and `INT_PORT`: where clients connect, and where a server listens.
const EXT_PORT: u16 = 7007;
const INT_PORT: u16 = 8008;

/// `INT_IP4` and `INT_IP6`: other addresses of the pod. Its usual ones are `EXT_IP4` and `EXT_IP6`.
const INT_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 9));
const INT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 9));

const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

fn family(address: IpAddr) -> u32 {
    if address.is_ipv4() { FAMILY_IPV4 } else { FAMILY_IPV6 }
}

/// The relay's slot for an address.
fn slot_of(address: IpAddr) -> u32 {
    slot(CONSUMER_RELAY, PROTOCOL_TCP, family(address))
}

/// "query lookup prog": programs are listed in the order of attaching, one that is attached twice is there twice, and
/// each link names the namespace until there is none. Ours is among them.
#[test]
fn query_lookup_prog() {
    let world = World::new();
    let ids = || -> Vec<u32> {
        let programs = attached_programs(world.net.pod.open().as_fd()).expect("ask for programs");
        programs.iter().map(|program| program.id).collect()
    };
    assert!(ids().is_empty());
    let load =
        || bpf::sk_lookup_program(&[Instruction::result(1), Instruction::EXIT], "foreign").expect("load");
    let attach =
        |program: &OwnedFd| bpf::link_create(program.as_fd(), world.net.pod.open().as_fd()).expect("attach");
    let (one, two) = (load(), load());
    let link = attach(&one);
    world.steer("ours", "tcp:80", "reject");
    let (again, last) = (attach(&one), attach(&two));
    // Which looks at what is there again.
    let answer = world.steer("ours", "tcp:80", "reject");
    let ours = u32::try_from(count(&world.pod(), "/program/id")).expect("an id");
    let [first, second] = [&one, &two].map(|one| bpf::program_info(one.as_fd()).expect("ask the program").id);
    assert_eq!(ids(), [first, ours, first, second]);
    let foreign = answer["foreign_programs"].as_array().expect("an array");
    let foreign: Vec<_> = foreign.iter().map(|program| program["id"].clone()).collect();
    assert_eq!(foreign, [first, first, second], "{answer:#}");
    assert_eq!(world.pod()["foreign_programs"], answer["foreign_programs"]);
    let info = |link: &OwnedFd| bpf::link_info(link.as_fd()).expect("ask the link");
    let infos = [&link, &again, &last].map(info);
    assert_eq!(infos.map(|info| info.program_id), [first, first, second]);
    assert_eq!(infos.map(|info| u64::from(info.netns_inode)), [world.net.pod.inode(); 3]);
    assert!(infos[0].id != infos[1].id && infos[1].id != infos[2].id, "{infos:?}");

    // Each goes alone, and the others keep their places.
    drop((two, last));
    let eventually_are = |expected: &[u32]| {
        eventually("one is gone", SECOND, || if ids() == expected { Ok(()) } else { Err(ids()) });
    };
    eventually_are(&[first, ours, first]);
    world.detach();
    assert_eq!(ids(), [first, first]);
    drop(link);
    eventually_are(&[first]);

    // The last link outlives the namespace, and knows it.
    world.net.pod.delete();
    eventually("the link leads nowhere", SECOND * 2, || match info(&again) {
        info if info.netns_inode == 0 => Ok(()),
        info => Err(info),
    });
    assert_eq!(bpf::program_info(one.as_fd()).expect("ask the program").id, first);
}

/// A client of `external` reaches the server at `internal`, whether somebody listens at `external` or not. First by a
/// program alone, as the original does it; then by the daemon.
#[track_caller]
fn assert_redirected(external: SocketAddr, internal: SocketAddr) {
    let world = World::new();
    world.net.pod.ip(&format!("address add {INT_V4}/24 dev eth0\naddress add {INT_V6}/64 dev eth0 nodad"));
    let listener = world.net.pod.enter(|| listen(internal));
    let matching = format!("tcp:{external}");
    let assert_inner = |reached| {
        let greeting = world.visit(external);
        assert_eq!((&*greeting.server, greeting.local), ("inner", Some(reached)));
    };
    assert_eq!(world.answer(external), "refused");

    let foreign = attach_foreign(&world, json!({ "match": [matching], "to": ["127.0.0.1:1"] }));
    foreign.set_listener(slot_of(external.ip()), listener.as_fd()).expect("fill a slot");
    let _inner = Server::of(vec![listener], "inner", echo);
    assert_inner(external);
    let outer = Server::start(Place::In(&world.net.pod), "outer", &[external], echo);
    assert_inner(external);
    detach_foreign(&world, foreign);
    assert_eq!(world.answer(external), "outer");

    world.steer("redir", &matching, &format!("{}/{internal}", world.target()));
    assert_inner(internal);
    assert_eq!(outer.accepted(), 1);
    drop(outer);
    assert_inner(internal);
    world.detach();
    assert_eq!(world.answer(external), "refused");
}

/// "TCP IPv4 redir port".
#[test]
fn tcp4_redir_port() {
    assert_redirected(at(POD_V4, EXT_PORT), at(POD_V4, INT_PORT));
}

/// "TCP IPv4 redir addr".
#[test]
fn tcp4_redir_addr() {
    assert_redirected(at(POD_V4, EXT_PORT), at(INT_V4, EXT_PORT));
}

/// "TCP IPv6 redir port".
#[test]
fn tcp6_redir_port() {
    assert_redirected(at(POD_V6, EXT_PORT), at(POD_V6, INT_PORT));
}

/// "TCP IPv6 redir addr".
#[test]
fn tcp6_redir_addr() {
    assert_redirected(at(POD_V6, EXT_PORT), at(INT_V6, EXT_PORT));
}

/// A client is refused where a server listens, and the server never learns of it. The other family is left alone.
#[track_caller]
fn assert_dropped(external: IpAddr, other: IpAddr) {
    let world = World::new();
    let app = Server::inside(&world.net.pod, "app", EXT_PORT);
    world.steer("drop", &format!("tcp:{}", at(external, EXT_PORT)), "reject");
    assert_eq!(world.answer(at(external, EXT_PORT)), "refused");
    assert_eq!(app.accepted(), 0);
    assert_eq!(world.answer(at(other, EXT_PORT)), "app");
    assert_eq!(count(&world.rule("drop"), "/counters/rejected"), 1);
    world.detach();
    assert_eq!(world.answer(at(external, EXT_PORT)), "app");
}

/// "TCP IPv4 drop on lookup".
#[test]
fn tcp4_drop_on_lookup() {
    assert_dropped(POD_V4, POD_V6);
}

/// "TCP IPv6 drop on lookup".
#[test]
fn tcp6_drop_on_lookup() {
    assert_dropped(POD_V6, POD_V4);
}

/// "sk_assign rejects TCP established": the client reaches the server that is there, if the rule says so.
#[test]
fn sk_assign_rejects_tcp_established() {
    let world = World::new();
    let _app = Server::inside(&world.net.pod, "app", EXT_PORT);
    for (on_unavailable, expected) in [("pass", "app"), ("reject", "refused")] {
        let connected = [POD_V4, POD_V6].map(|pod| {
            let connect = || TcpStream::connect_timeout(&at(pod, EXT_PORT), HANG);
            (pod, world.net.pod.enter(connect).expect("connect"))
        });
        let tcp = format!("tcp:{EXT_PORT}");
        let rule = json!({ "match": [tcp], "to": ["127.0.0.1:1"], "on_unavailable": on_unavailable });
        let foreign = attach_foreign(&world, rule);
        for (pod, stream) in &connected {
            foreign.set_listener(slot_of(*pod), stream.as_fd()).expect("fill a slot");
            assert_eq!(world.answer(at(*pod, EXT_PORT)), expected);
        }
        let counters = foreign.counters.rule(0).expect("read counters");
        assert_eq!(counters.unavailable[Unavailable::NotListening as usize], 2, "{counters:?}");
        assert_eq!(counters.steered, 0, "{counters:?}");
        detach_foreign(&world, foreign);
    }
}

/// The same of a listener that does not listen any more: the daemon's own, which somebody in the pod has killed.
#[test]
fn sk_assign_rejects_tcp_not_listening() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let _app = [80, 81].map(|port| Server::inside(&world.net.pod, "app", port));
    world.steer("reject", "tcp:80", &proxy.destination());
    world.attach(&format!("--name pass --match tcp:81 --to {} --on-unavailable pass", proxy.destination()));
    let listeners = listeners(&world);
    // So that it does not revive them before a client comes.
    world.daemon.signal(Signal::SIGSTOP);
    for listener in listeners {
        kill_listener(&world, listener);
    }
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, 80)), "refused");
        assert_eq!(world.answer(at(pod, 81)), "app");
    }
    world.daemon.signal(Signal::SIGCONT);
    world.eventually("both are revived", "/drift/listeners_revived", |revived| *revived == 2);
    for rule in ["reject", "pass"] {
        let rule = world.rule(rule);
        assert_eq!(count(&rule, "/counters/unavailable_reasons/ESOCKTNOSUPPORT"), 2, "{rule:#}");
        assert_eq!(count(&rule, "/counters/steered"), 0, "{rule:#}");
    }
    for (pod, port) in [(POD_V4, 80), (POD_V6, 80), (POD_V4, 81), (POD_V6, 81)] {
        assert_eq!(world.answer(at(pod, port)), "proxy");
    }
}

/// What a program does with each packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Pass,
    /// What they call drop: the client is refused.
    Reject,
    Redir,
}
use Part::{Pass, Redir, Reject};

impl Part {
    /// As a rule says it.
    fn to(self, destination: &str) -> &str {
        match self {
            Pass => "pass",
            Reject => "reject",
            Redir => destination,
        }
    }
}

/// What the server of the program in each place is called.
const PLACES: [&str; 5] = ["first", "second", "third", "fourth", "fifth"];

/// Programs in the order in which they were attached. One of them is the daemon's.
struct Programs {
    world: World,
    /// Who answers when nobody selects.
    _app: Server,
    ours: usize,
    proxy: Server,
    /// The others, in order, with what they lead to.
    foreign: Vec<(Instance, Server)>,
}

impl Programs {
    fn new(count: usize, ours: usize) -> Self {
        let world = World::new();
        let app = Server::inside(&world.net.pod, "app", 80);
        let proxy = Server::here(PLACES[ours]);
        let mut foreign = Vec::new();
        for (place, name) in PLACES.into_iter().enumerate().take(count) {
            if place == ours {
                world.steer("ours", "tcp:80", "pass");
                continue;
            }
            let instance = attach_foreign(&world, json!({ "match": ["tcp:80"], "to": ["pass"] }));
            let listeners = world.net.pod.enter(|| LOOPBACK.map(|address| listen(at(address, 0))));
            for (address, listener) in LOOPBACK.iter().zip(&listeners) {
                instance.set_listener(slot_of(*address), listener.as_fd()).expect("fill a slot");
            }
            foreign.push((instance, Server::of(listeners.into(), name, echo)));
        }
        Self { world, _app: app, ours, proxy, foreign }
    }

    /// What each has counted: passed, rejected, steered, and that another had selected.
    fn counters(&self) -> Vec<[u64; 4]> {
        let mut all: Vec<_> = self
            .foreign
            .iter()
            .map(|(instance, ..)| {
                let counters = instance.counters.rule(0).expect("read counters");
                let selected = counters.unavailable[Unavailable::AlreadySelected as usize];
                [counters.passed, counters.rejected, counters.steered, selected]
            })
            .collect();
        let rule = self.world.rule("ours");
        let counters = ["passed", "rejected", "steered", "unavailable_reasons/EEXIST"];
        all.insert(self.ours, counters.map(|counter| count(&rule, &format!("/counters/{counter}"))));
        all
    }

    /// When they do this, each of them has run, and this is who answers.
    #[track_caller]
    fn assert(&self, parts: &[Part], expected: &str) {
        let mut foreign = self.foreign.iter();
        for (place, part) in parts.iter().enumerate() {
            if place == self.ours {
                self.world.steer("ours", "tcp:80", part.to(&self.proxy.destination()));
            } else {
                let (instance, ..) = foreign.next().expect("one for each place");
                publish_foreign(instance, json!({ "match": ["tcp:80"], "to": [part.to("127.0.0.1:1")] }));
            }
        }
        let context = format!("{parts:?}, the daemon is {}", PLACES[self.ours]);
        let before = self.counters();
        for pod in [POD_V4, POD_V6] {
            assert_eq!(self.world.answer(at(pod, 80)), expected, "{context}");
        }
        let selects = parts.iter().position(|part| *part == Redir);
        for (place, (before, now)) in before.into_iter().zip(self.counters()).enumerate() {
            let ran = match parts[place] {
                Pass => [2, 0, 0, 0],
                Reject => [0, 2, 0, 0],
                Redir if selects == Some(place) => [0, 0, 2, 0],
                Redir => [0, 0, 0, 2],
            };
            let counted = [0, 1, 2, 3].map(|counter| now[counter] - before[counter]);
            assert_eq!(counted, ran, "{context}: {}", PLACES[place]);
        }
    }
}

/// The whole matrix of two: a client is refused only where nobody selects, and who selects first has it.
const MULTI_PROG: [([Part; 2], &str); 9] = [
    ([Pass, Pass], "app"),
    ([Reject, Reject], "refused"),
    ([Pass, Reject], "refused"),
    ([Reject, Pass], "refused"),
    ([Pass, Redir], "second"),
    ([Redir, Pass], "first"),
    ([Reject, Redir], "second"),
    ([Redir, Reject], "first"),
    ([Redir, Redir], "first"),
];

/// "multi prog - pass, pass" and so on: the daemon was there first.
#[test]
fn multi_prog_ours_is_first() {
    let programs = Programs::new(2, 0);
    for (parts, expected) in MULTI_PROG {
        programs.assert(&parts, expected);
    }
}

/// "multi prog - pass, pass" and so on: the other was there first.
#[test]
fn multi_prog_ours_is_second() {
    let programs = Programs::new(2, 1);
    for (parts, expected) in MULTI_PROG {
        programs.assert(&parts, expected);
    }
}

/// "multi prog" of three, whichever of them is ours.
#[test]
fn multi_prog_of_three() {
    for ours in 0..3 {
        let programs = Programs::new(3, ours);
        for (parts, expected) in [
            ([Pass, Pass, Pass], "app"),
            ([Reject, Reject, Reject], "refused"),
            ([Pass, Reject, Pass], "refused"),
            ([Reject, Pass, Redir], "third"),
            ([Pass, Redir, Reject], "second"),
            ([Redir, Reject, Reject], "first"),
            ([Reject, Redir, Redir], "second"),
            ([Redir, Pass, Redir], "first"),
            ([Redir, Redir, Redir], "first"),
        ] {
            programs.assert(&parts, expected);
        }
    }
}

/// "multi prog" of five.
#[test]
fn multi_prog_of_five() {
    let programs = Programs::new(5, 2);
    for (parts, expected) in [
        ([Pass, Pass, Pass, Pass, Pass], "app"),
        ([Pass, Pass, Reject, Pass, Pass], "refused"),
        ([Reject, Reject, Pass, Reject, Reject], "refused"),
        ([Reject, Pass, Redir, Pass, Reject], "third"),
        ([Reject, Pass, Reject, Pass, Redir], "fifth"),
        ([Pass, Redir, Redir, Reject, Redir], "second"),
        ([Redir, Redir, Redir, Redir, Redir], "first"),
    ] {
        programs.assert(&parts, expected);
    }
}
