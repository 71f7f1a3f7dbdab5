//! Faults in this dialect: `{"error": "<code>", "message": "<text>", "details"?: {...}}`.

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::fault::Fault;

/// The body of every response that is not 2xx.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// A stable code.
    #[schema(example = "session_not_found")]
    pub error: String,
    /// What went wrong, for people.
    pub message: String,
    /// For invalid requests: per field what is wrong with it, as `{"_errors": [...], "<field>": {...}}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub details: Option<Value>,
}

/// Words a fault.
pub(crate) fn body(fault: &Fault) -> Value {
    let body = ErrorBody {
        error: fault.code().to_owned(),
        message: fault.message().to_owned(),
        details: fault.details().cloned(),
    };
    // A struct of texts always serialises; the literal keeps the promise without a panic path.
    serde_json::to_value(body).unwrap_or_else(|_| json!({"error": fault.code()}))
}
