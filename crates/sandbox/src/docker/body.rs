//! The container of a session, in the engine's words.

use std::collections::HashMap;
use std::path::Path;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount,
    MountType, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use rustix::process::{Resource, getrlimit};

use super::enforceable::Enforceable;
use super::kit::Kit;
use super::{Config, Make, Transport, image::Image};
use crate::gateway;
use crate::hand::launch::WORKSPACE;
use crate::hand::launch::contained::{DOOR, KIT};
use crate::host::engine::Order;
use crate::host::record::{GROUPS, PRELOAD, TRUST, USERS};
use crate::limits::Limits;
use crate::mounts::Access;
use crate::{Error, Spec, trust};

/// What our containers are labelled with: the data folder's instance, the session, and the session's workspace (the
/// tenant).
pub(super) const INSTALLATION: &str = "oma.installation";
pub(super) const SESSION: &str = "oma.session";
const TENANT: &str = "oma.workspace";

/// Variables of every session, beside those of the image.
const ALWAYS: [(&str, &str); 5] = [
    ("HOME", WORKSPACE),
    ("USER", "agent"),
    ("LOGNAME", "agent"),
    ("TERM", "dumb"),
    ("TMPDIR", "/tmp"),
];

/// Variables for images that do not set them.
const UNLESS_SET: [(&str, &str); 3] = [
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("LANG", "C.UTF-8"),
    ("TZ", "UTC"),
];

/// How many open files and processes are asked of Podman at the most: with so many process ids a kernel comes.
const MOST_INHERITED: i64 = 32_768;

/// Private folders in memory beside `/tmp`, each with an eighth of its size.
const SCRATCH: [&str; 2] = ["/run", "/var/tmp"];

/// What of the engine matters to a container.
#[derive(Debug, Clone, Copy)]
pub(super) struct Abilities {
    /// How many processors it has; it takes no wish for more.
    pub(super) processors: u32,
    /// What can be limited.
    pub(super) limits: Enforceable,
    /// Whose it is.
    pub(super) make: Make,
    /// It maps the users of containers to others, unless told not to.
    pub(super) maps_users: bool,
    /// How the hands of its containers are reached.
    pub(super) transport: Transport,
}

/// The container, as strong as it has to be.
///
/// # Errors
/// [`Error`] when a folder's name can't be said to the engine.
pub(super) fn container(
    config: &Config,
    (kit, image, abilities): (&Kit, &Image, Abilities),
    instance: &str,
    (user, group): (u32, u32),
    order: &Order<'_>,
) -> Result<ContainerCreateBody, Error> {
    Ok(ContainerCreateBody {
        hostname: Some("sandbox".to_owned()),
        user: Some(format!("{user}:{group}")),
        image: Some(image.id.clone()),
        entrypoint: Some(kit.command(abilities.transport)),
        cmd: Some(Vec::new()),
        working_dir: Some("/".to_owned()),
        env: Some(environment(config.host.gateway, image, order.site.is_some())),
        labels: Some(labels(instance, order.spec)),
        // An image's own checks would be commands that nobody asked for.
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        host_config: Some(HostConfig {
            mounts: Some(mounts(config, kit, abilities.transport, order)?),
            tmpfs: Some(match order.site {
                // What installers put into `/tmp` for a moment may be large, and lies on the disk.
                Some(_) => volumes(&order.limits, image, abilities),
                None => scratch(&order.limits, image, abilities),
            }),
            ..built(order, limited(config, &order.limits, abilities))
        }),
        ..ContainerCreateBody::default()
    })
}

