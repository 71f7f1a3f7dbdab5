//! Bodies in which something is replaced.

use std::error::Error as StdError;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use tokio::sync::Semaphore;
use tokio::time::{Sleep, sleep};

use super::replace::{Patterns, Pieces};

/// The longest body that is taken as a whole, so that its length can be told first. In bytes.
pub(super) const WHOLE: usize = 256 << 10;
/// How much one session's bodies may take so at once, in KiB.
pub(in crate::proxy) const ROOM: usize = 16 << 10;
/// How long what may be the beginning of something is held back while nothing comes: whoever waits for it may be whom
/// the other side waits for.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) type BoxError = Box<dyn StdError + Send + Sync>;
pub(super) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// What is done with the headers after a body.
type Last = Box<dyn FnMut(&mut HeaderMap) + Send>;

/// A body as it comes.
pub(super) fn unchanged(body: Incoming) -> Body {
    body.map_err(Into::into).boxed_unsync()
}

/// A body whose `Content-Length` is this long, once all of it has come; `Err` gives it back when there is no room.
async fn whole(
    body: Incoming,
    patterns: &Patterns,
    room: &Arc<Semaphore>,
    last: &mut Last,
) -> Result<(Body, usize), Whole> {
    let length = body
        .size_hint()
        .exact()
        .and_then(|length| usize::try_from(length).ok());
    let Some(length) = length.filter(|length| *length <= WHOLE) else {
        return Err(Whole::TooMuch(body));
    };
    let share = u32::try_from(length.div_ceil(1 << 10)).unwrap_or(u32::MAX);
    let Ok(place) = Arc::clone(room).try_acquire_many_owned(share) else {
        return Err(Whole::TooMuch(body));
    };
    let collected = body
        .collect()
        .await
        .map_err(|error| Whole::Broken(error.into()))?;
    let mut trailers = collected.trailers().cloned();
    let bytes = collected.to_bytes();
    let bytes = patterns.whole(&bytes).map_or(bytes, Bytes::from);
    let length = bytes.len();
    // The room is taken until the body is gone.
    let body = Full::new(bytes).map_frame(move |frame| {
        let _ = &place;
        frame
    });
    let body = body.map_err(|never| match never {});
    Ok(match &mut trailers {
        Some(trailers) => {
            last(trailers);
            let trailers = std::future::ready(Some(Ok(std::mem::take(trailers))));
            (body.with_trailers(trailers).boxed_unsync(), length)
        }
        None => (body.boxed_unsync(), length),
    })
}

enum Whole {
    TooMuch(Incoming),
    Broken(BoxError),
}

/// Replaces in a body, and says in `headers` how long it is, where that can be known without waiting for too much. A
/// long one whose length was told keeps that length where `masks` has the patterns for it.
///
/// # Errors
/// When the body breaks off.
pub(super) async fn replace(
    body: Incoming,
    headers: &mut HeaderMap,
    patterns: Arc<Patterns>,
    masks: Option<&Arc<Patterns>>,
    room: &Arc<Semaphore>,
    mut last: Last,
) -> Result<Body, BoxError> {
    if body.is_end_stream() || patterns.is_empty() {
        return Ok(unchanged(body));
    }
    let body = match whole(body, &patterns, room, &mut last).await {
        Ok((body, length)) => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            return Ok(body);
        }
        Err(Whole::Broken(error)) => return Err(error),
        Err(Whole::TooMuch(body)) => body,
    };
    let patterns = match masks {
        Some(masks) if body.size_hint().exact().is_some() => Arc::clone(masks),
        _ => {
            headers.remove(CONTENT_LENGTH);
            patterns
        }
    };
    let keeps_length = patterns.keeps_length();
    Ok(Replaced {
        body,
        pieces: Pieces::new(patterns),
        keeps_length,
        last,
        trailers: None,
        has_ended: false,
        patience: None,
    }
    .boxed_unsync())
}

/// A body in which texts are replaced as it comes.
struct Replaced {
    body: Incoming,
    pieces: Pieces,
    keeps_length: bool,
    last: Last,
    trailers: Option<HeaderMap>,
    has_ended: bool,
    patience: Option<Pin<Box<Sleep>>>,
}

impl hyper::body::Body for Replaced {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if let Some(trailers) = self.trailers.take() {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            if self.has_ended {
                return Poll::Ready(None);
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                if !self.pieces.holds() {
                    return Poll::Pending;
                }
                let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
                ready!(patience.as_mut().poll(cx));
                self.patience = None;
                return Poll::Ready(Some(Ok(Frame::data(self.pieces.release()))));
            };
            self.patience = None;
            let out = match frame.transpose()?.map(Frame::into_data) {
                Some(Ok(data)) => self.pieces.push(data),
                Some(Err(other)) => {
                    let Ok(mut trailers) = other.into_trailers() else {
                        continue;
                    };
                    (self.last)(&mut trailers);
                    self.trailers = Some(trailers);
                    self.has_ended = true;
                    self.pieces.release()
                }
                None => {
                    self.has_ended = true;
                    self.pieces.release()
                }
            };
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out))));
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        if self.keeps_length {
            let mut hint = self.body.size_hint();
            // What is held back is still to come.
            if let Some(exact) = hint.exact() {
                hint.set_exact(exact + self.pieces.held() as u64);
            }
            hint
        } else {
            SizeHint::default()
        }
    }
}
