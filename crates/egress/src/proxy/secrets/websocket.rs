//! What a server says over a WebSocket, with the secrets in it masked.
//!
//! Frames keep their lengths, so nothing but their payloads is touched. A message is searched as a whole, over all
//! frames that it comes in: what is not decided at the end of one waits for the next, and with it what comes between
//! the two. What a server writes in two messages is not found, nor what is compressed in one: the extension for that is
//! not agreed on, but programs may have a way of their own.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Set;
use super::replace::{Patterns, Pieces};
use crate::proxy::Stream;

/// How much is read at once, in bytes.
const CHUNK: usize = 16 << 10;
/// The most that may wait behind a message that is not complete, in bytes: heads, and whole frames of control.
const MAX_WAITING: usize = 64 << 10;
/// The longest frame of control (RFC 6455, section 5.5), in bytes.
const MAX_CONTROL: u64 = 125;

/// Where in the frames of RFC 6455 the stream is.
enum State {
    /// In the head of one, of which this has come.
    Head(Vec<u8>),
    /// In the payload of one of a message.
    Payload { left: u64, is_last: bool },
    /// In the payload of one of control, of which this has come.
    Control { left: u64, payload: Vec<u8> },
}

/// What is to be passed on, in its order.
enum Part {
    /// This much of what is searched.
    Searched(u64),
    /// What is not.
    Other(Vec<u8>),
}

struct Frames {
    state: State,
    patterns: Patterns,
    pieces: Pieces,
    /// What of the message is decided, and waits for nothing.
    decided: VecDeque<u8>,
    parts: VecDeque<Part>,
    /// The length of all that is [`Part::Other`].
    waiting: usize,
}

impl Frames {
    fn new(patterns: &Patterns) -> Self {
        Self {
            state: State::Head(Vec::new()),
            patterns: patterns.clone(),
            pieces: Pieces::new(patterns.clone()),
            decided: VecDeque::new(),
            parts: VecDeque::new(),
            waiting: 0,
        }
    }

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
                    let Some(next) = after(head)? else { continue };
                    let head = std::mem::take(head);
                    self.state = next;
                    self.put(head)?;
                }
                State::Payload { left, .. } => {
                    let (piece, rest) = split(bytes, left);
                    bytes = rest;
                    self.parts.push_back(Part::Searched(piece.len() as u64));
                    self.decided
                        .extend(self.pieces.push(&Bytes::copy_from_slice(piece)));
                }
                State::Control { left, payload } => {
                    let (piece, rest) = split(bytes, left);
                    bytes = rest;
                    payload.extend_from_slice(piece);
                }
            }
            match &mut self.state {
                State::Payload { left: 0, is_last } => {
                    if *is_last {
                        self.decided.extend(self.pieces.release());
                    }
                    self.state = State::Head(Vec::new());
                }
                State::Control { left: 0, payload } => {
                    let payload = std::mem::take(payload);
                    let payload = self.patterns.whole(&payload).unwrap_or(payload);
                    self.state = State::Head(Vec::new());
                    self.put(payload)?;
                }
                _ => {}
            }
            self.flush(&mut out);
        }
        Ok(out)
    }

    /// Adds what is not searched.
    fn put(&mut self, other: Vec<u8>) -> io::Result<()> {
        self.waiting += other.len();
        if self.waiting > MAX_WAITING {
            return Err(io::Error::other("too much comes between the parts of a message"));
        }
        self.parts.push_back(Part::Other(other));
        Ok(())
    }

    /// Passes on what is decided, as far as nothing is before it that is not.
    fn flush(&mut self, out: &mut Vec<u8>) {
        while let Some(part) = self.parts.front_mut() {
            match part {
                Part::Other(other) => {
                    self.waiting -= other.len();
                    out.append(other);
                }
                Part::Searched(length) => {
                    let now = usize::try_from(*length)
                        .unwrap_or(usize::MAX)
                        .min(self.decided.len());
                    out.extend(self.decided.drain(..now));
                    *length -= now as u64;
                    if *length > 0 {
                        return;
                    }
                }
            }
            self.parts.pop_front();
        }
    }
}

