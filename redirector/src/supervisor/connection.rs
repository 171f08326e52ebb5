//! The way of one accepted connection: attribute, dial, relay, end.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use tokio::{io::Interest, net::TcpStream, sync::OwnedSemaphorePermit};

use super::{
    namespace::{Life, Namespace},
    onward::{DialError, Endpoint, Onward, Place},
    rules::RuleState,
};
use crate::{
    listener::{Client, OriginalDst},
    observe::{Connections, Ended, NotDelivered},
    relay::{self, End, Stream, Traffic},
    sys,
};

/// Ended connections of one namespace that are kept until their peer has acknowledged all. One more is reset.
const MAX_LINGERING: u64 = 1024;

/// Takes an accepted connection: refuses it here and now, or gives it a task. On the accept path, so no wait.
pub(super) fn take(
    netns: &Arc<Namespace>,
    listener: Option<SocketAddr>,
    stream: TcpStream,
    peer: SocketAddr,
) {
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
        refuse(netns, stream, client, original, NotDelivered::OwnListener);
        return;
    }
    let permit = if connections.active.load(Ordering::Relaxed) < netns.limits.per_namespace {
        Arc::clone(&netns.limits.total).try_acquire_owned().ok()
    } else {
        None
    };
    let Some(permit) = permit else {
        refuse(netns, stream, client, original, NotDelivered::ConnectionLimit);
        return;
    };
    let active = Active::new(Arc::clone(netns), permit);
    netns.tasks.spawn(serve(active, stream, client, original));
}

