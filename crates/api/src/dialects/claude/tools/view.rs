//! Tools and servers as clients read them. Agents of the other dialect are shown as near as this one can.

use oma_domain::agent::Spec;
use oma_domain::policy::{Permission, PermissionPolicy};
use oma_domain::toolset::{Approval, Setting, Toolset};
use serde_json::{Value, json};

use super::servers::remote;
use super::web;
use super::{AGENT_TOOLSET, MCP_TOOLSET};

/// The tools of an agent.
pub(crate) fn tools(spec: &Spec) -> Value {
    let mut tools = match &spec.permission_policy {
        PermissionPolicy::Toolsets(sets) => {
            let built_in = sets.built_in.as_ref().map(built_in);
            let mcp = sets.mcp.iter().map(|set| mcp(&set.server, &set.tools));
            built_in.into_iter().chain(mcp).collect::<Vec<_>>()
        }
        policy => foreign(spec, policy),
    };
    tools.extend(spec.custom_tools.iter().map(|tool| {
        json!({
            "type": "custom",
            "name": tool.name,
            "description": tool.description,
            "input_schema": tool.input_schema,
        })
    }));
    Value::Array(tools)
}

/// The servers of an agent that have a URL.
pub(crate) fn servers(spec: &Spec) -> Value {
    remote(spec)
        .map(|(name, url)| json!({"type": "url", "name": name, "url": url}))
        .collect()
}

fn setting(Setting { enabled, approval }: Setting) -> Value {
    let policy = match approval {
        Approval::AlwaysAllow => "always_allow",
        Approval::AlwaysAsk => "always_ask",
        Approval::Auto => "auto",
    };
    json!({"enabled": enabled, "permission_policy": {"type": policy}})
}

fn built_in(set: &Toolset) -> Value {
    let configs = set.tools.iter().map(|tool| {
        let mut config = json!({"type": tool.name, "name": tool.name});
        extend(&mut config, setting(tool.setting));
        if let Some(limits) = &tool.web {
            extend(&mut config, web::view(limits));
        }
        if tool.name == "web_fetch" && config.get("url_sources").is_none() {
            config["url_sources"] = Value::Null;
        }
        config
    });
    json!({
        "type": AGENT_TOOLSET,
        "default_config": setting(set.default),
        "configs": configs.collect::<Vec<_>>(),
    })
}

fn mcp(server: &str, set: &Toolset) -> Value {
    let configs = set.tools.iter().map(|tool| {
        let mut config = json!({"name": tool.name});
        extend(&mut config, setting(tool.setting));
        config
    });
    json!({
        "type": MCP_TOOLSET,
        "mcp_server_name": server,
        "default_config": setting(set.default),
        "configs": configs.collect::<Vec<_>>(),
    })
}

fn extend(config: &mut Value, more: Value) {
    if let (Value::Object(config), Value::Object(more)) = (config, more) {
        config.extend(more);
    }
}

/// The sets that come nearest to the tools and the policy of an agent of the other dialect.
fn foreign(spec: &Spec, policy: &PermissionPolicy) -> Vec<Value> {
    let of = |permission: Permission, chosen: bool| Setting {
        enabled: chosen && permission != Permission::Deny,
        approval: match permission {
            Permission::Ask => Approval::AlwaysAsk,
            Permission::Allow | Permission::Deny => Approval::AlwaysAllow,
        },
    };
    let default = Setting {
        enabled: true,
        approval: Approval::AlwaysAllow,
    };
    let chosen = |name: &str| spec.tools.is_empty() || spec.tools.iter().any(|tool| tool == name);
    let settings = oma_tools::known_names().iter().map(|name| {
        let setting = of(policy.evaluate(name), chosen(name));
        oma_domain::toolset::ToolSetting {
            name: (*name).to_owned(),
            tool: (*name).to_owned(),
            setting,
            web: None,
        }
    });
    let own = Toolset {
        default,
        tools: settings.filter(|tool| tool.setting != default).collect(),
    };
    let names: Vec<&str> = spec.mcp_servers.keys().map(String::as_str).collect();
    let prefixes = oma_mcp::prefixes(&names);
    let sets = remote(spec).filter_map(|(server, _)| {
        let index = names.iter().position(|name| *name == server)?;
        // A tool that no entry of the policy can mean stands for all that none means.
        let any = format!("{}\u{0}", prefixes.get(index)?);
        let set = Toolset {
            default: of(policy.evaluate(&any), true),
            tools: Vec::new(),
        };
        Some(mcp(server, &set))
    });
    std::iter::once(built_in(&own)).chain(sets).collect()
}

/// The outcome of the policy for a tool use, and how it came about.
pub(crate) fn evaluation(
    approval: Option<Approval>,
    permission: Permission,
) -> (&'static str, Option<Value>) {
    match (permission, approval) {
        // Not enabled: no policy has been asked.
        (Permission::Deny, _) => ("deny", None),
        (Permission::Allow, _) => ("allow", Some(json!({"type": "always_allow"}))),
        (Permission::Ask, Some(Approval::Auto)) => (
            "ask",
            Some(json!({
                "type": "auto",
                "evaluated_permission": {"type": "ask", "reason_code": "indeterminate"},
            })),
        ),
        (Permission::Ask, _) => ("ask", Some(json!({"type": "always_ask"}))),
    }
}
