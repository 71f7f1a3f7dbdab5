//! A stream that tells when something was last carried over it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

use super::tunnel::IDLE;

/// When something was last carried.
#[derive(Clone)]
pub(super) struct Moved(Arc<Mutex<Instant>>);

impl Moved {
    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Returns when nothing has been carried for too long.
    pub(super) async fn stalled(self) {
        loop {
            let end = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + IDLE;
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

/// The stream.
pub(super) struct Watched<S> {
    stream: S,
    moved: Moved,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S) -> (Self, Moved) {
        let moved = Moved(Arc::new(Mutex::new(Instant::now())));
        let watched = Self {
            stream,
            moved: moved.clone(),
        };
        (watched, moved)
    }

    /// The stream, which is watched no longer.
    pub(super) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.moved.note();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if written.is_ready() {
            self.moved.note();
        }
        written
    }

    // Whoever can't write pieces as they lie has them copied together first.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        if written.is_ready() {
            self.moved.note();
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;
    use tokio::time::{Duration, timeout};

    #[tokio::test(start_paused = true)]
    async fn what_moves_is_not_stalled() {
        let (near, _far) = tokio::io::duplex(64);
        let (mut watched, moved) = Watched::new(near);
        let almost = IDLE - Duration::from_secs(1);
        assert!(timeout(almost, moved.clone().stalled()).await.is_err());
        watched.write_all(b"word").await.unwrap();
        assert!(timeout(almost, moved.clone().stalled()).await.is_err());
        let pieces = [IoSlice::new(b"two "), IoSlice::new(b"words")];
        assert!(watched.is_write_vectored() && watched.write_vectored(&pieces).await.unwrap() == 9);
        assert!(timeout(almost, moved.clone().stalled()).await.is_err());
        assert!(timeout(Duration::from_secs(2), moved.stalled()).await.is_ok());
    }
}
