//! Tables of the state machine: what each input does in each phase, and properties over random runs.

mod consultations;
mod opened;
mod properties;
mod tables;
mod threads;
mod workflows;

use std::sync::Arc;

use super::*;
use crate::content::ContentBlock;
use crate::event::{Body, BudgetChange, Failure, FailureKind, Purpose, Seq, StopReason, ThreadStatus};
use crate::id::{EventId, OutcomeId, WorkflowRunId};
use crate::origin::Origin;
use crate::outcome::{Definition, Stage, Verdict};
use crate::policy::Permission;
use crate::quota::{Bound, Exceeded, Price, Quota, Unreported};
use crate::thinking::ThinkingLevel;
use crate::usage::{Cost, CostTotal, NanoUsd, Spent, Usage};
use crate::workflow::{Ending, Status};

/// A session without an engine: it keeps the log and checks what every commit must satisfy.
#[derive(Clone, Default)]
pub(super) struct Machine {
    pub(super) state: State,
    pub(super) log: Vec<NewEvent>,
    pub(super) quota: Option<Quota>,
    pub(super) granted: Option<Result<u64, Exceeded>>,
    pub(super) max_requests: Option<u32>,
    pub(super) confirmation_timeout_ms: Option<u64>,
    /// Milliseconds that have passed.
    pub(super) passed: i64,
    fresh: u32,
}

pub(super) fn id(text: &str) -> EventId {
    EventId::parse(text).unwrap()
}

pub(super) fn post(name: &str) -> Input {
    Input::Post(Arc::new(Queued {
        id: id(name),
        content: vec![ContentBlock::text(name)],
        model: None,
        thinking_level: None,
        trace: None,
        charged: None,
        system: None,
        from: None,
    }))
}

pub(super) fn begin(name: &str) -> Input {
    begin_of(name, "p/m", Purpose::Reply, Bound::default())
}

fn begin_of(name: &str, model: &str, purpose: Purpose, bound: Bound) -> Input {
    Input::BeginRequest {
        id: id(name),
        model: model.into(),
        thinking_level: ThinkingLevel::Off,
        purpose,
        bound,
    }
}

/// A request that can consume so much, at one billionth of a dollar a token if it has a price.
pub(super) fn begin_bounded(name: &str, input: u64, output: u64, priced: bool) -> Input {
    let price = priced.then_some(Price {
        input: NanoUsd(input),
        output_token: NanoUsd(1),
    });
    begin_of(name, "p/m", Purpose::Reply, Bound { input, output, price })
}

/// A request that the work asks for now: of the grader, or of the agent.
pub(super) fn ask(machine: &Machine, name: &str) -> Input {
    let goal = machine.state.goal.as_ref();
    let of_agent = machine
        .state
        .turn()
        .is_some_and(|turn| turn.purpose == Purpose::Reply);
    let graded = goal.is_some_and(|goal| matches!(goal.stage, Stage::Evaluating { .. }));
    if graded && of_agent {
        grade(name)
    } else {
        begin(name)
    }
}

/// A request to the grader.
pub(super) fn grade(name: &str) -> Input {
    begin_of(name, "p/grader", Purpose::Evaluation, Bound::default())
}

/// What the grader says.
pub(super) fn verdict(request: &str, verdict: Verdict) -> Input {
    Input::FinishEvaluation {
        request: id(request),
        verdict,
        explanation: format!("because of {request}"),
        usage: Usage {
            input: 100,
            ..Usage::default()
        },
        cost: Some(Cost {
            amount: NanoUsd(3),
            source: "test".into(),
        }),
    }
}

/// An outcome to be reached in two iterations.
pub(super) fn define(name: &str) -> Input {
    Input::DefineOutcome(Arc::new(Definition {
        event: id(name),
        outcome: OutcomeId::parse(&format!("outc-{name}")).unwrap(),
        description: name.into(),
        rubric: "It is good.".into(),
        max_iterations: 2,
        trace: None,
        charged: None,
    }))
}

/// A change of the session's own budget.
pub(super) fn budget(max_cost: Option<u64>) -> Input {
    Input::Update {
        title: None,
        metadata: None,
        agent: None,
        budget: Some(max_cost.map(NanoUsd)),
    }
}

