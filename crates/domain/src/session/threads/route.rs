//! What clients say to threads.

use super::super::input::Outcome;
use super::super::queue::SystemNote;
use super::super::rejection::Rejection;
use super::super::state::Phase;
use super::super::transition::{Context, Transition};
use super::Order;
use crate::event::Body;
use crate::id::{EventId, SessionId};

impl Transition {
    /// Records a client's word on a thread's tool use that asks; false when no thread has one of this id.
    pub(in crate::session) fn route_confirmation(
        &mut self,
        id: &EventId,
        tool_use: &EventId,
        (allow, deny_message): (bool, &Option<String>),
        ctx: &mut Context<'_>,
    ) -> Result<bool, Rejection> {
        let Some((thread, awaited)) = self.state.thread_awaiting(tool_use) else {
            return Ok(false);
        };
        if awaited.custom {
            return Err(Rejection::NotAsking);
        }
        let (thread, awaited) = (thread.clone(), awaited.clone());
        self.push_as(
            id.clone(),
            Body::UserToolConfirmation {
                tool_use: awaited.id,
                allow,
                deny_message: deny_message.clone(),
                thread: Some(thread.clone()),
            },
        );
        let order = Order::Confirm {
            tool_use: awaited.tool_use,
            allow,
            deny_message: deny_message.clone(),
        };
        self.order(&thread, order, ctx);
        Ok(true)
    }

    /// Records a client's result of a tool of a thread that it carries out, and the system message that accompanies it;
    /// gives both back when no thread waits under this id.
    pub(in crate::session) fn route_answer(
        &mut self,
        id: &EventId,
        tool_use: &EventId,
        (outcome, remote): (Outcome, bool),
        system: Option<SystemNote>,
        ctx: &mut Context<'_>,
    ) -> Result<Option<(Outcome, Option<SystemNote>)>, Rejection> {
        let Some((thread, awaited)) = self.state.thread_awaiting(tool_use) else {
            return Ok(Some((outcome, system)));
        };
        if !awaited.custom {
            return Err(Rejection::NotAwaited);
        }
        let (thread, awaited) = (thread.clone(), awaited.clone());
        self.push_as(
            id.clone(),
            Body::UserCustomToolResult {
                tool_use: awaited.id,
                name: String::new(),
                content: outcome.content.clone(),
                is_error: outcome.is_error,
                remote,
                thread: Some(thread.clone()),
            },
        );
        if let Some(SystemNote { id, content }) = &system {
            let body = Body::SystemMessage {
                content: content.clone(),
                thread: Some(thread.clone()),
            };
            self.push_as(id.clone(), body);
        }
        let order = Order::Answer {
            tool_use: awaited.tool_use,
            outcome,
            remote,
            system: system.map(|note| note.content),
        };
        self.order(&thread, order, ctx);
        Ok(None)
    }

    /// Stops a thread. One at rest stays as it is.
    pub(in crate::session) fn interrupt_thread(
        &mut self,
        id: EventId,
        thread: &SessionId,
        ctx: &mut Context<'_>,
    ) -> Result<(), Rejection> {
        let known = self.state.threads.get_mut(thread).ok_or(Rejection::NoThread)?;
        if known.is_over {
            return Err(Rejection::NoThread);
        }
        if known.errand.is_none() || known.orders.contains(&Order::Interrupt) {
            return Ok(());
        }
        known.awaited.clear();
        let body = Body::UserInterrupt {
            dropped: Vec::new(),
            thread: Some(thread.clone()),
        };
        self.push_as(id, body);
        self.order(thread, Order::Interrupt, ctx);
        Ok(())
    }

    /// A thread that waited for clients waits no more, for a reason of its own.
    pub(in crate::session) fn resume_thread(
        &mut self,
        thread: &SessionId,
        ctx: &mut Context<'_>,
    ) -> Result<(), Rejection> {
        let waits = matches!(self.state.phase, Phase::Blocked { .. });
        let known = self.state.threads.get(thread).ok_or(Rejection::Stale)?;
        if !waits || known.errand.is_none() {
            return Err(Rejection::Stale);
        }
        self.go_on(thread, ctx);
        Ok(())
    }

    /// Remembers what a thread is to be told. It is told once nothing of it waits for a client any more, or, while the
    /// turn goes on, at once.
    fn order(&mut self, thread: &SessionId, order: Order, ctx: &mut Context<'_>) {
        let Some(known) = self.state.threads.get_mut(thread) else {
            return;
        };
        if let Order::Confirm { tool_use, .. } | Order::Answer { tool_use, .. } = &order {
            known.awaited.retain(|awaited| awaited.tool_use != *tool_use);
        }
        known.orders.push(order);
        let waits = !known.awaited.is_empty();
        if waits && matches!(self.state.phase, Phase::Blocked { .. }) {
            self.block(ctx);
        } else {
            self.go_on(thread, ctx);
        }
    }
}
