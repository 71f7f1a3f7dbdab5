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

mod table;

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::launch::filter::commands::{Beside, Confinement, Kept};
use crate::pidfd::Pidfd;

pub(crate) use table::{Table, has_ended, is_over, parse_stat};

/// How long the killing of a tree may take. A process that is stuck in the kernel can outlast it; it can't
/// run on, and it dies with the sandbox.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long processes may take to stop before they are killed, and how often that is looked at.
const SETTLE_TIMEOUT: Duration = Duration::from_millis(300);
const SETTLE_PAUSE: Duration = Duration::from_millis(1);

/// Held by who stops processes in order to kill some of them.
static KILLING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// How eagerly the kernel picks a command when memory runs out (-1000 to 1000).
const COMMAND_BADNESS: &str = "800";

/// The roots of trees: children whose exit status belongs to whoever spawned them.
static ROOTS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// The roots that are commands themselves, and not shells whose commands are below them.
static SERVICES: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn services() -> MutexGuard<'static, BTreeSet<i32>> {
    SERVICES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn roots() -> MutexGuard<'static, BTreeSet<i32>> {
    ROOTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread of the hand that its guards rely on, pid 1 aside: commands must not slow it down.
static GUARD: OnceLock<i32> = OnceLock::new();

/// Keeps commands away from the thread with this id, which is the only one. In a sandbox, none starts before.
pub(super) fn guard_with(thread: i32) {
    // Only tests have a second one, and nothing to keep away from it.
    GUARD.get_or_init(|| thread);
}

/// What commands are kept away from beside the hand's guards.
static BESIDE: OnceLock<Beside> = OnceLock::new();

/// Keeps commands away from these as well. In a sandbox, none starts before.
pub(super) fn keep_away_from(beside: Beside) {
    BESIDE.get_or_init(|| beside);
}

/// What a command has to apply to itself.
fn confinement() -> io::Result<Confinement> {
    let guard = *GUARD.wait();
    let beside = BESIDE
        .get()
        .ok_or_else(|| io::Error::other("it is not known yet what to keep commands away from"))?;
    Confinement::new(&Kept { guard, beside })
}

/// Whether the process is the root of a tree.
pub(super) fn is_root(pid: i32) -> bool {
    roots().contains(&pid)
}

/// A process at one time: a pid alone may name another process later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process {
    /// Its pid in this pid namespace.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub start: u64,
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
        let confinement = is_init().then(confinement).transpose()?;
        // SAFETY: the closure runs between fork and exec, and makes system calls only; it neither allocates
        // nor takes a lock.
        unsafe {
            command.pre_exec(move || {
                lead_session()?;
                adopt_orphans()?;
                confinement.as_ref().map_or(Ok(()), Confinement::apply)
            });
        }
        let child = command.spawn()?;
        let root = child.id().and_then(|id| i32::try_from(id).ok()).ok_or_else(|| {
            io::Error::other("the command has no process id though it has only just been started")
        })?;
        roots().insert(root);
        // When memory runs out, the command goes and not the hand (or, on the host, the server). Raising one's
        // own badness needs no privilege; that it has ended already is no failure. In builds of ordinary users, opening
        // what may be there waits unless this flag is set (`copy_up`), which means nothing else here.
        let _ = std::fs::File::options()
            .write(true)
            .custom_flags(libc::O_EXCL)
            .open(format!("/proc/{root}/oom_score_adj"))
            .and_then(|mut file| file.write_all(COMMAND_BADNESS.as_bytes()));
        Ok((child, Self { root }))
    }

    /// Like [`Tree::spawn`], for a process that is a command itself: what ends commands ends it too.
    ///
    /// # Errors
    /// When it can't be started.
    pub(crate) fn spawn_service(command: &mut Command) -> io::Result<(Child, Self)> {
        let (child, tree) = Self::spawn(command)?;
        services().insert(tree.root);
        Ok((child, tree))
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
        services().remove(&self.root);
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

/// Makes this process the leader of a session of its own. Makes one system call.
fn lead_session() -> io::Result<()> {
    // SAFETY: the call takes nothing. What it gives is not asked for: gVisor gives 0, which is no process id.
    match unsafe { libc::setsid() } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Makes this process the parent of what is left of those below it. Makes one system call.
fn adopt_orphans() -> io::Result<()> {
    match rustix::process::set_child_subreaper(Some(Pid::INIT)) {
        // gVisor's answer: there they are pid 1's, and strays to whoever looks for a tree.
        Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_init() -> bool {
    rustix::process::getpid() == Pid::INIT
}

/// Kills what `select` picks, again until it picks nothing. When the processes can't be read, or some outrun the
/// killer for too long, a sandbox loses all of them: what can't be told apart must not go on.
async fn kill_until_gone(select: impl Fn(&Table) -> BTreeSet<i32>) -> bool {
    // One at a time, since one lets the others go on whom another one has just stopped. Each has its bound.
    let Ok(_turn) = tokio::time::timeout(2 * KILL_TIMEOUT, KILLING.lock()).await else {
        kill_everything();
        return false;
    };
    let mut killed = BTreeSet::new();
    match kill_by(Instant::now() + KILL_TIMEOUT, &select, &mut killed).await {
        Ok(true) => true,
        Ok(false) if Table::read().is_ok_and(|table| select(&table).is_subset(&killed)) => false,
        Ok(false) | Err(_) => {
            kill_everything();
            false
        }
    }
}

/// Kills what `select` picks until `deadline`, and collects what it has `killed`. Says whether all of it is gone.
async fn kill_by(
    deadline: Instant,
    select: &impl Fn(&Table) -> BTreeSet<i32>,
    killed: &mut BTreeSet<i32>,
) -> io::Result<bool> {
    let is_init = is_init();
    while !select(&Table::read()?).is_empty() {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        // A tree that forks while it is being killed must not outrun the killer, so it is stopped first. Pid 1
        // stops the whole namespace in one step; elsewhere (in tests) the tree is stopped until a look at it
        // finds no new member.
        let victims = if is_init {
            signal_everyone(Signal::STOP);
            settled(select, deadline.min(Instant::now() + SETTLE_TIMEOUT)).await?
        } else {
            stop_until_stable(select, deadline)
        };
        // One that can't be waited for is seen to be gone in the next round.
        let ends: Vec<Pidfd> = victims
            .iter()
            .filter_map(|pid| Pidfd::open(*pid).ok().flatten())
            .collect();
        for pid in &victims {
            signal(*pid, Signal::KILL);
        }
        killed.extend(victims);
        if is_init {
            // The others go on; a job that somebody had stopped on purpose goes on as well.
            signal_everyone(Signal::CONT);
        }
        for end in &ends {
            if tokio::time::timeout_at(deadline, end.ended()).await.is_err() {
                return Ok(false);
            }
        }
        reap_strays();
        tokio::task::yield_now().await;
    }
    Ok(true)
}

/// What `select` picks once all of it has come to a stop, or time is up. One that was about to fork does so
/// before it stops, and only then can its child be seen.
async fn settled(select: &impl Fn(&Table) -> BTreeSet<i32>, deadline: Instant) -> io::Result<BTreeSet<i32>> {
    loop {
        let table = Table::read()?;
        let picked = select(&table);
        let runs = |pid: &i32| table.rows.get(pid).is_some_and(table::Stat::is_running);
        if !picked.iter().any(runs) || Instant::now() >= deadline {
            return Ok(picked);
        }
        // Nobody tells when a process that is not a child has stopped.
        tokio::time::sleep(SETTLE_PAUSE).await;
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
