//! Control groups, version 1 (also in its hybrid form) and version 2.
//!
//! Each sandbox gets groups of its own, with limits on memory, processes and processors. Their names begin
//! with the data folder's instance, so that two servers on one machine never touch each other's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::limits::Limits;

/// The period over which processor time is measured out, in microseconds.
const CPU_PERIOD: u64 = 100_000;

/// The group that the server itself moves to under version 2, where a group with processes can't have groups
/// with limits below it.
const SERVER_LEAF: &str = "oma-server";

/// What the name of every group of this program begins with.
pub(crate) const PREFIX: &str = "oma-";

/// How long an empty group of another server is left alone.
const ABANDONED_AGE: Duration = Duration::from_secs(600);

/// How often and how long apart a group is tried to be removed: the kernel may take a moment to see that its
/// processes are gone, and gives no word of it under version 1.
const REMOVAL_TRIES: u32 = 50;
const REMOVAL_PAUSE: Duration = Duration::from_millis(10);

/// The controllers that a sandbox needs.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// Where the server may make groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cgroups {
    /// One folder per controller, in the order of [`CONTROLLERS`]; some may be the same.
    V1([PathBuf; 3]),
    /// One folder for all.
    V2(PathBuf),
}

/// A mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    /// The group that the mount shows at its top.
    root: PathBuf,
    v2: bool,
    options: Vec<String>,
}

impl Cgroups {
    /// Finds them, and makes them ready. `parent` names the group to use; without it, it is the server's own.
    ///
    /// # Errors
    /// Why there are none, in words for an operator.
    pub(crate) fn find(parent: Option<&Path>) -> Result<Self, String> {
        let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let mounts = parse_mounts(&read("/proc/self/mountinfo")?);
        let own = parse_own(&read("/proc/self/cgroup")?);
        let found = Self::locate(&mounts, &own, parent)?;
        match &found {
            Self::V1(folders) => {
                for folder in folders {
                    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
                }
            }
            Self::V2(folder) => prepare_v2(folder)?,
        }
        found.try_out()?;
        Ok(found)
    }

    fn locate(
        mounts: &[Mount],
        own: &[(Vec<String>, PathBuf)],
        parent: Option<&Path>,
    ) -> Result<Self, String> {
        let folder = |controller: Option<&str>| -> Option<PathBuf> {
            let mount = mounts.iter().find(|mount| match controller {
                Some(name) => !mount.v2 && mount.options.iter().any(|option| option == name),
                None => mount.v2,
            })?;
            let group = match parent {
                Some(parent) => parent.to_owned(),
                None => {
                    let name = controller.map(str::to_owned);
                    let mine = own.iter().find(|(names, _)| match &name {
                        Some(name) => names.contains(name),
                        None => names.is_empty(),
                    })?;
                    mine.1.clone()
                }
            };
            // A container's mount may show only its own part of the hierarchy.
            let below = group
                .strip_prefix(&mount.root)
                .or_else(|_| group.strip_prefix("/"))
                .ok()?;
            let outside = below
                .components()
                .any(|part| part == std::path::Component::ParentDir);
            (!outside).then(|| mount.point.join(below))
        };
        let v1 = CONTROLLERS.map(|name| folder(Some(name)));
        if let [Some(memory), Some(pids), Some(cpu)] = v1 {
            return Ok(Self::V1([memory, pids, cpu]));
        }
        let v2 = folder(None).ok_or("no control groups with memory, pids and cpu are mounted")?;
        // After a restart from inside the leaf.
        let v2 = if v2.ends_with(SERVER_LEAF) {
            v2.parent().map(Path::to_owned).unwrap_or(v2)
        } else {
            v2
        };
        Ok(Self::V2(v2))
    }

    /// Whether groups can really be made here.
    fn try_out(&self) -> Result<(), String> {
        let name = format!(
            "oma-probe-{}",
            ulid::Ulid::generate().to_string().to_ascii_lowercase()
        );
        let made = self
            .create(&name, &Limits::default())
            .map_err(|error| error.to_string())?;
        for folder in made {
            fs::remove_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        Ok(())
    }

    /// The version, for `doctor`.
    pub(crate) fn version(&self) -> u8 {
        match self {
            Self::V1(_) => 1,
            Self::V2(_) => 2,
        }
    }

    /// The folders that groups are made in, each once.
    fn parents(&self) -> Vec<&Path> {
        match self {
            Self::V2(folder) => vec![folder],
            Self::V1(folders) => {
                let mut all: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
                all.sort();
                all.dedup();
                all
            }
        }
    }

    /// Makes the groups of a sandbox and sets their limits; gives their folders. Takes over folders that are
    /// there already.
    ///
    /// # Errors
    /// When one can't be made or set. Nothing is left behind then.
    pub(crate) fn create(&self, name: &str, limits: &Limits) -> io::Result<Vec<PathBuf>> {
        let folders: Vec<PathBuf> = self
            .parents()
            .into_iter()
            .map(|parent| parent.join(name))
            .collect();
        let result = folders
            .iter()
            .try_for_each(|folder| match fs::create_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(named(folder, error)),
                _ => Ok(()),
            });
        let result = result.and_then(|()| self.set_limits(name, limits));
        if let Err(error) = result {
            for folder in &folders {
                let _ = fs::remove_dir(folder);
            }
            return Err(error);
        }
        Ok(folders)
    }