fn labels(instance: &str, spec: &Spec) -> HashMap<String, String> {
    let labels = [
        (INSTALLATION, instance),
        (SESSION, spec.session.as_str()),
        (TENANT, spec.workspace.as_str()),
    ];
    labels
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn environment(has_doors: bool, image: &Image, is_build: bool) -> Vec<String> {
    let who = ["USER", "LOGNAME"];
    let unless_set = UNLESS_SET
        .into_iter()
        .filter(|(name, _)| !image.variables.iter().any(|known| known == name));
    ALWAYS
        .into_iter()
        .chain(unless_set)
        .chain(has_doors.then_some(gateway::VARIABLES).into_iter().flatten())
        .map(|(name, value)| {
            let value = if is_build && who.contains(&name) {
                "root"
            } else {
                value
            };
            format!("{name}={value}")
        })
        .collect()
}

/// What root of a build may do, in its own container only: what installers need.
const OF_BUILDS: [&str; 6] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETGID", "SETUID"];

/// Lets a build write to its container, as its root.
fn built(order: &Order<'_>, config: HostConfig) -> HostConfig {
    if order.site.is_none() {
        return config;
    }
    HostConfig {
        cap_add: Some(OF_BUILDS.map(str::to_owned).into()),
        readonly_rootfs: Some(false),
        ..config
    }
}

/// What holds of every container: no privilege, no network, and no more of the machine than it may have.
fn limited(config: &Config, limits: &Limits, abilities: Abilities) -> HostConfig {
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    // What the engine can do is asked of it, whether or not that is relied on.
    let room = match abilities.transport {
        Transport::Socket => limits.clone(),
        Transport::Exec => limits.beside_a_kernel(),
    };
    let memory = abilities.limits.memory.then(|| whole(room.memory));
    // A billionth of a processor is enough; no machine has so many that the product is too large.
    #[expect(clippy::cast_possible_truncation, reason = "see above")]
    let processors = abilities
        .limits
        .processors
        .then(|| (limits.cpus.min(f64::from(abilities.processors)) * 1e9) as i64);
    HostConfig {
        memory,
        // With what there is of swap: none. An engine that can't limit it is not asked to, or it would warn.
        memory_swap: memory.map(|memory| if abilities.limits.swap { memory } else { -1 }),
        nano_cpus: processors,
        // Where the engine can't, the hand limits those of its user.
        pids_limit: abilities.limits.processes.then(|| i64::from(room.processes)),
        shm_size: Some(whole(limits.tmp / 4)),
        cgroup_parent: config
            .host
            .cgroup_parent
            .as_ref()
            .map(|path| path.to_string_lossy().into_owned()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        // The host's user ids are given, as files have them.
        userns_mode: abilities.maps_users.then(|| "host".to_owned()),
        network_mode: Some("none".to_owned()),
        // The server answers there, or nobody; the host's servers are not named.
        dns: Some(vec!["127.0.0.1".to_owned()]),
        // As the engine does by itself, mostly: the hand opens doors below the usual bound, without a privilege.
        sysctls: config
            .host
            .gateway
            .then(|| [("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned())].into()),
        ipc_mode: Some("private".to_owned()),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        readonly_rootfs: Some(true),
        privileged: Some(false),
        // The hand is the first process, and reaps what nobody waits for: the engine's own would only be in the way.
        init: Some(false),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        // An engine that comes back after a crash would remove also those that run.
        auto_remove: Some(false),
        // What it prints goes to the hand's log, which is bounded.
        log_config: Some(HostConfigLogConfig {
            typ: Some("none".to_owned()),
            config: None,
        }),
        runtime: config.runtime.clone(),
        ulimits: (abilities.make == Make::Podman).then(inherited),
        ..HostConfig::default()
    }
}

/// What Podman is to set: it would raise them to the most that there is, which fails where root may not. The hand lowers
/// them further.
fn inherited() -> Vec<ResourcesUlimits> {
    let of = |name: &str, resource: Resource| {
        let own = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let most = i64::try_from(own).unwrap_or(i64::MAX).min(MOST_INHERITED);
        ResourcesUlimits {
            name: Some(name.to_owned()),
            soft: Some(most),
            hard: Some(most),
        }
    };
    vec![of("nofile", Resource::Nofile), of("nproc", Resource::Nproc)]
}

fn scratch(limits: &Limits, image: &Image, abilities: Abilities) -> HashMap<String, String> {
    let options = |size, inodes| memory(abilities.make, size, inodes);
    let small = || options(limits.tmp / 8, limits.inodes / 8 + 64);
    let fixed = SCRATCH.map(str::to_owned).into_iter();
    // Else the engine would make a volume for each, on the disk and without a limit.
    let volumes = image.volumes.iter().filter(|path| is_free(path)).cloned();
    fixed
        .chain(volumes)
        .map(|path| (path, small()))
        .chain([("/tmp".to_owned(), options(limits.tmp, limits.inodes))])
        .collect()
}

/// The volumes of an image, in a build: nothing of them is kept, and the engine would make each on the disk, where nobody
/// counts it.
fn volumes(limits: &Limits, image: &Image, abilities: Abilities) -> HashMap<String, String> {
    let ours = [WORKSPACE, KIT].map(Path::new);
    let is_free = |path: &&String| {
        let path = Path::new(path);
        path.is_absolute() && !path.starts_with(KIT) && !ours.iter().any(|ours| ours.starts_with(path))
    };
    let all: Vec<&String> = image.volumes.iter().filter(is_free).collect();
    let share = u64::try_from(all.len()).unwrap_or(u64::MAX).max(1);
    let (size, inodes) = (limits.tmp / share, limits.inodes / share + 64);
    all.into_iter()
        .map(|path| (path.clone(), memory(abilities.make, size, inodes)))
        .collect()
}

/// How a folder in memory is asked for, of this many bytes and entries.
fn memory(make: Make, size: u64, inodes: u64) -> String {
    let more = match make {
        Make::Docker => format!("nr_inodes={inodes}"),
        // It limits no number of files; they are limited as memory, since what the kernel needs for one counts as
        // that. It would copy what the image has there, and its permissions.
        Make::Podman => "notmpcopyup".to_owned(),
    };
    format!("rw,exec,nosuid,nodev,size={size},{more},mode=1777")
}

/// Whether nothing of ours lies there.
fn is_free(path: &str) -> bool {
    let path = Path::new(path);
    let ours = ["/tmp", WORKSPACE, KIT, crate::mounts::ROOT];
    let is_ours = ours
        .into_iter()
        .any(|place| path.starts_with(place) || Path::new(place).starts_with(path));
    path.is_absolute() && !is_ours
}

fn mounts(config: &Config, kit: &Kit, transport: Transport, order: &Order<'_>) -> Result<Vec<Mount>, Error> {
    let mut all = vec![
        bind(&kit.folder, Path::new(KIT), true)?,
        bind(&order.workspace, Path::new(WORKSPACE), false)?,
    ];
    if transport == Transport::Socket {
        all.push(bind(&order.folder.door(), Path::new(DOOR), true)?);
    }
    if let Some(ground) = order.site {
        for (source, target) in &ground.build.files {
            all.push(bind(source, target, true)?);
        }
    }
    // A build's installers change those of the image. What its root has programs load must not reach a relay, and is nothing
    // to the hand, which is there before it.
    let shown: &[&str] = match (order.site, transport) {
        (None, _) => &[USERS, GROUPS, PRELOAD],
        (Some(_), Transport::Exec) => &[PRELOAD],
        (Some(_), Transport::Socket) => &[],
    };
    for name in shown {
        all.push(bind(
            &order.folder.file(name),
            &Path::new("/etc").join(name),
            true,
        )?);
    }
    if order.fittings.trust.is_some() {
        let folder = order.folder.file(TRUST);
        all.push(bind(&folder, Path::new(trust::FOLDER), true)?);
        // The engine makes the file in images that have none.
        all.push(bind(
            &folder.join(trust::BUNDLE),
            Path::new(trust::SYSTEM[0]),
            true,
        )?);
    }
    for mount in &order.mounts {
        all.push(bind(
            &mount.source,
            &mount.target,
            mount.access == Access::ReadOnly,
        )?);
    }
    // Root of a build is root of the machine to them, where the engine maps no users.
    for path in config.host.readable.iter().filter(|_| order.site.is_none()) {
        all.push(bind(path, path, true)?);
    }
    Ok(all)
}

fn bind(source: &Path, target: &Path, is_read_only: bool) -> Result<Mount, Error> {
    let text = |path: &Path| {
        let text = path.to_str().map(str::to_owned);
        text.ok_or_else(|| {
            Error::TooWeak(format!(
                "{} is no text, as the container engine needs it",
                path.display()
            ))
        })
    };
    let absolute = std::path::absolute(source).unwrap_or_else(|_| source.to_owned());
    Ok(Mount {
        source: Some(text(&absolute)?),
        target: Some(text(target)?),
        typ: Some(MountType::BIND),
        read_only: Some(is_read_only),
        ..Mount::default()
    })
}

#[cfg(test)]
mod tests {
    use super::super::enforceable::Evidence;
    use super::*;

    fn image(variables: &[&str], volumes: &[&str]) -> Image {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Image {
            id: "sha256:1".to_owned(),
            variables: owned(variables),
            volumes: owned(volumes),
        }
    }

    #[test]
    fn an_image_keeps_its_own_variables_but_for_those_of_the_session() {
        let all = environment(false, &image(&["PATH", "HOME"], &[]), false);
        assert!(!all.iter().any(|one| one.starts_with("PATH=")), "{all:?}");
        assert!(all.contains(&"HOME=/workspace".to_owned()) && all.contains(&"LANG=C.UTF-8".to_owned()));
    }

    const ABILITIES: Abilities = Abilities {
        processors: 1,
        limits: Enforceable {
            memory: true,
            processes: true,
            processors: true,
            swap: true,
            evidence: Evidence::Word,
        },
        make: Make::Docker,
        maps_users: false,
        transport: Transport::Socket,
    };

    #[test]
    fn an_engine_is_asked_for_no_limit_that_it_lacks() {
        let config = Config::new(crate::host::Config::new("/data"), "image");
        let memory = i64::try_from(config.host.limits.memory).unwrap();
        let abilities = ABILITIES;
        let full = limited(&config, &config.host.limits, abilities);
        assert_eq!((full.memory, full.memory_swap), (Some(memory), Some(memory)));
        assert_eq!(full.nano_cpus, Some(1_000_000_000), "no more than there are");
        assert!(full.pids_limit.is_some() && full.userns_mode.is_none());

        let without_swap = Abilities {
            limits: Enforceable {
                swap: false,
                ..abilities.limits
            },
            ..abilities
        };
        assert_eq!(
            limited(&config, &config.host.limits, without_swap).memory_swap,
            Some(-1)
        );
        let weak = Abilities {
            limits: Enforceable {
                memory: false,
                processes: false,
                processors: false,
                ..abilities.limits
            },
            maps_users: true,
            ..abilities
        };
        let weak = limited(&config, &config.host.limits, weak);
        assert_eq!((weak.memory, weak.memory_swap), (None, None));
        assert_eq!((weak.pids_limit, weak.nano_cpus), (None, None));
        assert_eq!(weak.userns_mode.as_deref(), Some("host"));
    }

    #[test]
    fn volumes_of_an_image_are_small_and_cover_nothing_of_ours() {
        let limits = Limits::default();
        let all = scratch(
            &limits,
            &image(&[], &["/data", "/workspace", "/mnt", "/", "relative"]),
            ABILITIES,
        );
        let mut places: Vec<&str> = all.keys().map(String::as_str).collect();
        places.sort_unstable();
        assert_eq!(places, ["/data", "/run", "/tmp", "/var/tmp"]);
        assert!(all["/data"].contains(&format!("size={}", limits.tmp / 8)));
        assert!(all.values().all(|options| options.contains("nr_inodes=")));
        let without = Abilities {
            make: Make::Podman,
            ..ABILITIES
        };
        let all = scratch(&limits, &image(&[], &[]), without);
        assert!(!all.values().any(|options| options.contains("nr_inodes")));
    }

    #[test]
    fn volumes_of_an_image_are_in_memory_in_builds_too() {
        let limits = Limits::default();
        let declared = [
            "/data",
            "/tmp",
            "/workspace",
            "/workspace/in",
            "/.oma/x",
            "/",
            "x",
        ];
        let all = volumes(&limits, &image(&[], &declared), ABILITIES);
        let mut places: Vec<&str> = all.keys().map(String::as_str).collect();
        places.sort_unstable();
        assert_eq!(places, ["/data", "/tmp", "/workspace/in"]);
        assert!(
            all.values()
                .all(|one| one.contains(&format!("size={}", limits.tmp / 3)))
        );
        assert!(volumes(&limits, &image(&[], &[]), ABILITIES).is_empty());
    }
}
