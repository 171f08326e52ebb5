//! Calls that fail, or that kill, in a hand-off: nothing is left, or a lease.

use super::*;

/// A program that has listeners and does nothing with them until its standard input is closed.
const HOLDER: [&str; 3] = ["/bin/sh", "-c", "echo ready; read line || exit 0"];

/// Whether the kernel takes a connection of the client to port 80 of the pod.
fn is_taken(net: &Topology) -> bool {
    let connect = || TcpStream::connect_timeout(&at(POD_V4, 80), HANG);
    net.client.enter(|| connect().is_ok())
}

/// The words of `redirector exec` with [`HOLDER`].
fn exec<'a>(target: &'a str, options: &[&'a str]) -> Vec<&'a str> {
    [&["exec", target, "--match", "tcp:80"], options, &["--"], &HOLDER].concat()
}

/// Starts it, and gives whether [`HOLDER`] runs. Where it does not, the command has failed, and said why.
#[track_caller]
fn start(command: &mut Command) -> (Exec, bool) {
    let mut exec = Exec::start(command);
    let line = exec.line_before_end();
    if line.is_none() {
        assert_eq!(exec.code(), 125, "{:?}", exec.stderr());
        exec.expect_on_stderr("error: ");
    }
    (exec, line.is_some())
}

/// Ends it; [`HOLDER`] ends well.
#[track_caller]
fn end(exec: &mut Exec) {
    exec.close_stdin();
    assert_eq!(exec.code(), 0);
}

#[track_caller]
fn eventually_as(what: &str, net: &Topology, wanted: &[Snapshot; 2]) {
    eventually(what, SECOND, || {
        let now = namespaces(net);
        if now == *wanted { Ok(()) } else { Err(now) }
    });
}

#[test]
#[ignore = "soak: inject"]
fn a_call_that_fails_in_a_hand_off_leaves_a_lease_or_nothing() {
    let faults = Faults::new();
    let world = World::with(faults.daemon(), Topology::new());
    let target = world.target();
    let (nothing, fds) = (Look::at(&world), world.daemon.fds_at_rest());
    for number in numbers(1) {
        let ((mut exec, runs), calls) =
            faults.during(Fault::Fail(number), || start(&mut world.cli().command(&exec(&target, &[]))));
        let call = calls.get(number - 1);
        println!("{number}: {call:?}: {runs}: {:?}", exec.stderr());
        assert_eq!(is_taken(&world.net), runs);
        if runs {
            end(&mut exec);
        }
        eventually_as("the lease has ended", &world.net, &nothing.namespaces);
        Look::at(&world).assert_same_as(&nothing);
        if call.is_none() {
            assert!(runs, "it must run where no call fails");
            break;
        }
    }
    world.daemon.eventually_has_fds(fds);
}

#[test]
#[ignore = "soak: inject"]
fn a_call_that_fails_in_the_end_of_a_lease_does_not_keep_it() {
    let faults = Faults::new();
    let world = World::with(faults.daemon(), Topology::new());
    let target = world.target();
    let (nothing, fds) = (Look::at(&world), world.daemon.fds_at_rest());
    for options in [&[][..], &["attach", &target, "--match", "tcp:81", "--to", "reject"]] {
        if !options.is_empty() {
            // The lease is not the last rule then.
            world.cli().run(options).success();
        }
        let before = Look::at(&world);
        for number in numbers(1) {
            let (mut exec, runs) = start(&mut world.cli().command(&exec(&target, &[])));
            assert!(runs, "{:?}", exec.stderr());
            let ((), calls) = faults.during(Fault::Fail(number), || {
                end(&mut exec);
                eventually("the lease has ended", SECOND, || {
                    let is_there = is_taken(&world.net);
                    if is_there { Err("connections are taken") } else { Ok(()) }
                });
            });
            let call = calls.get(number - 1);
            println!("{number}: {call:?}");
            // Also where the call was one of those that take the rule out of force: it is tried again.
            eventually("its rule is taken back", SECOND, || {
                let list = world.list();
                let rules = list["namespaces"].as_array().into_iter().flatten();
                let mut rules = rules.flat_map(|netns| netns["rules"].as_array().into_iter().flatten());
                if rules.any(|rule| rule["origin"] == "lease") { Err(list.clone()) } else { Ok(()) }
            });
            eventually_as("its listeners are closed", &world.net, &before.namespaces);
            Look::at(&world).assert_same_as(&before);
            if call.is_none() {
                break;
            }
        }
    }
    world.cli().run(&["detach", &target]).success();
    Look::at(&world).assert_same_as(&nothing);
    world.daemon.eventually_has_fds(fds);
}

#[test]
#[ignore = "soak: inject"]
fn a_kill_at_any_call_of_a_hand_off_leaves_nothing_but_the_program() {
    let mut net = Topology::new();
    let nothing = namespaces(&net);
    for number in numbers(1) {
        let faults = Faults::new();
        let world = World::with(faults.daemon(), net);
        let target = world.target();
        let ((mut exec, runs), calls) =
            faults.during(Fault::Kill(number), || start(&mut world.cli().command(&exec(&target, &[]))));
        let call = calls.get(number - 1);
        println!("{number}: {call:?}: {runs}: {:?}", exec.stderr());
        let World { mut daemon, net: left } = world;
        net = left;
        if call.is_none() {
            daemon.kill();
        }
        assert_eq!(daemon.wait().signal(), Some(Signal::SIGKILL as i32));
        if runs {
            // Where it found no daemon it is one itself, and steers for as long as the program runs.
            let name = fs::read_to_string(format!("/proc/{}/comm", exec.pid())).expect("its name");
            assert_eq!(is_taken(&net), name.trim() != "sh", "{name}");
            end(&mut exec);
        } else {
            assert!(!is_taken(&net));
        }
        eventually_as("the program has ended", &net, &nothing);
        if call.is_none() {
            break;
        }
    }
}

#[test]
#[ignore = "soak: inject"]
fn a_call_that_fails_in_exec_itself_or_kills_it_leaves_no_lease() {
    let world = World::new();
    let target = world.target();
    let nothing = Look::at(&world);
    // Nobody may see a program that has become another user.
    let options = ["--listen-as", "80", "--user", "nobody"];
    for fault in [Fault::Fail, Fault::Kill] {
        // They are few.
        for number in 1.. {
            let faults = Faults::new();
            let mut command = faults.command(&exec(&target, &options));
            command.env("REDIRECTOR_SOCKET", world.daemon.socket());
            let (mut exec, calls) = faults.during(fault(number), || {
                let exec = Exec::start(&mut command);
                drop(exec.line_before_end());
                exec
            });
            let call = calls.get(number - 1);
            println!("{:?}: {call:?}: {:?}", fault(number), exec.stderr());
            exec.close_stdin();
            // The one who says what becomes of the listeners makes calls meanwhile, which are counted with them: without him exec goes on.
            let wanted = match (call, fault(number)) {
                (None, _) => [0, 0],
                (Some(_), Fault::Fail(_)) => [0, 125],
                (Some(_), Fault::Kill(_)) => [0, 128 + Signal::SIGKILL as i32],
                (Some(_), Fault::Panic(_)) => [0, 101],
            };
            let code = exec.code();
            assert!(wanted.contains(&code), "{code} {wanted:?}: {:?}", exec.stderr());
            eventually("nothing is steered", SECOND, || {
                let list = world.list();
                if list["namespaces"] == json!([]) { Ok(()) } else { Err(list) }
            });
            eventually_as("the lease has ended", &world.net, &nothing.namespaces);
            if call.is_none() {
                break;
            }
        }
    }
}

#[test]
#[ignore = "soak: inject"]
fn a_call_that_fails_in_exec_without_a_daemon_leaves_nothing() {
    let (net, dir) = (Topology::new(), Dir::new());
    let (target, nothing) = (net.pod.target(), namespaces(&net));
    let temporary = dir.join("tmp");
    fs::create_dir(&temporary).expect("make a directory");
    for number in numbers(1) {
        let faults = Faults::new();
        let mut command = faults.command(&exec(&target, &[]));
        command.env("REDIRECTOR_SOCKET", dir.join("none.sock")).env("TMPDIR", &temporary);
        let ((mut exec, runs), calls) = faults.during(Fault::Fail(number), || start(&mut command));
        // Of two processes, and each counts its own.
        println!("{number} of {}: {runs}: {:?}", calls.len(), exec.stderr());
        assert_eq!(is_taken(&net), runs);
        if runs {
            end(&mut exec);
        }
        eventually_as("the program has ended", &net, &nothing);
        let left: Vec<_> = fs::read_dir(&temporary).expect("read $TMPDIR").flatten().collect();
        assert!(left.is_empty(), "left in $TMPDIR: {left:?}");
        if calls.len() < number {
            assert!(runs, "it must run where no call fails");
            break;
        }
    }
}
