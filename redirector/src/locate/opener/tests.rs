use std::{
    fs::{self, File},
    sync::{Arc, atomic::Ordering},
};

use super::*;
use crate::{
    config::Engine,
    locate::engines::{Fake, NoAnswer, Peer},
    netns::NetnsFile,
    text::chain,
};

type Answer = Result<Inspected, NoAnswer>;

/// What comes of a target.
enum Outcome {
    /// This process's namespace, of the container with ids of this digit.
    Ours(char),
    /// An error that says this.
    Fails(&'static str),
}
use Outcome::{Fails, Ours};

/// What happens, what the container is called, who answers, what, what comes of it, and after how many questions.
type Case = (&'static str, &'static str, Peer, Vec<Answer>, Outcome, usize);

/// An engine in our PID namespace: it is this process.
fn near() -> Peer {
    Peer { pid: i32::try_from(std::process::id()).ok(), uid: 0 }
}

/// One whose processes cannot be seen from here.
fn far() -> Peer {
    Peer { pid: None, uid: 0 }
}

/// The container `web` that runs as this process, but for a change.
fn web(change: impl FnOnce(&mut Inspected)) -> Answer {
    let mut seen = Fake::running();
    change(&mut seen);
    Ok(seen)
}

fn same() -> Answer {
    web(|_| {})
}

fn started(at: &str) -> Answer {
    web(|seen| seen.started_at = at.into())
}

fn sandbox(path: impl AsRef<std::path::Path>) -> Answer {
    web(|seen| seen.sandbox = Some(path.as_ref().to_owned()))
}

fn ended(status: &str) -> Answer {
    web(|seen| (seen.pid, seen.status) = (None, status.into()))
}

/// With a process that is not there.
fn ghost() -> Answer {
    web(|seen| seen.pid = Some(i32::MAX))
}

/// Opens `web` or what it is called, of an engine that gives these answers.
async fn open(name: &str, peer: Peer, answers: Vec<Answer>) -> (Result<OpenNetns, TargetError>, usize) {
    let fake = Fake::says(answers);
    let asked = Arc::clone(&fake.asked);
    let engine = HeldEngine::of(Engine::Docker, peer, fake);
    let container = Container { engine: Engine::Docker, name: name.into() };
    let opened = open_container(&Target::Container(container.clone()), &container, &engine).await;
    (opened, asked.load(Ordering::Relaxed))
}

#[tokio::test]
async fn what_an_engine_says_of_a_container_leads_to_its_namespace_or_to_an_error_that_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    fs::write(&plain, "").unwrap();
    let late = || Err(NoAnswer::Late);
    let unknown = || Err(NoAnswer::NoSuchContainer("no container `web`".into()));
    let cases: Vec<Case> = vec![
        ("it runs", "web", near(), vec![same()], Ours('a'), 2),
        ("it is named by its id", "aaaa", near(), vec![same()], Ours('a'), 2),
        ("it is paused", "web", near(), vec![web(|seen| seen.status = "paused".into())], Ours('a'), 2),
        ("it has ended", "web", near(), vec![ended("exited")], Fails("its state is `exited`"), 2),
        ("its state is garbage", "web", near(), vec![ended("\n\u{1b}")], Fails("is `\\n\\u{1b}`"), 2),
        (
            "a process below all",
            "web",
            near(),
            vec![web(|seen| seen.pid = Some(-5))],
            Fails("not running"),
            2,
        ),
        ("process 0", "web", near(), vec![web(|seen| seen.pid = Some(0))], Fails("not running"), 2),
        ("its process is not there", "web", near(), vec![ghost()], Fails("no process 2147483647"), 2),
        ("another PID namespace", "web", far(), vec![same()], Fails("in another PID namespace"), 2),
        (
            "an engine that has ended meanwhile",
            "web",
            Peer { pid: Some(i32::MAX), uid: 0 },
            vec![same()],
            Fails("in another PID namespace"),
            2,
        ),
        ("it is not known", "web", near(), vec![unknown()], Fails("no container `web`"), 1),
        (
            "it is removed between two answers",
            "web",
            near(),
            vec![same(), unknown()],
            Fails("no container"),
            2,
        ),
        ("it ends between two answers", "web", near(), vec![same(), ended("exited")], Fails("`exited`"), 3),
        ("it starts between two answers", "web", near(), vec![ended("created"), same()], Ours('a'), 3),
        ("it is restarted between two answers", "web", near(), vec![ghost(), same()], Ours('a'), 3),
        (
            "it is restarted as the same process",
            "web",
            near(),
            vec![started("yesterday"), same()],
            Ours('a'),
            3,
        ),
        (
            "its name is another container's that took it over",
            "web",
            near(),
            vec![same(), web(|seen| seen.id = Fake::id('b'))],
            Ours('b'),
            3,
        ),
        (
            "its name is gone to another container",
            "web",
            near(),
            vec![web(|seen| (seen.id, seen.name) = (Fake::id('b'), "ot\nher".into()))],
            Fails("that is `ot\\nher` now"),
            1,
        ),
        (
            "its name is gone between two answers",
            "web",
            near(),
            vec![same(), web(|seen| seen.name = "other".into())],
            Fails("that is `other` now"),
            2,
        ),
        ("an answer about another id", "bbbb", near(), vec![same()], Fails("that is `web` now"), 1),
        (
            "it starts again and again",
            "web",
            near(),
            ["1", "2", "3", "4", "5", "6"].map(started).into(),
            Fails("starts again and again"),
            6,
        ),
        (
            "it fails again and again",
            "web",
            near(),
            (1..=6).map(|pid| web(|seen| seen.pid = Some(i32::MAX - pid))).collect(),
            Fails("no process 2147483642"),
            6,
        ),
        ("the engine keeps it by a process", "web", near(), vec![sandbox("/proc/self/ns/net")], Ours('a'), 2),
        (
            "that process is ours whatever the engine can see",
            "web",
            far(),
            vec![sandbox("/proc/self/ns/net")],
            Ours('a'),
            2,
        ),
        ("the engine keeps nothing there", "web", near(), vec![sandbox("/no/such/file")], Ours('a'), 2),
        (
            "the engine keeps nothing there, and its process is another one",
            "web",
            far(),
            vec![sandbox("/no/such/file")],
            Fails("in another PID namespace"),
            2,
        ),
        ("the engine names another kind of file", "web", near(), vec![sandbox(&plain)], Ours('a'), 2),
        ("the engine names no path", "web", near(), vec![sandbox("proc/self/ns/net")], Ours('a'), 2),
        (
            "it is moved to another place",
            "web",
            near(),
            vec![sandbox("/proc/self/ns/net"), sandbox("/no/such/file")],
            Ours('a'),
            3,
        ),
        ("the engine does not answer", "web", near(), vec![late()], Fails("no answer within"), 1),
        ("the engine stops to answer", "web", near(), vec![same(), late()], Fails("no answer within"), 2),
        (
            "the engine refuses",
            "web",
            near(),
            vec![Err(NoAnswer::Refused("not for you".into()))],
            Fails("docker at `/run/fake.sock`: not for you"),
            1,
        ),
        (
            "the engine says garbage",
            "web",
            near(),
            vec![same(), Err(NoAnswer::Garbage("<p>".into()))],
            Fails("not an answer of a container engine: <p>"),
            2,
        ),
    ];
    let own = NetnsFile::of(File::open("/proc/self/ns/net").unwrap()).unwrap();
    for (case, name, peer, answers, outcome, questions) in cases {
        let (opened, asked) = open(name, peer, answers).await;
        match (outcome, opened) {
            (Ours(digit), Ok(opened)) => {
                assert_eq!(opened.container, Some(Fake::id(digit)), "{case}");
                assert_eq!(opened.file, own, "{case}");
            }
            (Fails(why), Err(error)) => {
                let error = chain(&error);
                assert!(error.contains(why) && error.contains(name), "{case}: {error}");
            }
            (_, opened) => panic!("{case}: {opened:?}"),
        }
        assert_eq!(asked, questions, "{case}");
    }
}

#[tokio::test]
async fn only_what_is_not_there_is_not_found() {
    for (answer, is_not_found) in [
        (ended("exited"), true),
        (ghost(), true),
        (Err(NoAnswer::NoSuchContainer("none".into())), true),
        (Err(NoAnswer::Late), false),
        (Err(NoAnswer::Unreachable("nobody".into())), false),
        (Err(NoAnswer::Refused("no".into())), false),
        (Err(NoAnswer::Garbage("<p>".into())), false),
    ] {
        let case = format!("{answer:?}");
        let error = open("web", near(), vec![answer]).await.0.unwrap_err();
        assert_eq!(error.is_not_found(), is_not_found, "{case}");
        // Nobody can mend what an engine says, but that it does not run.
        let has_hint = case.contains("Unreachable") || case.contains("exited");
        assert_eq!(error.hint().is_some(), has_hint, "{case}");
    }
}
