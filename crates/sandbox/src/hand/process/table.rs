//! All processes of the sandbox, as `/proc` shows them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use rustix::process::Pid;

use super::{Process, roots, services};

/// The kernel's flag for a thread that is about to end.
const EXITING: u64 = 0x4;

/// What `/proc/<pid>/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) process: Process,
    pub(crate) parent: i32,
    pub(crate) state: u8,
    /// Resident memory, in pages.
    pub(crate) rss: u64,
    /// Threads that have not been reaped.
    threads: u64,
    flags: u64,
}

impl Stat {
    /// Whether it has ended and only waits to be reaped. One whose first thread has ended while others go on
    /// looks like that too, but is alive.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X') && self.threads <= 1
    }

    /// Whether it is at work on a processor, or waits for one.
    pub(super) fn is_running(&self) -> bool {
        self.state == b'R'
    }

    /// Whether it is about to end, and runs none of its program any more.
    pub(crate) fn is_exiting(&self) -> bool {
        self.flags & EXITING != 0
    }
}

/// All processes of the namespace, read from `/proc`.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) rows: BTreeMap<i32, Stat>,
}

impl Table {
    /// Reads it. A process that ends meanwhile is left out, and so is one that somebody has brought in from outside, such
    /// as a relay ([`crate::hand::relay`]): its parent is not to be seen here, as that of no other process can be.
    ///
    /// # Errors
    /// When it can't be read whole: what is not seen must not count as not running.
    pub(crate) fn read() -> io::Result<Self> {
        let is_init = rustix::process::getpid() == Pid::INIT;
        let mut rows = BTreeMap::new();
        for entry in std::fs::read_dir("/proc")? {
            let Some(pid) = entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<i32>().ok())
            else {
                continue;
            };
            let text = match std::fs::read(format!("/proc/{pid}/stat")) {
                Ok(text) => text,
                Err(error) if has_ended(&error) => continue,
                Err(error) => return Err(error),
            };
            let stat = parse_stat(&text).ok_or(io::ErrorKind::InvalidData)?;
            if is_init && pid != 1 && stat.parent == 0 {
                continue;
            }
            rows.insert(pid, stat);
        }
        // The reader itself is alive, so a table without it is not the whole one. In a sandbox that is pid 1.
        if !rows.contains_key(&rustix::process::getpid().as_raw_nonzero().get()) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self { rows })
    }

    pub(super) fn process(&self, pid: i32) -> Option<Process> {
        self.rows.get(&pid).map(|stat| stat.process)
    }

    /// The pid, if it is alive.
    pub(super) fn alive(&self, pid: i32) -> Option<i32> {
        self.rows.get(&pid).filter(|stat| !stat.is_dead()).map(|_| pid)
    }

    /// The living processes below `root`, without those of `keep` and what is below them.
    pub(super) fn below(&self, root: i32, keep: &BTreeSet<Process>) -> BTreeSet<i32> {
        let mut found = BTreeSet::new();
        let mut open = vec![root];
        while let Some(parent) = open.pop() {
            for stat in self.rows.values().filter(|stat| stat.parent == parent) {
                let pid = stat.process.pid;
                if !keep.contains(&stat.process) && found.insert(pid) {
                    open.push(pid);
                }
            }
        }
        found.retain(|pid| self.alive(*pid).is_some());
        found
    }

    /// The living processes that descend from no root, without those of `keep` and what is below them.
    pub(super) fn strays(&self, keep: &BTreeSet<Process>) -> BTreeSet<i32> {
        let mut owned: BTreeSet<Process> = roots().iter().filter_map(|pid| self.process(*pid)).collect();
        owned.extend(keep);
        self.below(1, &owned)
    }

    /// The living processes other than pid 1, and other than the shells at the roots unless `with_roots`.
    pub(super) fn commands(&self, with_roots: bool) -> BTreeSet<i32> {
        let roots: BTreeSet<i32> = if with_roots {
            BTreeSet::new()
        } else {
            roots().difference(&services()).copied().collect()
        };
        let alive = self
            .rows
            .values()
            .filter(|stat| !stat.is_dead())
            .map(|stat| stat.process.pid);
        alive.filter(|pid| *pid != 1 && !roots.contains(pid)).collect()
    }

    /// Whether anything but the hand and its shells is alive.
    pub(crate) fn has_commands(&self) -> bool {
        !self.commands(false).is_empty()
    }

    /// Whether a command is alive that a session has started, at the end of its call or in the background.
    pub(crate) fn has_work(&self) -> bool {
        let of_services = services().clone();
        let below = of_services
            .iter()
            .flat_map(|service| self.below(*service, &BTreeSet::new()))
            .collect::<BTreeSet<_>>();
        let mut commands = self.commands(false);
        commands.retain(|pid| !of_services.contains(pid) && !below.contains(pid));
        !commands.is_empty()
    }

    /// The process with the most resident memory, but for pid 1.
    pub(crate) fn biggest(&self) -> Option<i32> {
        let others = self
            .rows
            .values()
            .filter(|stat| stat.process.pid != 1 && !stat.is_dead());
        others.max_by_key(|stat| stat.rss).map(|stat| stat.process.pid)
    }

    /// How many processes and threads the session has: all but the hand.
    pub(crate) fn tasks(&self) -> u64 {
        let others = self.rows.values().filter(|stat| stat.process.pid != 1);
        others.map(|stat| stat.threads.max(1)).sum()
    }

    /// The resident memory of all, in bytes; a page that many have counts many times.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(4_096);
        self.rows.values().map(|stat| stat.rss * page).sum()
    }

    /// The resident memory of all, in bytes; a page that many have counts once. Slow. A process that does not
    /// let itself be looked at counts with all that it has.
    pub(crate) fn proportional_bytes(&self) -> u64 {
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(4_096);
        let one = |stat: &Stat| {
            let path = format!("/proc/{}/smaps_rollup", stat.process.pid);
            let text = std::fs::read_to_string(path).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
            let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some(kibibytes * 1_024)
        };
        self.rows
            .values()
            .map(|stat| one(stat).unwrap_or(stat.rss * page))
            .sum()
    }

    /// The part of a tree that `pid` is in: its topmost ancestor below a root (or the root itself, when that
    /// is meant), and all that is below it.
    pub(super) fn branch(&self, pid: i32) -> BTreeSet<i32> {
        let roots = roots().clone();
        let mut top = pid;
        // Parents can't form a circle, but the table is not read in one step; the bound is its size.
        for _ in 0..self.rows.len() {
            match self.rows.get(&top).map(|stat| stat.parent) {
                Some(parent) if parent > 1 && !roots.contains(&top) && !roots.contains(&parent) => {
                    top = parent
                }
                _ => break,
            }
        }
        let mut all = self.below(top, &BTreeSet::new());
        all.extend(self.alive(top));
        all
    }
}

