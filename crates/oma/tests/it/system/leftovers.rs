//! What belongs to a data folder outside of it: processes, control groups, mounts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How long a process that is on its way out may take.
const END: Duration = Duration::from_secs(5);

/// Where control groups are mounted.
const GROUPS: &str = "/sys/fs/cgroup";

/// Something that should not be there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Leftover {
    Process { pid: i32, command: String },
    Group(PathBuf),
    Mount(String),
    Folder(PathBuf),
}

/// Whatever is left of a data folder whose server has ended and whose sessions are all deleted.
pub(crate) fn find(data: &Path) -> Vec<Leftover> {
    let mut found = Vec::new();
    for pid in processes(data) {
        // What is about to end by itself is given the time for it.
        if !ends(pid) {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            found.push(Leftover::Process { pid, command });
        }
    }
    found.extend(groups(data).into_iter().map(Leftover::Group));
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("readable");
    let name = data.to_str().expect("text");
    let mine = |line: &&str| {
        line.split(' ')
            .nth(4)
            .is_some_and(|point| point.starts_with(&format!("{name}/")))
    };
    found.extend(
        mounts
            .lines()
            .filter(mine)
            .map(|line| Leftover::Mount(line.to_owned())),
    );
    let warm = ["warm/sandboxes", "warm/workspaces", "warm/mounts"];
    for folder in ["sandboxes", "workspaces", "trash"].into_iter().chain(warm) {
        let entries = fs::read_dir(data.join(folder)).expect("readable");
        found.extend(entries.map(|entry| Leftover::Folder(entry.expect("readable").path())));
    }
    found
}

/// Ends every process of a data folder.
pub(crate) fn kill(data: &Path) {
    for pid in processes(data) {
        if let Ok(process) = pidfd_open(Pid::from_raw(pid).expect("a pid"), PidfdFlags::empty()) {
            // It may have ended by itself.
            let _ = pidfd_send_signal(&process, Signal::KILL);
            ends(pid);
        }
    }
}

/// Ends and removes what is left of a data folder.
pub(crate) fn remove(data: &Path) {
    kill(data);
    for group in groups(data) {
        // A group that can't be removed yet is empty and harmless.
        let _ = fs::remove_dir(group);
    }
}

/// The processes that have anything to do with a data folder, this one excepted.
pub(crate) fn processes(data: &Path) -> Vec<i32> {
    let name = data.to_str().expect("text");
    let me = std::process::id().cast_signed();
    // On a file system of its own, a data folder's place does not show in the mounts of its sandboxes; the
    // sessions' names do.
    let sessions = fs::read_dir(data.join("sandboxes"))
        .into_iter()
        .flatten()
        .flatten();
    let workspaces: Vec<String> = sessions
        .map(|session| format!("/workspaces/{} /workspace ", session.file_name().display()))
        .collect();
    let numbers = fs::read_dir("/proc").expect("readable").filter_map(|entry| {
        entry
            .expect("readable")
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
    });
    let is_sandbox = |pid: &i32| {
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        workspaces.iter().any(|workspace| mounts.contains(workspace))
    };
    numbers
        .filter(|pid| *pid != me && (belongs(*pid, name) || is_sandbox(pid)))
        .collect()
}

/// Whether a process works in, runs from, mounts or has open anything of a folder, or names it.
fn belongs(pid: i32, folder: &str) -> bool {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let inside = format!("{folder}/");
    let names = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).contains(folder);
    let points = |link: PathBuf| {
        fs::read_link(link).is_ok_and(|target| format!("{}/", target.display()).starts_with(&inside))
    };
    // What can't be read belongs to a process that has just ended.
    fs::read(proc.join("cmdline")).is_ok_and(names)
        || fs::read(proc.join("mountinfo"))
            .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(&inside))
        || ["cwd", "root", "exe"].iter().any(|link| points(proc.join(link)))
        || fs::read_dir(proc.join("fd"))
            .is_ok_and(|mut files| files.any(|file| file.is_ok_and(|file| points(file.path()))))
}

/// Waits for a process to end; `false` when it does not.
fn ends(pid: i32) -> bool {
    let Ok(process) = pidfd_open(Pid::from_raw(pid).expect("a pid"), PidfdFlags::empty()) else {
        return true;
    };
    let bound = Timespec::try_from(END).expect("short");
    poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&bound)).expect("polled") > 0
}

/// The control groups of a data folder's sandboxes.
pub(crate) fn groups(data: &Path) -> Vec<PathBuf> {
    let Ok(instance) = fs::read_to_string(data.join("sandboxes.instance")) else {
        return Vec::new();
    };
    let prefix = format!("oma-{}-", instance.trim());
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(GROUPS)];
    while let Some(folder) = folders.pop() {
        // Groups of others come and go.
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().starts_with(&prefix) {
                    found.push(entry.path());
                }
                folders.push(entry.path());
            }
        }
    }
    // The inner ones first, as they have to be removed.
    found.sort_by_key(|folder| std::cmp::Reverse(folder.components().count()));
    found
}
