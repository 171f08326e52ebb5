//! The API that Docker and Podman share (Docker Engine API 1.24 or later).

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error,
    models::{ContainerInspectResponse, ContainerSummary, EventMessage},
    query_parameters::{EventsOptions, EventsOptionsBuilder, ListContainersOptionsBuilder},
};
use futures_util::StreamExt as _;

use super::{
    answer::{ContainerId, Happened, Inspected, Labelled, Labels},
    error::{ANSWER, NoAnswer, one_line},
    runtime::{Asking, Happenings, Runtime},
};
use crate::config::Label;

/// A client that speaks a version of the API that the engine knows.
#[derive(Debug)]
struct DockerApi(Docker);

pub(super) fn connect(socket: &Path) -> Asking<'_, Box<dyn Runtime>> {
    Box::pin(async move {
        let client =
            Docker::connect_with_unix(&socket.to_string_lossy(), ANSWER.as_secs(), API_DEFAULT_VERSION)?;
        let client = client.negotiate_version().await.map_err(of_no_container)?;
        Ok(Box::new(DockerApi(client)) as Box<dyn Runtime>)
    })
}

impl DockerApi {
    /// The containers that have a namespace, and fit another filter.
    async fn running(
        &self,
        others: impl IntoIterator<Item = (String, Vec<String>)>,
    ) -> Result<Vec<Labelled>, NoAnswer> {
        // One that is paused has its namespace; one that waits to be restarted has none. Of others an engine may know
        // states that its API does not name.
        let status = ("status".to_owned(), ["running", "paused"].map(str::to_owned).to_vec());
        let filters: HashMap<_, _> = others.into_iter().chain([status]).collect();
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let answer = self.0.list_containers(Some(options)).await.map_err(of_no_container)?;
        Ok(answer.into_iter().filter_map(labelled).collect())
    }
}

impl Runtime for DockerApi {
    fn inspect<'a>(&'a self, name: &'a str) -> Asking<'a, Inspected> {
        Box::pin(async move { inspected(self.0.inspect_container(name, None).await?) })
    }

    fn labelled<'a>(&'a self, label: &'a Label) -> Asking<'a, Vec<Labelled>> {
        // Podman takes the label for a pattern, so there may be others.
        let filter = ("label".to_owned(), vec![label.to_string()]);
        Box::pin(async move { self.running([filter]).await })
    }

    fn names(&self) -> Asking<'_, Vec<String>> {
        Box::pin(async move {
            let running = self.running([]).await?;
            Ok(running.into_iter().map(|one| one.name).collect())
        })
    }

    fn image_labels<'a>(&'a self, image: &'a str) -> Asking<'a, Labels> {
        Box::pin(async move {
            let answer = self.0.inspect_image(image).await?;
            let labels = answer.config.and_then(|config| config.labels).unwrap_or_default();
            Ok(labels.into_iter().collect())
        })
    }

    fn events(&self) -> Asking<'_, Happenings> {
        // The engine is asked when the first event is waited for: what happens until then must not be missed.
        let since = SystemTime::now() - Duration::from_secs(1);
        let events = self.0.events(Some(of_containers(since)));
        let happenings = events.map(|event| Ok(happened(event?))).boxed();
        Box::pin(async { Ok(happenings) })
    }

    fn api_version(&self) -> String {
        self.0.client_version().to_string()
    }
}

/// Both engines have ids of this kind, and nothing else is one.
fn id(id: Option<String>) -> Option<ContainerId> {
    let is_id = |id: &String| id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    id.filter(is_id).and_then(ContainerId::new)
}

fn inspected(answer: ContainerInspectResponse) -> Result<Inspected, NoAnswer> {
    let id = id(answer.id).ok_or_else(|| NoAnswer::Garbage("a container without an id".into()))?;
    let name = answer.name.unwrap_or_default().trim_start_matches('/').to_owned();
    let state = answer.state.unwrap_or_default();
    let settings = answer.network_settings.unwrap_or_default();
    Ok(Inspected {
        id,
        name,
        status: state.status.map(|status| status.to_string()).unwrap_or_default(),
        pid: state.pid.and_then(|pid| i32::try_from(pid).ok()),
        started_at: state.started_at.unwrap_or_default(),
        sandbox: settings.sandbox_key.map(PathBuf::from),
        is_in_host_network: is_host(answer.host_config.and_then(|config| config.network_mode).as_deref()),
    })
}

fn labelled(summary: ContainerSummary) -> Option<Labelled> {
    // Docker has names of links there too, which go by another container: `/other/alias`.
    let names = summary.names.unwrap_or_default();
    let mut names = names.iter().map(|name| name.trim_start_matches('/'));
    let name = names.find(|name| !name.contains('/'))?.to_owned();
    Some(Labelled {
        id: id(summary.id)?,
        name,
        labels: summary.labels.unwrap_or_default().into_iter().collect(),
        image: summary.image_id.unwrap_or_default(),
        is_in_host_network: is_host(summary.host_config.and_then(|config| config.network_mode).as_deref()),
    })
}

fn is_host(network_mode: Option<&str>) -> bool {
    network_mode == Some("host")
}

fn happened(event: EventMessage) -> Happened {
    let actor = event.actor.unwrap_or_default();
    let name = actor.attributes.and_then(|mut attributes| attributes.remove("name"));
    Happened { id: id(actor.id), name }
}

