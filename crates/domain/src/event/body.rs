//! What happens in a session: the kinds of events, and what each of them says.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{BudgetChange, Failure, Kept, Opaque, Purpose, Seq, StopReason, ThreadRef, ThreadStatus};
use crate::agent::Agent;
use crate::content::ContentBlock;
use crate::environment::build::Progress;
use crate::id::{AgentId, EventId, OutcomeId, SessionId, WorkflowPhaseId, WorkflowRunId};
use crate::origin::Origin;
use crate::outcome::Ending;
use crate::policy::Permission;
use crate::thinking::ThinkingLevel;
use crate::usage::{Cost, NanoUsd, Totals, Usage};
use crate::workflow;

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Body {
    /// A user's message, at the point of the log where the agent got to see it.
    #[serde(rename = "user.message")]
    UserMessage {
        /// What it says.
        content: Vec<ContentBlock>,
        /// In a thread: the coordinator that it comes from instead of a user.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<ThreadRef>,
    },
    /// A client stopped the turn.
    #[serde(rename = "user.interrupt")]
    UserInterrupt {
        /// Queued messages that the client dropped with it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        dropped: Vec<EventId>,
        /// The thread that it is meant for, unless it is this session.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread: Option<SessionId>,
    },
    /// A client's answer to a tool use that asks.
    #[serde(rename = "user.tool_confirmation")]
    UserToolConfirmation {
        /// The tool use.
        tool_use: EventId,
        /// Whether it may run.
        allow: bool,
        /// What the model is told when it may not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deny_message: Option<String>,
        /// The thread that it is meant for, unless it is this session.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread: Option<SessionId>,
    },
    /// A client's result of a tool that it carries out: that tool use's one result.
    #[serde(rename = "user.custom_tool_result")]
    UserCustomToolResult {
        /// The tool use.
        tool_use: EventId,
        /// The tool.
        name: String,
        /// What the model is shown.
        content: Vec<ContentBlock>,
        /// Whether the tool failed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
        /// Whether the tool is a built-in one, which a worker carries out because the session's environment is
        /// self-hosted, rather than a custom one.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        remote: bool,
        /// The thread that it is meant for, unless it is this session.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread: Option<SessionId>,
    },
    /// The operator of the client's application says something to the model, beside the system prompt.
    #[serde(rename = "system.message")]
    SystemMessage {
        /// What it says: texts only.
        content: Vec<ContentBlock>,
        /// The thread that it is meant for, unless it is this session.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread: Option<SessionId>,
    },
    /// A client says what is to be achieved.
    #[serde(rename = "user.define_outcome")]
    UserDefineOutcome {
        /// The outcome.
        outcome: OutcomeId,
        /// What is to be achieved.
        description: String,
        /// What the grader goes by.
        rubric: String,
        /// How often the grader looks at the work at the most.
        max_iterations: u32,
        /// Whether a turn was under way: then the work towards it begins later, at [`Body::OutcomeBegun`].
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        waits: bool,
    },
    /// Something that the agent said.
    #[serde(rename = "agent.message")]
    AgentMessage {
        /// The model request that it came from.
        request: EventId,
        /// What it says.
        content: Vec<ContentBlock>,
        /// The model, `provider/model`.
        model: String,
        /// What the request consumed; absent when it was cut off before the provider said so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
        /// What the request cost.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cost: Option<Cost>,
        /// Whether a cancel cut it off.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        interrupted: bool,
        /// What the provider wants back with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        opaque: Option<Opaque>,
    },
    /// The agent thought.
    #[serde(rename = "agent.thinking")]
    AgentThinking {
        /// The model request that it came from.
        request: EventId,
        /// The thought or its summary; empty when the provider hides it.
        text: String,
        /// What the provider wants back with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        opaque: Option<Opaque>,
    },
    /// The agent uses a tool. The event's id is the tool use's id.
    #[serde(rename = "agent.tool_use")]
    AgentToolUse {
        /// The model request that it came from.
        request: EventId,
        /// The tool.
        name: String,
        /// Its arguments: a JSON object.
        input: serde_json::Value,
        /// The provider's own id of the call, sent back with the result.
        call_id: String,
        /// What the agent's policy says of it.
        permission: Permission,
        /// Whether the client carries it out.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        custom: bool,
        /// Where the tool came from, and who was to say whether it runs; logs of earlier versions don't say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        origin: Option<Origin>,
        /// What the provider wants back with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        opaque: Option<Opaque>,
    },
    /// A tool use's one result.
    #[serde(rename = "agent.tool_result")]
    AgentToolResult {
        /// The tool use.
        tool_use: EventId,
        /// The tool.
        name: String,
        /// What the model is shown.
        content: Vec<ContentBlock>,
        /// Whether the tool failed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
        /// Whether the tool is an MCP server's; logs of earlier versions don't say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of_server: Option<bool>,
    },
    /// A thread of this session was made.
    #[serde(rename = "session.thread_created")]
    ThreadCreated {
        /// The session that it is.
        thread: SessionId,
        /// The name of its agent.
        agent_name: String,
        /// The workflow run that it is of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<WorkflowRunId>,
    },
    /// A thread of this session has begun or stopped to work, or was archived.
    #[serde(rename = "session.thread_status")]
    ThreadStatus {
        /// The thread.
        thread: SessionId,
        /// The name of its agent.
        agent_name: String,
        /// Where it stands. Tool uses are named by the events that show them in this log.
        status: ThreadStatus,
    },
    /// A tool use of a thread that waits for a client. Clients answer it under this event's id.
    #[serde(rename = "session.thread_tool_use")]
    ThreadToolUse {
        /// The thread.
        thread: SessionId,
        /// Its agent.
        agent: AgentId,
        /// The tool use's own id.
        tool_use: EventId,
        /// The tool.
        name: String,
        /// Its arguments: a JSON object.
        input: serde_json::Value,
        /// Whether the client carries it out; otherwise it asks.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        custom: bool,
        /// Where the tool came from, and who was to say whether it runs; logs of earlier versions don't say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        origin: Option<Origin>,
    },
    /// A message was sent to a thread, or from a thread to its coordinator.
    #[serde(rename = "agent.thread_message_sent")]
    ThreadMessageSent {
        /// The session that it was sent to.
        to: SessionId,
        /// The name of the agent there.
        agent_name: String,
        /// What it says.
        content: Vec<ContentBlock>,
    },
    /// A thread has answered. The model reads it as the result of the tool use that sent the message.
    #[serde(rename = "agent.thread_message_received")]
    ThreadMessageReceived {
        /// The thread.
        from: SessionId,
        /// The name of its agent.
        agent_name: String,
        /// What it says.
        content: Vec<ContentBlock>,
    },
    /// The session has begun to work.
    #[serde(rename = "session.status_running")]
    StatusRunning,
    /// The session has stopped working.
    #[serde(rename = "session.status_idle")]
    StatusIdle {
        /// Why.
        stop_reason: StopReason,
        /// What it has consumed until here; absent in logs of older servers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        totals: Option<Totals>,
        /// The session's own budget, if it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        budget: Option<NanoUsd>,
    },
    /// The session was archived: it takes nothing any more.
    #[serde(rename = "session.status_terminated")]
    StatusTerminated,
    /// A client changed what is said about the session. Only what changed is there.
    #[serde(rename = "session.updated")]
    SessionUpdated {
        /// The title; empty when it was taken away.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        title: Option<String>,
        /// The metadata, all of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        metadata: Option<BTreeMap<String, String>>,
        /// The agent with other tools or MCP servers, for this session alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<Arc<Agent>>,
        /// The session's own budget.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        budget: Option<BudgetChange>,
    },
    /// The work towards an outcome that was defined in mid-turn begins.
    #[serde(rename = "session.outcome_begun")]
    OutcomeBegun {
        /// The outcome.
        outcome: OutcomeId,
        /// Where its definition stands in the log.
        defined: Seq,
    },
    /// A model request, the turn, or something that the turn can do without failed.
    #[serde(rename = "session.error")]
    Error {
        /// Why.
        failure: Failure,
        /// Whether the server tries again by itself.
        retrying: bool,
    },
    /// Something has become of the build that the session's environment needs, while a tool use waited for it.
    #[serde(rename = "session.environment_build")]
    EnvironmentBuild {
        /// Names what is built: the same for all that is alike.
        layer: String,
        /// What.
        progress: Progress,
    },
    /// A message overrode the model; it stays overridden.
    #[serde(rename = "session.model_change")]
    ModelChange {
        /// The new model, `provider/model`.
        model: String,
    },
    /// A message overrode the thinking level; it stays overridden.
    #[serde(rename = "session.thinking_level_change")]
    ThinkingLevelChange {
        /// The new level.
        thinking_level: ThinkingLevel,
    },
    /// The history up to here was replaced by a summary.
    #[serde(rename = "session.compaction")]
    Compaction {
        /// The model request that made it.
        request: EventId,
        /// The summary.
        summary: String,
        /// The last event that it covers.
        through: Seq,
        /// The message of the turn that goes on after it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kept: Option<Kept>,
    },
    /// A model request begins.
    #[serde(rename = "span.model_request_start")]
    ModelRequestStart {
        /// The model, `provider/model`.
        model: String,
        /// The thinking level.
        thinking_level: ThinkingLevel,
        /// What it is for.
        #[serde(default)]
        purpose: Purpose,
    },
    /// A model request ended.
    #[serde(rename = "span.model_request_end")]
    ModelRequestEnd {
        /// The start event's id.
        request: EventId,
        /// Whether it failed.
        is_error: bool,
        /// What it was for.
        #[serde(default, skip_serializing_if = "Purpose::is_reply")]
        purpose: Purpose,
        /// What it consumed, as far as the provider said.
        #[serde(default)]
        usage: Usage,
        /// What it cost; `None` when that is unknown, or when a failed request consumed nothing.
        #[serde(default)]
        cost: Option<Cost>,
    },
    /// A grader begins to look at the work towards an outcome.
    #[serde(rename = "span.outcome_evaluation_start")]
    OutcomeEvaluationStart {
        /// The outcome.
        outcome: OutcomeId,
        /// The iteration, counted from 0.
        iteration: u32,
    },
    /// The grader is asked. More than once when a request for its verdict fails.
    #[serde(rename = "span.outcome_evaluation_ongoing")]
    OutcomeEvaluationOngoing {
        /// The outcome.
        outcome: OutcomeId,
        /// The iteration, counted from 0.
        iteration: u32,
    },
    /// An iteration has ended.
    #[serde(rename = "span.outcome_evaluation_end")]
    OutcomeEvaluationEnd {
        /// The start event's id; `None` when the grader had not begun to look.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start: Option<EventId>,
        /// The outcome.
        outcome: OutcomeId,
        /// The iteration, counted from 0.
        iteration: u32,
        /// How it ended.
        result: Ending,
        /// Why.
        explanation: String,
        /// What the grader consumed.
        #[serde(default)]
        usage: Usage,
    },
    /// A program of the agent's begins to run.
    #[serde(rename = "workflow_run.created")]
    WorkflowRunCreated {
        /// The run.
        run: WorkflowRunId,
        /// What the agent calls it.
        name: String,
        /// What it is for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<String>,
        /// Its phases, in order.
        phases: Vec<workflow::Phase>,
    },
    /// A run goes on, waits for clients, or has ended.
    #[serde(rename = "workflow_run.status")]
    WorkflowRunStatus {
        /// The run.
        run: WorkflowRunId,
        /// Where it stands.
        status: workflow::Status,
    },
    /// A run could not begin or go on.
    #[serde(rename = "workflow_run.error")]
    WorkflowRunError {
        /// The run; none when it could not begin.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<WorkflowRunId>,
        /// Why.
        error: workflow::Error,
    },
    /// A run enters a phase.
    #[serde(rename = "workflow_run.phase_started")]
    WorkflowPhaseStarted {
        /// The run.
        run: WorkflowRunId,
        /// The phase.
        phase: WorkflowPhaseId,
    },
    /// A run leaves a phase.
    #[serde(rename = "workflow_run.phase_ended")]
    WorkflowPhaseEnded {
        /// The run.
        run: WorkflowRunId,
        /// The phase.
        phase: WorkflowPhaseId,
        /// The event that said that it entered it.
        start: EventId,
    },
    /// A call of a run has its answer, for its program alone.
    #[serde(rename = "workflow_run.answer")]
    WorkflowRunAnswer {
        /// The call.
        call: workflow::Call,
        /// Whether the agent did what it was asked to; otherwise the text says why not.
        ok: bool,
        /// What it said last.
        text: String,
    },
}

