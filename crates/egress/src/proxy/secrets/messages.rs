//! Streams of messages that each say how long they are, as gRPC and Connect have them: one flag and four bytes of length
//! before each.
//!
//! A message is searched by itself, and what is masked in it keeps its length.

use std::io;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_TYPE;

use super::replace::Pieces;

/// What is before each message, in bytes.
const PREFIX: usize = 5;
/// The flag of a message that is compressed.
const COMPRESSED: u8 = 1;

/// Whether a body is such a stream.
pub(super) fn are_in(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .map_or(&b""[..], |value| value.as_bytes());
    let kind = kind.to_ascii_lowercase();
    // In the text form the whole stream is in Base64.
    (kind.starts_with(b"application/grpc") && !kind.starts_with(b"application/grpc-web-text"))
        || kind.starts_with(b"application/connect+")
}

/// Where in such a stream one is.
#[derive(Default)]
pub(super) struct Messages {
    prefix: Vec<u8>,
    left: usize,
}

impl Messages {
    /// What of these bytes can be passed on: all messages that are complete, and of the last one what is decided.
    ///
    /// # Errors
    /// When a message is compressed, though that was not asked for.
    pub(super) fn pass(&mut self, pieces: &mut Pieces, mut data: Bytes) -> io::Result<Bytes> {
        let mut out = BytesMut::with_capacity(data.len());
        while !data.is_empty() {
            if self.left == 0 {
                let missing = PREFIX - self.prefix.len();
                let more = data.split_to(missing.min(data.len()));
                self.prefix.extend_from_slice(&more);
                let Ok([flags, length @ ..]) = <[u8; PREFIX]>::try_from(&self.prefix[..]) else {
                    break;
                };
                if flags & COMPRESSED != 0 {
                    return Err(io::Error::other("a message came compressed"));
                }
                out.extend_from_slice(&self.prefix);
                self.prefix.clear();
                self.left = u32::from_be_bytes(length) as usize;
                continue;
            }
            let piece = data.split_to(self.left.min(data.len()));
            self.left -= piece.len();
            out.extend_from_slice(&pieces.push(&piece));
            if self.left == 0 {
                out.extend_from_slice(&pieces.release());
            }
        }
        Ok(out.freeze())
    }

    /// How much of a prefix has come, in bytes.
    pub(super) fn held(&self) -> usize {
        self.prefix.len()
    }

    /// What has come of a prefix that was not completed.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{SECRET, set};
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn message(flags: u8, text: &[u8]) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        [&[flags][..], &length, text].concat()
    }

    proptest! {
        #[test]
        fn messages_keep_their_lengths_and_are_passed_on_at_once(cut in 1usize..60, fill in 0usize..90_000) {
            let text = format!("{}{SECRET}s3", "x".repeat(fill));
            let masked = format!("{}{}s3", "x".repeat(fill), "*".repeat(SECRET.len()));
            let said = [message(0, text.as_bytes()), message(0, b""), message(0x80, b"cret"), vec![0, 0]].concat();
            let expected = [message(0, masked.as_bytes()), message(0, b""), message(0x80, b"cret")].concat();
            let (mut pieces, mut messages) = (Pieces::new(set().mask), Messages::default());
            let mut out = Vec::new();
            for piece in said.chunks(cut * 100) {
                out.extend(messages.pass(&mut pieces, Bytes::copy_from_slice(piece)).unwrap());
            }
            prop_assert!(out == expected);
            prop_assert_eq!((messages.held(), messages.rest()), (2, vec![0, 0]));
        }
    }

    #[test]
    fn a_message_that_is_compressed_ends_it() {
        let mut pieces = Pieces::new(set().mask);
        let said = Bytes::from(message(1, b"abc"));
        assert!(Messages::default().pass(&mut pieces, said).is_err());
    }

    #[test]
    fn streams_of_messages_are_told_by_their_type() {
        for (kind, are) in [
            ("application/grpc", true),
            ("application/grpc-web+proto", true),
            ("application/grpc-web-text", false),
            ("application/connect+json", true),
            ("application/json", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
            assert_eq!(are_in(&headers), are, "{kind}");
        }
    }
}
