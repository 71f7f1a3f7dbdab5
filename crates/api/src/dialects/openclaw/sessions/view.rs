//! Sessions as clients read them.

use oma_domain::event::StopReason;
use oma_domain::quota::Unreported;
use oma_domain::session::{Phase, SandboxSource, State};
use oma_domain::usage::{NanoUsd, Usage};
use oma_domain::{Session, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::listing::Rows;

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It waits for a message.
    Idle,
    /// The answer to a message that starts a turn. Reads say `running` from then on: clients that poll "while it
    /// is running", as the reference's quick start does, must not take the first moment of a turn for its end.
    Starting,
    /// It works, or waits for a confirmation.
    Running,
    /// Its last turn failed; the next message starts a new one.
    Failed,
}

impl Status {
    /// The status of a state.
    #[must_use]
    pub fn of(state: &State) -> Self {
        match &state.phase {
            Phase::Idle {
                stop: Some(StopReason::Failed { .. }),
            } => Self::Failed,
            Phase::Idle { .. } => Self::Idle,
            Phase::Running { .. } | Phase::Blocked { .. } => Self::Running,
        }
    }

    /// The status right after a message was accepted: only a busy session lets it wait.
    #[must_use]
    pub fn after_post(queued: bool) -> Self {
        if queued { Self::Running } else { Self::Starting }
    }

    /// The status in events and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Failed => "failed",
        }
    }
}

/// Why a session stopped working, as a name.
#[must_use]
pub fn stop_name(stop: &StopReason) -> &'static str {
    match stop {
        StopReason::EndTurn => "end_turn",
        StopReason::MaxTokens => "max_tokens",
        StopReason::Refusal { .. } => "refusal",
        StopReason::Interrupted => "interrupted",
        StopReason::RequiresAction { .. } => "requires_action",
        StopReason::BudgetReached { .. } => "budget_reached",
        StopReason::Failed { .. } => "failed",
    }
}

/// Tokens of one or more model requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Tokens {
    /// All input, cached or not.
    pub input: u64,
    /// All output, thinking included.
    pub output: u64,
}

impl Tokens {
    /// From a count.
    #[must_use]
    pub fn of(usage: &Usage) -> Self {
        Self {
            input: usage.total_input(),
            output: usage.output,
        }
    }
}

/// What requests that broke off are reckoned to have consumed, beyond what was reported of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct UnreportedView {
    /// Input and output together.
    tokens: u64,
    /// US dollars, as far as prices are known.
    cost_usd: f64,
}

impl UnreportedView {
    fn of(unreported: &Unreported) -> Option<Self> {
        let Unreported { tokens, cost } = *unreported;
        (*unreported != Unreported::default()).then(|| Self {
            tokens,
            cost_usd: cost.as_usd(),
        })
    }
}

/// A session.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionView {
    session_id: String,
    agent_id: String,
    /// The agent's version that the session runs.
    agent_version: u32,
    #[schema(required)]
    environment_id: Option<String>,
    /// The vaults whose credentials its MCP servers are called with.
    vault_ids: Vec<String>,
    status: Status,
    /// Why it stopped last: `end_turn`, `max_tokens`, `refusal`, `interrupted`, `budget_reached`, `failed`; or
    /// `requires_action` while it waits for a confirmation.
    #[schema(required)]
    stop_reason: Option<&'static str>,
    /// The newest thing that the agent said.
    #[schema(required)]
    output: Option<String>,
    tokens: Tokens,
    /// US dollars; null when the price of some request is unknown.
    #[schema(required)]
    cost_usd: Option<f64>,
    /// The session's own tokens and those of the sessions that it delegated to, once they had answered.
    total_tokens: Tokens,
    /// The same in US dollars; null when the price of some request is unknown.
    #[schema(required)]
    total_cost_usd: Option<f64>,
    /// An estimate that counts against budgets beside these totals, and is in none of them: what requests must have
    /// consumed that were cancelled or broke off, here and where the session delegated to. Absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    unreported: Option<UnreportedView>,
    /// Why the last turn failed.
    #[schema(required)]
    error: Option<String>,
    /// Milliseconds since the epoch.
    created_at: i64,
    /// Milliseconds since the epoch.
    #[schema(required)]
    last_event_at: Option<i64>,
    /// How many user messages were accepted, waiting ones included.
    turns: u64,
    /// How long the sandbox that a tool ran in last took to start, in milliseconds: 0 for one that was started in advance,
    /// null for one that outlived a server, and before the first.
    #[schema(required)]
    boot_ms: Option<u64>,
    /// Where that sandbox came from: `cold` for one that was started for the session, `limited` for one whose environment
    /// limits what it reaches, `warm` for one that was started in advance, `adopt` for one that outlived a server; null
    /// before the first.
    #[schema(required)]
    pool_source: Option<&'static str>,
    /// Always null.
    #[schema(required)]
    container_id: Option<String>,
    /// Always null.
    #[schema(required)]
    container_name: Option<String>,
    #[schema(required)]
    parent_session_id: Option<String>,
}

impl SessionView {
    /// The session as of its last commit.
    #[must_use]
    pub fn of(session: &Session) -> Self {
        let state = &session.state;
        let stop = match &state.phase {
            Phase::Idle { stop } => stop.as_ref(),
            Phase::Running { .. } | Phase::Blocked { .. } => None,
        };
        let error = match stop {
            Some(StopReason::Failed { failure }) => Some(failure.message.clone()),
            _ => None,
        };
        let total = state.total();
        let blocked = matches!(state.phase, Phase::Blocked { .. });
        Self {
            session_id: session.id.to_string(),
            agent_id: session.agent.id.to_string(),
            agent_version: session.agent.version,
            environment_id: session
                .environment
                .as_ref()
                .map(|environment| environment.id.to_string()),
            vault_ids: session.vaults.iter().map(ToString::to_string).collect(),
            status: Status::of(state),
            stop_reason: if blocked {
                Some("requires_action")
            } else {
                stop.map(stop_name)
            },
            output: state.output.as_ref().map(ToString::to_string),
            tokens: Tokens::of(&state.usage),
            cost_usd: state.cost.total().map(NanoUsd::as_usd),
            total_tokens: Tokens::of(&total.usage),
            total_cost_usd: total.cost.total().map(NanoUsd::as_usd),
            unreported: UnreportedView::of(&total.unreported),
            error,
            created_at: session.created_at.as_millis(),
            last_event_at: session.last_event_at.map(Timestamp::as_millis),
            turns: state.turns,
            boot_ms: state.sandbox.and_then(SandboxSource::boot_ms),
            pool_source: state.sandbox.map(SandboxSource::as_str),
            container_id: None,
            container_name: None,
            parent_session_id: session.parent.as_ref().map(ToString::to_string),
        }
    }
}

/// A page of sessions.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionList {
    #[schema(value_type = Vec<SessionView>)]
    sessions: Vec<Box<RawValue>>,
    /// How many there are on this page.
    count: usize,
    /// Whether there are more after this page.
    has_more: bool,
    /// The cursor of the next page.
    #[schema(required)]
    next: Option<String>,
}

impl SessionList {
    pub(crate) fn of(Rows { rows, next }: Rows) -> Self {
        Self {
            count: rows.len(),
            has_more: next.is_some(),
            next,
            sessions: rows,
        }
    }
}
