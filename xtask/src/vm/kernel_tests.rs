//! Which integration tests depend on the kernel: CI runs these in virtual machines, `--vm all` runs every one.

use std::ffi::OsString;

/// Modules of `tests/it` in which it is the kernel that decides: its programs, sockets, namespaces and their ends.
const DEPEND: [&str; 26] = [
    "attach",
    "death",
    "drop",
    "elsewhere",
    "ends",
    "features",
    "foreign",
    "handoff",
    "hostile",
    "interfaces",
    "kernel_selftests",
    "last_words",
    "listen_as",
    "loops",
    "lost",
    "model",
    "original",
    "own_connections",
    "past_the_rules",
    "ports",
    "progress",
    "residue",
    "taken_ports",
    "targets",
    "tubular",
    "udp",
];

/// Those in which it is redirector that decides, or somebody else's program.
#[cfg(test)]
const DO_NOT_DEPEND: [&str; 28] = [
    "api",
    "attackers",
    "backlog",
    "changes",
    "cleanup",
    "destinations",
    "discover",
    "doctor",
    "engine_answers",
    "exec",
    "explain",
    "files",
    "harness",
    "injected",
    "inputs",
    "list",
    "log",
    "names",
    "own_sockets",
    "parsers",
    "patience",
    "places",
    "procfs",
    "relay",
    "render",
    "rules",
    "seats",
    "servers",
];

/// As filters of the test harness.
pub(super) fn filters() -> Vec<OsString> {
    DEPEND.iter().map(|module| format!("{module}::").into()).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;
    use crate::tool;

    #[test]
    fn each_module_of_the_integration_tests_is_in_one_of_the_lists() {
        let main = fs::read_to_string(tool::root().join("tests/it/main.rs")).unwrap();
        let modules: BTreeSet<_> =
            main.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';')).collect();
        let listed: Vec<_> = DEPEND.iter().chain(&DO_NOT_DEPEND).copied().collect();
        assert_eq!(listed.len(), modules.len(), "a module is in both lists, or in none");
        assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), modules);
    }
}
