//! Process trees: how tools start a command, and how the whole of it is killed.
//!
//! The root of a tree is a *subreaper*: a descendant whose parent dies, however it left its session or its
//! process group, becomes a child of the root and not of pid 1. So as long as the root lives, everything that
//! came from it hangs below it, and walking parents finds all of it. When the root dies first, what it leaves
//! falls to the hand, which is pid 1; a child of the hand that is the root of no tree is a *stray* and is
//! killed ([`kill_strays`]).
//!
//! Invariant: the reaper takes the exit status of strays only, never one that a tool waits for: the roots are
//! registered before the hand can hear of their end (the hand is single-threaded, and [`Tree::spawn`] does
//! not yield between the fork and the registration).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::launch::filter;
use crate::pidfd::Pidfd;

/// How long the killing of a tree may take. A process that is stuck in the kernel can outlast it; it can't
/// run on, and it dies with the sandbox.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// How eagerly the kernel picks a command when memory runs out (-1000 to 1000).
const COMMAND_BADNESS: &str = "800";

/// The roots of trees: children whose exit status belongs to whoever spawned them.
static ROOTS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn roots() -> MutexGuard<'static, BTreeSet<i32>> {
    ROOTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process at one time: a pid alone may name another process later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process {
    /// Its pid in this pid namespace.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub start: u64,
}

/// What `/proc/<pid>/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) process: Process,
    pub(crate) parent: i32,
    pub(crate) state: u8,
    /// Resident memory, in pages.
    pub(crate) rss: u64,
}

impl Stat {
    /// Whether it has ended and only waits to be reaped.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

/// A command and everything that comes from it.
#[derive(Debug)]
pub struct Tree {
    root: i32,
}

impl Tree {
    /// Starts `command` as the root of a tree of its own, in a session of its own.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn spawn(command: &mut Command) -> io::Result<(Child, Self)> {
        // In a sandbox, a command has the hand's user and must not turn that against the hand.
        let confinement = is_init().then(filter::for_commands).transpose()?;
        // SAFETY: the closure runs between fork and exec, and makes system calls only; it neither allocates
        // nor takes a lock.
        unsafe {
            command.pre_exec(move || {
                rustix::process::setsid()?;
                rustix::process::set_child_subreaper(Some(Pid::INIT))?;
                confinement.as_ref().map_or(Ok(()), filter::apply)
            });
        }
        let child = command.spawn()?;
        let root = child.id().and_then(|id| i32::try_from(id).ok()).ok_or_else(|| {
            io::Error::other("the command has no process id though it has only just been started")
        })?;
        roots().insert(root);
        // When memory runs out, the command goes and not the hand (or, on the host, the server). Raising one's
        // own badness needs no privilege; that it has ended already is no failure.
        let _ = std::fs::write(format!("/proc/{root}/oom_score_adj"), COMMAND_BADNESS);
        Ok((child, Self { root }))
    }

    /// The pid of the root.
    #[must_use]
    pub fn root(&self) -> i32 {
        self.root
    }

    /// What lives below the root now, without the root itself. A tool that keeps one shell for many commands
    /// takes this before a command, to know what is not that command's. Nothing when the processes can't be
    /// read: then nothing is spared.
    #[must_use]
    pub fn members(&self) -> Vec<Process> {
        let Ok(table) = Table::read() else {
            return Vec::new();
        };
        table
            .below(self.root, &BTreeSet::new())
            .into_iter()
            .filter_map(|pid| table.process(pid))
            .collect()
    }

    /// What is alive beside the root now: [`Tree::members`], and in a sandbox also the strays, which an
    /// earlier root left behind. For [`Tree::kill_but`].
    #[must_use]
    pub fn bystanders(&self) -> Vec<Process> {
        let Ok(table) = Table::read() else {
            return Vec::new();
        };
        let mut pids = table.below(self.root, &BTreeSet::new());
        if rustix::process::getpid() == Pid::INIT {
            pids.extend(table.strays(&BTreeSet::new()));
        }
        pids.into_iter().filter_map(|pid| table.process(pid)).collect()
    }

    /// Kills the root and everything else but `keep` and what descends from it, the root's orphans too. All
    /// of it goes at once, so that a root that starts one process after the other can't go on meanwhile.
    /// Returns when it is gone, and whether all of it is. The exit status of the root is still there for the
    /// [`Child`] to collect.
    pub async fn kill_but(&self, keep: &[Process]) -> bool {
        let keep: BTreeSet<Process> = keep.iter().copied().collect();
        let is_init = rustix::process::getpid() == Pid::INIT;
        let gone = kill_until_gone(|table| {
            let mut all = table.below(self.root, &keep);
            all.extend(table.alive(self.root));
            if is_init {
                all.extend(table.strays(&keep));
            }
            all
        })
        .await;
        reap_strays();
        gone
    }

    /// Kills everything below the root but `keep` and what descends from it; the root lives on. Returns when
    /// it is gone, and whether all of it is.
    pub async fn kill_below(&self, keep: &[Process]) -> bool {
        let keep: BTreeSet<Process> = keep.iter().copied().collect();
        kill_until_gone(|table| table.below(self.root, &keep)).await
    }

