//! The way of one accepted connection: attribute, dial, relay, end.

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, atomic::Ordering},
};

use tokio::{io::Interest, net::TcpStream};

use super::{
    lingering::LingeringSocket,
    places::{Carried, TakenPlace},
    roster::Whose,
    rules::RuleState,
    steered::{Life, Steered},
};
use crate::{
    dial::{DialError, Endpoint, Home, Onward},
    listener::{Client, OriginalDst},
    observe::{Connections, Ended, NotDelivered},
    relay::{self, End, Left, Linger, Lost, LostBytes, Settled, Stream, Totals, Traffic},
    sys,
};

/// Takes an accepted connection: refuses it here and now, or gives it a task. On the accept path, so no wait.
pub(crate) fn take(netns: &Arc<Steered>, listener: Option<SocketAddr>, stream: TcpStream, peer: SocketAddr) {
    let connections = &netns.connections;
    connections.accepted.fetch_add(1, Ordering::Relaxed);
    let client = Client(peer);
    let Ok(local) = stream.local_addr() else {
        // The client has reset it in the queue already.
        connections.count_not_delivered(NotDelivered::ClientGone);
        return;
    };
    let original = OriginalDst(local);
    if Some(local) == listener {
        refuse_unserved(netns, stream, client, original, NotDelivered::OwnListener);
        return;
    }
    let seat = match netns.share.take(peer.ip()) {
        Ok(seat) => seat,
        Err(reason) => {
            refuse_unserved(netns, stream, client, original, reason);
            return;
        }
    };
    let active = Active::new(Arc::clone(netns), seat);
    netns.tasks.spawn(serve(active, stream, client, original));
}

/// A connection that counts as active, and against the limits.
struct Active {
    netns: Arc<Steered>,
    seat: Option<TakenPlace>,
}

