//! Events: the entries of a session's log. What is not in the log did not happen.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::content::ContentBlock;
use crate::environment::build::Progress;
use crate::id::{AgentId, EventId, OutcomeId, SessionId, WorkflowPhaseId, WorkflowRunId};
use crate::origin::Origin;
use crate::outcome::Ending;
use crate::policy::Permission;
use crate::quota::Exceeded;
use crate::thinking::ThinkingLevel;
use crate::time::Timestamp;
use crate::usage::{Cost, NanoUsd, Totals, Usage};
use crate::workflow;

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

/// A user's message that goes on being shown to the model beside a summary that covers it, because the turn
/// that answers it is not over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Where it stands in the log.
    pub message: Seq,
    /// Which of its content blocks are shown word for word.
    pub whole: Vec<usize>,
    /// Which of its texts are shown without their middle. Of what is in neither list, the model is told that it is
    /// left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cut: Vec<Cut>,
}

/// A text that is shown without its middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The content block.
    pub block: usize,
    /// How much of its start is shown, in bytes.
    pub head: usize,
    /// How much of its end is shown, in bytes.
    pub tail: usize,
}

/// Why a model request or a whole turn failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Failure {
    /// The kind, for programs.
    pub kind: FailureKind,
    /// The provider's own message where there is one, for people.
    pub message: String,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The provider is overloaded or answered with a server error.
    ModelOverloaded,
    /// The provider limits our rate.
    ModelRateLimited,
    /// The provider refused the request.
    ModelRequestFailed,
    /// The provider refused a request with images or documents that it had not answered to before. They may be why,
    /// so the model is told that they were left out, and asked again.
    MediaRefused,
    /// No such provider, or no usable key for it.
    ModelUnavailable,
    /// The provider refused the key.
    ModelAuthentication,
    /// The account with the provider is out of credit.
    Billing,
    /// The context does not fit the model, even compacted.
    ContextOverflow,
    /// The turn made more model requests than a turn may.
    TurnLimit,
    /// The server stopped while the request was under way; it is made again.
    Restarted,
    /// An MCP server can't be reached or does not speak the protocol; the turn goes on without its tools.
    McpConnection,
    /// An MCP server refused the credentials, or wants some; the turn goes on without its tools.
    McpAuthentication,
    /// A repository wants to know who asks; the session goes on without it.
    RepositoryAuthentication,
    /// A repository is not for us; the session goes on without it.
    RepositoryForbidden,
    /// There is no such repository; the session goes on without it.
    RepositoryNotFound,
    /// A repository does not have what was to be checked out; the session goes on without it.
    RepositoryCheckout,
    /// A repository could not be cloned for another reason; the session goes on without it.
    RepositoryClone,
    /// Something in a repository should be a skill and is none; the session goes on without it.
    RepositorySkill,
    /// A process of the session wanted to reach a host that its environment does not let it reach.
    HostDenied,
    /// Secrets of the session's vaults are of no use in its sandbox.
    SecretsLeftOut,
    /// What the session's environment needs could not be installed.
    EnvironmentBuild,
    /// A fault of ours.
    Internal,
}

impl FailureKind {
    /// The kind's stable code.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ModelOverloaded => "model_overloaded_error",
            Self::ModelRateLimited => "model_rate_limited_error",
            Self::ModelRequestFailed => "model_request_failed_error",
            Self::MediaRefused => "media_refused_error",
            Self::ModelUnavailable => "model_unavailable_error",
            Self::ModelAuthentication => "model_authentication_error",
            Self::Billing => "billing_error",
            Self::ContextOverflow => "context_overflow_error",
            Self::TurnLimit => "tool_use_limit_reached_error",
            Self::Restarted => "restarted",
            Self::McpConnection => "mcp_connection_failed_error",
            Self::McpAuthentication => "mcp_authentication_failed_error",
            Self::RepositoryAuthentication => "repository_authentication_error",
            Self::RepositoryForbidden => "repository_forbidden_error",
            Self::RepositoryNotFound => "repository_not_found_error",
            Self::RepositoryCheckout => "repository_checkout_error",
            Self::RepositoryClone => "repository_clone_error",
            Self::RepositorySkill => "repository_skill_error",
            Self::HostDenied => "host_denied_error",
            Self::SecretsLeftOut => "secrets_left_out_error",
            Self::EnvironmentBuild => "environment_build_error",
            Self::Internal => "unknown_error",
        }
    }
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
