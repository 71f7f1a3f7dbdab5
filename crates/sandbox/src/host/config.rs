//! How the sandboxes of a data folder are made, whatever makes them.

use std::path::PathBuf;
use std::time::Duration;

use crate::hand::limits::ToolLimits;
use crate::limits::{Enforcement, Limits};

/// How the sandboxes of a data folder are made.
#[derive(Debug, Clone)]
pub struct Config {
    /// The server's data folder; sandboxes use `sandboxes`, `workspaces` and `trash` in it.
    pub data: PathBuf,
    /// The program that is started as `<exe> hand …`; the running one, if none is named.
    pub exe: PathBuf,
    /// What each sandbox may have.
    pub limits: Limits,
    /// What its tools may use.
    pub tools: ToolLimits,
    /// How the limits are enforced; if not said, by cgroup for root and by resource limits for a user.
    pub enforcement: Option<Enforcement>,
    /// The cgroup below which sandboxes get theirs, as a path in the hierarchy (`/oma`); the server's own, if
    /// none is named, or the container engine's.
    pub cgroup_parent: Option<PathBuf>,
    /// As root: the first of the host users that sessions run as. None of them should have an account.
    pub first_uid: u32,
    /// As root: how many such users there are.
    pub uids: u32,
    /// Further folders of the host that sessions may read.
    pub readable: Vec<PathBuf>,
    /// Sandboxes have doors to the server ([`crate::gateway`]), which lets their processes out.
    pub gateway: bool,
    /// How long a sandbox outlives its server.
    pub orphan_timeout: Duration,
    /// How long making a sandbox may take.
    pub launch_timeout: Duration,
    /// How long an orderly stop may take before the sandbox is killed.
    pub stop_timeout: Duration,
}

impl Config {
    /// The default configuration for a data folder.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            exe: PathBuf::from("/proc/self/exe"),
            limits: Limits::default(),
            tools: ToolLimits::default(),
            enforcement: None,
            cgroup_parent: None,
            first_uid: 200_000,
            uids: 65_536,
            readable: Vec::new(),
            gateway: false,
            orphan_timeout: Duration::from_secs(3_600),
            launch_timeout: Duration::from_secs(20),
            stop_timeout: Duration::from_secs(5),
        }
    }

    /// How the limits are enforced.
    #[must_use]
    pub fn enforcement(&self) -> Enforcement {
        let default = if is_root() {
            Enforcement::Cgroup
        } else {
            Enforcement::Rlimit
        };
        self.enforcement.unwrap_or(default)
    }
}

/// Whether this process makes sandboxes with real privilege.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
