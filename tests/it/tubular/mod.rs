//! The tests of our closest peer, Cloudflare's tubular, about bindings and their order, against our rules. A binding is a
//! rule, its label is where the rule leads to. Tests are named after theirs, in `internal/` and `cmd/tubectl/`:
//! <https://github.com/cloudflare/tubular>. In `order` is which rule decides, in `defects` what goes wrong there and must
//! not here.
//!
//! Shown elsewhere already:
//!
//! - `TestBindUnbind`: that `attach` needs its arguments is in `inputs::wrong_input_is_refused_by_name_and_changes_nothing`.
//! - `TestBindInvariants`: `rules::a_rule_with_several_matches_takes_them_all_and_nothing_else` reads what `list` says.
//! - `TestReplaceBindings` and `TestLoadBindings` are about files of bindings, `TestBindings` about filters: there are none.

mod defects;
mod order;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use nix::sys::signal::Signal;
use redirector_tests::{
    cli::error,
    client::answer,
    command::Outcome,
    netns::Netns,
    server::Server,
    topology::{CLIENT_V4, POD_V4, POD_V6, at},
    world::{World, count},
};
use serde_json::json;

use super::hostile::{kill_listener, listeners};

const LOOPBACK_V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOOPBACK_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Attaches as a user would, whatever comes of it. Options are words.
fn try_attach(world: &World, options: &str) -> Outcome {
    let target = world.target();
    let words: Vec<_> = ["attach", &target].into_iter().chain(options.split_whitespace()).collect();
    world.cli().run(&words)
}

/// The names of the pod's rules.
#[track_caller]
fn names(world: &World) -> Vec<String> {
    let pod = world.pod();
    let rules = pod["rules"].as_array().expect("an array").iter();
    rules.map(|rule| rule["name"].as_str().expect("a name").to_owned()).collect()
}

/// `TestAddAndRemoveBindings`: the application, then nobody while the destination is unavailable, then the application.
#[test]
fn add_and_remove_bindings() {
    let world = World::new();
    let _app = Server::inside(&world.net.pod, "app", 8080);
    let (pod, client) = (&world.net.pod, &world.net.client);
    let cases: [(&str, IpAddr, &Netns); 4] = [
        ("tcp:127.0.0.0/8:8080", LOOPBACK_V4, pod),
        ("tcp:[::1]:8080", LOOPBACK_V6, pod),
        ("tcp:10.0.0.0/8:8080", POD_V4, client),
        ("tcp:[fd77::/16]:8080", POD_V6, client),
    ];
    for (matching, pod, from) in cases {
        let ask = || answer(from, at(pod, 8080));
        assert_eq!(ask(), "app", "{matching}");
        world.steer("foo", matching, "unix:/nowhere.sock");
        // Three dials that fail take it down.
        for _ in 0..3 {
            assert_eq!(ask(), "reset", "{matching}");
        }
        world.eventually("it is down", "/rules/0/state", |state| state == "down");
        world.eventually("the kernel knows it too", "/rules/0/counters/unavailable", |_| ask() == "refused");
        assert_eq!(ask(), "refused", "{matching}");
        world.detach();
        assert_eq!(ask(), "app", "{matching}");
    }
}

