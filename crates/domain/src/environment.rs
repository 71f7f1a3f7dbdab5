//! Environments: what a session's sandbox contains and what it may reach.

pub mod build;
pub mod packages;
pub mod variables;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{EnvironmentId, WorkspaceId};
use crate::time::Timestamp;

pub use packages::{Manager, Packages};

/// The longest setup script, in bytes.
pub const MAX_SCRIPT: usize = 64 << 10;

/// How much of the machine a sandbox of an environment may have; what is absent, and what is more than the server
/// gives, is as the server has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Memory, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Thousandths of a processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub millicpus: Option<u64>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
    /// Bytes of the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<u64>,
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
    /// Variables of every command.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// How much its sandboxes may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// The image that its sandboxes are made of, where they are made of images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What is run, once, after the packages are installed; its sandboxes have what it leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_script: Option<String>,
}

impl Spec {
    /// One of this name, in sandboxes of the platform, that says nothing else.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            description: None,
            packages: None,
            networking: Networking::default(),
            metadata: BTreeMap::new(),
            hosting: Hosting::default(),
            variables: BTreeMap::new(),
            limits: None,
            image: None,
            setup_script: None,
        }
    }

    /// Whether its sandboxes have something that has to be built first.
    #[must_use]
    pub fn is_built(&self) -> bool {
        let has_packages = self
            .packages
            .as_ref()
            .is_some_and(|packages| !packages.is_empty());
        self.hosting.is_cloud() && (has_packages || self.setup_script.is_some())
    }
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
