//! Agents that a coordinator defines on the fly.
//!
//! The coordinator's model writes who the agent is. Everything else is the coordinator's: the model, the permission policy,
//! the limits of what its tools may read, the skills as they are in the sandbox. Of its tools and skills it may leave out
//! some; there is no way to give what it does not have itself.
//!
//! Invariant: the same definition of the same coordinator is always the same agent, because a tool use that goes on after a
//! restart defines its agent again.

use oma_domain::agent::{MAX_DESCRIPTION, MAX_NAME, MAX_SYSTEM, Spec};
use oma_domain::multiagent::ADVISOR;
use oma_domain::policy::{MCP_PREFIX, Permission, PermissionPolicy};
use oma_domain::skill::{Pin, folders};
use oma_domain::toolset::{Setting, ToolSetting, Toolset};
use oma_domain::{Agent, AgentId};
use oma_runtime::SessionInfo;
use oma_tools::Toolbox;
use serde_json::{Map, Value, json};

/// The tool without which skills can't be read.
const READ: &str = "read";

/// What a coordinator has that it may give to agents that it defines.
pub(crate) struct Own<'a> {
    session: &'a SessionInfo,
    built_in: Vec<String>,
}

/// Tools as a definition names them, sorted by where they come from.
#[derive(Debug, Default, PartialEq)]
struct Chosen<'a> {
    built_in: Vec<&'a str>,
    custom: Vec<&'a str>,
    servers: Vec<&'a str>,
}

impl<'a> Own<'a> {
    pub(crate) fn of(session: &'a SessionInfo, toolbox: &Toolbox) -> Self {
        let built_in = toolbox.definitions().into_iter().map(|tool| tool.name);
        Self {
            session,
            built_in: built_in.collect(),
        }
    }

