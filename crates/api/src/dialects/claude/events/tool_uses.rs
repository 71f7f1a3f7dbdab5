//! Tool uses and their results, as clients read them: a tool of an MCP server is shown with the server's name.

use std::collections::BTreeMap;

use oma_domain::agent::Spec;
use oma_domain::origin::{Origin, ServerTool};
use oma_domain::policy::{MCP_PREFIX, Permission};
use oma_domain::{Agent, EventId};
use serde_json::{Value, json};

use crate::dialects::claude::tools;

/// The names of an agent's MCP servers, by what the names of their tools begin with.
pub(super) fn servers_of(agent: &Agent) -> BTreeMap<String, String> {
    let names: Vec<&str> = agent.spec.mcp_servers.keys().map(String::as_str).collect();
    let servers = oma_mcp::prefixes(&names).into_iter();
    servers.zip(names.iter().map(|name| (*name).to_owned())).collect()
}

/// The server of a tool, and the tool's name there.
pub(super) fn server(servers: &BTreeMap<String, String>, tool: &str) -> Option<ServerTool> {
    let rest = tool.strip_prefix(MCP_PREFIX)?;
    let length = MCP_PREFIX.len() + rest.find("__")? + 2;
    let (prefix, name) = tool.split_at_checked(length)?;
    Some(ServerTool {
        server: servers.get(prefix)?.clone(),
        tool: name.to_owned(),
    })
}

/// Where a tool came from, by a definition that may have changed since.
pub(super) fn origin(spec: &Spec, servers: &BTreeMap<String, String>, tool: &str) -> Origin {
    Origin::of(&spec.permission_policy, &[tool], server(servers, tool))
}

/// A tool use of an agent.
pub(super) fn tool_use(
    origin: &Origin,
    name: &str,
    input: &Value,
    permission: Permission,
) -> (&'static str, Value) {
    let (permission, evaluation) = tools::evaluation(origin.approval, permission);
    let (kind, mut fields) = match &origin.server {
        Some(ServerTool { server, tool }) => (
            "agent.mcp_tool_use",
            json!({"mcp_server_name": server, "name": tool, "input": input}),
        ),
        None => ("agent.tool_use", json!({"name": name, "input": input})),
    };
    fields["evaluated_permission"] = json!(permission);
    if let Some(evaluation) = evaluation {
        fields["evaluation"] = evaluation;
    }
    (kind, fields)
}

pub(super) fn tool_result(
    tool_use: &EventId,
    of_server: bool,
    content: Value,
    is_error: bool,
) -> (&'static str, Value) {
    let (kind, field) = match of_server {
        true => ("agent.mcp_tool_result", "mcp_tool_use_id"),
        false => ("agent.tool_result", "tool_use_id"),
    };
    let mut fields = json!({});
    fields[field] = json!(tool_use.as_str());
    fields["content"] = content;
    fields["is_error"] = json!(is_error);
    (kind, fields)
}
