//! What a container engine offers for sandboxes, and what it can't enforce.
//!
//! Invariant: a check tells what was really seen: the last one starts a container.

use bollard::models::SystemInfo;

use super::connection::Connection;
use super::enforceable::Enforceable;
use super::image::Image;
use super::{Config, Make, Transport, Users, has_option};
use crate::Error;
use crate::doctor::{Check, Status, paths, trial, trial_build};
use crate::host;
use crate::limits::Enforcement;

/// How long an engine that does not answer is waited for: somebody is looking.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

/// Looks at everything that a sandbox of this configuration needs. The data folder of the configuration stays as it
/// is: the trial sandbox gets one of its own, on the same file system where that can be written to.
pub async fn probe(config: &Config) -> Vec<Check> {
    let config = Config {
        patience: PATIENCE.min(config.patience),
        ..config.clone()
    };
    let engine = "container engine";
    let connection = match Connection::open(&config.engine, config.patience).await {
        Ok(connection) => connection,
        Err(error) => {
            let remedy =
                "start Docker, name its socket with sandbox.engine, or give the server's user access to it";
            return vec![Check::bad(engine, Status::Fail, error.to_string(), remedy)];
        }
    };
    let asked = connection.get("asking what it can do", || connection.docker().info());
    let info = match asked.await {
        Ok(info) => info,
        Err(error) => {
            let remedy = "see what the engine's own log says";
            return vec![Check::bad(engine, Status::Fail, error.to_string(), remedy)];
        }
    };
    let make = match Make::ask(&connection).await {
        Ok(make) => make,
        Err(error) => {
            let remedy = "see what the engine's own log says";
            return vec![Check::bad(engine, Status::Fail, error.to_string(), remedy)];
        }
    };
    let enforceable = Enforceable::of(make, &info, &config);
    let mut checks = vec![
        Check::ok(engine, named(&info)),
        image(&connection, &config).await,
        limits(&config, enforceable),
        swap(enforceable),
        disk(),
        network(),
        paths(),
        users(&info),
        seccomp(&info),
        runtime(&config, &info),
        way(&config, &info),
        restarts(&info, make),
    ];
    let host: host::Config = config.host.clone();
    let open = |host| {
        super::open(Config {
            host,
            ..config.clone()
        })
    };
    checks.push(trial(&host, open).await);
    checks.push(trial_build(&host, open).await);
    checks
}

fn named(info: &SystemInfo) -> String {
    let or_unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
    let groups = info
        .cgroup_version
        .map_or_else(|| "unknown".to_owned(), |version| version.to_string());
    format!(
        "version {}, storage {}, control groups of version {groups}",
        or_unknown(&info.server_version),
        or_unknown(&info.driver)
    )
}

async fn image(connection: &Connection, config: &Config) -> Check {
    let name = "image";
    match Image::find(connection, &config.image).await {
        Ok(image) => Check::ok(name, format!("{} ({})", config.image, image.id)),
        Err(error) => {
            let remedy = format!("docker pull {}, or name another with sandbox.image", config.image);
            Check::bad(name, Status::Fail, error.to_string(), remedy)
        }
    }
}

fn limits(config: &Config, enforceable: Enforceable) -> Check {
    let name = "memory, processes, processors";
    match (enforceable.lacking(config), config.host.enforcement()) {
        (Some(lack), _) => Check::bad(name, Status::Fail, lack.to_string(), lack.remedy()),
        (None, Enforcement::Cgroup) => Check::ok(name, "limited by the kernel, through the engine"),
        (None, Enforcement::Rlimit) => Check::ok(
            name,
            "limited by resource limits and a watch; processors are not limited",
        ),
    }
}

fn swap(enforceable: Enforceable) -> Check {
    let name = "swap";
    if enforceable.swap {
        return Check::ok(name, "none for sandboxes");
    }
    Check::bad(
        name,
        Status::Warn,
        "the engine can't limit it: a sandbox may use more than its memory by what the machine swaps out",
        "boot with swapaccount=1, or without swap",
    )
}

fn disk() -> Check {
    Check::ok(
        "disk",
        "workspaces and mounts by a watch in the sandbox, everything else is read-only or in limited memory",
    )
}

fn network() -> Check {
    Check::ok("network", "none but the sandbox's own loopback")
}

fn users(info: &SystemInfo) -> Check {
    let name = "users";
    match Users::of(info) {
        Ok(Users::Host) if host::is_root() => Check::ok(
            name,
            "each session runs as a host user of its own, without capabilities",
        ),
        Ok(Users::Host) => Check::ok(name, "sessions run as the server's user, without capabilities"),
        Ok(Users::Rootless) => Check::ok(
            name,
            "the engine is rootless: sessions run as the server's user, without capabilities",
        ),
        Err(error) => Check::bad(
            name,
            Status::Fail,
            error.to_string(),
            "use an engine of the same user",
        ),
    }
}

fn seccomp(info: &SystemInfo) -> Check {
    let name = "system call filter";
    if has_option(info, "seccomp") && !has_profile(info, "unconfined") {
        return Check::ok(name, "the engine's own and the hand's");
    }
    Check::bad(
        name,
        Status::Warn,
        "the hand's own only: the engine has none",
        "use the engine's default seccomp profile",
    )
}

fn has_profile(info: &SystemInfo, profile: &str) -> bool {
    let wanted = format!("profile={profile}");
    let options = info.security_options.iter().flatten();
    options
        .flat_map(|option| option.split(','))
        .any(|part| part == wanted)
}

fn runtime(config: &Config, info: &SystemInfo) -> Check {
    let name = "runtime";
    let known = info.runtimes.clone().unwrap_or_default();
    match &config.runtime {
        None => Check::ok(
            name,
            info.default_runtime
                .clone()
                .unwrap_or_else(|| "the engine's default".to_owned()),
        ),
        Some(runtime) if known.contains_key(runtime) || runtime.contains('.') => {
            Check::ok(name, runtime.clone())
        }
        Some(runtime) => Check::bad(
            name,
            Status::Fail,
            Error::Engine(format!("knows no runtime {runtime}")).to_string(),
            "add it to the engine's configuration",
        ),
    }
}

fn way(config: &Config, info: &SystemInfo) -> Check {
    let name = "way to the hand";
    match super::runtime::transport(config, info) {
        Transport::Socket => Check::ok(name, "a socket of this machine, which is passed to it"),
        Transport::Exec => Check::ok(
            name,
            "through the engine, since the runtime may have a kernel of its own; the hand watches memory and processes",
        ),
    }
}

fn restarts(info: &SystemInfo, make: Make) -> Check {
    let name = "restarts of the engine";
    if info.live_restore_enabled == Some(true) || make == Make::Podman {
        return Check::ok(name, "sandboxes go on meanwhile");
    }
    Check::bad(
        name,
        Status::Warn,
        "they end all sandboxes; sessions get new ones with their workspaces, and lose the commands under way",
        "set \"live-restore\": true in the engine's configuration",
    )
}
