//! Why things stop or fail, as clients read it.

use std::collections::BTreeMap;

use oma_domain::EventId;
use oma_domain::event::{Failure, FailureKind, StopReason};
use serde_json::{Value, json};

/// Why a session stopped. This dialect knows fewer reasons.
pub(super) fn stop(reason: &StopReason) -> Value {
    let mut details = Value::Null;
    let stop = match reason {
        StopReason::EndTurn | StopReason::MaxTokens | StopReason::Interrupted => json!({"type": "end_turn"}),
        StopReason::Refusal { explanation } => {
            details = json!({"type": "refusal", "category": null, "explanation": explanation});
            json!({"type": "refusal"})
        }
        StopReason::RequiresAction { tool_uses } => {
            let ids: Vec<&str> = tool_uses.iter().map(EventId::as_str).collect();
            json!({"type": "requires_action", "event_ids": ids})
        }
        StopReason::BudgetReached { .. } => json!({"type": "budget_reached"}),
        StopReason::Failed { .. } => json!({"type": "retries_exhausted"}),
    };
    json!({"stop_reason": stop, "stop_details": details})
}

/// A failure, in the words that this dialect has. The names of MCP servers are looked for in its message.
pub(super) fn error(failure: &Failure, retrying: bool, servers: &BTreeMap<String, String>) -> Value {
    let kind = match failure.kind {
        FailureKind::ModelOverloaded => "model_overloaded_error",
        FailureKind::ModelRateLimited => "model_rate_limited_error",
        FailureKind::ModelRequestFailed
        | FailureKind::MediaRefused
        | FailureKind::ModelUnavailable
        | FailureKind::ModelAuthentication
        | FailureKind::ContextOverflow => "model_request_failed_error",
        FailureKind::Billing => "billing_error",
        FailureKind::TurnLimit => "tool_use_limit_reached_error",
        FailureKind::McpConnection => "mcp_connection_failed_error",
        FailureKind::McpAuthentication => "mcp_authentication_failed_error",
        FailureKind::RepositoryAuthentication
        | FailureKind::RepositoryForbidden
        | FailureKind::RepositoryNotFound
        | FailureKind::RepositoryCheckout
        | FailureKind::RepositoryClone => failure.kind.as_str(),
        // The dialect has no word for the first three.
        FailureKind::HostDenied
        | FailureKind::SecretsLeftOut
        | FailureKind::RepositorySkill
        | FailureKind::EnvironmentBuild
        | FailureKind::Restarted
        | FailureKind::Internal => "unknown_error",
    };
    let retry = if retrying { "retrying" } else { "exhausted" };
    let mut error = json!({
        "type": kind,
        "message": failure.message,
        "retry_status": {"type": retry},
    });
    if kind.starts_with("repository_") {
        // The message names it.
        let mut words = failure.message.split_whitespace();
        let url = words.find(|word| word.starts_with("http://") || word.starts_with("https://"));
        error["repository_url"] = json!(url);
    }
    if matches!(
        failure.kind,
        FailureKind::McpConnection | FailureKind::McpAuthentication
    ) {
        // The message quotes the server's name.
        let mut names = servers.values();
        let named = names.find(|name| failure.message.contains(&format!("{name:?}")));
        error["mcp_server_name"] = json!(named.map(String::as_str).unwrap_or_default());
    }
    error
}
