//! Environments: what a session's sandbox contains and what it may reach.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{EnvironmentId, WorkspaceId};
use crate::time::Timestamp;

/// Packages to install, by installer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Packages {
    /// Debian packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apt: Option<Vec<String>>,
    /// Rust crates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cargo: Option<Vec<String>>,
    /// Ruby gems.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gem: Option<Vec<String>>,
    /// Go modules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub go: Option<Vec<String>>,
    /// npm packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub npm: Option<Vec<String>>,
    /// Python packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pip: Option<Vec<String>>,
}

impl Packages {
    /// Whether nothing is to be installed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        [&self.apt, &self.cargo, &self.gem, &self.go, &self.npm, &self.pip]
            .into_iter()
            .all(|list| list.as_ref().is_none_or(Vec::is_empty))
    }
}

/// What a sandbox may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Networking {
    /// Any public host, through the platform's proxy.
    #[default]
    Unrestricted,
    /// Only the listed hosts.
    #[serde(rename_all = "camelCase")]
    Limited {
        /// Host names, or `*.name` for every name below it.
        allowed_hosts: Vec<String>,
        /// Also the hosts of the agent's MCP servers.
        #[serde(default)]
        allow_mcp_servers: bool,
        /// Also the package managers' registries.
        #[serde(default)]
        allow_package_managers: bool,
    },
}

/// Where the tools of its sessions run that need a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Hosting {
    /// In sandboxes of the platform.
    #[default]
    Cloud,
    /// In a worker of the developer's, which polls for work and sends results.
    SelfHosted,
}

impl Hosting {
    /// Whether it is the platform's.
    #[must_use]
    pub fn is_cloud(&self) -> bool {
        *self == Self::Cloud
    }
}

/// What a client gives to create an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// What it is for, if that was said; the empty text is something else than nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Packages to install.
    pub packages: Option<Packages>,
    /// What it may reach.
    pub networking: Networking,
    /// Whatever the client wants to remember with it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Where its sessions' tools run. Never changes.
    #[serde(default, skip_serializing_if = "Hosting::is_cloud")]
    pub hosting: Hosting,
}

/// An environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Its id.
    pub id: EnvironmentId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// What it contains.
    pub spec: Spec,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was changed.
    pub updated_at: Timestamp,
    /// When it was archived; an archived environment takes no new sessions.
    pub archived_at: Option<Timestamp>,
}
