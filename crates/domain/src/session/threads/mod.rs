//! Threads: sessions in which other agents work for this one, in its sandbox.
//!
//! The coordinator's tool use sends a message to a thread and waits until the thread rests. What concerns the whole
//! session of what happens in the thread is an entry of this session's log, too: where the thread stands, which of its
//! tool uses wait for a client, and what it answers. How far the thread's log has been looked through is in the state, so
//! nothing is entered twice and nothing is missed, wherever the server stops.
//!
//! A client's word to a thread is recorded here first, as an [`Order`], and delivered to the thread afterwards: what was
//! accepted takes effect, also when the server stops between the two.

mod archive;
mod mirror;
mod route;
mod send;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use mirror::News;
pub use send::Dispatch;

use super::input::Outcome;
use super::state::{Phase, State};
use super::tool_use::{Gate, OpenTool};
use super::transition::{Context, Transition};
use super::turn::{Step, Turn};
use crate::content::ContentBlock;
use crate::event::{Body, Seq, StopReason, ThreadRef, ThreadStatus};
use crate::id::{AgentId, EventId, SessionId};
use crate::workflow::{Call, Ending};

/// The most threads that are not archived, besides those of advisors and workflow runs.
pub const MAX_THREADS: usize = 25;

/// A thread, as its coordinator knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Thread {
    /// Who works in it.
    pub agent: AgentId,
    /// The name of that agent.
    pub agent_name: String,
    /// The tool use that waits for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errand: Option<EventId>,
    /// The call of a workflow run that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<Call>,
    /// How far its log has been looked through.
    pub seen: Seq,
    /// Whether it was seen at work last.
    #[serde(default)]
    pub works: bool,
    /// Its tool uses that wait for a client.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub awaited: Vec<Awaited>,
    /// What clients have said that it has not been told yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orders: Vec<Order>,
    /// Whether it was archived, and its own session may not know yet.
    #[serde(default)]
    pub is_over: bool,
    /// How long it had worked when it came to rest last, in milliseconds.
    #[serde(default)]
    pub active_ms: u64,
}

/// A thread's tool use that waits for a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Awaited {
    /// The event that shows it in the coordinator's log; clients may answer under this id.
    pub id: EventId,
    /// Its own id.
    pub tool_use: EventId,
    /// Whether the client carries it out.
    pub custom: bool,
}

/// What a client has said to a thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Order {
    /// A tool use may run, or not.
    Confirm {
        /// It, by its own id.
        tool_use: EventId,
        /// Whether it may.
        allow: bool,
        /// What the model is told when it may not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deny_message: Option<String>,
    },
    /// The result of a tool that the client carries out.
    Answer {
        /// The tool use, by its own id.
        tool_use: EventId,
        /// Its result.
        outcome: Outcome,
        /// Whether the tool is a built-in one that a worker carries out.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        remote: bool,
        /// What the system message says that accompanies it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        system: Option<Vec<ContentBlock>>,
    },
    /// It is to stop.
    Interrupt,
}

impl Thread {
    /// Whether it is a consultation of an advisor, which ends with the advice.
    #[must_use]
    pub fn is_consultation(&self) -> bool {
        self.agent.is_advisor()
    }

    /// Whether it ends for good with its answer: consultations do, and calls of workflow runs.
    #[must_use]
    pub fn ends_with_answer(&self) -> bool {
        self.is_consultation() || self.call.is_some()
    }
}

/// The threads of a session.
pub type Threads = BTreeMap<SessionId, Thread>;

impl State {
    /// The thread that a tool use waits for; of a workflow run's tool use any one.
    #[must_use]
    pub fn thread_of(&self, tool_use: &EventId) -> Option<(&SessionId, &Thread)> {
        let is_its = |(_, thread): &(&SessionId, &Thread)| thread.errand.as_ref() == Some(tool_use);
        self.threads.iter().find(is_its)
    }

    /// The thread whose tool use waits under this id, which may be the coordinator's or the thread's own.
    #[must_use]
    pub fn thread_awaiting(&self, id: &EventId) -> Option<(&SessionId, &Awaited)> {
        let known = |awaited: &&Awaited| awaited.id == *id || awaited.tool_use == *id;
        let mut threads = self.threads.iter();
        threads.find_map(|(thread, it)| Some((thread, it.awaited.iter().find(known)?)))
    }

    /// Whether sessions of threads that were archived have yet to be told.
    #[must_use]
    pub fn has_threads_to_close(&self) -> bool {
        self.threads.values().any(|thread| thread.is_over)
    }

