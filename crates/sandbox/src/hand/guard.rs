//! The watch over memory and disk, for what the kernel does not enforce by itself.
//!
//! *Memory*, only without a cgroup: while anything runs, the resident memory of all processes is summed up,
//! and when it is too much, the command of the biggest process is killed, as the kernel would do.
//!
//! *Disk*: while anything runs, the workspace is measured. A full measurement costs time in proportion to the
//! number of files, so it takes at most a tenth of the hand's time, except that it comes early when the
//! file system has lost as much space as the session has left. Over the quota, every running command is
//! killed; later ones start with a file size limit of zero, with which deleting works and writing does not.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::calls::{Calls, Outcome};
use super::launch::Plan;
use super::process::{Table, kill_command_of, kill_commands, kill_everything};
use crate::files::usage::{self, Usage};
use crate::limits::{Enforcement, Limits};

/// How long a command may take to end once what it had started was killed.
const KILL_GRACE: Duration = Duration::from_millis(200);

/// How often memory is summed up while anything runs.
const MEMORY_INTERVAL: Duration = Duration::from_millis(50);

/// How often the file system is asked for its free space while anything runs.
const DISK_INTERVAL: Duration = Duration::from_millis(100);

/// How often, in looks, it is seen whether background processes are left when no call runs.
const IDLE_FACTOR: u32 = 20;

/// A full measurement comes after this many times what the last one took.
const MEASURE_SHARE: u32 = 10;

/// A full measurement comes at least this long after the last, unless space is vanishing.
const MEASURE_INTERVAL: Duration = Duration::from_secs(5);

/// The most a session may write while nobody looks: with this much left or less, a measurement comes for
/// every change.
const SMALL: u64 = 16 << 20;

/// What may come on top of an exceeded quota before commands are killed again.
const SLACK: u64 = 256 << 10;
const SLACK_INODES: u64 = 16;

