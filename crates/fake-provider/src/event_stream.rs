//! Writing messages of the AWS event stream.
//!
//! A message is: its length, the headers' length, a CRC-32 of these two, headers, payload, a CRC-32 of all.
//! Written here and not with AWS's library, so that the client's library is tested against something else.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;

/// The header type "string".
const STRING: u8 = 7;

/// An event, or an exception when `is_exception`.
pub(crate) fn message(kind: &str, payload: &Value, is_exception: bool) -> Bytes {
    let payload = payload.to_string();
    let (message_type, type_header) = if is_exception {
        ("exception", ":exception-type")
    } else {
        ("event", ":event-type")
    };
    let mut headers = BytesMut::new();
    for (name, value) in [
        (":message-type", message_type),
        (type_header, kind),
        (":content-type", "application/json"),
    ] {
        headers.put_u8(short(name.len()));
        headers.put_slice(name.as_bytes());
        headers.put_u8(STRING);
        headers.put_u16(u16::try_from(value.len()).unwrap_or_default());
        headers.put_slice(value.as_bytes());
    }
    let total = 12 + headers.len() + payload.len() + 4;
    let mut message = BytesMut::with_capacity(total);
    message.put_u32(u32::try_from(total).unwrap_or_default());
    message.put_u32(u32::try_from(headers.len()).unwrap_or_default());
    message.put_u32(crc32fast::hash(&message));
    message.put_slice(&headers);
    message.put_slice(payload.as_bytes());
    message.put_u32(crc32fast::hash(&message));
    message.freeze()
}

fn short(length: usize) -> u8 {
    u8::try_from(length).unwrap_or_default()
}
