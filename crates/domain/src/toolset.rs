//! Toolsets: the finer form of a permission policy. Each set of tools (the built-in ones, those of an MCP server) has
//! a default, and single tools may differ from it. Custom tools belong to none: the client carries them out.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::policy::{MCP_PREFIX, Permission};
use crate::session::CALL_AGENT;
use crate::web;

/// A tool that the client carries out: the session waits until the client has posted its result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CustomTool {
    /// Its name.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// A JSON schema of its arguments.
    pub input_schema: Value,
}

/// Who says whether a tool use runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    /// Nobody: it runs at once.
    AlwaysAllow,
    /// A client, each time.
    AlwaysAsk,
    /// A judge, who asks a client when in doubt. This server has none that could be sure, so a client is always asked.
    Auto,
}

/// What holds for a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Whether the agent has it at all.
    pub enabled: bool,
    /// Who says whether its uses run.
    pub approval: Approval,
}

impl Setting {
    /// The verdict over a use of the tool.
    #[must_use]
    pub fn permission(self) -> Permission {
        match self {
            Self { enabled: false, .. } => Permission::Deny,
            Self {
                approval: Approval::AlwaysAllow,
                ..
            } => Permission::Allow,
            Self {
                approval: Approval::AlwaysAsk | Approval::Auto,
                ..
            } => Permission::Ask,
        }
    }
}

/// What holds for one tool of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolSetting {
    /// The tool, as its set names it.
    pub name: String,
    /// The tool, as models and events name it.
    pub tool: String,
    /// What holds.
    #[serde(flatten)]
    pub setting: Setting,
    /// What it may read of the web.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web: Option<Box<web::Limits>>,
}

/// A set of tools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolset {
    /// What holds for tools that are not listed.
    pub default: Setting,
    /// What holds for those that are.
    pub tools: Vec<ToolSetting>,
}

impl Toolset {
    /// What holds for a tool that goes under these names. When several are listed, the strictest counts.
    fn setting<S: AsRef<str>>(&self, names: &[S]) -> Setting {
        let is_meant = |listed: &&ToolSetting| names.iter().any(|name| listed.tool == name.as_ref());
        let listed = self.tools.iter().filter(is_meant).map(|listed| listed.setting);
        listed
            .max_by_key(|setting| match setting.permission() {
                Permission::Allow => 0,
                Permission::Ask => 1,
                Permission::Deny => 2,
            })
            .unwrap_or(self.default)
    }
}

impl Toolset {
    /// Whether it is the other set, or has nothing but some of its tools, each as it is there.
    #[must_use]
    pub fn is_part_of(&self, whole: &Self) -> bool {
        let is_there = |tool: &ToolSetting| {
            let by_default = tool.setting == whole.default && tool.web.is_none();
            let listed = whole.tools.iter().any(|listed| listed.tool == tool.tool);
            whole.tools.contains(tool) || (by_default && !listed)
        };
        let left_out = |tool: &&ToolSetting| !self.tools.iter().any(|listed| listed.tool == tool.tool);
        // Of several entries for a tool the strictest counts, so all of them have to be there.
        let is_whole = |tool: &ToolSetting| {
            let mut same = whole.tools.iter().filter(|listed| listed.tool == tool.tool);
            same.all(|listed| self.tools.contains(listed))
        };
        let defaults = match self.default.enabled {
            true => self.default == whole.default && !whole.tools.iter().any(|tool| left_out(&tool)),
            false => true,
        };
        defaults
            && self
                .tools
                .iter()
                .all(|tool| !tool.setting.enabled || (is_there(tool) && is_whole(tool)))
    }
}

/// The tools of an MCP server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpToolset {
    /// The server's name in the agent.
    pub server: String,
    /// What the names of its tools begin with.
    pub prefix: String,
    /// What holds for them.
    #[serde(flatten)]
    pub tools: Toolset,
}

/// What holds for all tools of an agent. What is in none of the sets is denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Toolsets {
    /// The built-in ones; without it the agent has none of them.
    pub built_in: Option<Toolset>,
    /// Those of MCP servers.
    pub mcp: Vec<McpToolset>,
}

impl Toolsets {
    /// What holds for a tool that goes under these names; `None` when it is in no set.
    #[must_use]
    pub fn setting<S: AsRef<str>>(&self, names: &[S]) -> Option<Setting> {
        if names.iter().any(|name| name.as_ref().starts_with(MCP_PREFIX)) {
            let is_its = |set: &&McpToolset| names.iter().any(|name| name.as_ref().starts_with(&set.prefix));
            return self.mcp.iter().find(is_its).map(|set| set.tools.setting(names));
        }
        self.built_in.as_ref().map(|set| set.setting(names))
    }