/// As much of the bytes as is `left` to come, which is less then, and the rest.
fn split<'a>(bytes: &'a [u8], left: &mut u64) -> (&'a [u8], &'a [u8]) {
    let now = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
    *left -= now as u64;
    bytes.split_at(now)
}

/// What comes after a head, once all of that has come.
fn after(head: &[u8]) -> io::Result<Option<State>> {
    let [first, second, length @ ..] = head else {
        return Ok(None);
    };
    // Extensions were not agreed on, and only clients mask.
    if first & 0x70 != 0 || second & 0x80 != 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let length = match second {
        126 => length
            .try_into()
            .ok()
            .map(|length| u64::from(u16::from_be_bytes(length))),
        127 => length.try_into().ok().map(u64::from_be_bytes),
        short => Some(u64::from(*short)),
    };
    let Some(left) = length else { return Ok(None) };
    let is_last = first & 0x80 != 0;
    Ok(Some(if first & 0x08 == 0 {
        State::Payload { left, is_last }
    } else if is_last && left <= MAX_CONTROL {
        let payload = Vec::new();
        State::Control { left, payload }
    } else {
        return Err(io::ErrorKind::InvalidData.into());
    }))
}

/// The server's side of a WebSocket.
pub(in crate::proxy) struct Masked<S> {
    stream: S,
    frames: Frames,
    ready: Vec<u8>,
    /// How much of that has been read.
    read: usize,
}

impl<S> Masked<S> {
    pub(in crate::proxy) fn new(stream: S, set: &Arc<Set>) -> Self {
        Self {
            stream,
            frames: Frames::new(&set.mask),
            ready: Vec::new(),
            read: 0,
        }
    }
}

impl<S: Stream> Stream for Masked<S> {}

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

    /// One of a message that goes on, or goes on with this one.
    fn part(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = frame(payload);
        frame[0] = first;
        frame
    }

    fn passed(said: &[u8], cut: usize) -> Vec<u8> {
        let mut frames = Frames::new(&set().mask);
        let mut out = Vec::new();
        for piece in said.chunks(cut) {
            out.extend(frames.pass(piece).unwrap());
        }
        out
    }

    proptest! {
        #[test]
        fn secrets_are_masked_in_frames(fill in 0usize..70_000, cut in 1usize..4_000) {
            let text = format!("{}{SECRET}s", "x".repeat(fill));
            let said = [frame(text.as_bytes()), frame(b""), frame(b"s3c")].concat();
            let masked = format!("{}{}s", "x".repeat(fill), "*".repeat(SECRET.len()));
            prop_assert!(passed(&said, cut) == [frame(masked.as_bytes()), frame(b""), frame(b"s3c")].concat());
        }

        #[test]
        fn secrets_are_masked_over_frames(at in 1..SECRET.len(), cut in 1usize..40, is_pinged: bool) {
            let (one, two) = SECRET.as_bytes().split_at(at);
            let ping = if is_pinged { part(0x89, SECRET.as_bytes()) } else { Vec::new() };
            let said = [part(0x01, one), ping, part(0x00, b""), part(0x80, two), frame(two)].concat();
            let stars = "*".repeat(SECRET.len());
            let (first, second) = stars.as_bytes().split_at(at);
            let ping = if is_pinged { part(0x89, stars.as_bytes()) } else { Vec::new() };
            let expected = [part(0x01, first), ping, part(0x00, b""), part(0x80, second), frame(two)].concat();
            prop_assert_eq!(passed(&said, cut), expected);
        }
    }

    #[test]
    fn what_is_no_servers_frame_ends_it() {
        for head in [[0x81, 0x81], [0xc1, 1], [0x91, 1], [0x09, 1], [0x89, 126]] {
            assert!(
                Frames::new(&set().mask)
                    .pass(&[&head[..], &[1, 1]].concat())
                    .is_err(),
                "{head:?}"
            );
        }
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut frames = Frames::new(&set().mask);
        frames.pass(&part(0x01, b"s3cret/")).unwrap();
        let flood = part(0x89, &[b'x'; 100]).repeat(1_000);
        assert!(frames.pass(&flood).is_err());
    }
}
