//! Every request has an id: the client's own when it is sane, a fresh one otherwise. It is in the response's
//! `x-request-id`, and in every log line that the request causes.

use std::fmt;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use oma_domain::{AgentId, SessionId, TraceParent};
use tracing::Instrument;
use tracing::field::Empty;

use crate::telemetry::{method_label, route_label};

/// The longest id that is taken over from a client, in bytes.
const MAX_LEN: usize = 128;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// The name that Claude clients look for.
const CLAUDE_HEADER: HeaderName = HeaderName::from_static("request-id");

/// The id of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The id as text: visible ASCII.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn of(headers: &HeaderMap) -> Self {
        let sane = |text: &&str| {
            !text.is_empty() && text.len() <= MAX_LEN && text.bytes().all(|b| b.is_ascii_graphic())
        };
        match headers
            .get(&HEADER)
            .and_then(|value| value.to_str().ok())
            .filter(sane)
        {
            Some(text) => Self(text.into()),
            None => Self::fresh(),
        }
    }

    fn fresh() -> Self {
        let random = ulid::Ulid::generate().to_bytes();
        // The last ten bytes of a ULID are random.
        Self(format!("req_{}", hex::encode(&random[8..])).into())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Gives the request its id.
pub(crate) async fn assign(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(id.clone());
    let (method, route) = (method_label(request.method()), route_label(&request).to_owned());
    // At this level it is there whatever the log's level is.
    let span = tracing::error_span!(
        "request",
        request_id = %id,
        session_id = Empty,
        agent_id = Empty,
        workspace_id = Empty,
        "otel.name" = format!("{method} {route}"),
        "otel.kind" = "server",
        "http.request.method" = method,
        "http.route" = route,
        "http.response.status_code" = Empty,
    );
    for (name, value) in named(&route, request.uri().path()) {
        match name {
            "{session_id}" if SessionId::parse(value).is_ok() => span.record("session_id", value),
            "{agent_id}" if AgentId::parse(value).is_ok() => span.record("agent_id", value),
            _ => &span,
        };
    }
    let parent = request
        .headers()
        .get("traceparent")
        .and_then(|value| value.to_str().ok());
    if let Some(parent) = parent.and_then(|text| TraceParent::parse(text).ok()) {
        oma_trace::adopt(&span, &parent);
    }
    let mut response = next.run(request).instrument(span).await;
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(CLAUDE_HEADER, value.clone());
        response.headers_mut().insert(HEADER, value);
    }
    response
}

/// The parts of a path beside those of the pattern that it matched.
fn named<'a>(route: &'a str, path: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    route.split('/').zip(path.split('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sane_ids_are_taken_over() {
        let long = "x".repeat(129);
        for (given, kept) in [
            ("abc-123", true),
            ("req_{}~!", true),
            ("", false),
            ("a b", false),
            ("a\tb", false),
            (&*long, false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, HeaderValue::from_str(given).expect("legal header"));
            let id = RequestId::of(&headers);
            assert_eq!(id.as_str() == given, kept, "{given:?}");
        }
        let fresh = RequestId::of(&HeaderMap::new());
        assert!(
            fresh.as_str().starts_with("req_") && fresh.as_str().len() == 20,
            "{fresh}"
        );
        assert_ne!(fresh, RequestId::of(&HeaderMap::new()));
    }
}
