//! Logs of many containers reach one collector: rsyslog, in a container of its own, on its loopback address only.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
};

use redirector_tests::{
    client::answer,
    dir::Dir,
    eventually::eventually,
    netns::Netns,
    server::{Place, Server, echo},
    tcp,
    topology::at,
};
use serde_json::json;

use crate::{AT_ONCE, for_each_engine, setting::Setting};

for_each_engine!(every_line_of_five_containers_arrives_and_what_is_lost_with_the_collector_is_counted,);

/// Where the containers log to.
const PORT: u16 = 5514;

/// Where the collector listens, in its own namespace.
const COLLECTOR: u16 = 514;

const APPS: [&str; 5] = ["app1", "app2", "app3", "app4", "app5"];

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// rsyslog writes each message as it came.
const CONFIGURATION: &str = r#"
module(load="imptcp")
input(type="imptcp" address="127.0.0.1" port="514")
template(name="raw" type="string" string="%rawmsg%\n")
action(type="omfile" file="/data/lines" template="raw")
"#;

struct Collector<'a> {
    setting: &'a Setting,
    dir: Dir,
}

impl<'a> Collector<'a> {
    /// The rsyslog of this machine, with its libraries, in a container.
    fn start(setting: &'a Setting) -> Self {
        let dir = Dir::new();
        fs::write(dir.join("rsyslog.conf"), CONFIGURATION).expect("write rsyslog.conf");
        fs::write(dir.join("lines"), "").expect("make the file for the lines");
        let data = format!("{}:/data", dir.path().display());
        let mut run = vec!["run", "--detach", "--name", "collector", "--volume", &data];
        for folder in ["/usr:/usr:ro", "/lib:/lib:ro", "/lib64:/lib64:ro"] {
            run.extend(["--volume", folder]);
        }
        run.extend([
            setting.engine.image(),
            "/usr/sbin/rsyslogd",
            "-n",
            "-f",
            "/data/rsyslog.conf",
            "-i",
            "NONE",
        ]);
        setting.engine.client(&run);
        let collector = Self { setting, dir };
        collector.eventually_listens();
        collector
    }

    fn netns(&self) -> Netns {
        self.setting.engine.netns_of("collector")
    }

    fn eventually_listens(&self) {
        let netns = self.netns();
        eventually("rsyslog listens", AT_ONCE, || {
            let connected = netns.enter(|| TcpStream::connect(at(LOOPBACK, COLLECTOR)));
            connected.map(drop).map_err(|error| (error, self.setting.engine.client(&["logs", "collector"])))
        });
    }

    fn file(&self) -> PathBuf {
        self.dir.join("lines")
    }

    /// Waits until it has these lines, each once, and no other.
    #[track_caller]
    fn eventually_has(&self, expected: &BTreeSet<String>) {
        eventually("the collector has every line once", AT_ONCE, || {
            let lines = lines(&self.file());
            let once: BTreeSet<_> = lines.iter().cloned().collect();
            if once == *expected && lines.len() == expected.len() {
                return Ok(());
            }
            let missing: Vec<_> = expected.difference(&once).take(3).cloned().collect();
            let foreign: Vec<_> = once.difference(expected).take(3).cloned().collect();
            Err((lines.len(), expected.len(), missing, foreign))
        });
    }
}

fn lines(file: &Path) -> Vec<String> {
    let text = fs::read(file).expect("read the collector's lines");
    String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
}

/// Syslog messages as of RFC 3164, with a number each.
fn messages(app: &str, to: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("<13>Nov 25 00:00:00 {app} test: to {to}, {number:06}")).collect()
}

