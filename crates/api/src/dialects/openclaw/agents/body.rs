//! What clients send about agents.

use std::collections::BTreeMap;

use oma_domain::AgentId;
use oma_domain::agent::{RuntimeKind, Spec};
use oma_domain::multiagent::Multiagent;
use oma_domain::policy::PermissionPolicy;
use oma_domain::quota::Quota;
use oma_domain::thinking::ThinkingLevel;
use oma_domain::usage::NanoUsd;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::nearest::callable as callable_of;
use crate::fault::{Fault, Result};
use crate::limits;
use crate::validate::checks::{
    boolean, discriminator, entries, integer, list, model, one_of, positive, text, url,
};
use crate::validate::{Body, Change, Object, Tree, clip};

/// An agent to create.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct CreateAgent {
    /// `provider/model`.
    #[schema(min_length = 3, max_length = 256, example = "anthropic/claude-sonnet-4-5")]
    model: String,
    /// The system prompt.
    #[schema(required = false, max_length = 1_000_000)]
    instructions: String,
    /// Names of built-in tools; empty means all of them.
    #[schema(required = false, max_items = 256)]
    tools: Vec<String>,
    /// A name for people.
    #[schema(max_length = 256, nullable = false)]
    name: Option<String>,
    /// Which tool uses run, ask first or are denied.
    #[schema(required = false, value_type = Policy)]
    permission_policy: PermissionPolicy,
    /// Ids of the agents that this one may delegate to.
    #[schema(required = false, max_items = 256)]
    callable_agents: Vec<String>,
    /// How deep delegation may nest.
    #[schema(required = false, maximum = 16)]
    max_subagent_depth: u32,
    /// MCP servers by name: each has a `url` (streamable HTTP, with `headers`) or a `command` (with `args`, `env`,
    /// `cwd`), which runs in the session's sandbox; further fields are kept.
    #[schema(required = false, value_type = Object)]
    mcp_servers: Map<String, Value>,
    /// Hard budgets of each of its sessions.
    #[schema(value_type = Option<QuotaBody>, nullable = false)]
    quota: Option<Quota>,
    /// How hard the model thinks.
    #[schema(required = false, value_type = Level)]
    thinking_level: ThinkingLevel,
    /// Chat channels: `{"telegram": {"enabled": false}}`. The server runs none itself: it keeps this for adapters that
    /// run as its clients and ask whether they may serve the agent.
    #[schema(required = false, value_type = Object)]
    channels: Value,
    /// What runs its sessions.
    #[schema(required = false, value_type = RuntimeName)]
    runtime: RuntimeKind,
}

/// Changes to an agent. A field that is not sent stays; `null` clears it.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct UpdateAgent {
    /// The version that the changes build on.
    #[schema(minimum = 1)]
    pub version: u32,
    /// `provider/model`.
    #[schema(min_length = 3, max_length = 256, nullable = false)]
    model: Option<String>,
    /// The system prompt.
    #[schema(value_type = Option<String>, max_length = 1_000_000)]
    instructions: Change<String>,
    /// Names of built-in tools.
    #[schema(value_type = Option<Vec<String>>, max_items = 256)]
    tools: Change<Vec<String>>,
    /// A name for people.
    #[schema(value_type = Option<String>, max_length = 256)]
    name: Change<String>,
    /// Which tool uses run, ask first or are denied.
    #[schema(value_type = Option<Policy>, nullable = false)]
    permission_policy: Option<PermissionPolicy>,
    /// Ids of the agents that this one may delegate to.
    #[schema(value_type = Option<Vec<String>>, max_items = 256)]
    callable_agents: Change<Vec<String>>,
    /// How deep delegation may nest.
    #[schema(maximum = 16, nullable = false)]
    max_subagent_depth: Option<u32>,
    /// MCP servers by name.
    #[schema(value_type = Option<Object>)]
    mcp_servers: Change<Map<String, Value>>,
    /// Hard budgets of each of its sessions.
    #[schema(value_type = Option<QuotaBody>)]
    quota: Change<Quota>,
    /// How hard the model thinks.
    #[schema(value_type = Option<Level>, nullable = false)]
    thinking_level: Option<ThinkingLevel>,
    /// Chat channels, for adapters that run as clients of the server.
    #[schema(value_type = Option<Object>, nullable = false)]
    channels: Option<Value>,
    /// What runs its sessions.
    #[schema(value_type = Option<RuntimeName>, nullable = false)]
    runtime: Option<RuntimeKind>,
}

/// What runs an agent's sessions.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum RuntimeName {
    /// The agent loop of this server.
    Native,
}

/// A task for an agent.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct RunAgent {
    /// What to do.
    #[schema(min_length = 1, max_length = 4_000_000)]
    pub task: String,
    /// A session of this agent that is to do it; a new one without it.
    #[schema(min_length = 1, nullable = false)]
    pub session_id: Option<String>,
}

