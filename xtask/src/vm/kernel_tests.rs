//! Which integration tests depend on the kernel: CI runs these in virtual machines, `--vm all` runs every one.

use std::ffi::OsString;

/// Modules of `tests/it` in which it is the kernel that decides, by what differs from one to the next: its programs, maps and
/// links, how sockets are selected, bound, repaired and given away, who is at the other end of one (`own_sockets`:
/// `SO_PEERPIDFD`), and when a namespace ends.
const DEPEND: [&str; 22] = [
    "death",
    "deaths",
    "detach",
    "drop",
    "features",
    "foreign",
    "handoff",
    "hostile",
    "interfaces",
    "kernel_selftests",
    "listen_as",
    "model",
    "original",
    "own_connections",
    "own_listeners",
    "own_sockets",
    "past_the_rules",
    "ports",
    "residue",
    "stock",
    "tubular",
    "udp",
];

/// Those in which it is redirector that decides, or somebody else's program, or what TCP has done in every kernel. `seats` is of
/// them: who keeps a connection to the control socket is decided by the daemon, of Unix sockets as they have always been. So is
/// `taken_ports`: who has a port has been decided alike for longer than there are programs that select sockets; and `successors`, where the
/// daemon finds out who has a listener.
#[cfg(test)]
const DO_NOT_DEPEND: [&str; 46] = [
    "api",
    "attach",
    "attackers",
    "backlog",
    "bystanders",
    "changes",
    "cleanup",
    "close",
    "destinations",
    "discover",
    "doctor",
    "elsewhere",
    "ends",
    "engine_answers",
    "exec",
    "explain",
    "files",
    "forms",
    "harness",
    "hints",
    "injected",
    "inputs",
    "last_words",
    "limits",
    "list",
    "log",
    "loops",
    "lost",
    "names",
    "packet_filters",
    "pages",
    "parsers",
    "patience",
    "places",
    "procfs",
    "progress",
    "relay",
    "render",
    "rules",
    "seats",
    "servers",
    "silent_files",
    "successors",
    "taken_ports",
    "targets",
    "waits",
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
