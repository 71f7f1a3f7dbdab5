//! Transitions: what an input makes of a state, and what that depends on.

use super::input::Input;
use super::queue::QueueChange;
use super::rejection::Rejection;
use super::state::State;
use crate::event::{Body, Seq};
use crate::id::EventId;
use crate::quota::{Exceeded, Quota};
use crate::time::Timestamp;

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
}
