//! One connection to the control socket, within its limits of time.
//!
//! A request that has come whole is worked on for as long as that takes. [`TimeLimits`] are for what its client does.

use std::{
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::ConnectInfo,
};
use hyper::{
    Request,
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
    time::{Instant, Sleep, sleep},
};

use super::{
    Caller,
    seats::{Seat, SeatState},
};

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeLimits {
    /// From the connection's begin, or the answer before, to the last byte of a request's head.
    ask: Duration,
    /// For a body, whatever its size.
    body: Duration,
    /// For the next piece of a body.
    still: Duration,
    /// To take more of its answer.
    unread: Duration,
}

/// Everybody's.
pub(super) const LIMITS: TimeLimits = TimeLimits {
    ask: Duration::from_secs(10),
    body: Duration::from_secs(60),
    still: Duration::from_secs(10),
    unread: Duration::from_secs(30),
};

/// The head of a request, in bytes: a path with a target in it is the most.
const MAX_HEAD: usize = 64 << 10;

/// Serves one client until it goes, is too slow, or its seat is wanted. After `stop` it finishes the request under way.
pub(super) async fn serve(
    stream: UnixStream,
    caller: Caller,
    router: Router,
    seat: Seat,
    limits: TimeLimits,
    stop: impl Future<Output = ()>,
) {
    let router = TowerToHyperService::new(router);
    let seat = Arc::new(seat);
    let asked = Arc::clone(&seat);
    let service = service_fn(move |request: Request<Incoming>| {
        let state = asked.state();
        let mut request = request.map(|body| Body::new(TimedBody::new(body, Arc::clone(&state), limits)));
        request.extensions_mut().insert(ConnectInfo(caller));
        request.extensions_mut().insert(Arc::clone(&asked));
        let answer = router.call(request);
        async move {
            let answer = answer.await;
            state.worked();
            answer
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.ask)
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_HEAD);
    let stream = TokioIo::new(Impatient { stream, limit: limits.unread, stalled: None });
    let mut connection = pin!(builder.serve_connection(stream, service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = seat.wanted() => return tracing::debug!("control connection: it was idle, and its seat is wanted"),
        () = stop => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = &error as &dyn std::error::Error, "control connection");
    }
}

/// A request's body that has to come in time. When it is whole, the request is worked on.
struct TimedBody {
    body: Incoming,
    state: Arc<SeatState>,
    still: Duration,
    /// When it must be whole.
    end: Instant,
    next: Pin<Box<Sleep>>,
}

impl TimedBody {
    fn new(body: Incoming, state: Arc<SeatState>, TimeLimits { body: most, still, .. }: TimeLimits) -> Self {
        if body.is_end_stream() {
            state.works();
        }
        Self { body, state, still, end: Instant::now() + most, next: Box::pin(sleep(still.min(most))) }
    }
}

impl HttpBody for TimedBody {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            ready!(self.next.as_mut().poll(context));
            return Poll::Ready(Some(Err("it did not come in time".into())));
        };
        if frame.is_none() || self.body.is_end_stream() {
            self.state.works();
        }
        let next = (Instant::now() + self.still).min(self.end);
        self.next.as_mut().reset(next);
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A client that has to take what it is sent.
struct Impatient {
    stream: UnixStream,
    limit: Duration,
    /// While nothing can be written.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    /// The result of a write, or an error when the last one that did something is too long ago.
    fn judge(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::control::seats::Seats;

    /// Short ones; only what is waited for in a test must be.
    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(1000);
    const PATIENT: TimeLimits = TimeLimits { ask: LONG, body: LONG, still: LONG, unread: LONG };

    /// A client of a server with these limits, which ends when the connection does.
    async fn client(limits: TimeLimits) -> (UnixStream, tokio::task::JoinHandle<()>, Arc<AtomicUsize>) {
        let worked = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&worked);
        let router = Router::new()
            .route(
                "/slow",
                get(async || {
                    sleep(3 * SHORT).await;
                    "done"
                }),
            )
            .route("/large", get(async || "x".repeat(8 << 20)))
            .route(
                "/body",
                post(async move |body: Result<Bytes, axum::extract::rejection::BytesRejection>| {
                    counted.fetch_add(1, Ordering::Relaxed);
                    body.map(|body| body.len().to_string()).map_err(|_| axum::http::StatusCode::BAD_REQUEST)
                }),
            );
        let (ours, theirs) = UnixStream::pair().unwrap();
        let caller = Caller { pid: None, uid: None };
        let seat = Arc::<Seats>::default().take().await;
        let served = tokio::spawn(serve(theirs, caller, router, seat, limits, std::future::pending()));
        (ours, served, worked)
    }

    async fn rest(client: &mut UnixStream) -> String {
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn a_client_that_asks_nothing_or_half_or_nothing_more_is_let_go() {
        for said in ["", "GET /slow HTTP/1.1\r\nHost: ", "GET /none HTTP/1.1\r\nHost: x\r\n\r\n"] {
            let (mut client, served, _) = client(TimeLimits { ask: SHORT, ..PATIENT }).await;
            client.write_all(said.as_bytes()).await.unwrap();
            let answer = rest(&mut client).await;
            assert_eq!(answer.starts_with("HTTP/1.1 404"), said.contains("none"), "{answer}");
            served.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_body_that_stands_still_or_takes_too_long_is_refused() {
        for limits in [TimeLimits { still: SHORT, ..PATIENT }, TimeLimits { body: SHORT, ..PATIENT }] {
            let (mut client, served, worked) = client(limits).await;
            client
                .write_all(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
                .await
                .unwrap();
            let answer = rest(&mut client).await;
            assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
            served.await.unwrap();
            assert_eq!(worked.load(Ordering::Relaxed), 1);
        }
    }

    #[tokio::test]
    async fn a_body_that_comes_slowly_is_taken() {
        let (mut client, _served, _) = client(TimeLimits { still: 10 * SHORT, ..PATIENT }).await;
        let head = "POST /body HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 12\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..12 {
            client.write_all(b"x").await.unwrap();
            sleep(SHORT).await;
        }
        let answer = rest(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("12"), "{answer}");
    }

    #[tokio::test]
    async fn a_request_that_takes_longer_than_every_limit_is_answered() {
        let all = TimeLimits { ask: SHORT, body: SHORT, still: SHORT, unread: SHORT };
        let (mut client, _served, _) = client(all).await;
        client.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let answer = rest(&mut client).await;
        assert!(answer.ends_with("done"), "{answer}");
    }

    #[tokio::test]
    async fn a_client_that_does_not_take_its_answer_is_let_go() {
        let (mut client, served, _) = client(TimeLimits { unread: SHORT, ..PATIENT }).await;
        client.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        served.await.unwrap();
        let answer = rest(&mut client).await;
        assert!(answer.len() < 8 << 20, "all of it");
    }
}
