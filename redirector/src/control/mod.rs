//! The API: HTTP/1.1 and JSON on a Unix socket.
//!
//! | request | body or query | answer |
//! | --- | --- | --- |
//! | `GET /v1/namespaces` | `?target=TARGET` or nothing | [`Listing`] |
//! | `POST /v1/attach` | [`AttachRequest`] | [`Attached`] |
//! | `POST /v1/detach` | [`DetachRequest`] | [`Detached`] |
//! | `POST /v1/apply` | [`ApplyRequest`] | [`Applied`] |
//! | `GET /v1/export` | | [`Exported`] |
//! | `POST /v1/explain` | [`ExplainRequest`] | [`Explanation`] |
//! | `GET /v1/shadowed` | `?target=TARGET` | [`Shadows`] |
//!
//! An error is [`ErrorBody`] with status 400 (the request is wrong), 404 (no such namespace or rule) or 500.
//! Documents only ever gain fields.

mod apply;
mod client;
mod connection;
mod error;
mod explanation;
mod handoff;
mod seats;
mod server;
mod socket;
mod stale;
mod types;

pub use crate::locate::Caller;
pub use apply::{Applied, ApplyRequest, Change, DiscoverChange, Exported, Refusal, RuleState};
pub use client::{ClientError, call, get};
pub use error::{Code, Error, ErrorBody, ErrorDetail};
pub use explanation::{
    CellView, DecidedBy, ExplainRequest, ExplainedRule, Explanation, FibView, ForeignView, IngressView,
    MOST_REASONS, OnUnavailableView, ReasonView, ShadowView, Shadows, SocketView, Verdict,
};
pub use handoff::{
    Enclosed, Handoff, HandoffError, LeaseKeeper, LeaseRequest, Leased, LeasedListener, Leases, Receiver,
    handoff_path, serve_handoff,
};
pub use server::{Api, serve};
pub use socket::{DEFAULT_SOCKET, SocketError, SocketFile};
pub use stale::{Stale, remove_stale};
pub use types::{
    AttachRequest, AttachResult, Attached, ConnectionCounts, DaemonCounts, DetachRequest, Detached,
    DiscoverView, Draining, Drift, LeaseView, ListenerView, Listing, NamespaceView, NetnsCounts, ProgramView,
    RefusedView, RuleCounts, RuleView, SCHEMA, WaitingView,
};
