//! How much of the machine one sandbox may have.

use serde::{Deserialize, Serialize};

/// Bounds on one sandbox, over all its processes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Memory, in bytes, with the private `/tmp` and `/dev/shm`.
    pub memory: u64,
    /// Processes and threads.
    pub processes: u32,
    /// Processors; 1.5 is one and a half. Needs a cgroup.
    pub cpus: f64,
    /// Bytes of the workspace.
    pub disk: u64,
    /// Files, folders and links of the workspace.
    pub inodes: u64,
    /// Bytes of the file system below the workspaces that stay free whatever the quotas say, so that the
    /// server's own log never meets a full disk because of a sandbox.
    pub disk_floor: u64,
    /// Bytes of the private `/tmp`.
    pub tmp: u64,
    /// Open files of one process.
    pub open_files: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 2 << 30,
            processes: 512,
            cpus: 2.0,
            disk: 4 << 30,
            inodes: 500_000,
            disk_floor: 1 << 30,
            tmp: 512 << 20,
            open_files: 4_096,
        }
    }
}

/// What keeps a sandbox within its memory, processes and processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// A cgroup (v1 or v2): the kernel enforces all of them.
    Cgroup,
    /// Resource limits and a watch in the hand: no limit on processors, and memory may be overshot for the
    /// twentieth of a second that the watch takes to notice.
    Rlimit,
}
