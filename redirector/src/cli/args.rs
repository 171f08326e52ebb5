//! What can be said on the command line.

mod columns;
mod explain;
mod files;
mod targets;

use std::{
    num::{NonZeroU16, NonZeroU32},
    path::PathBuf,
};

use clap::{
    Parser, Subcommand, ValueHint,
    builder::{OsStringValueParser, TypedValueParser},
};

use self::{columns::COLUMNS, targets::TARGETS};
pub(super) use self::{
    explain::Explain,
    files::{Apply, Check, Export},
};
use crate::{
    config::{
        Destination, Engine, Interface, Listeners, Match, OnUnavailable, RuleName, Source, Span, Target,
        file::{DaemonOptions, LogFormat, LogLevel},
        socket_path,
    },
    control::{ACCEPT_WITHIN, DEFAULT_SOCKET, LISTEN_WITHIN},
    locate::{Engines, Opener},
};

/// The version, the last commit that changed what this binary is made of, and which kernel objects it takes.
const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    env!("REDIRECTOR_BUILD_ID"),
    "\nkernel object ABI ",
    env!("REDIRECTOR_ABI")
);

/// Take the traffic that arrives in a network namespace and give it to a socket you choose.
#[derive(Debug, Parser)]
#[command(name = "redirector", version, long_version = LONG_VERSION, propagate_version = true, max_term_width = 100)]
pub(super) struct Args {
    #[arg(value_hint = ValueHint::FilePath, long, global = true, display_order = 900, value_name = "PATH", env = "REDIRECTOR_SOCKET", value_parser = socket(),
        help = format!("The control socket [default: {DEFAULT_SOCKET}]"))]
    pub(super) socket: Option<PathBuf>,

    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the daemon, in the foreground
    Run(Run),
    /// Steer traffic of a namespace, or change a rule
    Attach(Attach),
    /// Take one rule away, or every rule and stop steering the namespace
    Detach(Detach),
    /// Reset relayed connections; the rules stay
    Close(Close),
    /// Show the steered namespaces, their rules and counters
    List(List),
    /// Say where one packet would go, and why
    Explain(Explain),
    /// Say everything that is wrong with a configuration file
    Check(Check),
    /// Bring what a configuration file wants into force, whole or not at all
    Apply(Apply),
    /// Print what is in force as a configuration file
    Export(Export),
    /// Run a program that accepts the steered connections itself
    Exec(Exec),
    /// Say what works on this machine, by trying it
    Doctor(Doctor),
    /// Remove what a killed daemon or `exec` left behind
    Cleanup(Cleanup),
    /// Print completions for a shell
    Completions(Completions),
    /// Write the manual, one page for each command
    Man(Man),
}

#[derive(Debug, clap::Args)]
pub(super) struct Run {
    /// Apply this file before anything else, and again at SIGHUP; of a directory each `*.toml` in it. Repeatable
    #[arg(value_hint = ValueHint::AnyPath, long, value_name = "PATH")]
    pub(super) config: Vec<PathBuf>,

    /// The same, but nothing where there is no such file or directory. Repeatable
    #[arg(value_hint = ValueHint::AnyPath, long, value_name = "PATH")]
    pub(super) optional_config: Vec<PathBuf>,

    /// How long relayed connections may go on after SIGTERM or Ctrl-C; a second signal ends them at once [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub(super) drain_timeout: Option<Span>,

    /// How log lines are written [default: text]
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub(super) log_format: Option<LogFormat>,

    /// How much is logged, of redirector itself; 'debug' has a line for each relayed connection that ends [default: what
    /// RUST_LOG says, else info]
    #[arg(long, value_name = "LEVEL", value_enum)]
    pub(super) log_level: Option<LogLevel>,

    /// Connections that all namespaces together may have at once, one namespace three quarters of it; fewer where namespaces
    /// take the open files [default: as many as the limit of open files allows]
    #[arg(long, value_name = "N")]
    pub(super) max_connections: Option<NonZeroU32>,

    /// Connections that one client's address may have at once in one namespace [default: no limit of its own]
    #[arg(long, value_name = "N")]
    pub(super) max_connections_per_client: Option<NonZeroU32>,

