//! Why the state machine refuses an input.

use super::delegate::MAX_OPENED;
use super::threads::MAX_THREADS;
use crate::id::EventId;
use crate::quota::Exceeded;
use crate::workflow::MAX_RUNS;

/// Why an input is not legal in a state. Nothing happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Only a busy session can be interrupted.
    #[error("the session is not running")]
    NotRunning,
    /// The session must be idle.
    #[error("the session is busy")]
    Busy,
    /// A hard budget is used up.
    #[error("{} is used up", .0.phrase())]
    QuotaExceeded(Exceeded),
    /// Too many messages wait.
    #[error("too many messages, or too large ones, are already waiting for this session")]
    QueueFull,
    /// As many sessions as possible were opened on this one's behalf.
    #[error("{MAX_OPENED} sessions were opened on this session's behalf; more are not possible")]
    TooManyChildren,
    /// As many threads as possible are there.
    #[error("the session has {MAX_THREADS} threads; more are not possible until some are archived")]
    TooManyThreads,
    /// As many runs as possible have not ended.
    #[error("the session has {MAX_RUNS} workflow runs that have not ended; more are not possible")]
    TooManyRuns,
    /// A workflow run has not ended.
    #[error("the session has a workflow run that has not ended")]
    RunOpen,
    /// The session has no such thread, or the thread is archived.
    #[error("the session has no such thread that could still work")]
    NoThread,
    /// A thread takes messages from its coordinator only.
    #[error("a thread takes messages from its coordinator only")]
    OfThread,
    /// No open tool use of that id waits for a confirmation.
    #[error("no tool use with this id waits for a confirmation")]
    NotAsking,
    /// No open use of a tool that clients carry out has that id.
    #[error("no use of a tool that clients carry out has this id and waits for its result")]
    NotAwaited,
    /// The turn waits for clients' answers, so it takes no message now.
    #[error("the session waits for answers to its tool uses")]
    AwaitsAnswers(Vec<EventId>),
    /// The session is archived.
    #[error("the session is archived")]
    Archived,
    /// There is an outcome that has not ended.
    #[error("the session works towards an outcome already")]
    OutcomeActive,
    /// Only a session that was created with a budget can have another one.
    #[error("a session that was created without a budget can't be given one")]
    BudgetCreateOnly,
    /// The budget would not be more than what was consumed.
    #[error("the budget must be greater than what the session has consumed")]
    BudgetNotRaised,
    /// There is nothing to summarise.
    #[error("the session has no history to compact")]
    NothingToCompact,
    /// It belongs to a request, tool use or turn that is over.
    #[error("this belongs to work that is already over")]
    Stale,
}
