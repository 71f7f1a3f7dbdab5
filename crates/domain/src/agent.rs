//! Agents: versioned, immutable definitions of what a session runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{AgentId, WorkspaceId};
use crate::multiagent::Multiagent;
use crate::policy::PermissionPolicy;
use crate::quota::Quota;
use crate::skill::Pin;
use crate::thinking::ThinkingLevel;
use crate::time::Timestamp;
use crate::toolset::CustomTool;

/// The longest name of an agent in the Claude dialect, in characters.
pub const MAX_NAME: usize = 256;
/// The longest description of an agent in the Claude dialect, in characters.
pub const MAX_DESCRIPTION: usize = 2_048;
/// The longest system prompt of an agent in the Claude dialect, in characters.
pub const MAX_SYSTEM: usize = 100_000;

/// Who runs the turns of an agent's sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeKind {
    /// Our own agent loop.
    #[default]
    Native,
    /// The OpenClaw gateway.
    Openclaw,
}

/// The definition that a version freezes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// `provider/model`.
    pub model: String,
    /// The system prompt.
    pub instructions: String,
    /// Names of the built-in tools that the agent has; empty means all of them.
    pub tools: Vec<String>,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is for, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whatever the client wants to remember with it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// The skills that it may read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skills: Vec<Pin>,
    /// Tools that the client carries out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub custom_tools: Vec<CustomTool>,
    /// Which tool uses run, ask or are denied.
    pub permission_policy: PermissionPolicy,
    /// Ids of the agents that this one may delegate to.
    pub callable_agents: Vec<String>,
    /// Which agents it may have work in threads of its sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiagent: Option<Multiagent>,
    /// How deep delegation may nest.
    pub max_subagent_depth: u32,
    /// MCP servers by name, each object as the client sent it.
    pub mcp_servers: serde_json::Map<String, serde_json::Value>,
    /// Hard budgets of each of its sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
    /// How hard its model thinks.
    pub thinking_level: ThinkingLevel,
    /// Chat channels, as the reference's adapters read them.
    pub channels: serde_json::Value,
    /// Who runs its turns.
    #[serde(default)]
    pub runtime: RuntimeKind,
}

/// One version of an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// Its id, the same over all versions.
    pub id: AgentId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// 1 for the first version.
    pub version: u32,
    /// The definition.
    pub spec: Spec,
    /// When the agent was created.
    pub created_at: Timestamp,
    /// When this version was written, or the agent archived.
    pub updated_at: Timestamp,
    /// When it was archived; an archived agent serves no new work.
    pub archived_at: Option<Timestamp>,
}

impl Spec {
    /// Whether it is the client that carries out the tool of this name.
    #[must_use]
    pub fn is_custom_tool(&self, name: &str) -> bool {
        self.custom_tools.iter().any(|tool| tool.name == name)
    }

    /// Whether all its tools and servers are the other's, too, as it has them and under the policy that is there.
    #[must_use]
    pub fn has_only_tools_of(&self, other: &Self) -> bool {
        let built_in = match (&self.permission_policy, &other.permission_policy) {
            (PermissionPolicy::Toolsets(own), PermissionPolicy::Toolsets(whole)) => own.is_part_of(whole),
            (own, whole) => own == whole,
        };
        // An empty list means all of them.
        let chosen = other.tools.is_empty()
            || (!self.tools.is_empty() && self.tools.iter().all(|tool| other.tools.contains(tool)));
        let is_server =
            |(name, server): (&String, &serde_json::Value)| other.mcp_servers.get(name) == Some(server);
        built_in
            && chosen
            && self
                .custom_tools
                .iter()
                .all(|tool| other.custom_tools.contains(tool))
            && self.mcp_servers.iter().all(is_server)
    }

    /// The provider part of `model`: what stands before the first slash, if there is one.
    #[must_use]
    pub fn provider(&self) -> Option<&str> {
        self.model.split_once('/').map(|(provider, _)| provider)
    }
}