    /// How often the host names of destinations are looked up, and the namespaces that connections go to looked for (those of
    /// containers six times less often); 0s is only when a connection fails [default: 5s]
    #[arg(long, value_name = "TIME")]
    pub(super) resolve_interval: Option<Span>,

    #[command(flatten)]
    pub(super) engines: EngineOptions,
}

/// A path, whatever its bytes; or a URL.
fn socket() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|text| socket_path(&text))
}

/// Where container engines listen.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct EngineOptions {
    #[arg(value_hint = ValueHint::FilePath, long, value_name = "PATH", env = "REDIRECTOR_DOCKER_SOCKET", value_parser = socket(),
        help = format!("Where Docker listens [default: {}]", Engines::default_socket(Engine::Docker)))]
    docker_socket: Option<PathBuf>,

    #[arg(value_hint = ValueHint::FilePath, long, value_name = "PATH", env = "REDIRECTOR_PODMAN_SOCKET", value_parser = socket(),
        help = format!("Where Podman listens; a user's own is at /run/user/UID/podman/podman.sock [default: {}]", Engines::default_socket(Engine::Podman)))]
    podman_socket: Option<PathBuf>,
}

impl EngineOptions {
    /// What finds containers there; `file` says where what is not said here.
    pub(super) fn opener(&self, file: &DaemonOptions) -> Opener {
        let said = [
            (Engine::Docker, &self.docker_socket, &file.docker_socket),
            (Engine::Podman, &self.podman_socket, &file.podman_socket),
        ];
        let said =
            said.into_iter().filter_map(|(engine, own, file)| Some((engine, own.clone().or(file.clone())?)));
        Opener::new(said.fold(Engines::default(), |engines, (engine, socket)| engines.with(engine, socket)))
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = format!("{TARGETS}

MATCH is PROTOCOL:[ADDRESS[/LEN]:]PORTS, of the original destination, as
  'tcp:8080'  'tcp:80,443,8000-8099'  'tcp:10.0.0.1:*'  'tcp:[fd00::/8]:443'
PROTOCOL is tcp, udp or any, which is both; PORTS * or all is every port. What takes UDP goes to reject, drop or pass only.
Quote it: shells take * and [ for themselves.

DEST is one of
  HOST:PORT   dialled from the daemon's namespace; PORT * is the port that the client connected to
  TARGET/IP:PORT
              dialled from inside that namespace
  original    the application in the same namespace, at the original destination
  unix:/PATH  a stream socket
  unix:@NAME  an abstract one, of the daemon's network namespace
  reject      RST; of UDP an ICMP error
  drop        no answer
  pass        whoever owns the socket"))]
pub(super) struct Attach {
    /// The namespace
    #[arg(value_hint = ValueHint::Other)]
    pub(super) target: Target,

    #[command(flatten)]
    pub(super) traffic: Traffic,

    /// Where it goes
    #[arg(value_hint = ValueHint::Other, long, value_name = "DEST", required = true)]
    pub(super) to: Vec<Destination>,

    /// The rule's name; an existing rule of that name is replaced [default: rule-N, the lowest N that is free]
    #[arg(value_hint = ValueHint::Other, long, value_name = "RULE")]
    pub(super) name: Option<RuleName>,

    /// What clients get while the listener or the destination cannot be had: the application's own socket, RST, or no
    /// answer
    #[arg(long, value_name = "ACTION", value_enum, default_value_t)]
    pub(super) on_unavailable: OnUnavailable,

    /// Until a dial is given up
    #[arg(long, value_name = "TIME", default_value = "5s")]
    pub(super) connect_timeout: Span,

    /// Until a connection without a byte in either direction is reset; 0s is never
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub(super) idle_timeout: Span,

    /// Attach although another redirector is attached there; not with `original`. The first that steers a connection has it
    #[arg(long)]
    pub(super) coexist: bool,

    /// Follow the target: re-attach when its container is restarted, or when something else gets its name or path, and wait
    /// while nothing has it. The default for containers; also for `netns:` and `path:`
    #[arg(long, overrides_with = "no_follow")]
    pub(super) follow: bool,

    /// Let the rule end with the namespace
    #[arg(long)]
    pub(super) no_follow: bool,

    /// Wait for a target that is not there yet. While the destination is not found the rule is down
    #[arg(long)]
    pub(super) wait: bool,

    /// Allow the host's own namespace as target
    #[arg(long)]
    pub(super) host_netns: bool,

    /// Check everything and say what would be done, but do nothing
    #[arg(long)]
    pub(super) dry_run: bool,

    /// Print a JSON document
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = format!("{TARGETS}

CMD gets listeners of the namespace as fds from 3 on, IPv4 then IPv6, with LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES
(namespace/rule/family). What it accepts from them are the clients themselves: getpeername() is the client,
getsockname() the original destination. In ARGS, in values of --env and in templates of --render these stand for them:
  {{fd4}} {{fd6}}          the fds
  {{listen4}} {{listen6}}  the addresses that they are bound to inside the namespace
  {{port}}               the port of both
With --listen-as there are no fds and no placeholders: CMD binds and listens as it would without redirector.
When CMD ends, the rule goes on with the processes that hold its listeners, and `exec` says which on stderr; when nobody
holds them, the rule is gone. When the namespace dies, CMD is ended, and who holds its listeners. Without a daemon one runs
for as long as anybody holds them.

A listener is a key: whoever holds one can open connections inside that namespace, to its loopback services too.
Give it to programs that you trust with that.

Exit codes: those of CMD, 128+N when signal N ended it; 125 redirector failed, 126 CMD cannot be run, 127 there is no CMD."))]
pub(super) struct Exec {
    /// The namespace
    #[arg(value_hint = ValueHint::Other)]
    pub(super) target: Target,

    #[command(flatten)]
    pub(super) traffic: Traffic,

    /// The rule's name [default: rule-N, the lowest N that is free]
    #[arg(value_hint = ValueHint::Other, long, value_name = "RULE")]
    pub(super) name: Option<RuleName>,

    /// What clients get when CMD's listeners are gone and the rule not yet
    #[arg(long, value_name = "ACTION", value_enum, default_value_t)]
    pub(super) on_unavailable: OnUnavailable,

    /// Run CMD as this user (name or number), without any capability
    #[arg(value_hint = ValueHint::Username, long, value_name = "USER")]
    pub(super) user: Option<String>,

    /// When the namespace dies CMD gets SIGTERM, and SIGKILL this much later
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub(super) kill_after: Span,

    /// For a CMD that takes no listeners from others: where it listens on this TCP port, it listens in the namespace
    /// instead
    #[arg(value_hint = ValueHint::Other, long, value_name = "PORT")]
    pub(super) listen_as: Option<NonZeroU16>,

    /// Which listeners CMD gets
    #[arg(long, value_name = "WHICH", value_enum, default_value_t, conflicts_with = "listen_as")]
    pub(super) listeners: Listeners,

    /// End the rule with CMD, whoever holds its listeners then. Without it the rule goes on with them
    #[arg(long)]
    pub(super) end_with_cmd: bool,

    /// When others hold the listeners of a CMD that has ended: a listener from which nobody accepts for this long, although a
    /// client waits, is unavailable until somebody does; 0s is never
    #[arg(long, value_name = "TIME", default_value_t = ACCEPT_WITHIN)]
    pub(super) accept_within: Span,

    /// With --listen-as: say where CMD listens when it has not listened on that port after this long
    #[arg(long, value_name = "TIME", default_value_t = LISTEN_WITHIN, requires = "listen_as")]
    pub(super) listen_within: Span,

    /// Set a variable for CMD; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(super) env: Vec<(String, String)>,

    /// Write FILE from TEMPLATE before CMD runs, as the user that runs CMD; may be given several times
    #[arg(long, value_name = "TEMPLATE=FILE", value_parser = pair)]
    pub(super) render: Vec<(String, String)>,

    /// Attach although another redirector is attached there; not with `original`. The first that steers a connection has it
    #[arg(long)]
    pub(super) coexist: bool,

    /// Allow the host's own namespace as target
    #[arg(long)]
    pub(super) host_netns: bool,

    /// Used when no daemon answers
    #[command(flatten)]
    pub(super) engines: EngineOptions,

    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(super) command: Vec<String>,
}

/// What a rule takes.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Traffic {
    /// Traffic that the rule takes; may be given several times
    #[arg(value_hint = ValueHint::Other, long = "match", value_name = "MATCH", required = true)]
    pub(super) matches: Vec<Match>,

    /// Match only clients with such an address; may be given several times, or with commas between
    #[arg(value_hint = ValueHint::Other, long, value_name = "ADDRESS[/LEN]", value_delimiter = ',')]
    pub(super) from: Vec<Source>,

    /// What the rule does not take, although a match names it; may be given several times
    #[arg(value_hint = ValueHint::Other, long, value_name = "MATCH")]
    pub(super) except: Vec<Match>,

    /// Match only packets that arrive on this interface of the namespace, or with '!NAME' on all but this; may be given
    /// several times. What comes from the namespace itself comes by the interface that has the address it goes to. Needs
    /// Linux 5.17
    #[arg(value_hint = ValueHint::Other, long = "interface", value_name = "NAME")]
    pub(super) interfaces: Vec<Interface>,

    /// Rules with a higher one decide first, whatever they match: -2147483648 to 2147483647
    #[arg(long, value_name = "NUMBER", default_value_t, allow_negative_numbers = true)]
    pub(super) priority: i32,
}

/// Both sides of the first `=`, neither of them empty.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((left, right)) if !left.is_empty() => Ok((left.into(), right.into())),
        _ => Err(format!("`{}` is not of the form A=B", text.escape_debug())),
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = TARGETS)]
pub(super) struct Detach {
    /// The namespace
    #[arg(value_hint = ValueHint::Other)]
    pub(super) target: Target,

    /// Only this rule
    #[arg(value_hint = ValueHint::Other, long, alias = "name", value_name = "RULE")]
    pub(super) rule: Option<RuleName>,

    /// Reset the connections of these rules, too; without it they go on to their end
    #[arg(long)]
    pub(super) close: bool,

    /// Print a JSON document
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = TARGETS)]
pub(super) struct Close {
    /// The namespace: one that is steered, or that has connections left
    pub(super) target: Target,

    /// Only connections of this client, or of clients in this network
    #[arg(long, value_name = "ADDRESS[/LEN]")]
    pub(super) client: Option<Source>,

    /// Only connections of this rule
    #[arg(long, value_name = "RULE")]
    pub(super) rule: Option<RuleName>,

    /// Print a JSON document
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = TARGETS, after_long_help = format!("{COLUMNS}\n\n{TARGETS}"))]
pub(super) struct List {
    /// Only this namespace
    #[arg(value_hint = ValueHint::Other)]
    pub(super) target: Option<Target>,

