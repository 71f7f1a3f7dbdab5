//! What bytes come over, from and to a process of the session or a host.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::idle::Watched;

/// Bytes from and to a process of the session, or a host.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// The socket that it is, where it is one and nothing else: what comes from the socket is what is read, and what is
    /// written goes to it. The kernel may then move the bytes.
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}

impl Stream for TcpStream {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl Stream for TokioIo<Upgraded> {}

/// Whoever watches wants to see what is carried.
impl<S: Stream> Stream for Watched<S> {}

#[cfg(test)]
impl Stream for tokio::io::DuplexStream {}

impl<S: Stream + ?Sized> Stream for Box<S> {
    fn socket(&self) -> Option<&TcpStream> {
        (**self).socket()
    }
}

/// How a connection that has left HTTP becomes a stream again: by what it was.
pub(super) type Reveal = fn(Upgraded) -> Left;

/// The reveal for connections that were served as this kind of stream.
pub(super) fn reveal<S: Stream>(upgraded: Upgraded) -> Left {
    match upgraded.downcast::<TokioIo<Watched<S>>>() {
        Ok(parts) => Left {
            begun: parts.read_buf,
            stream: Box::new(parts.io.into_inner().into_inner()),
        },
        Err(upgraded) => Left {
            begun: Bytes::new(),
            stream: Box::new(TokioIo::new(upgraded)),
        },
    }
}

/// A connection that has left HTTP.
pub(super) struct Left {
    /// What was read of it already.
    begun: Bytes,
    stream: Box<dyn Stream>,
}

impl Left {
    /// Takes what was read of it already and nobody has had yet.
    pub(super) fn take_begun(&mut self) -> Bytes {
        std::mem::take(&mut self.begun)
    }
}

impl Stream for Left {
    fn socket(&self) -> Option<&TcpStream> {
        self.stream.socket().filter(|_| self.begun.is_empty())
    }
}

impl AsyncRead for Left {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.begun.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let length = self.begun.len().min(buffer.remaining());
        buffer.put_slice(&self.begun[..length]);
        self.begun.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Left {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
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
