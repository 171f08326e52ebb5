//! The demo with containers: `ns2` talks to an address of `ns1`, where nothing listens, and reaches a service outside of
//! both. So does who comes through a port that is published.

use std::{
    ffi::OsStr,
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    MESSAGE, PORT,
    access::Access,
    check_counters, check_netfilter,
    daemon::Daemon,
    echo::{self, Echo},
    interrupt::Interrupt,
};
use crate::{
    engine::{Engine, IMAGE, Kind},
    prepare::{self, Purpose},
    tool,
};

const LIMIT: Duration = Duration::from_secs(30);

/// Where the port of `ns1` is published, in the engine's namespace.
const PUBLISHED: &str = "127.0.0.1:18080";

/// A container of ours.
struct Container {
    name: &'static str,
    id: String,
    /// Of its first process.
    pid: String,
    address: IpAddr,
}

impl Container {
    fn run(interrupt: &Interrupt, engine: &Engine, name: &'static str, options: &[&str]) -> Result<Self> {
        let id =
            engine.call(interrupt, &[&["run", "--detach", "--name", name], options, &[IMAGE]].concat())?;
        let format = "{{.State.Pid}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let inspected = engine.call(interrupt, &["inspect", name, "--format", format])?;
        let (pid, address) =
            inspected.split_once(' ').with_context(|| format!("inspect {name}: {inspected}"))?;
        let address = address.parse().with_context(|| format!("inspect {name}: address {address:?}"))?;
        Ok(Self { name, id, pid: pid.to_owned(), address })
    }

    /// A command in its network namespace, with everything else of ours.
    fn command(&self, program: &PathBuf) -> Result<Command> {
        let mut command = tool::command("nsenter")?;
        command.arg(format!("--net=/proc/{}/ns/net", self.pid)).arg("--").arg(program);
        Ok(command)
    }
}

pub(super) fn run(interrupt: &mut Interrupt, options: &super::Options, kind: Kind) -> Result<()> {
    prepare::ensure(Purpose::Engines)?;
    // Dropped in the reverse order: the daemon, the service, the containers with their engine.
    let engine = Engine::start(interrupt, kind)?;
    let publish = format!("{PUBLISHED}:{PORT}");
    let server = Container::run(interrupt, &engine, "ns1", &["--publish", &publish])?;
    let client = Container::run(interrupt, &engine, "ns2", &[])?;
    let echo = Echo::start(interrupt)?;
    let socket = format!("--{kind}-socket={}", engine.socket().display());
    let mut daemon = Daemon::start(interrupt, &options.redirector, &[&socket])?;
    show(interrupt, &engine, &echo, &daemon, [&server, &client])?;
    if !options.once {
        daemon.show_connections();
        suggest(options, &engine, &daemon, &server)?;
        interrupt.wait_for(|| daemon.check())?;
    }
    daemon.stop()
}