    /// Print it again and again, this much later each time; with --json a document on each line
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "1s")]
    pub(super) watch: Option<Span>,

    /// Print a JSON document
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Needs no daemon, and leaves nothing behind. Each line has a status:
  ok       as it should be
  note     something that is not needed is not there
  warning  steering works, and less well or not for everything
  fail     steering cannot work

Exit codes: 0 steering works here; 1 it cannot.")]
pub(super) struct Doctor {
    #[command(flatten)]
    pub(super) engines: EngineOptions,

    /// Print a JSON document
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = format!("\
Needs no daemon. What steers ends with the process that steers, so only files can be left: the socket files of a daemon
and the directory of an `exec` without one, when they were killed. What a living process uses is kept. Lock files stay.

With TARGET it says which sk_lookup programs of others are attached there, and removes nothing.

{TARGETS}"))]
pub(super) struct Cleanup {
    /// Only what belongs to this namespace
    pub(super) target: Option<Target>,

    #[command(flatten)]
    pub(super) engines: EngineOptions,

    /// Print a JSON document
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// For which shell
    #[arg(value_enum)]
    pub(super) shell: clap_complete::Shell,
}

#[derive(Debug, clap::Args)]
pub(super) struct Man {
    /// Where to; it is made when it is missing
    #[arg(value_hint = ValueHint::DirPath, value_name = "DIR")]
    pub(super) directory: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::config::{DEFAULT_CONNECT_TIMEOUT, DEFAULT_IDLE_TIMEOUT};

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_api() {
        let args = Args::parse_from(["redirector", "attach", "self", "--match", "tcp:1", "--to", "pass"]);
        let Command::Attach(attach) = args.command else { panic!("attach") };
        assert_eq!(attach.connect_timeout, DEFAULT_CONNECT_TIMEOUT);
        assert_eq!(attach.idle_timeout, DEFAULT_IDLE_TIMEOUT);
        assert_eq!(attach.on_unavailable, OnUnavailable::Reject);
    }
}
