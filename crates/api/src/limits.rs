//! The documented bounds of what clients may send and of what one answer may carry, and the reading of
//! bodies under them. Lengths of strings are in characters.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};

use crate::fault::{Fault, Result};

/// The longest JSON body by default, in bytes; large enough for a message with pictures.
pub const JSON_BODY: usize = 32 << 20;
/// The longest file of the files API by default, in bytes.
pub const FILE: usize = 64 << 20;
/// Names of agents, environments, models, tools.
pub const NAME: usize = 256;
/// An agent's instructions.
pub const INSTRUCTIONS: usize = 1_000_000;
/// The text of a message, and of one block of it.
pub const MESSAGE: usize = 4_000_000;
/// The content blocks of one message.
pub const BLOCKS: usize = 256;
/// The tools that an agent or a policy names.
pub const TOOLS: usize = 256;
/// The agents that an agent may delegate to.
pub const CALLABLE_AGENTS: usize = 256;
/// The longest time-out of a confirmation, in milliseconds: 31 days.
pub const CONFIRMATION_TIMEOUT_MS: u64 = 31 * 24 * 3_600_000;
/// The highest budget, in US dollars.
pub const COST_USD: f64 = 1e9;
/// How deep delegation may nest.
pub const SUBAGENT_DEPTH: u64 = 16;
/// The MCP servers of an agent.
pub const MCP_SERVERS: usize = 64;
/// The arguments, variables or headers of an MCP server.
pub const MCP_ENTRIES: usize = 256;
/// A string within an MCP server's object.
pub const MCP_STRING: usize = 32_768;
/// An MCP server's object as JSON, in bytes.
pub const MCP_SERVER: usize = 256 << 10;
/// An environment's description.
pub const DESCRIPTION: usize = 500;
/// The packages of one installer.
pub const PACKAGES: usize = 256;
/// The hosts that an environment allows.
pub const ALLOWED_HOSTS: usize = 256;
/// A host name.
pub const HOST: usize = 253;
/// What the model is told when a tool use is denied.
pub const DENY_MESSAGE: usize = 10_000;
/// The messages of a chat completion request.
pub const CHAT_MESSAGES: usize = 10_000;
/// An idempotency key.
pub const IDEMPOTENCY_KEY: usize = 256;
/// A web address.
pub const URL: usize = 8_192;
/// The URL of a credential or of its token endpoint, and an OAuth client's id.
pub const MATCH_URL: usize = 2_048;
/// A token or another secret of a credential.
pub const SECRET: usize = 65_536;
/// The scopes of an OAuth credential.
pub const SCOPES: usize = 64;
/// A path of the files API, in bytes.
pub const FILE_PATH: usize = 4_096;
/// The entries of one folder listing.
pub const FOLDER_ENTRIES: usize = 10_000;
/// The rows of one page of agents, environments, sessions or versions.
pub const PAGE: u32 = 1_000;
/// The events of one page when the client asks for no page: what old clients take for the whole history.
pub const EVENTS: u32 = 10_000;
/// The JSON text of all rows of one page, in bytes; a page that would grow longer ends earlier, and says so.
pub const PAGE_BYTES: usize = 16 << 20;
/// The lines of one log request.
pub const LOG_LINES: usize = 10_000;

/// Reads a whole body. What is still to come of one that is refused is left to whoever serves the connection.
///
/// # Errors
/// 413 when it is longer than `max` bytes, 408 when the client pauses longer than `idle` or needs longer than
/// `total`, 400 when it breaks off.
pub(crate) async fn read_body(
    headers: &HeaderMap,
    body: Body,
    max: usize,
    idle: Duration,
    total: Duration,
) -> Result<Bytes> {
    let too_long = || {
        let message = format!("The body is longer than {max} bytes");
        Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > max as u64) {
        return Err(too_long());
    }
    let mut chunks = body.into_data_stream();
    let end = Instant::now() + total;
    let mut first: Option<Bytes> = None;
    let mut joined = BytesMut::new();
    loop {
        let deadline = end.min(Instant::now() + idle);
        let Ok(chunk) = timeout_at(deadline, chunks.next()).await else {
            let message = "The body did not arrive in time";
            return Err(Fault::new(
                StatusCode::REQUEST_TIMEOUT,
                "request_timeout",
                message,
            ));
        };
        let Some(chunk) = chunk else { break };
        let Ok(chunk) = chunk else {
            return Err(Fault::new(
                StatusCode::BAD_REQUEST,
                "invalid_body",
                "The body broke off",
            ));
        };
        let so_far = joined.len() + first.as_ref().map_or(0, Bytes::len);
        if chunk.len() > max - so_far {
            return Err(too_long());
        }
        // Most bodies come in one piece, which needs no copy.
        match first.take() {
            None if joined.is_empty() => first = Some(chunk),
            earlier => {
                joined.extend_from_slice(earlier.as_deref().unwrap_or_default());
                joined.extend_from_slice(&chunk);
            }
        }
    }
    Ok(first.unwrap_or_else(|| joined.freeze()))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn chunked(chunks: &[&'static str]) -> Body {
        let chunks: Vec<_> = chunks.iter().map(|text| Ok::<_, Infallible>(*text)).collect();
        Body::from_stream(stream::iter(chunks))
    }

    #[tokio::test]
    async fn bodies_are_read_up_to_their_limit() {
        for (chunks, max, outcome) in [
            (&["abc"][..], 3, Ok("abc")),
            (&["abc"], 2, Err("body_too_large")),
            (&["ab", "cd", "ef"], 6, Ok("abcdef")),
            (&["ab", "cd", "ef"], 5, Err("body_too_large")),
            (&[], 0, Ok("")),
        ] {
            let read = read_body(&HeaderMap::new(), chunked(chunks), max, LONG, LONG).await;
            let read = read.as_deref().map_err(Fault::code);
            assert_eq!(read, outcome.map(str::as_bytes), "{chunks:?} {max}");
        }
    }

    #[tokio::test]
    async fn an_announced_length_is_refused_before_the_body_is_read() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, 11.into());
        let never = Body::from_stream(stream::pending::<std::result::Result<Bytes, Infallible>>());
        let fault = read_body(&headers, never, 10, LONG, LONG)
            .await
            .expect_err("too long");
        assert_eq!(fault.code(), "body_too_large");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_comes_is_given_up() {
        let never = Body::from_stream(stream::pending::<std::result::Result<Bytes, Infallible>>());
        let fault = read_body(&HeaderMap::new(), never, 10, LONG, LONG)
            .await
            .expect_err("stalled");
        assert_eq!(
            (fault.code(), fault.status()),
            ("request_timeout", StatusCode::REQUEST_TIMEOUT)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_drop_by_drop_is_given_up() {
        let drops = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, Infallible>("x"), ()))
        });
        let begun = Instant::now();
        let fault = read_body(
            &HeaderMap::new(),
            Body::from_stream(drops),
            1_000,
            Duration::from_secs(2),
            LONG,
        )
        .await
        .expect_err("too slow");
        assert_eq!(fault.status(), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(begun.elapsed(), LONG);
    }
}
