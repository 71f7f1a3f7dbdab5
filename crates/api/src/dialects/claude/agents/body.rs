//! What clients send about agents.

use oma_domain::agent::{MAX_DESCRIPTION, MAX_NAME, MAX_SYSTEM, RuntimeKind, Spec};
use oma_domain::policy::PermissionPolicy;
use oma_domain::thinking::ThinkingLevel;
use serde_json::{Map, Value, json};

use super::multiagent::{self, Choice};
use crate::dialects::claude::body::{
    MetadataChanges, bounded, merged, metadata, metadata_changes, nullable, object, parse,
};
use crate::dialects::claude::model::{ModelChoice, model};
use crate::dialects::claude::skills::{self, SkillChoice};
use crate::dialects::claude::tools::{self, ServerChoice, ToolsChoice, mcp_servers};
use crate::fault::Result;
use crate::validate::checks::{integer, one_of, text};
use crate::validate::{Change, Object, Tree};

const FIELDS: &[&str] = &[
    "name",
    "model",
    "description",
    "execution_identity",
    "mcp_servers",
    "metadata",
    "multiagent",
    "skills",
    "system",
    "tools",
];

/// Reads an agent to create, whom it is to have work in threads, and which skills it is to have.
pub(super) fn create(value: &Value) -> Result<(Spec, Option<Choice>, Vec<SkillChoice>)> {
    let mut spec = Spec {
        model: String::new(),
        instructions: String::new(),
        tools: Vec::new(),
        name: None,
        description: None,
        metadata: std::collections::BTreeMap::new(),
        custom_tools: Vec::new(),
        permission_policy: PermissionPolicy::Toolsets(oma_domain::toolset::Toolsets::default()),
        callable_agents: Vec::new(),
        skills: Vec::new(),
        multiagent: None,
        max_subagent_depth: 0,
        mcp_servers: Map::new(),
        quota: None,
        thinking_level: ThinkingLevel::Off,
        channels: json!({"telegram": {"enabled": false}}),
        runtime: RuntimeKind::Native,
    };
    let (tools, servers, multiagent, skills) = parse(value, FIELDS, |object| {
        let name = object.required("name", text(1, MAX_NAME));
        let model = object.required("model", model);
        let description = nullable(object, "description", text(0, MAX_DESCRIPTION));
        let system = nullable(object, "system", text(0, MAX_SYSTEM));
        let tools = nullable(object, "tools", tools::tools);
        let servers = nullable(object, "mcp_servers", mcp_servers);
        let metadata = nullable(object, "metadata", metadata);
        let multiagent = nullable(object, "multiagent", multiagent::choice);
        let skills = nullable(object, "skills", skills::choices);
        not_yet(object);
        spec.name = Some(name?);
        model?.apply(&mut spec);
        spec.description = description?.filter(|text| !text.is_empty());
        spec.instructions = system?.unwrap_or_default();
        spec.metadata = metadata?.unwrap_or_default();
        Some((tools?, servers?, multiagent?, skills?))
    })?;
    tools::apply(&mut spec, tools, servers)?;
    Ok((spec, multiagent, skills.unwrap_or_default()))
}

/// What this server can't do yet, unless it is left out.
fn not_yet(object: &mut Object<'_>) {
    let _reported = nullable(
        object,
        "execution_identity",
        |value: &Value, issues: &mut Tree| {
            let kinds = one_of(&["service_account"]);
            self::object(&["type", "role_arn"], |object| object.required("type", kinds))(value, issues)
        },
    );
}

/// An update of an agent.
#[derive(Debug, Clone)]
pub(super) struct UpdateAgent {
    /// The version that it builds on.
    pub(super) version: Option<u32>,
    name: Option<String>,
    model: Option<ModelChoice>,
    description: Change<String>,
    system: Change<String>,
    tools: Change<ToolsChoice>,
    servers: Change<Vec<ServerChoice>>,
    metadata: Change<MetadataChanges>,
    /// Whom it has work in threads; the members are found by whoever applies the update.
    pub(super) multiagent: Change<Choice>,
    /// Its skills; they are found by whoever applies the update.
    pub(super) skills: Change<Vec<SkillChoice>>,
}

