//! Containers that an engine says have a label, where the engine says anything: names that move at once, answers that are none,
//! and nothing at all. What real engines say is in `engines/`.

use std::{
    os::unix::net::UnixStream,
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use redirector_tests::{
    cli::error,
    daemon::Daemon,
    dir::Dir,
    eventually::eventually,
    fake_engine::{Answer, Body, engine, json, status, version},
    netns::Netns,
};
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::SECOND;

/// What an engine knows of one container.
#[derive(Clone)]
struct Known {
    /// A digit, of which its id consists.
    id: char,
    name: &'static str,
    pid: u32,
}

/// An engine with containers that all have the label that they are asked for.
#[derive(Clone, Default)]
struct Engine {
    known: Arc<Mutex<Vec<Known>>>,
    /// Instead of what it knows.
    listing: Arc<Mutex<Option<(&'static str, String)>>>,
    /// How often it was asked for single containers.
    inspected: Arc<AtomicUsize>,
    events: Body,
}

fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

impl Engine {
    fn start(dir: &Dir) -> Self {
        let this = Self::default();
        let answers = this.clone();
        engine(&dir.join("docker"), move |path| answers.answer(path));
        this
    }

    fn answer(&self, path: &str) -> Answer {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if path.ends_with("/version") {
            return version();
        }
        if path.contains("/events") {
            return Answer::Events(self.events.clone());
        }
        if path.contains("/containers/json") {
            if let Some((code, body)) = listing {
                return status(code, &body);
            }
            let all = known.iter().map(|one| {
                format!(
                    r#"{{"Id":"{}","Names":["/{}"],"Labels":{{"on":""}},"State":"running","ImageID":"sha256:1"}}"#,
                    id(one.id),
                    one.name
                )
            });
            return json(&format!("[{}]", all.collect::<Vec<_>>().join(",")));
        }
        self.inspected.fetch_add(1, Ordering::Relaxed);
        let asked = path.split('/').rev().nth(1).unwrap_or_default();
        match known.iter().find(|one| one.name == asked || id(one.id) == asked) {
            Some(one) => json(&format!(
                r#"{{"Id":"{}","Name":"/{}","State":{{"Status":"running","Pid":{}}}}}"#,
                id(one.id),
                one.name,
                one.pid
            )),
            None => status("404 Not Found", r#"{"message":"No such container"}"#),
        }
    }

    /// From now on these are all.
    fn has(&self, known: &[Known]) {
        self.has_in_silence(known);
        self.events.say("rename");
    }

    /// The same, and it tells nobody.
    fn has_in_silence(&self, known: &[Known]) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known.to_vec();
    }

    /// From now on this is all that it says when it is asked for containers.
    fn says(&self, listing: Option<(&'static str, String)>) {
        *self.listing.lock().unwrap_or_else(PoisonError::into_inner) = listing;
        self.events.say("start");
    }
}

fn daemon(dir: &Dir) -> Daemon {
    Daemon::with(&[&format!("--docker-socket={}", dir.join("docker").display())])
}

/// A file that gives each container with the label one rule.
fn file(dir: &Dir) -> String {
    let path = dir.join("file.toml");
    let text = "[[discover]]\ndocker = { label = \"on\" }\n[[discover.rule]]\nname = \"web\"\nmatch = [\"tcp:80\"]\nto = [\"reject\"]\n";
    std::fs::write(&path, text).expect("write the file");
    path.to_str().expect("UTF-8").to_owned()
}

/// Each namespace that is steered: its cookie and the name of the container that its rule goes with.
fn steered(daemon: &Daemon) -> Vec<(u64, String)> {
    let list = daemon.cli().json(&["list"]);
    let all = list["namespaces"].as_array().expect("an array").iter();
    let mut all: Vec<_> = all
        .map(|one| {
            assert_eq!(
                (&one["rules"][0]["name"], &one["target"]),
                (&"web".into(), &one["rules"][0]["follows"])
            );
            let target = one["target"].as_str().expect("a target").to_owned();
            (one["cookie"].as_u64().expect("a number"), target)
        })
        .collect();
    all.sort();
    all
}

fn eventually_steered(daemon: &Daemon, mut expected: Vec<(u64, &str)>) {
    expected.sort_unstable();
    let expected: Vec<_> =
        expected.into_iter().map(|(cookie, name)| (cookie, format!("docker:{name}"))).collect();
    eventually("just these are steered", SECOND * 3, || {
        let steered = steered(daemon);
        if steered == expected { Ok(()) } else { Err(steered) }
    });
}

#[test]
fn names_that_move_at_once_take_no_rules_along() {
    let dir = Dir::new();
    let fake = Engine::start(&dir);
    let pods = [Netns::of_process(), Netns::of_process(), Netns::of_process()];
    let one = |digit: char, name, pod: usize| Known { id: digit, name, pid: pods[pod].pid() };
    fake.has(&[one('1', "a", 0), one('2', "b", 1)]);
    let daemon = daemon(&dir);
    assert_eq!(daemon.cli().json(&["apply", &file(&dir)])["changes"].as_array().map(Vec::len), Some(2));
    let first = steered(&daemon);
    let cookie = |name: &str| {
        let target = format!("docker:{name}");
        first.iter().find(|(_, one)| *one == target).map(|(cookie, _)| *cookie).expect("it is steered")
    };
    let (a, b) = (cookie("a"), cookie("b"));
    // Both names at once, and back.
    for _ in 0..3 {
        fake.has(&[one('1', "b", 0), one('2', "a", 1)]);
        eventually_steered(&daemon, vec![(a, "b"), (b, "a")]);
        fake.has(&[one('1', "a", 0), one('2', "b", 1)]);
        eventually_steered(&daemon, vec![(a, "a"), (b, "b")]);
    }
    // Around in a circle, with one that is new and one that is gone.
    fake.has(&[one('1', "b", 0), one('3', "a", 2)]);
    eventually("the new one is steered too", SECOND * 3, || {
        let steered = steered(&daemon);
        let names: Vec<_> = steered.iter().map(|(_, name)| &**name).collect();
        let stays = steered.contains(&(a, "docker:b".to_owned()));
        let is_new = steered.iter().any(|(cookie, name)| name == "docker:a" && ![a, b].contains(cookie));
        if stays && is_new && names.len() == 2 { Ok(()) } else { Err(steered) }
    });
    // A container that goes while its process lives takes its rule away from there.
    fake.has(&[]);
    eventually_steered(&daemon, vec![]);
    assert_eq!(daemon.cli().json(&["list"])["waiting"], serde_json::json!([]));
}

/// Of a container that cannot have its rules the engine knows no more the next time.
#[test]
fn containers_that_cannot_have_their_rules_cost_no_further_questions() {
    let dir = Dir::new();
    let fake = Engine::start(&dir);
    let pods: Vec<_> = (0..6).map(|_| Netns::of_process()).collect();
    let all: Vec<_> = ('1'..='6')
        .zip(["a", "b", "c", "d", "e", "f"])
        .zip(&pods)
        .map(|((id, name), pod)| Known { id, name, pid: pod.pid() })
        .collect();
    fake.has(&all);
    let daemon = daemon(&dir);
    // What is there for a user is in the way of the rules of half of them, which is found out one after the other.
    let path = file(&dir);
    for pod in &pods[..3] {
        let target = format!("pid:{}", pod.pid());
        daemon.cli().json(&["attach", &target, "--name", "web", "--match", "tcp:81", "--to", "pass"]);
    }
    let before = fake.inspected.load(Ordering::Relaxed);
    // Nobody follows them meanwhile.
    let outcome = daemon.cli().run(&["apply", "--json", "--dry-run", &path]);
    let answer: Value = serde_json::from_str(&outcome.stdout).expect("a document");
    let asked = fake.inspected.load(Ordering::Relaxed) - before;
    let waits = answer["warnings"].as_array().expect("an array").iter();
    assert_eq!(waits.filter(|why| why.to_string().contains("waits")).count(), 3, "{answer:#}");
    // Of each before its namespace is opened and after.
    assert!(asked <= 2 * all.len(), "{asked} questions about {} containers", all.len());
    daemon.cli().json(&["apply", &path]);
    let list = daemon.cli().json(&["list"]);
    let targets = list["namespaces"].as_array().expect("an array").iter();
    let put = targets.filter(|one| one["rules"][0]["follows"].is_string());
    assert_eq!(put.count(), 3, "{list:#}");
}

#[test]
fn what_is_no_answer_takes_no_rules_away() {
    let dir = Dir::new();
    let fake = Engine::start(&dir);
    let pod = Netns::of_process();
    let known = [Known { id: '1', name: "a", pid: pod.pid() }];
    fake.has(&known);
    let daemon = daemon(&dir);
    let path = file(&dir);
    daemon.cli().json(&["apply", &path]);
    let before = steered(&daemon);
    assert_eq!(before.len(), 1);
    let garbage = [
        ("500 Internal Server Error", r#"{"message":"out of order"}"#, "out of order"),
        ("403 Forbidden", r#"{"message":"not for you"}"#, "not for you"),
        ("404 Not Found", "<p>", "not an answer"),
        ("200 OK", "{}", "not an answer"),
        ("200 OK", r#"[{"Id":1}]"#, "not an answer"),
        ("200 OK", r#"[{"Id":"1","State":"melting"}]"#, "not an answer"),
    ];
    for (code, body, why) in garbage {
        fake.says(Some((code, body.to_owned())));
        eventually("it is told", SECOND * 3, || {
            let list = daemon.cli().json(&["list"]);
            let said = list["discover"][0]["why"].as_str().unwrap_or_default().to_owned();
            if said.contains(why) && said.contains("docker at") { Ok(()) } else { Err(said) }
        });
        let answer = daemon.cli().json(&["apply", &path]);
        assert_eq!(
            (&answer["changes"], &answer["unchanged"]),
            (&serde_json::json!([]), &1.into()),
            "{answer:#}"
        );
        assert!(answer["warnings"].to_string().contains("as soon as it answers"), "{answer:#}");
        assert_eq!(steered(&daemon), before, "{body}");
    }
    // Containers that cannot be, between one that can.
    let named = |id: &str, names: &str| format!(r#"{{"Id":"{id}","Names":[{names}],"Labels":{{"on":""}}}}"#);
    let one = named(&id('1'), r#""/a""#);
    let odd = [
        "{}".to_owned(),
        named("short", r#""/x""#),
        named(&id('4'), ""),
        named(&id('5'), r#""/other/alias""#),
        named(&id('6'), r#""/\u001b[31mred""#),
        named(&id('7'), &format!(r#""/{}""#, "x".repeat(300))),
        format!(r#"{{"Id":"{}","Names":["/other"],"Labels":{{"off":""}}}}"#, id('9')),
    ];
    fake.says(Some(("200 OK", format!("[{},{one},{one}]", odd.join(",")))));
    eventually("it answers again", SECOND * 3, || {
        let view = daemon.cli().json(&["list"])["discover"][0].clone();
        if view["why"].is_null() && view["containers"] == 1 { Ok(()) } else { Err(view) }
    });
    assert_eq!(steered(&daemon), before);
    // One that it names, and then does not know, is nobody's trouble.
    let ghost = named(&id('8'), r#""/ghost""#);
    fake.says(Some(("200 OK", format!("[{one},{ghost}]"))));
    let answer = daemon.cli().json(&["apply", &path]);
    assert!(answer["warnings"].to_string().contains("docker:ghost"), "{answer:#}");
    assert_eq!(steered(&daemon), before);
    fake.says(None);
    eventually("it is gone", SECOND * 3, || {
        let list = daemon.cli().json(&["list"]);
        if list["waiting"] == serde_json::json!([]) { Ok(()) } else { Err(list["waiting"].clone()) }
    });
}

#[test]
fn an_engine_that_says_nothing_holds_up_no_other_change() {
    let dir = Dir::new();
    engine(&dir.join("docker"), |_| Answer::Silence);
    let daemon = daemon(&dir);
    let pod = Netns::of_process();
    let target = format!("pid:{}", pod.pid());
    let path = file(&dir);
    let applying =
        daemon.cli().command(&["apply", "--json", &path]).stdout(Stdio::piped()).spawn().expect("spawn");
    daemon.cli().json(&["attach", &target, "--match", "tcp:81", "--to", "pass"]);
    assert_eq!(daemon.cli().json(&["list"])["namespaces"].as_array().map(Vec::len), Some(1));
    daemon.cli().json(&["detach", &target]);
    let output = applying.wait_with_output().expect("wait");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("a document");
    let warnings = answer["warnings"].to_string();
    assert!(
        warnings.contains("no answer within") && warnings.contains("as soon as it answers"),
        "{answer:#}"
    );
    // It is in force, and a file without it is not held up.
    assert_eq!(daemon.cli().json(&["list"])["discover"][0]["label"], "on");
}

#[test]
fn what_the_file_itself_has_does_not_end_with_a_container() {
    let dir = Dir::new();
    let fake = Engine::start(&dir);
    let pod = Netns::of_process();
    fake.has(&[Known { id: '1', name: "a", pid: pod.pid() }]);
    let daemon = daemon(&dir);
    let path = file(&dir);
    let own = format!(
        "[[namespace]]\ntarget = \"pid:{}\"\n[[namespace.rule]]\nname = \"web\"\nmatch = [\"tcp:80\"]\nto = [\"reject\"]\n",
        pod.pid()
    );
    let text = own + &std::fs::read_to_string(&path).expect("read it");
    std::fs::write(&path, text).expect("write it");
    let answer = daemon.cli().json(&["apply", &path]);
    assert!(answer["warnings"].to_string().contains("the file has that rule there itself"), "{answer:#}");
    assert_eq!(daemon.cli().json(&["apply", &path])["changes"], serde_json::json!([]));
    fake.has(&[]);
    eventually("the container is gone", SECOND * 3, || {
        let list = daemon.cli().json(&["list"]);
        let is_gone = list["discover"][0]["containers"] == 0 && list["waiting"] == serde_json::json!([]);
        if is_gone { Ok(()) } else { Err(list) }
    });
    let list = daemon.cli().json(&["list"]);
    assert_eq!(list["namespaces"][0]["rules"][0]["name"], "web", "{list:#}");
}

/// connect(2) waits for ever at a socket whose queue is full.
#[test]
fn an_engine_that_takes_nobody_in_keeps_no_daemon_from_its_end() {
    let dir = Dir::new();
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).expect("socket");
    listener.bind(&SockAddr::unix(dir.join("docker")).expect("a path")).expect("bind");
    listener.listen(0).expect("listen");
    let _first = UnixStream::connect(dir.join("docker")).expect("the queue takes one");
    let mut daemon = daemon(&dir);
    let outcome = daemon.cli().run(&["attach", "docker:web", "--match", "tcp:80", "--to", "pass"]);
    let said = error(&outcome, 1);
    assert!(said.contains(&*dir.join("docker").to_string_lossy()), "{said}");
    daemon.cli().json(&["apply", &file(&dir)]);
    daemon.stop();
}

#[test]
fn an_end_that_the_engine_does_not_tell_of_is_seen_all_the_same() {
    let dir = Dir::new();
    let fake = Engine::start(&dir);
    let pods = [Netns::of_process(), Netns::of_process()];
    let one = |digit: char, name, pod: &Netns| Known { id: digit, name, pid: pod.pid() };
    let stays = one('2', "b", &pods[1]);
    fake.has(&[one('1', "a", &pods[0]), stays.clone()]);
    let daemon = daemon(&dir);
    daemon.cli().json(&["apply", &file(&dir)]);
    assert_eq!(steered(&daemon).len(), 2);
    fake.has_in_silence(&[stays]);
    let [gone, _stays] = pods;
    drop(gone);
    eventually("it is gone, and nothing waits for it", SECOND, || {
        let list = daemon.cli().json(&["list"]);
        let is_gone = list["discover"][0]["containers"] == 1 && list["waiting"] == serde_json::json!([]);
        if is_gone { Ok(()) } else { Err(list) }
    });
    assert_eq!(steered(&daemon).len(), 1);
}
