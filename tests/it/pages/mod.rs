//! What README and docs/ tell to type, typed as they say it, in the order of the page, with what they say that it prints.

mod block;
mod printed;
mod site;

use std::path::Path;

use self::site::Site;
use super::SECOND;

#[track_caller]
fn follow(page: &str) {
    Site::new().follow(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page));
}

#[test]
fn the_first_page() {
    follow("README.md");
}

#[test]
fn commands() {
    follow("docs/commands.md");
}

#[test]
fn rules() {
    follow("docs/rules.md");
}

#[test]
fn explain() {
    follow("docs/explain.md");
}

#[test]
fn files() {
    follow("docs/configuration.md");
}

#[test]
fn hand_off() {
    follow("docs/hand-off.md");
}

/// What has nothing to type yet has to be marked as soon as it does.
#[test]
fn all_other_pages() {
    for page in ["docs/containers.md", "docs/json.md", "docs/limits.md"] {
        follow(page);
    }
}
