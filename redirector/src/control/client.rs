//! The client half: one request, one answer.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use super::{Error, ErrorBody};

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers on the socket.
    #[error("control socket `{path}`: the daemon cannot be reached: {source}")]
    Unreachable {
        /// The socket.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It broke off in between.
    #[error("control socket `{path}`: {source}")]
    Broken {
        /// The socket.
        path: String,
        /// Why.
        source: anyhow::Error,
    },
    /// The daemon says no.
    #[error(transparent)]
    Refused(Error),
}

/// The longest that an answer may take; an attach takes milliseconds, a file as long as what it names.
const DEADLINE: Duration = Duration::from_secs(300);

/// `GET`.
///
/// # Errors
///
/// [`ClientError`].
pub async fn get<A: DeserializeOwned>(socket: &Path, path: &str) -> Result<A, ClientError> {
    request(socket, Method::GET, path, Vec::new()).await
}

/// `POST` with a JSON body.
///
/// # Errors
///
/// [`ClientError`].
pub async fn call<A: DeserializeOwned>(
    socket: &Path,
    path: &str,
    body: &(impl Serialize + Sync),
) -> Result<A, ClientError> {
    let body = serde_json::to_vec(body).map_err(|error| broken(socket, error.into()))?;
    request(socket, Method::POST, path, body).await
}

fn broken(socket: &Path, source: anyhow::Error) -> ClientError {
    ClientError::Broken { path: socket.display().to_string(), source }
}

async fn request<A: DeserializeOwned>(
    socket: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<A, ClientError> {
    let stream = connect(socket)
        .await
        .map_err(|source| ClientError::Unreachable { path: socket.display().to_string(), source })?;
    let (status, body) = tokio::time::timeout(DEADLINE, exchange(stream, method, path, body))
        .await
        .map_err(|elapsed| broken(socket, elapsed.into()))?
        .map_err(|error| broken(socket, error))?;
    if status == StatusCode::OK {
        return serde_json::from_slice(&body).map_err(|error| broken(socket, error.into()));
    }
    let ErrorBody { schema: _, error } =
        serde_json::from_slice(&body).map_err(|error| broken(socket, error.into()))?;
    Err(ClientError::Refused(error.into()))
}

/// Connects, and waits for that where so many do that there is no place in the socket's queue.
async fn connect(socket: &Path) -> io::Result<UnixStream> {
    let start = Instant::now();
    loop {
        match UnixStream::connect(socket).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && start.elapsed() < DEADLINE => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            result => return result,
        }
    }
}

async fn exchange(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "redirector")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::from(body)))?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        answer = &mut answer => answer,
        done = &mut connection => {
            done?;
            answer.await
        }
    }
}
