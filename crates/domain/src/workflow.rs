//! Workflow runs: an agent writes a program, and the program has other agents work, in an order of its own.
//!
//! A run belongs to the tool use that began it, which waits for its end. Each call of an agent in it is a thread of the
//! session, which ends for good with its answer. What language programs are written in is nobody's business here: the state
//! machine knows how many calls a program has made and which phases it has entered, and the log has the answers.

use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::id::WorkflowRunId;
use crate::multiagent::{Multiagent, Team};

/// The tool by which an agent begins a run.
pub const RUN_WORKFLOW: &str = "run_workflow";
/// The most runs of a session that have not ended.
pub const MAX_RUNS: usize = 10;
/// The most calls of one run that are under way at once.
pub const MAX_AT_ONCE: usize = 64;
/// The most calls of one run.
pub const MAX_CALLS: u32 = 1000;
/// The most phases of one run.
pub const MAX_PHASES: usize = 32;
/// How long a run may take, in milliseconds: a day.
pub const LIFETIME_MS: u64 = 24 * 60 * 60 * 1000;

/// The longest answer of a call that its program is given, in bytes.
pub const MAX_ANSWER: usize = 64 * 1024;

impl Agent {
    /// Who may work in workflow runs of its sessions; none when there are no runs.
    #[must_use]
    pub fn workflows(&self) -> Option<&Team> {
        self.spec.multiagent.as_ref().and_then(Multiagent::workflows)
    }
}

/// A part of a run, as its program names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// Its name, unlike all others of the run.
    pub name: String,
    /// What happens in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A call of an agent in a run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Call {
    /// The run.
    pub run: WorkflowRunId,
    /// Its place among the run's calls, counted from 0.
    pub index: u32,
}

/// Why a run could not begin or go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// The kind, for programs.
    pub kind: ErrorKind,
    /// In words, for people.
    pub message: String,
}

/// Kinds of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// It took longer than [`LIFETIME_MS`].
    Timeout,
    /// The program made a mistake.
    Program,
    /// It made more than [`MAX_CALLS`] calls.
    ThreadLimit,
    /// There are [`MAX_RUNS`] runs already.
    MaxRuns,
    /// A fault of ours.
    Unknown,
}

impl ErrorKind {
    /// The kind's stable code.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout_error",
            Self::Program => "program_error",
            Self::ThreadLimit => "thread_limit_error",
            Self::MaxRuns => "max_workflow_runs_error",
            Self::Unknown => "unknown_error",
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Ending {
    /// Its program came to its end.
    Completed,
    /// It was stopped with its turn.
    Stopped,
    /// It could not go on.
    Error {
        /// Why.
        error: Error,
    },
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Status {
    /// It goes on.
    Running,
    /// All that it waits for waits for clients.
    Idle,
    /// It has ended.
    Ended {
        /// How.
        result: Ending,
    },
}
