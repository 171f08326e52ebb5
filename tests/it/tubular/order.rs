//! Which rule decides. Where a pod has no address of a prefix, the prefix is routed to it (AnyIP), as the peer does it.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use redirector_tests::{
    client::{Stop, answer_here},
    server::Server,
    topology::{POD_V4, POD_V6},
    world::World,
};

/// A pod that has these prefixes, and a client that knows it.
fn world_with(prefixes: &[&str]) -> World {
    let world = World::new();
    for prefix in prefixes {
        let pod = if prefix.contains(':') { POD_V6 } else { POD_V4 };
        world.net.pod.ip(&format!("route add local {prefix} dev lo"));
        world.net.client.ip(&format!("route add {prefix} via {pod}"));
    }
    world
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address with a port")
}

/// `TestBindingPrecedence`: seven addresses and six rules that overlap.
#[test]
fn binding_precedence() {
    let world = world_with(&["1.2.3.0/24", "4.3.2.0/24"]);
    let servers = ["spectrum", "nginx-ssl", "new-tls-thing"].map(|name| (name, Server::here(name)));
    for (number, (name, matching)) in [
        ("spectrum", "tcp:1.2.3.0/24:*"),
        ("nginx-ssl", "tcp:1.2.3.0/24:443"),
        ("spectrum", "tcp:1.2.3.4/32:*"),
        ("nginx-ssl", "tcp:1.2.3.4/32:80"),
        ("nginx-ssl", "tcp:4.3.2.0/24:443"),
        ("new-tls-thing", "tcp:4.3.2.0/25:443"),
    ]
    .into_iter()
    .enumerate()
    {
        let (_, server) = servers.iter().find(|(server, _)| *server == name).expect("there is one");
        world.steer(&format!("{name}-{number}"), matching, &server.destination());
    }
    for (to, expected) in [
        ("1.2.3.1:80", "spectrum"),
        ("1.2.3.1:81", "spectrum"),
        ("1.2.3.1:443", "nginx-ssl"),
        ("1.2.3.4:443", "spectrum"),
        ("1.2.3.4:80", "nginx-ssl"),
        ("4.3.2.1:443", "new-tls-thing"),
        ("4.3.2.128:443", "nginx-ssl"),
    ] {
        assert_eq!(world.answer(address(to)), expected, "{to}");
    }
}

/// `TestReplaceBindingsOverlapping`: one change after the other, of which none sends port 80 to the rule for all ports.
/// A client that asks all the time sees no moment at which it does.
#[test]
fn replace_bindings_overlapping() {
    let world = world_with(&["2001:db8::/32"]);
    let [foo, bar] = ["foo", "bar"].map(Server::here);
    let [web, other] = ["[2001:db8::1]:80", "[2001:db8::1]:81"].map(address);
    let (done, seen) = (AtomicBool::new(false), Mutex::new(BTreeSet::new()));
    std::thread::scope(|scope| {
        let stop = Stop(&done);
        let client = scope.spawn(|| {
            world.net.client.enter(|| {
                while !done.load(Ordering::Relaxed) {
                    seen.lock().expect("no panic").insert(answer_here(web));
                }
            });
        });
        for _ in 0..5 {
            for (step, now) in [
                ("+bar", ["bar", "refused"]),
                ("+foo", ["bar", "foo"]),
                ("-foo", ["bar", "refused"]),
                ("+foo", ["bar", "foo"]),
                ("-foo", ["bar", "refused"]),
                ("-bar", ["refused", "refused"]),
            ] {
                match step {
                    "+bar" => drop(world.steer("bar", "tcp:[2001:db8::1]:80", &bar.destination())),
                    "+foo" => drop(world.steer("foo", "tcp:[2001:db8::1]:*", &foo.destination())),
                    remove => drop(world.cli().json(&["detach", &world.target(), "--rule", &remove[1..]])),
                }
                assert_eq!([web, other].map(|to| world.answer(to)), now, "after {step}");
            }
        }
        drop(stop);
        client.join().unwrap();
    });
    let seen = seen.into_inner().expect("no panic");
    assert!(seen.contains("bar") && !seen.contains("foo"), "{seen:?}");
}