/// Whether a file of a process could not be read because the process is no more.
pub(crate) fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// Whether the thread with this id is no more, or just about to end. What can't be told is not so.
pub(crate) fn is_over(thread: u32) -> bool {
    match std::fs::read(format!("/proc/{thread}/stat")) {
        Ok(text) => parse_stat(&text).is_some_and(|stat| stat.is_exiting()),
        Err(error) => has_ended(&error),
    }
}

/// Reads one line of `/proc/<pid>/stat`. The name in parentheses may hold anything, parentheses too, so what
/// counts starts after the last one.
pub(crate) fn parse_stat(text: &[u8]) -> Option<Stat> {
    let open = text.iter().position(|byte| *byte == b'(')?;
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let pid = std::str::from_utf8(text.get(..open)?).ok()?.trim().parse().ok()?;
    let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse().ok();
    Some(Stat {
        process: Process {
            pid,
            start: number(19)?,
        },
        state: *fields.first()?.as_bytes().first()?,
        parent: fields.get(1)?.parse().ok()?,
        rss: number(21)?,
        threads: number(17)?,
        flags: number(6)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_over_when_it_has_ended_and_not_before() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id();
        assert!(!is_over(pid) && !is_over(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()));
        child.kill().unwrap();
        rustix::process::waitid(
            rustix::process::WaitId::Pid(Pid::from_child(&child)),
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
        )
        .unwrap();
        assert!(is_over(pid), "nobody has reaped it");
        child.wait().unwrap();
        assert!(is_over(pid));
    }

    #[test]
    fn stat_lines_with_odd_names() {
        let fields = "S 7 3 3 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 1000 99 18446744073709551615";
        for name in ["bash", "a b", ") S 1 (", "", "\u{fffd}(("] {
            let stat = parse_stat(format!("42 ({name}) {fields}").as_bytes()).unwrap();
            assert_eq!(stat.process, Process { pid: 42, start: 4242 }, "{name}");
            assert_eq!((stat.parent, stat.state, stat.rss), (7, b'S', 99));
        }
        for (state, threads, flags, dead, exiting) in [
            ("Z", 1, 0x40_010c, true, true),
            ("X", 1, 0x40_010c, true, true),
            ("Z", 2, 0x40_010c, false, true),
            ("R", 1, 0x40_0100, false, false),
        ] {
            let line =
                format!("42 (a) {state} 7 3 3 0 -1 {flags} 1 2 3 4 5 6 7 8 20 0 {threads} 0 4242 1000 0");
            let stat = parse_stat(line.as_bytes()).unwrap();
            assert_eq!((stat.is_dead(), stat.is_exiting()), (dead, exiting), "{line}");
        }
        for bad in ["", "42", "42 (a", "42 (a)", "x (a) S 1", "42 (a) S 1 2 3"] {
            assert_eq!(parse_stat(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
