//! The watch over the disk.
//!
//! Over its quota, or when the machine's disk is nearly full, the session may not write ([`super::writing`]).
//! Its commands are killed when they have brought that about, and again whenever they bring more: by growth
//! beyond the least that there was since, however small the steps are, and below the machine's floor also by
//! taking part in a loss of free space that nothing measured accounts for.

mod judgement;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::holdings::{Holdings, Unseen};
use super::survey::{Scope, Survey, Surveyor};
use super::writing::{self, Reach, Writing};
use crate::files::usage::Usage;
use crate::hand::calls::{Calls, Outcome};
use crate::hand::process::kill_commands;
use crate::limits::Limits;
use judgement::{ALMOST_FULL, Cause, Free, MOST, Over, SLACK_INODES, Seen, Verdict, judge, least, sentence};

/// How long a command may take to end once what it had started was killed.
const KILL_GRACE: Duration = Duration::from_millis(200);

/// A survey comes after this many times what the last one took, so that it takes little of the sandbox's time.
const SHARE: u32 = 10;

/// The same, when the file system has lost as much as the session has left.
const URGENT_SHARE: u32 = 2;

/// A survey comes at least this long after the last, unless space is vanishing.
const INTERVAL: Duration = Duration::from_secs(5);

/// The most a session may write while nobody looks: with this much left or less, a survey comes for every
/// change.
const SMALL: u64 = 16 << 20;

/// Inodes of a file system that stay free, and their share of all where it has few.
const FLOOR_INODES: u64 = 1 << 16;
const FLOOR_INODES_SHARE: u64 = 64;

/// The watch over what one session may write to.
pub(super) struct Disk {
    folder: OwnedFd,
    limits: Limits,
    surveyor: Surveyor,
    writing: Writing,
    asked: watch::Receiver<u64>,
    has_looked: bool,
    /// What was seen last, when, and how long it took.
    last: Seen,
    at: Instant,
    took: Duration,
    /// What the session had written when that was last counted, when that was, and how long it took.
    written: u64,
    counted: (Instant, Duration),
    /// What was last seen while nothing was held in a way that can't be measured.
    clear: Seen,
    over: Option<Over>,
}

