//! From the configuration to sandboxes.

use oma_furnish::environments::{Settings, Share};
use oma_sandbox::hand::limits::ToolLimits;
use oma_sandbox::host::{self, Host};
use oma_sandbox::limits::{Enforcement, Limits};
use oma_sandbox::{PoolConfig, docker, local};

use crate::config::Config;
use crate::config::reader::Origin;
use crate::config::sections::{Backend, Enforcement as EnforcementName, Transport};
use crate::print::Failure;

/// The files and folders that a build may make at least, with those that it needs only for a while.
const BUILD_INODES: u64 = 2_000_000;

/// Opens the sandboxes of the configured backend.
///
/// # Errors
/// Why there can be none.
pub(crate) async fn open(config: &Config) -> Result<Host, Failure> {
    let opened = match config.sandbox.backend {
        Backend::Local => local::open(configure(config)).await,
        Backend::Docker => docker::open(containers(config)).await,
    };
    opened.map_err(|error| Failure::Other(format!("no sandboxes: {error}; `oma doctor` tells more")))
}

/// What the doctor sees of the configured backend.
pub(crate) async fn probe(config: &Config) -> Vec<oma_sandbox::doctor::Check> {
    match config.sandbox.backend {
        Backend::Local => oma_sandbox::doctor::probe(&configure(config)).await,
        Backend::Docker => docker::probe(&containers(config)).await,
    }
}

/// How containers are made.
fn containers(config: &Config) -> docker::Config {
    let sandbox = &config.sandbox;
    docker::Config {
        host: configure(config),
        engine: sandbox.engine.clone(),
        image: sandbox.image.clone(),
        runtime: sandbox.runtime.clone(),
        transport: match sandbox.transport {
            Transport::Auto => None,
            Transport::Socket => Some(docker::Transport::Socket),
            Transport::Exec => Some(docker::Transport::Exec),
        },
        patience: sandbox.engine_timeout,
    }
}

/// What does not depend on the backend.
pub(crate) fn configure(config: &Config) -> host::Config {
    let sandbox = &config.sandbox;
    let mut host = host::Config::new(&config.data_dir);
    host.enforcement = match sandbox.enforcement {
        EnforcementName::Auto => None,
        EnforcementName::Cgroup => Some(Enforcement::Cgroup),
        EnforcementName::Rlimit => Some(Enforcement::Rlimit),
    };
    host.limits = Limits {
        memory: memory(config, machine_memory()),
        processes: sandbox.processes,
        cpus: sandbox.cpus,
        disk: sandbox.disk.0,
        inodes: sandbox.inodes,
        disk_floor: sandbox.disk_floor.0,
        tmp: sandbox.tmp.0,
        open_files: sandbox.open_files,
    };
    host.tools = ToolLimits {
        default_wall: sandbox.command_timeout,
        max_wall: sandbox.max_command_timeout,
        max_output: usize::try_from(sandbox.command_output.0).unwrap_or(usize::MAX),
        inline_result_chars: sandbox.inline_result_chars,
        ..ToolLimits::default()
    };
    host.cgroup_parent = sandbox.cgroup_parent.clone();
    host.first_uid = sandbox.first_uid;
    host.uids = sandbox.uids;
    host.readable = sandbox.readable.0.clone();
    host.gateway = sandbox.egress;
    host.orphan_timeout = sandbox.orphan_timeout;
    host.launch_timeout = sandbox.launch_timeout;
    host
}

/// How environments are built and kept.
pub(crate) fn environments(config: &Config) -> Settings {
    let sandbox = &config.sandbox;
    let configured = configure(config).limits;
    Settings {
        timeout: sandbox.build_timeout,
        at_once: sandbox.builds,
        limits: Limits {
            disk: sandbox.build_disk.0,
            // Packages are many small files; their bytes are what counts.
            inodes: configured.inodes.max(BUILD_INODES),
            ..configured
        },
        variables: sandbox
            .build_variables
            .0
            .iter()
            .map(|variable| (variable.name.clone(), variable.value.clone()))
            .collect(),
        files: sandbox
            .build_files
            .0
            .iter()
            .map(|file| (file.source.clone(), file.target.clone()))
            .collect(),
        age: Some(sandbox.layers_age),
        share: Share {
            all: sandbox.layers_size.0,
            workspace: sandbox.layers_share.0,
        },
        images: sandbox.images.0.clone(),
    }
}

