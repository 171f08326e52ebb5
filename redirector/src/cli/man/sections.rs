//! What the pages say besides options and examples.

/// A name, and what it is.
pub(super) type Entry = (&'static str, &'static str);

/// Exit codes of a command. They are a contract.
pub(super) fn exit_codes(command: &str) -> Vec<Entry> {
    let mut codes = match command {
        "exec" => {
            return vec![
                ("CMD's own", "CMD ran and ended."),
                ("128+N", "Signal N ended CMD."),
                ("125", "redirector failed."),
                ("126", "CMD cannot be executed."),
                ("127", "There is no CMD."),
                ("2", "Wrong usage."),
            ];
        }
        "doctor" => vec![("0", "Steering works here."), ("1", "It cannot.")],
        _ => vec![("0", "Done."), ("1", "Failed.")],
    };
    codes.push(match command {
        "check" | "apply" | "run" => ("2", "Wrong usage, or the file has problems."),
        _ => ("2", "Wrong usage."),
    });
    if matches!(command, "redirector" | "attach" | "detach" | "list" | "explain" | "cleanup") {
        codes.push(("3", "There is no such namespace or rule."));
    }
    if matches!(command, "redirector" | "attach" | "detach" | "list" | "explain" | "apply" | "export") {
        codes.push(("4", "The daemon cannot be reached."));
    }
    if matches!(command, "redirector" | "apply") {
        codes.push(("5", "`apply --dry-run` found differences."));
    }
    codes
}

/// Variables that a command reads.
pub(super) fn environment(command: &str) -> Vec<Entry> {
    let mut variables = vec![("REDIRECTOR_SOCKET", "The control socket, where --socket does not name one.")];
    if matches!(command, "redirector" | "run") {
        variables.push((
            "RUST_LOG",
            "What the daemon logs to stderr where --log-level does not say it: info by default; \
             info,redirector::access=debug has a line for each relayed connection that ends as well.",
        ));
        variables.push(("NOTIFY_SOCKET", "Where the daemon says that it is ready (sd_notify)."));
    }
    if matches!(command, "redirector" | "exec" | "cleanup") {
        variables.push((
            "TMPDIR",
            "Where exec without a daemon makes its directory, and cleanup looks for such; /tmp by default.",
        ));
    }
    if command == "exec" {
        variables.push((
            "LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES",
            "Set for CMD, whatever they were: see sd_listen_fds(3).",
        ));
    }
    variables
}

/// Files that a command uses.
pub(super) fn files(command: &str) -> Vec<Entry> {
    let mut files = vec![(
        "/run/redirector/control.sock",
        "The daemon's control socket: HTTP and JSON, for root and the daemon's user.",
    )];
    if matches!(command, "redirector" | "run" | "exec" | "cleanup") {
        files.push(("/run/redirector/handoff.sock", "The socket beside it by which programs get listeners; beside another X.sock it is X.handoff.sock."));
    }
    if matches!(command, "redirector" | "run" | "cleanup") {
        files.push((
            "/run/redirector/*.lock",
            "Locked for as long as a daemon has the socket of that name. They are empty, and stay.",
        ));
    }
    if matches!(command, "redirector" | "exec" | "cleanup") {
        files.push((
            "$TMPDIR/redirector-exec-*",
            "The directory of an exec without a daemon, for as long as it runs.",
        ));
    }
    if matches!(command, "redirector" | "attach" | "detach" | "list" | "explain" | "exec" | "cleanup") {
        files.push(("/run/netns/NAME", "What netns:NAME names, as ip-netns(8) makes it."));
    }
    files
}
