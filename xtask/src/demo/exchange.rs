//! One message of the demo, as everybody who touched it saw it.

use std::{io::Write, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{
    MESSAGE,
    access::Access,
    daemon::Daemon,
    echo::{self, Echo},
    interrupt::Interrupt,
    network::CLIENT,
    say::{self, Said},
};

const LIMIT: Duration = Duration::from_secs(10);

pub(crate) struct Exchange {
    /// Where the client sent it.
    to: SocketAddr,
    /// What the client saw.
    said: Said,
    /// What the daemon saw.
    pub(crate) access: Access,
    /// What the echo service saw, and where.
    received: String,
    relay: SocketAddr,
    service: SocketAddr,
}

impl Exchange {
    /// Sends the message to `to`, gathers what everybody saw, and fails if it is not what should be.
    pub(crate) fn make(interrupt: &Interrupt, echo: &Echo, daemon: &Daemon, to: SocketAddr) -> Result<Self> {
        let said = say::say(interrupt, CLIENT, to, MESSAGE).with_context(|| format!("send to {to}"))?;
        let access = interrupt.receive("a line of the access log", LIMIT, &daemon.connections)?;
        let event = interrupt.receive("a connection of the echo service", LIMIT, &echo.events)?;
        let echo::Event::Ended { peer: relay, text: received } = event else {
            anyhow::bail!("the echo service started twice");
        };
        let exchange = Self { to, said, access, received, relay, service: echo.address };
        exchange.verify()?;
        Ok(exchange)
    }

    fn verify(&self) -> Result<()> {
        let Self { to, said, access, received, relay: _, service } = self;
        ensure!(received == MESSAGE, "sent {MESSAGE:?} to {to}, the echo service received {received:?}");
        ensure!(said.reply == MESSAGE, "sent {MESSAGE:?} to {to}, the reply was {:?}", said.reply);
        ensure!(said.peer == *to, "the client sent to {to} and sees {} as its peer", said.peer);
        let client = CLIENT.address_like(*to);
        ensure!(said.local.ip() == client, "the client sent from {}, not from {client}", said.local);
        ensure!(
            access.client == said.local,
            "the client sent from {}, the daemon logged client={}",
            said.local,
            access.client
        );
        ensure!(
            access.original_destination == *to,
            "the client sent to {to}, the daemon logged original_destination={}",
            access.original_destination
        );
        ensure!(
            access.destination == *service,
            "the echo service is {service}, the daemon logged destination={}",
            access.destination
        );
        Ok(())
    }

    pub(crate) fn print(&self, out: &mut impl Write) -> Result<()> {
        let Self { to, said, access, received, relay, service } = self;
        writeln!(out, "message from {CLIENT} to {to}:")?;
        writeln!(out, "  sent                  {MESSAGE:?}")?;
        writeln!(out, "  client                {}", access.client)?;
        writeln!(out, "  original destination  {}", access.original_destination)?;
        writeln!(out, "  matched rule          {}", access.rule)?;
        writeln!(out, "  received              {received:?}, by the echo service {service}, from {relay}")?;
        writeln!(out, "  reply to the client   {:?}", said.reply)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Access, Exchange, MESSAGE, Said};

    fn exchange() -> Exchange {
        let (client, server, service) = ("10.123.0.2:4000", "10.123.0.1:8080", "127.0.0.1:5000");
        Exchange {
            to: server.parse().unwrap(),
            said: Said {
                local: client.parse().unwrap(),
                peer: server.parse().unwrap(),
                reply: MESSAGE.to_owned(),
            },
            access: Access {
                client: client.parse().unwrap(),
                original_destination: server.parse().unwrap(),
                destination: service.parse().unwrap(),
                rule: "rule-1".to_owned(),
            },
            received: MESSAGE.to_owned(),
            relay: "127.0.0.1:6000".parse().unwrap(),
            service: service.parse().unwrap(),
        }
    }

    #[test]
    fn accepts_what_should_be() {
        exchange().verify().unwrap();
    }

    #[test]
    fn refuses_a_client_that_is_not_the_one_that_sent() {
        let mut wrong = exchange();
        wrong.access.client = "10.123.0.1:4000".parse().unwrap();
        assert!(wrong.verify().unwrap_err().to_string().contains("client=10.123.0.1:4000"));
    }

    #[test]
    fn refuses_another_original_destination() {
        let mut wrong = exchange();
        wrong.access.original_destination = wrong.access.destination;
        assert!(wrong.verify().is_err());
    }

    #[test]
    fn refuses_a_message_that_was_not_echoed() {
        let mut wrong = exchange();
        wrong.said.reply.clear();
        assert!(wrong.verify().is_err());
    }
}
