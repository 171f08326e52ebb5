//! Connections that nobody wants any more: `close`, and `detach --close`.

use redirector_tests::{
    cli::error,
    server::Server,
    topology::{POD_V4, POD_V6, at},
    world::World,
};
use serde_json::{Value, json};

/// How connections of the pod ended.
fn ended(pod: &Value) -> Value {
    pod["connections"]["ended"].clone()
}

#[test]
fn the_connections_of_a_client_are_closed_and_no_others() {
    let (world, server) = (World::new(), Server::here("server"));
    for (name, port) in [("one", 80), ("two", 81)] {
        world.steer(name, &format!("tcp:{port}"), &server.destination());
    }
    let open = |address, port| world.open(at(address, port)).0;
    let (mut of_four, mut of_six, mut of_two) = (open(POD_V4, 80), open(POD_V6, 80), open(POD_V4, 81));
    let client = of_four.stream().local_addr().expect("an address").ip().to_string();
    let close = |options: &[&str]| {
        let target = world.target();
        world.cli().json(&[&["close", &target], options].concat())["connections"].clone()
    };
    assert_eq!(close(&["--client", "192.0.2.1"]), 0);
    assert_eq!(close(&["--client", &client, "--rule", "none"]), 0);
    assert_eq!(close(&["--client", &client, "--rule", "one"]), 1);
    of_four.rest().expect_err("it is reset");
    for other in [&mut of_six, &mut of_two] {
        other.echo("still there").expect("no other is closed");
    }
    world.eventually("it is counted", "/connections/ended", |ended| ended["closed"] == 1);
    // The rule stays, and a client that is not wanted is for it to say.
    assert_eq!(world.answer(at(POD_V4, 80)), "server");
    assert_eq!(close(&[]), 2);
    of_six.rest().expect_err("it is reset");
    of_two.rest().expect_err("it is reset");
    assert_eq!(ended(&world.eventually_at_rest())["closed"], 3);
    error(&world.cli().run(&["close", "netns:rdt-none"]), 3);
    error(&world.cli().run(&["close", &world.target(), "--client", "10.0.0.1/8"]), 2);
}

#[test]
fn what_is_detached_is_closed_where_somebody_says_so() {
    let (world, server) = (World::new(), Server::here("server"));
    for (name, port) in [("one", 80), ("two", 81)] {
        world.steer(name, &format!("tcp:{port}"), &server.destination());
    }
    let (mut one, mut two) = (world.open(at(POD_V4, 80)).0, world.open(at(POD_V4, 81)).0);
    let target = world.target();
    let detached = world.cli().json(&["detach", &target, "--rule", "one", "--close"]);
    assert_eq!((&detached["closed"], &detached["connections"]), (&json!(1), &json!(1)), "{detached:#}");
    one.rest().expect_err("it is reset");
    two.echo("still there").expect("no other rule's");
    // Without it they go on, and can be closed by what the namespace is called.
    let detached = world.cli().json(&["detach", &target]);
    assert_eq!((&detached["closed"], &detached["connections"]), (&json!(0), &json!(1)), "{detached:#}");
    two.echo("still there").expect("it goes on");
    assert_eq!(world.cli().json(&["close", &target])["connections"], 1);
    two.rest().expect_err("it is reset");
}
