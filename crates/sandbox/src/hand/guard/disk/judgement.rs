//! What is made of what a look at the disk has shown: a function of numbers alone.

use super::super::holdings::{Holdings, Unseen};
use super::super::survey::Survey;
use crate::files::usage::Usage;
use crate::limits::Limits;

/// What may come on top before commands are killed again: one that only looks about may leave a little.
const SLACK: u64 = 256 << 10;
pub(super) const SLACK_INODES: u64 = 16;

/// How much more a nearly full disk must lose before the commands are suspected that were at it.
const FALL: u64 = 4 << 20;

/// What is free on the file system below the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Free {
    pub(super) bytes: u64,
    pub(super) inodes: u64,
    /// Less than must stay free.
    pub(super) is_low: bool,
}

/// Why the session may not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// It has more than it may.
    Quota,
    /// The machine's disk is nearly full, which may be no fault of this session.
    Floor,
}

/// What is known while the session may not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Over {
    pub(super) cause: Cause,
    /// The least that there was since.
    pub(super) lowest: Usage,
    /// Where the loss of free space is counted from, and what the session had written and held then.
    pub(super) from: (Free, Holdings),
}

/// What was last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// Everything that the session has on the disk, with a name or without.
    pub(super) total: Usage,
    pub(super) held: Holdings,
    pub(super) free: Free,
}

impl Seen {
    pub(super) fn new(survey: Survey, free: Free) -> Self {
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
    pub(super) fn unaccounted(&self, before: &Self) -> u64 {
        let lost = i128::from(before.free.bytes) - i128::from(self.free.bytes);
        let grown = i128::from(self.total.bytes) - i128::from(before.total.bytes);
        u64::try_from(lost - grown).unwrap_or(0)
    }
}

/// What a look comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
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
    pub(super) fn denial(self) -> Option<String> {
        match self {
            Self::Fine => None,
            Self::Over { why, .. } => Some(why),
        }
    }
}

/// More than any workspace holds.
pub(super) const MOST: Usage = Usage {
    bytes: u64::MAX,
    inodes: u64::MAX,
    hidden: true,
};

/// Whether there is more now, by more than some slack.
pub(super) fn has_grown(before: Usage, now: Usage, slack: u64, slack_inodes: u64) -> bool {
    now.bytes > before.bytes.saturating_add(slack) || now.inodes > before.inodes.saturating_add(slack_inodes)
}

pub(super) fn least(one: Usage, other: Usage) -> Usage {
    Usage {
        bytes: one.bytes.min(other.bytes),
        inodes: one.inodes.min(other.inodes),
        hidden: one.hidden && other.hidden,
    }
}

impl Over {
    /// Whether there is more than the least that there was, and still more than at the last look: a command
    /// that makes room is let be, however much there is.
    pub(super) fn has_crept(&self, before: Usage, now: Usage) -> bool {
        has_grown(self.lowest, now, SLACK, SLACK_INODES) && has_grown(before, now, 0, 0)
    }

    /// Whether the disk loses more while it is nearly full.
    pub(super) fn is_falling(&self, free: Free) -> bool {
        free.is_low && free.bytes.saturating_add(FALL) <= self.from.0.bytes
    }

    /// Whether the session takes part in that loss.
    pub(super) fn drains(&self, held: Holdings, free: Free) -> bool {
        let before = self.from.1;
        self.is_falling(free)
            && (held.unseen.is_some()
                || held.written > before.written.saturating_add(SLACK)
                || held.bytes > before.bytes.saturating_add(SLACK))
    }

    /// Counts the loss anew from here, once it has been looked into or there is more room than before.
    pub(super) fn follow(&mut self, held: Holdings, free: Free) {
        if free.bytes >= self.from.0.bytes || self.is_falling(free) {
            self.from = (free, held);
        } else {
            // What somebody had written who took the count along was not written by the others.
            self.from.1.written = self.from.1.written.min(held.written);
        }
    }
}

/// Judges what is `now`, after what was `before`. `clear` is what was last seen while nothing was hidden.
pub(super) fn judge(
    limits: &Limits,
    over: Option<&Over>,
    clear: &Seen,
    before: &Seen,
    now: &Seen,
) -> Verdict {
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
pub(super) const ALMOST_FULL: &str = "[The machine's disk is almost full: nothing more can be written, in /tmp neither, until there \
                           is room again. Removing files of the workspace helps.]";

/// Why the session may write no more, if so.
pub(super) fn excess(limits: &Limits, clear: &Seen, now: &Seen) -> Option<String> {
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
pub(super) fn sentence(cause: Cause) -> &'static str {
    match cause {
        Cause::Quota => "[Running commands were killed, because the workspace went over its disk quota.]",
        Cause::Floor => {
            "[Running commands were killed, because they were filling the machine's almost full disk.]"
        }
    }
}