/// Where a client connects, the rule that must have it, and the one that must not. The peer's own.
const PAIRS: [(&str, &str, &str); 8] = [
    ("192.0.2.0:80", "--match tcp:192.0.2.0:80", "--match tcp:192.0.2.0:*"),
    ("[2001:20::]:80", "--match tcp:[2001:20::]:80", "--match tcp:[2001:20::]:*"),
    ("192.0.2.1:80", "--match tcp:192.0.2.1:80", "--match tcp:192.0.2.0/24:80"),
    ("[2001:20::1]:80", "--match tcp:[2001:20::1]:80", "--match tcp:[2001:20::/64]:80"),
    ("192.0.2.1:80", "--match tcp:192.0.2.1:*", "--match tcp:192.0.2.0/24:80"),
    ("[2001:20::1]:80", "--match tcp:[2001:20::1]:*", "--match tcp:[2001:20::/64]:80"),
    ("192.0.2.1:80", "--match tcp:192.0.2.1:*", "--match tcp:192.0.2.0/24:*"),
    ("[2001:20::1]:80", "--match tcp:[2001:20::1]:*", "--match tcp:[2001:20::/64]:*"),
];

/// The same for what the peer has not: priorities, several ports, sources.
const MORE_PAIRS: [(&str, &str, &str); 10] = [
    ("192.0.2.1:80", "--match tcp:* --priority 1", "--match tcp:192.0.2.1:80 --from 10.77.0.2"),
    ("192.0.2.1:80", "--match tcp:*", "--match tcp:192.0.2.1:80 --from 10.77.0.2 --priority -1"),
    ("192.0.2.1:80", "--match tcp:192.0.2.0/24:80", "--match tcp:80"),
    ("192.0.2.1:80", "--match tcp:128.0.0.0/1:*", "--match tcp:80 --from 10.77.0.2"),
    // Every address is as long as none.
    ("192.0.2.1:80", "--match tcp:80", "--match tcp:0.0.0.0/0:80-81 --from 10.77.0.2"),
    ("192.0.2.1:80", "--match tcp:80,65535", "--match tcp:80-82"),
    ("[2001:20::1]:80", "--match tcp:79-81 --match tcp:1-50", "--match tcp:80-90"),
    ("192.0.2.1:80", "--match tcp:80", "--match tcp:80-81 --from 10.77.0.2"),
    ("192.0.2.1:80", "--match tcp:80 --from 10.77.0.2", "--match tcp:80 --from 10.77.0.0/24"),
    ("[2001:20::1]:80", "--match tcp:80 --from fd77::/16", "--match tcp:80"),
];

/// `TestBindingsSortMatchesDataplane`: priority, then the longer destination prefix, the fewer ports, the longer source
/// prefix; the name decides last, and the order of attaching never. So of each pair that wins which has the lesser name and
/// was attached first, and then the other way round.
#[test]
fn bindings_sort_matches_dataplane() {
    let world = world_with(&["192.0.2.0/24", "2001:20::/64"]);
    let servers = ["a", "b"].map(Server::here);
    let attach = |(name, options): (&str, &str)| {
        let server = &servers[usize::from(name == "b")];
        world.attach(&format!("--name {name} {options} --to {}", server.destination()));
    };
    let detach = |name| drop(world.cli().json(&["detach", &world.target(), "--rule", name]));
    // So that the namespace is steered all the time.
    world.steer("other", "tcp:9", "reject");
    for (to, wins, loses) in PAIRS.into_iter().chain(MORE_PAIRS) {
        for order in [[("a", wins), ("b", loses)], [("a", loses), ("b", wins)]] {
            let [winner, loser] = if order[0].1 == wins { ["a", "b"] } else { ["b", "a"] };
            order.into_iter().for_each(attach);
            assert_eq!(world.answer(address(to)), winner, "{to}: {order:?}");
            // The other takes it too, when it is alone.
            detach(winner);
            assert_eq!(world.answer(address(to)), loser, "{to}: {order:?}");
            detach(loser);
        }
    }
    for order in [["a", "b"], ["b", "a"]] {
        order.into_iter().for_each(|name| attach((name, "--match tcp:192.0.2.0/24:80")));
        assert_eq!(world.answer(address("192.0.2.1:80")), "a", "{order:?}");
        order.into_iter().for_each(detach);
    }
}
