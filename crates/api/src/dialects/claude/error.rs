//! Faults in this dialect, in the shape that Anthropic's SDKs read.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::fault::Fault;

/// The status of a fault. What the present state of a thing forbids is a bad request here; a conflict is left only
/// where somebody else was faster, or has the name.
pub(crate) fn status(fault: &Fault) -> StatusCode {
    match fault.code() {
        "agent_archived"
        | "deployment_archived"
        | "environment_archived"
        | "session_archived"
        | "session_busy"
        | "quota_exceeded"
        | "confirm_tool_failed"
        | "tool_result_not_awaited"
        | "awaits_answers"
        | "outcome_active"
        | "session_not_running" => StatusCode::BAD_REQUEST,
        _ => fault.status(),
    }
}

/// A fault in Anthropic's shape.
pub(crate) fn body(fault: &Fault, request_id: &str) -> Value {
    let kind = match status(fault) {
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::METHOD_NOT_ALLOWED => {
            "invalid_request_error"
        }
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::CONFLICT => "conflict_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::GATEWAY_TIMEOUT => "timeout_error",
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

/// Whether trying again can't help although the SDKs would: they repeat every conflict.
pub(crate) fn is_definite(fault: &Fault) -> bool {
    status(fault) == StatusCode::CONFLICT
}
