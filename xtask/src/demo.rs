//! The demo: a client in one namespace talks to an address of another one, where nothing listens, and reaches a
//! service outside of both. Everything shown was measured; what differs from what should be ends the demo.
//!
//! What it makes has an owner that removes it when dropped, and signals only raise a flag, so that every way out
//! but SIGKILL leaves nothing behind.

mod access;
mod containers;
mod daemon;
pub(crate) mod echo;
mod exchange;
pub(crate) mod interrupt;
pub(crate) mod netfilter;
mod network;
pub(crate) mod say;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

pub(crate) use self::network::refuse_taken_names;
use self::{
    daemon::{Counters, Daemon},
    echo::Echo,
    exchange::Exchange,
    interrupt::Interrupt,
    network::{CLIENT, Network, SERVER},
};
use crate::{
    engine::Kind,
    prepare::{self, Purpose},
    tool,
};

const PORT: u16 = 8080;
const MESSAGE: &str = "Hello from ns2";

#[derive(clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    pub(crate) redirector: PathBuf,
    #[arg(long)]
    pub(crate) once: bool,
    /// With containers of this engine instead of bare namespaces.
    #[arg(long)]
    pub(crate) engine: Option<Kind>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut interrupt = Interrupt::install()?;
    if let Some(kind) = options.engine {
        return containers::run(&mut interrupt, options, kind);
    }
    refuse_taken_names()?;
    prepare::ensure(Purpose::Demo)?;
    // Dropped in the reverse order: the daemon, the service, the namespaces.
    let mut network = Network::create(&interrupt)?;
    let echo = Echo::start(&interrupt)?;
    let mut daemon = Daemon::start(&interrupt, &options.redirector, &[])?;
    show(&interrupt, &echo, &daemon)?;
    if !options.once {
        daemon.show_connections();
        suggest(options, &daemon)?;
        interrupt.wait_for(|| daemon.check())?;
    }
    daemon.stop()?;
    drop(echo);
    network.remove()
}

fn show(interrupt: &Interrupt, echo: &Echo, daemon: &Daemon) -> Result<()> {
    for namespace in [SERVER, CLIENT] {
        ensure!(echo.namespace != namespace.inode()?, "the echo service is inside {namespace}");
    }
    let target = format!("netns:{SERVER}");
    daemon.attach(interrupt, &target, &format!("tcp:{PORT}"), &echo.address.to_string())?;

    let out = &mut io::stdout().lock();
    writeln!(out, "network namespaces: {SERVER} {}, {CLIENT} {}", SERVER.inode()?, CLIENT.inode()?)?;
    let Echo { address, namespace, .. } = echo;
    writeln!(out, "echo service: {address}, process {}, in network namespace {namespace}", echo.process())?;
    writeln!(out, "attached: {target}, match tcp:{PORT}, to {address}")?;
    let mut rule = String::new();
    let mut sent = 0;
    for to in SERVER.sockets(PORT) {
        let exchange = Exchange::make(interrupt, echo, daemon, to)?;
        exchange.print(out)?;
        rule = exchange.access.rule;
        sent += 1;
    }

    check_counters(out, interrupt, daemon, (&target, &rule), sent)?;
    check_netfilter(out, interrupt, SERVER.name, SERVER.command(&tool::myself()?)?)?;
    out.flush().context("write to stdout")
}

/// Shows a rule's counters, which have to say that it steered each connection that was made.
fn check_counters(
    out: &mut impl Write,
    interrupt: &Interrupt,
    daemon: &Daemon,
    (target, rule): (&str, &str),
    made: u64,
) -> Result<()> {
    let counters = counters(interrupt, daemon, target, rule)?;
    let Counters { steered, passed, rejected, unavailable } = counters;
    writeln!(
        out,
        "counters of {rule} in {target}: \
         steered {steered}, passed {passed}, rejected {rejected}, unavailable {unavailable}"
    )?;
    let expected = Counters { steered: made, passed: 0, rejected: 0, unavailable: 0 };
    ensure!(counters == expected, "{made} connections were made, the counters should be {expected:?}");
    Ok(())
}

/// Shows what netfilter holds where `inside` runs, which has to be nothing.
fn check_netfilter(out: &mut impl Write, interrupt: &Interrupt, name: &str, inside: Command) -> Result<()> {
    let counted = netfilter::count(interrupt, inside)?;
    let netfilter::Netfilter { nftables_tables, nftables_rules, iptables_tables } = counted;
    writeln!(
        out,
        "nftables rules in {name}: {nftables_rules}, iptables tables in {name}: {iptables_tables}"
    )?;
    if nftables_tables + nftables_rules + iptables_tables != 0 {
        bail!(
            "netfilter is not empty in {name}: {nftables_tables} nftables tables, {nftables_rules} nftables rules, {iptables_tables} iptables tables"
        );
    }
    Ok(())
}

fn counters(interrupt: &Interrupt, daemon: &Daemon, target: &str, rule: &str) -> Result<Counters> {
    let list = daemon.list(interrupt)?;
    let namespace = list.namespaces.iter().find(|namespace| namespace.target == target);
    let rules = &namespace.with_context(|| format!("`redirector list` has no {target}: {list:?}"))?.rules;
    let rule = rules.iter().find(|listed| listed.name == rule);
    Ok(rule
        .with_context(|| format!("`redirector list` has no rule of that name in {target}: {list:?}"))?
        .counters)
}

fn suggest(options: &Options, daemon: &Daemon) -> Result<()> {
    let redirector = options.redirector.display();
    let socket = daemon.socket();
    writeln!(
        io::stdout(),
        "
The demo stays up. In another terminal, as root:
  export REDIRECTOR_SOCKET={socket}
  {redirector} list
  ip netns exec {CLIENT} bash -c 'exec 3<>/dev/tcp/10.123.0.1/{PORT}; echo hello >&3; head -n 1 <&3'
  {redirector} attach netns:{SERVER} --match 'tcp:9090' --to original   # for a server of your own in {SERVER}
  {redirector} detach netns:{SERVER} --rule rule-1
  {redirector} detach netns:{SERVER}
Ctrl-C ends the demo and removes all of it.",
        socket = socket.display()
    )
    .context("write to stdout")
}
