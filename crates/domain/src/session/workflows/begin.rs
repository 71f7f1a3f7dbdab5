//! A run begins, and its program gets on.

use super::super::input::Outcome;
use super::super::rejection::Rejection;
use super::super::tool_use::{Gate, OpenTool};
use super::super::transition::{Context, Transition};
use super::{OpenPhase, Run};
use crate::event::{Body, Seq};
use crate::id::{EventId, WorkflowPhaseId, WorkflowRunId};
use crate::workflow::{Error, ErrorKind, MAX_RUNS, Phase, Status};

impl Transition {
    /// Records a new run of an open tool use. Begun already, it is not begun again.
    pub(in crate::session) fn begin_run(
        &mut self,
        tool_use: &EventId,
        name: String,
        description: Option<String>,
        phases: Vec<Phase>,
        ctx: &mut Context<'_>,
    ) -> Result<(), Rejection> {
        self.may_run(tool_use)?;
        let run = WorkflowRunId::of(tool_use);
        if self.state.runs.contains_key(&run) {
            return Ok(());
        }
        if self.state.runs.len() >= MAX_RUNS {
            return Err(Rejection::TooManyRuns);
        }
        let begun = Run {
            tool_use: tool_use.clone(),
            since: Seq(ctx.head.0 + self.events.len() as u64),
            started_at: ctx.now,
            phases: u32::try_from(phases.len()).unwrap_or(u32::MAX),
            phase: None,
            marks: 0,
            asked: 0,
            begun: 0,
        };
        self.state.runs.insert(run.clone(), begun);
        self.push(
            ctx,
            Body::WorkflowRunCreated {
                run: run.clone(),
                name,
                description,
                phases,
            },
        );
        self.tell_run(&run, Status::Running, ctx);
        Ok(())
    }

    /// Records that a run can't begin because there are too many, as the tool use's result.
    pub(in crate::session) fn refuse_run(
        &mut self,
        tool_use: &EventId,
        ctx: &mut Context<'_>,
    ) -> Result<(), Rejection> {
        self.may_run(tool_use)?;
        if self.state.runs.contains_key(&WorkflowRunId::of(tool_use)) || self.state.runs.len() < MAX_RUNS {
            return Err(Rejection::Stale);
        }
        let message = Rejection::TooManyRuns.to_string();
        let error = Error {
            kind: ErrorKind::MaxRuns,
            message: message.clone(),
        };
        self.push(ctx, Body::WorkflowRunError { run: None, error });
        let outcome = Outcome::error(format!("The run was not begun: {message}."));
        self.finish_tool(tool_use, outcome, None, ctx)
    }

    /// Only an open tool use of the running turn can have a run.
    fn may_run(&mut self, tool_use: &EventId) -> Result<(), Rejection> {
        self.running_turn()?;
        let may = |tool: &OpenTool| tool.id == *tool_use && tool.gate == Gate::Open;
        match self.state.open_tools().iter().any(may) {
            true => Ok(()),
            false => Err(Rejection::Stale),
        }
    }

    /// Records how far a run's program has got: all phases that it has entered, and how many calls it has made. What was
    /// recorded before is not recorded again.
    pub(in crate::session) fn advance_run(
        &mut self,
        id: &WorkflowRunId,
        marks: &[u32],
        asked: u32,
        ctx: &mut Context<'_>,
    ) -> Result<(), Rejection> {
        self.running_turn()?;
        let run = self.state.runs.get_mut(id).ok_or(Rejection::Stale)?;
        run.asked = run.asked.max(asked);
        let (known, phases) = (run.marks as usize, run.phases);
        for index in marks.iter().skip(known).filter(|index| **index < phases) {
            self.leave_phase(id, ctx);
            let start = (ctx.new_id)();
            self.push_as(
                start.clone(),
                Body::WorkflowPhaseStarted {
                    run: id.clone(),
                    phase: WorkflowPhaseId::of(id, *index),
                },
            );
            if let Some(run) = self.state.runs.get_mut(id) {
                run.marks += 1;
                run.phase = Some(OpenPhase { index: *index, start });
            }
        }
        Ok(())
    }

    /// Ends the phase that a run is in.
    pub(super) fn leave_phase(&mut self, id: &WorkflowRunId, ctx: &mut Context<'_>) {
        let open = self.state.runs.get_mut(id).and_then(|run| run.phase.take());
        if let Some(OpenPhase { index, start }) = open {
            self.push(
                ctx,
                Body::WorkflowPhaseEnded {
                    run: id.clone(),
                    phase: WorkflowPhaseId::of(id, index),
                    start,
                },
            );
        }
    }
}