    fn set_limits(&self, name: &str, limits: &Limits) -> io::Result<()> {
        // The share is a small number of processors, far from what a float can't hold.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "see above"
        )]
        let quota = (limits.cpus * CPU_PERIOD as f64).max(1_000.0) as u64;
        let (memory, processes) = (limits.memory.to_string(), limits.processes.to_string());
        match self {
            Self::V1([memory_folder, pids_folder, cpu_folder]) => {
                let memory_folder = memory_folder.join(name);
                set(&memory_folder, "memory.limit_in_bytes", &memory)?;
                // Where swap is accounted for, it must not be a way around the limit.
                if memory_folder.join("memory.memsw.limit_in_bytes").exists() {
                    set(&memory_folder, "memory.memsw.limit_in_bytes", &memory)?;
                }
                set(&pids_folder.join(name), "pids.max", &processes)?;
                set(
                    &cpu_folder.join(name),
                    "cpu.cfs_period_us",
                    &CPU_PERIOD.to_string(),
                )?;
                set(&cpu_folder.join(name), "cpu.cfs_quota_us", &quota.to_string())
            }
            Self::V2(parent) => {
                let folder = parent.join(name);
                set(&folder, "memory.max", &memory)?;
                if folder.join("memory.swap.max").exists() {
                    set(&folder, "memory.swap.max", "0")?;
                }
                set(&folder, "pids.max", &processes)?;
                set(&folder, "cpu.max", &format!("{quota} {CPU_PERIOD}"))
            }
        }
    }

    /// Removes empty groups that other servers left long ago, when their data folder was deleted without a
    /// word. A group with a process in it can't be removed this way, so nobody is disturbed.
    ///
    /// # Errors
    /// When the groups can't be listed.
    pub(crate) fn sweep(&self) -> io::Result<()> {
        for folder in self.list(PREFIX)? {
            if !folder.ends_with(SERVER_LEAF) && is_old(&folder) {
                // In use, or somebody else was faster.
                let _ = fs::remove_dir(folder);
            }
        }
        Ok(())
    }

    /// The groups whose name begins with `prefix`.
    ///
    /// # Errors
    /// When they can't be listed.
    pub(crate) fn list(&self, prefix: &str) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for parent in self.parents() {
            for entry in fs::read_dir(parent).map_err(|error| named(parent, error))? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with(prefix) && entry.file_type()?.is_dir() {
                    found.push(entry.path());
                }
            }
        }
        Ok(found)
    }
}

/// Whether a group has been there for so long that no server can be about to use it for the first time.
fn is_old(folder: &Path) -> bool {
    let made = fs::metadata(folder).and_then(|meta| meta.modified());
    made.ok()
        .and_then(|made| made.elapsed().ok())
        .is_some_and(|age| age > ABANDONED_AGE)
}

/// Kills what is left in groups and removes them. Groups that are gone are fine.
///
/// # Errors
/// When one stays.
pub(crate) async fn remove(folders: &[PathBuf]) -> io::Result<()> {
    for folder in folders {
        let mut tries = 0;
        loop {
            match fs::remove_dir(folder) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) if tries >= REMOVAL_TRIES => return Err(named(folder, error)),
                Err(_) => {}
            }
            kill_members(folder);
            tries += 1;
            tokio::time::sleep(REMOVAL_PAUSE).await;
        }
    }
    Ok(())
}

