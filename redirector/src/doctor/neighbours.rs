//! Who else is here: other programs that steer, a daemon, and container engines.

use std::{fs::File, os::fd::AsFd as _, path::Path, time::Duration};

use super::{Check, Status};
use crate::{
    config::Engine,
    control::{self, ClientError, Listing},
    kernel::attached_programs,
    locate::Engines,
};

/// The longest that a daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn checks(socket: &Path, engines: &Engines) -> Vec<Check> {
    vec![
        other_programs(),
        daemon(socket),
        engine("docker", Engine::Docker, engines),
        engine("podman", Engine::Podman, engines),
    ]
}

/// Of the namespace that this process is in. What steers it sees connections before or after a program of ours.
fn other_programs() -> Check {
    let name = "other programs";
    let own = "/proc/self/ns/net";
    let asked = File::open(own).map_err(|error| format!("open `{own}`: {error}")).and_then(|netns| {
        attached_programs(netns.as_fd()).map_err(|error| format!("bpf BPF_PROG_QUERY: {error}"))
    });
    match asked {
        Ok(programs) if programs.is_empty() => Check::ok(name, "no sk_lookup program in this namespace"),
        Ok(programs) => {
            let each = programs.iter().map(|program| format!("{} `{}`", program.id, program.name));
            let found = format!("sk_lookup in this namespace: {}", each.collect::<Vec<_>>().join(", "));
            let hint = "only rules for this very namespace meet it; `bpftool link show` says more";
            Check::not_ok(name, Status::Note, found, hint)
        }
        Err(why) => {
            let hint = "run it as root, to see what steers this namespace";
            Check::not_ok(name, Status::Note, why, hint)
        }
    }
}

fn daemon(socket: &Path) -> Check {
    let name = "daemon";
    match ask(socket) {
        Ok(listing) => {
            let count = listing.namespaces.len();
            let namespaces = if count == 1 { "namespace" } else { "namespaces" };
            Check::ok(name, format!("answers on {}, and steers {count} {namespaces}", socket.display()))
        }
        Err(why) => {
            Check::not_ok(name, Status::Note, why, "`redirector run` starts one; `doctor` needs none")
        }
    }
}

/// Whether its containers can be named.
fn engine(name: &'static str, engine: Engine, engines: &Engines) -> Check {
    let answer = wait(async {
        engines.hold(engine).await.map(|held| held.api_version()).map_err(|error| error.to_string())
    });
    match answer {
        Ok(version) => {
            Check::ok(name, format!("answers at {}, API {version}", engines.socket(engine).display()))
        }
        Err(why) => {
            let hint = format!(
                "without it there are no targets `{name}:NAME`; `--{name}-socket` says where it listens"
            );
            Check::not_ok(name, Status::Note, why, &hint)
        }
    }
}

fn wait<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| format!("start a runtime: {error}"))?.block_on(work)
}

fn ask(socket: &Path) -> Result<Listing, String> {
    wait(async {
        match tokio::time::timeout(PATIENCE, control::get::<Listing>(socket, "/v1/namespaces")).await {
            Ok(answer) => answer.map_err(|error| match error {
                ClientError::Refused(error) => error.to_string(),
                error => crate::text::chain(&error),
            }),
            Err(_elapsed) => Err(format!("control socket `{}`: no answer in {PATIENCE:?}", socket.display())),
        }
    })
}
