//! Outcomes: what a session is to achieve, and what a grader says of how far it has come.
//!
//! A client defines an outcome with a rubric. The agent works; whenever it says that it is done, a grader looks at the
//! work in a context of its own and gives a verdict: that is one iteration. The agent revises what the grader finds
//! wanting until the grader is satisfied, says that the rubric has nothing to do with the task, or as many iterations
//! are over as the client allows.
//!
//! Where it sits: types only; `session` has the transitions.

use serde::{Deserialize, Serialize};

use crate::event::Seq;
use crate::id::{EventId, KeyId, OutcomeId};
use crate::time::Timestamp;
use crate::trace::TraceParent;
use crate::usage::Usage;

/// The tool by which a grader gives its verdict.
pub const VERDICT_TOOL: &str = "submit_verdict";

/// The most iterations when the client does not say.
pub const DEFAULT_ITERATIONS: u32 = 3;

/// The most iterations that a client may ask for.
pub const MAX_ITERATIONS: u32 = 20;

/// How many outcomes a session remembers beside its log: the newest.
pub const MAX_REMEMBERED: usize = 64;

/// An outcome that a client defines.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// The id of the event that records it.
    pub event: EventId,
    /// Its own id.
    pub outcome: OutcomeId,
    /// What is to be achieved.
    pub description: String,
    /// What the grader goes by.
    pub rubric: String,
    /// How often the grader looks at the work at the most.
    pub max_iterations: u32,
    /// The trace of the request that posted it.
    pub trace: Option<TraceParent>,
    /// The key that posted it, which is charged for the work.
    pub charged: Option<KeyId>,
}

/// The outcome that a session works towards. What it says stands in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// The outcome.
    pub id: OutcomeId,
    /// Where its definition stands in the log.
    pub defined: Seq,
    /// How often the grader looks at the work at the most.
    pub max_iterations: u32,
    /// The iteration, counted from 0.
    pub iteration: u32,
    /// How far the iteration has come.
    pub stage: Stage,
    /// The trace that the work belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceParent>,
    /// The key that is charged for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charged: Option<KeyId>,
}

/// How far an iteration has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum Stage {
    /// The turn that was under way when the outcome was defined has yet to end.
    Waiting,
    /// The agent works.
    Working,
    /// The grader looks at the work.
    Evaluating {
        /// The event that says so.
        start: EventId,
        /// What the session had consumed until then.
        before: Usage,
    },
}

/// What a grader says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The work does what the rubric asks for.
    Satisfied,
    /// It does not yet.
    NeedsRevision,
    /// The rubric has nothing to do with the task.
    Failed,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Satisfied, Self::NeedsRevision, Self::Failed];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Satisfied => "satisfied",
            Self::NeedsRevision => "needs_revision",
            Self::Failed => "failed",
        }
    }

    /// From its name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.as_str() == name)
    }
}

/// How an iteration ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The grader is satisfied; the outcome is reached.
    Satisfied,
    /// The grader is not; the agent revises its work.
    NeedsRevision,
    /// The grader is not, and there are no more iterations.
    MaxIterationsReached,
    /// The rubric has nothing to do with the task, or the work can't go on.
    Failed,
    /// A client stopped it.
    Interrupted,
}

impl Ending {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Satisfied => "satisfied",
            Self::NeedsRevision => "needs_revision",
            Self::MaxIterationsReached => "max_iterations_reached",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Where an outcome stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// The work has yet to begin.
    Pending,
    /// The agent works on the first iteration.
    Running,
    /// The grader looks at the work.
    Evaluating,
    /// An iteration has ended, and with all but `NeedsRevision` the outcome has.
    #[serde(untagged)]
    Ended(Ending),
}

impl Standing {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Evaluating => "evaluating",
            Self::Ended(ending) => ending.as_str(),
        }
    }
}

/// What is known of an outcome without its log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The outcome.
    pub outcome: OutcomeId,
    /// What is to be achieved.
    pub description: String,
    /// The iteration that `standing` is about, counted from 0.
    pub iteration: u32,
    /// Where it stands.
    pub standing: Standing,
    /// What the grader said last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
    /// When the outcome ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
}
