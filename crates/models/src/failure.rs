//! Turns what a provider says about a failure into our kinds.
//!
//! Each provider spells "the prompt is too long" and "you have no credit" in its own way, often under a
//! status that means something else (OpenAI reports an empty account as 429, Anthropic as 400). The tables
//! below hold those spellings, so this is the only place that knows them.

use std::time::{Duration, SystemTime};

use oma_domain::event::FailureKind;
use reqwest::header::HeaderMap;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::Error;

/// The longest message that is kept of a provider's error, in bytes.
const MAX_MESSAGE: usize = 2_000;

/// Spellings of "the context does not fit", in lower case.
const CONTEXT_OVERFLOW: &[&str] = &[
    "context_length_exceeded",
    "context length",
    "context window",
    "context size",
    "prompt is too long",
    "prompt too long",
    "input is too long",
    "input length and `max_tokens` exceed",
    "input length should be",
    "input token count",
    "maximum prompt length",
    "exceeded model token limit",
    "reduce the length of the messages",
    "too many input tokens",
    "too many tokens in the prompt",
    "request_too_large",
];

/// Spellings of "the account has no credit", in lower case.
const BILLING: &[&str] = &[
    "insufficient_quota",
    "credit balance is too low",
    "insufficient balance",
    "insufficient credits",
    "insufficient_balance",
    "insufficient_credit",
    "billing_error",
    "billing_hard_limit_reached",
    "billing_not_active",
    "exceeded_current_quota_error",
    "arrearage",
    "account is overdue",
    "account_overdue",
    "spend limit",
    "spending limit",
    "used all available credits",
    "payment required",
    "credit limit exceeded",
];

/// Spellings of "this key is not accepted" under other statuses than 401, in lower case.
const AUTHENTICATION: &[&str] = &[
    "api_key_invalid",
    "api key not valid",
    "invalid_api_key",
    "invalid api key",
    "authentication_error",
    "unrecognizedclientexception",
    "invalidsignatureexception",
    "expiredtokenexception",
];

/// Spellings of a passing overload inside a stream that has no status, in lower case.
const OVERLOADED: &[&str] = &[
    "overloaded",
    "unavailable",
    "server_error",
    "api_error",
    "internal",
    "timeout",
    "timed out",
    "try again",
    "capacity",
    "deadline_exceeded",
    "modelstreamerrorexception",
];

/// Spellings of a rate limit, in lower case.
const RATE_LIMITED: &[&str] = &[
    "rate_limit",
    "rate limit",
    "ratelimit",
    "too many requests",
    "resource_exhausted",
    "throttlingexception",
];

/// What a provider's error body says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// The message for people.
    pub(crate) message: String,
    /// Every code and type that comes with it, joined by spaces.
    pub(crate) codes: String,
    /// A wait that the body asks for.
    pub(crate) retry_after: Option<Duration>,
}

impl Report {
    /// Reads an error body in any of the shapes in use: `{"error": {…}}`, `{"error": "…"}`,
    /// `{"message": …}`, `{"detail": …}`, `{"errors": […]}`, a list of these, or plain text.
    pub(crate) fn from_body(body: &[u8]) -> Self {
        match serde_json::from_slice::<Value>(body) {
            Ok(value) => Self::from_json(&value),
            Err(_) => {
                let text = String::from_utf8_lossy(body);
                let text = text.trim();
                // A proxy's HTML page says nothing that the status doesn't.
                let message = if text.starts_with('<') {
                    String::new()
                } else {
                    clipped(text)
                };
                Self {
                    message,
                    ..Self::default()
                }
            }
        }
    }

    /// Reads an error object that is already JSON.
    pub(crate) fn from_json(value: &Value) -> Self {
        let value = match value {
            Value::Array(items) => items.first().unwrap_or(&Value::Null),
            other => other,
        };
        let inner = match value
            .get("error")
            .or_else(|| value.get("errors").and_then(|all| all.get(0)))
        {
            Some(error) => error,
            None => value,
        };
        let mut message = text_of(inner)
            .or_else(|| {
                ["message", "Message", "detail", "msg", "reason"]
                    .iter()
                    .find_map(|key| text_of(&inner[*key]))
            })
            .or_else(|| ["message", "detail"].iter().find_map(|key| text_of(&value[*key])))
            .unwrap_or_default();
        // OpenRouter wraps the upstream provider's error, and its own message says only that there was one.
        if let Some(raw) = inner.pointer("/metadata/raw").and_then(Value::as_str) {
            let upstream = Self::from_body(raw.as_bytes());
            if !upstream.message.is_empty() {
                message = format!("{message}: {}", upstream.message);
            }
        }
        let mut codes: Vec<String> = Vec::new();
        for key in ["type", "code", "status", "__type"] {
            for object in [inner, value] {
                match &object[key] {
                    Value::String(code) if !codes.contains(code) => codes.push(code.clone()),
                    Value::Number(code) if !codes.contains(&code.to_string()) => codes.push(code.to_string()),
                    _ => {}
                }
            }
        }
        let details = inner["details"].as_array().map(Vec::as_slice).unwrap_or_default();
        codes.extend(
            details
                .iter()
                .filter_map(|detail| detail["reason"].as_str().map(str::to_owned)),
        );
        let retry_after = details
            .iter()
            .find_map(|detail| seconds(detail["retryDelay"].as_str()?.strip_suffix('s')?));
        Self {
            message: clipped(&message),
            codes: codes.join(" "),
            retry_after,
        }
    }
}

