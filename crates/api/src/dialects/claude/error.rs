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
        | "memory_store_archived"
        | "memory_version_in_use"
        | "skill_has_versions"
        | "too_many_memories"
        | "too_many_memory_stores"
        | "too_many_skills"
        | "too_many_skill_versions"
        | "session_archived"
        | "vault_archived"
        | "credential_archived"
        | "too_many_credentials"
        | "session_busy"
        | "quota_exceeded"
        | "confirm_tool_failed"
        | "tool_result_not_awaited"
        | "awaits_answers"
        | "outcome_active"
        | "session_not_running"
        | "workflow_run_open"
        | "storage_quota_exceeded"
        | "too_many_resources" => StatusCode::BAD_REQUEST,
        _ => fault.status(),
    }
}

/// A fault in Anthropic's shape.
pub(crate) fn body(fault: &Fault, request_id: &str) -> Value {
    let kind = match status(fault) {
        StatusCode::CONFLICT if fault.code() == "memory_path_conflict" => "memory_path_conflict_error",
        StatusCode::CONFLICT if fault.code() == "memory_precondition_failed" => {
            "memory_precondition_failed_error"
        }
        StatusCode::BAD_REQUEST
        | StatusCode::UNPROCESSABLE_ENTITY
        | StatusCode::METHOD_NOT_ALLOWED
        | StatusCode::PRECONDITION_FAILED => "invalid_request_error",
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::CONFLICT => "conflict_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::GATEWAY_TIMEOUT => "timeout_error",
        _ => "api_error",
    };
    let mut details = json!({"error_code": fault.code()});
    if let Some(state) = fault
        .details()
        .filter(|_| status(fault) == StatusCode::PRECONDITION_FAILED)
    {
        details["current_state"] = state.clone();
    }
    let mut error = json!({
        "type": kind,
        "message": fault.message(),
        "details": details,
    });
    // The SDKs' type of this error has two fields more: what is in the way.
    if fault.code() == "memory_path_conflict"
        && let (Some(Value::Object(conflict)), Value::Object(error)) = (fault.details(), &mut error)
    {
        error.extend(conflict.clone());
    }
    json!({"type": "error", "error": error, "request_id": request_id})
}

/// Whether trying again can't help although the SDKs would: they repeat every conflict.
pub(crate) fn is_definite(fault: &Fault) -> bool {
    status(fault) == StatusCode::CONFLICT
}
