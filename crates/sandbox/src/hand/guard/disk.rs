//! The watch over the disk.
//!
//! Over its quota, or when the machine's disk is nearly full, the session may not write ([`super::writing`]).
//! Its commands are killed when they have brought that about, and again whenever they bring more: by growth
//! beyond the least that there was since, however small the steps are, and below the machine's floor also by
//! taking part in a loss of free space that nothing measured accounts for.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
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

/// What may come on top before commands are killed again: one that only looks about may leave a little.
const SLACK: u64 = 256 << 10;
const SLACK_INODES: u64 = 16;

/// How much more a nearly full disk must lose before the commands are suspected that were at it.
const FALL: u64 = 4 << 20;

/// Inodes of a file system that stay free, and their share of all where it has few.
const FLOOR_INODES: u64 = 1 << 16;
const FLOOR_INODES_SHARE: u64 = 64;

/// What is free on the file system below the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Free {
    bytes: u64,
    inodes: u64,
    /// Less than must stay free.
    is_low: bool,
}

/// Why the session may not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// It has more than it may.
    Quota,
    /// The machine's disk is nearly full, which may be no fault of this session.
    Floor,
}

/// What is known while the session may not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Over {
    cause: Cause,
    /// The least that there was since.
    lowest: Usage,
    /// Where the loss of free space is counted from, and what the session had written and held then.
    from: (Free, Holdings),
}

/// What was last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    /// Everything that the session has on the disk, with a name or without.
    total: Usage,
    held: Holdings,
    free: Free,
}

impl Seen {
    fn new(survey: Survey, free: Free) -> Self {
        let Survey { files, held } = survey;
        let total = Usage {
            bytes: files.bytes.saturating_add(held.bytes),
            inodes: files.inodes.saturating_add(held.inodes),
            hidden: files.hidden,
        };
        Self { total, held, free }
    }

    /// What the disk has lost since `before` and the growth of the session does not account for. Others write
    /// too, so this means something only for a session that holds what can't be measured.
    fn unaccounted(&self, before: &Self) -> u64 {
        let lost = i128::from(before.free.bytes) - i128::from(self.free.bytes);
        let grown = i128::from(self.total.bytes) - i128::from(before.total.bytes);
        u64::try_from(lost - grown).unwrap_or(0)
    }
}

/// What a look comes to.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    Over {
        cause: Cause,
        why: String,
        /// The running commands have brought it about, or have made it worse.
        is_guilty: bool,
    },
}

impl Verdict {
    /// Why nothing may be written, if so.
    fn denial(self) -> Option<String> {
        match self {
            Self::Fine => None,
            Self::Over { why, .. } => Some(why),
        }
    }
}

/// More than any workspace holds.
const MOST: Usage = Usage {
    bytes: u64::MAX,
    inodes: u64::MAX,
    hidden: true,
};

/// Whether there is more now, by more than some slack.
fn has_grown(before: Usage, now: Usage, slack: u64, slack_inodes: u64) -> bool {
    now.bytes > before.bytes.saturating_add(slack) || now.inodes > before.inodes.saturating_add(slack_inodes)
}

fn least(one: Usage, other: Usage) -> Usage {
    Usage {
        bytes: one.bytes.min(other.bytes),
        inodes: one.inodes.min(other.inodes),
        hidden: one.hidden && other.hidden,
    }
}

impl Over {
    /// Whether there is more than the least that there was, and still more than at the last look: a command
    /// that makes room is let be, however much there is.
    fn has_crept(&self, before: Usage, now: Usage) -> bool {
        has_grown(self.lowest, now, SLACK, SLACK_INODES) && has_grown(before, now, 0, 0)
    }

    /// Whether the disk loses more while it is nearly full.
    fn is_falling(&self, free: Free) -> bool {
        free.is_low && free.bytes.saturating_add(FALL) <= self.from.0.bytes
    }

