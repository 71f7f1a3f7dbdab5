//! Frames: how the messages of [`crate::protocol`] travel on a byte stream.
//!
//! A frame is its length (four bytes, big endian) and that many bytes of JSON.
//!
//! Invariant: nobody reads more than [`MAX_FRAME`] bytes for one frame, whatever length it claims.

use std::net::{IpAddr, SocketAddr};

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::{Decoder as _, Encoder as _, FramedRead, FramedWrite, LengthDelimitedCodec};

use crate::Error;
use crate::error::io;
use crate::protocol::MAX_FRAME;

/// How long the length of a frame is.
const LENGTH: usize = 4;

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .max_frame_length(MAX_FRAME)
        .new_codec()
}

/// Reads messages.
pub(crate) struct Reader<R>(FramedRead<R, LengthDelimitedCodec>);

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(crate) fn new(stream: R) -> Self {
        Self(FramedRead::new(stream, codec()))
    }

    /// The stream, and what was read of it already beyond the last frame.
    pub(crate) fn into_parts(self) -> (R, BytesMut) {
        let parts = self.0.into_parts();
        (parts.io, parts.read_buf)
    }

    /// The next frame as it is; `None` at the end of the stream. Safe to drop and to call again.
    pub(crate) async fn next_bytes(&mut self) -> Result<Option<BytesMut>, Error> {
        match self.0.next().await {
            None => Ok(None),
            Some(Ok(frame)) => Ok(Some(frame)),
            Some(Err(error)) if error.kind() == std::io::ErrorKind::InvalidData => Err(Error::Protocol(
                format!("a frame is longer than {MAX_FRAME} bytes"),
            )),
            Some(Err(error)) => Err(Error::Lost(error.to_string())),
        }
    }

    /// The next message; `None` at the end of the stream. Safe to drop and to call again.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        let Some(frame) = self.next_bytes().await? else {
            return Ok(None);
        };
        serde_json::from_slice(&frame)
            .map(Some)
            .map_err(|error| Error::Protocol(format!("a frame is not understood: {error}")))
    }
}

/// Writes messages.
pub(crate) struct Writer<W>(FramedWrite<W, LengthDelimitedCodec>);

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub(crate) fn new(stream: W) -> Self {
        Self(FramedWrite::new(stream, codec()))
    }

    /// The stream; every frame has been sent.
    pub(crate) fn into_inner(self) -> W {
        self.0.into_inner()
    }

    /// The stream; every frame has been sent.
    pub(crate) fn get_ref(&self) -> &W {
        self.0.get_ref()
    }

    /// Sends a frame that [`encode`] made.
    pub(crate) async fn send(&mut self, frame: Bytes) -> Result<(), Error> {
        self.0
            .send(frame)
            .await
            .map_err(|error| Error::Lost(error.to_string()))
    }
}

/// The JSON of a message.
///
/// # Errors
/// [`Error::Protocol`] when it would not fit in a frame.
pub(crate) fn encode(message: &impl Serialize) -> Result<Bytes, Error> {
    let json = serde_json::to_vec(message).map_err(|error| io("encoding a frame", error.into()))?;
    if json.len() > MAX_FRAME {
        return Err(Error::Protocol(format!(
            "{} bytes don't fit in a frame",
            json.len()
        )));
    }
    Ok(Bytes::from(json))
}

/// A message as it travels.
///
/// # Errors
/// [`Error::Protocol`] when it would not fit in a frame.
pub(crate) fn framed(message: &impl Serialize) -> Result<Bytes, Error> {
    let json = encode(message)?;
    let mut frame = BytesMut::with_capacity(LENGTH + json.len());
    codec()
        .encode(json, &mut frame)
        .map_err(|error| io("encoding a frame", error))?;
    Ok(frame.freeze())
}

