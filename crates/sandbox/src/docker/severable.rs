//! A stream that can be ended from elsewhere, whatever its other end does.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// Until the other end of `severed` is dropped, what is beneath; then there is nothing more to read, and nothing can be
/// written. One task reads and writes: of several, only the last to look hears of the end.
pub(super) struct Severable<T> {
    stream: T,
    severed: oneshot::Receiver<Infallible>,
    is_severed: bool,
}

impl<T> Severable<T> {
    /// The stream, and what ends it when it is dropped.
    pub(super) fn new(stream: T) -> (oneshot::Sender<Infallible>, Self) {
        let (knife, severed) = oneshot::channel();
        let is_severed = false;
        let stream = Self {
            stream,
            severed,
            is_severed,
        };
        (knife, stream)
    }

    /// Looks, and sees to it that whoever waits for this stream hears of its end.
    fn is_severed(&mut self, context: &mut Context<'_>) -> bool {
        self.is_severed = self.is_severed || Pin::new(&mut self.severed).poll(context).is_ready();
        self.is_severed
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Severable<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_severed(context) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Severable<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_severed(context) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_severed(context) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_severed(context) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex, split};

    use super::*;

    #[tokio::test]
    async fn who_waits_hears_of_the_end() {
        let (mut far, near) = duplex(4);
        let (knife, near) = Severable::new(near);
        let (mut read, mut write) = split(near);
        far.write_all(b"word").await.unwrap();
        let mut heard = [0; 4];
        read.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"word");
        // Neither end can go on: nobody speaks there, and nobody listens.
        let waiting = async { tokio::join!(read.read(&mut heard), write.write_all(b"many words")) };
        let mut waiting = pin!(waiting);
        assert!(poll!(&mut waiting).is_pending());
        drop(knife);
        let (end, error) = waiting.await;
        assert_eq!(end.unwrap(), 0);
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
