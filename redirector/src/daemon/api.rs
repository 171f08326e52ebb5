//! What the daemon can be asked for: HTTP/1.1 and JSON on the control socket, and listeners on the hand-off socket.
//!
//! | request | body or query | answer |
//! | --- | --- | --- |
//! | `GET /v1/namespaces` | `?target=TARGET` or nothing | [`Listing`] |
//! | `POST /v1/attach` | [`AttachRequest`] | [`Attached`] |
//! | `POST /v1/detach` | [`DetachRequest`] | [`Detached`] |
//! | `POST /v1/close` | [`CloseRequest`] | [`Closed`] |
//! | `POST /v1/apply` | [`ApplyRequest`] | [`Applied`] |
//! | `GET /v1/export` | | [`Exported`] |
//! | `POST /v1/explain` | [`ExplainRequest`] | [`Explanation`] |
//! | `GET /v1/shadowed` | `?target=TARGET` | [`Shadows`] |
//!
//! An error is [`ErrorBody`](crate::control::ErrorBody) with status 400 (the request is wrong), 404 (no such namespace or rule)
//! or 500.

use std::{
    convert::Infallible,
    io,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering},
};

use axum::{
    Extension, Json, Router,
    extract::{ConnectInfo, DefaultBodyLimit, Request, State},
    routing::{get, post},
};
use tokio::net::UnixListener;

use super::Daemon;
use crate::{
    config::{Target, file::MAX_SIZE},
    control::{
        self, Applied, ApplyRequest, AttachRequest, Attached, Body, Caller, CloseRequest, Closed, Code,
        DetachRequest, Detached, Error, ExplainRequest, Explanation, Exported, Listing, Query, Reply, Seat,
        Shadows, to_its_end,
    },
    reconcile::{self, World},
    report,
};

/// A file of the largest size, in JSON.
const MAX_FILE: usize = 4 * MAX_SIZE;

impl Daemon {
    /// Serves the control socket until `stop` is ready, then finishes the requests under way.
    pub async fn serve(self: Arc<Self>, listener: UnixListener, stop: impl Future<Output = ()>) {
        let router = Router::new()
            .route("/v1/namespaces", get(list))
            .route("/v1/attach", post(attach))
            .route("/v1/detach", post(detach))
            .route("/v1/close", post(close))
            .route("/v1/apply", post(apply).layer(DefaultBodyLimit::max(MAX_FILE)))
            .route("/v1/export", get(export))
            .route("/v1/explain", post(explain))
            .route("/v1/shadowed", get(shadowed))
            .fallback(unknown)
            .method_not_allowed_fallback(unknown)
            .with_state(self);
        control::serve(listener, router, stop).await;
    }

    /// The world, for somebody who asks for something. That takes memory, the more the more there is.
    fn asked(&self) -> &Arc<World> {
        self.asked.store(true, Ordering::Relaxed);
        &self.world
    }

    /// Serves the hand-off socket for ever.
    ///
    /// # Errors
    ///
    /// As accept(2).
    pub async fn serve_handoff(self: Arc<Self>, listener: OwnedFd) -> io::Result<()> {
        let lease = move |receiver, request| {
            let world = Arc::clone(&self.world);
            async move { reconcile::lease(&world, receiver, request).await }
        };
        control::serve_handoff(listener, lease).await
    }

    /// Applies a file, as `POST /v1/apply`.
    pub(crate) async fn apply(&self, caller: Caller, request: ApplyRequest) -> Result<Applied, Error> {
        reconcile::apply(self.asked(), caller, request).await
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    target: Option<Target>,
}

async fn list(
    State(daemon): State<Arc<Daemon>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Query(ListQuery { target }): Query<ListQuery>,
) -> Reply<Listing> {
    report::listing(daemon.asked(), caller, target).await.map(Json)
}

async fn attach(
    State(daemon): State<Arc<Daemon>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Extension(seat): Extension<Arc<Seat>>,
    Body(request): Body<AttachRequest>,
) -> Reply<Attached> {
    to_its_end(seat, async move { reconcile::attach(daemon.asked(), caller, request).await }).await
}

async fn detach(
    State(daemon): State<Arc<Daemon>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Extension(seat): Extension<Arc<Seat>>,
    Body(request): Body<DetachRequest>,
) -> Reply<Detached> {
    to_its_end(seat, async move { reconcile::detach(daemon.asked(), caller, request).await }).await
}

async fn close(
    State(daemon): State<Arc<Daemon>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Body(request): Body<CloseRequest>,
) -> Reply<Closed> {
    reconcile::close(&daemon.world, caller, request).await.map(Json)
}

async fn apply(
    State(daemon): State<Arc<Daemon>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Extension(seat): Extension<Arc<Seat>>,
    Body(request): Body<ApplyRequest>,
) -> Reply<Applied> {
    to_its_end(seat, async move { daemon.apply(caller, request).await }).await
}

async fn export(
    State(daemon): State<Arc<Daemon>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
) -> Reply<Exported> {
    Ok(Json(report::exported(daemon.asked(), caller).await))
}

async fn explain(
    State(daemon): State<Arc<Daemon>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Body(request): Body<ExplainRequest>,
) -> Reply<Explanation> {
    report::explanation(daemon.asked(), caller, request).await.map(Json)
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ShadowedQuery {
    target: Target,
}

async fn shadowed(
    State(daemon): State<Arc<Daemon>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Query(ShadowedQuery { target }): Query<ShadowedQuery>,
) -> Reply<Shadows> {
    report::shadows(daemon.asked(), &daemon.shadowing, caller, target).await.map(Json)
}

async fn unknown(request: Request) -> Result<Infallible, Error> {
    let what = format!("`{} {}`: no such request", request.method(), request.uri().path().escape_debug());
    Err(Error::new(Code::NotFound, what))
}
