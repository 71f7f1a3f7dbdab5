//! What the control group of a container limits, as the container shows it: version 2 only, and where it is shown at all.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Failure, Step as _};
use crate::limits::Limits;

/// Where containers have control groups.
const MOUNT: &str = "/sys/fs/cgroup";

/// What to do where it has to be shown and is not.
const NOT_SHOWN: &str = "its container does not show it, and the container engine does not know what it limits; have the engine \
                         mount control groups of version 2 at /sys/fs/cgroup, use Docker, or configure enforcement by \
                         resource limit (weaker: no limit on processors)";

/// That the group limits what was ordered. Where it is not shown, the engine's word counts, unless it has to be shown.
///
/// # Errors
/// [`Failure`] when it limits less, or can't be seen and has to be.
pub(super) fn check(limits: &Limits, has_to_be_shown: bool) -> Result<(), Failure> {
    let step = "looking at the control group";
    let own = fs::read_to_string("/proc/self/cgroup").or_else(|error| match error.kind() {
        // A kernel without any.
        io::ErrorKind::NotFound => Ok(String::new()),
        _ => Err(error),
    });
    match fault(Path::new(MOUNT), &own.step(step)?, limits, has_to_be_shown) {
        Some(fault) => Err(io::Error::other(fault)).step(step),
        None => Ok(()),
    }
}

/// What is wrong with the group of a process of which this is said, as far as it is shown there.
fn fault(mount: &Path, own: &str, limits: &Limits, has_to_be_shown: bool) -> Option<String> {
    let is_second = mount.join("cgroup.controllers").exists();
    match is_second.then(|| place(mount, own)).flatten() {
        Some(group) => lack(&group, limits),
        None => has_to_be_shown.then(|| NOT_SHOWN.to_owned()),
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
    fn a_group_that_has_to_be_shown_and_is_not_is_a_fault_with_a_remedy() {
        let limits = Limits {
            memory: 4_096,
            processes: 10,
            ..Limits::default()
        };
        let shown = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("cgroup.controllers", "cpu memory pids\n"),
            ("memory.max", "4096\n"),
            ("pids.max", "10\n"),
            ("cpu.max", "50000 100000\n"),
        ] {
            fs::write(shown.path().join(file), text).unwrap();
        }
        // As a kernel of the sandbox's own, or groups of version 1, have it.
        let empty = tempfile::tempdir().unwrap();
        let first = tempfile::tempdir().unwrap();
        fs::create_dir(first.path().join("memory")).unwrap();
        for (mount, own, is_shown) in [
            (shown.path(), "0::/\n", true),
            (shown.path(), "0::/../other\n", false),
            (shown.path(), "4:memory:/\n", false),
            (shown.path(), "", false),
            (empty.path(), "0::/\n", false),
            (first.path(), "4:memory:/\n", false),
            (Path::new("/nonexistent"), "", false),
        ] {
            let found = |has_to_be_shown| fault(mount, own, &limits, has_to_be_shown);
            assert_eq!(found(false), None, "{mount:?} {own}");
            let expected = (!is_shown).then(|| NOT_SHOWN.to_owned());
            assert_eq!(found(true), expected, "{mount:?} {own}");
        }
        // One that is shown has to limit what was ordered in any case.
        fs::write(shown.path().join("memory.max"), "max\n").unwrap();
        for has_to_be_shown in [false, true] {
            let found = fault(shown.path(), "0::/\n", &limits, has_to_be_shown).unwrap();
            assert!(found.ends_with("memory"), "{found}");
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