    /// Whether all that it says is said by the other ones, too, of some tools at least: what is in none is denied.
    #[must_use]
    pub fn is_part_of(&self, whole: &Self) -> bool {
        let built_in = match (&self.built_in, &whole.built_in) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(whole)) => own.is_part_of(whole),
        };
        built_in && self.mcp.iter().all(|set| whole.mcp.contains(set))
    }

    /// What a built-in tool may read of the web.
    #[must_use]
    pub fn web(&self, tool: &str) -> Option<&web::Limits> {
        let set = self.built_in.as_ref()?;
        let listed = set.tools.iter().find(|listed| listed.tool == tool)?;
        listed.web.as_deref()
    }

    /// The verdict over a use of a tool that goes under these names. The tool that calls other agents is in no set:
    /// who may be called says enough.
    #[must_use]
    pub fn evaluate<S: AsRef<str>>(&self, names: &[S]) -> Permission {
        match self.setting(names) {
            _ if names.iter().any(|name| name.as_ref() == CALL_AGENT) => Permission::Allow,
            Some(setting) => setting.permission(),
            None => Permission::Deny,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        let setting = |enabled, approval| Setting { enabled, approval };
        let listed = |name: &str, tool: &str, setting| ToolSetting {
            name: name.into(),
            tool: tool.into(),
            setting,
            web: None,
        };
        let allow = setting(true, Approval::AlwaysAllow);
        let ask = setting(true, Approval::AlwaysAsk);
        let off = setting(false, Approval::AlwaysAllow);
        let sets = Toolsets {
            built_in: Some(Toolset {
                default: allow,
                tools: vec![listed("bash", "bash", ask), listed("write", "write", off)],
            }),
            mcp: vec![McpToolset {
                server: "Docs".into(),
                prefix: "mcp__Docs__".into(),
                tools: Toolset {
                    default: setting(true, Approval::Auto),
                    tools: vec![listed("find", "mcp__Docs__find", allow)],
                },
            }],
        };
        for (tool, permission) in [
            ("read", Permission::Allow),
            ("bash", Permission::Ask),
            ("write", Permission::Deny),
            ("mcp__Docs__find", Permission::Allow),
            ("mcp__Docs__finder", Permission::Ask),
            ("mcp__other__find", Permission::Deny),
            (CALL_AGENT, Permission::Allow),
        ] {
            assert_eq!(sets.evaluate(&[tool]), permission, "{tool}");
        }
        // A part of it has nothing that it has not.
        let built_in = |default, tools: &[(&str, Setting)]| Toolsets {
            built_in: Some(Toolset {
                default,
                tools: tools
                    .iter()
                    .map(|(tool, setting)| listed(tool, tool, *setting))
                    .collect(),
            }),
            mcp: Vec::new(),
        };
        let closed = setting(false, Approval::AlwaysAllow);
        for (part, is_part) in [
            (sets.clone(), true),
            (Toolsets::default(), true),
            (built_in(closed, &[]), true),
            (built_in(closed, &[("read", allow)]), true),
            (built_in(closed, &[("read", allow), ("bash", ask)]), true),
            (built_in(closed, &[("bash", ask), ("edit", off)]), true),
            (built_in(allow, &[("bash", ask), ("write", off)]), true),
            // As it was before something was changed.
            (built_in(closed, &[("bash", allow)]), false),
            (built_in(closed, &[("write", allow)]), false),
            (built_in(closed, &[("read", ask)]), false),
            (built_in(allow, &[("bash", ask)]), false),
            (built_in(allow, &[]), false),
            (built_in(ask, &[("bash", ask), ("write", off)]), false),
        ] {
            assert_eq!(part.is_part_of(&sets), is_part, "{part:?}");
        }
        let mut narrowed = sets.clone();
        narrowed.mcp[0].tools.default = off;
        assert!(!sets.is_part_of(&narrowed) && !sets.is_part_of(&Toolsets::default()));
        let none = Toolsets::default();
        assert_eq!(none.evaluate(&["read"]), Permission::Deny);
        assert_eq!(none.evaluate(&["mcp__Docs__find"]), Permission::Deny);
    }
}
