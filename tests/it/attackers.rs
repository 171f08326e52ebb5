//! Programs that `exec` runs as a user without rights, and that work against the daemon: what they have and what they do
//! must cost the daemon, and those that it serves, nothing that grows with it.

use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use redirector_tests::{
    client::{Stop, visit},
    command::must,
    eventually::at_intervals,
    exec::{Exec, PYTHON, Stage},
    features::Feature,
    holder::Holder,
    server::Server,
    topology::{POD_V4, POD_V6, Topology, at},
};

/// What the scripts have in common. Each has a port of its own: tests run beside each other.
const PRELUDE: &str = "
import ctypes, errno, os, resource, select, socket, struct, sys, threading, time
PORT = int(sys.argv[1])
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
MANY = min(most - 1000, 19000)
libc = ctypes.CDLL(None, use_errno=True)
def say(*words):
    os.write(1, (' '.join(map(str, words)) + '\\n').encode())
def bound(host='0.0.0.0'):
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind((host, PORT))
    return one
def listen(one):
    try:
        one.listen()
        return 'listens'
    except OSError as error:
        return errno.errorcode[error.errno]
def duplicate(one, times):
    return [os.dup(one.fileno()) for _ in range(times)]
def forked():
    'Whether this is the child: it ends with its parent (PR_SET_PDEATHSIG).'
    return os.fork() == 0 and libc.prctl(1, 9) == 0
def for_ever(act):
    say('begins')
    while True:
        act()
def listen_again():
    one = bound()
    listen(one)
    one.close()
def alone(act):
    'Runs it on a thread with a table of fds of its own.'
    def run():
        assert libc.unshare(0x400) == 0
        act()
    thread = threading.Thread(target=run)
    thread.start()
    return thread
def lingering(host):
    'A connected socket whose close takes ten minutes.'
    server = socket.create_server((host, 0))
    one = bound(host)
    one.connect(server.getsockname())
    peer, _ = server.accept()
    server.close()
    one.setblocking(False)
    try:
        while one.send(bytes(65536)): pass
    except BlockingIOError:
        pass
    one.setblocking(True)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 600))
    return one, peer
";

/// `exec --user nobody --listen-as PORT` of a script.
#[track_caller]
fn attacker(stage: &Stage, port: u16, script: &str) -> Exec {
    let (script, port) = (format!("{PRELUDE}{script}"), port.to_string());
    let options = format!("--match tcp:{port} --user nobody --listen-as {port}");
    Exec::start(&mut stage.exec(&options, &[PYTHON, "-c", &script, &port]))
}

/// Has as many duplicates of its listener as it may have, and listens again and again.
const DUPLICATES: &str = "
first = bound()
say(listen(first))
copies = duplicate(first, MANY)
for_ever(listen_again)
";

#[test]
fn thousands_of_duplicates_of_a_listener_cost_the_daemon_neither_files_nor_more_than_a_share_of_its_time() {
    let stage = Stage::with_daemon();
    let daemon = stage.daemon.as_ref().unwrap();
    let before = daemon.fds_at_rest();
    let mut program = attacker(&stage, 18100, DUPLICATES);
    program.expect_line("listens");
    program.expect_line("begins");
    let (used, mut most) = (daemon.cpu_time(), 0);
    let elapsed = at_intervals(100, || most = most.max(daemon.fds().len()));
    let used = daemon.cpu_time() - used;
    println!("{most} files after {before} at rest; {used:?} of CPU time in {elapsed:?}");
    assert!(most < before + 64, "{most} files instead of {before}");
    drop(program);
    stage.assert_forgotten();
}

#[test]
fn a_program_with_many_files_threads_and_processes_is_answered_as_any_other() {
    let stage = Stage::with_daemon();
    let mut program = attacker(
        &stage,
        18101,
        "
first = bound()
say(listen(first))
copies = duplicate(first, 1000)
# Processes that have it, too.
for _ in range(50):
    if forked():
        sys.stdin.read()
        os._exit(0)
# Calls that wait for an answer at the same time.
results = []
def call():
    one = bound()
    results.append((listen(one), one.getsockname() == first.getsockname()))
callers = [threading.Thread(target=call) for _ in range(100)]
[caller.start() for caller in callers]
[caller.join() for caller in callers]
say(set(results))
# The first one that it was given is closed: who has it now has to be looked for.
first_address = first.getsockname()
os.closerange(3, most)
again = bound()
say(listen(again), again.getsockname() == first_address)
",
    );
    assert_eq!(program.line(), "listens");
    assert_eq!(program.line(), "{('listens', True)}", "they share one listener");
    assert_eq!(program.line(), "listens True", "its children have it");
    program.close_stdin();
    assert_eq!(program.code(), 0);
    stage.assert_forgotten();
}

