//! Faults in OpenAI's shape.

use axum::http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::fault::Fault;

/// The body of a response that is not 2xx.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatErrorBody {
    error: ChatError,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatError {
    message: String,
    /// `invalid_request_error`, `session_busy`, `quota_exceeded`, `run_failed`, `timeout`, ...
    r#type: &'static str,
    /// The same code as the rest of this API has.
    code: &'static str,
    /// Always null.
    #[schema(required)]
    param: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, nullable = false)]
    details: Option<Value>,
}

impl ChatErrorBody {
    pub(crate) fn of(fault: &Fault) -> Self {
        Self {
            error: ChatError {
                message: fault.message().to_owned(),
                r#type: kind(fault),
                code: fault.code(),
                param: None,
                details: fault.details().cloned(),
            },
        }
    }
}

/// Words a fault.
pub(crate) fn body(fault: &Fault) -> Value {
    serde_json::to_value(ChatErrorBody::of(fault))
        .unwrap_or_else(|_| json!({"error": {"code": fault.code()}}))
}

fn kind(fault: &Fault) -> &'static str {
    match fault.code() {
        code @ ("session_busy" | "quota_exceeded" | "run_failed" | "timeout") => code,
        "session_not_found" => "not_found_error",
        "unauthorized" => "authentication_error",
        "forbidden" => "permission_error",
        "internal" => "internal_error",
        code if fault.status() == StatusCode::TOO_MANY_REQUESTS || fault.status().is_server_error() => code,
        _ => "invalid_request_error",
    }
}
