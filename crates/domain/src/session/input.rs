//! What can happen to a session.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::delegate::{Spending, Standing};
use super::queue::{Queued, SystemNote};
use super::sandbox::SandboxSource;
use super::threads::{Dispatch, News};
use super::workflows::BeginCall;
use crate::agent::Agent;
use crate::content::ContentBlock;
use crate::environment::build::Progress;
use crate::event::{Failure, Kept, Opaque, Purpose, Seq};
use crate::id::{EventId, KeyId, SessionId, WorkflowRunId};
use crate::origin::Origin;
use crate::outcome::{Definition, Verdict};
use crate::policy::Permission;
use crate::quota::{Bound, Quota};
use crate::thinking::ThinkingLevel;
use crate::usage::{Cost, NanoUsd, Spent, Usage};
use crate::workflow;

/// What can happen to a session: from clients, from the runtime that drives its turn, from a restart.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A client posts a message.
    Post(Arc<Queued>),
    /// A client stops the turn.
    Interrupt {
        /// The id of the event that records it.
        id: EventId,
        /// Whether waiting messages are dropped too.
        clear_queue: bool,
        /// The messages that the model had begun until then.
        partial: Vec<Partial>,
        /// How many tokens of the answer had arrived, as far as that can be reckoned.
        arrived: u64,
        /// What the open tool uses had achieved until then.
        outcomes: Vec<(EventId, Outcome)>,
        /// What the children consumed that were cancelled with it.
        delegated: Vec<(EventId, Spending)>,
    },
    /// A client answers a tool use that asks.
    Confirm {
        /// The id of the event that records it.
        id: EventId,
        /// The tool use.
        tool_use: EventId,
        /// Whether it may run.
        allow: bool,
        /// What the model is told otherwise.
        deny_message: Option<String>,
    },
    /// A client has carried out a custom tool, or a worker a built-in one.
    Answer {
        /// The id of the event that records it.
        id: EventId,
        /// The tool use.
        tool_use: EventId,
        /// Its result.
        outcome: Outcome,
        /// What accompanies it.
        system: Option<SystemNote>,
        /// Whether it is a built-in tool's.
        remote: bool,
    },
    /// A client changes what is said about the session.
    Update {
        /// The title; `Some(None)` takes it away.
        title: Option<Option<String>>,
        /// The metadata, all of it.
        metadata: Option<BTreeMap<String, String>>,
        /// The agent with other tools or MCP servers.
        agent: Option<AgentChange>,
        /// The session's own budget; `Some(None)` takes it away.
        budget: Option<Option<NanoUsd>>,
    },
    /// A client says what is to be achieved.
    DefineOutcome(Arc<Definition>),
    /// A client archives the session: nothing happens in it any more.
    Archive,
    /// Time has passed: tool uses that have waited long enough for a confirmation count as denied.
    Lapse,
    /// A client asks for the history to be summarised.
    Compact {
        /// The key that is charged for it.
        charged: Option<KeyId>,
    },
    /// The runtime is about to make a model request.
    BeginRequest {
        /// The id of its start event.
        id: EventId,
        /// The model.
        model: String,
        /// The thinking level.
        thinking_level: ThinkingLevel,
        /// What it is for.
        purpose: Purpose,
        /// What it can consume and cost at the most.
        bound: Bound,
    },
    /// The model has answered in full.
    FinishRequest {
        /// The request.
        request: EventId,
        /// The answer.
        reply: Reply,
    },
    /// The model request failed.
    FailRequest {
        /// The request.
        request: EventId,
        /// Why.
        failure: Failure,
        /// What it consumed all the same.
        spent: Spent,
        /// Whether the runtime will try again; otherwise the turn fails.
        retry: bool,
    },
    /// The summary is there.
    FinishCompaction {
        /// The request.
        request: EventId,
        /// The summary.
        summary: String,
        /// The message that is kept beside it, within a turn.
        kept: Option<Kept>,
        /// What the request consumed.
        usage: Usage,
        /// What it cost.
        cost: Option<Cost>,
    },
    /// The grader has given its verdict.
    FinishEvaluation {
        /// The request.
        request: EventId,
        /// The verdict.
        verdict: Verdict,
        /// Why.
        explanation: String,
        /// What the request consumed.
        usage: Usage,
        /// What it cost.
        cost: Option<Cost>,
    },
    /// A tool has finished.
    FinishTool {
        /// The tool use.
        tool_use: EventId,
        /// Its result.
        outcome: Outcome,
        /// Where the sandbox came from that it ran in, if it ran in one.
        sandbox: Option<SandboxSource>,
    },
    /// A tool use is about to have another agent do its task.
    Delegate {
        /// The tool use.
        tool_use: EventId,
    },
    /// The other agent has answered, or can't.
    FinishDelegation {
        /// The tool use.
        tool_use: EventId,
        /// Its result.
        outcome: Outcome,
        /// What the other agent's session and its children consumed.
        spent: Spending,
    },
    /// A session is about to be opened, or given another task, on this one's behalf.
    Lend {
        /// The other session.
        child: SessionId,
        /// What it may consume in all, and how it stands; none for one that is new.
        known: Option<(Option<Quota>, Standing)>,
    },
    /// A session that works on this one's behalf rests, or is gone.
    GiveBack {
        /// The other session.
        child: SessionId,
        /// How it stands, unless it is gone.
        standing: Option<Standing>,
    },
    /// A tool use sends a message to a thread.
    Send(Box<Dispatch>),
    /// Something happened in a thread.
    Mirror {
        /// The thread.
        thread: SessionId,
        /// Up to where in its log.
        through: Seq,
        /// What, in order.
        news: Vec<News>,
    },
    /// A thread rests, and the tool use that waited for it has its result.
    FinishErrand {
        /// The tool use.
        tool_use: EventId,
        /// Its result.
        outcome: Outcome,
        /// Up to where in the thread's log.
        through: Seq,
        /// What happened in the thread last.
        news: Vec<News>,
        /// How the thread stands; none when it was deleted.
        standing: Option<Standing>,
        /// How long it has worked, in milliseconds.
        active_ms: u64,
    },
    /// A thread has been told the first of what clients have said to it.
    Delivered {
        /// The thread.
        thread: SessionId,
        /// How much it was told.
        count: usize,
    },
    /// A thread that waited for clients goes on by itself.
    ResumeThread {
        /// The thread.
        thread: SessionId,
    },
    /// A client stops one thread.
    InterruptThread {
        /// The id of the event that records it.
        id: EventId,
        /// The thread.
        thread: SessionId,
    },
    /// A client archives one thread.
    ArchiveThread {
        /// The thread.
        thread: SessionId,
    },
    /// The session of an archived thread is archived, too.
    CloseThread {
        /// The thread.
        thread: SessionId,
    },
    /// A tool use begins a run of a program.
    BeginRun {
        /// The tool use.
        tool_use: EventId,
        /// What the run is called.
        name: String,
        /// What it is for.
        description: Option<String>,
        /// Its phases, in order.
        phases: Vec<workflow::Phase>,
    },
    /// A tool use can't begin a run, because there are too many.
    RefuseRun {
        /// The tool use.
        tool_use: EventId,
    },
    /// A run's program has got on.
    AdvanceRun {
        /// The run.
        run: WorkflowRunId,
        /// All phases that it has entered, by their places.
        marks: Vec<u32>,
        /// How many calls it has made.
        asked: u32,
    },
    /// A run's program is about to call an agent.
    BeginCall(BeginCall),
    /// A call of a run can't begin.
    RefuseCall {
        /// The call.
        call: workflow::Call,
        /// Why, for the program.
        text: String,
    },
    /// The agent that a run's program has called has answered, or can't.
    FinishCall {
        /// The call.
        call: workflow::Call,
        /// Whether it did what it was asked to.
        ok: bool,
        /// What it said last, or what went wrong.
        text: String,
        /// Up to where in the thread's log.
        through: Seq,
        /// What happened in the thread last.
        news: Vec<News>,
        /// How the thread stands; none when it was deleted.
        standing: Option<Standing>,
        /// How long it has worked, in milliseconds.
        active_ms: u64,
    },
    /// A run has come to its end, and the tool use that waited for it has its result.
    EndRun {
        /// The run.
        run: WorkflowRunId,
        /// How it ended.
        result: workflow::Ending,
        /// The tool use's result.
        outcome: Outcome,
    },
    /// The turn can't go on, for a reason outside a model request.
    FailTurn {
        /// Why.
        failure: Failure,
    },
    /// Something that the turn can do without failed; the server tries again by itself.
    Remark {
        /// What failed.
        failure: Failure,
    },
    /// A tool use waits until the session's environment is built, and something has become of that.
    NoteBuild {
        /// Names what is built.
        layer: String,
        /// What has become of it, in order.
        progress: Vec<Progress>,
    },
    /// The server has started again and finds this session as it was left.
    Wake,
}