fn of_containers(since: SystemTime) -> EventsOptions {
    // Docker says `destroy`, Podman `remove`. Others (exec, health checks) can be many, and change nothing.
    let events = ["start", "die", "rename", "destroy", "remove"].map(str::to_owned).to_vec();
    let filters =
        HashMap::from([("type".to_owned(), vec!["container".to_owned()]), ("event".to_owned(), events)]);
    let since = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().to_string();
    EventsOptionsBuilder::new().filters(&filters).since(&since).build()
}

/// Of a question that was about no container.
fn of_no_container(error: Error) -> NoAnswer {
    match NoAnswer::from(error) {
        NoAnswer::NoSuchContainer(page) => NoAnswer::Garbage(page),
        other => other,
    }
}

impl From<Error> for NoAnswer {
    fn from(error: Error) -> Self {
        match error {
            Error::SocketNotFoundError(_) => {
                Self::Unreachable("there is no such socket, or it cannot be seen".into())
            }
            Error::RequestTimeoutError => Self::Late,
            // Podman says 404 of several, too; Docker does not.
            Error::DockerResponseServerError { status_code: 404, message }
                if !message.starts_with("more than one result") =>
            {
                Self::NoSuchContainer(one_line(&message))
            }
            Error::DockerResponseServerError { status_code, message } if message.is_empty() => {
                Self::Garbage(format!("status {status_code} without a reason"))
            }
            Error::DockerResponseServerError { message, .. } => Self::Refused(one_line(&message)),
            Error::HyperLegacyError { err } if err.is_connect() => Self::Unreachable(last_cause(&err)),
            Error::IOError { err } => Self::Unreachable(err.to_string()),
            Error::HyperLegacyError { err } => Self::Garbage(last_cause(&err)),
            error => Self::Garbage(one_line(&error.to_string())),
        }
    }
}

fn last_cause(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> String {
        "0a".repeat(32)
    }

    #[test]
    fn an_answer_about_a_container_is_taken_for_what_it_says() {
        let read = |text: &str| inspected(serde_json::from_str(&text.replace("ID", &id())).unwrap());
        for garbage in ["{}", r#"{"Id":""}"#, r#"{"Id":"0a"}"#, r#"{"Id":"IDf"}"#, r#"{"Name":"/web"}"#] {
            assert!(matches!(read(garbage), Err(NoAnswer::Garbage(_))), "{garbage}");
        }
        let seen = read(
            r#"{"Id":"ID","Name":"/web","State":{"Status":"paused","Pid":7,"StartedAt":"today"},
                "HostConfig":{"NetworkMode":"host"},"NetworkSettings":{"SandboxKey":"/run/docker/netns/a"}}"#,
        );
        let seen = seen.unwrap();
        assert_eq!((seen.name.as_str(), seen.status.as_str(), seen.pid), ("web", "paused", Some(7)));
        assert_eq!((seen.id.to_string(), seen.started_at.as_str()), (id(), "today"));
        assert_eq!(seen.sandbox.as_deref(), Some(Path::new("/run/docker/netns/a")));
        assert!(seen.is_in_host_network);
        for pid in ["9999999999", "-9999999999", "null"] {
            let seen = read(&format!(r#"{{"Id":"ID","State":{{"Pid":{pid}}}}}"#)).unwrap();
            assert_eq!((seen.pid, seen.is_in_host_network), (None, false), "{pid}");
        }
    }

    #[test]
    fn a_container_in_a_list_goes_by_its_own_name() {
        for (names, expected) in [
            (r#"["/web"]"#, Some("web")),
            (r#"["/other/alias","/web"]"#, Some("web")),
            // As Podman says it.
            (r#"["web"]"#, Some("web")),
            (r#"["/other/alias"]"#, None),
            ("[]", None),
            ("null", None),
        ] {
            let read = |id: &str| {
                let text = format!(r#"{{"Id":"{id}","Names":{names},"Labels":{{"a":"b"}},"ImageID":"i"}}"#);
                labelled(serde_json::from_str(&text).unwrap())
            };
            let found = read(&id());
            assert_eq!(found.as_ref().map(|one| one.name.as_str()), expected, "{names}");
            assert!(found.is_none_or(|one| one.labels["a"] == "b" && one.image == "i"), "{names}");
            assert_eq!(read("0a"), None, "{names}");
        }
    }

    #[test]
    fn an_error_status_says_whether_the_container_is_unknown() {
        let of = |status_code, message: &str| Error::DockerResponseServerError {
            status_code,
            message: message.into(),
        };
        assert_eq!(NoAnswer::from(of(404, " no\nsuch ")), NoAnswer::NoSuchContainer("no\\nsuch".into()));
        assert_eq!(of_no_container(of(404, "<p>")), NoAnswer::Garbage("<p>".into()));
        let several = "more than one result or container name web";
        assert_eq!(NoAnswer::from(of(404, several)), NoAnswer::Refused(several.into()));
        assert_eq!(NoAnswer::from(of(500, "")), NoAnswer::Garbage("status 500 without a reason".into()));
        assert_eq!(NoAnswer::from(Error::RequestTimeoutError), NoAnswer::Late);
        let long = NoAnswer::from(of(403, &"x".repeat(9999)));
        assert!(matches!(long, NoAnswer::Refused(text) if text.len() < 400));
    }
}
