//! The server half: routes, and errors as documents.

use std::{convert::Infallible, future::Future, io, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{
        ConnectInfo, DefaultBodyLimit, Query, Request, State,
        rejection::{BytesRejection, QueryRejection},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
};
use tokio_util::task::TaskTracker;

use super::{
    Applied, ApplyRequest, AttachRequest, Attached, Code, DetachRequest, Detached, Error, ErrorBody,
    ExplainRequest, Explanation, Exported, Listing, Shadows,
    connection::{self, LIMITS},
    seats::{Seat, Seats},
};
use crate::{
    config::{Target, file::MAX_SIZE},
    locate::Caller,
};

/// A file of the largest size, in JSON.
const MAX_FILE: usize = 4 * MAX_SIZE;

/// Who is at the other end.
fn caller(stream: &UnixStream) -> Caller {
    let peer = stream.peer_cred().ok();
    Caller { pid: peer.and_then(|peer| peer.pid()).filter(|pid| *pid > 0), uid: peer.map(|peer| peer.uid()) }
}

/// What the daemon can be asked for.
pub trait Api: Send + Sync + 'static {
    /// `POST /v1/attach`.
    fn attach(
        self: Arc<Self>,
        caller: Caller,
        request: AttachRequest,
    ) -> impl Future<Output = Result<Attached, Error>> + Send;

    /// `POST /v1/detach`.
    fn detach(
        self: Arc<Self>,
        caller: Caller,
        request: DetachRequest,
    ) -> impl Future<Output = Result<Detached, Error>> + Send;

    /// `POST /v1/apply`.
    fn apply(
        self: Arc<Self>,
        caller: Caller,
        request: ApplyRequest,
    ) -> impl Future<Output = Result<Applied, Error>> + Send;

    /// `GET /v1/export`.
    fn export(self: Arc<Self>, caller: Caller) -> impl Future<Output = Result<Exported, Error>> + Send;

    /// `GET /v1/namespaces[?target=TARGET]`.
    fn list(
        self: Arc<Self>,
        caller: Caller,
        target: Option<Target>,
    ) -> impl Future<Output = Result<Listing, Error>> + Send;

    /// `POST /v1/explain`.
    fn explain(
        self: Arc<Self>,
        caller: Caller,
        request: ExplainRequest,
    ) -> impl Future<Output = Result<Explanation, Error>> + Send;

    /// `GET /v1/shadowed?target=TARGET`.
    fn shadowed(
        self: Arc<Self>,
        caller: Caller,
        target: Target,
    ) -> impl Future<Output = Result<Shadows, Error>> + Send;
}

/// Serves until `stop` is ready, then finishes the requests under way.
pub async fn serve<A: Api>(listener: UnixListener, api: Arc<A>, stop: impl Future<Output = ()>) {
    let router = router(api);
    let seats = Arc::<Seats>::default();
    let connections = TaskTracker::new();
    let (stopping, stopped) = watch::channel(());
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let seat = seats.take().await;
                    let caller = caller(&stream);
                    let mut stopped = stopped.clone();
                    let stop = async move { drop(stopped.changed().await) };
                    connections.spawn(connection::serve(stream, caller, router.clone(), seat, LIMITS, stop));
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "accept on the control socket; trying again in a moment");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = stop => {}
    }
    drop((listener, stopping));
    connections.close();
    connections.wait().await;
}

fn router<A: Api>(api: Arc<A>) -> Router {
    Router::new()
        .route("/v1/namespaces", get(list::<A>))
        .route("/v1/attach", post(attach::<A>))
        .route("/v1/detach", post(detach::<A>))
        .route("/v1/apply", post(apply::<A>).layer(DefaultBodyLimit::max(MAX_FILE)))
        .route("/v1/export", get(export::<A>))
        .route("/v1/explain", post(explain::<A>))
        .route("/v1/shadowed", get(shadowed::<A>))
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .with_state(api)
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    target: Option<Target>,
}

async fn list<A: Api>(
    State(api): State<Arc<A>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Response {
    match query {
        Ok(Query(ListQuery { target })) => respond(api.list(caller, target).await),
        Err(error) => Error::chain(Code::Usage, &error).into_response(),
    }
}

async fn attach<A: Api>(
    State(api): State<Arc<A>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Extension(seat): Extension<Arc<Seat>>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    match parse(body) {
        Ok(request) => respond(to_its_end(seat, api.attach(caller, request)).await),
        Err(error) => error.into_response(),
    }
}

async fn detach<A: Api>(
    State(api): State<Arc<A>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Extension(seat): Extension<Arc<Seat>>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    match parse(body) {
        Ok(request) => respond(to_its_end(seat, api.detach(caller, request)).await),
        Err(error) => error.into_response(),
    }
}

async fn apply<A: Api>(
    State(api): State<Arc<A>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Extension(seat): Extension<Arc<Seat>>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    match parse(body) {
        Ok(request) => respond(to_its_end(seat, api.apply(caller, request)).await),
        Err(error) => error.into_response(),
    }
}

async fn export<A: Api>(State(api): State<Arc<A>>, ConnectInfo(caller): ConnectInfo<Caller>) -> Response {
    respond(api.export(caller).await)
}

async fn explain<A: Api>(
    State(api): State<Arc<A>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    match parse(body) {
        Ok(request) => respond(api.explain(caller, request).await),
        Err(error) => error.into_response(),
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ShadowedQuery {
    target: Target,
}

async fn shadowed<A: Api>(
    State(api): State<Arc<A>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    query: Result<Query<ShadowedQuery>, QueryRejection>,
) -> Response {
    match query {
        Ok(Query(ShadowedQuery { target })) => respond(api.shadowed(caller, target).await),
        Err(error) => Error::chain(Code::Usage, &error).into_response(),
    }
}

/// In a task of its own: a client that hangs up does not leave its change half done. Nor does it leave its seat to others
/// before that, or there would be no bound to what is worked on.
async fn to_its_end<T: Send + 'static>(
    seat: Arc<Seat>,
    change: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    let task = tokio::spawn(async move {
        let done = change.await;
        drop(seat);
        done
    });
    task.await.unwrap_or_else(|error| Err(Error::chain(Code::Failed, &error)))
}

async fn unknown(request: Request) -> Result<Infallible, Error> {
    let what = format!("`{} {}`: no such request", request.method(), request.uri().path().escape_debug());
    Err(Error::new(Code::NotFound, what))
}

fn parse<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Error> {
    let body = body.map_err(|error| Error::chain(Code::Usage, &error))?;
    serde_json::from_slice(&body).map_err(|error| Error::new(Code::Usage, format!("request body: {error}")))
}

fn respond<T: Serialize>(result: Result<T, Error>) -> Response {
    result.map(axum::Json).into_response()
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = match self.code {
            Code::Usage => StatusCode::BAD_REQUEST,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, axum::Json(ErrorBody::from(self))).into_response()
    }
}
