//! Events: the entries of a session's log. What is not in the log did not happen.

mod body;
mod failure;
mod kept;

pub use body::Body;
pub use failure::{Failure, FailureKind};
pub use kept::{Cut, Kept};

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{EventId, SessionId};
use crate::quota::Exceeded;
use crate::time::Timestamp;
use crate::usage::NanoUsd;

/// An event's position in its session's log. The first event has 1; 0 is before all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A committed event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its id; a valid resume cursor.
    pub id: EventId,
    /// Its position.
    pub seq: Seq,
    /// The session that it belongs to.
    pub session: SessionId,
    /// When it was committed.
    pub at: Timestamp,
    /// What happened.
    pub body: Arc<Body>,
}

/// What a provider wants back verbatim with the next request: a signature, an encrypted reasoning item.
/// It means something only to the provider that made it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Opaque {
    /// The wire protocol that made it, for example `anthropic`.
    pub protocol: String,
    /// Its content.
    pub data: serde_json::Value,
}

/// Why a session is idle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StopReason {
    /// The agent finished.
    EndTurn,
    /// The model reached its output limit.
    MaxTokens,
    /// The model declined.
    Refusal {
        /// What it said about that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        explanation: Option<String>,
    },
    /// A client cancelled the turn.
    Interrupted,
    /// Tool uses wait for a confirmation.
    RequiresAction {
        /// Their ids.
        tool_uses: Vec<EventId>,
    },
    /// A hard budget is used up; raising it lets the session go on.
    BudgetReached {
        /// Which one.
        cap: Exceeded,
    },
    /// The turn failed.
    Failed {
        /// Why.
        failure: Failure,
    },
}

/// What a model request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// To answer.
    #[default]
    Reply,
    /// To summarise the history.
    Compaction,
    /// To grade the work towards an outcome.
    Evaluation,
}

impl Purpose {
    /// Whether it is the usual one, which is not written down.
    #[must_use]
    pub fn is_reply(&self) -> bool {
        *self == Self::Reply
    }
}

/// A session's own budget, as a client has changed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetChange {
    /// The most that the session may cost; `None` when there is no such budget any more.
    pub max_cost: Option<NanoUsd>,
}

/// A thread that sent a message, and the name of its agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadRef {
    /// The session that the thread is.
    pub thread: SessionId,
    /// The name.
    pub agent_name: String,
}

/// Where a thread stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ThreadStatus {
    /// It works.
    Running,
    /// It rests, or waits for clients.
    Idle {
        /// Why.
        stop_reason: StopReason,
    },
    /// It is archived.
    Terminated,
}
