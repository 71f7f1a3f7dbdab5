//! Tools and policy of agents that were made in a dialect with finer policies, as near as this one can say them. Where
//! it can't, a tool is shown as asking rather than as allowed.

use oma_domain::agent::Spec;
use oma_domain::policy::{Permission, PermissionPolicy};
use oma_domain::{Agent, AgentId, Member, Multiagent};

/// The tools and the policy as clients of this dialect read them.
pub(super) fn nearest(spec: &Spec) -> (Vec<String>, PermissionPolicy) {
    let PermissionPolicy::Toolsets(sets) = &spec.permission_policy else {
        return (spec.tools.clone(), spec.permission_policy.clone());
    };
    let known = oma_tools::known_names();
    let (mut allowed, mut asking, mut denied) = (Vec::new(), Vec::new(), Vec::new());
    for name in known {
        match sets.evaluate(&[name]) {
            Permission::Allow => allowed.push((*name).to_owned()),
            Permission::Ask => {
                allowed.push((*name).to_owned());
                asking.push((*name).to_owned());
            }
            Permission::Deny => denied.push((*name).to_owned()),
        }
    }
    for set in &sets.mcp {
        let any = (format!("{}*", set.prefix), set.tools.default);
        let single = set
            .tools
            .tools
            .iter()
            .map(|tool| (tool.tool.clone(), tool.setting));
        for (name, setting) in single.chain([any]) {
            match setting.permission() {
                Permission::Allow => {}
                Permission::Ask => asking.push(name),
                Permission::Deny => denied.push(name),
            }
        }
    }
    let all = allowed.len() == known.len();
    if !asking.is_empty() {
        let policy = PermissionPolicy::AlwaysAsk {
            tools: Some(asking),
            timeout_ms: None,
        };
        return (if all { Vec::new() } else { allowed }, policy);
    }
    let policy = match denied.is_empty() {
        true => PermissionPolicy::AlwaysAllow,
        false => PermissionPolicy::Deny { tools: denied },
    };
    (if all { Vec::new() } else { allowed }, policy)
}

/// The agents that it may have work for it, by call or in threads. A copy of itself counts as itself.
pub(super) fn nearest_callable(agent: &Agent) -> Vec<String> {
    callable(&agent.spec, &agent.id)
}

/// The same of a definition.
pub(super) fn callable(spec: &Spec, own: &AgentId) -> Vec<String> {
    let mut callable = spec.callable_agents.clone();
    for member in spec.multiagent.iter().flat_map(Multiagent::named) {
        let id = match member {
            Member::This => own.as_str(),
            Member::Agent { id, .. } => id.as_str(),
        };
        if !callable.iter().any(|known| known == id) {
            callable.push(id.to_owned());
        }
    }
    callable
}

#[cfg(test)]
mod tests {
    use oma_domain::toolset::{Approval, McpToolset, Setting, ToolSetting, Toolset, Toolsets};
    use serde_json::{Value, json};

    use super::*;

    fn shown(built_in: Option<Toolset>, mcp: Vec<McpToolset>) -> Value {
        let mut spec: Spec = serde_json::from_value(json!({
            "model": "a/b", "instructions": "", "tools": [], "permission_policy": {"type": "always_allow"},
            "callable_agents": [], "max_subagent_depth": 0, "mcp_servers": {}, "thinking_level": "off", "channels": {},
        }))
        .expect("a definition");
        spec.permission_policy = PermissionPolicy::Toolsets(Toolsets { built_in, mcp });
        let (tools, policy) = nearest(&spec);
        json!([tools, policy])
    }

    #[test]
    fn what_clients_see() {
        let setting = |enabled, approval| Setting { enabled, approval };
        let allow = setting(true, Approval::AlwaysAllow);
        let ask = setting(true, Approval::AlwaysAsk);
        let off = setting(false, Approval::AlwaysAllow);
        let set = |default, tools: &[(&str, Setting)]| Toolset {
            default,
            tools: tools
                .iter()
                .map(|(name, setting)| ToolSetting {
                    web: None,
                    name: (*name).into(),
                    tool: (*name).into(),
                    setting: *setting,
                })
                .collect(),
        };
        let docs = |tools| McpToolset {
            server: "docs".into(),
            prefix: "mcp__docs__".into(),
            tools,
        };
        let names = oma_tools::known_names();
        for (built_in, mcp, expected) in [
            (
                Some(set(allow, &[])),
                vec![],
                json!([[], {"type": "always_allow"}]),
            ),
            (None, vec![], json!([[], {"type": "deny", "tools": names}])),
            (
                Some(set(off, &[("read", allow), ("bash", ask)])),
                vec![],
                json!([["bash", "read"], {"type": "always_ask", "tools": ["bash"]}]),
            ),
            (
                Some(set(allow, &[])),
                vec![docs(set(ask, &[("mcp__docs__find", allow)]))],
                json!([[], {"type": "always_ask", "tools": ["mcp__docs__*"]}]),
            ),
            (
                Some(set(allow, &[])),
                vec![docs(set(off, &[]))],
                json!([[], {"type": "deny", "tools": ["mcp__docs__*"]}]),
            ),
        ] {
            assert_eq!(shown(built_in, mcp), expected);
        }
    }
}