fn kill_members(folder: &Path) {
    // An empty or vanished group has nobody to kill.
    let members = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    for pid in members
        .lines()
        .filter_map(|line| Pid::from_raw(line.trim().parse().ok()?))
    {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

fn prepare_v2(folder: &Path) -> Result<(), String> {
    let told = |error: io::Error| format!("{}: {error}", folder.display());
    fs::create_dir_all(folder).map_err(told)?;
    let available = fs::read_to_string(folder.join("cgroup.controllers")).map_err(told)?;
    for name in CONTROLLERS {
        if !available
            .split_ascii_whitespace()
            .any(|controller| controller == name)
        {
            return Err(format!(
                "{} does not have the {name} controller (is it delegated?)",
                folder.display()
            ));
        }
    }
    let enable = || set(folder, "cgroup.subtree_control", "+memory +pids +cpu");
    if enable().is_ok() {
        return Ok(());
    }
    // The server's own processes are in the way.
    let leaf = folder.join(SERVER_LEAF);
    fs::create_dir_all(&leaf).map_err(told)?;
    set(&leaf, "cgroup.procs", "0").map_err(|error| error.to_string())?;
    enable().map_err(|error| format!("{error} (are other processes in the server's group?)"))
}

fn set(folder: &Path, file: &str, value: &str) -> io::Result<()> {
    let path = folder.join(file);
    fs::write(&path, value).map_err(|error| named(&path, error))
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The control group mounts in `/proc/self/mountinfo`.
fn parse_mounts(text: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let mut right = right.split(' ');
        let kind = right.next()?;
        let options = right.nth(1)?.split(',').map(str::to_owned).collect();
        matches!(kind, "cgroup" | "cgroup2").then_some(())?;
        let (root, point) = (unescape(left.get(3)?).into(), unescape(left.get(4)?).into());
        Some(Mount {
            point,
            root,
            v2: kind == "cgroup2",
            options,
        })
    };
    text.lines().filter_map(mount).collect()
}

/// Undoes the octal escapes of `/proc` files.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// The groups of `/proc/self/cgroup`: the controllers (none for version 2) and the group.
fn parse_own(text: &str) -> Vec<(Vec<String>, PathBuf)> {
    let line = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let names = parts
            .next()?
            .split(',')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        Some((names, PathBuf::from(parts.next()?)))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
25 20 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
26 25 0:23 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
27 25 0:24 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
28 25 0:25 /docker/x /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
29 25 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn the_place_for_groups_is_found() {
        let v2 = "30 1 0:5 / /sys/fs/cgroup\\040x rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let own_v1 = "4:memory:/a\n3:pids:/docker/x\n2:cpu,cpuacct:/c/d\n0::/u\n";
        let v1 = |folders: [&str; 3]| Some(Cgroups::V1(folders.map(PathBuf::from)));
        let cases: [(&str, &str, Option<&str>, Option<Cgroups>); 7] = [
            (
                HYBRID,
                own_v1,
                None,
                v1([
                    "/sys/fs/cgroup/memory/a",
                    "/sys/fs/cgroup/pids/",
                    "/sys/fs/cgroup/cpu/c/d",
                ]),
            ),
            (
                HYBRID,
                own_v1,
                Some("/oma"),
                v1([
                    "/sys/fs/cgroup/memory/oma",
                    "/sys/fs/cgroup/pids/oma",
                    "/sys/fs/cgroup/cpu/oma",
                ]),
            ),
            (
                v2,
                "0::/user/s\n",
                None,
                Some(Cgroups::V2("/sys/fs/cgroup x/user/s".into())),
            ),
            (
                v2,
                "0::/s/oma-server\n",
                None,
                Some(Cgroups::V2("/sys/fs/cgroup x/s".into())),
            ),
            (v2, "0::/../other\n", None, None),
            ("", "0::/\n", None, None),
            (v2, "", None, None),
        ];
        for (mounts, own, parent, expected) in cases {
            let found = Cgroups::locate(&parse_mounts(mounts), &parse_own(own), parent.map(Path::new));
            assert_eq!(found.ok(), expected, "{mounts}{own}");
        }
    }

    #[test]
    fn version_2_limits_are_written() {
        let root = tempfile::tempdir().unwrap();
        let groups = Cgroups::V2(root.path().to_owned());
        fs::create_dir(root.path().join("oma-a")).unwrap();
        fs::write(root.path().join("oma-a/memory.swap.max"), "max").unwrap();
        let limits = Limits {
            memory: 1_000,
            processes: 7,
            cpus: 0.5,
            ..Limits::default()
        };
        let made = groups.create("oma-a", &limits).unwrap();
        let read = |name: &str| fs::read_to_string(made[0].join(name)).unwrap();
        assert_eq!(read("memory.max"), "1000");
        assert_eq!(read("memory.swap.max"), "0");
        assert_eq!(read("pids.max"), "7");
        assert_eq!(read("cpu.max"), "50000 100000");
        assert_eq!(groups.list("oma-").unwrap(), made);
        assert_eq!(groups.list("other").unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn version_2_needs_delegation() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), "cpu pids").unwrap();
        let error = prepare_v2(root.path()).unwrap_err();
        assert!(error.contains("memory"), "{error}");
    }
}
