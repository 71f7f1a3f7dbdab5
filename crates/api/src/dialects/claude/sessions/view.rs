//! Sessions as clients read them.

use oma_domain::outcome::Evaluation;
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
    json!({
        "id": session.id.as_str(),
        "type": "session",
        "status": status(session),
        "title": state.title,
        "metadata": state.metadata,
        "environment_id": session.environment.as_ref().map(|environment| environment.id.as_str()),
        "agent": agent(session),
        "resources": resources::all(session).into_iter().map(|(_, view)| view).collect::<Vec<_>>(),
        "vault_ids": session.vaults.iter().map(VaultId::as_str).collect::<Vec<_>>(),
        "outcome_evaluations": state.evaluations.iter().map(evaluation).collect::<Vec<_>>(),
        "budget": limit(state.budget),
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

/// A session's agent, with all of those who may work in its threads.
pub(crate) fn agent(session: &Session) -> Value {
    let mut agent = agents::definition(&session.agent);
    agent["multiagent"] = agents::multiagent_of_session(session);
    agent
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

fn evaluation(evaluation: &Evaluation) -> Value {
    let Evaluation {
        outcome,
        description,
        iteration,
        standing,
        explanation,
        completed_at,
    } = evaluation;
    json!({
        "type": "outcome_evaluation",
        "outcome_id": outcome.as_str(),
        "description": description,
        "iteration": iteration,
        "result": standing.as_str(),
        "explanation": explanation,
        "completed_at": time::optional(*completed_at),
    })
}

/// A session's own budget. The share that a parent leaves to a child is none.
pub(crate) fn limit(budget: Option<NanoUsd>) -> Value {
    match budget {
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
        web,
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
        "server_tool_use": {
            "web_search_requests": web.searches,
            "web_fetch_requests": web.fetches,
        },
    });
    if let Some(NanoUsd(nanos)) = cost.total() {
        let cents = nanos.saturating_add(CENT / 2) / CENT;
        view["list_cost"] = json!({"amount": cents.to_string(), "currency": "USD"});
    }
    view
}