impl Disk {
    /// Watches the folders at these paths, of which the first is the workspace.
    ///
    /// # Errors
    /// When one can't be watched.
    pub(super) fn new(paths: &[PathBuf], limits: Limits, writing: Writing) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let workspace = paths.first().ok_or(io::ErrorKind::InvalidInput)?;
        let folder = rustix::fs::open(workspace, flags, Mode::empty())?;
        let surveyor = Surveyor::start(paths.to_vec())?;
        let free = free_space(&folder, &limits)?;
        let last = Seen::new(Survey::default(), free);
        Ok(Self {
            folder,
            limits,
            surveyor,
            asked: writing.asked(),
            writing,
            has_looked: false,
            last,
            at: Instant::now(),
            took: Duration::ZERO,
            written: 0,
            counted: (Instant::now(), Duration::ZERO),
            clear: last,
            over: None,
        })
    }

    /// Returns when somebody wants to know what has changed.
    pub(super) async fn asked(&mut self) {
        if self.asked.changed().await.is_err() {
            // Can't be: the sender is in `self.writing`.
            std::future::pending::<()>().await;
        }
    }

    /// Looks before anything runs, and does what has to be done.
    pub(super) async fn first_look(&mut self, calls: &Calls) {
        self.survey(calls, self.last.free, 0).await;
    }

    /// Looks, if it is time to, and does what has to be done.
    pub(super) async fn look(&mut self, calls: &Calls) {
        let asked = *self.asked.borrow_and_update();
        let is_asked = self.over.is_some() && self.writing.is_asked(asked);
        let free = self.free();
        let is_due = is_asked || (free.is_low && self.over.is_none()) || {
            let written = self.written().await;
            self.is_due(free, written)
        };
        if is_due {
            self.survey(calls, free, asked).await;
        } else if self.over.is_some_and(|over| over.is_falling(free)) {
            self.look_at_processes(calls, free, asked).await;
        }
    }

    async fn survey(&mut self, calls: &Calls, free: Free, asked: u64) {
        let before = self.over.map(|over| over.cause);
        let mut verdict = self.settle(free).await;
        if let Verdict::Over {
            cause,
            why,
            is_guilty: true,
        } = verdict
        {
            self.end_commands(calls, cause, why).await;
            let is_new = before.is_none_or(|before| before != cause && cause == Cause::Quota);
            if let (true, Some(over)) = (is_new, &mut self.over) {
                // What was written until they were dead is not held against what comes next, this once.
                over.lowest = MOST;
            }
            verdict = self.settle(self.free()).await;
        }
        self.writing.decide(verdict.denial(), asked);
    }

    /// What is free now. What can't be told has not changed; surveys come all the same.
    fn free(&self) -> Free {
        free_space(&self.folder, &self.limits).unwrap_or(self.last.free)
    }

    /// Measures, and gives or takes the right to write.
    async fn settle(&mut self, free: Free) -> Verdict {
        let before = self.last;
        let now = self.measure(free).await;
        let verdict = judge(&self.limits, self.over.as_ref(), &self.clear, &before, &now);
        if now.held.unseen.is_none() {
            self.clear = now;
        }
        let Verdict::Over { cause, .. } = &verdict else {
            if self.over.take().is_some() {
                writing::allow();
            }
            return verdict;
        };
        let over = self.over.get_or_insert(Over {
            cause: *cause,
            lowest: MOST,
            from: (free, now.held),
        });
        over.cause = *cause;
        over.lowest = least(over.lowest, now.total);
        over.follow(now.held, free);
        writing::deny(match cause {
            Cause::Quota => Reach::Everyone,
            Cause::Floor => Reach::Shells,
        });
        verdict
    }

    /// Looks into a loss of space on a nearly full disk.
    async fn look_at_processes(&mut self, calls: &Calls, free: Free, asked: u64) {
        let held = match self.surveyor.survey(Scope::Processes).await {
            Ok(survey) => survey.held,
            Err(_) => unknown(self.last.held),
        };
        let Some(over) = &mut self.over else {
            return;
        };
        let (drains, cause) = (over.drains(held, free), over.cause);
        over.follow(held, free);
        if drains {
            self.end_commands(calls, cause, ALMOST_FULL.to_owned()).await;
            let verdict = self.settle(self.free()).await;
            self.writing.decide(verdict.denial(), asked);
        }
    }

    /// What the session has written by now; as last seen, when that was just now or can't be told.
    async fn written(&mut self) -> u64 {
        let (at, took) = self.counted;
        if at.elapsed() >= took * SHARE {
            let started = Instant::now();
            if let Ok(survey) = self.surveyor.survey(Scope::Writes).await {
                self.written = survey.held.written;
            }
            self.counted = (Instant::now(), started.elapsed());
        }
        self.written
    }

    async fn end_commands(&self, calls: &Calls, cause: Cause, why: String) {
        self.writing.deny_and_kill(why);
        let noted = calls.note_running(sentence(cause));
        // The shells live on, with their state, if what was written came from below them. A command that goes
        // on all the same is the shell's own doing, and then the shell goes too.
        kill_commands(false).await;
        if timeout(KILL_GRACE, all_ended(noted)).await.is_err() {
            kill_commands(true).await;
        }
    }

    /// Measures everything. `free` is what was free just before.
    async fn measure(&mut self, free: Free) -> Seen {
        let started = Instant::now();
        // Far beyond the quota the exact number does not matter any more.
        let most = self.limits.inodes;
        let stop_at = most.saturating_add(most / 4 + 64 * SLACK_INODES);
        // A fresh sandbox should not have to wait, and nothing in it holds anything yet.
        let scope = match std::mem::replace(&mut self.has_looked, true) {
            true => Scope::Everything(stop_at),
            false => Scope::Files(stop_at),
        };
        let seen = match self.surveyor.survey(scope).await {
            Ok(survey) => Seen::new(survey, free),
            // The session keeps the hand from looking.
            Err(_) => Seen {
                total: Usage {
                    hidden: true,
                    ..self.last.total
                },
                held: unknown(self.last.held),
                free,
            },
        };
        (self.last, self.at, self.took) = (seen, Instant::now(), started.elapsed());
        seen
    }

    /// Whether the session may by now be over its quota, or it is time anyway.
    fn is_due(&self, free: Free, written: u64) -> bool {
        let age = self.at.elapsed();
        // What others remove meanwhile must not cover up what this session writes; and where its writes aren't
        // counted, the loss of free space tells.
        let lost = self.last.free.bytes.saturating_sub(free.bytes);
        let vanished = lost.max(written.saturating_sub(self.last.held.written));
        let left = self.limits.disk.saturating_sub(self.last.total.bytes);
        let vanished_inodes = self.last.free.inodes.saturating_sub(free.inodes);
        let left_inodes = self.limits.inodes.saturating_sub(self.last.total.inodes);
        if vanished > left || vanished_inodes > left_inodes {
            return age >= self.took * URGENT_SHARE;
        }
        age >= self.took * SHARE
            && (vanished > left / 2
                || (left <= SMALL && vanished > 0)
                || vanished_inodes > left_inodes / 2
                || self.over.is_some()
                || age >= INTERVAL)
    }
}

/// Nothing can be said of what processes hold.
fn unknown(held: Holdings) -> Holdings {
    Holdings {
        unseen: Some(Unseen::Process),
        ..held
    }
}

async fn all_ended(calls: Vec<Outcome>) {
    for mut call in calls {
        // An error means that nobody will ever tell, which is an end too.
        let _ = call.wait_for(Option::is_some).await;
    }
}

/// What is free below the workspace.
fn free_space(folder: &OwnedFd, limits: &Limits) -> io::Result<Free> {
    let stat = rustix::fs::fstatvfs(folder)?;
    let bytes = stat.f_bavail * stat.f_frsize;
    // Some file systems have no fixed number of inodes, and say 0.
    let floor_inodes = FLOOR_INODES.min(stat.f_files / FLOOR_INODES_SHARE);
    Ok(Free {
        bytes,
        inodes: stat.f_favail,
        is_low: bytes < limits.disk_floor || stat.f_favail < floor_inodes,
    })
}

#[cfg(test)]
mod tests;