/// A text that stands directly in the value, or a list's text (FastAPI puts validation errors in one).
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Array(items) if !items.is_empty() => {
            let texts: Vec<&str> = items.iter().filter_map(|item| item["msg"].as_str()).collect();
            (!texts.is_empty()).then(|| texts.join("; "))
        }
        _ => None,
    }
}

/// At most [`MAX_MESSAGE`] bytes of a text, cut at a character.
fn clipped(text: &str) -> String {
    match text
        .char_indices()
        .find(|(at, ch)| at + ch.len_utf8() > MAX_MESSAGE)
    {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The error for an answer that is not a success.
pub(crate) fn from_response(status: u16, headers: &HeaderMap, body: &[u8]) -> Error {
    let report = Report::from_body(body);
    let asked = retry_after(headers, SystemTime::now()).or(report.retry_after);
    let mut error = classified(Some(status), &report);
    // A gateway gave up waiting, and the provider behind it may still be at work.
    if matches!(status, 504 | 524) {
        error = error.unaccounted();
    }
    error.retry_after = asked;
    match headers
        .get("x-should-retry")
        .map(reqwest::header::HeaderValue::as_bytes)
    {
        Some(b"true") => error.retryable = true,
        Some(b"false") => error.retryable = false,
        _ => {}
    }
    error
}

/// The error for a report that came inside a stream, after a success status.
pub(crate) fn in_stream(report: &Report) -> Error {
    // Some providers put the status that they would have answered with into the report's code.
    let status = report
        .codes
        .split(' ')
        .find_map(|code| code.parse().ok().filter(|code| (400..600).contains(code)));
    Error {
        retry_after: report.retry_after,
        ..classified(status, report)
    }
}

fn classified(status: Option<u16>, report: &Report) -> Error {
    let (kind, retryable) = kind(status, report);
    let mut message = report.message.clone();
    if message.is_empty() {
        message = match (status, report.codes.as_str()) {
            (Some(status), "") => format!("the provider answered with status {status} and no message"),
            (Some(status), codes) => format!("the provider answered with status {status} ({codes})"),
            (None, "") => "the provider reported an error without a message".to_owned(),
            (None, codes) => format!("the provider reported an error ({codes})"),
        };
    }
    let base = if retryable {
        Error::passing(kind, message)
    } else {
        Error::fatal(kind, message)
    };
    Error { status, ..base }
}

fn kind(status: Option<u16>, report: &Report) -> (FailureKind, bool) {
    let text = format!("{} {}", report.codes, report.message).to_lowercase();
    let says = |spellings: &[&str]| spellings.iter().any(|spelling| text.contains(spelling));
    let may_be_overflow = matches!(status, None | Some(400 | 413 | 422 | 500));
    if says(BILLING) || status == Some(402) {
        return (FailureKind::Billing, false);
    }
    // A few servers answer 413 or 400 to a request that is over the rate limit by itself.
    if may_be_overflow && says(CONTEXT_OVERFLOW) || status == Some(413) && !says(RATE_LIMITED) {
        return (FailureKind::ContextOverflow, false);
    }
    match status {
        Some(401 | 403 | 407) => (FailureKind::ModelAuthentication, false),
        Some(404) => (FailureKind::ModelUnavailable, false),
        // 424 is Bedrock's status for a model that broke down.
        Some(408 | 409 | 424 | 425) => (FailureKind::ModelOverloaded, true),
        Some(429) => (FailureKind::ModelRateLimited, true),
        Some(501 | 505) => (FailureKind::ModelRequestFailed, false),
        Some(500..) => (FailureKind::ModelOverloaded, true),
        _ if says(AUTHENTICATION) => (FailureKind::ModelAuthentication, false),
        _ if says(RATE_LIMITED) => (FailureKind::ModelRateLimited, true),
        None if says(OVERLOADED) => (FailureKind::ModelOverloaded, true),
        _ => (FailureKind::ModelRequestFailed, false),
    }
}

/// The wait that the headers ask for: `retry-after-ms`, or `Retry-After` in seconds or as a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::trim)
    };
    if let Some(millis) = text("retry-after-ms").and_then(|value| value.parse::<f64>().ok()) {
        return Duration::try_from_secs_f64(millis / 1000.0).ok();
    }
    let value = text("retry-after")?;
    seconds(value).or_else(|| {
        let at = httpdate::parse_http_date(value).ok()?;
        Some(at.duration_since(now).unwrap_or_default())
    })
}

fn seconds(text: &str) -> Option<Duration> {
    text.parse::<f64>()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

/// Removes our own secrets from an error: a provider may quote the key that it refuses.
pub(crate) fn redacted(mut error: Error, secrets: &[SecretString]) -> Error {
    for secret in secrets {
        let secret = secret.expose_secret();
        // A secret of a few characters would tear ordinary words apart, and is none.
        if secret.len() >= 8 && error.failure.message.contains(secret) {
            error.failure.message = error.failure.message.replace(secret, "[redacted]");
        }
    }
    error
}

#[cfg(test)]
#[path = "failure_tests.rs"]
mod tests;