    /// Kills everything, the root too. Returns when it is gone, and whether all of it is. The exit status of
    /// the root is still there for the [`Child`] to collect.
    pub async fn kill(&self) -> bool {
        self.kill_but(&[]).await
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        roots().remove(&self.root);
    }
}

/// Kills what descends from no living root: the rest of a command whose shell died. Does nothing unless this
/// process is pid 1 of its namespace, since elsewhere such processes are other people's.
pub async fn kill_strays() -> bool {
    if rustix::process::getpid() != Pid::INIT {
        return true;
    }
    let gone = kill_until_gone(|table| table.strays(&BTreeSet::new())).await;
    reap_strays();
    gone
}

/// Reaps the dead children that nobody waits for, as pid 1 must. Called after `SIGCHLD`.
pub fn reap_strays() {
    if rustix::process::getpid() != Pid::INIT {
        return;
    }
    // The dead can wait for the next time.
    let Ok(table) = Table::read() else {
        return;
    };
    for stat in table.rows.values() {
        let orphan = stat.parent == 1 && stat.is_dead() && !roots().contains(&stat.process.pid);
        if let (true, Some(pid)) = (orphan, Pid::from_raw(stat.process.pid)) {
            // That somebody else was faster is no failure: what matters is that it is reaped.
            let _ = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }
}

/// Kills every process of the namespace but this one, in one step that no fork can slip through. Does nothing
/// unless this process is pid 1.
pub fn kill_everything() {
    if rustix::process::getpid() == Pid::INIT {
        signal_everyone(Signal::KILL);
    }
}

/// All processes of the namespace, read from `/proc`.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) rows: BTreeMap<i32, Stat>,
}

