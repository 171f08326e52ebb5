//! What describes the program: manual pages, completions, versions; the order of its modules and files.

mod circles;
mod modules;
mod names;
mod source;

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use redirector_ebpf::ABI_MARK;
use redirector_tests::{
    cli::Cli,
    command::{self, must},
    dir::Dir,
};

fn cli() -> Cli {
    Cli::new(Path::new("/nowhere/control.sock"))
}

/// The commands that help shows.
fn commands() -> Vec<String> {
    let help = cli().run(&["--help"]).success().stdout;
    let lines =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next());
    let names: Vec<_> = names.filter(|name| *name != "help").map(str::to_owned).collect();
    assert!(names.len() > 5, "{help}");
    names
}

#[test]
fn each_command_has_a_manual_page_that_renders_without_a_warning() {
    let dir = Dir::new();
    let folder = dir.join("man/man1");
    let outcome = cli().run(&["man", folder.to_str().unwrap()]).success();
    let told: BTreeSet<_> = outcome.stdout.lines().map(str::to_owned).collect();
    let names = commands();
    let mut expected: BTreeSet<_> = names.iter().map(|name| format!("redirector-{name}.1")).collect();
    expected.extend(["redirector.1", "redirector.toml.5"].map(str::to_owned));
    let expected: BTreeSet<_> = expected.iter().map(|name| folder.join(name).display().to_string()).collect();
    assert_eq!(told, expected);
    let written = fs::read_dir(&folder).unwrap();
    let written: BTreeSet<_> = written.map(|entry| entry.unwrap().path().display().to_string()).collect();
    assert_eq!(written, expected);
    for page in &expected {
        let outcome = must(Command::new("groff").args(["-man", "-ww", "-Tutf8", "-P-cbou", page]));
        assert_eq!(outcome.stderr, "", "{outcome}");
        let text = outcome.stdout;
        if page.ends_with(".5") {
            for line in ["[[namespace]]", "[daemon]", "EXAMPLES"] {
                assert!(text.lines().any(|one| one == line), "{page} has no {line}: {text}");
            }
            continue;
        }
        for section in ["NAME", "SYNOPSIS", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES"] {
            assert!(text.lines().any(|line| line == section), "{page} has no {section}: {text}");
        }
        let examples = text.lines().skip_while(|line| *line != "EXAMPLES");
        let examples = examples.filter(|line| line.trim_start().starts_with("redirector ")).count();
        assert!(examples > 0, "{page} has no example: {text}");
    }
    // Again, over what is there.
    cli().run(&["man", folder.to_str().unwrap()]).success();
    let all = fs::read_to_string(folder.join("redirector.1")).unwrap();
    for name in names {
        let name = format!("redirector\\-{name}(1)");
        assert!(all.contains(&name), "redirector.1 must name {name}: {all}");
    }
}

