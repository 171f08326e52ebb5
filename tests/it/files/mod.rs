//! Configuration files: `check`, `apply`, `export`, `run --config`.

mod apply;
mod aside;
mod broken;
mod generated;
mod killed;
mod own;
mod sets;
mod undone;

use std::fs;

use redirector_tests::{command::Outcome, world::World};
use serde_json::{Value, json};

/// A namespace of a file.
pub(super) fn namespace(target: &str, rules: &Value) -> Value {
    json!({"target": target, "rule": rules})
}

/// The text of a file with these namespaces: JSON's values are TOML's, but for the shape of tables.
pub(super) fn file(namespaces: &[Value]) -> String {
    let mut text = String::new();
    for namespace in namespaces {
        text += "[[namespace]]\n";
        keys(&mut text, namespace);
        for rule in namespace["rule"].as_array().expect("rules") {
            text += "[[namespace.rule]]\n";
            keys(&mut text, rule);
        }
    }
    text
}

fn keys(text: &mut String, table: &Value) {
    for (key, value) in table.as_object().expect("a table").iter().filter(|(key, _)| *key != "rule") {
        *text += &format!("{key} = {value}\n");
    }
}

/// Runs `redirector apply` with options, on a file with this text.
#[track_caller]
pub(super) fn apply(world: &World, text: &str, options: &[&str]) -> Outcome {
    let path = world.daemon.dir().join("file.toml");
    fs::write(&path, text).expect("write the file");
    world.cli().run(&[&["apply", path.to_str().expect("ASCII")], options].concat())
}

/// The lines about rules that `apply` printed, and the last one.
#[track_caller]
fn said(outcome: Outcome) -> (Vec<String>, String) {
    let outcome = outcome.success();
    let mut lines: Vec<_> = outcome.stdout.lines().map(str::to_owned).collect();
    let last = lines.pop().expect("a last line");
    (lines, last)
}

/// What `export` prints.
#[track_caller]
fn export(world: &World) -> String {
    world.cli().run(&["export"]).success().stdout
}