/// A connection that counts as active, and against the limits.
struct Active {
    netns: Arc<Namespace>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Active {
    fn new(netns: Arc<Namespace>, permit: OwnedSemaphorePermit) -> Self {
        netns.connections.active.fetch_add(1, Ordering::Relaxed);
        Self { netns, permit: Some(permit) }
    }

    /// Not active any more, but still there: against the limit of all namespaces it goes on to count.
    fn end(mut self) -> Option<OwnedSemaphorePermit> {
        self.permit.take()
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.netns.connections.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// RST, and the counters: what the client has said is lost.
fn reset_undelivered(netns: &Namespace, stream: TcpStream, reason: NotDelivered) {
    let stream = Stream::Tcp(stream);
    netns.connections.bytes_lost.fetch_add(stream.unread().into(), Ordering::Relaxed);
    netns.connections.count_not_delivered(reason);
    relay::reset(stream);
}

/// RST, a counter, one line.
fn refuse(netns: &Namespace, stream: TcpStream, client: Client, original: OriginalDst, reason: NotDelivered) {
    reset_undelivered(netns, stream, reason);
    if let Some(suppressed) = netns.log_limit(reason).pass() {
        tracing::warn!(
            netns = %netns.target, %client, original_destination = %original, reason = reason.name(), suppressed,
            "connection not delivered"
        );
    }
}

async fn serve(active: Active, stream: TcpStream, client: Client, original: OriginalDst) {
    let netns = Arc::clone(&active.netns);
    let netns = &netns;
    if netns.dialer.outgoing.contains(client.0) {
        // It would be dialled again, and accepted again, for as long as there are ports.
        refuse(netns, stream, client, original, NotDelivered::Loop);
        return;
    }
    let Some(state) = netns.published.load().attribute(client, original, || ingress(&stream, original))
    else {
        refuse(netns, stream, client, original, NotDelivered::Unattributed);
        return;
    };
    let dialled = {
        tokio::select! {
            biased;
            dialled = netns.dialer.dial(&state, &stream, original) => Ok(dialled),
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
        Err(reason) => refuse(netns, stream, client, original, reason),
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
    netns: &Arc<Namespace>,
    state: &Arc<RuleState>,
    stream: TcpStream,
    error: &DialError,
    client: Client,
    original: OriginalDst,
) {
    let DialError { reason, endpoint, source } = error;
    reset_undelivered(netns, stream, *reason);
    netns.dial_failed(state, *reason);
    if let Some(suppressed) = netns.log_limit(*reason).pass() {
        tracing::warn!(
            netns = %netns.target, rule = %state.rule.name, %client, original_destination = %original,
            destination = %endpoint, error = %source, reason = reason.name(), suppressed,
            "connection not delivered"
        );
    }
}

async fn carry(
    active: Active,
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
    let first = Stream::Tcp(stream);
    let traffic = Traffic::of((&connections.bytes_in, &connections.bytes_out));
    let ended = {
        tokio::select! {
            biased;
            end = relay::relay(&first, &destination, state.rule.idle_timeout.0, &traffic) => match end {
                End::Finished => Ended::Finished,
                End::ClientFailed => Ended::ClientFailed,
                End::DestinationFailed => Ended::DestinationFailed,
                End::Idle => Ended::Idle,
            },
            () = aborted(&netns) => Ended::Aborted,
            () = place.gone() => Ended::DestinationGone,
        }
    };
    connections.count_ended(ended);
    if ended != Ended::Finished {
        connections.bytes_lost.fetch_add(traffic.lost(&first, &destination), Ordering::Relaxed);
    }
    log_access(&netns, state, client, original, &endpoint, &traffic, ended);
    let _permit = active.end();
    match ended {
        Ended::Finished => {
            tokio::join!(close(&netns, first, &Place::Inside), async {
                match place {
                    // The kernel may finish it alone.
                    Place::Outside => drop(destination),
                    Place::Inside | Place::Remote(_) => close(&netns, destination, &place).await,
                }
            });
        }
        Ended::ClientFailed => {
            relay::reset(first);
            break_off(&netns, destination, &place).await;
        }
        Ended::DestinationFailed => {
            relay::reset(destination);
            break_off(&netns, first, &Place::Inside).await;
        }
        Ended::Idle | Ended::Aborted | Ended::DestinationGone => {
            relay::reset(first);
            relay::reset(destination);
        }
    }
    drop(guards);
}

/// Closes a stream of somebody's namespace without leaving an orphan there.
async fn close(netns: &Namespace, stream: Stream, place: &Place) {
    match Lingering::begin(&netns.connections) {
        Some(_lingering) => relay::linger(stream, given_up(netns, place)).await,
        None => relay::reset(stream),
    }
}

/// Resets a stream whose other side has failed, when its peer has what that side said last.
async fn break_off(netns: &Namespace, stream: Stream, place: &Place) {
    match Lingering::begin(&netns.connections) {
        Some(_lingering) => relay::reset_after_last_words(stream, given_up(netns, place)).await,
        None => relay::reset(stream),
    }
}

async fn aborted(netns: &Namespace) {
    let mut life = netns.life();
    drop(life.wait_for(|life| *life == Life::Aborted).await);
}

/// Ready when a stream must not be waited for any longer.
async fn given_up(netns: &Namespace, place: &Place) {
    tokio::select! {
        () = aborted(netns) => {}
        () = place.gone() => {}
    }
}

/// A place among those that wait for a last acknowledgement.
struct Lingering<'a>(&'a Connections);

impl<'a> Lingering<'a> {
    /// `None`: there are [`MAX_LINGERING`] already.
    fn begin(connections: &'a Connections) -> Option<Self> {
        let place = Self(connections);
        (connections.lingering.fetch_add(1, Ordering::Relaxed) < MAX_LINGERING).then_some(place)
    }
}

impl Drop for Lingering<'_> {
    fn drop(&mut self) {
        self.0.lingering.fetch_sub(1, Ordering::Relaxed);
    }
}

fn log_access(
    netns: &Namespace,
    state: &RuleState,
    client: Client,
    original: OriginalDst,
    endpoint: &Endpoint,
    traffic: &Traffic<'_>,
    ended: Ended,
) {
    tracing::debug!(
        target: "redirector::access",
        netns = %netns.target, rule = %state.rule.name, %client, original_destination = %original,
        destination = %endpoint, bytes_in = traffic.from_client.load(Ordering::Relaxed),
        bytes_out = traffic.from_destination.load(Ordering::Relaxed), ended = ended.name(),
    );
}
