//! What a namespace looks like: everything that redirector could leave behind in one.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use crate::netns::Netns;

/// The commands that show it.
const VIEWS: [&[&str]; 9] = [
    // Listening TCP, bound UDP, raw and Unix sockets. Not the connections: those of ended ones may remain.
    &["ss", "-Hlntu", "-4"],
    &["ss", "-Hlntu", "-6"],
    &["ss", "-Hanwx"],
    &["ip", "rule"],
    &["ip", "-6", "rule"],
    &["ip", "route", "show", "table", "all"],
    &["ip", "-6", "route", "show", "table", "all"],
    &["ip", "address"],
    &["nft", "list", "ruleset"],
];

/// Sysctls that are readings, not settings.
const READINGS: [&str; 2] = ["nf_conntrack_count", "nf_conntrack_buckets"];

/// One look at a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    views: BTreeMap<String, Vec<String>>,
}

impl Snapshot {
    /// Looks.
    #[track_caller]
    #[must_use]
    pub fn of(netns: &Netns) -> Self {
        let mut views = BTreeMap::new();
        for view in VIEWS {
            let outcome = netns.must(view[0], &view[1..]);
            let mut lines: Vec<_> = outcome.stdout.lines().map(normal).collect();
            lines.sort_unstable();
            views.insert(view.join(" "), lines);
        }
        views.insert("sysctl".to_owned(), netns.enter(sysctls));
        views.insert("sk_lookup programs".to_owned(), programs(netns));
        Self { views }
    }

    /// Asserts that nothing has changed since `before`.
    #[track_caller]
    pub fn assert_same_as(&self, before: &Self) {
        for (view, lines) in &self.views {
            let old = &before.views[view];
            let more: Vec<_> = lines.iter().filter(|line| !old.contains(line)).collect();
            let less: Vec<_> = old.iter().filter(|line| !lines.contains(line)).collect();
            assert!(old == lines, "`{view}` differs: there is {more:#?} and there was {less:#?}");
        }
    }
}

/// Spaces are for the eye.
fn normal(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Every sysctl of the namespace of this thread that can be read, with its value.
fn sysctls() -> Vec<String> {
    let mut folders = vec![PathBuf::from("/proc/sys/net")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("read /proc/sys/net").filter_map(Result::ok) {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if !READINGS.iter().any(|name| path.ends_with(name)) {
                // Some can only be written, and some have no value yet.
                found.extend(fs::read_to_string(&path).ok().map(|value| shown(&path, &value)));
            }
        }
    }
    found.sort_unstable();
    found
}

fn shown(path: &Path, value: &str) -> String {
    format!("{} = {}", path.display(), normal(value))
}

/// Ours, and those of others.
#[track_caller]
fn programs(netns: &Netns) -> Vec<String> {
    let programs = redirector::kernel::attached_programs(netns.open().as_fd());
    programs.expect("ask for sk_lookup programs").iter().map(|program| format!("{program:?}")).collect()
}
