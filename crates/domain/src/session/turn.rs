//! Turns, and what the transitions share of them: how a turn begins, goes on and ends.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::input::Outcome;
use super::queue::{QueueChange, Queued, SystemNote};
use super::rejection::Rejection;
use super::state::Phase;
use super::tool_use::{Gate, OpenTool};
use super::transition::{Context, Effect, NewEvent, Transition};
use crate::event::{Body, Purpose, StopReason, ThreadRef};
use crate::id::{EventId, KeyId};
use crate::quota::Bound;
use crate::time::Timestamp;
use crate::trace::TraceParent;
use crate::usage::{Spent, Usage};

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

/// What the model is told of a tool use that a cancel cut off.
pub(super) const INTERRUPTED: &str = "Tool execution was interrupted before completion.";

impl Transition {
    pub(super) fn push(&mut self, ctx: &mut Context<'_>, body: Body) {
        let id = (ctx.new_id)();
        self.push_as(id, body);
    }

    pub(super) fn push_as(&mut self, id: EventId, body: Body) {
        self.events.push(NewEvent { id, body });
    }

    /// Says that the session works from here on.
    pub(super) fn begin_work(&mut self, ctx: &mut Context<'_>) {
        self.state.working_since = Some(ctx.now);
        self.push(ctx, Body::StatusRunning);
    }

    /// Says that it does not, and what it has consumed until here.
    pub(super) fn end_work(&mut self, stop_reason: StopReason, ctx: &mut Context<'_>) {
        let totals = self.state.totals(ctx.now);
        self.state.active_ms = totals.active_ms;
        self.state.working_since = None;
        self.push(
            ctx,
            Body::StatusIdle {
                stop_reason,
                totals: Some(totals),
                budget: self.state.budget,
            },
        );
    }

    /// The turn in progress; `Stale` when there is none or it is blocked.
    pub(super) fn running_turn(&mut self) -> Result<&mut Turn, Rejection> {
        match &mut self.state.phase {
            Phase::Running { turn } => Ok(turn),
            Phase::Idle { .. } | Phase::Blocked { .. } => Err(Rejection::Stale),
        }
    }

    /// The running turn, if `request` is the model request that it waits for.
    pub(super) fn sampling_turn(&mut self, request: &EventId) -> Result<&mut Turn, Rejection> {
        let turn = self.running_turn()?;
        match &turn.step {
            Step::Sampling { request: current, .. } if current == request => Ok(turn),
            _ => Err(Rejection::Stale),
        }
    }

    /// Closes a model request that gave no answer, and counts what it consumed: what was reported in the usage, what
    /// it must have consumed besides against the budgets alone.
    pub(super) fn close_request(
        &mut self,
        request: EventId,
        purpose: Purpose,
        bound: &Bound,
        spent: Spent,
        ctx: &mut Context<'_>,
    ) {
        let (usage, cost) = match spent {
            Spent::Nothing => (Usage::default(), None),
            Spent::All { usage, cost } => {
                self.state.cost.add(cost.as_ref());
                (usage, cost)
            }
            Spent::AtLeast { usage, cost, arrived } => {
                self.state.cost.add_at_least(cost.as_ref());
                self.state.unreported.add(&bound.unreported(&usage, arrived));
                (usage, None)
            }
        };
        self.state.usage.add(&usage);
        self.push(
            ctx,
            Body::ModelRequestEnd {
                request,
                is_error: true,
                purpose,
                usage,
                cost,
            },
        );
    }

    /// Records what accompanies the event before.
    pub(super) fn accompany(&mut self, system: Option<SystemNote>) {
        if let Some(SystemNote { id, content }) = system {
            let thread = None;
            self.push_as(id, Body::SystemMessage { content, thread });
        }
    }

