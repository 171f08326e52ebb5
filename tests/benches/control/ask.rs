//! What the daemon is asked for, as by a program without our client.

use std::{fmt::Write as _, path::Path};

use redirector_tests::{http, netns::Netns};
use serde_json::{Value, json};

/// Rules of each namespace in a file.
pub(crate) const RULES: usize = 10;

#[track_caller]
fn post(socket: &Path, path: &str, body: &Value) {
    let answer = http::post(socket, path, &body.to_string());
    assert_eq!(answer.status, 200, "{path}: {:#}", answer.body);
}

/// The list, as it is sent: to read it is the client's work.
pub(crate) fn list(socket: &Path) -> String {
    http::text(socket, "/v1/namespaces")
}

/// How many namespaces the list has.
pub(crate) fn steered(socket: &Path) -> usize {
    http::get(socket, "/v1/namespaces").body["namespaces"].as_array().map_or(0, Vec::len)
}

/// Whether this one is steered.
pub(crate) fn is_steered(socket: &Path, cookie: u64) -> bool {
    http::get(socket, &format!("/v1/namespaces?target=cookie:{cookie}")).status == 200
}

pub(crate) fn attach(socket: &Path, target: &str) {
    let rule = json!({ "name": "one", "match": ["tcp:80"], "to": ["original"] });
    post(socket, "/v1/attach", &json!({ "target": target, "rule": rule }));
}

pub(crate) fn detach(socket: &Path, target: &str) {
    post(socket, "/v1/detach", &json!({ "target": target }));
}

/// The file of these namespaces, with rules for ports from this one up.
pub(crate) fn file(all: &[Netns], first: usize) -> String {
    let mut text = String::new();
    for netns in all {
        writeln!(text, "[[namespace]]\ntarget = \"{}\"\n", netns.target()).expect("a String takes all");
        for number in 0..RULES {
            let port = first + 10 * number;
            writeln!(text, "[[namespace.rule]]\nmatch = [\"tcp:{port}\"]\nto = [\"original\"]\n")
                .expect("a String takes all");
        }
    }
    text
}
