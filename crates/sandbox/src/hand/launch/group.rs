//! What the control group of a container limits, as the container shows it: version 2 only, and where it is shown at all.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Failure, Step as _};
use crate::limits::Limits;

/// Where containers have control groups.
const MOUNT: &str = "/sys/fs/cgroup";

/// That the group limits what was ordered.
///
/// # Errors
/// [`Failure`] when it limits less.
pub(super) fn check(limits: &Limits) -> Result<(), Failure> {
    let step = "looking at the control group";
    let mount = Path::new(MOUNT);
    if !mount.join("cgroup.controllers").exists() {
        return Ok(());
    }
    let own = fs::read_to_string("/proc/self/cgroup").step(step)?;
    match place(mount, &own).and_then(|group| lack(&group, limits)) {
        Some(lack) => Err(io::Error::other(lack)).step(step),
        None => Ok(()),
    }
}

/// The folder of this process's group; none where it lies outside of what is shown.
fn place(mount: &Path, own: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let is_shown = !path.split('/').any(|part| part == "..");
    is_shown.then(|| mount.join(path)).filter(|group| group.is_dir())
}

/// What the group does not limit as ordered.
fn lack(group: &Path, limits: &Limits) -> Option<String> {
    // The period, and the rest of other lines, is not of interest.
    let first = |file: &str| {
        let text = fs::read_to_string(group.join(file)).ok()?;
        text.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    let is_within = |file: &str, most: u64| first(file).is_some_and(|limit| limit <= most);
    if !is_within("memory.max", limits.memory) {
        return Some("it does not limit memory".to_owned());
    }
    if !is_within("pids.max", limits.processes.into()) {
        return Some("it does not limit processes".to_owned());
    }
    first("cpu.max")
        .is_none()
        .then(|| "it does not limit processors".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_missing_or_too_large_is_seen() {
        let limits = Limits {
            memory: 4_096,
            processes: 10,
            ..Limits::default()
        };
        let good = [
            ("memory.max", "4096\n"),
            ("pids.max", "10\n"),
            ("cpu.max", "50000 100000\n"),
        ];
        let with = |changed: &str, text: Option<&str>| {
            let group = tempfile::tempdir().unwrap();
            for (file, value) in good {
                let value = if file == changed { text } else { Some(value) };
                if let Some(value) = value {
                    fs::write(group.path().join(file), value).unwrap();
                }
            }
            lack(group.path(), &limits)
        };
        assert_eq!(with("", None), None);
        for (file, text, word) in [
            ("memory.max", Some("max\n"), "memory"),
            ("memory.max", Some("8192\n"), "memory"),
            ("memory.max", None, "memory"),
            ("pids.max", Some("max\n"), "processes"),
            ("pids.max", Some("11\n"), "processes"),
            ("cpu.max", Some("max 100000\n"), "processors"),
            ("cpu.max", None, "processors"),
        ] {
            let found = with(file, text).unwrap();
            assert!(found.ends_with(word), "{file} {text:?}: {found}");
        }
    }

    #[test]
    fn a_group_that_is_not_shown_is_not_looked_at() {
        let mount = tempfile::tempdir().unwrap();
        fs::create_dir(mount.path().join("own")).unwrap();
        let found = |own: &str| place(mount.path(), own);
        assert_eq!(found("0::/\n"), Some(mount.path().join("")));
        assert_eq!(found("4:memory:/a\n0::/own\n"), Some(mount.path().join("own")));
        for own in ["0::/../other\n", "0::/absent\n", "4:memory:/own\n", ""] {
            assert_eq!(found(own), None, "{own}");
        }
    }
}
