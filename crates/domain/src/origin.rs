//! What an agent's definition said of a tool when it was used. Definitions change under a session; what its clients were
//! shown of a tool use does not, so it is recorded with the use.

use serde::{Deserialize, Serialize};

use crate::policy::PermissionPolicy;
use crate::toolset::Approval;

/// Where a used tool came from, and who was to say whether it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Origin {
    /// Who was to say whether it runs, where sets of tools say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// The tool of an MCP server that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerTool>,
}

/// A tool of an MCP server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerTool {
    /// The server's name in the agent.
    pub server: String,
    /// The tool, without what its name begins with because of the server.
    pub tool: String,
}

impl Origin {
    /// What a policy says of a tool that goes under these names.
    #[must_use]
    pub fn of<S: AsRef<str>>(policy: &PermissionPolicy, names: &[S], server: Option<ServerTool>) -> Self {
        let approval = match policy {
            PermissionPolicy::Toolsets(sets) => sets.setting(names).map(|setting| setting.approval),
            PermissionPolicy::AlwaysAllow
            | PermissionPolicy::Deny { .. }
            | PermissionPolicy::AlwaysAsk { .. } => None,
        };
        Self { approval, server }
    }
}
