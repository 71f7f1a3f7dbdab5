//! The state, and what a transition consists of.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::delegate::{Delegated, MAX_OPENED};
use super::input::Input;
use super::sandbox::SandboxSource;
use super::threads::{MAX_THREADS, Threads};
use super::workflows::Runs;
use crate::content::ContentBlock;
use crate::event::{Body, Purpose, Seq, StopReason, ThreadRef};
use crate::id::{EventId, KeyId};
use crate::outcome::{Evaluation, Goal};
use crate::quota::{Bound, Exceeded, Quota, Unreported};
use crate::thinking::ThinkingLevel;
use crate::time::Timestamp;
use crate::trace::TraceParent;
use crate::usage::{CostTotal, NanoUsd, Totals, Usage, WebUse};
use crate::workflow::MAX_RUNS;

/// The most messages that may wait for a busy session.
pub const MAX_QUEUE: usize = 256;

/// The most bytes of content that may wait for a busy session.
pub const MAX_QUEUE_BYTES: usize = 64 << 20;

/// A message that was accepted while the session was busy. It is not in the log yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// The id that its event will have.
    pub id: EventId,
    /// What it says.
    pub content: Vec<ContentBlock>,
    /// A model for this and later turns.
    pub model: Option<String>,
    /// A thinking level for this and later turns.
    pub thinking_level: Option<ThinkingLevel>,
    /// The trace of the request that posted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceParent>,
    /// The key that posted it, which is charged for its turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charged: Option<KeyId>,
    /// In a thread: the coordinator that sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<ThreadRef>,
    /// What accompanies it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemNote>,
}

/// A system message that accompanies something that a client posts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemNote {
    /// The id that its event will have.
    pub id: EventId,
    /// What it says: texts only.
    pub content: Vec<ContentBlock>,
}

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

/// One turn: from a user message to the end of the agent's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// Its identity: the id of the event that started it. A late result of another turn can't touch it.
    pub id: EventId,
    /// What it is for.
    pub purpose: Purpose,
    /// What it does now.
    pub step: Step,
    /// How many model requests it has begun.
    pub requests: u32,
    /// How many times in a row the current model request has failed.
    pub failed_attempts: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// The trace that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceParent>,
    /// The key that is charged for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charged: Option<KeyId>,
    /// In a thread: the coordinator whose message it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<ThreadRef>,
    /// Whether the agent has said something in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub said: bool,
}

/// What a turn does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// The next model request is due.
    Ready,
    /// A model request is under way.
    Sampling {
        /// Its start event.
        request: EventId,
        /// What it is for.
        purpose: Purpose,
        /// The most output tokens that the budgets leave for it, when that is less than it could produce.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_output: Option<u64>,
        /// What it can consume and cost at the most.
        #[serde(default)]
        bound: Bound,
        /// The model, when it is not the session's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
    },
    /// Tool uses are open.
    Acting {
        /// Those without a result.
        open: Vec<OpenTool>,
    },
}

/// A tool use without a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenTool {
    /// Its event.
    pub id: EventId,
    /// The tool.
    pub name: String,
    /// Its arguments.
    pub input: serde_json::Value,
    /// Whether it may run.
    pub gate: Gate,
    /// While it waits for a confirmation: when it counts as denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asks_until: Option<Timestamp>,
    /// Whether it is a built-in tool that a worker of the developer's carries out, once it may run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remote: bool,
    /// Whether it is an MCP server's; states of earlier versions don't say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_server: Option<bool>,
}

/// Whether a tool use may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// It may.
    Open,
    /// It waits for a confirmation.
    Asking,
    /// It was confirmed while others still wait.
    Confirmed,
    /// A client or a worker carries it out, and its result is awaited.
    Client,
    /// It waits for a thread or several, and all of these wait for clients.
    Thread,
}

impl Gate {
    /// Whether a client has to do something before the tool use can go on.
    #[must_use]
    pub fn awaits_client(self) -> bool {
        matches!(self, Self::Asking | Self::Client | Self::Thread)
    }
}

/// What a transition may depend on besides the state and the input.
pub struct Context<'a> {
    /// Now.
    pub now: Timestamp,
    /// When the session was created.
    pub created_at: Timestamp,
    /// The hard budgets of the session's agent and its parent. Its own is in its state.
    pub quota: Option<Quota>,
    /// How many output tokens the month's budgets of workspace and key leave for the next model request.
    pub granted: Result<u64, Exceeded>,
    /// How long a tool use waits for a confirmation, in milliseconds; `None` means for ever.
    pub confirmation_timeout_ms: Option<u64>,
    /// The position of the last event.
    pub head: Seq,
    /// The most model requests in one turn.
    pub max_requests_per_turn: u32,
    /// Makes the ids of events that nothing refers to beforehand.
    pub new_id: &'a mut dyn FnMut() -> EventId,
}

/// An event to append.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// Its id.
    pub id: EventId,
    /// What happened.
    pub body: Body,
}

/// A change to the durable queue.
#[derive(Debug, Clone, PartialEq)]
pub enum QueueChange {
    /// A message was added at the end.
    Push(Arc<Queued>),
    /// The oldest message left: its turn starts in this very transaction.
    Pop(EventId),
    /// All messages left.
    Clear,
}

/// What the engine does once the transition is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Have the runtime go on with the turn from where the state says it is.
    Drive,
}

/// A legal step: commit all of it, in one transaction, or none.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// The next state.
    pub state: State,
    /// Events to append, in order.
    pub events: Vec<NewEvent>,
    /// Changes to the queue, in order.
    pub queue: Vec<QueueChange>,
    /// What to do afterwards.
    pub effects: Vec<Effect>,
}

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

