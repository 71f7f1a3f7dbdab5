//! Tools, tool sets and MCP servers of an agent.

mod body;
mod servers;
mod view;
mod web;

pub(crate) use body::{ToolsChoice, tools};
pub(crate) use servers::{ServerChoice, mcp_servers, replace_servers};
pub(crate) use view::{evaluation, servers, tools as view};

use oma_domain::agent::Spec;
use oma_domain::policy::PermissionPolicy;
use oma_domain::toolset::Toolsets;

use super::body::bad;
use crate::fault::Result;

/// The type of the set of built-in tools.
const AGENT_TOOLSET: &str = "agent_toolset_20260401";
/// The type of the set of an MCP server's tools.
const MCP_TOOLSET: &str = "mcp_toolset";

/// Puts changed tools and servers into a definition.
///
/// # Errors
/// 400 when a server has no set of tools, or a set has no server.
pub(crate) fn apply(
    spec: &mut Spec,
    tools: Option<ToolsChoice>,
    servers: Option<Vec<ServerChoice>>,
) -> Result<()> {
    if let Some(servers) = servers {
        replace_servers(spec, servers);
    }
    if let Some(ToolsChoice { sets, custom }) = tools {
        spec.tools = Vec::new();
        spec.custom_tools = custom;
        spec.permission_policy = PermissionPolicy::Toolsets(sets);
    }
    // Agents of the other dialect may have servers that no set names.
    let PermissionPolicy::Toolsets(sets) = &spec.permission_policy else {
        return Ok(());
    };
    let mut sets = sets.clone();
    let remote: Vec<String> = servers::remote(spec).map(|(name, _)| name.to_owned()).collect();
    for set in &sets.mcp {
        if !remote.contains(&set.server) {
            let name = &set.server;
            return Err(bad(format!(
                "tools: the mcp_toolset names the server '{name}', which mcp_servers does not have"
            )));
        }
    }
    if let Some(name) = remote
        .iter()
        .find(|name| !sets.mcp.iter().any(|set| set.server == **name))
    {
        return Err(bad(format!(
            "mcp_servers: no mcp_toolset in tools names the server '{name}'"
        )));
    }
    name_tools(spec, &mut sets);
    spec.permission_policy = PermissionPolicy::Toolsets(sets);
    Ok(())
}

/// Finds out under which names models are told of the tools of the sets' servers: it depends on all servers.
fn name_tools(spec: &Spec, sets: &mut Toolsets) {
    let names: Vec<&str> = spec.mcp_servers.keys().map(String::as_str).collect();
    let prefixes = oma_mcp::prefixes(&names);
    for set in &mut sets.mcp {
        let index = names.iter().position(|name| *name == set.server);
        if let Some(prefix) = index.and_then(|index| prefixes.get(index)) {
            set.prefix.clone_from(prefix);
            for tool in &mut set.tools.tools {
                tool.tool = oma_mcp::tool_name(prefix, &tool.name);
            }
        }
    }
}
