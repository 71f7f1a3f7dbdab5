//! Where a session stands.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::delegate::Delegated;
use super::queue::Queued;
use super::sandbox::SandboxSource;
use super::threads::Threads;
use super::tool_use::{Gate, OpenTool};
use super::turn::{Step, Turn};
use super::workflows::Runs;
use crate::event::{Seq, StopReason};
use crate::id::EventId;
use crate::outcome::{Evaluation, Goal};
use crate::quota::{Bound, Quota, Unreported};
use crate::thinking::ThinkingLevel;
use crate::time::Timestamp;
use crate::usage::{CostTotal, NanoUsd, Totals, Usage, WebUse};

/// Where a session stands. Stored as one JSON text in the session's row, but for the queue, which has rows of
/// its own, and the output and the evaluations, which are written only when they change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct State {
    /// What it is doing.
    pub phase: Phase,
    /// Messages that wait, oldest first.
    #[serde(skip)]
    pub queue: VecDeque<Arc<Queued>>,
    /// The model that a message set.
    pub model: Option<String>,
    /// The thinking level that a message set.
    pub thinking_level: Option<ThinkingLevel>,
    /// How many user messages were accepted, queued ones included.
    pub turns: u64,
    /// What all model requests consumed.
    pub usage: Usage,
    /// What they cost.
    pub cost: CostTotal,
    /// What requests that broke off are reckoned to have consumed besides.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub unreported: Unreported,
    /// Input and output tokens of the latest model request: how full the context is.
    pub context_tokens: u64,
    /// The text of the newest agent message.
    #[serde(skip)]
    pub output: Option<Arc<str>>,
    /// The last event that the newest compaction covers.
    pub compacted_through: Seq,
    /// What children consumed and may consume.
    #[serde(default, skip_serializing_if = "Delegated::is_empty")]
    pub delegated: Delegated,
    /// Its threads.
    #[serde(default, skip_serializing_if = "Threads::is_empty")]
    pub threads: Threads,
    /// How long those threads had worked that are gone: archived and closed, or deleted; in milliseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub closed_threads_ms: u64,
    /// Its workflow runs that have not ended.
    #[serde(default, skip_serializing_if = "Runs::is_empty")]
    pub runs: Runs,
    /// The budgets that left too little for the next model request: nothing goes on before they are others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<Quota>,
    /// A title for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Whatever the client wants to remember with it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// When it was archived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived_at: Option<Timestamp>,
    /// How long it had worked when it came to rest last, in milliseconds.
    #[serde(default)]
    pub active_ms: u64,
    /// Since when it works; `None` while it rests or waits for a client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_since: Option<Timestamp>,
    /// The model request for which a month's budget left too little: nothing goes on before it leaves enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_for: Option<Bound>,
    /// The most that the session may cost, as its client says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<NanoUsd>,
    /// How often its web tools were used.
    #[serde(default, skip_serializing_if = "WebUse::is_none")]
    pub web: WebUse,
    /// The turn that a spent budget stopped; it goes on once the session's own budget is raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<Turn>,
    /// The outcome that it works towards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<Goal>,
    /// The newest outcomes, oldest first; the last one is the one that it works towards, if it works towards one.
    #[serde(skip)]
    pub evaluations: Arc<Vec<Evaluation>>,
    /// MCP servers that the session's agent had before its servers were changed: their names, by what the names of
    /// their tools begin with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub former_servers: BTreeMap<String, String>,
    /// Where the sandbox came from that a tool ran in last; `None` before the first one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxSource>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes what it looks at by reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_nothing(unreported: &Unreported) -> bool {
    *unreported == Unreported::default()
}

/// What a session is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// Nothing.
    Idle {
        /// Why it stopped; `None` before the first turn.
        stop: Option<StopReason>,
    },
    /// A turn goes on.
    Running {
        /// The turn.
        turn: Turn,
    },
    /// A turn waits for confirmations and for nothing else.
    Blocked {
        /// The turn.
        turn: Turn,
    },
}

impl Default for Phase {
    fn default() -> Self {
        Self::Idle { stop: None }
    }
}

impl State {
    /// The turn in progress, blocked or not.
    #[must_use]
    pub fn turn(&self) -> Option<&Turn> {
        match &self.phase {
            Phase::Idle { .. } => None,
            Phase::Running { turn } | Phase::Blocked { turn } => Some(turn),
        }
    }

    /// What it has consumed until now, and its children.
    #[must_use]
    pub fn totals(&self, now: Timestamp) -> Totals {
        let spent = self.total();
        let working = self.working_since.map_or(0, |since| now.millis_since(since));
        Totals {
            usage: spent.usage,
            cost: spent.cost,
            active_ms: self.active_ms.saturating_add(working),
            web: self.web,
        }
    }

    /// The tool uses that wait for a client: for a confirmation, or for the result of a custom tool.
    #[must_use]
    pub fn awaited(&self) -> Vec<EventId> {
        let open = self.open_tools().iter();
        open.flat_map(|tool| self.awaited_of(tool)).collect()
    }

    /// Whether the engine has work to do for it.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    /// When the first of what waits for clients has waited long enough: tool uses for a confirmation, or workflow runs.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        let asking = self.open_tools().iter().filter(|tool| tool.gate == Gate::Asking);
        let asking = asking.filter_map(|tool| tool.asks_until);
        asking.chain(self.run_deadline()).min()
    }

    /// The open tool uses.
    #[must_use]
    pub fn open_tools(&self) -> &[OpenTool] {
        match self.turn().map(|turn| &turn.step) {
            Some(Step::Acting { open }) => open,
            _ => &[],
        }
    }
}
