//! The tools that clients send: sets of built-in tools and of MCP servers' tools, and custom tools.

use oma_domain::policy::MCP_PREFIX;
use oma_domain::session::CALL_AGENT;
use oma_domain::toolset::{Approval, CustomTool, McpToolset, Setting, ToolSetting, Toolset, Toolsets};
use oma_domain::web;
use serde_json::Value;

use super::{AGENT_TOOLSET, MCP_TOOLSET};
use crate::dialects::claude::body::{nullable, object, only};
use crate::validate::checks::{boolean, discriminator, list, one_of, text};
use crate::validate::{Object, Tree};

/// The most entries of the list of tools, and of the list of single settings in a set.
const TOOLS: usize = 256;
/// The longest name of a tool, in characters.
const NAME: usize = 128;
/// The longest name of a server, in characters.
const SERVER: usize = 255;
/// The longest description of a custom tool, in characters.
const DESCRIPTION: usize = 10_000;
/// The longest schema of a custom tool's arguments, in bytes of JSON.
const SCHEMA: usize = 256 << 10;

/// The tools that a client chose.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct ToolsChoice {
    pub(crate) sets: Toolsets,
    pub(crate) custom: Vec<CustomTool>,
}

enum Entry {
    BuiltIn(Toolset),
    Mcp(McpToolset),
    Custom(CustomTool),
}

/// Reads the list of tools.
pub(crate) fn tools(value: &Value, issues: &mut Tree) -> Option<ToolsChoice> {
    let mut choice = ToolsChoice::default();
    for (index, entry) in list(0, TOOLS, entry)(value, issues)?.into_iter().enumerate() {
        let problem = match entry {
            Entry::BuiltIn(_) if choice.sets.built_in.is_some() => {
                format!("There may be one {AGENT_TOOLSET}")
            }
            Entry::Mcp(set) if choice.sets.mcp.iter().any(|other| other.server == set.server) => {
                format!("There may be one {MCP_TOOLSET} for the server '{}'", set.server)
            }
            Entry::Custom(tool) if choice.custom.iter().any(|other| other.name == tool.name) => {
                format!("There is another tool called '{}'", tool.name)
            }
            Entry::BuiltIn(set) => {
                choice.sets.built_in = Some(set);
                continue;
            }
            Entry::Mcp(set) => {
                choice.sets.mcp.push(set);
                continue;
            }
            Entry::Custom(tool) => {
                choice.custom.push(tool);
                continue;
            }
        };
        issues.at(&index.to_string()).push(problem);
        return None;
    }
    Some(choice)
}

fn entry(value: &Value, issues: &mut Tree) -> Option<Entry> {
    let mut object = Object::of(value, issues)?;
    match discriminator(&mut object, &[AGENT_TOOLSET, MCP_TOOLSET, "custom"])? {
        AGENT_TOOLSET => {
            only(&mut object, &["type", "default_config", "configs"]);
            toolset(&mut object, ALLOWED, built_in).map(Entry::BuiltIn)
        }
        MCP_TOOLSET => {
            only(
                &mut object,
                &["type", "mcp_server_name", "default_config", "configs"],
            );
            let server = object.required("mcp_server_name", text(1, SERVER));
            let tools = toolset(&mut object, ASKED, of_server);
            Some(Entry::Mcp(McpToolset {
                server: server?,
                // Filled in once all servers are known.
                prefix: String::new(),
                tools: tools?,
            }))
        }
        _ => {
            only(&mut object, &["type", "name", "description", "input_schema"]);
            let name = object.required("name", custom_name);
            let description = object.required("description", text(1, DESCRIPTION));
            let input_schema = object.required("input_schema", schema);
            Some(Entry::Custom(CustomTool {
                name: name?,
                description: description?,
                input_schema: input_schema?,
            }))
        }
    }
}

/// What holds for built-in tools unless something else is said.
const ALLOWED: Setting = Setting {
    enabled: true,
    approval: Approval::AlwaysAllow,
};
/// What holds for tools of MCP servers unless something else is said.
const ASKED: Setting = Setting {
    enabled: true,
    approval: Approval::AlwaysAsk,
};

type Partial = (Option<bool>, Option<Approval>);

