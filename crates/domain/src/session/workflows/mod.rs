//! Workflow runs: programs of the agent's that have other agents work in threads.
//!
//! A run belongs to the tool use that began it, which ends with it. The program itself is in the tool use's arguments, what
//! its calls have answered is in the log, and how far it has got is here: so the engine can evaluate it anew from the log
//! alone, wherever the server stops. A call is a thread like those that messages go to, but that it ends for good with its
//! answer, and that the answer is the program's to read and not the model's.
//!
//! A run is idle when all of its calls that are under way wait for clients and no other one can begin.

mod begin;
mod call;
mod end;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use call::BeginCall;

use super::state::{Phase, State};
use super::threads::Thread;
use super::tool_use::{Gate, OpenTool};
use super::transition::{Context, Effect, Transition};
use super::turn::Step;
use crate::event::{Body, Seq};
use crate::id::{EventId, SessionId, WorkflowRunId};
use crate::time::Timestamp;
use crate::workflow::{LIFETIME_MS, MAX_AT_ONCE, Status};

/// A run that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The tool use that began it and waits for its end.
    pub tool_use: EventId,
    /// After which position of the log all that concerns it stands.
    pub since: Seq,
    /// When it began.
    pub started_at: Timestamp,
    /// How many phases it has.
    pub phases: u32,
    /// The phase that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<OpenPhase>,
    /// How many times its program has entered a phase.
    pub marks: u32,
    /// How many calls its program has made.
    pub asked: u32,
    /// How many of them have begun: the first ones.
    pub begun: u32,
}

/// A phase that a run is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenPhase {
    /// Its place among the run's phases.
    pub index: u32,
    /// The event that says that it began.
    pub start: EventId,
}

impl Run {
    /// When its time is over.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        self.started_at.plus_millis(LIFETIME_MS)
    }
}

/// The runs of a session that have not ended.
pub type Runs = BTreeMap<WorkflowRunId, Run>;

impl State {
    /// The threads of a run's calls that are under way.
    pub fn calls_of<'a>(
        &'a self,
        run: &'a WorkflowRunId,
    ) -> impl Iterator<Item = (&'a SessionId, &'a Thread)> {
        let is_its = move |(_, thread): &(&SessionId, &Thread)| {
            let call = thread.call.as_ref().filter(|_| thread.errand.is_some());
            call.is_some_and(|call| call.run == *run)
        };
        self.threads.iter().filter(is_its)
    }

    /// The open tool use that waits for a run.
    fn run_tool(&self, run: &Run) -> Option<&OpenTool> {
        self.open_tools().iter().find(|tool| tool.id == run.tool_use)
    }

    /// Whether all that a run waits for waits for clients.
    fn waits_for_clients(&self, id: &WorkflowRunId, run: &Run) -> bool {
        let waits = |thread: &Thread| !thread.works && !thread.awaited.is_empty() && thread.orders.is_empty();
        let under_way = self.calls_of(id).count();
        under_way > 0
            && (run.begun == run.asked || under_way >= MAX_AT_ONCE)
            && self.calls_of(id).all(|(_, thread)| waits(thread))
    }

    /// When the first of the runs that wait for clients has had its time.
    pub(super) fn run_deadline(&self) -> Option<Timestamp> {
        let runs = self.runs.values();
        let waiting = runs.filter(|run| {
            let tool = self.run_tool(run);
            tool.is_some_and(|tool| tool.gate == Gate::Thread)
        });
        waiting.map(Run::deadline).min()
    }
}

impl Transition {
    /// Says where a run stands.
    fn tell_run(&mut self, run: &WorkflowRunId, status: Status, ctx: &mut Context<'_>) {
        let run = run.clone();
        self.push(ctx, Body::WorkflowRunStatus { run, status });
    }

    /// The tool use that waits for a run, to be changed.
    fn run_tool_mut(&mut self, tool_use: &EventId) -> Option<&mut OpenTool> {
        let (Phase::Running { turn } | Phase::Blocked { turn }) = &mut self.state.phase else {
            return None;
        };
        let Step::Acting { open } = &mut turn.step else {
            return None;
        };
        open.iter_mut().find(|tool| tool.id == *tool_use)
    }

    /// Has a run wait for clients if all of its calls do, and go on if they don't.
    pub(in crate::session) fn settle_run(&mut self, id: &WorkflowRunId, ctx: &mut Context<'_>) {
        let Some(run) = self.state.runs.get(id) else {
            return;
        };
        if !self.state.waits_for_clients(id, run) {
            return self.resume_run(id, ctx);
        }
        let tool_use = run.tool_use.clone();
        if let Some(tool) = self
            .run_tool_mut(&tool_use)
            .filter(|tool| tool.gate == Gate::Open)
        {
            tool.gate = Gate::Thread;
            self.tell_run(id, Status::Idle, ctx);
        }
    }

    /// Lets a run go on that waited for clients, and with it a turn that did.
    pub(in crate::session) fn resume_run(&mut self, id: &WorkflowRunId, ctx: &mut Context<'_>) {
        let Some(run) = self.state.runs.get(id) else {
            return;
        };
        let tool_use = run.tool_use.clone();
        let waited = |tool: &&mut OpenTool| tool.gate == Gate::Thread;
        let Some(tool) = self.run_tool_mut(&tool_use).filter(waited) else {
            return;
        };
        tool.gate = Gate::Open;
        self.unblock(ctx);
        self.tell_run(id, Status::Running, ctx);
    }

    /// A blocked turn goes on, because one of its tool uses can.
    pub(in crate::session) fn unblock(&mut self, ctx: &mut Context<'_>) {
        if !matches!(self.state.phase, Phase::Blocked { .. }) {
            return;
        }
        self.begin_work(ctx);
        if let Phase::Blocked { mut turn } = std::mem::take(&mut self.state.phase) {
            if let Step::Acting { open } = &mut turn.step {
                let confirmed = open.iter_mut().filter(|tool| tool.gate == Gate::Confirmed);
                confirmed.for_each(|tool| tool.gate = Gate::Open);
            }
            self.state.phase = Phase::Running { turn };
            self.effects.push(Effect::Drive);
        }
    }
}
