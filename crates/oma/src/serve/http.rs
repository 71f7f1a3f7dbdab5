//! Accepting connections and serving them.
//!
//! Invariant: a client that connects and says nothing, or says it slowly, holds a connection for a bounded
//! time and no other client up; the number of connections is bounded. How long a body may take is the API's
//! part, and what becomes of one that nobody reads [`upload`]'s.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::upload;

/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take from the connection to its first request. The head's own limit begins only when
/// it is clear which version of HTTP the client speaks, and a client can take for ever about that.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(45);
/// How often an HTTP/2 connection is probed, and how long the answer may take.
const PROBE_EVERY: Duration = Duration::from_secs(60);
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);
/// Requests at once on one HTTP/2 connection.
const MAX_HTTP2_REQUESTS: u32 = 256;
/// The largest head of a request, in bytes.
const MAX_HEAD: usize = 64 << 10;
/// How long to wait after the system could not accept a connection (no file descriptor is free).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stopping`, then lets the requests at work end. Returns when the last connection is closed.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    max_connections: usize,
    stopping: CancellationToken,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PROBE_EVERY)
        .keep_alive_timeout(PROBE_TIMEOUT)
        .max_concurrent_streams(MAX_HTTP2_REQUESTS)
        .max_header_list_size(MAX_HEAD as u32);
    let builder = Arc::new(builder);
    let places = Arc::new(Semaphore::new(max_connections));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, peer, place)) = accepted else {
            continue;
        };
        let builder = Arc::clone(&builder);
        let router = router.clone();
        let stopping = stopping.clone();
        connections.spawn(async move {
            connection(&builder, stream, peer, router, stopping).await;
            drop(place);
        });
    }
    // Nobody is accepted any more; those who connect are refused at once.
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    // The place comes first: beyond the bound, clients wait in the system's queue.
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, place)),
        Err(error) => {
            if !matches!(
                error.kind(),
                std::io::ErrorKind::ConnectionAborted
                    | std::io::ErrorKind::ConnectionReset
                    | std::io::ErrorKind::ConnectionRefused
            ) {
                tracing::error!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            None
        }
    }
}

async fn connection(
    builder: &Builder<TokioExecutor>,
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    stopping: CancellationToken,
) {
    // Small frames must not wait for each other's acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection was gone before it began");
        return;
    }
    let spoken = CancellationToken::new();
    let speaks = spoken.clone();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        speaks.cancel();
        let router = router.clone();
        async move {
            let (mut request, receipt) = upload::receive(request);
            request.extensions_mut().insert(oma_api::Peer(peer));
            let answered = router.oneshot(request).await;
            let mut response = answered.unwrap_or_else(|never| match never {});
            receipt.settle(&mut response);
            Ok::<_, Infallible>(response)
        }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = silence(&spoken) => {
            tracing::debug!("a connection without a request was closed");
            return;
        }
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients that leave in the middle of something are everyday life.
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Ends when a client has made no request in time, and never once it has made one.
async fn silence(spoken: &CancellationToken) {
    if tokio::time::timeout(FIRST_REQUEST_TIMEOUT, spoken.cancelled())
        .await
        .is_ok()
    {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

    struct Running {
        address: SocketAddr,
        stopping: CancellationToken,
        /// A request has reached the handler.
        arrived: Arc<Notify>,
        /// Lets the handler answer.
        go_on: Arc<Semaphore>,
        task: JoinHandle<()>,
    }

    async fn start(max_connections: usize) -> Running {
        let arrived = Arc::new(Notify::new());
        let go_on = Arc::new(Semaphore::new(0));
        let (has_arrived, may_go_on) = (Arc::clone(&arrived), Arc::clone(&go_on));
        let handler = move || async move {
            has_arrived.notify_one();
            let permit = may_go_on.acquire().await;
            permit
                .map(|permit| permit.forget())
                .map_or("closed", |()| "answer")
        };
        let router = Router::new().route("/", get(handler));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let stopping = CancellationToken::new();
        let task = tokio::spawn(serve(listener, router, max_connections, stopping.clone()));
        Running {
            address,
            stopping,
            arrived,
            go_on,
            task,
        }
    }

    async fn rest(mut stream: TcpStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("read");
        text
    }

    #[tokio::test]
    async fn a_request_at_work_is_answered_before_the_end() {
        let server = start(10).await;
        let mut client = TcpStream::connect(server.address).await.expect("connects");
        client.write_all(REQUEST).await.expect("written");
        server.arrived.notified().await;
        let idle = TcpStream::connect(server.address).await.expect("connects");
        server.stopping.cancel();
        // A connection without a request is closed at once, or was never accepted.
        let mut idle = idle;
        let mut nothing = [0; 1];
        assert!(matches!(idle.read(&mut nothing).await, Ok(0) | Err(_)));
        server.go_on.add_permits(1);
        let answer = rest(client).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("answer"),
            "{answer}"
        );
        server.task.await.expect("ended");
        assert!(
            TcpStream::connect(server.address).await.is_err(),
            "nobody listens any more"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_or_half_a_word_is_let_go() {
        // The second is the beginning of HTTP/2's greeting, the third the beginning of a request.
        for said in [&b""[..], b"PRI * HT", b"GET / HTTP/1.1\r\nhost: loc"] {
            let server = start(10).await;
            let mut client = TcpStream::connect(server.address).await.expect("connects");
            client.write_all(said).await.expect("written");
            let answer = rest(client).await;
            assert!(
                answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
                "{said:?}: {answer}"
            );
            server.stopping.cancel();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_nobody_reads_and_that_does_not_end_is_let_go() {
        let server = start(10).await;
        server.go_on.add_permits(1);
        let mut client = TcpStream::connect(server.address).await.expect("connects");
        let begun = tokio::time::Instant::now();
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\nthe beginning")
            .await
            .expect("written");
        let answer = rest(client).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("answer"),
            "{answer}"
        );
        let waited = begun.elapsed();
        assert!(
            waited >= Duration::from_secs(5) && waited < Duration::from_secs(20),
            "{waited:?}"
        );
        server.stopping.cancel();
    }

    #[tokio::test]
    async fn connections_beyond_the_bound_wait() {
        let server = start(1).await;
        let mut first = TcpStream::connect(server.address).await.expect("connects");
        first.write_all(REQUEST).await.expect("written");
        server.arrived.notified().await;
        let mut second = TcpStream::connect(server.address)
            .await
            .expect("the system queues it");
        second.write_all(REQUEST).await.expect("written");
        server.go_on.add_permits(2);
        let mut head = [0; 12];
        first.read_exact(&mut head).await.expect("answered");
        // The first connection is kept open, so the second is not served until it goes.
        let mut byte = [0; 1];
        let waited = tokio::time::timeout(Duration::from_millis(100), second.read(&mut byte)).await;
        assert!(waited.is_err(), "the second connection waits");
        drop(first);
        assert_eq!(second.read(&mut byte).await.expect("answered"), 1);
        server.stopping.cancel();
    }
}