/// Reads an update.
pub(super) fn update(value: &Value) -> Result<UpdateAgent> {
    let fields: Vec<&str> = FIELDS.iter().copied().chain(["version"]).collect();
    parse(value, &fields, |object| {
        let version = object.optional("version", integer(1, u64::from(u32::MAX)));
        let name = object.optional("name", text(1, MAX_NAME));
        let model = object.optional("model", model);
        let description = object.change("description", text(0, MAX_DESCRIPTION));
        let system = object.change("system", text(0, MAX_SYSTEM));
        let tools = object.change("tools", tools::tools);
        let servers = object.change("mcp_servers", mcp_servers);
        let metadata = object.change("metadata", metadata_changes);
        let multiagent = object.change("multiagent", multiagent::choice);
        let skills = object.change("skills", skills::choices);
        not_yet(object);
        Some(UpdateAgent {
            version: version?.and_then(|version| u32::try_from(version).ok()),
            name: name?,
            model: model?,
            description: description?,
            system: system?,
            tools: tools?,
            servers: servers?,
            metadata: metadata?,
            multiagent: multiagent?,
            skills: skills?,
        })
    })
}

impl UpdateAgent {
    /// Lays it over a definition, but for whom it has work in threads and for its skills.
    pub(super) fn apply(self, mut spec: Spec) -> Result<Spec> {
        if let Some(name) = self.name {
            spec.name = Some(name);
        }
        if let Some(model) = self.model {
            model.apply(&mut spec);
        }
        self.description.apply_optional(&mut spec.description);
        spec.description = spec.description.filter(|text| !text.is_empty());
        self.system.apply(&mut spec.instructions);
        match self.metadata {
            Change::Keep => {}
            Change::Clear => spec.metadata.clear(),
            Change::Set(changes) => spec.metadata = merged(spec.metadata, changes),
        }
        bounded(&spec.metadata)?;
        tools::apply(&mut spec, replaced(self.tools), replaced(self.servers))?;
        Ok(spec)
    }
}

/// What takes the place of a list; null empties it.
fn replaced<T: Default>(change: Change<T>) -> Option<T> {
    match change {
        Change::Keep => None,
        Change::Clear => Some(T::default()),
        Change::Set(value) => Some(value),
    }
}

/// What a session changes of its agent's definition, for itself.
#[derive(Debug, Clone)]
pub(crate) struct Overrides {
    model: Option<ModelChoice>,
    system: Change<String>,
    tools: Change<ToolsChoice>,
    servers: Change<Vec<ServerChoice>>,
    /// Its skills; they are found by whoever applies the changes.
    pub(crate) skills: Change<Vec<SkillChoice>>,
}

/// Reads what a session changes.
pub(crate) fn overrides(object: &mut Object<'_>) -> Option<Overrides> {
    let model = object.optional("model", model);
    let system = object.change("system", text(0, MAX_SYSTEM));
    let tools = object.change("tools", tools::tools);
    let servers = object.change("mcp_servers", mcp_servers);
    let skills = object.change("skills", skills::choices);
    Some(Overrides {
        model: model?,
        system: system?,
        tools: tools?,
        servers: servers?,
        skills: skills?,
    })
}

/// Reads what a session changes of its agent's tools and servers.
pub(crate) fn tool_overrides(object: &mut Object<'_>) -> Option<Overrides> {
    let tools = object.change("tools", tools::tools);
    let servers = object.change("mcp_servers", mcp_servers);
    Some(Overrides {
        model: None,
        system: Change::Keep,
        tools: tools?,
        servers: servers?,
        skills: Change::Keep,
    })
}

impl Overrides {
    /// Lays the changes over a definition, but for its skills.
    pub(crate) fn apply(self, mut spec: Spec) -> Result<Spec> {
        if let Some(model) = self.model {
            model.apply(&mut spec);
        }
        self.system.apply(&mut spec.instructions);
        tools::apply(&mut spec, replaced(self.tools), replaced(self.servers))?;
        Ok(spec)
    }
}
