//! A destination with a short queue.

use redirector_tests::{
    HANG,
    client::at_once,
    server::{Server, echo},
    topology::{POD_V4, at},
    world::World,
};
use socket2::{Domain, SockAddr, Socket, Type};

#[test]
fn a_unix_socket_whose_queue_is_full_serves_all_in_the_end() {
    let world = World::new();
    let path = world.daemon.dir().join("short.sock");
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    listener.listen(1).unwrap();
    // The first waits until the last has come, which takes longer than usual on a slow machine.
    world.attach(&format!(
        "--name short --match tcp:80 --to unix:{} --connect-timeout {}s",
        path.display(),
        HANG.as_secs()
    ));
    let clients = 64;
    let answers = std::thread::scope(|scope| {
        let world = &world;
        let answers = scope.spawn(move || {
            at_once(&world.net.client, clients, |_| redirector_tests::client::answer_here(at(POD_V4, 80)))
        });
        // Nobody accepts until all have come: the queue is full then.
        world.eventually("all are waiting", "/connections/active", |active| active.as_u64() == Some(64));
        let server = Server::of(vec![listener], "short", echo);
        let answers = answers.join().unwrap();
        drop(server);
        answers
    });
    assert_eq!(answers, vec!["short"; clients]);
    let pod = world.eventually_at_rest();
    assert_eq!(pod["connections"]["failed"], serde_json::json!({}), "{pod:#}");
    assert_eq!(world.rule("short")["state"], "up");
}