/// `TestAddInvalidBinding`: IPv4 addresses in the clothes of IPv6 are refused, and the error shows how to write them.
#[test]
fn add_invalid_binding() {
    let world = World::new();
    for (prefix, corrected) in [
        ("::ffff:7f00:1/128", "127.0.0.1"),
        ("::ffff:7f00:1", "127.0.0.1"),
        ("::ffff:7f00:1/104", "127.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        // Wider than all of IPv4: the peer takes this one.
        ("::ffff:0:0/90", "0.0.0.0/0"),
    ] {
        for options in [
            format!("--match tcp:[{prefix}]:8080"),
            format!("--match tcp:8080 --from {prefix}"),
            format!("--match tcp:8080 --except tcp:[{prefix}]:8080"),
        ] {
            let outcome = try_attach(&world, &format!("{options} --to reject"));
            assert!(error(&outcome, 2).contains(corrected), "{outcome}");
            assert_eq!(world.list()["namespaces"], json!([]));
        }
    }
}

/// `TestBindingWithEmptyLabel`: neither `attach` nor `detach` takes an empty name.
#[test]
fn binding_with_empty_label() {
    let world = World::new();
    world.steer("foo", "tcp:80", "reject");
    let (before, target) = (world.list(), world.target());
    error(&world.cli().run(&["attach", &target, "--name", "", "--match", "tcp:81", "--to", "reject"]), 2);
    error(&world.cli().run(&["detach", &target, "--rule", ""]), 2);
    assert_eq!(world.list(), before);
}

/// `TestUpdateBinding`: the same name again replaces; under another name the more and the less specific one both stay.
#[test]
fn update_binding() {
    let world = World::new();
    let [foo, bar] = ["foo", "bar"].map(Server::here);
    let (net, host) = ("tcp:10.77.0.0/24:8080", "tcp:10.77.0.1:8080");
    let to = at(POD_V4, 8080);

    world.steer("one", net, &foo.destination());
    assert_eq!(world.answer(to), "foo");
    assert_eq!(world.steer("one", net, &bar.destination())["result"], "changed");
    assert_eq!((names(&world), world.answer(to)), (vec!["one".to_owned()], "bar".to_owned()));
    world.detach();

    for order in [[("net", net, &foo), ("host", host, &bar)], [("host", host, &bar), ("net", net, &foo)]] {
        for (name, matching, server) in order {
            assert_eq!(world.steer(name, matching, &server.destination())["result"], "attached");
        }
        assert_eq!(
            names(&world).into_iter().collect::<BTreeSet<_>>(),
            ["host", "net"].map(str::to_owned).into()
        );
        assert_eq!(world.answer(to), "bar");
        world.cli().json(&["detach", &world.target(), "--rule", "host"]);
        assert_eq!(world.answer(to), "foo");
        world.detach();
    }
}

/// `TestRemoveBinding`: what is not there cannot be removed, and nothing else is.
#[test]
fn remove_binding() {
    let (world, foo) = (World::new(), Server::here("foo"));
    let target = world.target();
    let remove = |name| world.cli().run(&["detach", &target, "--rule", name]);
    error(&remove("foo"), 3);
    world.steer("foo", "tcp:[fd77::1]:80", &foo.destination());
    assert!(error(&remove("bar"), 3).contains("bar"));
    assert_eq!((names(&world), world.answer(at(POD_V6, 80))), (vec!["foo".to_owned()], "foo".to_owned()));
    remove("foo").success();
    assert_eq!(world.list()["namespaces"], json!([]));
    assert_eq!(world.answer(at(POD_V6, 80)), "refused");
    error(&remove("foo"), 3);
}

/// `TestParseCIDR` and `TestBinding`: a bare address is that address alone, and no bits are dropped in silence.
#[test]
fn parse_cidr() {
    let world = World::new();
    let _app = Server::inside(&world.net.pod, "app", 80);
    for (form, shown, answers) in [
        ("10.77.0.1", "10.77.0.1", ["refused", "app"]),
        ("10.77.0.1/32", "10.77.0.1", ["refused", "app"]),
        ("10.77.0.0/24", "10.77.0.0/24", ["refused", "app"]),
        ("0.0.0.0", "0.0.0.0", ["app", "app"]),
        ("0.0.0.0/32", "0.0.0.0", ["app", "app"]),
        ("0.0.0.0/0", "0.0.0.0/0", ["refused", "app"]),
        ("[fd77::1]", "[fd77::1]", ["app", "refused"]),
        ("[fd77:0::0:1/128]", "[fd77::1]", ["app", "refused"]),
        ("[fd77::/64]", "[fd77::/64]", ["app", "refused"]),
        ("[::]", "[::]", ["app", "app"]),
        ("[::/0]", "[::/0]", ["app", "refused"]),
    ] {
        world.steer("foo", &format!("tcp:{form}:80"), "reject");
        assert_eq!(world.rule("foo")["match"], json!([format!("tcp:{shown}:80")]));
        assert_eq!([POD_V4, POD_V6].map(|pod| world.answer(at(pod, 80))), answers, "{form}");
    }
    let before = world.list();
    for (form, naming) in [
        ("127.0.0.1/24", "127.0.0.0/24"),
        ("[2001:20::1/64]", "2001:20::/64"),
        ("127.1", "127.1"),
        ("127.0.0.1/", "127.0.0.1/"),
        ("127.0.0.1/33", "127.0.0.1/33"),
        ("127.0.0.1/+8", "127.0.0.1/+8"),
        ("[::1/129]", "::1/129"),
        ("", "tcp::80"),
    ] {
        let outcome = try_attach(&world, &format!("--name foo --match tcp:{form}:80 --to pass"));
        assert!(error(&outcome, 2).contains(naming), "{outcome}");
        assert_eq!(world.list(), before, "changed by `{form}`");
    }
}

/// `TestBindInvalidInput`.
#[test]
fn bind_invalid_input() {
    let world = World::new();
    world.steer("foo", "tcp:80", "reject");
    let before = world.list();
    for matching in ["stp:[::1]:443", "tcp:[::1]:111443", "tcp:111443", "tcp:[::ffff:192.0.2.128/96]:443"] {
        let outcome = try_attach(&world, &format!("--name foo --match {matching} --to pass"));
        assert!(error(&outcome, 2).contains(matching), "{outcome}");
        assert_eq!(world.list(), before, "changed by `{matching}`");
    }
}

/// `TestMetrics`: one client that was refused and one that was served are two. A rule that is attached anew starts at 0,
/// and so does one that comes into its place.
#[test]
fn metrics() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    world.steer("foo", "tcp:8080", &proxy.destination());
    world.steer("other", "tcp:8081", "reject");
    let counters = |name| world.rule(name)["counters"].clone();
    let expected = |steered, unavailable, reasons| {
        json!({
            "steered": steered, "passed": 0, "rejected": 0, "dropped": 0, "bypassed": 0,
            "unavailable": unavailable, "unavailable_reasons": reasons,
        })
    };
    let fresh = expected(0, 0, json!({}));
    assert_eq!(counters("foo"), fresh);

    // Stopped, the daemon does not revive what was killed before the client comes.
    let listener = listeners(&world)[0];
    world.daemon.signal(Signal::SIGSTOP);
    kill_listener(&world, listener);
    assert_eq!(world.answer(at(POD_V4, 8080)), "refused");
    world.daemon.signal(Signal::SIGCONT);
    world.eventually("it is revived", "/drift/listeners_revived", |revived| *revived == 1);
    assert_eq!(world.visit(at(POD_V4, 8080)).server, "proxy");
    assert_eq!(counters("foo"), expected(1, 1, json!({ "ESOCKTNOSUPPORT": 1 })));
    let pod = world.eventually_at_rest();
    assert_eq!(
        (count(&pod, "/connections/accepted"), count(&pod, "/connections/relayed")),
        (1, 1),
        "{pod:#}"
    );

    for (name, matching) in [("foo", "tcp:8080"), ("bar", "tcp:443")] {
        world.cli().json(&["detach", &world.target(), "--rule", "foo"]);
        world.steer(name, matching, &proxy.destination());
        assert_eq!(counters(name), fresh);
        assert_eq!(count(&world.rule("other"), "/counters/rejected"), 0);
    }
}

/// `TestStatus`: `list` shows the rule, and the same again when nothing has happened, to programs and to people.
#[test]
fn status() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    for name in ["foo", "bar", "a", "z"] {
        let options = format!("--name {name} --match tcp:80 --from {CLIENT_V4} --to {}", proxy.destination());
        world.attach(&options);
    }
    assert_eq!(world.visit(at(POD_V4, 80)).server, "proxy");
    world.eventually_at_rest();
    let text = || world.cli().run(&["list"]).success().stdout;
    let before = (world.list(), text());
    assert!(["foo", "bar", "a", "z"].iter().all(|name| before.1.contains(name)), "{}", before.1);
    for _ in 0..5 {
        assert_eq!((world.list(), text()), before);
    }
}