    fn spec(&self) -> &'a Spec {
        &self.session.agent.spec
    }

    /// The MCP servers of which it has tools, by the names under which definitions mean all tools of one.
    fn servers(&self) -> Vec<(String, &'a str)> {
        let names: Vec<&str> = self.spec().mcp_servers.keys().map(String::as_str).collect();
        let has_any = |server: &str| match &self.spec().permission_policy {
            PermissionPolicy::Toolsets(sets) => sets.mcp.iter().any(|set| set.server == server),
            _ => true,
        };
        let labels = oma_mcp::prefixes(&names).into_iter().map(label);
        labels.zip(names).filter(|(_, server)| has_any(server)).collect()
    }

    /// What a definition may name as tools.
    fn tools(&self) -> Vec<String> {
        let custom = self.spec().custom_tools.iter().map(|tool| tool.name.clone());
        let servers = self.servers().into_iter().map(|(label, _)| label);
        self.built_in
            .iter()
            .cloned()
            .chain(custom)
            .chain(servers)
            .collect()
    }

    /// The fields of a definition, as a schema of JSON has them, and which of them there must be.
    pub(crate) fn schema(&self) -> (Map<String, Value>, Vec<&'static str>) {
        let mut fields = Map::new();
        let mut field = |name: &str, schema: Value| {
            fields.insert(name.to_owned(), schema);
        };
        field(
            "name",
            json!({"type": "string", "description": "What the agent is called."}),
        );
        field(
            "description",
            json!({"type": "string", "description": "What it is for, in a sentence."}),
        );
        field(
            "system",
            json!({"type": "string", "description": "Its system prompt: who it is and how it works."}),
        );
        let tools = self.tools();
        if !tools.is_empty() {
            field(
                "tools",
                json!({
                    "type": "array",
                    "items": {"type": "string", "enum": tools},
                    "description": format!(
                        "Which of your tools it has; {MCP_PREFIX}NAME means all tools of an MCP server. Without this it has \
                         all of them."
                    ),
                }),
            );
        }
        let skills: Vec<&str> = self.spec().skills.iter().map(|pin| pin.name.as_str()).collect();
        if !skills.is_empty() {
            field(
                "skills",
                json!({
                    "type": "array",
                    "items": {"type": "string", "enum": skills},
                    "description": "Which of your skills it has. Without this it has all of them.",
                }),
            );
        }
        (fields, vec!["name", "system"])
    }

    /// The agent that a definition describes.
    ///
    /// # Errors
    /// What is wrong, in words for the model.
    pub(crate) fn define(&self, definition: &Value) -> Result<Agent, String> {
        let of = &*self.session.agent;
        let name = text(definition, "name", MAX_NAME)?.ok_or("An agent needs a \"name\".")?;
        self.check_name(name)?;
        let system = text(definition, "system", MAX_SYSTEM)?.ok_or("An agent needs a \"system\" prompt.")?;
        let description = text(definition, "description", MAX_DESCRIPTION)?;
        let mut spec = Spec {
            instructions: system.to_owned(),
            name: Some(name.to_owned()),
            description: description.map(str::to_owned),
            metadata: std::collections::BTreeMap::new(),
            // It has nobody work for it.
            callable_agents: Vec::new(),
            multiagent: None,
            max_subagent_depth: 0,
            // It has a part of what its coordinator may consume.
            quota: None,
            channels: Value::Null,
            ..of.spec.clone()
        };
        if let Some(named) = names(definition, "tools")? {
            self.restrict(&mut spec, &self.choose(named)?)?;
        }
        spec.skills = self.skills(&spec, names(definition, "skills")?)?;
        Ok(Agent {
            id: AgentId::of_inline(),
            workspace: of.workspace.clone(),
            version: 1,
            spec,
            created_at: of.created_at,
            updated_at: of.created_at,
            archived_at: None,
        })
    }

    fn check_name(&self, name: &str) -> Result<(), String> {
        if name == ADVISOR {
            return Err(format!("The name {ADVISOR} is reserved."));
        }
        let mut members = self.session.members();
        match members.any(|member| member.shown_name() == name || member.id.as_str() == name) {
            true => Err(format!(
                "{name} is one of the agents that list_agents tells of; choose another name."
            )),
            false => Ok(()),
        }
    }

    /// Finds out where the named tools come from.
    fn choose<'n>(&'n self, named: Vec<&'n str>) -> Result<Chosen<'n>, String> {
        let servers = self.servers();
        let mut chosen = Chosen::default();
        for name in named {
            let add = |to: &mut Vec<&'n str>, name| {
                if !to.contains(&name) {
                    to.push(name);
                }
            };
            if self.built_in.iter().any(|own| own == name) {
                add(&mut chosen.built_in, name);
            } else if self.spec().is_custom_tool(name) {
                add(&mut chosen.custom, name);
            } else if let Some((_, server)) = servers.iter().find(|(label, _)| label == name) {
                add(&mut chosen.servers, server);
            } else if let Some((label, _)) = servers.iter().find(|(label, _)| is_of(name, label)) {
                return Err(format!(
                    "{name} can't be given by itself: {label} means all tools of that server."
                ));
            } else {
                let tools = self.tools().join(", ");
                return Err(format!("You have no tool {name} to give. You have: {tools}."));
            }
        }
        Ok(chosen)
    }

    /// Leaves the chosen tools, under the policy that there is.
    fn restrict(&self, spec: &mut Spec, chosen: &Chosen<'_>) -> Result<(), String> {
        spec.custom_tools
            .retain(|tool| chosen.custom.contains(&tool.name.as_str()));
        self.keep_names(chosen)?;
        spec.mcp_servers
            .retain(|server, _| chosen.servers.contains(&server.as_str()));
        match &mut spec.permission_policy {
            PermissionPolicy::Toolsets(sets) => {
                let built_in = sets.built_in.take().filter(|_| !chosen.built_in.is_empty());
                sets.built_in = built_in.map(|set| only(set, &chosen.built_in));
                sets.mcp
                    .retain(|set| chosen.servers.contains(&set.server.as_str()));
            }
            // An empty list means all of them.
            _ if chosen.built_in.is_empty() => {
                let tools = self.built_in.join(", ");
                return Err(format!(
                    "An agent of yours needs at least one of these tools: {tools}."
                ));
            }
            _ => spec.tools = chosen.built_in.iter().map(|name| (*name).to_owned()).collect(),
        }
        Ok(())
    }

    /// Refuses to separate servers whose tools are called differently without each other: policies go by these names.
    fn keep_names(&self, chosen: &Chosen<'_>) -> Result<(), String> {
        let all: Vec<&str> = self.spec().mcp_servers.keys().map(String::as_str).collect();
        let left: Vec<&str> = all
            .iter()
            .copied()
            .filter(|server| chosen.servers.contains(server))
            .collect();
        let before = all.iter().zip(oma_mcp::prefixes(&all));
        let before = before
            .filter(|(server, _)| left.contains(server))
            .map(|(_, prefix)| prefix);
        match before.eq(oma_mcp::prefixes(&left)) {
            true => Ok(()),
            false => Err("The MCP servers whose names are alike can only be given together.".to_owned()),
        }
    }

    /// The chosen skills, or all that it has, named by their folders in the sandbox.
    fn skills(&self, spec: &Spec, named: Option<Vec<&str>>) -> Result<Vec<Pin>, String> {
        let own = &self.spec().skills;
        let listed = spec.tools.is_empty() || spec.tools.iter().any(|tool| tool == READ);
        let readable = listed && spec.permission_policy.evaluate(READ) != Permission::Deny;
        let named = match named {
            Some(named) if !named.is_empty() && !readable => {
                return Err(format!("Skills need the tool {READ}."));
            }
            None if !readable => Some(Vec::new()),
            named => named,
        };
        let has = |name: &str| own.iter().any(|pin| pin.name == name);
        if let Some(name) = named.iter().flatten().find(|name| !has(name)) {
            let skills: Vec<&str> = own.iter().map(|pin| pin.name.as_str()).collect();
            return Err(match skills.as_slice() {
                [] => format!("You have no skill {name} to give, nor any other."),
                skills => format!(
                    "You have no skill {name} to give. You have: {}.",
                    skills.join(", ")
                ),
            });
        }
        let is_chosen = |pin: &Pin| {
            named
                .as_ref()
                .is_none_or(|named| named.contains(&pin.name.as_str()))
        };
        let placed = own.iter().zip(folders(own)).map(|(pin, directory)| Pin {
            directory,
            ..pin.clone()
        });
        Ok(placed.filter(is_chosen).collect())
    }
}

