//! A run ends.

use super::super::input::Outcome;
use super::super::rejection::Rejection;
use super::super::tool_use::Gate;
use super::super::transition::{Context, Transition};
use crate::event::{Body, StopReason, ThreadStatus};
use crate::id::{SessionId, WorkflowRunId};
use crate::workflow::{Ending, Status};

impl Transition {
    /// Ends a run, with whatever of it is still under way, and gives the tool use that waited for it its result.
    pub(in crate::session) fn end_run(
        &mut self,
        id: &WorkflowRunId,
        result: Ending,
        outcome: Outcome,
        ctx: &mut Context<'_>,
    ) -> Result<(), Rejection> {
        self.running_turn()?;
        let run = self.state.runs.get(id).ok_or(Rejection::Stale)?;
        let tool_use = run.tool_use.clone();
        let under_way: Vec<SessionId> = self
            .state
            .calls_of(id)
            .map(|(thread, _)| thread.clone())
            .collect();
        for thread in under_way {
            self.release_thread(&thread, ctx);
        }
        self.close_run(id, result, ctx);
        if let Some(tool) = self
            .run_tool_mut(&tool_use)
            .filter(|tool| tool.gate == Gate::Thread)
        {
            tool.gate = Gate::Open;
        }
        self.finish_tool(&tool_use, outcome, None, ctx)
    }

    /// The turn waits for this thread no more; what it did was stopped with that.
    pub(in crate::session) fn release_thread(&mut self, id: &SessionId, ctx: &mut Context<'_>) {
        let Some(thread) = self.state.threads.get_mut(id) else {
            return;
        };
        thread.errand = None;
        let rested = !thread.works && thread.awaited.is_empty();
        thread.awaited.clear();
        thread.orders.clear();
        if !rested {
            let stop_reason = StopReason::Interrupted;
            self.announce(id, ThreadStatus::Idle { stop_reason }, ctx);
        }
        self.end_with_answer(id, ctx);
    }

    /// Ends all runs with the turn. Their threads have been released.
    pub(in crate::session) fn close_runs(&mut self, result: &Ending, ctx: &mut Context<'_>) {
        let runs: Vec<WorkflowRunId> = self.state.runs.keys().cloned().collect();
        for run in runs {
            self.close_run(&run, result.clone(), ctx);
        }
    }

    fn close_run(&mut self, id: &WorkflowRunId, result: Ending, ctx: &mut Context<'_>) {
        self.leave_phase(id, ctx);
        self.state.runs.remove(id);
        if let Ending::Error { error } = &result {
            let (run, error) = (Some(id.clone()), error.clone());
            self.push(ctx, Body::WorkflowRunError { run, error });
        }
        self.tell_run(id, Status::Ended { result }, ctx);
    }

    /// The time of runs that wait for clients is over: they go on, to be ended. Tells whether there was one.
    pub(in crate::session) fn lapse_runs(&mut self, ctx: &mut Context<'_>) -> bool {
        let over: Vec<WorkflowRunId> = self
            .state
            .runs
            .iter()
            .filter(|(_, run)| {
                let waits = |tool: &super::OpenTool| tool.id == run.tool_use && tool.gate == Gate::Thread;
                run.deadline() <= ctx.now && self.state.open_tools().iter().any(waits)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for run in &over {
            self.resume_run(run, ctx);
        }
        !over.is_empty()
    }
}
