//! What a server may have us open and read of event streams, over the life of one connection.
//!
//! The SDK takes a stream up again whenever it ends. It counts attempts that fail, and paces itself as the server
//! asks, so a server that ends each stream right after it began would be asked without a pause, for ever.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rmcp::transport::streamable_http_client::SseError;
use rmcp_sse::Sse;
use tokio::time::{Instant, sleep_until};

/// The time between two streams, at least.
const INTERVAL: Duration = Duration::from_secs(1);

/// The most streams of one connection; one that is ended every minute lasts for a working day.
const MAX_STREAMS: u32 = 500;

/// The most bytes of one stream; a stream that is longer ends with an error.
const MAX_STREAM: usize = 64 << 20;

/// The most bytes of all streams of one connection that answer no request.
const MAX_BYTES: usize = 4 * MAX_STREAM;

/// What an event counts for beside its data, in bytes.
const EVENT: usize = 64;

pub(crate) type Events = BoxStream<'static, Result<Sse, SseError>>;

/// What is left to one connection.
pub(crate) struct Allowance {
    opened: Mutex<Opened>,
    bytes: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Opened {
    count: u32,
    /// When the next one may be opened.
    next: Option<Instant>,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            opened: Mutex::default(),
            bytes: Arc::new(AtomicUsize::new(MAX_BYTES)),
        }
    }
}

impl Allowance {
    /// Waits until another stream may be opened; `false` when the connection has had all it may have.
    pub(crate) async fn open(&self) -> bool {
        let at = {
            let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
            if opened.count == MAX_STREAMS || self.bytes.load(Ordering::Relaxed) == 0 {
                return false;
            }
            let now = Instant::now();
            let at = opened.next.map_or(now, |next| next.max(now));
            opened.count += 1;
            opened.next = Some(at + INTERVAL);
            at
        };
        sleep_until(at).await;
        true
    }

    /// The stream, as far as it and the connection may go.
    pub(crate) fn bound(&self, events: Events) -> Events {
        let left = Arc::clone(&self.bytes);
        let take = move |size| {
            let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                Some(left.saturating_sub(size))
            });
            taken.is_ok_and(|before| before >= size)
        };
        counted(bounded(events), take)
    }
}

/// The stream, as far as any may go.
pub(crate) fn bounded(events: Events) -> Events {
    let mut left = MAX_STREAM;
    counted(events, move |size| {
        let enough = left >= size;
        left = left.saturating_sub(size);
        enough
    })
}

/// The stream, as far as `take` allows for the size of each event. Whoever gets an error reads no further.
fn counted(events: Events, mut take: impl FnMut(usize) -> bool + Send + 'static) -> Events {
    let counted = events.map(move |event| {
        let event = event?;
        if !take(event.data.as_ref().map_or(0, String::len) + EVENT) {
            return Err(SseError::Body("the event stream is too long".into()));
        }
        Ok(event)
    });
    counted.boxed()
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn streams_are_paced_and_counted() {
        let (allowance, began) = (Allowance::default(), Instant::now());
        for _ in 0..MAX_STREAMS {
            assert!(allowance.open().await);
        }
        assert_eq!(began.elapsed(), INTERVAL * (MAX_STREAMS - 1));
        assert!(!allowance.open().await);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_counted_over_all_streams() {
        let allowance = Allowance::default();
        let mut read = 0;
        while allowance.open().await {
            let endless = stream::repeat_with(|| {
                Ok(Sse {
                    data: Some("x".repeat(1 << 20)),
                    ..Sse::default()
                })
            });
            let mut events = allowance.bound(endless.boxed());
            while events.next().await.is_some_and(|event| event.is_ok()) {
                read += 1;
            }
        }
        let most = MAX_BYTES >> 20;
        assert!((most - 8..most).contains(&read), "{read}");
    }
}