impl Table {
    /// Reads it. A process that ends meanwhile is left out.
    ///
    /// # Errors
    /// When it can't be read whole: what is not seen must not count as not running.
    pub(crate) fn read() -> io::Result<Self> {
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
            rows.insert(pid, stat);
        }
        // The reader itself is alive, so a table without it is not the whole one. In a sandbox that is pid 1.
        if !rows.contains_key(&rustix::process::getpid().as_raw_nonzero().get()) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self { rows })
    }

    fn process(&self, pid: i32) -> Option<Process> {
        self.rows.get(&pid).map(|stat| stat.process)
    }

    /// The pid, if it is alive.
    fn alive(&self, pid: i32) -> Option<i32> {
        self.rows.get(&pid).filter(|stat| !stat.is_dead()).map(|_| pid)
    }

    /// The living processes below `root`, without those of `keep` and what is below them.
    fn below(&self, root: i32, keep: &BTreeSet<Process>) -> BTreeSet<i32> {
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
    fn strays(&self, keep: &BTreeSet<Process>) -> BTreeSet<i32> {
        let mut owned: BTreeSet<Process> = roots().iter().filter_map(|pid| self.process(*pid)).collect();
        owned.extend(keep);
        self.below(1, &owned)
    }

    /// The living processes other than pid 1, and other than the roots unless `with_roots`.
    fn commands(&self, with_roots: bool) -> BTreeSet<i32> {
        let roots = if with_roots {
            BTreeSet::new()
        } else {
            roots().clone()
        };
        let alive = self
            .rows
            .values()
            .filter(|stat| !stat.is_dead())
            .map(|stat| stat.process.pid);
        alive.filter(|pid| *pid != 1 && !roots.contains(pid)).collect()
    }

    /// Whether anything but the hand and the roots themselves is alive.
    pub(crate) fn has_commands(&self) -> bool {
        !self.commands(false).is_empty()
    }

    /// The process with the most resident memory, but for pid 1.
    pub(crate) fn biggest(&self) -> Option<i32> {
        let others = self
            .rows
            .values()
            .filter(|stat| stat.process.pid != 1 && !stat.is_dead());
        others.max_by_key(|stat| stat.rss).map(|stat| stat.process.pid)
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
    fn branch(&self, pid: i32) -> BTreeSet<i32> {
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
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// Kills the command that a process is part of: everything of its tree up to the root, which lives on unless
/// it is meant itself. Does nothing unless this process is pid 1.
pub(crate) async fn kill_command_of(pid: i32) -> bool {
    if rustix::process::getpid() != Pid::INIT {
        return true;
    }
    // The members are looked up once: what is forked off them later is below them, or a stray.
    let Ok(table) = Table::read() else {
        kill_everything();
        return false;
    };
    let first = table.branch(pid);
    kill_until_gone(|table| {
        let mut all = BTreeSet::new();
        for pid in &first {
            all.extend(table.alive(*pid));
            all.extend(table.below(*pid, &BTreeSet::new()));
        }
        all
    })
    .await
}

/// Kills every command, and the roots as well if `with_roots`. Does nothing unless this process is pid 1.
pub(crate) async fn kill_commands(with_roots: bool) -> bool {
    if rustix::process::getpid() != Pid::INIT {
        return true;
    }
    kill_until_gone(|table| table.commands(with_roots)).await
}

/// Reads one line of `/proc/<pid>/stat`. The name in parentheses may hold anything, parentheses too, so what
/// counts starts after the last one.
pub(crate) fn parse_stat(text: &[u8]) -> Option<Stat> {
    let open = text.iter().position(|byte| *byte == b'(')?;
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let pid = std::str::from_utf8(text.get(..open)?).ok()?.trim().parse().ok()?;
    let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Stat {
        process: Process {
            pid,
            start: fields.get(19)?.parse().ok()?,
        },
        state: *fields.first()?.as_bytes().first()?,
        parent: fields.get(1)?.parse().ok()?,
        rss: fields.get(21)?.parse().ok()?,
    })
}

fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended since the table was read: then there is nothing to do.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Signals every process of the namespace but this one. Only for pid 1 of a namespace.
fn signal_everyone(signal: Signal) {
    // SAFETY: `kill` takes two integers. The callers made sure that this is pid 1, so -1 means the sandbox.
    // That there is nobody to signal is no failure.
    let _ = unsafe { libc::kill(-1, signal.as_raw()) };
}

fn is_init() -> bool {
    rustix::process::getpid() == Pid::INIT
}

/// Kills what `select` picks, again until it picks nothing. When the processes can't be read, a sandbox loses
/// all of them: what can't be told apart must not go on.
async fn kill_until_gone(select: impl Fn(&Table) -> BTreeSet<i32>) -> bool {
    let deadline = Instant::now() + KILL_TIMEOUT;
    let is_init = is_init();
    loop {
        let Ok(table) = Table::read() else {
            kill_everything();
            return false;
        };
        if select(&table).is_empty() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        // A tree that forks while it is being killed must not outrun the killer, so it is stopped first. Pid 1
        // stops the whole namespace in one step, which no fork can slip through; elsewhere (in tests) the
        // tree is stopped until a look at it finds no new member.
        let victims = if is_init {
            signal_everyone(Signal::STOP);
            let Ok(table) = Table::read() else {
                kill_everything();
                return false;
            };
            select(&table)
        } else {
            stop_until_stable(&select, deadline)
        };
        // One that can't be waited for is seen to be gone in the next round.
        let ends: Vec<Pidfd> = victims
            .iter()
            .filter_map(|pid| Pidfd::open(*pid).ok().flatten())
            .collect();
        for pid in &victims {
            signal(*pid, Signal::KILL);
        }
        if is_init {
            // The others go on; a job that somebody had stopped on purpose goes on as well.
            signal_everyone(Signal::CONT);
        }
        for end in &ends {
            if tokio::time::timeout_at(deadline, end.ended()).await.is_err() {
                return false;
            }
        }
        reap_strays();
        tokio::task::yield_now().await;
    }
}

fn stop_until_stable(select: &impl Fn(&Table) -> BTreeSet<i32>, deadline: Instant) -> BTreeSet<i32> {
    let mut stopped = BTreeSet::new();
    loop {
        let Ok(table) = Table::read() else {
            return stopped;
        };
        let now = select(&table);
        if now.is_subset(&stopped) || Instant::now() >= deadline {
            return now;
        }
        for pid in now.difference(&stopped) {
            signal(*pid, Signal::STOP);
        }
        stopped = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;
    use tokio::io::{AsyncBufReadExt, BufReader};

    #[test]
    fn stat_lines_with_odd_names() {
        let fields = "S 7 3 3 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 1000 99 18446744073709551615";
        for name in ["bash", "a b", ") S 1 (", "", "\u{fffd}(("] {
            let stat = parse_stat(format!("42 ({name}) {fields}").as_bytes()).unwrap();
            assert_eq!(stat.process, Process { pid: 42, start: 4242 }, "{name}");
            assert_eq!((stat.parent, stat.state, stat.rss), (7, b'S', 99));
        }
        for bad in ["", "42", "42 (a", "42 (a)", "x (a) S 1", "42 (a) S 1 2 3"] {
            assert_eq!(parse_stat(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn what_left_its_session_dies_with_the_tree() {
        let mut command = Command::new("sh");
        // The middle shell exits, so the sleeper has neither the session nor the parent of the command.
        command.args(["-c", "sh -c 'setsid sleep 1000 & echo $!'; echo ready; read line"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let (mut child, tree) = Tree::spawn(&mut command).unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let escapee: i32 = lines.next_line().await.unwrap().unwrap().parse().unwrap();
        assert_eq!(
            lines.next_line().await.unwrap().as_deref(),
            Some("ready"),
            "the middle shell has ended"
        );
        let before = tree.members();
        assert!(before.iter().any(|process| process.pid == escapee), "{before:?}");

        assert!(tree.kill_below(&before).await, "all are to be kept");
        assert_eq!(tree.members(), before);

        assert!(tree.kill().await);
        assert!(Table::read().unwrap().alive(escapee).is_none());
        assert!(!child.wait().await.unwrap().success());
    }
}