pub(super) fn reply(request: &str, blocks: Vec<ReplyBlock>) -> Input {
    let usage = Usage {
        input: 10,
        output: 5,
        ..Usage::default()
    };
    let cost = Some(Cost {
        amount: NanoUsd(7),
        source: "test".into(),
    });
    let reply = Reply {
        blocks,
        model: "p/m".into(),
        usage,
        cost,
        stop: ReplyStop::Done,
    };
    Input::FinishRequest {
        request: id(request),
        reply,
    }
}

pub(super) fn text(name: &str) -> ReplyBlock {
    ReplyBlock::Text {
        id: id(name),
        text: name.into(),
        opaque: None,
    }
}

pub(super) fn tool(name: &str, permission: Permission) -> ReplyBlock {
    uses(name, "bash", permission, Carrier::Server)
}

/// A use of a built-in tool that a worker of the developer's carries out.
pub(super) fn remote(name: &str, permission: Permission) -> ReplyBlock {
    uses(name, "bash", permission, Carrier::Worker)
}

/// A use of a tool that the client carries out.
pub(super) fn custom(name: &str) -> ReplyBlock {
    uses(name, "ticket", Permission::Allow, Carrier::Client)
}

/// A use of one of the tools by which sessions have others work.
pub(super) fn calls(name: &str, tool: &str) -> ReplyBlock {
    uses(name, tool, Permission::Allow, Carrier::Server)
}

/// Who carries a tool out.
#[derive(PartialEq)]
enum Carrier {
    Server,
    Client,
    Worker,
}

fn uses(name: &str, tool: &str, permission: Permission, carrier: Carrier) -> ReplyBlock {
    ReplyBlock::ToolUse {
        id: id(name),
        name: tool.into(),
        input: serde_json::json!({}),
        call_id: name.into(),
        permission,
        custom: carrier == Carrier::Client,
        remote: carrier == Carrier::Worker,
        origin: Origin::default(),
        opaque: None,
    }
}

pub(super) fn answer(tool: &str) -> Input {
    answer_of(tool, false)
}

/// The result of a worker.
pub(super) fn worked(tool: &str) -> Input {
    answer_of(tool, true)
}

fn answer_of(tool: &str, remote: bool) -> Input {
    Input::Answer {
        id: id(&format!("a-{tool}")),
        tool_use: id(tool),
        outcome: Outcome::text("ok"),
        remote,
        system: None,
    }
}

pub(super) fn done(tool: &str) -> Input {
    Input::FinishTool {
        tool_use: id(tool),
        outcome: Outcome::text("ok"),
        sandbox: None,
    }
}

pub(super) fn confirm(tool: &str, allow: bool) -> Input {
    Input::Confirm {
        id: id(&format!("c-{tool}")),
        tool_use: id(tool),
        allow,
        deny_message: None,
    }
}

/// What a session that was opened on behalf of this one says of itself.
pub(super) fn standing(turns: u64, tokens: u64) -> Standing {
    Standing {
        turns,
        spent: spending(tokens),
    }
}

pub(super) fn spending(tokens: u64) -> Spending {
    Spending {
        usage: Usage {
            input: tokens,
            ..Usage::default()
        },
        cost: CostTotal {
            known: NanoUsd(tokens),
            unknown_requests: 0,
        },
        ..Spending::default()
    }
}

pub(super) fn failure() -> Failure {
    Failure {
        kind: FailureKind::ModelOverloaded,
        message: "busy".into(),
    }
}

pub(super) fn fail(request: &str, retry: bool) -> Input {
    Input::FailRequest {
        request: id(request),
        failure: failure(),
        spent: Spent::Nothing,
        retry,
    }
}

pub(super) fn interrupt(clear_queue: bool) -> Input {
    Input::Interrupt {
        id: id("stop"),
        clear_queue,
        partial: Vec::new(),
        arrived: 0,
        outcomes: Vec::new(),
        delegated: Vec::new(),
    }
}