fn show(
    interrupt: &Interrupt,
    engine: &Engine,
    echo: &Echo,
    daemon: &Daemon,
    [server, client]: [&Container; 2],
) -> Result<()> {
    let target = format!("{}:{}", engine.kind, server.name);
    daemon.attach(interrupt, &target, &format!("tcp:{PORT}"), &echo.address.to_string())?;

    let out = &mut io::stdout().lock();
    let version = engine.call(interrupt, &["version", "--format", "{{.Server.Version}}"])?;
    writeln!(out, "{} {version}, in network namespace {}", engine.kind, engine.netns_inode()?)?;
    for Container { name, id, address, .. } in [server, client] {
        writeln!(out, "container {name}: {}, {address}", id.get(..12).unwrap_or(id))?;
    }
    let Echo { address, namespace, .. } = echo;
    writeln!(out, "echo service: {address}, process {}, in network namespace {namespace}", echo.process())?;
    writeln!(out, "attached: {target}, match tcp:{PORT}, to {address}")?;

    let to = SocketAddr::new(server.address, PORT);
    let say = format!("echo '{MESSAGE}' | nc -w 10 {} {PORT}", server.address);
    let reply = engine.call(interrupt, &["exec", client.name, "sh", "-c", &say])?;
    let access = exchanged(interrupt, echo, daemon, &reply, to)?;
    ensure!(
        access.client.ip() == client.address,
        "{} sent it, the daemon logged client={}",
        client.name,
        access.client
    );
    print(out, &format!("from {} to {to}", client.name), &access, &reply)?;
    let rule = access.rule;

    // By Docker's proxy or by address translation, as the engine likes: then it arrives at the container's port.
    let mut outside = engine.inside(OsStr::new("/bin/sh"))?;
    let (host, port) = PUBLISHED.split_once(':').context("a published address")?;
    outside.arg("-c").arg(format!("echo '{MESSAGE}' | /bin/busybox nc -w 10 {host} {port}"));
    let reply = interrupt.call(&mut outside, LIMIT)?;
    let access = exchanged(interrupt, echo, daemon, &reply, to)?;
    print(out, &format!("through the published port {PUBLISHED}"), &access, &reply)?;

    check_counters(out, interrupt, daemon, (&target, &rule), 2)?;
    check_netfilter(out, interrupt, server.name, server.command(&tool::myself()?)?)?;
    out.flush().context("write to stdout")
}

/// What the daemon and the service saw of a message, which has to be what was sent.
fn exchanged(
    interrupt: &Interrupt,
    echo: &Echo,
    daemon: &Daemon,
    reply: &str,
    to: SocketAddr,
) -> Result<Access> {
    let access = interrupt.receive("a line of the access log", LIMIT, &daemon.connections)?;
    let event = interrupt.receive("a connection of the echo service", LIMIT, &echo.events)?;
    let echo::Event::Ended { text, .. } = event else { anyhow::bail!("the echo service started twice") };
    ensure!(text.trim() == MESSAGE, "sent {MESSAGE:?}, the echo service received {text:?}");
    ensure!(reply.trim() == MESSAGE, "sent {MESSAGE:?}, the reply was {reply:?}");
    let Access { original_destination, destination, .. } = &access;
    ensure!(
        *original_destination == to,
        "sent to {to}, the daemon logged original_destination={original_destination}"
    );
    ensure!(
        *destination == echo.address,
        "the echo service is {}, the daemon logged {destination}",
        echo.address
    );
    Ok(access)
}

fn print(out: &mut impl Write, how: &str, access: &Access, reply: &str) -> Result<()> {
    writeln!(out, "message {how}:")?;
    writeln!(out, "  sent                  {MESSAGE:?}")?;
    writeln!(out, "  client                {}", access.client)?;
    writeln!(out, "  original destination  {}", access.original_destination)?;
    writeln!(out, "  matched rule          {}", access.rule)?;
    writeln!(out, "  received              by the echo service {}", access.destination)?;
    writeln!(out, "  reply to the client   {:?}", reply.trim())?;
    Ok(())
}

fn suggest(options: &super::Options, engine: &Engine, daemon: &Daemon, server: &Container) -> Result<()> {
    let redirector = options.redirector.display();
    let (kind, host, socket) = (engine.kind, engine.host(), daemon.socket());
    writeln!(
        io::stdout(),
        "
The demo stays up. In another terminal, as root:
  export REDIRECTOR_SOCKET={socket} DOCKER_HOST={host}
  docker ps
  {redirector} list
  docker exec ns2 sh -c 'echo hello | nc -w 5 {address} {PORT}'
  docker exec -d ns2 nc -ll -p 9000 -e echo 'hello from ns2'
  {redirector} attach {kind}:ns1 --match 'tcp:{PORT}' --to '{kind}:ns2/127.0.0.1:9000' --name rule-1 --follow
  docker restart -t 0 ns1
  {redirector} detach {kind}:ns1
Ctrl-C ends the demo and removes all of it.",
        socket = socket.display(),
        address = server.address,
    )
    .context("write to stdout")
}