impl Body {
    /// The event's type, as it is serialised.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::UserMessage { .. } => "user.message",
            Self::UserInterrupt { .. } => "user.interrupt",
            Self::UserToolConfirmation { .. } => "user.tool_confirmation",
            Self::UserCustomToolResult { .. } => "user.custom_tool_result",
            Self::SystemMessage { .. } => "system.message",
            Self::UserDefineOutcome { .. } => "user.define_outcome",
            Self::AgentMessage { .. } => "agent.message",
            Self::AgentThinking { .. } => "agent.thinking",
            Self::AgentToolUse { .. } => "agent.tool_use",
            Self::AgentToolResult { .. } => "agent.tool_result",
            Self::ThreadCreated { .. } => "session.thread_created",
            Self::ThreadStatus { .. } => "session.thread_status",
            Self::ThreadToolUse { .. } => "session.thread_tool_use",
            Self::ThreadMessageSent { .. } => "agent.thread_message_sent",
            Self::ThreadMessageReceived { .. } => "agent.thread_message_received",
            Self::StatusRunning => "session.status_running",
            Self::StatusIdle { .. } => "session.status_idle",
            Self::StatusTerminated => "session.status_terminated",
            Self::SessionUpdated { .. } => "session.updated",
            Self::Error { .. } => "session.error",
            Self::EnvironmentBuild { .. } => "session.environment_build",
            Self::ModelChange { .. } => "session.model_change",
            Self::ThinkingLevelChange { .. } => "session.thinking_level_change",
            Self::Compaction { .. } => "session.compaction",
            Self::ModelRequestStart { .. } => "span.model_request_start",
            Self::ModelRequestEnd { .. } => "span.model_request_end",
            Self::OutcomeBegun { .. } => "session.outcome_begun",
            Self::OutcomeEvaluationStart { .. } => "span.outcome_evaluation_start",
            Self::OutcomeEvaluationOngoing { .. } => "span.outcome_evaluation_ongoing",
            Self::OutcomeEvaluationEnd { .. } => "span.outcome_evaluation_end",
            Self::WorkflowRunCreated { .. } => "workflow_run.created",
            Self::WorkflowRunStatus { .. } => "workflow_run.status",
            Self::WorkflowRunError { .. } => "workflow_run.error",
            Self::WorkflowPhaseStarted { .. } => "workflow_run.phase_started",
            Self::WorkflowPhaseEnded { .. } => "workflow_run.phase_ended",
            Self::WorkflowRunAnswer { .. } => "workflow_run.answer",
        }
    }
}
