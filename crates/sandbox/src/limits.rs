//! How much of the machine one sandbox may have.

use oma_domain::environment;
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

/// What a runtime needs beside what its container may have, where it has a kernel of its own: bytes of that one's memory,
/// and threads of its processes.
const KERNEL_MEMORY: u64 = 128 << 20;
const KERNEL_THREADS: u32 = 512;

impl Limits {
    /// These, for whoever also counts what a kernel of the sandbox's own needs. Then the hand watches what the session has.
    pub(crate) fn beside_a_kernel(&self) -> Self {
        Self {
            memory: self.memory.saturating_add(KERNEL_MEMORY),
            processes: self.processes.saturating_mul(2).saturating_add(KERNEL_THREADS),
            ..self.clone()
        }
    }

    /// These, or what an environment has where that is less.
    #[must_use]
    pub fn narrowed(&self, by: &environment::Limits) -> Self {
        let cpus = by.millicpus.map_or(self.cpus, |wanted| {
            let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
            self.cpus.min(f64::from(wanted) / 1_000.0)
        });
        let memory = by.memory.map_or(self.memory, |wanted| self.memory.min(wanted));
        Self {
            memory,
            // It is part of the memory.
            tmp: self.tmp.min(memory),
            processes: by
                .processes
                .map_or(self.processes, |wanted| self.processes.min(wanted)),
            cpus,
            disk: by.disk.map_or(self.disk, |wanted| self.disk.min(wanted)),
            ..self.clone()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_has_less_and_never_more() {
        let server = Limits::default();
        assert_eq!(server.narrowed(&environment::Limits::default()), server);
        let more = environment::Limits {
            memory: Some(u64::MAX),
            millicpus: Some(u64::MAX),
            processes: Some(u32::MAX),
            disk: Some(u64::MAX),
        };
        assert_eq!(server.narrowed(&more), server);
        let less = server.narrowed(&environment::Limits {
            memory: Some(64 << 20),
            millicpus: Some(250),
            processes: Some(32),
            disk: Some(1 << 20),
        });
        assert_eq!(
            (less.memory, less.tmp, less.processes, less.disk),
            (64 << 20, 64 << 20, 32, 1 << 20)
        );
        assert!((less.cpus - 0.25).abs() < 1e-9);
    }
}