/// Which tool uses run, ask first or are denied.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the domain's type does the work; this one describes it in the API document"
)]
pub struct Policy {
    /// Which of them.
    r#type: PolicyType,
    /// The tools that are denied (at least one), or that ask (all of them when absent or empty). An entry that
    /// ends in `*` means all tools whose names begin with what stands before it: `mcp__github__*`.
    #[schema(max_items = 256, nullable = false)]
    tools: Option<Vec<String>>,
    /// With `always_ask`: milliseconds that a tool use waits for a confirmation before it counts as denied. It
    /// waits for ever without this.
    #[schema(minimum = 1, maximum = 2_678_400_000_u64, nullable = false)]
    timeout_ms: Option<u64>,
}

/// What a policy does.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum PolicyType {
    /// Every tool use runs at once.
    AlwaysAllow,
    /// The listed tools are denied.
    Deny,
    /// The listed tools wait for a confirmation.
    AlwaysAsk,
}

/// Hard budgets of a session; an absent one does not bind.
#[derive(Debug, Clone, PartialEq, serde::Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuotaBody {
    /// US dollars, above 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 1_000_000_000, nullable = false)]
    max_cost_usd_per_session: Option<f64>,
    /// Input and output tokens together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, nullable = false)]
    max_tokens_per_session: Option<u64>,
    /// Milliseconds since the session's creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, nullable = false)]
    max_wall_duration_ms: Option<u64>,
}

/// How hard the model thinks.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Level {
    /// No thinking is asked for.
    Off,
    /// A little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
    /// As much as the provider offers.
    Xhigh,
}

impl QuotaBody {
    /// The budgets as clients send and read them.
    #[must_use]
    pub fn of(quota: &Quota) -> Self {
        Self {
            max_cost_usd_per_session: quota.max_cost.map(NanoUsd::as_usd),
            max_tokens_per_session: quota.max_tokens,
            max_wall_duration_ms: quota.max_wall_ms,
        }
    }
}

impl Body for CreateAgent {
    fn read(object: &mut Object<'_>) -> Option<Self> {
        let model = object.required("model", model);
        let instructions = object.or("instructions", String::new(), text(0, limits::INSTRUCTIONS));
        let tools = object.or("tools", Vec::new(), tool_names);
        let name = object.optional("name", text(0, limits::NAME));
        let permission_policy = object.or("permissionPolicy", PermissionPolicy::AlwaysAllow, policy);
        let callable_agents = object.or("callableAgents", Vec::new(), callable);
        let max_subagent_depth = object.or("maxSubagentDepth", 0, depth);
        let mcp_servers = object.or("mcpServers", Map::new(), mcp_servers);
        let quota = object.optional("quota", quota);
        let thinking_level = object.or("thinkingLevel", ThinkingLevel::Off, thinking_level);
        let channels = object.or("channels", json!({"telegram": {"enabled": false}}), channels);
        let runtime = object.or("runtime", RuntimeKind::Native, runtime);
        Some(Self {
            model: model?,
            instructions: instructions?,
            tools: tools?,
            name: name?,
            permission_policy: permission_policy?,
            callable_agents: callable_agents?,
            max_subagent_depth: max_subagent_depth?,
            mcp_servers: mcp_servers?,
            quota: quota?,
            thinking_level: thinking_level?,
            channels: channels?,
            runtime: runtime?,
        })
    }
}

impl CreateAgent {
    /// The definition.
    ///
    /// # Errors
    /// 400 `invalid_request` when its policy names a server that is not there.
    pub fn into_spec(self) -> Result<Spec> {
        let spec = Spec {
            model: self.model,
            instructions: self.instructions,
            tools: self.tools,
            name: self.name,
            description: None,
            metadata: BTreeMap::new(),
            custom_tools: Vec::new(),
            permission_policy: self.permission_policy,
            callable_agents: self.callable_agents,
            skills: Vec::new(),
            multiagent: None,
            max_subagent_depth: self.max_subagent_depth,
            mcp_servers: self.mcp_servers,
            quota: self.quota,
            thinking_level: self.thinking_level,
            channels: self.channels,
            runtime: self.runtime,
        };
        check_policy(&spec)?;
        Ok(spec)
    }
}

