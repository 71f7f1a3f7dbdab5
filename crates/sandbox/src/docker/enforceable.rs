//! Which limits a container engine can enforce, by its own word and by what can be seen.

use bollard::models::{SystemInfo, SystemInfoCgroupVersionEnum};

use super::{Config, Make, runtime};
use crate::limits::Enforcement;

/// Which limits an engine can enforce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Enforceable {
    pub(super) memory: bool,
    pub(super) processes: bool,
    pub(super) processors: bool,
    pub(super) swap: bool,
    pub(super) evidence: Evidence,
}

/// How it is known that it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evidence {
    /// The engine says so, and knows.
    Word,
    /// The engine does not know: the hand has to see the control group of its container, or it does not serve.
    Sight,
    /// The engine does not know, and containers have a kernel of their own, which does not show it.
    None,
}

/// Why limits that are configured are not enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Lack {
    /// The engine can't enforce this one.
    #[error("the container engine can't limit {0}")]
    Limit(&'static str),
    /// Nobody knows.
    #[error(
        "Podman's service does not know what it limits with control groups of version 2, and sandboxes with a kernel of \
         their own do not show it"
    )]
    Evidence,
}

impl Lack {
    /// What to do.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::Limit(_) => {
                "delegate the control groups to it, or configure enforcement by resource limit (weaker: no limit on \
                 processors)"
            }
            Self::Evidence => {
                "use Docker with this runtime, or Podman with one that has this machine's kernel, or configure enforcement \
                 by resource limit (weaker: no limit on processors)"
            }
        }
    }
}

impl Enforceable {
    /// As the engine says it, where it knows.
    pub(super) fn of(make: Make, info: &SystemInfo, config: &Config) -> Self {
        let said = Self {
            memory: info.memory_limit != Some(false),
            processes: info.pids_limit != Some(false),
            processors: info.cpu_cfs_quota != Some(false),
            swap: info.swap_limit == Some(true),
            evidence: Evidence::Word,
        };
        // Podman's service looks for the files of version 1 whichever version there is (seen with 5.4). So all is asked
        // of it, and seen from inside whether that is enforced. Where limits need not be the kernel's, none is asked for
        // that may be impossible.
        let is_mistaken =
            make == Make::Podman && info.cgroup_version == Some(SystemInfoCgroupVersionEnum::_2);
        if !is_mistaken || config.host.enforcement() == Enforcement::Rlimit {
            return said;
        }
        if runtime::has_own_kernel(config, info) {
            return Self {
                evidence: Evidence::None,
                ..said
            };
        }
        Self {
            memory: true,
            processes: true,
            processors: true,
            swap: true,
            evidence: Evidence::Sight,
        }
    }

    /// Why the configured limits are not enforced.
    pub(super) fn lacking(self, config: &Config) -> Option<Lack> {
        if config.host.enforcement() == Enforcement::Rlimit {
            return None;
        }
        if self.evidence == Evidence::None {
            return Some(Lack::Evidence);
        }
        let limits = [
            ("memory", self.memory),
            ("processes", self.processes),
            ("processors", self.processors),
        ];
        let lack = limits.into_iter().find(|(_, can)| !can);
        lack.map(|(name, _)| Lack::Limit(name))
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
        let processors = Some(Lack::Limit("processors"));
        for (make, version, runtime, lack, evidence) in [
            (Make::Podman, two, "crun", None, Evidence::Sight),
            (Make::Podman, two, "runsc", Some(Lack::Evidence), Evidence::None),
            (Make::Podman, two, "kata", Some(Lack::Evidence), Evidence::None),
            (Make::Podman, one, "crun", processors, Evidence::Word),
            (Make::Podman, one, "runsc", processors, Evidence::Word),
            (Make::Docker, two, "runc", processors, Evidence::Word),
            (Make::Docker, two, "runsc", processors, Evidence::Word),
        ] {
            config.runtime = Some(runtime.to_owned());
            let found = Enforceable::of(make, &said(version), &config);
            let what = format!("{make:?} {version} {runtime}");
            assert_eq!(
                (found.lacking(&config), found.evidence),
                (lack, evidence),
                "{what}"
            );
            assert_eq!(found.swap, lack.is_none(), "{what}");
            let Some(lack) = lack else { continue };
            assert!(lack.remedy().contains("resource limit"), "{what}");
            assert_eq!(
                lack.remedy().contains("use Docker"),
                evidence == Evidence::None,
                "{what}"
            );
        }
        config.host.enforcement = Some(Enforcement::Rlimit);
        for runtime in ["crun", "runsc"] {
            config.runtime = Some(runtime.to_owned());
            let found = Enforceable::of(Make::Podman, &said(two), &config);
            assert_eq!(found.lacking(&config), None, "nothing of it is needed");
            assert_eq!(found.evidence, Evidence::Word);
            assert!(!found.processors, "and nothing asked for that may be impossible");
        }
    }
}
