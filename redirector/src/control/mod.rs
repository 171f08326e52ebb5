//! The API: HTTP/1.1 and JSON on a Unix socket, its documents, its server and client. What can be asked for is in
//! [`daemon::api`](crate::daemon).
//!
//! Documents only ever gain fields.

mod apply;
mod client;
mod connection;
mod difference;
mod error;
mod explanation;
mod handoff;
mod health;
mod netfilter;
mod seats;
mod server;
mod socket;
mod stale;
mod types;
mod words;

pub use crate::locate::Caller;
pub use apply::{Applied, ApplyRequest, Change, ChangeSide, DiscoverChange, Exported, FileSet, Refusal};
pub use client::{ClientError, call, get};
pub(crate) use difference::{differences, values};
pub use error::{Code, Error, ErrorBody, ErrorDetail};
pub use explanation::{
    BystanderView, CellView, DecidedBy, ExplainRequest, ExplainedRule, Explanation, FibView, ForeignView,
    IngressView, MOST_REASONS, OnUnavailableView, ReasonView, ShadowView, Shadows, SocketView, Verdict,
};
pub use handoff::{
    ACCEPT_WITHIN, Handed, Handoff, HandoffError, LISTEN_WITHIN, LeaseNews, LeaseRequest, Leased,
    LeasedListener, Notice, handoff_path,
};
pub(crate) use handoff::{Enclosed, HandedOff, Receiver, receive_notice, send_with_fds, serve_handoff};
pub use health::{FailedDialView, HealthView};
pub use netfilter::{BaseChainView, LegacyTableView, NetfilterView};
pub(crate) use seats::Seat;
pub(crate) use server::{Body, Query, Reply, serve, to_its_end};
pub use socket::{DEFAULT_SOCKET, SocketError, SocketFile};
pub use stale::{Stale, remove_stale};
pub use types::{
    AttachRequest, AttachResult, Attached, CloseRequest, Closed, ConnectionCounts, DaemonCounts,
    DetachRequest, Detached, DiscoverView, DrainingView, Drift, LeaseView, ListenerView, Listing,
    NamespaceView, NetnsCounts, ProgramView, RefusedView, RuleCounts, RuleView, SCHEMA, WaitingView,
};
pub use words::{
    Availability, BystanderKind, CloseResult, Decider, DetachResult, IngressBy, NamespaceState, ReasonKind,
    RulesIn, Runs, ShadowedBy, SocketKind,
};
