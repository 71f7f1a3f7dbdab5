//! Sessions as clients read them.

use oma_domain::quota::Quota;
use oma_domain::session::Phase;
use oma_domain::usage::{NanoUsd, Totals};
use oma_domain::{DeploymentId, Session, Timestamp, VaultId};
use serde_json::{Value, json};

use super::body::CENT;
use super::resources;
use crate::dialects::claude::{agents, time};

/// A session as of its last commit.
pub(crate) fn session(session: &Session) -> Value {
    let state = &session.state;
    let now = oma_engine::now();
    let totals = state.totals(now);
    let ended = state.archived_at.unwrap_or(now);
    let mut agent = agents::definition(&session.agent);
    agent["multiagent"] = agents::multiagent_of_session(session);
    json!({
        "id": session.id.as_str(),
        "type": "session",
        "status": status(session),
        "title": state.title,
        "metadata": state.metadata,
        "environment_id": session.environment.as_ref().map(|environment| environment.id.as_str()),
        "agent": agent,
        "resources": resources::all(session).into_iter().map(|(_, view)| view).collect::<Vec<_>>(),
        "vault_ids": session.vaults.iter().map(VaultId::as_str).collect::<Vec<_>>(),
        "outcome_evaluations": [],
        "budget": budget(session),
        "deployment_id": session.deployment.as_ref().map(DeploymentId::as_str),
        "stats": {
            "active_seconds": time::seconds(totals.active_ms.saturating_add(state.threads_active_ms())),
            "duration_seconds": time::seconds(ended.millis_since(session.created_at)),
        },
        "usage": usage(&totals),
        "created_at": time::value(session.created_at),
        "updated_at": time::value(updated_at(session)),
        "archived_at": time::optional(state.archived_at),
    })
}

/// Where a session stands: waiting for a client counts as idle.
pub(crate) fn status(session: &Session) -> &'static str {
    match &session.state.phase {
        _ if session.state.archived_at.is_some() => "terminated",
        Phase::Running { .. } => "running",
        Phase::Idle { .. } | Phase::Blocked { .. } => "idle",
    }
}

fn updated_at(session: &Session) -> Timestamp {
    session.last_event_at.unwrap_or(session.created_at)
}

/// The budget that the session was created with. The share that a parent leaves to a child is none.
pub(crate) fn budget(session: &Session) -> Value {
    limit(session.share.filter(|_| session.parent.is_none()))
}

/// A budget of a cost, if it is one.
pub(crate) fn limit(budget: Option<Quota>) -> Value {
    match budget.and_then(|budget| budget.max_cost) {
        Some(NanoUsd(nanos)) => json!({
            "type": "limit",
            "max_list_cost": {"amount": (nanos / CENT).to_string(), "currency": "USD"},
        }),
        None => Value::Null,
    }
}

/// What was consumed. Without a known price there is no cost, rather than a wrong one.
pub(crate) fn usage(totals: &Totals) -> Value {
    let Totals {
        usage,
        cost,
        active_ms,
    } = totals;
    let mut view = json!({
        "input_tokens": usage.input,
        "output_tokens": usage.output,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write,
            "ephemeral_1h_input_tokens": 0,
        },
        "active_seconds": time::seconds(*active_ms),
    });
    if let Some(NanoUsd(nanos)) = cost.total() {
        let cents = nanos.saturating_add(CENT / 2) / CENT;
        view["list_cost"] = json!({"amount": cents.to_string(), "currency": "USD"});
    }
    view
}
