//! The HTTP side.

use std::collections::VecDeque;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;
use serde_json::Value;

use crate::protocol::{self, Protocol};
use crate::reply::{Gate, Refused, Reply};
use crate::{Recorded, Shared};

/// The largest request.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// A piece of an answer on the wire.
pub(crate) enum Frame {
    Bytes(Bytes),
    Gate(Gate),
    Delay(Duration),
    Cut,
    Stall,
}

pub(crate) fn router(shared: Shared) -> Router {
    Router::new()
        .route("/requests", get(requests))
        .route("/violations", get(violations))
        .fallback(answer)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(shared)
}

async fn requests(State(shared): State<Shared>) -> Response {
    axum::Json(shared.requests()).into_response()
}

async fn violations(State(shared): State<Shared>) -> Response {
    axum::Json(shared.violations()).into_response()
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.to_string();
    let Some(protocol) = Protocol::of(parts.uri.path()) else {
        shared.violation(format!("{} {path}: no provider has this path", parts.method));
        return (StatusCode::NOT_FOUND, "no such path").into_response();
    };
    if parts.method != axum::http::Method::POST {
        shared.violation(format!("{} {path}: the method is not POST", parts.method));
        return (StatusCode::METHOD_NOT_ALLOWED, "POST only").into_response();
    }
    let Ok(bytes) = axum::body::to_bytes(body, MAX_BODY).await else {
        // The client went away, or sent too much.
        return (StatusCode::PAYLOAD_TOO_LARGE, "too large").into_response();
    };
    let Ok(body) = serde_json::from_slice::<Value>(&bytes) else {
        shared.violation(format!("{path}: the body is no JSON"));
        return (StatusCode::BAD_REQUEST, "no JSON").into_response();
    };
    let headers = named(&parts.headers);
    let mut violations = Vec::new();
    let view = protocol::check(protocol, &path, &headers, &body, &mut violations);
    let recorded = Recorded {
        protocol,
        path,
        headers,
        body,
        violations,
    };
    let reply = shared.reply(recorded, &view);
    match &reply.refused {
        Some(refused) => failure(protocol, refused),
        None => success(protocol, &reply, view.position().answers),
    }
}

fn named(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), text(value)))
        .collect()
}

fn failure(protocol: Protocol, refused: &Refused) -> Response {
    let body = protocol::failure(protocol, refused);
    let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, axum::Json(body)).into_response();
    for (name, value) in &refused.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<header::HeaderName>(), HeaderValue::from_str(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn success(protocol: Protocol, reply: &Reply, answers: usize) -> Response {
    let frames: VecDeque<Frame> = protocol::frames(protocol, reply, answers).into();
    let body = stream::unfold(frames, |mut frames| async move {
        loop {
            match frames.pop_front()? {
                Frame::Bytes(bytes) => return Some((Ok(bytes), frames)),
                Frame::Gate(gate) => gate.pass().await,
                Frame::Delay(delay) => tokio::time::sleep(delay).await,
                Frame::Stall => std::future::pending::<()>().await,
                Frame::Cut => {
                    // What was written before goes out while this is not ready; an error would discard it.
                    tokio::task::yield_now().await;
                    return Some((Err(std::io::Error::other("cut")), VecDeque::new()));
                }
            }
        }
    });
    let content_type = match protocol {
        Protocol::Bedrock => "application/vnd.amazon.eventstream",
        _ => "text/event-stream",
    };
    ([(header::CONTENT_TYPE, content_type)], Body::from_stream(body)).into_response()
}