/// Completions for a shell, as a file.
#[track_caller]
fn completions(dir: &Dir, shell: &str) -> String {
    let path = dir.join(shell);
    let outcome = cli().run(&["completions", shell]).success();
    assert_eq!(outcome.stderr, "", "{outcome}");
    fs::write(&path, outcome.stdout).expect("write completions");
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn completions_are_valid_in_their_shell() {
    let dir = Dir::new();
    for shell in ["bash", "zsh", "fish"] {
        let outcome = must(Command::new(shell).args(["-n", &completions(&dir, shell)]));
        assert_eq!(outcome.stderr, "", "{outcome}");
    }
}

#[test]
fn bash_completes_commands_and_options() {
    let dir = Dir::new();
    let script = completions(&dir, "bash");
    let complete = |words: &[&str]| {
        let program = r#"
            source "$1"; shift
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            _redirector redirector "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
            printf '%s\n' "${COMPREPLY[@]}""#;
        let outcome = must(
            Command::new("bash").args(["--norc", "-c", program, "bash", &script, "redirector"]).args(words),
        );
        outcome.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete(&["det"]), ["detach"]);
    assert_eq!(complete(&["attach", "--connect"]), ["--connect-timeout"]);
    assert_eq!(complete(&["completions", "fi"]), ["fish"]);
}

#[test]
fn fish_completes_commands() {
    let dir = Dir::new();
    let script = completions(&dir, "fish");
    let program = format!("source {script}; complete -C 'redirector det'");
    let mut command = Command::new("fish");
    let outcome = must(command.args(["--no-config", "-c", &program]).env("HOME", dir.path()));
    assert!(outcome.stdout.starts_with("detach\t") && outcome.stdout.lines().count() == 1, "{outcome}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    for arguments in ["completions bash", "doctor"] {
        let binary = redirector_tests::daemon::binary();
        let line = format!("{} {arguments} | true; exit ${{PIPESTATUS[0]}}", binary.display());
        let outcome = command::run(Command::new("bash").args(["--norc", "-c", &line]));
        assert_eq!((outcome.code(), &*outcome.stderr), (0, ""), "{outcome}");
    }
}

#[test]
fn the_long_version_says_what_it_was_built_from() {
    let short = cli().run(&["-V"]).success().stdout;
    assert_eq!(short, format!("redirector {}\n", env!("CARGO_PKG_VERSION")));
    let long = cli().run(&["--version"]).success().stdout;
    let lines: Vec<_> = long.lines().collect();
    let &[version, object] = &lines[..] else { panic!("{long}") };
    let id = version.strip_prefix(short.trim_end()).unwrap_or_else(|| panic!("{long}"));
    // Nothing where it was not built in a checkout.
    if !id.is_empty() {
        let id =
            id.strip_prefix(" (").and_then(|id| id.strip_suffix(')')).unwrap_or_else(|| panic!("{long}"));
        let commit = id.strip_suffix("-dirty").unwrap_or(id);
        assert!(commit.len() == 12 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()), "{long}");
    }
    let hash = u64::from_le_bytes(ABI_MARK[16..].try_into().unwrap());
    assert_eq!(object, format!("kernel object ABI {hash:016x}"));
}

#[test]
fn the_schema_of_files_is_the_one_that_is_shipped() {
    let printed = cli().run(&["check", "--schema"]).success().stdout;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/redirector.schema.json");
    let shipped = fs::read_to_string(&path).unwrap();
    assert_eq!(printed, shipped, "write it anew: redirector check --schema > {}", path.display());
}

#[test]
fn a_good_file_is_checked_without_a_daemon() {
    let dir = Dir::new();
    let path = dir.join("file.toml");
    fs::write(
        &path,
        "[[namespace]]\ntarget = \"netns:a\"\n[[namespace.rule]]\nmatch = [\"tcp:80\"]\nto = [\"pass\"]\n",
    )
    .unwrap();
    let path = path.to_str().unwrap();
    let outcome = cli().run(&["check", path]).success();
    assert_eq!(outcome.stdout, format!("{path}: no problems; 1 namespace, 1 rule\n"));
    assert_eq!(cli().run(&["apply", path]).code(), 4, "there is no daemon to apply it");
    let checked: serde_json::Value =
        serde_json::from_str(&cli().run(&["check", path, "--json"]).success().stdout).unwrap();
    assert_eq!(
        checked,
        serde_json::json!({"schema": 1, "problems": [], "warnings": [], "namespaces": 1, "discover": 0, "rules": 1})
    );
    let piped = command::run_with_stdin(&mut cli().command(&["check", "-", "--json"]), "a = 1\n");
    assert_eq!(piped.code(), 2, "{piped}");
    let checked: serde_json::Value = serde_json::from_str(&piped.stdout).unwrap();
    let problem = &checked["problems"][0];
    assert_eq!((&problem["line"], &problem["column"]), (&1.into(), &1.into()), "{checked:#}");
    // Where containers are looked for, what can never decide is seen as well.
    let rule = "[[discover.rule]]\nmatch = [\"tcp:80\"]\nto = [\"pass\"]\n";
    fs::write(path, format!("[[discover]]\ndocker = {{ label = \"a\" }}\n{rule}{rule}")).unwrap();
    let outcome = cli().run(&["check", path]).success();
    assert_eq!(outcome.stdout, format!("{path}: no problems; 0 namespaces, 1 label, 2 rules\n"));
    assert!(outcome.stderr.starts_with(&format!("{path}:6:1: warning: rule `found-2`: ")), "{outcome}");
    let outcome = cli().run(&["explain", "--config", path, "docker:x", "tcp 192.0.2.1:1 -> 192.0.2.2:80"]);
    assert!(outcome.code() == 3 && outcome.stderr.contains("labels of `[[discover]]`"), "{outcome}");
}