impl Body for UpdateAgent {
    fn read(object: &mut Object<'_>) -> Option<Self> {
        let version = object.required("version", integer(1, u64::from(u32::MAX)));
        let model = object.optional("model", model);
        let instructions = object.change("instructions", text(0, limits::INSTRUCTIONS));
        let tools = object.change("tools", tool_names);
        let name = object.change("name", text(0, limits::NAME));
        let permission_policy = object.optional("permissionPolicy", policy);
        let callable_agents = object.change("callableAgents", callable);
        let max_subagent_depth = object.optional("maxSubagentDepth", depth);
        let mcp_servers = object.change("mcpServers", mcp_servers);
        let quota = object.change("quota", quota);
        let thinking_level = object.optional("thinkingLevel", thinking_level);
        let channels = object.optional("channels", channels);
        let runtime = object.optional("runtime", runtime);
        Some(Self {
            version: u32::try_from(version?).ok()?,
            model: model?,
            instructions: instructions?,
            tools: tools?,
            name: name?,
            permission_policy: permission_policy?,
            callable_agents: callable_agents?,
            max_subagent_depth: max_subagent_depth?,
            mcp_servers: mcp_servers?,
            quota: quota?,
            thinking_level: thinking_level?,
            channels: channels?,
            runtime: runtime?,
        })
    }
}

impl UpdateAgent {
    /// Lays the changes over a definition.
    ///
    /// # Errors
    /// 400 `invalid_request` when the policy or the servers change and the policy then names a server that is
    /// not there.
    pub(super) fn apply(self, mut spec: Spec, own: &AgentId) -> Result<Spec> {
        let is_concerned = self.permission_policy.is_some() || !matches!(self.mcp_servers, Change::Keep);
        spec.model = self.model.unwrap_or(spec.model);
        self.instructions.apply(&mut spec.instructions);
        self.tools.apply(&mut spec.tools);
        self.name.apply_optional(&mut spec.name);
        spec.permission_policy = self.permission_policy.unwrap_or(spec.permission_policy);
        // Whom it has work in threads is shown among these; whoever sends back what was shown changes nothing.
        if let Change::Clear | Change::Set(_) = self.callable_agents {
            let mut sent = Vec::new();
            self.callable_agents.apply(&mut sent);
            if sent != callable_of(&spec, own) {
                spec.callable_agents = sent;
                spec.multiagent = spec.multiagent.and_then(Multiagent::without_members);
            }
        }
        spec.max_subagent_depth = self.max_subagent_depth.unwrap_or(spec.max_subagent_depth);
        self.mcp_servers.apply(&mut spec.mcp_servers);
        self.quota.apply_optional(&mut spec.quota);
        spec.thinking_level = self.thinking_level.unwrap_or(spec.thinking_level);
        spec.channels = self.channels.unwrap_or(spec.channels);
        spec.runtime = self.runtime.unwrap_or(spec.runtime);
        if is_concerned {
            check_policy(&spec)?;
        }
        Ok(spec)
    }
}

impl Body for RunAgent {
    fn read(object: &mut Object<'_>) -> Option<Self> {
        let task = object.required("task", text(1, limits::MESSAGE));
        let session_id = object.optional("sessionId", text(1, limits::NAME));
        Some(Self {
            task: task?,
            session_id: session_id?,
        })
    }
}

fn tool_names(value: &Value, issues: &mut Tree) -> Option<Vec<String>> {
    list(0, limits::TOOLS, text(0, limits::NAME))(value, issues)
}

/// Names of tools, or beginnings of names before a `*`. No tool has a `*` in its name, so one anywhere else would
/// never mean anything.
fn patterns(min: usize) -> impl Fn(&Value, &mut Tree) -> Option<Vec<String>> {
    let pattern = |value: &Value, issues: &mut Tree| {
        let entry = text(1, limits::NAME)(value, issues)?;
        if entry.find('*').is_some_and(|at| at + 1 < entry.len()) {
            issues.push("A '*' may stand only at the end");
            return None;
        }
        Some(entry)
    };
    list(min, limits::TOOLS, pattern)
}

/// Ids of agents. Whether there are such agents is not asked, as in the reference: they may be made later.
fn callable(value: &Value, issues: &mut Tree) -> Option<Vec<String>> {
    let id = |value: &Value, issues: &mut Tree| {
        let id = text(1, limits::NAME)(value, issues)?;
        if let Err(problem) = AgentId::parse(&id) {
            issues.push(format!("Invalid id: {problem}"));
            return None;
        }
        Some(id)
    };
    list(0, limits::CALLABLE_AGENTS, id)(value, issues)
}

fn depth(value: &Value, issues: &mut Tree) -> Option<u32> {
    integer(0, limits::SUBAGENT_DEPTH)(value, issues).and_then(|depth| u32::try_from(depth).ok())
}

/// A thinking level.
pub(crate) fn thinking_level(value: &Value, issues: &mut Tree) -> Option<ThinkingLevel> {
    one_of(&ThinkingLevel::NAMES)(value, issues).and_then(ThinkingLevel::parse)
}