    /// Starts the turn of a message, from idle or directly after another turn.
    pub(super) fn start_turn(&mut self, message: &Arc<Queued>, ctx: &mut Context<'_>) {
        if !self.state.is_running() {
            self.begin_work(ctx);
        }
        self.released();
        if let Some(model) = &message.model
            && self.state.model.as_ref() != Some(model)
        {
            self.push(ctx, Body::ModelChange { model: model.clone() });
            self.state.model = Some(model.clone());
        }
        if let Some(level) = message.thinking_level
            && self.state.thinking_level != Some(level)
        {
            self.push(
                ctx,
                Body::ThinkingLevelChange {
                    thinking_level: level,
                },
            );
            self.state.thinking_level = Some(level);
        }
        self.push_as(
            message.id.clone(),
            Body::UserMessage {
                content: message.content.clone(),
                from: message.from.clone(),
            },
        );
        self.accompany(message.system.clone());
        let (trace, charged) = (message.trace.clone(), message.charged.clone());
        self.run(message.id.clone(), Purpose::Reply, trace, charged, ctx);
        if let Phase::Running { turn } = &mut self.state.phase {
            turn.answers.clone_from(&message.from);
        }
    }

    /// Puts a fresh turn in place and asks for it to be driven.
    pub(super) fn run(
        &mut self,
        id: EventId,
        purpose: Purpose,
        trace: Option<TraceParent>,
        charged: Option<KeyId>,
        ctx: &Context<'_>,
    ) {
        let turn = Turn {
            id,
            purpose,
            step: Step::Ready,
            requests: 0,
            failed_attempts: 0,
            started_at: ctx.now,
            trace,
            charged,
            answers: None,
            said: false,
        };
        self.state.phase = Phase::Running { turn };
        self.effects.push(Effect::Drive);
    }

    /// Ends the turn. After a plain end the next waiting message follows without a pause; after any other end
    /// the session is seen idle first. After the messages comes the work towards an outcome that was defined
    /// meanwhile, and what a budget had stopped. A spent budget holds all of that until it is raised.
    pub(super) fn end_turn(&mut self, stop: StopReason, ctx: &mut Context<'_>) {
        self.settle_outcome(&stop, ctx);
        self.report(&stop, ctx);
        let holds = matches!(stop, StopReason::BudgetReached { .. });
        // Only a summary can be made while a turn waits for its budget.
        let kept = self.state.suspended.is_some();
        let goes_on = !holds && kept && (stop == StopReason::EndTurn || self.state.goal.is_some());
        let waiting = if holds || goes_on {
            None
        } else {
            self.state.queue.pop_front()
        };
        let begins = !holds && !goes_on && waiting.is_none() && self.outcome_waits();
        if stop != StopReason::EndTurn || (waiting.is_none() && !begins && !goes_on) {
            self.end_work(stop.clone(), ctx);
            self.state.phase = Phase::Idle { stop: Some(stop) };
        }
        if let Some(message) = waiting {
            self.queue.push(QueueChange::Pop(message.id.clone()));
            self.start_turn(&message, ctx);
        } else if goes_on {
            self.take_up(ctx);
        } else if begins {
            self.begin_outcome(ctx);
        }
    }

    /// Appends a tool use's one result.
    pub(super) fn close_tool(&mut self, tool: &OpenTool, outcome: Outcome, ctx: &mut Context<'_>) {
        let Outcome { content, is_error } = outcome;
        self.push(
            ctx,
            Body::AgentToolResult {
                tool_use: tool.id.clone(),
                name: tool.name.clone(),
                content,
                is_error,
                of_server: tool.of_server,
            },
        );
    }

    /// Decides what follows when the set of open tool uses has changed: more tools, a wait for
    /// confirmations, or the next model request.
    pub(super) fn after_tools(&mut self, open: Vec<OpenTool>, ctx: &mut Context<'_>) {
        let Ok(turn) = self.running_turn() else { return };
        if open.is_empty() {
            turn.step = Step::Ready;
            return;
        }
        let runnable = open.iter().any(|tool| tool.gate == Gate::Open);
        turn.step = Step::Acting { open };
        if !runnable {
            self.block(ctx);
        }
    }

    /// Stops until the remaining answers of clients are there.
    pub(super) fn block(&mut self, ctx: &mut Context<'_>) {
        let phase = std::mem::take(&mut self.state.phase);
        let (Phase::Running { turn } | Phase::Blocked { turn }) = phase else {
            return;
        };
        self.state.phase = Phase::Blocked { turn };
        let tool_uses = self.state.awaited();
        self.end_work(StopReason::RequiresAction { tool_uses }, ctx);
    }
}
