//! Agents as clients read them.

use oma_domain::Agent;
use oma_domain::agent::Spec;
use serde_json::{Value, json};

use crate::dialects::claude::{model, time, tools};

/// An agent, or one version of it.
pub(crate) fn agent(agent: &Agent) -> Value {
    let mut view = definition(agent);
    view["multiagent"] = Value::Null;
    view["metadata"] = json!(agent.spec.metadata);
    view["created_at"] = time::value(agent.created_at);
    view["updated_at"] = time::value(agent.updated_at);
    view["archived_at"] = time::optional(agent.archived_at);
    view
}

/// What an agent and the snapshot in a session have in common.
pub(crate) fn definition(agent: &Agent) -> Value {
    let Spec {
        name,
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
        "name": name.as_deref().unwrap_or(agent.id.as_str()),
        "description": description,
        "model": model::view(model, *thinking_level),
        "system": system,
        "tools": tools::view(&agent.spec),
        "mcp_servers": tools::servers(&agent.spec),
        "skills": [],
        "multiagent": null,
        "execution_identity": {"type": "service_account"},
    })
}
