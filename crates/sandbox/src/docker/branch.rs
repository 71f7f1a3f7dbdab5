//! One of the connections that a relay carries, as a socket would be: what was written before it is dropped arrives.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, copy, sink};
use tokio::runtime::Handle;
use tokio::time::timeout;

/// How long the other side may take to hear the last words.
const FAREWELL: Duration = Duration::from_secs(5);

/// A connection to a hand.
pub(super) struct Branch(Option<TokioIo<Upgraded>>);

impl Branch {
    pub(super) fn new(stream: Upgraded) -> Self {
        Self(Some(TokioIo::new(stream)))
    }

    /// The stream, which is there until this is dropped.
    fn stream(self: Pin<&mut Self>) -> io::Result<Pin<&mut TokioIo<Upgraded>>> {
        let stream = self.get_mut().0.as_mut();
        stream
            .map(Pin::new)
            .ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl Drop for Branch {
    fn drop(&mut self) {
        // Without a runtime there is nothing that could still carry it.
        let (Some(mut stream), Ok(runtime)) = (self.0.take(), Handle::try_current()) else {
            return;
        };
        // Dropped at once, it would be reset, and what is on its way with it.
        runtime.spawn(async move {
            let ending = async {
                stream.shutdown().await?;
                copy(&mut stream, &mut sink()).await
            };
            // Whoever says no end is cut off.
            let _ = timeout(FAREWELL, ending).await;
        });
    }
}

impl AsyncRead for Branch {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(context, into)
    }
}

impl AsyncWrite for Branch {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(context)
    }
}
