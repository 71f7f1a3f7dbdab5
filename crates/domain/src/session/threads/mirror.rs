//! What happens in a thread, as far as it concerns the whole session.

use super::super::delegate::Standing;
use super::super::input::Outcome;
use super::super::rejection::Rejection;
use super::super::tool_use::Gate;
use super::super::transition::{Context, Transition};
use super::super::turn::Step;
use super::Awaited;
use crate::content::ContentBlock;
use crate::event::{Body, Seq, StopReason, ThreadStatus};
use crate::id::{EventId, SessionId};
use crate::origin::Origin;

/// Something that happened in a thread.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// It works.
    Works,
    /// It uses a tool that waits for a client.
    Awaits {
        /// The tool use.
        tool_use: EventId,
        /// The tool.
        name: String,
        /// Its arguments.
        input: serde_json::Value,
        /// Whether the client carries it out; otherwise the client says whether it may run.
        custom: bool,
        /// Where the tool came from, and who was to say whether it runs; logs of earlier versions don't say.
        origin: Option<Origin>,
    },
    /// A tool use waits no more.
    Settled {
        /// The tool use.
        tool_use: EventId,
    },
    /// It answers.
    Says {
        /// What.
        content: Vec<ContentBlock>,
    },
    /// It rests, or waits for clients.
    Rests {
        /// Why.
        stop: StopReason,
    },
    /// It was archived.
    Ends,
}

impl Transition {
    /// Enters what happened in a thread up to a position of its log. What was entered before is stale.
    pub(in crate::session) fn mirror(
        &mut self,
        thread: &SessionId,
        through: Seq,
        news: Vec<News>,
        ctx: &mut Context<'_>,
    ) -> Result<(), Rejection> {
        self.running_turn()?;
        let known = self.state.threads.get_mut(thread).ok_or(Rejection::Stale)?;
        if through <= known.seen || known.errand.is_none() {
            return Err(Rejection::Stale);
        }
        known.seen = through;
        for one in news {
            self.enter(thread, one, ctx);
        }
        if let Some(call) = self
            .state
            .threads
            .get(thread)
            .and_then(|known| known.call.clone())
        {
            self.settle_run(&call.run, ctx);
        }
        // With nothing else that runs, the turn waits for clients now.
        let open = match self.state.turn().map(|turn| &turn.step) {
            Some(Step::Acting { open }) => open.clone(),
            _ => return Ok(()),
        };
        self.after_tools(open, ctx);
        Ok(())
    }

    pub(in crate::session) fn enter(&mut self, thread: &SessionId, news: News, ctx: &mut Context<'_>) {
        let Some(known) = self.state.threads.get_mut(thread) else {
            return;
        };
        match news {
            News::Works if known.works => {}
            News::Works => self.announce(thread, ThreadStatus::Running, ctx),
            News::Awaits {
                tool_use,
                name,
                input,
                custom,
                origin,
            } => {
                let id = (ctx.new_id)();
                known.awaited.push(Awaited {
                    id: id.clone(),
                    tool_use: tool_use.clone(),
                    custom,
                });
                let body = Body::ThreadToolUse {
                    thread: thread.clone(),
                    agent: known.agent.clone(),
                    tool_use,
                    name,
                    input,
                    custom,
                    origin,
                };
                self.push_as(id, body);
            }
            News::Settled { tool_use } => known.awaited.retain(|awaited| awaited.tool_use != tool_use),
            // For its program, which reads it elsewhere.
            News::Says { .. } if known.call.is_some() => {}
            News::Says { content } => {
                let body = Body::ThreadMessageReceived {
                    from: thread.clone(),
                    agent_name: known.agent_name.clone(),
                    content,
                };
                self.push(ctx, body);
            }
            News::Rests {
                stop: StopReason::RequiresAction { .. },
            } => {
                // Answered already, and only not told yet: it is about to go on.
                if known.awaited.is_empty() || !known.orders.is_empty() {
                    return;
                }
                let tool_uses = known.awaited.iter().map(|awaited| awaited.id.clone()).collect();
                let stop_reason = StopReason::RequiresAction { tool_uses };
                self.announce(thread, ThreadStatus::Idle { stop_reason }, ctx);
                // A workflow run may have others to wait for.
                let waits_alone = self
                    .state
                    .threads
                    .get(thread)
                    .is_some_and(|known| known.call.is_none());
                if let Some(tool) = self.errand_tool(thread).filter(|_| waits_alone) {
                    tool.gate = Gate::Thread;
                }
            }
            News::Rests { stop } => {
                known.awaited.clear();
                known.orders.clear();
                self.announce(thread, ThreadStatus::Idle { stop_reason: stop }, ctx);
            }
            News::Ends => {
                known.is_over = true;
                self.announce(thread, ThreadStatus::Terminated, ctx);
            }
        }
    }

    /// Enters the last that happened in a thread, and gives the tool use that waited for it its result.
    pub(in crate::session) fn finish_errand(
        &mut self,
        tool_use: &EventId,
        outcome: Outcome,
        (through, news): (Seq, Vec<News>),
        standing: Option<&Standing>,
        active_ms: u64,
        ctx: &mut Context<'_>,
    ) -> Result<(), Rejection> {
        self.running_turn()?;
        let found = self.state.thread_of(tool_use).map(|(thread, _)| thread.clone());
        if let Some(thread) = found {
            for one in news {
                self.enter(&thread, one, ctx);
            }
            if let Some(known) = self.state.threads.get_mut(&thread) {
                known.seen = known.seen.max(through);
                known.active_ms = active_ms.max(known.active_ms);
                known.awaited.clear();
                known.orders.clear();
            }
            self.end_with_answer(&thread, ctx);
            if let Some(tool) = self.errand_tool(&thread) {
                tool.gate = Gate::Open;
            }
            if let Some(known) = self.state.threads.get_mut(&thread) {
                known.errand = None;
            }
            // It may have been counted before, when this session looked by itself.
            match self.give_back(&thread, standing) {
                Ok(()) | Err(Rejection::Stale) => {}
                Err(rejection) => return Err(rejection),
            }
            if standing.is_none() {
                // It was deleted.
                self.forget_thread(&thread);
            }
        }
        self.finish_tool(tool_use, outcome, None, ctx)
    }

    /// A thread has been told the first of what clients have said to it.
    pub(in crate::session) fn delivered(
        &mut self,
        thread: &SessionId,
        count: usize,
    ) -> Result<(), Rejection> {
        let known = self.state.threads.get_mut(thread).ok_or(Rejection::Stale)?;
        known.orders.drain(..count.min(known.orders.len()));
        Ok(())
    }
}