    /// What its threads have worked, each for itself, in milliseconds.
    #[must_use]
    pub fn threads_active_ms(&self) -> u64 {
        let live: u64 = self.threads.values().map(|thread| thread.active_ms).sum();
        live.saturating_add(self.closed_threads_ms)
    }

    /// The ids under which clients answer what an open tool use waits with.
    pub(super) fn awaited_of<'a>(&'a self, tool: &'a OpenTool) -> Vec<EventId> {
        match tool.gate {
            Gate::Thread => {
                let waited_for = |thread: &&Thread| thread.errand.as_ref() == Some(&tool.id);
                let threads = self.threads.values().filter(waited_for);
                let awaited = threads.flat_map(|thread| &thread.awaited);
                awaited.map(|awaited| awaited.id.clone()).collect()
            }
            gate if gate.awaits_client() => vec![tool.id.clone()],
            _ => Vec::new(),
        }
    }
}

impl Transition {
    /// Forgets a thread, but not how long it worked.
    pub(super) fn forget_thread(&mut self, thread: &SessionId) {
        if let Some(gone) = self.state.threads.remove(thread) {
            let total = &mut self.state.closed_threads_ms;
            *total = total.saturating_add(gone.active_ms);
        }
    }

    /// Ends a thread for good, with whatever it has led to, if it is one that ends so. Its own session has yet to be told.
    pub(super) fn end_with_answer(&mut self, thread: &SessionId, ctx: &mut Context<'_>) {
        let ends = |known: &&mut Thread| known.ends_with_answer() && !known.is_over;
        if let Some(known) = self.state.threads.get_mut(thread).filter(ends) {
            known.is_over = true;
            self.announce(thread, ThreadStatus::Terminated, ctx);
        }
    }

    /// Says where a thread stands.
    pub(super) fn announce(&mut self, thread: &SessionId, status: ThreadStatus, ctx: &mut Context<'_>) {
        let Some(known) = self.state.threads.get_mut(thread) else {
            return;
        };
        known.works = status == ThreadStatus::Running;
        let agent_name = known.agent_name.clone();
        let thread = thread.clone();
        self.push(
            ctx,
            Body::ThreadStatus {
                thread,
                agent_name,
                status,
            },
        );
    }

    /// The open tool use that waits for a thread.
    fn errand_tool(&mut self, thread: &SessionId) -> Option<&mut OpenTool> {
        let errand = self.state.threads.get(thread)?.errand.clone()?;
        let (Phase::Running { turn } | Phase::Blocked { turn }) = &mut self.state.phase else {
            return None;
        };
        let Step::Acting { open } = &mut turn.step else {
            return None;
        };
        open.iter_mut().find(|tool| tool.id == errand)
    }

    /// Lets the tool use go on that waits for a thread, because the thread can. A blocked turn goes on with it.
    fn go_on(&mut self, thread: &SessionId, ctx: &mut Context<'_>) {
        let call = self
            .state
            .threads
            .get(thread)
            .and_then(|known| known.call.clone());
        if let Some(call) = call {
            return self.resume_run(&call.run, ctx);
        }
        let Some(tool) = self.errand_tool(thread) else {
            return;
        };
        tool.gate = Gate::Open;
        self.unblock(ctx);
    }

    /// The turn waits for no thread any more; those that did something were stopped with it. Its workflow runs end, too.
    pub(super) fn release_threads(&mut self, result: &Ending, ctx: &mut Context<'_>) {
        let waited_for = |(_, thread): &(&SessionId, &Thread)| thread.errand.is_some();
        let released: Vec<SessionId> = self
            .state
            .threads
            .iter()
            .filter(waited_for)
            .map(|(id, _)| id.clone())
            .collect();
        for id in released {
            self.release_thread(&id, ctx);
        }
        self.close_runs(result, ctx);
    }

    /// In a thread: sends what the turn has led to, to whoever sent the message that it answers.
    pub(super) fn report(&mut self, stop: &StopReason, ctx: &mut Context<'_>) {
        let (Phase::Running { turn } | Phase::Blocked { turn }) = &self.state.phase else {
            return;
        };
        let Turn {
            answers: Some(ThreadRef { thread, agent_name }),
            said,
            ..
        } = turn
        else {
            return;
        };
        if !matches!(stop, StopReason::EndTurn | StopReason::MaxTokens) {
            return;
        }
        let text = self.state.output.as_deref().filter(|_| *said).unwrap_or_default();
        let body = Body::ThreadMessageSent {
            to: thread.clone(),
            agent_name: agent_name.clone(),
            content: vec![ContentBlock::text(text)],
        };
        self.push(ctx, body);
    }
}