/// The memory of one sandbox, in bytes, on a machine with so much: where nothing is configured, half of that at the
/// most.
fn memory(config: &Config, machine: u64) -> u64 {
    let configured = config.sandbox.memory.0;
    if is_configured(config, "sandbox.memory") {
        configured
    } else {
        configured.min(machine / 2)
    }
}

/// The machine's memory, in bytes.
pub(crate) fn machine_memory() -> u64 {
    let info = rustix::system::sysinfo();
    u64::from(info.mem_unit).saturating_mul(info.totalram)
}

/// Whether somebody has said anything about a setting.
fn is_configured(config: &Config, key: &str) -> bool {
    let mut settings = config.effective.iter();
    settings.any(|setting| setting.key == key && setting.origin != Origin::Default)
}

/// Refuses files with secrets that every sandbox could read. The data folder is refused by the sandboxes themselves.
///
/// # Errors
/// The file, and through what it would be seen.
pub(crate) fn check_secrets(config: &Config) -> Result<(), Failure> {
    let secrets = [
        ("the token file", config.server.api_token_file.as_deref()),
        ("the configuration file", config.file.as_deref()),
        ("the vaults' key file", config.vault.key_file.as_deref()),
        (
            "the file with the secret of `s3`",
            config.s3.secret_access_key_file.as_deref(),
        ),
    ];
    for (what, path) in secrets {
        let Some(path) = path else { continue };
        if let Some(shown) = local::exposed(path, &config.sandbox.readable.0) {
            return Err(Failure::Other(format!(
                "every sandbox can read {}, and {what} {} lies there; put it somewhere else",
                shown.display(),
                path.display()
            )));
        }
    }
    Ok(())
}

/// Refuses a limit on processors that somebody asked for and nothing here can enforce.
///
/// # Errors
/// What to do about it.
pub(crate) fn check_limits(config: &Config, enforcement: Enforcement) -> Result<(), Failure> {
    if enforcement == Enforcement::Rlimit && is_configured(config, "sandbox.cpus") {
        return Err(Failure::Other(
            "sandbox.cpus is set, but limits by resource limit can't limit processors: run the server where it \
             may make control groups, or leave the setting out; `oma doctor` tells more"
                .to_owned(),
        ));
    }
    Ok(())
}

/// How many of them there are, and for how long.
pub(crate) fn pool(config: &Config) -> PoolConfig {
    PoolConfig {
        max_live: config.sandbox.max_live,
        wait: config.sandbox.wait_timeout,
        idle_timeout: config.sandbox.idle_timeout,
        max_warm: config.sandbox.max_warm,
        warm_timeout: config.sandbox.warm_timeout,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reader::Sources;

    #[test]
    fn a_small_machine_has_small_sandboxes_unless_somebody_says_otherwise() {
        let unsaid = Config::from_sources(&Sources::default()).expect("the defaults are legal");

        let variable = ("OPENCLAW_SANDBOX_MEMORY".to_owned(), "1GiB".into());
        let said = Config::from_sources(&Sources {
            env: [variable].into(),
            ..Sources::default()
        });
        let said = said.expect("legal");
        for (machine, unsaid_gets) in [(512 << 20, 256 << 20), (8 << 30, 2 << 30)] {
            assert_eq!(memory(&unsaid, machine), unsaid_gets);
            assert_eq!(memory(&said, machine), 1 << 30);
        }
        assert!(machine_memory() > 64 << 20);
    }
}