impl Machine {
    pub(super) fn feed(&mut self, input: Input) -> Result<Vec<Effect>, Rejection> {
        let mut fresh = self.fresh;
        let mut new_id = || {
            fresh += 1;
            id(&format!("e{fresh}"))
        };
        let mut ctx = Context {
            now: Timestamp(1000 + self.passed),
            created_at: Timestamp(0),
            quota: self.quota,
            granted: self.granted.unwrap_or(Ok(u64::MAX)),
            confirmation_timeout_ms: self.confirmation_timeout_ms,
            head: Seq(self.log.len() as u64),
            max_requests_per_turn: self.max_requests.unwrap_or(100),
            new_id: &mut new_id,
        };
        let transition = self.state.apply(input, &mut ctx)?;
        self.fresh = fresh;
        // The durable queue, changed as the store changes it, must be what the state says it is.
        let mut queue: Vec<EventId> = self
            .state
            .queue
            .iter()
            .map(|message| message.id.clone())
            .collect();
        for change in &transition.queue {
            match change {
                QueueChange::Push(message) => queue.push(message.id.clone()),
                QueueChange::Pop(first) => assert_eq!(queue.remove(0), *first),
                QueueChange::Clear => queue.clear(),
            }
        }
        let after: Vec<EventId> = transition
            .state
            .queue
            .iter()
            .map(|message| message.id.clone())
            .collect();
        assert_eq!(queue, after, "the durable queue has drifted");
        // What is stored is what is loaded.
        let stored = serde_json::to_string(&transition.state).unwrap();
        let mut loaded: State = serde_json::from_str(&stored).unwrap();
        loaded.queue.clone_from(&transition.state.queue);
        loaded.output.clone_from(&transition.state.output);
        loaded.evaluations.clone_from(&transition.state.evaluations);
        assert_eq!(loaded, transition.state);
        // The output is stored when it changes, so it can't be taken back.
        assert!(self.state.output.is_none() || transition.state.output.is_some());
        self.log.extend(transition.events);
        self.state = transition.state;
        Ok(transition.effects)
    }

    /// The log in shorthand, one word an event.
    pub(super) fn shorthand(&self) -> String {
        let words: Vec<String> = self
            .log
            .iter()
            .map(|event| word(&event.id, &event.body))
            .collect();
        words.join(" ")
    }

    pub(super) fn phase(&self) -> String {
        match &self.state.phase {
            Phase::Idle { stop: None } => "new".into(),
            Phase::Idle { stop: Some(stop) } => format!("idle:{}", reason(stop)),
            Phase::Blocked { .. } => "blocked".into(),
            Phase::Running { turn } => match &turn.step {
                Step::Ready => "ready".into(),
                Step::Sampling { .. } => "sampling".into(),
                Step::Acting { open } => format!("acting:{}", open.len()),
            },
        }
    }
}

fn reason(stop: &StopReason) -> String {
    match stop {
        StopReason::EndTurn => "end".into(),
        StopReason::MaxTokens => "max".into(),
        StopReason::Refusal { .. } => "refusal".into(),
        StopReason::Interrupted => "interrupted".into(),
        StopReason::RequiresAction { tool_uses } => {
            let ids: Vec<&str> = tool_uses.iter().map(EventId::as_str).collect();
            format!("asks({})", ids.join(","))
        }
        StopReason::BudgetReached { cap } => cap.as_str().into(),
        StopReason::Failed { .. } => "failed".into(),
    }
}

/// The name of the tool use that began a run.
fn short(run: &WorkflowRunId) -> &str {
    run.as_str().trim_start_matches("wrun_")
}

