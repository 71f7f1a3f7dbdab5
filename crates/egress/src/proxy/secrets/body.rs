//! Bodies in which something is replaced.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use tokio::sync::Semaphore;

use super::messages::{self, Messages};
use super::replace::{Patterns, Pieces};

/// The longest body that is taken as a whole, so that its length can be told first. In bytes.
pub(super) const WHOLE: usize = 256 << 10;
/// How much one session's bodies may take so at once, in KiB.
pub(in crate::proxy) const ROOM: usize = 16 << 10;
pub(super) type BoxError = Box<dyn StdError + Send + Sync>;
pub(in crate::proxy) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// What is done with the headers after a body, in which something has been replaced or not.
type Last = Box<dyn FnMut(&mut HeaderMap, bool) + Send>;

/// A body in which things are replaced.
pub(super) struct Replaced {
    pub(super) body: Body,
    /// Whether something has been, as far as that is known.
    pub(super) has_replaced: bool,
}

/// A body as it comes.
pub(in crate::proxy) fn unchanged(body: Incoming) -> Body {
    body.map_err(Into::into).boxed_unsync()
}

/// A body whose `Content-Length` is this long, once all of it has come; `Err` gives it back when there is no room.
async fn whole(
    body: Incoming,
    patterns: &Patterns,
    room: &Arc<Semaphore>,
    last: &mut Last,
) -> Result<(Replaced, usize), Whole> {
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
    let replaced = patterns.whole(&bytes);
    let has_replaced = replaced.is_some();
    let bytes = replaced.map_or(bytes, Bytes::from);
    let length = bytes.len();
    // The room is taken until the body is gone.
    let body = Full::new(bytes).map_frame(move |frame| {
        let _ = &place;
        frame
    });
    let body = body.map_err(|never| match never {});
    let body = match &mut trailers {
        Some(trailers) => {
            last(trailers, has_replaced);
            let trailers = std::future::ready(Some(Ok(std::mem::take(trailers))));
            body.with_trailers(trailers).boxed_unsync()
        }
        None => body.boxed_unsync(),
    };
    Ok((Replaced { body, has_replaced }, length))
}

enum Whole {
    TooMuch(Incoming),
    Broken(BoxError),
}

/// Replaces in a body, and says in `headers` how long it is, where that can be known without waiting for too much. A
/// long one whose length was told keeps that length where there are `masks`, and so do messages in a stream.
///
/// # Errors
/// When the body breaks off.
pub(super) async fn replace(
    body: Incoming,
    headers: &mut HeaderMap,
    patterns: Patterns,
    masks: Option<&Patterns>,
    room: &Arc<Semaphore>,
    mut last: Last,
) -> Result<Replaced, BoxError> {
    let messages = masks.filter(|_| messages::are_in(headers));
    if body.is_end_stream() || patterns.is_empty() {
        let body = unchanged(body);
        return Ok(Replaced {
            body,
            has_replaced: false,
        });
    }
    let body = match messages {
        Some(_) => body,
        None => match whole(body, &patterns, room, &mut last).await {
            Ok((replaced, length)) => {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
                return Ok(replaced);
            }
            Err(Whole::Broken(error)) => return Err(error),
            Err(Whole::TooMuch(body)) => body,
        },
    };
    let patterns = match masks {
        Some(masks) if messages.is_some() || body.size_hint().exact().is_some() => masks.clone(),
        _ => {
            headers.remove(CONTENT_LENGTH);
            patterns
        }
    };
    let body = Flowing {
        body,
        keeps_length: patterns.keeps_length(),
        pieces: Pieces::new(patterns),
        messages: messages.map(|_| Messages::default()),
        last,
        trailers: None,
        has_ended: false,
    };
    Ok(Replaced {
        body: body.boxed_unsync(),
        has_replaced: false,
    })
}

/// A body in which texts are replaced as it comes.
struct Flowing {
    body: Incoming,
    pieces: Pieces,
    keeps_length: bool,
    /// Where it is a stream of messages.
    messages: Option<Messages>,
    last: Last,
    trailers: Option<HeaderMap>,
    has_ended: bool,
}

impl Flowing {
    fn pass(&mut self, data: Bytes) -> Result<Bytes, BoxError> {
        Ok(match &mut self.messages {
            Some(messages) => messages.pass(&mut self.pieces, data)?,
            None => self.pieces.push(&data),
        })
    }

    fn rest(&mut self) -> Bytes {
        self.has_ended = true;
        let rest = self.pieces.release();
        match &mut self.messages {
            Some(messages) => Bytes::from([&rest[..], &messages.rest()].concat()),
            None => rest,
        }
    }
}

impl hyper::body::Body for Flowing {
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
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            let out = match frame.transpose()?.map(Frame::into_data) {
                Some(Ok(data)) => self.pass(data)?,
                Some(Err(other)) => {
                    let Ok(mut trailers) = other.into_trailers() else {
                        continue;
                    };
                    let rest = self.rest();
                    let has_replaced = self.pieces.has_replaced();
                    (self.last)(&mut trailers, has_replaced);
                    self.trailers = Some(trailers);
                    rest
                }
                None => self.rest(),
            };
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out))));
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        if !self.keeps_length {
            return SizeHint::default();
        }
        let mut hint = self.body.size_hint();
        // What is held back is still to come.
        let held = self.pieces.held() + self.messages.as_ref().map_or(0, Messages::held);
        if let Some(exact) = hint.exact() {
            hint.set_exact(exact + held as u64);
        }
        hint
    }
}
