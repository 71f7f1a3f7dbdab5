//! A panic in a handler is a fault of ours that hurts one request, not the connection and not the process.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;

use crate::fault::Fault;

/// Answers 500 when a handler panics.
pub(crate) async fn catch(request: Request, next: Next) -> Response {
    // Nothing that a handler shares can be left half-changed: the engine's state lives behind its own actors.
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(payload) => Fault::internal(format!("panic: {}", text(&*payload))).into_response(),
    }
}

fn text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