impl Active {
    fn new(netns: Arc<Steered>, seat: TakenPlace) -> Self {
        netns.connections.active.fetch_add(1, Ordering::Relaxed);
        Self { netns, seat: Some(seat) }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.netns.connections.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// RST, and the counters: what the client has said is lost.
fn reset_undelivered(netns: &Steered, stream: TcpStream, reason: NotDelivered) {
    let stream = Stream::from(stream);
    netns.connections.bytes_lost.fetch_add(stream.unread().into(), Ordering::Relaxed);
    netns.connections.count_not_delivered(reason);
    relay::reset(stream);
}

/// RST, a counter, one line.
fn refuse(netns: &Steered, stream: TcpStream, client: Client, original: OriginalDst, reason: NotDelivered) {
    reset_undelivered(netns, stream, reason);
    if let Some(suppressed) = netns.log_limit(reason).pass() {
        tracing::warn!(
            netns = %netns.target, %client, original_destination = %original, reason = reason.name(), suppressed,
            "connection not delivered"
        );
    }
}

/// The same before it is known whose connection it is: the rule counts it as well.
fn refuse_unserved(
    netns: &Steered,
    stream: TcpStream,
    client: Client,
    original: OriginalDst,
    reason: NotDelivered,
) {
    if let Some(state) = netns.published.load().attribute(client, original, || ingress(&stream, original)) {
        state.tally.accepted.fetch_add(1, Ordering::Relaxed);
        state.tally.not_delivered.count(reason);
    }
    refuse(netns, stream, client, original, reason);
}

async fn serve(active: Active, stream: TcpStream, client: Client, original: OriginalDst) {
    let netns = Arc::clone(&active.netns);
    let netns = &netns;
    let first = || sys::sequence::first_received(&stream);
    match netns.dialer.outgoing.find(client.0, original.0, first) {
        Ok(None) => {}
        Ok(Some(made_in)) => {
            // It would be dialled again, and accepted again, for as long as there are ports.
            tracing::debug!(netns = %netns.target, %client, %made_in, "a connection of our own came back");
            refuse_unserved(netns, stream, client, original, NotDelivered::Loop);
            return;
        }
        Err(_over) => {
            refuse_unserved(netns, stream, client, original, NotDelivered::ConnectError);
            return;
        }
    }
    let Some(state) = netns.published.load().attribute(client, original, || ingress(&stream, original))
    else {
        refuse(netns, stream, client, original, NotDelivered::Unattributed);
        return;
    };
    state.tally.accepted.fetch_add(1, Ordering::Relaxed);
    let dialled = {
        tokio::select! {
            biased;
            dialled = netns.dialer.dial(state.route(), &stream, original) => Ok(dialled),
            () = aborted(netns) => Err(NotDelivered::Aborted),
            _ = stream.ready(Interest::ERROR) => Err(NotDelivered::ClientGone),
        }
    };
    match dialled {
        Ok(Ok(onward)) => {
            state.dial_succeeded();
            carry(active, &state, stream, onward, client, original).await;
        }
        Ok(Err(error)) => not_dialled(netns, &state, stream, &error, client, original),
        Err(reason) => {
            state.tally.not_delivered.count(reason);
            refuse(netns, stream, client, original, reason);
        }
    }
}

/// By which interface a connection came.
fn ingress(stream: &TcpStream, original: OriginalDst) -> Option<u32> {
    let found = sys::socket::ingress_ifindex(stream, original.0.is_ipv6());
    let say =
        |error: &io::Error| tracing::debug!(%original, %error, "ask by which interface a connection came");
    found.inspect_err(say).ok()
}

fn not_dialled(
    netns: &Arc<Steered>,
    state: &Arc<RuleState>,
    stream: TcpStream,
    error: &DialError,
    client: Client,
    original: OriginalDst,
) {
    let DialError { reason, endpoint, source, .. } = error;
    reset_undelivered(netns, stream, *reason);
    state.tally.not_delivered.count(*reason);
    netns.dial_failed(state, error);
    if let Some(suppressed) = netns.log_limit(*reason).pass() {
        tracing::warn!(
            netns = %netns.target, rule = %state.rule.name, %client, original_destination = %original,
            destination = %endpoint, error = %source, reason = reason.name(), suppressed,
            "connection not delivered"
        );
    }
}

async fn carry(
    mut active: Active,
    state: &RuleState,
    stream: TcpStream,
    onward: Onward,
    client: Client,
    original: OriginalDst,
) {
    let netns = Arc::clone(&active.netns);
    let connections = &netns.connections;
    connections.relayed.fetch_add(1, Ordering::Relaxed);
    let Onward { stream: destination, endpoint, place, guards } = onward;
    let (first, destination) = (Arc::new(Stream::from(stream)), Arc::new(destination));
    let traffic = Traffic::of(Totals {
        from_clients: &connections.bytes_in,
        from_destinations: &connections.bytes_out,
    });
    let whose = Whose { client, rule: Arc::clone(&state.rule) };
    let carried = netns.share.roster.enter(active.seat.take(), &first, &destination, whose);
    if state.is_closed() {
        // It was taken away while this connection was made.
        carried.close();
    }
    let limits = (state.rule.idle_timeout.0, netns.limits.patience);
    let relayed = {
        tokio::select! {
            biased;
            end = relay::relay(&first, &destination, limits, &carried.clock, &traffic) => match end {
                End::Finished => Ended::Finished,
                End::ClientFailed => Ended::ClientFailed,
                End::DestinationFailed => Ended::DestinationFailed,
                End::Idle => Ended::Idle,
            },
            () = aborted(&netns) => Ended::Aborted,
            () = place.gone() => Ended::DestinationGone,
            () = carried.closed() => Ended::Closed,
            () = carried.evicted() => Ended::IdleAtLimit,
        }
    };
    let lingering = LingeringCount::begin(connections);
    drop(active);
    let client_leg = Leg { netns: &netns, carried: &carried, place: &Home::Inside };
    let destination_leg = Leg { place: &place, ..client_leg };
    let (of_client, of_destination) = match relayed {
        Ended::Finished => tokio::join!(client_leg.close(first), destination_leg.close(destination)),
        // A peer that could not be given the last words is not waited for once more.
        Ended::ClientFailed if !traffic.is_cut() => {
            let of_client = reset(first).into();
            (of_client, destination_leg.break_off(destination).await)
        }
        Ended::DestinationFailed if !traffic.is_cut() => {
            let of_destination = reset(destination).into();
            (client_leg.break_off(first).await, of_destination)
        }
        _ => (reset(first).into(), reset(destination).into()),
    };
    let lost = traffic.lost(of_client.left, of_destination.left);
    let ended = match relayed {
        Ended::Finished if lost.to_client > 0 => {
            of_client.ended(Ended::ClientFailed, Ended::ClientStalled, Ended::ClientUnanswering)
        }
        Ended::Finished if lost.to_destination > 0 => of_destination.ended(
            Ended::DestinationFailed,
            Ended::DestinationStalled,
            Ended::DestinationUnanswering,
        ),
        ended => ended,
    };
    connections.bytes_lost.fetch_add(lost.to_destination, Ordering::Relaxed);
    connections.bytes_lost_to_clients.fetch_add(lost.to_client, Ordering::Relaxed);
    connections.count_ended(ended);
    log_access(&netns, state, client, original, &endpoint, &traffic, (ended, lost));
    drop(carried);
    drop(guards);
    drop(lingering);
}

/// One of a connection's two streams, at its end.
#[derive(Clone, Copy)]
struct Leg<'a> {
    netns: &'a Steered,
    carried: &'a Carried,
    place: &'a Home,
}

/// How a stream ended.
struct LegEnd {
    how: How,
    left: Left,
}

/// Why a stream is not waited for any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Settled(Settled),
    Because(Ended),
}

