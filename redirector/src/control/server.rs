//! The server half: who is let in, and what a request and its answer are in HTTP. The routes are given.

use std::{future::Future, io, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use serde::de::DeserializeOwned;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
};
use tokio_util::task::TaskTracker;

use super::{
    Code, Error, ErrorBody,
    connection::{self, LIMITS},
    seats::{Seat, Seats},
};
use crate::locate::Caller;

/// Who is at the other end.
fn caller(stream: &UnixStream) -> Caller {
    let peer = stream.peer_cred().ok();
    Caller { pid: peer.and_then(|peer| peer.pid()).filter(|pid| *pid > 0), uid: peer.map(|peer| peer.uid()) }
}

/// Serves until `stop` is ready, then finishes the requests under way.
pub(crate) async fn serve(listener: UnixListener, router: Router, stop: impl Future<Output = ()>) {
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

/// What a request is answered with.
pub(crate) type Reply<T> = Result<Json<T>, Error>;

/// The document in a request's body. A request whose body is no such document is answered with an error.
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|error| Error::chain(Code::Usage, &error))?;
        let document = serde_json::from_slice(&body);
        document.map(Self).map_err(|error| Error::new(Code::Usage, format!("request body: {error}")))
    }
}

/// What a request's path has behind its question mark. A request with anything else there is answered with an error.
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let query = axum::extract::Query::from_request_parts(parts, state).await;
        query
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|error| Error::chain(Code::Usage, &error))
    }
}

/// Makes a change in a task of its own: a client that hangs up does not leave its change half done. Nor does it leave its seat
/// to others before that, or there would be no bound to what is worked on.
pub(crate) async fn to_its_end<T: Send + 'static>(
    seat: Arc<Seat>,
    change: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Reply<T> {
    let task = tokio::spawn(async move {
        let done = change.await;
        drop(seat);
        done
    });
    task.await.unwrap_or_else(|error| Err(Error::chain(Code::Failed, &error))).map(Json)
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = match self.code {
            Code::Usage => StatusCode::BAD_REQUEST,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(ErrorBody::from(self))).into_response()
    }
}
