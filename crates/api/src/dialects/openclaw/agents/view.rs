//! Agents as clients read them.

use oma_domain::policy::PermissionPolicy;
use oma_domain::{Agent, AgentId};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::body::{Level, Policy, QuotaBody};
use super::nearest::{nearest, nearest_callable};
use crate::listing::Rows;

/// An agent, or one version of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct AgentView {
    agent_id: String,
    /// `provider/model`.
    model: String,
    tools: Vec<String>,
    instructions: String,
    #[schema(value_type = Policy)]
    permission_policy: PermissionPolicy,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    name: Option<String>,
    callable_agents: Vec<String>,
    max_subagent_depth: u32,
    #[schema(value_type = Object)]
    mcp_servers: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    quota: Option<QuotaBody>,
    #[schema(value_type = Level)]
    thinking_level: &'static str,
    #[schema(value_type = Object)]
    channels: Value,
    /// 1 for the first version.
    version: u32,
    /// Milliseconds since the epoch.
    created_at: i64,
    /// Milliseconds since the epoch.
    updated_at: i64,
    /// Milliseconds since the epoch.
    #[schema(required)]
    archived_at: Option<i64>,
}

impl AgentView {
    /// The agent as it is now.
    #[must_use]
    pub fn of(agent: &Agent) -> Self {
        let spec = agent.spec.clone();
        let (tools, permission_policy) = nearest(&spec);
        Self {
            agent_id: agent.id.to_string(),
            model: spec.model,
            tools,
            instructions: spec.instructions,
            permission_policy,
            name: spec.name,
            callable_agents: nearest_callable(agent),
            max_subagent_depth: spec.max_subagent_depth,
            mcp_servers: spec.mcp_servers,
            quota: spec.quota.as_ref().map(QuotaBody::of),
            thinking_level: spec.thinking_level.as_str(),
            channels: spec.channels,
            version: agent.version,
            created_at: agent.created_at.as_millis(),
            updated_at: agent.updated_at.as_millis(),
            archived_at: agent.archived_at.map(oma_domain::Timestamp::as_millis),
        }
    }

    /// One version: its times are when it was written, and versions are not archived.
    #[must_use]
    pub fn version(agent: &Agent) -> Self {
        let mut view = Self::of(agent);
        view.created_at = view.updated_at;
        view.archived_at = None;
        view
    }
}

/// A page of agents.
#[derive(Debug, Serialize, ToSchema)]
pub struct AgentList {
    #[schema(value_type = Vec<AgentView>)]
    agents: Vec<Box<RawValue>>,
    /// How many there are on this page.
    count: usize,
    /// Whether there are more after this page.
    has_more: bool,
    /// The cursor of the next page.
    #[schema(required)]
    next: Option<String>,
}

impl AgentList {
    pub(crate) fn of(Rows { rows, next }: Rows) -> Self {
        Self {
            count: rows.len(),
            has_more: next.is_some(),
            next,
            agents: rows,
        }
    }
}

/// A page of an agent's versions.
#[derive(Debug, Serialize, ToSchema)]
pub struct AgentVersions {
    agent_id: String,
    #[schema(value_type = Vec<AgentView>)]
    versions: Vec<Box<RawValue>>,
    /// How many there are on this page.
    count: usize,
    /// Whether there are more after this page.
    has_more: bool,
    /// The cursor of the next page.
    #[schema(required)]
    next: Option<String>,
}

impl AgentVersions {
    pub(crate) fn of(agent: AgentId, Rows { rows, next }: Rows) -> Self {
        let agent_id = agent.to_string();
        Self {
            agent_id,
            count: rows.len(),
            has_more: next.is_some(),
            next,
            versions: rows,
        }
    }
}