impl LegEnd {
    /// What a connection ended by whose FIN both sides had been passed on: its peer had not acknowledged all.
    fn ended(&self, failed: Ended, stalled: Ended, unanswering: Ended) -> Ended {
        match self.how {
            How::Settled(Settled::Acknowledged | Settled::Failed) => failed,
            How::Settled(Settled::Lost(Lost::Stalled)) => stalled,
            How::Settled(Settled::Lost(Lost::Unanswering)) => unanswering,
            How::Because(ended) => ended,
        }
    }
}

impl Leg<'_> {
    /// Closes a stream whose both directions have ended, when its peer has acknowledged all: without leaving an orphan.
    async fn close(self, stream: Arc<Stream>) -> LegEnd {
        let how = self.settle(&stream).await;
        let left = match (how, self.place) {
            (How::Settled(Settled::Acknowledged), _) => Left::default(),
            // The kernel may finish it alone: it is in the daemon's own namespace.
            (How::Because(Ended::Aborted), Home::Outside) => Left::default(),
            _ => return LegEnd { how, left: reset(stream) },
        };
        LegEnd { how, left }
    }

    /// Resets a stream whose other side has failed, when its peer has what that side said last.
    async fn break_off(self, stream: Arc<Stream>) -> LegEnd {
        let how = self.settle(&stream).await;
        LegEnd { how, left: reset(stream) }
    }

    /// Waits until the peer has acknowledged all, or is lost, or must not be waited for any longer.
    async fn settle(self, stream: &Stream) -> How {
        let Self { netns, carried, place } = self;
        let mut linger = Linger::new(stream, netns.limits.patience);
        let mut waits: Option<LingeringSocket<'_>> = None;
        let mut given_up = pin!(given_up(netns, place, carried));
        loop {
            let outstanding = match linger.look() {
                Ok(outstanding) => outstanding,
                Err(settled) => return How::Settled(settled),
            };
            let bytes = outstanding.bytes.into();
            if outstanding.progress {
                carried.clock.touch();
            }
            match &mut waits {
                Some(waits) if outstanding.progress => waits.progressed(bytes),
                Some(_) => {}
                // What is acknowledged in no time takes no lock.
                None if !linger.has_waited() => {}
                None => {
                    waits = Some(netns.limits.lingering.enter(netns.cookie, bytes, carried.clock.last()));
                }
            }
            let crowded_out = async {
                match &waits {
                    Some(waits) => waits.crowded_out().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                ended = &mut given_up => return How::Because(ended),
                () = crowded_out => return How::Because(Ended::LingerLimit),
                () = linger.pause() => {}
            }
        }
    }
}

/// Resets a stream: at once, unless somebody looks at it this moment.
fn reset(stream: Arc<Stream>) -> Left {
    let left = stream.left();
    relay::reset_when_closed(&stream);
    drop(stream);
    left
}

impl From<Left> for LegEnd {
    fn from(left: Left) -> Self {
        Self { how: How::Settled(Settled::Failed), left }
    }
}

async fn aborted(netns: &Steered) {
    let mut life = netns.life();
    drop(life.wait_for(|life| *life == Life::Aborted).await);
}

/// Ready when a stream must not be waited for any longer: why.
async fn given_up(netns: &Steered, place: &Home, carried: &Carried) -> Ended {
    tokio::select! {
        () = aborted(netns) => Ended::Aborted,
        () = place.gone() => Ended::DestinationGone,
        () = carried.closed() => Ended::Closed,
        () = carried.evicted() => Ended::IdleAtLimit,
    }
}

/// A connection that waits for a last acknowledgement.
struct LingeringCount<'a>(&'a Connections);

impl<'a> LingeringCount<'a> {
    fn begin(connections: &'a Connections) -> Self {
        connections.lingering.fetch_add(1, Ordering::Relaxed);
        Self(connections)
    }
}

impl Drop for LingeringCount<'_> {
    fn drop(&mut self) {
        self.0.lingering.fetch_sub(1, Ordering::Relaxed);
    }
}

fn log_access(
    netns: &Steered,
    state: &RuleState,
    client: Client,
    original: OriginalDst,
    endpoint: &Endpoint,
    traffic: &Traffic<'_>,
    (ended, lost): (Ended, LostBytes),
) {
    let LostBytes { to_destination, to_client } = lost;
    tracing::debug!(
        target: "redirector::access",
        netns = %netns.target, rule = %state.rule.name, %client, original_destination = %original,
        destination = %endpoint, bytes_in = traffic.from_client.load(Ordering::Relaxed),
        bytes_out = traffic.from_destination.load(Ordering::Relaxed), ended = ended.name(),
        bytes_lost = to_destination, bytes_lost_to_client = to_client,
    );
    let is_said = ended == Ended::IdleAtLimit || to_destination + to_client > 0;
    if is_said && let Some(suppressed) = netns.log_limit_of_ends(ended).pass() {
        tracing::warn!(
            netns = %netns.target, rule = %state.rule.name, %client, original_destination = %original,
            destination = %endpoint, ended = ended.name(), bytes_lost = to_destination,
            bytes_lost_to_client = to_client, suppressed, "connection reset"
        );
    }
}
