use super::*;
use crate::config::{Container, Label};

fn engine(fake: Fake) -> HeldEngine {
    HeldEngine::of(Engine::Podman, Peer { pid: None, uid: 1000 }, fake)
}

#[tokio::test]
async fn a_container_runs_while_it_has_a_process() {
    let with = |pid| Ok(Inspected { pid, ..Fake::running() });
    for (answer, expected) in [
        (with(Some(1)), Ok(true)),
        (with(None), Ok(false)),
        (with(Some(0)), Ok(false)),
        (with(Some(-1)), Ok(false)),
        (Err(NoAnswer::NoSuchContainer("none".into())), Ok(false)),
        (Err(NoAnswer::Refused("no".into())), Err(false)),
        (Err(NoAnswer::Garbage("<p>".into())), Err(false)),
        (Err(NoAnswer::Late), Err(true)),
        (Err(NoAnswer::Unreachable("nobody".into())), Err(true)),
    ] {
        let case = format!("{answer:?}");
        let runs = engine(Fake::says([answer])).runs(&Fake::id('a')).await;
        assert_eq!(runs.map_err(|error| error.is_of_engine()), expected, "{case}");
    }
}

#[tokio::test]
async fn of_labelled_containers_those_count_that_have_the_label_and_can_be_named() {
    let of = |name: &str, key: &str, value: &str| Labelled {
        id: Fake::id('a'),
        name: name.into(),
        labels: [(key.to_owned(), value.to_owned())].into(),
        image: String::new(),
        is_in_host_network: false,
    };
    let long = "x".repeat(256);
    let labelled = vec![
        of("web", "app", "web"),
        // As of a pattern.
        of("web-2", "app", "web2"),
        of("web-3", "application", "web"),
        of("", "app", "web"),
        of("-web", "app", "web"),
        of("../web", "app", "web"),
        of("web\n", "app", "web"),
        of(&long, "app", "web"),
        of("web.4_b", "app", "web"),
    ];
    let found = async |label: &str| {
        let engine = engine(Fake { labelled: labelled.clone(), ..Fake::default() });
        let label: Label = label.parse().unwrap();
        let found = engine.labelled(&label).await.unwrap();
        found.into_iter().map(|one| one.name).collect::<Vec<_>>()
    };
    assert_eq!(found("app=web").await, ["web", "web.4_b"]);
    assert_eq!(found("app").await, ["web", "web-2", "web.4_b"]);
    assert_eq!(found("other").await, Vec::<String>::new());
}

#[tokio::test]
async fn an_error_names_the_engine_and_who_owns_it_is_told() {
    let engine = engine(Fake::default());
    assert_eq!(engine.owner(), 1000);
    let error = engine.image_labels("sha256:0").await.unwrap_err();
    assert_eq!(error.to_string(), "podman at `/run/fake.sock`: no image `sha256:0`");
}

#[tokio::test]
async fn what_an_engine_tells_comes_in_its_order_and_ends_with_it() {
    let started = Happened { id: Some(Fake::id('a')), name: Some("web".into()) };
    let happens = vec![Ok(started.clone()), Err(NoAnswer::Garbage("<p>".into()))];
    let mut events = engine(Fake { happens, ..Fake::default() }).events().await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap(), started);
    let error = events.next().await.unwrap().unwrap_err().to_string();
    assert_eq!(error, "podman at `/run/fake.sock`: not an answer of a container engine: <p>");
    assert!(events.next().await.is_none());
}

#[test]
fn a_container_is_concerned_by_what_happens_to_its_name_or_its_id() {
    let happened = |digit: Option<char>, name: Option<&str>| Happened {
        id: digit.map(Fake::id),
        name: name.map(str::to_owned),
    };
    let web = |name: &str| Container { engine: Engine::Docker, name: name.into() };
    for (what, container, id, expected) in [
        (happened(Some('b'), Some("web")), web("web"), None, true),
        (happened(Some('a'), Some("other")), web("web"), Some(Fake::id('a')), true),
        (happened(Some('a'), None), web("aaaa"), None, true),
        (happened(Some('a'), Some("other")), web("web"), Some(Fake::id('b')), false),
        (happened(None, Some("other")), web("web"), Some(Fake::id('a')), false),
        (happened(None, None), web("web"), None, false),
    ] {
        assert_eq!(what.concerns(&container, id.as_ref()), expected, "{what:?} {container}");
    }
}

#[test]
fn an_id_is_what_can_be_shown() {
    for id in ["a", "0123", "redis.1_b", &"f".repeat(64)] {
        assert_eq!(ContainerId::new(id.into()).unwrap().to_string(), id);
    }
    for id in ["", "a b", "a\n", "\u{e4}", &"f".repeat(256)] {
        assert!(ContainerId::new(id.into()).is_none(), "{id:?}");
    }
}

#[test]
fn each_engine_has_a_place_of_its_own_until_another_is_said() {
    let engines = Engines::default().with(Engine::Podman, "/run/user/1000/podman.sock".into());
    assert_eq!(engines.socket(Engine::Podman), Path::new("/run/user/1000/podman.sock"));
    let docker = Path::new(Engines::default_socket(Engine::Docker));
    assert_eq!(engines.socket(Engine::Docker), docker);
    let defaults: std::collections::BTreeSet<_> =
        Engine::ALL.into_iter().map(Engines::default_socket).collect();
    assert_eq!(defaults.len(), Engine::ALL.len());
}
