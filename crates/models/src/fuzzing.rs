//! Ways in for the fuzz targets, which feed bytes to what reads the providers' answers and users' scripts.
//!
//! Compiled for tests and fuzzing only; nothing else can call it.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use futures_util::stream;
use reqwest::header::{HeaderMap, HeaderValue};

use crate::http::Body;
use crate::registry::{Registry, Target};
use crate::request::ModelStream;
use crate::{Config, Error, Protocol, answer, failure, scripted, sse};

/// One target for all inputs: making its HTTP client is slow.
static TARGET: LazyLock<Result<Arc<Target>, String>> = LazyLock::new(|| {
    let registry = Registry::from_config(Config::default()).map_err(|error| error.to_string())?;
    let target = registry.local_target("ollama/x");
    target.map(Arc::new).map_err(|error| error.to_string())
});

/// An answer in a protocol, whose bytes arrive in these pieces.
///
/// # Errors
/// When the HTTP client can't be made.
pub fn answer(protocol: Protocol, pieces: Vec<Vec<u8>>) -> Result<ModelStream, String> {
    let target = TARGET.as_ref().map_err(Clone::clone)?;
    let decoder = || Arc::clone(target);
    let body: Body = Box::pin(stream::iter(
        pieces.into_iter().map(|piece| Ok(Bytes::from(piece))),
    ));
    let events = |body| Box::pin(sse::events(body, sse::MAX_EVENT));
    Ok(match protocol {
        Protocol::Anthropic => answer::stream_of(events(body), crate::anthropic::decoder(decoder()), target),
        Protocol::OpenaiChat => {
            answer::stream_of(events(body), crate::openai_chat::decoder(decoder()), target)
        }
        Protocol::OpenaiResponses => {
            answer::stream_of(events(body), crate::openai_responses::decoder(decoder()), target)
        }
        Protocol::Gemini => answer::stream_of(events(body), crate::gemini::decoder(decoder()), target),
        Protocol::Bedrock => crate::bedrock::stream_of(body, target),
    })
}

/// An answer of Bedrock's whose frames are whole: their checksums can't be guessed.
///
/// # Errors
/// When the HTTP client can't be made.
pub fn bedrock_answer(events: Vec<(String, serde_json::Value)>) -> Result<ModelStream, String> {
    let target = TARGET.as_ref().map_err(Clone::clone)?;
    Ok(crate::bedrock::stream_of_events(events, target))
}

/// What a refusal with this status, `Retry-After` and body is taken for.
#[must_use]
pub fn refusal(status: u16, retry_after: &[u8], body: &[u8]) -> Error {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(retry_after) {
        headers.insert("retry-after", value);
    }
    failure::from_response(status, &headers, body)
}

/// Whether there is a script in a system prompt.
///
/// # Errors
/// What is wrong with it.
pub fn script(system: &str) -> Result<bool, String> {
    scripted::has_script(system)
}