#[test]
fn an_epoll_file_with_thousands_of_files_does_not_hide_the_socket() {
    let stage = Stage::with_daemon();
    let mut program = attacker(
        &stage,
        18102,
        "
pipe, _ = os.pipe()
poll = select.epoll()
[poll.register(os.dup(pipe), select.EPOLLIN) for _ in range(MANY // 2)]
one = bound()
poll.register(one, select.EPOLLIN)
say(listen(one))
poll.unregister(one)
say(listen(one))
",
    );
    assert_eq!(program.line(), "EADDRNOTAVAIL");
    assert_eq!(program.line(), "listens");
    assert_eq!(program.code(), 0);
}

#[test]
fn a_program_that_keeps_its_old_listeners_gets_so_many_and_more_when_it_has_closed_them() {
    let stage = Stage::with_daemon();
    let mut program = attacker(
        &stage,
        18103,
        "
kept, results = [], []
while not results or results[-1] == 'listens':
    one = bound()
    results.append(listen(one))
    if results[-1] == 'listens':
        one.shutdown(socket.SHUT_RDWR)
    kept.append(one)
say(len(results), results[-1])
[one.close() for one in kept]
say(listen(bound()))
# One after the other there is no end of them.
for _ in range(100):
    one = bound()
    assert listen(one) == 'listens'
    one.close()
say('done')
",
    );
    assert_eq!(program.line(), "33 EADDRNOTAVAIL");
    assert_eq!(program.line(), "listens");
    assert_eq!(program.line(), "done");
    assert_eq!(program.code(), 0);
}

#[test]
fn a_listener_in_the_table_of_one_thread_alone_is_shut_down_when_the_namespace_dies() {
    let stage = Stage::with_daemon();
    let mut program = attacker(
        &stage,
        18104,
        "
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
one = bound()
say(listen(one))
def keep():
    say('keeps')
    while one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        time.sleep(0.01)
    say('shut down')
    os._exit(0)
keeper = alone(keep)
sys.stdin.readline()
os.close(one.fileno())
say('closed')
keeper.join()
",
    );
    assert_eq!(program.line(), "listens");
    assert_eq!(program.line(), "keeps");
    program.tell("go");
    assert_eq!(program.line(), "closed");
    stage.net.pod.delete();
    if Feature::ThreadPidfd.is_here() {
        assert_eq!(program.line(), "shut down");
        assert_eq!(program.code(), 0);
    } else {
        // What is in that table alone cannot be had; it ends with the process.
        assert_eq!(program.code(), 128 + 9);
    }
    super::exec::assert_is_gone(&stage);
}

/// Calls listen() on lingering sockets and closes them while the daemon looks.
const LINGERING: &str = "
others = duplicate(sys.stdin, MANY // 2)
peers = []
def replace(number):
    one, peer = lingering(f'127.7.{number // 200}.{number % 200 + 1}')
    peers.append(peer)
    fd = one.detach()
    caller = threading.Thread(target=lambda: libc.listen(fd, 1))
    caller.start()
    # While the daemon looks at it, its duplicate is the last one.
    time.sleep(number % 4 * 0.01)
    threading.Thread(target=os.close, args=[fd]).start()
    caller.join()
";

#[test]
fn a_lingering_socket_under_listen_stops_neither_the_daemon_nor_its_end() {
    for mut stage in Stage::both() {
        let mut program = attacker(
            &stage,
            18105,
            &format!(
                "{LINGERING}
for number in range(10):
    replace(number)
say('replaced')
say(listen(bound()))
sys.stdin.readline()
os._exit(0)
"
            ),
        );
        assert_eq!(program.line(), "replaced");
        assert_eq!(program.line(), "listens");
        if let Some(daemon) = &mut stage.daemon {
            // It ends although the program goes on.
            daemon.stop();
        }
        program.tell("end");
        assert_eq!(program.code(), 0);
    }
}

#[test]
fn lingering_sockets_that_come_with_requests_stop_neither_the_daemon_nor_its_end() {
    let mut stage = Stage::with_daemon();
    let script = format!(
        "{PRELUDE}
directory = sys.argv[2]
peers = []
for number in range(8):
    one, peer = lingering('127.0.0.1')
    peers.append(peer)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(directory + '/handoff.sock')
        # As soon as it is sent, and in a message that nobody receives.
        socket.send_fds(connection, [b'{{}}'], [one.fileno()])
        try:
            socket.send_fds(connection, [b'{{}}'], [one.fileno()])
        except (BrokenPipeError, ConnectionResetError):
            # The first has been answered already, and the connection closed.
            pass
        # Whose is the last duplicate waits for ten minutes.
        threading.Thread(target=one.close).start()
        try:
            assert b'error' in connection.recv(65536)
        except ConnectionResetError:
            # It was closed with the second message in its queue.
            pass
say('sent')
# What can be said to be refused is refused.
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(directory + '/control.sock')
    try:
        connection.getsockopt(socket.SOL_SOCKET, 83)
    except OSError:
        say('EPERM')
    else:
        try:
            socket.send_fds(connection, [b'GET '], [0])
            say('sent')
        except OSError as error:
            say(errno.errorcode[error.errno])
os._exit(0)
"
    );
    let daemon = stage.daemon.as_mut().unwrap();
    let directory = daemon.socket().parent().unwrap().to_str().unwrap().to_owned();
    let said = must(Command::new(PYTHON).args(["-c", &script, "0", &directory])).stdout;
    assert_eq!(said, "sent\nEPERM\n");
    assert_eq!(daemon.cli().json(&["list"])["namespaces"], serde_json::json!([]));
    daemon.stop();
}

/// Clients of a namespace that is nobody's target, one after the other. How long the slowest in a hundred took.
#[track_caller]
fn p99(net: &Topology, visits: usize) -> Duration {
    let visit = |number: usize| {
        let begin = Instant::now();
        let greeting = visit(&net.client, at([POD_V4, POD_V6][number % 2], 80));
        assert_eq!(greeting.expect("it is served").server, "proxy");
        begin.elapsed()
    };
    let mut times: Vec<_> = (0..visits).map(visit).collect();
    times.sort();
    times[visits - 1 - visits / 100]
}

const VISITS: usize = 400;

/// Uses a processor, and has nothing to do with the daemon: what a machine with as many busy programs costs clients anyway.
const BUSY: &str = "
import os, sys, threading
def busy():
    while True: pass
threading.Thread(target=busy, daemon=True).start()
for line in sys.stdin:
    print(line, end='', flush=True)
os._exit(0)
";

#[test]
fn beside_all_attackers_at_once_the_clients_of_another_namespace_lose_nothing() {
    let stage = Stage::with_daemon();
    let (victim, proxy) = (Topology::new(), Server::here("proxy"));
    let steer = |net: &Topology, matching: &str, to: &str| {
        stage.cli().json(&["attach", &net.pod.target(), "--match", matching, "--to", to]);
    };
    steer(&victim, "tcp:80", &proxy.destination());
    steer(&stage.net, "tcp:79", "drop");
    let before = p99(&victim, VISITS);
    let beside_busy = {
        let _busy = [(); 3].map(|()| Holder::start(Command::new(PYTHON).args(["-c", BUSY])));
        p99(&victim, VISITS)
    };
    let forks = "
first = bound()
listen(first)
for _ in range(50):
    if forked():
        copies = duplicate(first, MANY // 20)
        while True:
            listen_again()
            time.sleep(0.01)
for_ever(lambda: time.sleep(1))
";
    let lingering =
        format!("{LINGERING}\nnumbers = iter(range(10000))\nfor_ever(lambda: replace(next(numbers)))\n");
    let mut attackers = [(18106, DUPLICATES), (18107, forks), (18108, &lingering)]
        .map(|(port, script)| attacker(&stage, port, script));
    attackers.iter_mut().for_each(|one| drop(one.expect_line("begins")));
    let done = AtomicBool::new(false);
    let (during, kills) = thread::scope(|scope| {
        // Who is root in the namespace.
        let kills = scope.spawn(|| {
            let mut kills = 0;
            while !done.load(Ordering::Relaxed) {
                stage.net.pod.must("ss", &["-HtlnK"]);
                kills += 1;
            }
            kills
        });
        let stop = Stop(&done);
        let during = p99(&victim, VISITS);
        drop(stop);
        (during, kills.join().expect("no panic"))
    });
    println!(
        "p99 before: {before:?}; beside three busy programs: {beside_busy:?}; beside three attackers: {during:?}; {kills} kills"
    );
    assert_eq!(proxy.accepted(), 3 * VISITS);
}