fn policy(value: &Value, issues: &mut Tree) -> Option<PermissionPolicy> {
    let mut object = Object::of(value, issues)?;
    match discriminator(&mut object, &["always_allow", "deny", "always_ask"])? {
        "deny" => Some(PermissionPolicy::Deny {
            tools: object.required("tools", patterns(1))?,
        }),
        "always_ask" => {
            let tools = object.optional("tools", patterns(0));
            let timeout_ms = object.optional("timeoutMs", integer(1, limits::CONFIRMATION_TIMEOUT_MS));
            Some(PermissionPolicy::AlwaysAsk {
                tools: tools?,
                timeout_ms: timeout_ms?,
            })
        }
        _ => Some(PermissionPolicy::AlwaysAllow),
    }
}

/// Reports entries for MCP tools that none of the agent's servers could have: whoever wrote one takes these tools
/// to be denied, or asked for, and they would not be.
fn check_policy(spec: &Spec) -> Result<()> {
    let mut issues = Tree::default();
    for (index, entry) in spec.permission_policy.entries().iter().enumerate() {
        let servers = spec.mcp_servers.keys().map(String::as_str);
        if oma_mcp::names_no_server(entry, servers) {
            let node = issues.at("permissionPolicy").at("tools").at(&index.to_string());
            node.push("It means no tool of any server in 'mcpServers'");
        }
    }
    if issues.is_empty() {
        Ok(())
    } else {
        Err(Fault::invalid(&issues))
    }
}

fn quota(value: &Value, issues: &mut Tree) -> Option<Quota> {
    let mut object = Object::of(value, issues)?;
    let cost = object.optional("maxCostUsdPerSession", positive);
    let tokens = object.optional("maxTokensPerSession", integer(1, u64::MAX));
    let wall = object.optional("maxWallDurationMs", integer(1, u64::MAX));
    object.only(&["maxCostUsdPerSession", "maxTokensPerSession", "maxWallDurationMs"]);
    // A cap that is smaller than our unit of money is still a cap above 0.
    let max_cost = cost?.map(|usd| NanoUsd::from_usd(usd).max(NanoUsd(1)));
    Some(Quota {
        max_cost,
        max_tokens: tokens?,
        max_wall_ms: wall?,
    })
}

/// What is to run the agent; only what this server has, because an agent that seems to run elsewhere misleads.
fn runtime(value: &Value, issues: &mut Tree) -> Option<RuntimeKind> {
    one_of(&["native"])(value, issues).map(|_| RuntimeKind::Native)
}

fn channels(value: &Value, issues: &mut Tree) -> Option<Value> {
    let mut object = Object::of(value, issues)?;
    let enabled = object.or("telegram", false, |value, issues| {
        let mut telegram = Object::of(value, issues)?;
        telegram.or("enabled", false, boolean)
    })?;
    Some(json!({"telegram": {"enabled": enabled}}))
}

fn mcp_servers(value: &Value, issues: &mut Tree) -> Option<Map<String, Value>> {
    let servers = entries(limits::MCP_SERVERS, limits::NAME, mcp_server)(value, issues)?;
    let mut good = true;
    for (name, server) in &servers {
        // Whether such a server could work at all is the client's question there.
        if let Err(invalid) = oma_mcp::Server::read(name, server) {
            let node = invalid
                .path
                .iter()
                .fold(issues.at(&clip(name)), |node, field| node.at(&clip(field)));
            node.push(invalid.message);
            good = false;
        }
    }
    good.then_some(servers)
}

/// One MCP server. Known fields are checked, all are kept.
fn mcp_server(value: &Value, issues: &mut Tree) -> Option<()> {
    let mut object = Object::of(value, issues)?;
    let string = || text(0, limits::MCP_STRING);
    let checked = [
        object.optional("command", string()).is_some(),
        object
            .optional("args", list(0, limits::MCP_ENTRIES, string()))
            .is_some(),
        object
            .optional("env", entries(limits::MCP_ENTRIES, limits::NAME, variable))
            .is_some(),
        object.optional("cwd", string()).is_some(),
        object.optional("url", url(limits::URL)).is_some(),
        object
            .optional("headers", entries(limits::MCP_ENTRIES, limits::NAME, header))
            .is_some(),
    ];
    if value.to_string().len() > limits::MCP_SERVER {
        issues.push(format!("Object must take at most {} bytes", limits::MCP_SERVER));
        return None;
    }
    checked.iter().all(|good| *good).then_some(())
}

/// An environment variable's value: a string, a number or a truth value.
fn variable(value: &Value, issues: &mut Tree) -> Option<()> {
    match value {
        Value::String(_) => header(value, issues),
        Value::Number(_) | Value::Bool(_) => Some(()),
        _ => {
            issues.push("Invalid input");
            None
        }
    }
}

fn header(value: &Value, issues: &mut Tree) -> Option<()> {
    text(0, limits::MCP_STRING)(value, issues).map(drop)
}
