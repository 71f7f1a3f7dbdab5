//! A coordinator sends a message to a thread.

use super::super::delegate::Standing;
use super::super::rejection::Rejection;
use super::super::tool_use::{Gate, OpenTool};
use super::super::transition::{Context, Transition};
use super::{MAX_THREADS, Thread};
use crate::content::ContentBlock;
use crate::event::{Body, Seq};
use crate::id::{AgentId, EventId, SessionId};
use crate::multiagent::{CONSULT_ADVISOR, CREATE_AGENT, SEND_TO_AGENT};
use crate::quota::Quota;

/// A message on its way to a thread.
#[derive(Debug, Clone, PartialEq)]
pub struct Dispatch {
    /// The tool use that sends it and waits for what becomes of it.
    pub tool_use: EventId,
    /// The thread.
    pub thread: SessionId,
    /// Who works in it.
    pub agent: AgentId,
    /// The name of that agent.
    pub agent_name: String,
    /// What it says. What an advisor is asked is in its thread alone.
    pub content: Vec<ContentBlock>,
    /// How far the thread's log goes now.
    pub head: Seq,
    /// What the thread may consume in all, and how it stands; none for a new one.
    pub known: Option<(Option<Quota>, Standing)>,
}

impl Transition {
    /// Records the message, and the thread if it is new, and sets aside what the thread may consume. Sent already, it
    /// is not sent again.
    pub(in crate::session) fn send(
        &mut self,
        dispatch: Dispatch,
        ctx: &mut Context<'_>,
    ) -> Result<(), Rejection> {
        let Dispatch {
            tool_use,
            thread,
            agent,
            agent_name,
            content,
            head,
            known,
        } = dispatch;
        let may_run = |tool: &&OpenTool| tool.id == tool_use && tool.gate == Gate::Open;
        if !self.state.is_running() || !self.state.open_tools().iter().any(|tool| may_run(&tool)) {
            return Err(Rejection::Stale);
        }
        if self.state.thread_of(&tool_use).is_some() {
            return Ok(());
        }
        match self.state.threads.get(&thread) {
            Some(busy) if busy.errand.is_some() => return Err(Rejection::Busy),
            Some(over) if over.is_over || over.call.is_some() => return Err(Rejection::Stale),
            Some(_) => {}
            None if known.is_some() => return Err(Rejection::Stale),
            None => {
                let counts = |thread: &&Thread| !thread.is_over && !thread.ends_with_answer();
                let live = self.state.threads.values().filter(counts).count();
                if !agent.is_advisor() && live >= MAX_THREADS {
                    return Err(Rejection::TooManyThreads);
                }
            }
        }
        // What is left is shared by those that are being asked now and the coordinator, who has to go on afterwards.
        let asks = |tool: &&OpenTool| {
            [SEND_TO_AGENT, CREATE_AGENT, CONSULT_ADVISOR].contains(&tool.name.as_str())
                && self.state.thread_of(&tool.id).is_none()
        };
        let sharers = self.state.open_tools().iter().filter(asks).count() as u64;
        self.lend(&thread, known, sharers + 1, ctx)?;
        if !self.state.threads.contains_key(&thread) {
            self.push(
                ctx,
                Body::ThreadCreated {
                    thread: thread.clone(),
                    agent_name: agent_name.clone(),
                    run: None,
                },
            );
        }
        let consults = agent.is_advisor();
        let entry = self.state.threads.entry(thread.clone()).or_insert(Thread {
            agent,
            agent_name: agent_name.clone(),
            errand: None,
            call: None,
            seen: head,
            works: false,
            awaited: Vec::new(),
            orders: Vec::new(),
            is_over: false,
            active_ms: 0,
        });
        entry.errand = Some(tool_use);
        entry.seen = head;
        if !consults {
            let sent = Body::ThreadMessageSent {
                to: thread,
                agent_name,
                content,
            };
            self.push(ctx, sent);
        }
        Ok(())
    }
}
