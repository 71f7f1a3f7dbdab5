//! Permission policies: whether a tool use runs, asks first or is denied.

use serde::{Deserialize, Serialize};

use crate::toolset::Toolsets;

/// What the names of all tools of MCP servers begin with; the server's name and the tool's follow, with `__`
/// between them.
pub const MCP_PREFIX: &str = "mcp__";

/// An agent's policy over its tools. Each entry of a list names one tool, all tools of an MCP server
/// (`mcp__github`), or all tools whose names begin with what stands before a final `*` (`mcp__github__get_*`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum PermissionPolicy {
    /// Every tool use runs at once.
    #[default]
    AlwaysAllow,
    /// The listed tools are withheld from the model and refused if it names them all the same.
    Deny {
        /// Names of the denied tools.
        tools: Vec<String>,
    },
    /// The listed tools wait for a confirmation; all of them when the list is absent or empty.
    AlwaysAsk {
        /// Names of the tools that ask.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tools: Option<Vec<String>>,
        /// How long a tool use waits, in milliseconds, before it counts as denied; for ever without it.
        #[serde(default, rename = "timeoutMs", skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    },
    /// Each tool as its set says.
    Toolsets(Toolsets),
}

/// The policy's verdict over one tool use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Runs.
    Allow,
    /// Waits for a confirmation.
    Ask,
    /// Is refused.
    Deny,
}

impl PermissionPolicy {
    /// The verdict for the tool called `name`.
    #[must_use]
    pub fn evaluate(&self, name: &str) -> Permission {
        self.evaluate_any(&[name])
    }

    /// The verdict for a tool that goes under several names: an entry that means one of them means the tool.
    #[must_use]
    pub fn evaluate_any<S: AsRef<str>>(&self, names: &[S]) -> Permission {
        let means = |entry: &String| names.iter().any(|name| covers(entry, name.as_ref()));
        let listed = |tools: &[String]| tools.iter().any(means);
        match self {
            Self::AlwaysAllow => Permission::Allow,
            Self::Deny { tools } if listed(tools) => Permission::Deny,
            Self::Deny { .. } => Permission::Allow,
            Self::AlwaysAsk {
                tools: Some(tools), ..
            } if !tools.is_empty() && !listed(tools) => Permission::Allow,
            Self::AlwaysAsk { .. } => Permission::Ask,
            Self::Toolsets(sets) => sets.evaluate(names),
        }
    }

    /// The entries of its list.
    #[must_use]
    pub fn entries(&self) -> &[String] {
        match self {
            Self::AlwaysAllow | Self::AlwaysAsk { tools: None, .. } | Self::Toolsets(_) => &[],
            Self::Deny { tools }
            | Self::AlwaysAsk {
                tools: Some(tools), ..
            } => tools,
        }
    }

    /// How long a tool use waits for a confirmation, in milliseconds; `None` means for ever.
    #[must_use]
    pub fn timeout_ms(&self) -> Option<u64> {
        match self {
            Self::AlwaysAsk { timeout_ms, .. } => *timeout_ms,
            Self::AlwaysAllow | Self::Deny { .. } | Self::Toolsets(_) => None,
        }
    }
}

/// Whether an entry of a policy's list means the tool called `name`.
fn covers(entry: &str, name: &str) -> bool {
    let of_server = || {
        let rest = name.strip_prefix(entry).filter(|_| entry.starts_with(MCP_PREFIX));
        rest.is_some_and(|rest| rest.starts_with("__"))
    };
    match entry.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => entry == name || of_server(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        let names = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let ask = |tools| PermissionPolicy::AlwaysAsk {
            tools,
            timeout_ms: None,
        };
        let deny_server = PermissionPolicy::Deny {
            tools: names(&["mcp__files__*"]),
        };
        let deny = PermissionPolicy::Deny {
            tools: names(&["bash"]),
        };
        for (policy, tool, verdict) in [
            (PermissionPolicy::AlwaysAllow, "bash", Permission::Allow),
            (deny.clone(), "bash", Permission::Deny),
            (deny, "read", Permission::Allow),
            (ask(None), "bash", Permission::Ask),
            (ask(Some(vec![])), "bash", Permission::Ask),
            (ask(Some(names(&["bash"]))), "bash", Permission::Ask),
            (ask(Some(names(&["bash"]))), "read", Permission::Allow),
            (ask(Some(names(&["mcp__a__b"]))), "mcp__a__b", Permission::Ask),
            (ask(Some(names(&["mcp__a__b"]))), "mcp__a__bc", Permission::Allow),
            (ask(Some(names(&["mcp__a__*"]))), "mcp__a__b", Permission::Ask),
            (ask(Some(names(&["mcp__a__*"]))), "mcp__ab__c", Permission::Allow),
            (ask(Some(names(&["*"]))), "read", Permission::Ask),
            (deny_server.clone(), "mcp__files__write", Permission::Deny),
            (deny_server, "mcp__files", Permission::Allow),
            (
                ask(Some(names(&["mcp__docs"]))),
                "mcp__docs__search",
                Permission::Ask,
            ),
            (
                ask(Some(names(&["mcp__docs"]))),
                "mcp__docs2__search",
                Permission::Allow,
            ),
            (ask(Some(names(&["mcp__docs"]))), "mcp__doc__s", Permission::Allow),
            (
                ask(Some(names(&["mcp__docs__search"]))),
                "mcp__docs__search",
                Permission::Ask,
            ),
            (
                ask(Some(names(&["mcp__docs__search"]))),
                "mcp__docs__find",
                Permission::Allow,
            ),
            (ask(Some(names(&["web"]))), "web__x", Permission::Allow),
            (ask(Some(names(&["mcp"]))), "mcp__docs__search", Permission::Allow),
        ] {
            assert_eq!(policy.evaluate(tool), verdict, "{policy:?} {tool}");
        }
    }
}
