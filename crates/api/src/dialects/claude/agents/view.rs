//! Agents as clients read them.

use oma_domain::Agent;
use oma_domain::agent::Spec;
use serde_json::{Value, json};

use super::multiagent;
use crate::dialects::claude::{model, skills, time, tools};

/// An agent, or one version of it.
pub(crate) fn agent(agent: &Agent) -> Value {
    let mut view = definition(agent);
    view["multiagent"] = multiagent::of_agent(agent);
    view["metadata"] = json!(agent.spec.metadata);
    view["created_at"] = time::value(agent.created_at);
    view["updated_at"] = time::value(agent.updated_at);
    view["archived_at"] = time::optional(agent.archived_at);
    view
}

/// What an agent and its snapshots in sessions have in common: all that there is to one that works in a thread.
pub(crate) fn definition(agent: &Agent) -> Value {
    let Spec {
        description,
        instructions,
        model,
        thinking_level,
        ..
    } = &agent.spec;
    let system = (!instructions.is_empty()).then_some(instructions);
    json!({
        "id": agent.id.as_str(),
        "type": "agent",
        "version": agent.version,
        // Agents of the other dialect may have no name; here every one has.
        "name": agent.shown_name(),
        "description": description,
        "model": model::view(model, *thinking_level),
        "system": system,
        "tools": tools::view(&agent.spec),
        "mcp_servers": tools::servers(&agent.spec),
        "skills": skills::of_agent(&agent.spec),
        "execution_identity": {"type": "service_account"},
    })
}
