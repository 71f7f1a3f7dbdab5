//! A run's program calls an agent.

use super::super::delegate::Standing;
use super::super::rejection::Rejection;
use super::super::threads::{News, Thread};
use super::super::tool_use::OpenTool;
use super::super::transition::{Context, Transition};
use super::super::turn::Step;
use crate::event::{Body, Seq};
use crate::id::{AgentId, SessionId, WorkflowRunId};
use crate::multiagent::{CONSULT_ADVISOR, CREATE_AGENT, SEND_TO_AGENT};
use crate::workflow::{Call, MAX_ANSWER, MAX_AT_ONCE};

/// A call that is about to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeginCall {
    /// The call.
    pub call: Call,
    /// Who is called.
    pub agent: AgentId,
    /// The name of that agent.
    pub agent_name: String,
}

impl Transition {
    /// Records a call's thread and sets aside what it may consume. Calls begin in their order; one that has begun does
    /// not begin again.
    pub(in crate::session) fn begin_call(
        &mut self,
        BeginCall {
            call,
            agent,
            agent_name,
        }: BeginCall,
        ctx: &mut Context<'_>,
    ) -> Result<(), Rejection> {
        self.running_turn()?;
        let run = self.state.runs.get(&call.run).ok_or(Rejection::Stale)?;
        if call.index < run.begun {
            return Ok(());
        }
        if call.index > run.begun || call.index >= run.asked {
            return Err(Rejection::Stale);
        }
        if self.state.calls_of(&call.run).count() >= MAX_AT_ONCE {
            return Err(Rejection::Busy);
        }
        let tool_use = run.tool_use.clone();
        // What is left is shared by those that are about to begin and the agent, which has to go on afterwards.
        let messages = |tool: &&OpenTool| {
            [SEND_TO_AGENT, CREATE_AGENT, CONSULT_ADVISOR].contains(&tool.name.as_str())
                && self.state.thread_of(&tool.id).is_none()
        };
        let messages = self.state.open_tools().iter().filter(messages).count() as u64;
        let runs = self.state.runs.values();
        let calls: u64 = runs
            .map(|run| u64::from(run.asked.saturating_sub(run.begun)))
            .sum();
        let thread = SessionId::of_call(&call);
        self.lend(&thread, None, messages + calls + 1, ctx)?;
        self.push(
            ctx,
            Body::ThreadCreated {
                thread: thread.clone(),
                agent_name: agent_name.clone(),
                run: Some(call.run.clone()),
            },
        );
        if let Some(run) = self.state.runs.get_mut(&call.run) {
            run.begun += 1;
        }
        self.state.threads.insert(
            thread,
            Thread {
                agent,
                agent_name,
                errand: Some(tool_use),
                call: Some(call),
                seen: Seq(0),
                works: false,
                awaited: Vec::new(),
                orders: Vec::new(),
                is_over: false,
                active_ms: 0,
            },
        );
        Ok(())
    }

    /// Records that a call can't even begin, as its answer.
    pub(in crate::session) fn refuse_call(
        &mut self,
        call: &Call,
        text: String,
        ctx: &mut Context<'_>,
    ) -> Result<(), Rejection> {
        self.running_turn()?;
        let run = self.state.runs.get_mut(&call.run).ok_or(Rejection::Stale)?;
        if call.index != run.begun || call.index >= run.asked {
            return Err(Rejection::Stale);
        }
        run.begun += 1;
        self.push_answer(call, (false, text), ctx);
        self.settle_calls(&call.run, ctx);
        Ok(())
    }

    /// Enters the last that happened in a call's thread, which ends for good, and its answer.
    pub(in crate::session) fn finish_call(
        &mut self,
        call: &Call,
        answer: (bool, String),
        (through, news): (Seq, Vec<News>),
        standing: Option<&Standing>,
        active_ms: u64,
        ctx: &mut Context<'_>,
    ) -> Result<(), Rejection> {
        self.running_turn()?;
        let thread = SessionId::of_call(call);
        let waited_for = |known: &Thread| known.errand.is_some() && !known.is_over;
        if !self.state.threads.get(&thread).is_some_and(waited_for) {
            return Err(Rejection::Stale);
        }
        for one in news {
            self.enter(&thread, one, ctx);
        }
        if let Some(known) = self.state.threads.get_mut(&thread) {
            known.seen = known.seen.max(through);
            known.active_ms = active_ms.max(known.active_ms);
            known.awaited.clear();
            known.orders.clear();
            known.errand = None;
        }
        self.end_with_answer(&thread, ctx);
        self.push_answer(call, answer, ctx);
        // It may have been counted before, when this session looked by itself.
        match self.give_back(&thread, standing) {
            Ok(()) | Err(Rejection::Stale) => {}
            Err(rejection) => return Err(rejection),
        }
        if standing.is_none() {
            // It was deleted.
            self.forget_thread(&thread);
        }
        self.settle_calls(&call.run, ctx);
        Ok(())
    }

    /// Those that are left may all wait for clients, and then the turn may.
    fn settle_calls(&mut self, run: &WorkflowRunId, ctx: &mut Context<'_>) {
        self.settle_run(run, ctx);
        let open = match self.state.turn().map(|turn| &turn.step) {
            Some(Step::Acting { open }) => open.clone(),
            _ => return,
        };
        self.after_tools(open, ctx);
    }

    /// Puts a call's answer into the log, where the program finds it.
    pub(in crate::session) fn push_answer(
        &mut self,
        call: &Call,
        (ok, text): (bool, String),
        ctx: &mut Context<'_>,
    ) {
        let call = call.clone();
        let text = within(text);
        self.push(ctx, Body::WorkflowRunAnswer { call, ok, text });
    }
}

/// A text that is not longer than an answer may be; one that was cut says so.
fn within(mut text: String) -> String {
    if text.len() > MAX_ANSWER {
        let note = format!("\n[cut: the answer has {} bytes]", text.len());
        text.truncate(text.floor_char_boundary(MAX_ANSWER - note.len()));
        text.push_str(&note);
    }
    text
}