/// Writing past the size limit must fail and not kill: children inherit this.
///
/// # Errors
/// When the signal can't be ignored.
pub(super) fn ignore_file_size_signal() -> io::Result<()> {
    // SAFETY: ignoring a signal installs no handler.
    let old = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    if old == libc::SIG_ERR {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Starts the watches that this sandbox needs.
pub(super) fn start(plan: &Plan, workspace: PathBuf, calls: &Arc<Calls>) -> Vec<JoinHandle<()>> {
    let mut tasks = vec![tokio::spawn(watch_disk(
        workspace,
        plan.limits.clone(),
        Arc::clone(calls),
    ))];
    if plan.enforcement == Enforcement::Rlimit {
        tasks.push(tokio::spawn(watch_memory(plan.limits.memory, Arc::clone(calls))));
    }
    tasks
}

/// Returns when a process of the session may be at work: at once while a call runs or a background process
/// lives, else when the next call starts.
async fn until_busy(calls: &Calls, looks: &mut u32) {
    let mut running = calls.running();
    if *running.borrow_and_update() > 0 {
        *looks = 0;
        return;
    }
    *looks += 1;
    if *looks >= IDLE_FACTOR {
        *looks = 0;
        // What can't be read may be anything.
        if Table::read().is_ok_and(|table| !table.has_commands()) {
            // The sender lives in `calls`.
            let _ = running.wait_for(|count| *count > 0).await;
        }
    }
}

async fn watch_memory(limit: u64, calls: Arc<Calls>) {
    let mut ticks = interval(MEMORY_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = 0;
    loop {
        ticks.tick().await;
        until_busy(&calls, &mut looks).await;
        let Ok(table) = Table::read() else {
            // What can't be measured counts as too much.
            calls.note_running(
                "[the sandbox's memory can't be measured, because its processes can't be read: running commands \
                 were killed]",
            );
            kill_commands(true).await;
            continue;
        };
        let private = tmpfs_bytes("/tmp") + tmpfs_bytes("/dev/shm");
        let resident = table.resident_bytes() + private;
        // The quick sum counts a shared page for each process that has it; only when it says too much is the
        // exact one worth its price.
        if resident <= limit || table.proportional_bytes() + private <= limit {
            continue;
        }
        if let Some(biggest) = table.biggest() {
            calls.note_running(&format!(
                "[the sandbox is over its memory limit of {limit} bytes: its largest command was killed]"
            ));
            kill_command_of(biggest).await;
        } else {
            // Nobody to kill: the private file systems hold it, and those have limits of their own.
            continue;
        }
    }
}

/// What a private file system in memory holds.
fn tmpfs_bytes(path: &str) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |stat| (stat.f_blocks - stat.f_bfree) * stat.f_frsize)
}

/// What is known of the disk.
struct Disk {
    workspace: PathBuf,
    limits: Limits,
    /// The last measurement, when it ended and how long it took.
    usage: Usage,
    measured: Instant,
    took: Duration,
    /// Free bytes and inodes of the file system at the last measurement.
    free: (u64, u64),
    /// The quota is exceeded; what was there after commands were last killed for it.
    over: Option<Usage>,
}

async fn watch_disk(workspace: PathBuf, limits: Limits, calls: Arc<Calls>) {
    let mut disk = Disk {
        workspace,
        limits,
        usage: Usage::default(),
        measured: Instant::now(),
        took: Duration::ZERO,
        free: (0, 0),
        over: None,
    };
    // Before the first command: a workspace may be over its quota from the start.
    disk.look(&calls, true).await;
    let mut ticks = interval(DISK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = 0;
    loop {
        ticks.tick().await;
        until_busy(&calls, &mut looks).await;
        disk.look(&calls, false).await;
    }
}

impl Disk {
    async fn look(&mut self, calls: &Calls, force: bool) {
        let Some(free) = free_space(&self.workspace) else {
            return;
        };
        // A disk that is almost full is no fault of this session, unless it is the one that fills it.
        let floor = free.0 < self.limits.disk_floor;
        if !force && !self.measurement_is_due(free) && (!floor || self.over.is_some()) {
            return;
        }
        let before = self.usage;
        let Some(usage) = self.measure(free).await else {
            return;
        };
        let (why, baseline) = match (excess(&self.limits, usage), floor) {
            (Some(why), _) => (why, self.over),
            (None, true) => (ALMOST_FULL.to_owned(), Some(self.over.unwrap_or(before))),
            (None, false) => {
                if self.over.take().is_some() {
                    limit_file_size(false);
                }
                return;
            }
        };
        limit_file_size(true);
        if baseline.is_some_and(|baseline| !has_grown(baseline, usage)) {
            self.over = Some(baseline.unwrap_or(usage));
            return;
        }
        let noted = calls.note_running(&why);
        // The shells live on, with their state, if what was written came from below them. A command that goes
        // on all the same is the shell's own doing, and then the shell goes too.
        kill_commands(false).await;
        if timeout(KILL_GRACE, all_ended(noted)).await.is_err() {
            kill_commands(true).await;
        }
        // What was written until they were dead is not held against what comes next.
        self.over = Some(self.measure(free).await.unwrap_or(usage));
    }

    /// Measures the workspace. `free` is what was free just before.
    async fn measure(&mut self, free: (u64, u64)) -> Option<Usage> {
        let started = Instant::now();
        // Far beyond the quota the exact number does not matter any more.
        let stop_at = self
            .limits
            .inodes
            .saturating_add(self.limits.inodes / 4 + 64 * SLACK_INODES);
        let folder = self.workspace.clone();
        let measured = tokio::task::spawn_blocking(move || usage::measure(&folder, stop_at)).await;
        let usage = match measured {
            Ok(Ok(usage)) => usage,
            // The session keeps the hand from looking.
            Ok(Err(_)) => Usage {
                hidden: true,
                ..self.usage
            },
            // The runtime is shutting down.
            Err(_) => return None,
        };
        (self.usage, self.free, self.measured) = (usage, free, Instant::now());
        self.took = started.elapsed();
        Some(usage)
    }

    /// Whether the session may by now be over its quota, or it is time anyway.
    fn measurement_is_due(&self, free: (u64, u64)) -> bool {
        let age = self.measured.elapsed();
        if age < self.took * MEASURE_SHARE {
            return false;
        }
        let vanished = self.free.0.saturating_sub(free.0);
        let left = self.limits.disk.saturating_sub(self.usage.bytes);
        let vanished_inodes = self.free.1.saturating_sub(free.1);
        let left_inodes = self.limits.inodes.saturating_sub(self.usage.inodes);
        vanished > left / 2
            || (left <= SMALL && vanished > 0)
            || vanished_inodes > left_inodes / 2
            || self.over.is_some()
            || age >= MEASURE_INTERVAL
    }
}

async fn all_ended(calls: Vec<Outcome>) {
    for mut call in calls {
        // An error means that nobody will ever tell, which is an end too.
        let _ = call.wait_for(Option::is_some).await;
    }
}

/// Whether something still writes. A command that only looks about may leave a little behind.
fn has_grown(before: Usage, now: Usage) -> bool {
    now.bytes > before.bytes + SLACK || now.inodes > before.inodes + SLACK_INODES
}

/// Free bytes and inodes of the file system below the workspace.
fn free_space(workspace: &Path) -> Option<(u64, u64)> {
    let stat = rustix::fs::statvfs(workspace).ok()?;
    Some((stat.f_bavail * stat.f_frsize, stat.f_favail))
}

/// What a session is told whose command was filling the last of the machine's disk.
const ALMOST_FULL: &str = "[the machine's disk is almost full: running commands were killed, and nothing more can be \
                           written until there is room again]";

/// Why the session may write no more, if so.
fn excess(limits: &Limits, usage: Usage) -> Option<String> {
    if usage.bytes > limits.disk {
        let (has, may) = (usage.bytes, limits.disk);
        Some(format!(
            "[the workspace holds {has} bytes, more than its quota of {may}: running commands were killed, and \
             nothing more can be written until something is deleted]"
        ))
    } else if usage.inodes > limits.inodes {
        let may = limits.inodes;
        Some(format!(
            "[the workspace holds more files than its quota of {may}: running commands were killed, and \
             nothing more can be written until some are deleted]"
        ))
    } else if usage.hidden {
        Some(
            "[a part of the workspace can't be measured, because it can't be listed or is nested too deeply: \
             running commands were killed, and nothing more can be written until that is changed]"
                .to_owned(),
        )
    } else {
        None
    }
}

/// Lets the hand and every process of the session write no more (or again). The hard limit stays, so that
/// what has lost the right can get it back. When the processes can't be read, those that should lose it are
/// killed, and the hand passes its own limit on to whatever it starts.
fn limit_file_size(on: bool) {
    let pids: Vec<i32> = match Table::read() {
        Ok(table) => table.rows.into_keys().collect(),
        Err(_) => {
            if on {
                kill_everything();
            }
            vec![0]
        }
    };
    for pid in pids {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: the new limit is absent and the old one is written to a valid `rlimit`.
        let known = unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, std::ptr::null(), &raw mut limit) };
        // A process that has just ended needs no limit.
        if known == 0 {
            limit.rlim_cur = if on { 0 } else { limit.rlim_max };
            // SAFETY: the new limit is a valid `rlimit`, and the old one is not asked for.
            let _ = unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, &raw const limit, std::ptr::null_mut()) };
        }
    }
}
