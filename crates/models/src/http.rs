//! One HTTP exchange with a provider: the shared client, time limits and error answers.
//!
//! Base URLs are the operator's configuration, never a user's input, and may well be loopback (Ollama, vLLM,
//! a gateway on the same host), so these requests don't go through the dial guard that user-given addresses
//! pass (I11). Redirects are refused: a key must not follow one to another host.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use oma_domain::event::FailureKind;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use secrecy::SecretString;

use crate::{Error, failure};

/// The most that is read of an error answer's body, in bytes.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// The most that is read of an answer, in bytes. What decoders hold is less than what they have read.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// The longest wait for an error answer's body.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The bytes of an answer as they arrive; a stall between two pieces is an error.
pub(crate) type Body = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// The client that all providers share.
///
/// # Errors
/// When the platform's TLS certificates can't be loaded.
pub(crate) fn client(connect_timeout: Duration) -> Result<reqwest::Client, Error> {
    reqwest::Client::builder()
        .connect_timeout(connect_timeout)
        .redirect(reqwest::redirect::Policy::none())
        .pool_idle_timeout(Duration::from_secs(90))
        .tcp_nodelay(true)
        .tcp_keepalive(Duration::from_secs(30))
        .http2_adaptive_window(true)
        // A model may think for minutes without a byte; this tells a silent connection from a dead one.
        .http2_keep_alive_interval(Duration::from_secs(20))
        .http2_keep_alive_timeout(Duration::from_secs(20))
        .user_agent(concat!("openclaw-managed-agents/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| {
            Error::fatal(
                FailureKind::Internal,
                format!("no HTTP client: {}", causes(&error)),
            )
        })
}

/// Where and how one provider is reached.
#[derive(Clone)]
pub(crate) struct Endpoint {
    /// The shared client.
    pub(crate) client: reqwest::Client,
    /// Sent with each request; values with secrets are marked sensitive.
    pub(crate) headers: HeaderMap,
    /// What must not appear in an error.
    pub(crate) secrets: Vec<SecretString>,
    /// The longest wait for the answer to begin, and between two of its pieces.
    pub(crate) stall: Duration,
}

impl Endpoint {
    /// Posts a JSON body and returns the answer's bytes once it has begun with a success status.
    ///
    /// # Errors
    /// The provider's own error, or a passing one when it can't be reached or doesn't answer in time.
    pub(crate) async fn post(&self, url: &str, body: Vec<u8>, extra: HeaderMap) -> Result<Body, Error> {
        let mut request = self.client.post(url).headers(self.headers.clone());
        request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let sent = request.headers(extra).body(body).send();
        let response = match tokio::time::timeout(self.stall, sent).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.redacted(unreachable_provider(error))),
            Err(_) => return Err(stalled(self.stall, "the provider did not begin to answer")),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(self.body(response));
        }
        let headers = response.headers().clone();
        let body = self.error_body(response).await;
        Err(self.redacted(failure::from_response(status.as_u16(), &headers, &body)))
    }

    /// Removes this endpoint's secrets from an error.
    pub(crate) fn redacted(&self, error: Error) -> Error {
        failure::redacted(error, &self.secrets)
    }

    fn body(&self, response: reqwest::Response) -> Body {
        let stall = self.stall;
        Box::pin(stream::unfold(
            Some((response, 0_usize)),
            move |state| async move {
                let (mut response, read) = state?;
                match tokio::time::timeout(stall, response.chunk()).await {
                    Ok(Ok(Some(bytes))) => {
                        let read = read.saturating_add(bytes.len());
                        if read > MAX_ANSWER {
                            let message = format!("the provider's answer is larger than {MAX_ANSWER} bytes");
                            let error = Error::fatal(FailureKind::ModelRequestFailed, message);
                            return Some((Err(error.unaccounted()), None));
                        }
                        Some((Ok(bytes), Some((response, read))))
                    }
                    Ok(Ok(None)) => None,
                    Ok(Err(error)) => {
                        let message = format!("the answer was cut off: {}", causes(&error.without_url()));
                        let error = Error::passing(FailureKind::ModelOverloaded, message);
                        Some((Err(error.unaccounted()), None))
                    }
                    Err(_) => Some((Err(stalled(stall, "the answer stalled")), None)),
                }
            },
        ))
    }

    /// As much of an error's body as arrives in time and fits; the status alone is enough for an error.
    async fn error_body(&self, response: reqwest::Response) -> Vec<u8> {
        let mut body = self.body(response);
        let mut read = Vec::new();
        let deadline = tokio::time::Instant::now() + ERROR_BODY_TIMEOUT;
        while let Ok(Some(Ok(bytes))) = tokio::time::timeout_at(deadline, body.next()).await {
            let room = MAX_ERROR_BODY - read.len();
            read.extend_from_slice(&bytes[..bytes.len().min(room)]);
            if read.len() == MAX_ERROR_BODY {
                break;
            }
        }
        read
    }
}

fn stalled(after: Duration, what: &str) -> Error {
    Error::passing(
        FailureKind::ModelOverloaded,
        format!("{what} for {} seconds", after.as_secs_f64()),
    )
    .unaccounted()
}

fn unreachable_provider(error: reqwest::Error) -> Error {
    let host = error
        .url()
        .and_then(|url| url.host_str().map(str::to_owned))
        .unwrap_or_default();
    let is_builder = error.is_builder();
    let never_left = error.is_connect();
    let causes = causes(&error.without_url());
    if is_builder {
        return Error::fatal(
            FailureKind::ModelUnavailable,
            format!("the provider's address is not usable: {causes}"),
        );
    }
    let error = Error::passing(
        FailureKind::ModelOverloaded,
        format!("can't reach the provider at {host}: {causes}"),
    );
    if never_left { error } else { error.unaccounted() }
}

/// An error with its causes in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// A text as one segment of a URL's path: everything that isn't plain is escaped.
pub(crate) fn path_segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}