fn word(id: &EventId, body: &Body) -> String {
    match body {
        Body::UserMessage { .. } => format!("user:{id}"),
        Body::SystemMessage { .. } => format!("system:{id}"),
        Body::UserInterrupt {
            thread: Some(thread), ..
        } => format!("interrupt:{thread}"),
        Body::UserInterrupt { dropped, .. } if dropped.is_empty() => "interrupt".into(),
        Body::UserInterrupt { dropped, .. } => format!("interrupt-{}", dropped.len()),
        Body::UserToolConfirmation { tool_use, allow, .. } => format!("{tool_use}={allow}"),
        Body::AgentMessage {
            interrupted: true, ..
        } => format!("partial:{id}"),
        Body::AgentMessage { .. } => format!("says:{id}"),
        Body::AgentThinking { .. } => "thinks".into(),
        Body::AgentToolUse { .. } => format!("uses:{id}"),
        Body::AgentToolResult {
            tool_use, is_error, ..
        } => {
            format!("{}:{tool_use}", if *is_error { "error" } else { "result" })
        }
        Body::ThreadCreated { thread, .. } => format!("new:{thread}"),
        Body::ThreadStatus { thread, status, .. } => match status {
            ThreadStatus::Running => format!("run:{thread}"),
            ThreadStatus::Idle { stop_reason } => format!("idle:{thread}:{}", reason(stop_reason)),
            ThreadStatus::Terminated => format!("over:{thread}"),
        },
        Body::ThreadToolUse { thread, tool_use, .. } => format!("shows:{id}:{thread}:{tool_use}"),
        Body::ThreadMessageSent { to, .. } => format!("to:{to}"),
        Body::ThreadMessageReceived { from, .. } => format!("from:{from}"),
        Body::StatusRunning => "RUN".into(),
        Body::StatusIdle { stop_reason, .. } => format!("IDLE:{}", reason(stop_reason)),
        Body::StatusTerminated => "OVER".into(),
        Body::SessionUpdated {
            budget: Some(BudgetChange { max_cost }),
            ..
        } => format!("budget:{}", max_cost.map_or(0, |max| max.0)),
        Body::SessionUpdated { title, metadata, .. } => {
            let keys: Vec<_> = metadata.iter().flat_map(|all| all.keys().cloned()).collect();
            format!("updated:{}:{}", title.clone().unwrap_or_default(), keys.join(","))
        }
        Body::UserCustomToolResult { tool_use, .. } => format!("answer:{tool_use}"),
        Body::Error { retrying, .. } => if *retrying { "retry" } else { "failed" }.into(),
        Body::EnvironmentBuild { progress, .. } => format!("build:{}", progress.as_str()),
        Body::ModelChange { model } => format!("model={model}"),
        Body::ThinkingLevelChange { thinking_level } => format!("thinking={}", thinking_level.as_str()),
        Body::Compaction { through, .. } => format!("summary<={}", through.0),
        Body::ModelRequestStart { .. } => format!("({id}"),
        Body::UserDefineOutcome { waits, .. } => if *waits { "defines-later" } else { "defines" }.into(),
        Body::OutcomeBegun { defined, .. } => format!("begins:{}", defined.0),
        Body::OutcomeEvaluationStart { iteration, .. } => format!("<{iteration}"),
        Body::OutcomeEvaluationOngoing { .. } => "grading".into(),
        Body::OutcomeEvaluationEnd { start, result, .. } => {
            format!("{}{}>", if start.is_some() { "" } else { "?" }, result.as_str())
        }
        Body::WorkflowRunCreated { run, .. } => format!("flow:{}", short(run)),
        Body::WorkflowRunStatus { run, status } => {
            let status = match status {
                Status::Running => "runs",
                Status::Idle => "idle",
                Status::Ended { result } => match result {
                    Ending::Completed => "completed",
                    Ending::Stopped => "stopped",
                    Ending::Error { .. } => "failed",
                },
            };
            format!("flow-{status}:{}", short(run))
        }
        Body::WorkflowRunError { error, .. } => format!("flow-error:{}", error.kind.as_str()),
        Body::WorkflowPhaseStarted { run, phase } => {
            let name = if phase.as_str().ends_with("_0") {
                "one"
            } else {
                "two"
            };
            format!("{name}>{}", short(run))
        }
        Body::WorkflowPhaseEnded { run, .. } => format!("<{}", short(run)),
        Body::WorkflowRunAnswer { call, ok, .. } => format!("{}{}={ok}", short(&call.run), call.index),
        Body::ModelRequestEnd { is_error: true, .. } => "!)".into(),
        Body::ModelRequestEnd { .. } => ")".into(),
    }
}
