//! Which limits a container engine can enforce, by its own word.

use bollard::models::{SystemInfo, SystemInfoCgroupVersionEnum};

use super::{Config, Make};
use crate::limits::Enforcement;

/// Which limits an engine can enforce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Enforceable {
    pub(super) memory: bool,
    pub(super) processes: bool,
    pub(super) processors: bool,
    pub(super) swap: bool,
}

impl Enforceable {
    /// As the engine says it, where it knows.
    pub(super) fn of(make: Make, info: &SystemInfo, config: &Config) -> Self {
        // Podman's service looks for the files of version 1 whichever version there is (seen with 5.4). Its runtimes make no
        // container whose limits they can't set, and the hand looks for itself. Where limits need not be the kernel's,
        // none is asked for that may be impossible.
        let is_mistaken =
            make == Make::Podman && info.cgroup_version == Some(SystemInfoCgroupVersionEnum::_2);
        if is_mistaken && config.host.enforcement() == Enforcement::Cgroup {
            return Self {
                memory: true,
                processes: true,
                processors: true,
                swap: true,
            };
        }
        Self {
            memory: info.memory_limit != Some(false),
            processes: info.pids_limit != Some(false),
            processors: info.cpu_cfs_quota != Some(false),
            swap: info.swap_limit == Some(true),
        }
    }

    /// What of the configured limits it can't enforce.
    pub(super) fn lacking(self, config: &Config) -> Option<&'static str> {
        if config.host.enforcement() == Enforcement::Rlimit {
            return None;
        }
        let limits = [
            ("memory", self.memory),
            ("processes", self.processes),
            ("processors", self.processors),
        ];
        let lack = limits.into_iter().find(|(_, can)| !can);
        lack.map(|(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_podman_counts_with_version_1_only() {
        let mut config = Config::new(crate::host::Config::new("/data"), "image");
        config.host.enforcement = Some(Enforcement::Cgroup);
        // As Podman 5.4 says it with version 2.
        let said = |version| SystemInfo {
            cgroup_version: Some(version),
            memory_limit: Some(true),
            pids_limit: Some(true),
            cpu_cfs_quota: Some(false),
            swap_limit: Some(false),
            ..SystemInfo::default()
        };
        let (one, two) = (SystemInfoCgroupVersionEnum::_1, SystemInfoCgroupVersionEnum::_2);
        for (make, version, lack) in [
            (Make::Podman, two, None),
            (Make::Podman, one, Some("processors")),
            (Make::Docker, two, Some("processors")),
        ] {
            let found = Enforceable::of(make, &said(version), &config);
            assert_eq!(found.lacking(&config), lack, "{make:?} {version}");
            assert_eq!(found.swap, lack.is_none(), "{make:?} {version}");
        }
        config.host.enforcement = Some(Enforcement::Rlimit);
        let found = Enforceable::of(Make::Podman, &said(two), &config);
        assert_eq!(found.lacking(&config), None, "nothing of it is needed");
        assert!(!found.processors, "and nothing asked for that may be impossible");
    }
}
