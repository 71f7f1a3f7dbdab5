//! Permission policies: whether a tool use runs, asks first or is denied.

use serde::{Deserialize, Serialize};

/// An agent's policy over its tools.
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
    },
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
        let listed = |tools: &[String]| tools.iter().any(|tool| tool == name);
        match self {
            Self::AlwaysAllow => Permission::Allow,
            Self::Deny { tools } if listed(tools) => Permission::Deny,
            Self::Deny { .. } => Permission::Allow,
            Self::AlwaysAsk { tools: Some(tools) } if !tools.is_empty() && !listed(tools) => {
                Permission::Allow
            }
            Self::AlwaysAsk { .. } => Permission::Ask,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        let names = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let ask = |tools| PermissionPolicy::AlwaysAsk { tools };
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
        ] {
            assert_eq!(policy.evaluate(tool), verdict, "{policy:?} {tool}");
        }
    }
}