/// The message that a frame is, if all of it is there.
///
/// # Errors
/// [`Error::Protocol`] when it is none, or is followed by something.
pub(crate) fn unframed<T: DeserializeOwned>(bytes: &[u8]) -> Result<Option<T>, Error> {
    let mut bytes = BytesMut::from(bytes);
    let wrong = |error: String| Error::Protocol(format!("a frame is not understood: {error}"));
    let Some(frame) = codec()
        .decode(&mut bytes)
        .map_err(|error| wrong(error.to_string()))?
    else {
        return Ok(None);
    };
    if !bytes.is_empty() {
        return Err(wrong("something follows it".to_owned()));
    }
    serde_json::from_slice(&frame)
        .map(Some)
        .map_err(|error| wrong(error.to_string()))
}

/// A datagram of a process in the sandbox, or one for it: a frame of the peer's port and address, and the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// The process's end, on a loopback address of the sandbox.
    pub peer: SocketAddr,
    /// What it says, or is told.
    pub bytes: Bytes,
}

/// The port, and an address as version 6 writes it.
const PEER: usize = 2 + 16;

impl Datagram {
    pub(crate) fn new(peer: SocketAddr, bytes: &[u8]) -> Self {
        let bytes = Bytes::copy_from_slice(bytes);
        Self { peer, bytes }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut frame = BytesMut::with_capacity(PEER + self.bytes.len());
        let address = match self.peer.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        frame.extend_from_slice(&self.peer.port().to_be_bytes());
        frame.extend_from_slice(&address.octets());
        frame.extend_from_slice(&self.bytes);
        frame.freeze()
    }

    /// `None` for a frame that is too short.
    pub(crate) fn decode(mut frame: Bytes) -> Option<Self> {
        let (port, rest) = frame.split_first_chunk::<2>()?;
        let address = *rest.first_chunk::<16>()?;
        let address = IpAddr::from(address).to_canonical();
        let peer = SocketAddr::new(address, u16::from_be_bytes(*port));
        Some(Self {
            peer,
            bytes: frame.split_off(PEER),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Order, Report};
    use tokio::io::AsyncWriteExt as _;

    #[tokio::test]
    async fn messages_arrive_whole_and_in_order() {
        let (near, far) = tokio::io::duplex(7);
        let sent = vec![Order::Hello { version: 1 }, Order::Logs { id: 7, tail: 3 }];
        let frames: Vec<Bytes> = sent.iter().map(|order| encode(order).unwrap()).collect();
        let writing = tokio::spawn(async move {
            let mut writer = Writer::new(near);
            for frame in frames {
                writer.send(frame).await.unwrap();
            }
        });
        let mut reader = Reader::new(far);
        let mut got = Vec::new();
        while let Some(order) = reader.next::<Order>().await.unwrap() {
            got.push(order);
        }
        assert_eq!(got, sent);
        writing.await.unwrap();
    }

    #[tokio::test]
    async fn hostile_bytes_are_refused() {
        let too_long = u32::try_from(MAX_FRAME + 1).unwrap().to_be_bytes().to_vec();
        let cases: [(&str, Vec<u8>); 4] = [
            ("a length beyond the bound", too_long),
            ("no JSON", [&3_u32.to_be_bytes()[..], b"abc"].concat()),
            (
                "an unknown message",
                [&12_u32.to_be_bytes()[..], br#"{"op":"dig"}"#].concat(),
            ),
            ("cut off in the middle", [&9_u32.to_be_bytes()[..], b"{"].concat()),
        ];
        for (name, bytes) in cases {
            let (mut near, far) = tokio::io::duplex(64);
            near.write_all(&bytes).await.unwrap();
            drop(near);
            assert!(Reader::new(far).next::<Report>().await.is_err(), "{name}");
        }
    }

    #[test]
    fn datagrams_keep_their_peer() {
        for peer in ["127.0.0.1:53", "[::1]:65535"] {
            let datagram = Datagram::new(peer.parse().unwrap(), b"words");
            assert_eq!(Datagram::decode(datagram.encode()), Some(datagram));
        }
        assert_eq!(Datagram::decode(Bytes::from_static(&[0; PEER - 1])), None);
    }

    #[test]
    fn what_does_not_fit_is_not_sent() {
        let report = Report::Logs {
            id: 1,
            text: "x".repeat(MAX_FRAME),
        };
        assert!(matches!(encode(&report), Err(Error::Protocol(_))));
    }
}
