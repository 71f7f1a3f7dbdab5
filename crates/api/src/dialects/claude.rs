//! The Claude Managed Agents dialect. Its routes are not built yet: whatever asks for it is told so, in the
//! shape that Anthropic's SDKs read, and nothing is half answered.

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use serde_json::{Value, json};

use crate::fault::Fault;

/// Answers every request of this dialect.
pub(crate) fn router() -> Router {
    Router::new().route("/{*path}", axum::routing::any(not_built))
}

async fn not_built(method: Method, uri: Uri) -> Fault {
    let path: String = uri.path().chars().take(200).collect();
    let message = format!(
        "{method} {path}: this server does not speak the Claude Managed Agents API yet. Without an \
         anthropic-version header the same path speaks the OpenClaw API; see /docs."
    );
    Fault::new(StatusCode::NOT_IMPLEMENTED, "not_implemented", message)
}

/// A fault in Anthropic's shape.
pub(crate) fn error_body(fault: &Fault, request_id: &str) -> Value {
    let kind = match fault.status() {
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => "invalid_request_error",
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::CONFLICT => "conflict_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        _ => "api_error",
    };
    json!({
        "type": "error",
        "error": {
            "type": kind,
            "message": fault.message(),
            "details": {"error_code": fault.code()},
        },
        "request_id": request_id,
    })
}
