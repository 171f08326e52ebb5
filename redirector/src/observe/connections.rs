//! What became of the connections of one namespace.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

/// Defines an enum of reasons with the names that users see.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name in output and metrics; never changed.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

reasons! {
    /// Why an accepted connection did not reach its destination. The client saw RST.
    NotDelivered {
        /// Its original destination was our own listener.
        OwnListener = "own_listener",
        /// Its client is this daemon: a destination leads back to a steered namespace.
        Loop = "loop",
        /// No rule in force takes it.
        Unattributed = "unattributed",
        /// As many connections as the limits allow.
        ConnectionLimit = "connection_limit",
        /// As many connections as one client's address may have.
        ClientLimit = "client_limit",
        /// `ECONNREFUSED`.
        ConnectRefused = "connect_refused",
        /// The rule's connect time-out, or `ETIMEDOUT`.
        ConnectTimeout = "connect_timeout",
        /// `ENETUNREACH`, `EHOSTUNREACH`.
        Unreachable = "unreachable",
        /// The name of the destination has no address.
        Unresolved = "unresolved",
        /// The namespace of the destination is gone.
        NamespaceGone = "destination_namespace_gone",
        /// The path of a `unix:` destination leads to a control socket of redirector.
        OwnSocket = "own_socket",
        /// No port is free on the original destination's address.
        NoSourcePort = "no_source_port",
        /// As many local onward connections as the bypass map holds.
        BypassFull = "bypass_full",
        /// `EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`, `EAGAIN`, `ENOSPC`.
        OutOfSockets = "out_of_sockets",
        /// Any other errno.
        ConnectError = "connect_error",
        /// The client was gone before the destination answered.
        ClientGone = "client_gone",
        /// The daemon's drain deadline, or the namespace's death, came first.
        Aborted = "aborted",
    }
}

reasons! {
    /// How a connection that reached its destination ended.
    Ended {
        /// With FIN from both sides.
        Finished = "finished",
        /// The client reset it or vanished.
        ClientFailed = "client_failed",
        /// The destination reset it or vanished.
        DestinationFailed = "destination_failed",
        /// The rule's idle time-out.
        Idle = "idle_timeout",
        /// The daemon's drain deadline, or the namespace's death.
        Aborted = "aborted",
        /// The death of the namespace that its destination lies in.
        DestinationGone = "destination_namespace_gone",
        /// Somebody has closed it: `close`, or `detach --close`.
        Closed = "closed",
        /// It had been idle longest when a limit of connections was met.
        IdleAtLimit = "idle_at_limit",
        /// With FIN from both sides, but the client, though it answers, has not acknowledged a byte of the rest for ten minutes.
        ClientStalled = "client_stalled",
        /// With FIN from both sides, but the client has not answered for half a minute while it was sent the rest.
        ClientUnanswering = "client_unanswering",
        /// As `client_stalled`, of the destination.
        DestinationStalled = "destination_stalled",
        /// As `client_unanswering`, of the destination.
        DestinationUnanswering = "destination_unanswering",
        /// With FIN from both sides, but too many bytes waited for slow peers, and this one had stood still longest.
        LingerLimit = "linger_limit",
    }
}

impl NotDelivered {
    /// The same for people, a phrase.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::OwnListener => "its destination was redirector's own listener",
            Self::Loop => "its destination leads back to redirector",
            Self::Unattributed => "no rule in force takes it",
            Self::ConnectionLimit => "too many connections",
            Self::ClientLimit => "too many connections of one client",
            Self::ConnectRefused => "connection refused",
            Self::ConnectTimeout => "no answer in time",
            Self::Unreachable => "no route to the destination",
            Self::Unresolved => "the destination's name has no address",
            Self::NamespaceGone => "the destination's namespace is gone",
            Self::OwnSocket => "the destination is redirector's own socket",
            Self::NoSourcePort => "no free port on the original destination's address",
            Self::BypassFull => "too many local onward connections",
            Self::OutOfSockets => "out of sockets or memory",
            Self::ConnectError => "cannot connect",
            Self::ClientGone => "the client went away",
            Self::Aborted => "ended with the daemon or the namespace",
        }
    }
}

/// How many connections were not delivered, by reason.
#[derive(Debug, Default)]
pub struct NotDeliveredCounts([AtomicU64; NotDelivered::ALL.len()]);

impl NotDeliveredCounts {
    /// One more that was not delivered.
    pub fn count(&self, reason: NotDelivered) {
        self.0[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// By reason, without those that never came.
    #[must_use]
    pub fn nonzero(&self) -> BTreeMap<String, u64> {
        nonzero(NotDelivered::ALL.iter().map(|reason| reason.name()).zip(&self.0))
    }
}

/// Counters of one namespace.
#[derive(Debug, Default)]
pub struct Connections {
    /// Accepted and not yet ended.
    pub active: AtomicU64,
    /// Both sides have ended, but one has not yet acknowledged all: kept so as not to make orphans, and not counted as
    /// ended until it is known how.
    pub lingering: AtomicU64,
    /// Accepted from the listeners.
    pub accepted: AtomicU64,
    /// Reached their destination.
    pub relayed: AtomicU64,
    /// Bytes from clients.
    pub bytes_in: AtomicU64,
    /// Bytes from destinations.
    pub bytes_out: AtomicU64,
    /// Bytes that clients' TCP knows to have arrived, and that did not get to a destination.
    pub bytes_lost: AtomicU64,
    /// Bytes that destinations' TCP knows to have arrived, and that did not get to a client.
    pub bytes_lost_to_clients: AtomicU64,
    /// accept(2) found no fd or no memory.
    pub accept_exhausted: AtomicU64,
    not_delivered: NotDeliveredCounts,
    ended: [AtomicU64; Ended::ALL.len()],
}

impl Connections {
    /// One more that was not delivered.
    pub fn count_not_delivered(&self, reason: NotDelivered) {
        self.not_delivered.count(reason);
    }

    /// One more that ended.
    pub fn count_ended(&self, how: Ended) {
        self.ended[how as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// By reason, without those that never came.
    #[must_use]
    pub fn not_delivered(&self) -> BTreeMap<String, u64> {
        self.not_delivered.nonzero()
    }

    /// By way of ending, without those that never came.
    #[must_use]
    pub fn ended(&self) -> BTreeMap<String, u64> {
        nonzero(Ended::ALL.iter().map(|how| how.name()).zip(&self.ended))
    }
}

fn nonzero<'a>(counters: impl Iterator<Item = (&'static str, &'a AtomicU64)>) -> BTreeMap<String, u64> {
    counters
        .map(|(name, counter)| (name.to_owned(), counter.load(Ordering::Relaxed)))
        .filter(|(_, count)| *count > 0)
        .collect()
}
