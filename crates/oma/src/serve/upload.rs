//! The bodies of requests, and what is still to come of them when the answer is there already.
//!
//! A server that stops reading and closes the connection resets it under a client that is still sending, and
//! many a client then never gets to read why it was refused. So what a refused client still sends is taken and
//! thrown away, for a while.
//!
//! Invariant: what nobody wants to read is taken for a bounded time and up to a bounded size.
//! Invariant: a connection on which it is unclear whether a body follows is not used again.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, Version, header};
use axum::response::Response;
use futures_util::StreamExt as _;
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How much of a body that nobody reads is taken, in bytes, and for how long.
const RUN_OUT_BYTES: usize = 256 << 20;
const RUN_OUT_TIME: Duration = Duration::from_secs(10);

/// What the answer to a request has to know of its body.
#[derive(Debug)]
pub(super) struct Receipt {
    /// Whether the connection carries one request after the other.
    serial: bool,
    /// The client sends its body only when it is told to, which the first attempt to read it does.
    waits: bool,
    /// Somebody has tried to read the body.
    begun: Arc<AtomicBool>,
    /// Cancelled when it is no use to wait for the rest.
    too_slow: CancellationToken,
}

/// Takes charge of a request's body.
pub(super) fn receive(request: Request<Incoming>) -> (Request, Receipt) {
    let receipt = Receipt {
        serial: request.version() < Version::HTTP_2,
        waits: request.headers().contains_key(header::EXPECT),
        begun: Arc::default(),
        too_slow: CancellationToken::new(),
    };
    let request = request.map(|body| {
        if body.is_end_stream() {
            return Body::new(body);
        }
        Body::new(Upload {
            body: Some(body),
            // HTTP/2 tells the client by itself that the rest is not wanted, and harms no other request by it.
            runs_out: receipt.serial,
            waits: receipt.waits,
            begun: Arc::clone(&receipt.begun),
            too_slow: receipt.too_slow.clone(),
        })
    });
    (request, receipt)
}

impl Receipt {
    /// Ends the connection with this answer where it can't be used again.
    pub(super) fn settle(&self, response: &mut Response) {
        let withheld = self.waits && !self.begun.load(Ordering::Relaxed);
        let too_slow = response.status() == StatusCode::REQUEST_TIMEOUT;
        if too_slow {
            self.too_slow.cancel();
        }
        if self.serial && (withheld || too_slow) {
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// A body that runs out when whoever reads it stops before its end.
struct Upload {
    /// `None` once it has ended.
    body: Option<Incoming>,
    runs_out: bool,
    waits: bool,
    begun: Arc<AtomicBool>,
    too_slow: CancellationToken,
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.begun.store(true, Ordering::Relaxed);
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let comes = self.runs_out && !self.is_end_stream();
        // A client that waits to be told is not told, and sends nothing.
        let withheld = self.waits && !self.begun.load(Ordering::Relaxed);
        // When the whole process ends there is no runtime any more, and nobody left to be polite to.
        if let (Some(body), Ok(runtime), true) = (self.body.take(), Handle::try_current(), comes && !withheld)
        {
            let too_slow = self.too_slow.clone();
            // Whether the end came in time makes no difference to anybody: the connection ends with the body.
            runtime.spawn(too_slow.run_until_cancelled_owned(timeout(RUN_OUT_TIME, run_out(body))));
        }
    }
}

async fn run_out(body: Incoming) {
    let mut chunks = Body::new(body).into_data_stream();
    let mut left = RUN_OUT_BYTES;
    while let Some(Ok(chunk)) = chunks.next().await {
        match left.checked_sub(chunk.len()) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
