//! Server-sent events with a bounded frame size.
//!
//! Parsing is `sse-stream`'s, which the MCP client uses as well; it holds an unfinished event of any size, so
//! the bytes since the last event are counted here, before they reach it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{Stream, StreamExt};
use oma_domain::event::FailureKind;
use sse_stream::SseByteStream;

use crate::Error;
use crate::http::Body;

/// The largest event, in bytes. The final event of OpenAI's Responses protocol repeats the whole answer.
pub(crate) const MAX_EVENT: usize = 16 * 1024 * 1024;

/// The events of an answer.
pub(crate) fn events(body: Body, max_event: usize) -> impl Stream<Item = Result<String, Error>> + Send {
    let pending = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&pending);
    let bounded = body.map(move |piece| {
        let piece = piece?;
        let held = counted.fetch_add(piece.len(), Ordering::Relaxed);
        if held > max_event {
            return Err(Error::passing(
                FailureKind::ModelRequestFailed,
                format!("the provider sent an event of more than {max_event} bytes"),
            )
            .unaccounted());
        }
        Ok(piece)
    });
    SseByteStream::new(bounded).filter_map(move |event| {
        pending.store(0, Ordering::Relaxed);
        std::future::ready(match event {
            // Blocks without data are comments' and retry hints' company.
            Ok(event) => event.data.map(Ok),
            Err(sse_stream::Error::Body(source)) => Some(Err(match source.downcast::<Error>() {
                Ok(error) => *error,
                Err(other) => malformed(&other.to_string()),
            })),
            Err(other) => Some(Err(malformed(&other.to_string()))),
        })
    })
}

/// The error for a frame that can't be understood. It may be a proxy's doing, so it may pass.
pub(crate) fn malformed(what: &str) -> Error {
    Error::passing(
        FailureKind::ModelRequestFailed,
        format!("the provider's stream is malformed: {what}"),
    )
    .unaccounted()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::stream;

    use super::*;

    async fn read(pieces: Vec<&'static str>, max_event: usize) -> Vec<Result<String, String>> {
        let body: Body = Box::pin(stream::iter(
            pieces.into_iter().map(|piece| Ok(Bytes::from(piece))),
        ));
        events(body, max_event)
            .map(|event| event.map_err(|error| error.failure.message))
            .collect()
            .await
    }

    #[tokio::test]
    async fn events_are_put_together_across_pieces() {
        let events = read(
            vec![
                "event: a\nda",
                "ta: {\"x\"",
                ":1}\r\n\r\n: ping\n\nid: 3\n\ndata: 2\n",
                "data: 3\n\n",
            ],
            1000,
        )
        .await;
        assert_eq!(events, [Ok("{\"x\":1}".to_owned()), Ok("2\n3".to_owned())]);
    }

    #[tokio::test]
    async fn an_endless_event_is_refused() {
        let events = read(vec!["data: aaaaaaaaaaaaaaaa", "bbbbbbbb", "cccc"], 16).await;
        assert_eq!(
            events,
            [Err("the provider sent an event of more than 16 bytes".to_owned())]
        );
    }

    #[tokio::test]
    async fn many_small_events_are_not_one_large() {
        let events = read(vec!["data: aaaaaaaa\n\n"; 20], 16).await;
        assert_eq!(events.len(), 20);
    }
}