/// An agent as a session has it from now on.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentChange {
    /// The agent.
    pub agent: Arc<Agent>,
    /// The MCP servers that it had until now: their names, by what the names of their tools begin with.
    pub former_servers: BTreeMap<String, String>,
}

/// What a tool gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// What the model is shown.
    pub content: Vec<ContentBlock>,
    /// Whether the tool failed.
    pub is_error: bool,
}

impl Outcome {
    /// A failure that a text explains.
    #[must_use]
    pub fn error(text: impl Into<String>) -> Self {
        Self {
            content: vec![ContentBlock::text(text)],
            is_error: true,
        }
    }

    /// A success that is a text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            content: vec![ContentBlock::text(text)],
            is_error: false,
        }
    }
}

/// The part of an answer that had arrived when it was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partial {
    /// The id that the message's deltas were announced under.
    pub id: EventId,
    /// The text.
    pub text: String,
    /// The model, `provider/model`.
    pub model: String,
}

/// A model's whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// Its blocks, in order.
    pub blocks: Vec<ReplyBlock>,
    /// The model that answered, `provider/model`.
    pub model: String,
    /// What it consumed.
    pub usage: Usage,
    /// What it cost; `None` when the price is unknown.
    pub cost: Option<Cost>,
    /// Why it stopped.
    pub stop: ReplyStop,
}