/// What a definition calls the tools whose names begin so.
fn label(prefix: String) -> String {
    prefix.strip_suffix("__").map(str::to_owned).unwrap_or(prefix)
}

/// Whether a tool is one of the server's that this label means.
fn is_of(tool: &str, label: &str) -> bool {
    tool.strip_prefix(label)
        .is_some_and(|rest| rest.starts_with("__"))
}

/// The set with these tools alone, each as it was.
fn only(set: Toolset, names: &[&str]) -> Toolset {
    let Toolset { default, tools } = set;
    let mut left: Vec<ToolSetting> = tools
        .into_iter()
        .filter(|listed| names.contains(&listed.tool.as_str()))
        .collect();
    for name in names {
        if !left.iter().any(|listed| listed.tool == *name) {
            left.push(ToolSetting {
                name: (*name).to_owned(),
                tool: (*name).to_owned(),
                setting: default,
                web: None,
            });
        }
    }
    Toolset {
        default: Setting {
            enabled: false,
            ..default
        },
        tools: left,
    }
}

/// A text of a definition, if it is there and not blank.
fn text<'v>(definition: &'v Value, field: &str, max: usize) -> Result<Option<&'v str>, String> {
    match definition.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.chars().count() > max => {
            Err(format!("{field:?} may have at most {max} characters."))
        }
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.trim().is_empty())),
        Some(_) => Err(format!("{field:?} must be a text.")),
    }
}

/// A list of names, if it is there.
fn names<'v>(definition: &'v Value, field: &str) -> Result<Option<Vec<&'v str>>, String> {
    let wrong = || format!("{field:?} must be a list of names.");
    match definition.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(names)) => {
            let names: Option<Vec<&str>> = names.iter().map(Value::as_str).collect();
            names.map(Some).ok_or_else(wrong)
        }
        Some(_) => Err(wrong()),
    }
}

#[cfg(test)]
#[path = "inline_tests.rs"]
mod tests;
