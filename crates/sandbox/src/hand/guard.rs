//! The watch over memory and disk, for what the kernel does not enforce by itself.
//!
//! *Memory* ([`memory`]), only without a cgroup, or where that one counts the memory of a kernel of the sandbox's own as
//! well: while anything runs, the resident memory of all processes is summed up, and when it is too much, the command of
//! the biggest process is killed, as the kernel would do.
//!
//! *Processes* ([`processes`]), only beside a kernel of the sandbox's own, which does not limit them.
//!
//! *Disk* ([`disk`]): while anything runs, the workspace and the mounts that the session may write to are measured, and what processes hold of deleted files
//! ([`holdings`]). That costs time in proportion to the number of files, so it takes at most a tenth of the
//! sandbox's time, except that it comes early when the file system has lost as much space as the session has
//! left. Over the quota, every running command is killed, and later ones may remove files but write none
//! ([`writing`]) until there is room again.
//!
//! What can't be seen: the length of a deleted file that is mapped and closed, or on its way through a socket;
//! and a file that is moved about at the right moment. That such files are held is seen, and commands are killed
//! when the disk meanwhile loses more than the whole quota for no visible reason, and in any case before the
//! machine's disk is full.
//!
//! Invariant: what can't be measured counts as too much.
//! Invariant: a sandbox has its guards, or it ends.

mod disk;
mod holdings;
mod memory;
mod processes;
mod survey;
pub(super) mod writing;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use self::disk::Disk;
use self::writing::Writing;
use super::calls::Calls;
use super::launch::Duties;
use super::process::{Table, kill_command_of, kill_commands};
use crate::limits::Enforcement;

/// How often the file system is asked for its free space while anything runs.
const DISK_INTERVAL: Duration = Duration::from_millis(100);

/// How often the processes are looked at while anything runs.
const PROCESSES_INTERVAL: Duration = Duration::from_millis(50);

/// How often, in looks, it is seen whether background processes are left when no call runs.
const IDLE_FACTOR: u32 = 20;

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

/// Starts the watches that this sandbox needs. None of them ever ends by itself.
///
/// # Errors
/// When one can't be started.
pub(super) fn start(duties: &Duties, calls: &Arc<Calls>, writing: Writing) -> io::Result<JoinSet<()>> {
    let mut tasks = JoinSet::new();
    let disk = Disk::new(&duties.writable, duties.limits.clone(), writing)?;
    tasks.spawn(watch_disk(disk, Arc::clone(calls)));
    if duties.enforcement == Enforcement::Rlimit || duties.has_own_kernel {
        let limit = duties.limits.memory;
        tasks.spawn(watch_processes(Arc::clone(calls), move |table| {
            memory::look(limit, table)
        }));
    }
    if duties.has_own_kernel {
        let limit = duties.limits.processes;
        tasks.spawn(watch_processes(Arc::clone(calls), move |table| {
            processes::look(limit, table)
        }));
    }
    Ok(tasks)
}

/// What a look at the processes has found to be beyond a limit.
struct TooMuch {
    /// For the calls that run, in words for the model.
    why: String,
    ends: Ends,
}

/// Who is killed for it.
enum Ends {
    /// The command that this process is part of.
    CommandOf(i32),
    AllCommands,
}

/// Looks at the processes every so often while anything runs, for ever, and kills who makes for too much.
async fn watch_processes(calls: Arc<Calls>, look: impl Fn(&io::Result<Table>) -> Option<TooMuch>) {
    let mut ticks = interval(PROCESSES_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = 0;
    loop {
        ticks.tick().await;
        until_busy(&calls, &mut looks).await;
        let Some(TooMuch { why, ends }) = look(&Table::read()) else {
            continue;
        };
        calls.note_running(&why);
        match ends {
            Ends::CommandOf(pid) => kill_command_of(pid).await,
            Ends::AllCommands => kill_commands(true).await,
        };
    }
}

/// Returns when a process of the session may be at work: at once while a call runs or a background process or a
/// service lives, else when the next of them starts.
async fn until_busy(calls: &Calls, looks: &mut u32) {
    let (mut running, mut services) = (calls.running(), calls.services());
    if *running.borrow_and_update() > 0 {
        *looks = 0;
        return;
    }
    *looks += 1;
    if *looks >= IDLE_FACTOR {
        *looks = 0;
        // What can't be read may be anything.
        if Table::read().is_ok_and(|table| !table.has_commands()) {
            // The senders live in `calls`.
            tokio::select! {
                _ = running.wait_for(|count| *count > 0) => {}
                _ = services.changed() => {}
            }
        }
    }
}

async fn watch_disk(mut disk: Disk, calls: Arc<Calls>) {
    // Before the first command: a workspace may be over its quota from the start.
    disk.first_look(&calls).await;
    let mut ticks = interval_at(Instant::now() + DISK_INTERVAL, DISK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = 0;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = disk.asked() => {}
        }
        until_busy(&calls, &mut looks).await;
        disk.look(&calls).await;
    }
}
