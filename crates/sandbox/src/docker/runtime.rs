//! What runs containers for the engine, as far as that matters: whether they have this machine's kernel.

use bollard::models::SystemInfo;

use super::{Config, Transport};

/// Parts of the names of runtimes whose containers have a kernel of their own, and of their programs.
const OWN_KERNEL: [&str; 7] = ["runsc", "gvisor", "kata", "firecracker", "krun", "urunc", "quark"];

/// The runtime that containers of this configuration are made with.
pub(super) fn name<'a>(config: &'a Config, info: &'a SystemInfo) -> Option<&'a str> {
    config.runtime.as_deref().or(info.default_runtime.as_deref())
}

/// How the hands of containers are reached.
pub(super) fn transport(config: &Config, info: &SystemInfo) -> Transport {
    config
        .transport
        .unwrap_or_else(|| match has_own_kernel(config, info) {
            true => Transport::Exec,
            false => Transport::Socket,
        })
}

/// Whether the runtime is known to bring a kernel, by its name or its program's.
pub(super) fn has_own_kernel(config: &Config, info: &SystemInfo) -> bool {
    let name = name(config, info).unwrap_or_default();
    let known = info.runtimes.as_ref().and_then(|known| known.get(name));
    let path = known.and_then(|runtime| runtime.path.as_deref());
    brings_kernel(name) || path.is_some_and(brings_kernel)
}

/// Whether a runtime of this name, or whose program has this path, is known to bring a kernel.
fn brings_kernel(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    let mut words = last.split(|character: char| !character.is_ascii_alphanumeric());
    words.any(|word| OWN_KERNEL.contains(&word.to_ascii_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bollard::models::Runtime;

    use super::*;
    use crate::host;

    #[test]
    fn runtimes_with_a_kernel_of_their_own_are_told_by_their_names() {
        for own in [
            "runsc",
            "/usr/local/bin/runsc",
            "runsc-kvm",
            "io.containerd.runsc.v1",
            "kata-runtime",
            "io.containerd.kata-qemu.v2",
            "Kata",
        ] {
            assert!(brings_kernel(own), "{own}");
        }
        for shared in [
            "",
            "runc",
            "/opt/kata/../bin/crun",
            "io.containerd.runc.v2",
            "nvidia",
            "youki",
            "sysbox-runc",
        ] {
            assert!(!brings_kernel(shared), "{shared}");
        }
    }

    #[test]
    fn the_way_to_hands_follows_the_runtime_unless_it_is_named() {
        let mut config = Config::new(host::Config::new("/data"), "image");
        let known = |name: &str, path: &str| {
            let runtime = Runtime {
                path: Some(path.to_owned()),
                ..Runtime::default()
            };
            (name.to_owned(), runtime)
        };
        let info = SystemInfo {
            default_runtime: Some("safe".to_owned()),
            runtimes: Some(HashMap::from([
                known("safe", "/usr/bin/runsc"),
                known("runc", "runc"),
            ])),
            ..SystemInfo::default()
        };
        assert_eq!(transport(&config, &info), Transport::Exec, "the default one");
        config.runtime = Some("runc".to_owned());
        assert_eq!(transport(&config, &info), Transport::Socket);
        config.transport = Some(Transport::Exec);
        assert_eq!(transport(&config, &info), Transport::Exec);
        config.runtime = Some("runsc".to_owned());
        config.transport = Some(Transport::Socket);
        assert_eq!(transport(&config, &info), Transport::Socket);
    }
}