/// A mistake in a file is found before it is applied, without a daemon and a namespace.
#[test]
fn a_file_is_asked_where_a_packet_would_go() {
    let dir = Dir::new();
    let path = dir.join("file.toml");
    let text = r#"
[[namespace]]
target = "netns:web"
[[namespace.rule]]
name = "http"
match = ["tcp:80"]
from = ["10.0.0.0/8"]
to = ["127.0.0.1:5000"]
[[namespace.rule]]
name = "by-eth1"
match = ["tcp:8080"]
interface = ["eth1"]
to = ["drop"]
[[namespace.rule]]
name = "never"
match = ["tcp:8080"]
interface = ["eth1"]
from = ["10.0.0.1"]
priority = -1
to = ["reject"]
"#;
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let explain = |flow: &str| cli().run(&["explain", "--config", path, "netns:web", flow]);
    for (flow, first, part) in [
        ("tcp 10.1.2.3:4000 -> 10.0.0.1:80", "steered by rule http to 127.0.0.1:5000", "its match"),
        // The deliberate mistake: clients of another network were meant as well.
        ("tcp 192.0.2.1:4000 -> 10.0.0.1:80", "not steered", "http: the client is not in `10.0.0.0/8`"),
        ("tcp 10.1.2.3:4000 -> 10.0.0.1:8080 dev eth1", "dropped by rule by-eth1", "by eth1"),
        (
            "tcp 10.1.2.3:4000 -> 10.0.0.1:8080 dev eth0",
            "not steered",
            "by-eth1: it is for what comes by `eth1`",
        ),
        ("tcp 10.1.2.3:4000 -> 10.0.0.1:8080", "not steered", "by no interface that a rule names"),
        ("udp 10.1.2.3:4000 -> 10.0.0.1:80", "not steered", "another protocol"),
    ] {
        let outcome = explain(flow).success();
        assert!(outcome.stdout.starts_with(first), "{flow}{outcome}");
        assert!(outcome.stdout.contains(part), "{flow}{outcome}");
        assert!(outcome.stdout.contains("only the file was looked at"), "{flow}{outcome}");
        let document = cli().json(&["explain", "--config", path, "netns:web", flow]);
        assert_eq!(document["decided_by"]["who"], "rule_set", "{document:#}");
    }
    let outcome = cli().run(&["explain", "--config", path, "netns:web", "--shadowed"]).success();
    assert_eq!(outcome.stdout, "never: never, because of by-eth1\n");
    let outcome = cli().run(&["check", path]).success();
    assert_eq!(outcome.stderr, format!("{path}:14:1: warning: rule `never`: never, because of by-eth1\n"));
    let outcome = cli().run(&["explain", "--config", path, "netns:shop", "tcp 10.1.2.3:4000 -> 10.0.0.1:80"]);
    assert!(redirector_tests::cli::error(&outcome, 3).contains("netns:shop"), "{outcome}");
    let outcome = cli().run(&["explain", "--config", path, "netns:web", "tcp 10.1.2.3 -> 10.0.0.1:80"]);
    redirector_tests::cli::error(&outcome, 2);
}