/// Why a model stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyStop {
    /// It finished, or it wants tools.
    Done,
    /// It reached its output limit.
    MaxTokens,
    /// It declined.
    Refusal {
        /// What the provider said about that.
        explanation: Option<String>,
    },
}

/// One block of an answer; each becomes an event with the given id.
#[derive(Debug, Clone, PartialEq)]
pub enum ReplyBlock {
    /// Text.
    Text {
        /// The event's id.
        id: EventId,
        /// The text.
        text: String,
        /// What the provider wants back with it.
        opaque: Option<Opaque>,
    },
    /// A thought.
    Thinking {
        /// The event's id.
        id: EventId,
        /// The thought; empty when it is hidden.
        text: String,
        /// What the provider wants back with it.
        opaque: Option<Opaque>,
    },
    /// A tool use.
    ToolUse {
        /// The event's id.
        id: EventId,
        /// The tool.
        name: String,
        /// Its arguments.
        input: serde_json::Value,
        /// The provider's id of the call.
        call_id: String,
        /// The policy's verdict.
        permission: Permission,
        /// Whether the client carries it out.
        custom: bool,
        /// Whether it is a built-in tool that a worker of the developer's carries out.
        remote: bool,
        /// Where the tool comes from, and who is to say whether it runs.
        origin: Origin,
        /// What the provider wants back with it.
        opaque: Option<Opaque>,
    },
}