    /// Whether the session takes part in that loss.
    fn drains(&self, held: Holdings, free: Free) -> bool {
        let before = self.from.1;
        self.is_falling(free)
            && (held.unseen.is_some()
                || held.written > before.written.saturating_add(SLACK)
                || held.bytes > before.bytes.saturating_add(SLACK))
    }

    /// Counts the loss anew from here, once it has been looked into or there is more room than before.
    fn follow(&mut self, held: Holdings, free: Free) {
        if free.bytes >= self.from.0.bytes || self.is_falling(free) {
            self.from = (free, held);
        } else {
            // What somebody had written who took the count along was not written by the others.
            self.from.1.written = self.from.1.written.min(held.written);
        }
    }
}

/// Judges what is `now`, after what was `before`. `clear` is what was last seen while nothing was hidden.
fn judge(limits: &Limits, over: Option<&Over>, clear: &Seen, before: &Seen, now: &Seen) -> Verdict {
    let cause = match excess(limits, clear, now) {
        Some(why) => (Cause::Quota, why),
        None if now.free.is_low => (Cause::Floor, ALMOST_FULL.to_owned()),
        None => return Verdict::Fine,
    };
    let is_guilty = match over {
        Some(over) if over.cause == cause.0 || cause.0 == Cause::Floor => {
            over.has_crept(before.total, now.total) || over.drains(now.held, now.free)
        }
        _ => cause.0 == Cause::Quota || has_grown(before.total, now.total, SLACK, SLACK_INODES),
    };
    Verdict::Over {
        cause: cause.0,
        why: cause.1,
        is_guilty,
    }
}

/// What the model is told while the machine's disk is nearly full.
const ALMOST_FULL: &str = "[The machine's disk is almost full: nothing more can be written, in /tmp neither, until there \
                           is room again. Removing files of the workspace helps.]";

/// Why the session may write no more, if so.
fn excess(limits: &Limits, clear: &Seen, now: &Seen) -> Option<String> {
    let (total, held) = (now.total, now.held);
    let problem = if total.bytes > limits.disk {
        format!(
            "The workspace is over its disk quota: it holds {} bytes, and {} are allowed",
            total.bytes, limits.disk
        )
    } else if total.inodes > limits.inodes {
        format!(
            "The workspace is over its disk quota: it holds more files than the {} that are allowed",
            limits.inodes
        )
    } else if total.hidden {
        "A part of the workspace can't be measured, because it can't be listed or is nested too deeply"
            .to_owned()
    } else if let (Some(unseen), true) = (held.unseen, now.unaccounted(clear) > limits.disk) {
        let how = match unseen {
            Unseen::Mapped => "a process has mapped a file that was deleted and closed",
            Unseen::Sent => "a file is on its way to another process and is not taken",
            Unseen::Process => "a process does not let itself be looked at",
            Unseen::Amount => "too many files are open or mapped",
        };
        format!("The workspace is over its disk quota, in a way that can't be measured: {how}")
    } else {
        return None;
    };
    let open = if held.inodes > 0 {
        format!(
            " {} bytes are in deleted files that processes still use: end those, or restart the shell.",
            held.bytes
        )
    } else {
        String::new()
    };
    Some(format!(
        "[{problem}. Nothing more can be written, in /tmp neither, until files of the workspace are removed.{open}]"
    ))
}

/// What a command that was killed is told besides.
fn sentence(cause: Cause) -> &'static str {
    match cause {
        Cause::Quota => "[Running commands were killed, because the workspace went over its disk quota.]",
        Cause::Floor => {
            "[Running commands were killed, because they were filling the machine's almost full disk.]"
        }
    }
}

/// The watch over one workspace.
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
    /// Watches the workspace at `path`.
    ///
    /// # Errors
    /// When it can't be watched.
    pub(super) fn new(path: &Path, limits: Limits, writing: Writing) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(path, flags, Mode::empty())?;
        let surveyor = Surveyor::start(path)?;
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
