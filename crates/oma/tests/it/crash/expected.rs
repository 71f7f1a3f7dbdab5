//! What must come of what was posted.

/// How a message's turn ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ends {
    /// With this answer.
    With(String),
    /// By a cancel; what was said until then is the beginning of this.
    Cancelled {
        said: String,
        /// The answer to a first attempt was lost. That attempt may have ended the command and not the turn; the
        /// turn then may have ended by itself before the next attempt.
        again: bool,
    },
}

/// What a command leaves behind: a line in a file of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) line: String,
    pub(super) fate: Fate,
}

/// What becomes of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It runs, once.
    Runs,
    /// It is cut off: it may have begun, once.
    CutOff,
}

/// A posted message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    /// What was posted.
    pub(super) content: String,
    /// Whether the server said that it took it.
    pub(super) is_accepted: bool,
    pub(super) ends: Ends,
    pub(super) marks: Vec<Mark>,
}

/// The file that the marks are in.
pub(super) const MARKS: &str = "marks";

/// What a result says of a command whose fate is unknown, because its sandbox was lost.
pub(super) const UNKNOWN: &str = "may or may not have";

/// What a command that leaves a mark prints.
pub(super) fn printed(line: &str) -> String {
    format!("done-{line}")
}

/// A command that leaves a mark. `before` and `after` stand around it.
pub(super) fn command(before: &str, line: &str, after: &str) -> String {
    format!("{before}echo {line} >> {MARKS}; {after}echo {}", printed(line))
}