/// A setting of a single tool.
struct Single {
    name: String,
    partial: Partial,
    web: Option<web::Limits>,
}

fn toolset(
    object: &mut Object<'_>,
    default: Setting,
    single: fn(&mut Object<'_>) -> Option<Single>,
) -> Option<Toolset> {
    let own = nullable(object, "default_config", |value, issues| {
        self::object(&["enabled", "permission_policy"], setting)(value, issues)
    });
    let configs = nullable(
        object,
        "configs",
        list(0, TOOLS, |value, issues| {
            let mut object = Object::of(value, issues)?;
            single(&mut object)
        }),
    );
    let default = resolved(own?.unwrap_or_default(), default);
    let mut tools: Vec<ToolSetting> = Vec::new();
    for (index, Single { name, partial, web }) in configs?.unwrap_or_default().into_iter().enumerate() {
        if tools.iter().any(|tool| tool.name == name) {
            let issues = object.issues().at("configs").at(&index.to_string());
            issues.push(format!("There is another entry for '{name}'"));
            return None;
        }
        tools.push(ToolSetting {
            tool: name.clone(),
            name,
            setting: resolved(partial, default),
            web: web.map(Box::new),
        });
    }
    Some(Toolset { default, tools })
}

fn resolved((enabled, approval): Partial, default: Setting) -> Setting {
    Setting {
        enabled: enabled.unwrap_or(default.enabled),
        approval: approval.unwrap_or(default.approval),
    }
}

fn setting(object: &mut Object<'_>) -> Option<Partial> {
    let enabled = nullable(object, "enabled", boolean);
    let approval = nullable(object, "permission_policy", |value, issues| {
        let kinds: &'static [&'static str] = &["always_allow", "always_ask", "auto"];
        let kind = self::object(&["type"], |object| object.required("type", one_of(kinds)))(value, issues)?;
        Some(match kind {
            "always_allow" => Approval::AlwaysAllow,
            "always_ask" => Approval::AlwaysAsk,
            _ => Approval::Auto,
        })
    });
    Some((enabled?, approval?))
}

fn built_in(object: &mut Object<'_>) -> Option<Single> {
    let name = object.required("name", |value, issues| {
        let name = text(1, NAME)(value, issues)?;
        if oma_tools::known_names().contains(&name.as_str()) {
            return Some(name);
        }
        issues.push(format!("Expected one of {}", oma_tools::known_names().join(", ")));
        None
    })?;
    let limits = super::web::fields(&name);
    only(
        object,
        &[&["name", "type", "enabled", "permission_policy"], limits].concat(),
    );
    let web = super::web::limits(&name, object)?;
    let kind = object.optional("type", text(1, NAME))?;
    if kind.is_some_and(|kind| kind != name) {
        object.issues().at("type").push("Must be the same as name");
        return None;
    }
    Some(Single {
        name,
        partial: setting(object)?,
        web,
    })
}

fn of_server(object: &mut Object<'_>) -> Option<Single> {
    only(object, &["name", "enabled", "permission_policy"]);
    let name = object.required("name", text(1, NAME));
    let setting = setting(object);
    Some(Single {
        name: name?,
        partial: setting?,
        web: None,
    })
}

fn custom_name(value: &Value, issues: &mut Tree) -> Option<String> {
    let name = text(1, NAME)(value, issues)?;
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if !name.bytes().all(legal) {
        issues.push("May have letters, digits, '_' and '-' only");
        return None;
    }
    let taken = oma_tools::known_names().contains(&name.as_str()) || name == CALL_AGENT;
    if taken || name.starts_with(MCP_PREFIX) {
        issues.push("Is the name of another tool");
        return None;
    }
    Some(name)
}

fn schema(value: &Value, issues: &mut Tree) -> Option<Value> {
    let mut object = Object::of(value, issues)?;
    object.required("type", one_of(&["object"]))?;
    for keyword in ["$ref", "oneOf", "anyOf", "allOf"] {
        if object.peek(keyword).is_some() {
            object.issues().at(keyword).push("Is not permitted here");
            return None;
        }
    }
    if value.to_string().len() > SCHEMA {
        issues.push(format!("Must take at most {SCHEMA} bytes"));
        return None;
    }
    Some(value.clone())
}
