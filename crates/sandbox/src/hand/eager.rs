//! Reading until there is nothing left. Usually a read that brings less than there is room for tells that there is nothing
//! more for now, and that the kernel will give word of what comes. gVisor gives none of the end of a local stream that
//! came while other bytes of it waited: who reads once more sees it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::OwnedReadHalf;
#[cfg(feature = "docker")]
use tokio::net::unix::pipe;

/// Something that can be read without waiting.
pub(super) trait Source {
    /// Returns when there may be something.
    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads what there is, and forgets that there may be something only where there is nothing.
    fn attempt(&self, into: &mut ReadBuf<'_>) -> io::Result<usize>;
}

/// Reads from this until there is nothing left.
pub(super) struct Eager<S>(pub(super) S);

/// The reading half of a connection.
pub(super) type ReadHalf = Eager<OwnedReadHalf>;

impl Source for OwnedReadHalf {
    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.as_ref().poll_read_ready(context)
    }

    fn attempt(&self, mut into: &mut ReadBuf<'_>) -> io::Result<usize> {
        self.try_read_buf(&mut into)
    }
}

#[cfg(feature = "docker")]
impl Source for pipe::Receiver {
    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(context)
    }

    fn attempt(&self, mut into: &mut ReadBuf<'_>) -> io::Result<usize> {
        self.try_read_buf(&mut into)
    }
}

impl<S: Source + Unpin> AsyncRead for Eager<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_ready(context))?;
            match self.0.attempt(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome.map(drop)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    #[tokio::test]
    async fn everything_is_read_and_then_its_end() {
        let (mut near, far) = UnixStream::pair().unwrap();
        let (read, _write) = far.into_split();
        let mut eager = Eager(read);
        near.write_all(b"word").await.unwrap();
        let mut word = [0; 64];
        assert_eq!(eager.read(&mut word).await.unwrap(), 4);
        let rest = tokio::spawn(async move {
            let mut rest = Vec::new();
            eager.read_to_end(&mut rest).await.map(|_| rest)
        });
        tokio::task::yield_now().await;
        let bytes = vec![7; 1 << 20];
        near.write_all(&bytes).await.unwrap();
        drop(near);
        assert!(rest.await.unwrap().unwrap() == bytes);
    }
}
