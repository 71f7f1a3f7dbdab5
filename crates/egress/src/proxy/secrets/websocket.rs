//! What a server says over a WebSocket, with the secrets in it masked.
//!
//! Frames keep their lengths, so nothing but their payloads is touched. Each is looked at by itself: what a server
//! writes across two of them is not found.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::replace::{Patterns, Pieces};

/// How much is read at once, in bytes.
const CHUNK: usize = 16 << 10;

/// Where in the frames of RFC 6455 the stream is.
enum State {
    /// In the head of one, of which this has come.
    Head(Vec<u8>),
    /// In the payload of one, of which this much is to come.
    Payload(u64),
}

struct Frames {
    state: State,
    pieces: Pieces,
}

impl Frames {
    /// What of these bytes can be passed on now.
    ///
    /// # Errors
    /// When they are no frames of a server, or are in a form that was not agreed on.
    fn pass(&mut self, mut bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(bytes.len());
        while let Some(first) = bytes.first() {
            match &mut self.state {
                State::Head(head) => {
                    head.push(*first);
                    bytes = &bytes[1..];
                    let Some(payload) = payload(head)? else { continue };
                    out.append(head);
                    self.state = State::Payload(payload);
                }
                State::Payload(left) => {
                    let now = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    let (piece, rest) = bytes.split_at(now);
                    bytes = rest;
                    *left -= now as u64;
                    out.extend_from_slice(&self.pieces.push(Bytes::copy_from_slice(piece)));
                }
            }
            if matches!(self.state, State::Payload(0)) {
                out.extend_from_slice(&self.pieces.release());
                self.state = State::Head(Vec::new());
            }
        }
        Ok(out)
    }
}

/// How long the payload is that comes after a head, once all of that has come.
fn payload(head: &[u8]) -> io::Result<Option<u64>> {
    let [first, second, length @ ..] = head else {
        return Ok(None);
    };
    // Extensions were not agreed on, and only clients mask.
    if first & 0x70 != 0 || second & 0x80 != 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(match second {
        126 => length
            .try_into()
            .ok()
            .map(|length| u64::from(u16::from_be_bytes(length))),
        127 => length.try_into().ok().map(u64::from_be_bytes),
        short => Some(u64::from(*short)),
    })
}

/// The server's side of a WebSocket.
pub(super) struct Masked<S> {
    stream: S,
    frames: Frames,
    ready: Vec<u8>,
    /// How much of that has been read.
    read: usize,
}

impl<S> Masked<S> {
    pub(super) fn new(stream: S, patterns: Arc<Patterns>) -> Self {
        Self {
            stream,
            frames: Frames {
                state: State::Head(Vec::new()),
                pieces: Pieces::new(patterns),
            },
            ready: Vec::new(),
            read: 0,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Masked<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.read == this.ready.len() {
            let mut chunk = [0; CHUNK];
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.ready = this.frames.pass(chunk.filled())?;
            this.read = 0;
        }
        let ready = &this.ready[this.read..];
        let now = ready.len().min(buffer.remaining());
        buffer.put_slice(&ready[..now]);
        this.read += now;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Masked<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
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
    use super::super::tests::{SECRET, set};
    use super::*;
    use proptest::prelude::*;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x81];
        match payload.len() {
            length @ 0..=125 => frame.push(u8::try_from(length).unwrap()),
            length @ 126..=0xffff => {
                frame.push(126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                frame.push(127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(payload);
        frame
    }

    fn frames() -> Frames {
        Frames {
            state: State::Head(Vec::new()),
            pieces: Pieces::new(Arc::clone(&set().mask)),
        }
    }

    proptest! {
        #[test]
        fn secrets_are_masked_in_frames(fill in 0usize..70_000, cut in 1usize..4_000) {
            let text = format!("{}{SECRET}s", "x".repeat(fill));
            let said = [frame(text.as_bytes()), frame(b""), frame(b"s3c")].concat();
            let mut frames = frames();
            let mut out = Vec::new();
            for piece in said.chunks(cut) {
                out.extend(frames.pass(piece).unwrap());
            }
            let masked = format!("{}{}s", "x".repeat(fill), "*".repeat(SECRET.len()));
            prop_assert!(out == [frame(masked.as_bytes()), frame(b""), frame(b"s3c")].concat());
        }
    }

    #[test]
    fn what_is_no_servers_frame_ends_it() {
        for head in [[0x81, 0x81], [0xc1, 1], [0x91, 1]] {
            assert!(frames().pass(&head).is_err(), "{head:?}");
        }
    }
}
