//! Messages of the AWS event stream, with a bounded size.

use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder};
use aws_smithy_types::event_stream::Message;
use bytes::{Buf, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use oma_domain::event::FailureKind;
use serde_json::Value;

use crate::Error;
use crate::http::Body;
use crate::sse::malformed;

/// The largest message, in bytes; AWS's own limit.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// An event or an exception.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: String,
    pub(super) is_exception: bool,
    pub(super) payload: Value,
}

struct Reader {
    body: Body,
    buffer: BytesMut,
    decoder: MessageFrameDecoder,
}

/// The messages of an answer.
pub(super) fn events(body: Body) -> impl Stream<Item = Result<Frame, Error>> + Send {
    let reader = Reader {
        body,
        buffer: BytesMut::new(),
        decoder: MessageFrameDecoder::new(),
    };
    stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(frame)) => Some((Ok(frame), Some(reader))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Frame>, Error> {
        loop {
            let decoded = self.decoder.decode_frame(&mut self.buffer);
            match decoded.map_err(|error| malformed(&error.to_string()))? {
                DecodedFrame::Complete(message) => return frame(&message).map(Some),
                DecodedFrame::Incomplete => {}
            }
            if self.buffer.len() > MAX_MESSAGE {
                let message = format!("the provider sent an event of more than {MAX_MESSAGE} bytes");
                return Err(Error::passing(FailureKind::ModelRequestFailed, message).unaccounted());
            }
            match self.body.next().await {
                Some(bytes) => self.buffer.extend_from_slice(&bytes?),
                None if self.buffer.has_remaining() => return Err(malformed("an end inside a message")),
                None => return Ok(None),
            }
        }
    }
}

fn frame(message: &Message) -> Result<Frame, Error> {
    let header = |name: &str| {
        let found = message
            .headers()
            .iter()
            .find(|header| header.name().as_str() == name)?;
        found
            .value()
            .as_string()
            .ok()
            .map(|value| value.as_str().to_owned())
    };
    let is_event = header(":message-type").as_deref() == Some("event");
    let kind = header(":event-type")
        .or_else(|| header(":exception-type"))
        .or_else(|| header(":error-code"));
    let payload = if message.payload().is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(message.payload()).map_err(|error| malformed(&error.to_string()))?
    };
    Ok(Frame {
        kind: kind.unwrap_or_default(),
        is_exception: !is_event,
        payload,
    })
}