fn every_line_of_five_containers_arrives_and_what_is_lost_with_the_collector_is_counted(kind: &'static str) {
    let setting = Setting::new(kind);
    let engine = &setting.engine;
    let collector = Collector::start(&setting);
    let to = format!("{}/127.0.0.1:{COLLECTOR}", engine.target("collector"));
    for app in APPS {
        engine.run(app, &[]);
        let (target, matching) = (engine.target(app), format!("tcp:{PORT}"));
        let on_unavailable = if app == "app5" { "pass" } else { "reject" };
        let attach = ["attach", &target, "--name", "logs", "--match", &matching, "--to", &to, "--follow"];
        setting.cli().json(&[&attach[..], &["--on-unavailable", on_unavailable]].concat());
    }

    // Each to its own loopback and its own address, by programs of their own.
    let mut expected = BTreeSet::new();
    for app in APPS {
        for address in [LOOPBACK, engine.address(app)] {
            let messages = messages(app, &address.to_string(), 50);
            let script = format!("cat <<'END' | nc -w 5 {address} {PORT}\n{}\nEND", messages.join("\n"));
            engine.client(&["exec", app, "sh", "-c", &script]);
            expected.extend(messages);
        }
    }
    collector.eventually_has(&expected);
    assert_eq!(lost(&setting), 0);

    // A collector that stops reading, under the load of all, and is killed.
    let mut connections: Vec<_> = APPS.iter().map(|app| (*app, connect(&setting, app))).collect();
    engine.client(&["pause", "collector"]);
    let mut sent = 0;
    for (app, connection) in &mut connections {
        let text = messages(app, "nobody", 20_000).join("\n") + "\n";
        connection.write_all(text.as_bytes()).expect("the relay and the collector's kernel have room for it");
        sent += text.len() as u64;
    }
    for app in APPS {
        let netns = engine.netns_of(app);
        eventually("all is acknowledged to the container", AT_ONCE, || {
            let unacknowledged = netns.enter(|| tcp::unacknowledged(&format!("dport = :{PORT}")));
            if unacknowledged == [0] { Ok(()) } else { Err(unacknowledged) }
        });
    }
    let netns = collector.netns();
    let arrived = eventually("the collector's kernel has acknowledged what it has room for", AT_ONCE, || {
        let blocked = netns.enter(|| tcp::blocked(&format!("dport = :{COLLECTOR}")));
        let acknowledged: u64 =
            netns.enter(|| tcp::acknowledged(&format!("dport = :{COLLECTOR}"))).iter().sum();
        let unread: u64 = netns.enter(|| tcp::unread(&format!("sport = :{COLLECTOR}"))).iter().sum();
        if acknowledged == unread && blocked == APPS.len() {
            Ok(acknowledged)
        } else {
            Err((acknowledged, unread, blocked))
        }
    });
    drop(netns);
    engine.client(&["kill", "collector"]);
    drop(connections);
    eventually("what was acknowledged and not passed on is counted", AT_ONCE, || {
        let lost = lost(&setting);
        if lost == sent - arrived { Ok(()) } else { Err((lost, sent, arrived)) }
    });

    // While it is down each rule does what it says.
    setting.eventually("the rules are down", |list| {
        let namespaces = list["namespaces"].as_array().expect("an array");
        namespaces.len() == APPS.len() && namespaces.iter().all(|netns| netns["rules"][0]["state"] == "down")
    });
    eventually("the kernel knows it too", AT_ONCE, || {
        let answer = answer(engine.netns(), engine.socket_of("app1", PORT));
        if answer == "refused" { Ok(()) } else { Err(answer) }
    });
    let own = SocketAddr::new(engine.address("app5"), PORT);
    let _own = Server::start(Place::In(&engine.netns_of("app5")), "own", &[own], echo);
    assert_eq!(answer(engine.netns(), own), "own");

    // And then the lines go to the collector again.
    engine.client(&["start", "collector"]);
    collector.eventually_listens();
    setting.eventually("the rules are up", |list| {
        let namespaces = list["namespaces"].as_array().expect("an array");
        namespaces.iter().all(|netns| netns["rules"][0]["state"] == "up")
    });
    for app in APPS {
        let messages = messages(app, "the collector again", 10);
        let mut connection = connect(&setting, app);
        connection.write_all((messages.join("\n") + "\n").as_bytes()).expect("send");
        expected.extend(messages);
    }
    collector.eventually_has(&expected);
    assert_eq!(setting.list()["waiting"], json!([]));
}

/// A connection of a program in a container, to its own loopback.
#[track_caller]
fn connect(setting: &Setting, app: &str) -> TcpStream {
    let netns = setting.engine.netns_of(app);
    netns
        .enter(|| TcpStream::connect(at(LOOPBACK, PORT)))
        .unwrap_or_else(|error| panic!("connect in {app}: {error}"))
}

/// Bytes that are counted as lost, of all containers.
fn lost(setting: &Setting) -> u64 {
    let list = setting.list();
    let namespaces = list["namespaces"].as_array().expect("an array");
    namespaces.iter().map(|netns| netns["connections"]["bytes_lost"].as_u64().expect("a number")).sum()
}