impl State {
    /// Applies an input.
    ///
    /// # Errors
    /// [`Rejection`] when the input is not legal now; nothing has changed then.
    pub fn apply(&self, input: Input, ctx: &mut Context<'_>) -> Result<Transition, Rejection> {
        let mut next = Transition {
            state: self.clone(),
            events: Vec::new(),
            queue: Vec::new(),
            effects: Vec::new(),
        };
        let from_client = matches!(
            input,
            Input::Post(_)
                | Input::Interrupt { .. }
                | Input::Confirm { .. }
                | Input::Answer { .. }
                | Input::InterruptThread { .. }
                | Input::ArchiveThread { .. }
                | Input::Update { .. }
                | Input::DefineOutcome(_)
                | Input::Compact { .. }
        );
        if from_client && self.archived_at.is_some() {
            return Err(Rejection::Archived);
        }
        match input {
            Input::Post(message) => next.post(message, ctx)?,
            Input::Interrupt {
                id,
                clear_queue,
                partial,
                arrived,
                outcomes,
                delegated,
            } => {
                next.interrupt(id, clear_queue, (partial, arrived), outcomes, ctx)?;
                for (tool_use, spent) in delegated {
                    next.settle(&tool_use, &spent);
                }
            }
            Input::Confirm {
                id,
                tool_use,
                allow,
                deny_message,
            } => {
                next.confirm(id, tool_use, allow, deny_message, ctx)?;
            }
            Input::Answer {
                id,
                tool_use,
                outcome,
                remote,
                system,
            } => next.answer(id, &tool_use, outcome, remote, system, ctx)?,
            Input::Update {
                title,
                metadata,
                agent,
                budget,
            } => {
                let agent = next.update_agent(agent)?;
                let budget = next.update_budget(budget)?;
                next.update(title, metadata, agent, budget, ctx);
            }
            Input::DefineOutcome(definition) => next.define_outcome(&definition, ctx)?,
            Input::Archive => next.archive(ctx)?,
            Input::Lapse => next.lapse(ctx)?,
            Input::Compact { charged } => next.compact(charged, ctx)?,
            Input::BeginRequest {
                id,
                model,
                thinking_level,
                purpose,
                bound,
            } => {
                next.begin_request(id, model, thinking_level, purpose, &bound, ctx)?;
            }
            Input::FinishRequest { request, reply } => next.finish_request(&request, reply, ctx)?,
            Input::FailRequest {
                request,
                failure,
                spent,
                retry,
            } => {
                next.fail_request(&request, failure, spent, retry, ctx)?;
            }
            Input::FinishCompaction {
                request,
                summary,
                kept,
                usage,
                cost,
            } => {
                next.finish_compaction(&request, summary, kept, (usage, cost), ctx)?;
            }
            Input::FinishEvaluation {
                request,
                verdict,
                explanation,
                usage,
                cost,
            } => next.finish_evaluation(&request, verdict, explanation, (usage, cost), ctx)?,
            Input::FinishTool {
                tool_use,
                outcome,
                sandbox,
            } => next.finish_tool(&tool_use, outcome, sandbox, ctx)?,
            Input::Delegate { tool_use } => next.delegate(&tool_use, ctx)?,
            Input::FinishDelegation {
                tool_use,
                outcome,
                spent,
            } => next.finish_delegation(&tool_use, outcome, &spent, ctx)?,
            Input::Lend { child, known } => next.lend(&child, known, 2, ctx)?,
            Input::GiveBack { child, standing } => next.give_back(&child, standing.as_ref())?,
            Input::Send(dispatch) => next.send(*dispatch, ctx)?,
            Input::Mirror {
                thread,
                through,
                news,
            } => next.mirror(&thread, through, news, ctx)?,
            Input::FinishErrand {
                tool_use,
                outcome,
                through,
                news,
                standing,
                active_ms,
            } => {
                let last = (through, news);
                next.finish_errand(&tool_use, outcome, last, standing.as_ref(), active_ms, ctx)?;
            }
            Input::Delivered { thread, count } => next.delivered(&thread, count)?,
            Input::ResumeThread { thread } => next.resume_thread(&thread, ctx)?,
            Input::InterruptThread { id, thread } => next.interrupt_thread(id, &thread, ctx)?,
            Input::ArchiveThread { thread } => next.archive_thread(&thread, ctx)?,
            Input::CloseThread { thread } => next.close_thread(&thread)?,
            Input::BeginRun {
                tool_use,
                name,
                description,
                phases,
            } => next.begin_run(&tool_use, name, description, phases, ctx)?,
            Input::RefuseRun { tool_use } => next.refuse_run(&tool_use, ctx)?,
            Input::AdvanceRun { run, marks, asked } => next.advance_run(&run, &marks, asked, ctx)?,
            Input::BeginCall(call) => next.begin_call(call, ctx)?,
            Input::RefuseCall { call, text } => next.refuse_call(&call, text, ctx)?,
            Input::FinishCall {
                call,
                ok,
                text,
                through,
                news,
                standing,
                active_ms,
            } => {
                let last = (through, news);
                next.finish_call(&call, (ok, text), last, standing.as_ref(), active_ms, ctx)?;
            }
            Input::EndRun { run, result, outcome } => next.end_run(&run, result, outcome, ctx)?,
            Input::FailTurn { failure } => next.fail_turn(failure, ctx)?,
            Input::Remark { failure } => next.remark(failure, ctx)?,
            Input::NoteBuild { layer, progress } => next.note_build(&layer, progress, ctx)?,
            Input::Wake => next.wake(ctx),
        }
        Ok(next)
    }

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
