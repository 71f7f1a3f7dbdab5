//! From the configuration to local sandboxes.

use oma_sandbox::hand::limits::ToolLimits;
use oma_sandbox::limits::{Enforcement, Limits};
use oma_sandbox::{PoolConfig, local};

use crate::config::Config;
use crate::config::sections::Enforcement as EnforcementName;

/// How local sandboxes are made.
pub(crate) fn configure(config: &Config) -> local::Config {
    let sandbox = &config.sandbox;
    let mut local = local::Config::new(&config.data_dir);
    local.enforcement = match sandbox.enforcement {
        EnforcementName::Auto => None,
        EnforcementName::Cgroup => Some(Enforcement::Cgroup),
        EnforcementName::Rlimit => Some(Enforcement::Rlimit),
    };
    local.limits = Limits {
        memory: sandbox.memory.0,
        processes: sandbox.processes,
        cpus: sandbox.cpus,
        disk: sandbox.disk.0,
        inodes: sandbox.inodes,
        disk_floor: sandbox.disk_floor.0,
        tmp: sandbox.tmp.0,
        open_files: sandbox.open_files,
    };
    local.tools = ToolLimits {
        default_wall: sandbox.command_timeout,
        max_wall: sandbox.max_command_timeout,
        max_output: usize::try_from(sandbox.command_output.0).unwrap_or(usize::MAX),
        inline_result_chars: sandbox.inline_result_chars,
        ..ToolLimits::default()
    };
    local.cgroup_parent = sandbox.cgroup_parent.clone();
    local.first_uid = sandbox.first_uid;
    local.uids = sandbox.uids;
    local.readable = sandbox.readable.0.clone();
    local.orphan_timeout = sandbox.orphan_timeout;
    local.launch_timeout = sandbox.launch_timeout;
    local
}

/// How many of them there are, and for how long.
pub(crate) fn pool(config: &Config) -> PoolConfig {
    PoolConfig {
        max_live: config.sandbox.max_live,
        wait: config.sandbox.wait_timeout,
        idle_timeout: config.sandbox.idle_timeout,
    }
}
