//! Threads: a tool use of a coordinator sends a message to a thread and waits until the thread rests.
//!
//! A thread is a session of its own, in its coordinator's sandbox. The coordinator's log and state say what is to happen,
//! the thread's what has happened: the message goes by the tool use's id and is posted while the thread has none of that
//! id; what clients say to a thread stands in the coordinator's state until the thread has been told; and what happens in
//! the thread is entered in the coordinator's log together with how far the thread's log has been looked through. So each
//! step can be made again wherever the server stops.
//!
//! Invariant: a tool use sends its message once, and gets one result.
//! Invariant: what happens in a thread is entered once in its coordinator's log, in order.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use futures_util::{FutureExt as _, StreamExt as _};
use oma_domain::content::joined_text;
use oma_domain::event::{Body, StopReason, ThreadRef};
use oma_domain::policy::Permission;
use oma_domain::quota::Quota;
use oma_domain::session::{
    Dispatch, Input, News, Order, Outcome, Queued, Rejection, Standing, State, Thread,
};
use oma_domain::workflow::Call;
use oma_domain::{Agent, AgentId, ContentBlock, Event, EventId, KeyId, Seq, Session, SessionId, WorkspaceId};
use oma_runtime::{Port, PortError, Recipient, SessionInfo};
use oma_store::NewSession;

use crate::actor::Command;
use crate::delegation::verdict;
use crate::error::Error;
use crate::parents::standing;
use crate::{Engine, Frame, now, roster};

/// The message of a tool use, on its way to a thread and back.
pub(crate) struct Errand<'a> {
    pub(crate) engine: Engine,
    pub(crate) port: &'a dyn Port,
    pub(crate) info: &'a SessionInfo,
    pub(crate) tool_use: &'a EventId,
    /// The key that is charged for the coordinator's turn, and so for the thread's.
    pub(crate) charged: Option<KeyId>,
    /// The call of the tool use's workflow run that the thread is.
    pub(crate) call: Option<Call>,
}

/// A thread that a message goes to.
struct Chosen {
    thread: SessionId,
    agent: AgentId,
    agent_name: String,
    is_new: bool,
}

fn gone(error: &Error) -> PortError {
    PortError::Gone(error.to_string())
}

impl Errand<'_> {
    /// Has the message answered; gives the input that ends the tool use.
    ///
    /// # Errors
    /// [`PortError`]; trying again is safe.
    pub(crate) async fn run(&self, to: &Recipient, message: &str) -> Result<Input, PortError> {
        let content = vec![ContentBlock::text(message)];
        let thread = loop {
            let (state, _) = self.port.state();
            if let Some((thread, _)) = state.thread_of(self.tool_use) {
                break thread.clone();
            }
            let chosen = match self.choose(&state, to) {
                Ok(chosen) => chosen,
                Err(text) => return Ok(self.refused(text)),
            };
            // Another tool use waits for it; it has one message at a time.
            let busy = |thread: &Thread| thread.errand.is_some();
            if state.threads.get(&chosen.thread).is_some_and(busy) {
                self.port.changed().await;
                continue;
            }
            if let Some(refused) = self.dispatch(chosen, content.clone()).await? {
                return Ok(refused);
            }
        };
        let _opening = self.engine.inner.opening.begin(&thread);
        if let Err(text) = self.deliver(&thread, to, content).await? {
            return self
                .end(&thread, Outcome::error(text), (Seq(0), Vec::new()))
                .await;
        }
        self.attend(&thread).await
    }

    /// A refusal that nothing was done for.
    fn refused(&self, text: impl Into<String>) -> Input {
        Input::FinishTool {
            tool_use: self.tool_use.clone(),
            outcome: Outcome::error(text),
            sandbox: None,
        }
    }

    /// Which thread is meant, or why there is none, in words for the model.
    fn choose(&self, state: &State, to: &Recipient) -> Result<Chosen, String> {
        let new = |agent: &Arc<Agent>| Chosen {
            thread: SessionId::of_child(self.tool_use),
            agent: agent.id.clone(),
            agent_name: agent.shown_name().to_owned(),
            is_new: true,
        };
        let known = |(thread, known): (&SessionId, &Thread)| Chosen {
            thread: thread.clone(),
            agent: known.agent.clone(),
            agent_name: known.agent_name.clone(),
            is_new: false,
        };
        let takes = |(_, thread): &(&SessionId, &Thread)| !thread.is_over && !thread.ends_with_answer();
        let live = || state.threads.iter().filter(takes);
        match to {
            Recipient::Advisor => self.advisor().map(|advisor| new(&advisor)),
            Recipient::Defined(agent) => Ok(new(agent)),
            Recipient::New(name) => self.member(name).map(new),
            Recipient::Newest(name) => {
                let member = self.member(name);
                let is_its = |thread: &Thread| match &member {
                    Ok(agent) => thread.agent == agent.id,
                    Err(_) => thread.agent.is_inline() && thread.agent_name == *name,
                };
                // Ids sort by time.
                let newest = live().rfind(|(_, thread)| is_its(thread)).map(known);
                newest.map_or_else(|| member.map(new), Ok)
            }
            Recipient::Thread(name) => {
                let found = live().find(|(id, _)| SessionId::of_thread(name).any(|meant| meant == **id));
                found.map(known).ok_or_else(|| {
                    format!("There is no thread {name} that could take a message. list_agents tells which there are.")
                })
            }
        }
    }

    /// The advisor, as it works in threads.
    fn advisor(&self) -> Result<Arc<Agent>, String> {
        let coordinator = &self.info.agent;
        let model = coordinator.advisor().ok_or("You have no advisor.")?;
        Ok(Arc::new(roster::advisor(coordinator, model)))
    }

    /// One of those who may work in threads, by id or name.
    fn member(&self, name: &str) -> Result<&Arc<Agent>, String> {
        let mut members = self.info.members();
        let is_meant = |agent: &&Arc<Agent>| agent.id.as_str() == name || agent.shown_name() == name;
        members.find(is_meant).ok_or_else(|| {
            let names: Vec<&str> = self.info.members().map(|agent| agent.shown_name()).collect();
            let others = match names.as_slice() {
                [] => String::new(),
                names => format!(" You may to: {}.", names.join(", ")),
            };
            let threads = match self.info.may_define() {
                true => " To an agent that you have created you send messages by the name of its thread.",
                false => "",
            };
            format!("You may not send messages to the agent {name}.{others}{threads}")
        })
    }

    /// Records that the message is sent; gives the end of the tool use when it can't be.
    async fn dispatch(&self, chosen: Chosen, content: Vec<ContentBlock>) -> Result<Option<Input>, PortError> {
        let Chosen {
            thread,
            agent,
            agent_name,
            is_new,
        } = chosen;
        // Until its session is there.
        let _opening = self.engine.inner.opening.begin(&thread);
        let (head, known): (Seq, Option<(Option<Quota>, Standing)>) = if is_new {
            (Seq(0), None)
        } else {
            match self.engine.session(&self.info.workspace, &thread).await {
                // What clients have taken from the session since must not be had by another way.
                Ok(session) if is_outdated(&session, &self.info.agent) => {
                    return Ok(Some(self.refused(OUTDATED)));
                }
                Ok(session) => (session.head, Some((session.share, standing(&session)))),
                Err(Error::SessionNotFound) => {
                    return Ok(Some(
                        self.refused("This thread was deleted. Send the message to a new one."),
                    ));
                }
                Err(error) => return Err(gone(&error)),
            }
        };
        let dispatch = Dispatch {
            tool_use: self.tool_use.clone(),
            thread,
            agent,
            agent_name,
            content,
            head,
            known,
        };
        match self.port.commit(Input::Send(Box::new(dispatch))).await {
            // Somebody else was faster.
            Ok(_) | Err(PortError::Rejected(Rejection::Busy)) => Ok(None),
            Err(PortError::Rejected(Rejection::QuotaExceeded(_))) => {
                Ok(Some(self.refused("The budget leaves nothing for this message.")))
            }
            Err(PortError::Rejected(rejection @ Rejection::TooManyThreads)) => Ok(Some(
                self.refused(format!("The message was not sent: {rejection}.")),
            )),
            Err(error) => Err(error),
        }
    }

    /// Puts the message into the thread, which is opened if it is new. The inner error is for the model.
    pub(crate) async fn deliver(
        &self,
        thread: &SessionId,
        to: &Recipient,
        content: Vec<ContentBlock>,
    ) -> Result<Result<(), String>, PortError> {
        let workspace = &self.info.workspace;
        match self.engine.session(workspace, thread).await {
            Ok(session) if session.parent.as_ref() == Some(&self.info.id) && session.is_thread => {}
            Ok(_) => return Ok(Err("The session of this thread is somebody else's.".to_owned())),
            Err(Error::SessionNotFound) => {
                if let Err(text) = self.open(thread, to).await? {
                    return Ok(Err(text));
                }
            }
            Err(error) => return Err(gone(&error)),
        }
        let message = Queued {
            id: self.tool_use.clone(),
            content,
            model: None,
            thinking_level: None,
            trace: oma_trace::current(),
            charged: self.charged.clone(),
            from: Some(ThreadRef {
                thread: self.info.id.clone(),
                agent_name: self.info.agent.shown_name().to_owned(),
            }),
            system: None,
        };
        let asked = self.engine.ask(workspace, thread, |reply| Command::Deliver {
            message: Box::new(message),
            reply,
        });
        match asked.await {
            Ok(()) => Ok(Ok(())),
            Err(Error::Rejected(Rejection::QuotaExceeded(_))) => {
                Ok(Err("The budget leaves nothing for this message.".to_owned()))
            }
            Err(Error::Rejected(rejection)) => Ok(Err(format!("The message was not taken: {rejection}."))),
            Err(Error::AgentNotFound) => Ok(Err("That agent has been deleted.".to_owned())),
            Err(Error::SessionNotFound) => Ok(Err(DELETED.to_owned())),
            Err(error) => Err(gone(&error)),
        }
    }

    /// Opens a new thread's session.
    async fn open(&self, thread: &SessionId, to: &Recipient) -> Result<Result<(), String>, PortError> {
        let (state, _) = self.port.state();
        let Some(known) = state.threads.get(thread).filter(|known| known.seen == Seq(0)) else {
            return Ok(Err(DELETED.to_owned()));
        };
        let consults = known.is_consultation();
        let agent = match to {
            Recipient::Advisor => self.advisor(),
            Recipient::Defined(agent) => Ok(Arc::clone(agent)),
            Recipient::New(_) | Recipient::Newest(_) | Recipient::Thread(_) => {
                self.member(known.agent.as_str()).cloned()
            }
        };
        let agent = match agent {
            Ok(agent) => agent,
            Err(text) => return Ok(Err(text)),
        };
        let info = self.info;
        if let Err(unsupported) = self
            .engine
            .inner
            .runtime
            .check(&agent, info.environment.as_deref())
        {
            return Ok(Err(format!("The agent can't be run here: {unsupported}.")));
        }
        let share = state.delegated.opened.get(thread).and_then(|opened| opened.share);
        let session = NewSession {
            id: thread.clone(),
            workspace: info.workspace.clone(),
            delegation_depth: agent.spec.max_subagent_depth,
            agent,
            roster: Vec::new(),
            // An advisor has nothing to do with the sandbox and no tool that a vault could be for.
            environment: info.environment.clone().filter(|_| !consults),
            vaults: if consults { Vec::new() } else { info.vaults.clone() },
            // The sandbox is shared, and with it what is in it.
            memories: if consults {
                Vec::new()
            } else {
                info.memories.clone()
            },
            resources: Vec::new(),
            files: Vec::new(),
            file_room: 0,
            deployment: None,
            parent: Some(info.id.clone()),
            is_thread: true,
            share: share.filter(|share| *share != Quota::default()),
            budget: None,
            ephemeral: false,
            title: None,
            metadata: BTreeMap::new(),
            created_by: info.created_by.clone(),
            created_at: now(),
        };
        match self.engine.inner.store.create_session(&session, None).await {
            Ok(()) | Err(oma_store::Error::Conflict) => Ok(Ok(())),
            Err(oma_store::Error::NotFound) => Ok(Err("The environment has been deleted.".to_owned())),
            Err(oma_store::Error::VaultGone) => {
                Ok(Err("A vault of the session has been deleted.".to_owned()))
            }
            Err(error @ oma_store::Error::TooManySessions(_)) => {
                Ok(Err(format!("No thread can be opened: {error}.")))
            }
            Err(error) => Err(gone(&error.into())),
        }
    }

    /// Follows the thread until it rests, and tells it what clients say to it.
    pub(crate) async fn attend(&self, thread: &SessionId) -> Result<Input, PortError> {
        let workspace = &self.info.workspace;
        let stale = || PortError::Rejected(Rejection::Stale);
        let seen = self.known(thread).ok_or_else(stale)?.seen;
        let mut frames = match self.engine.follow(workspace, thread, seen, false).await {
            Ok(frames) => frames,
            Err(Error::SessionNotFound) => return self.deleted(thread, Vec::new()).await,
            Err(error) => return Err(gone(&error)),
        };
        // The thread's answer is entered with its rest.
        let mut news = Vec::new();
        loop {
            let known = self.known(thread).ok_or_else(stale)?;
            if !known.orders.is_empty() {
                let (thread, count) = (thread.clone(), known.orders.len());
                self.tell(&thread, known.orders).await?;
                self.commit(Input::Delivered { thread, count }).await?;
                continue;
            }
            let mut frame = tokio::select! {
                frame = frames.next() => frame,
                () = self.port.changed() => continue,
            };
            let mut through = Seq(0);
            loop {
                match frame {
                    Some(Ok(Frame::Event(event))) => {
                        through = event.seq;
                        if let Some(stop) = self.note(&event, &known, &mut news) {
                            let said = said(&news);
                            let outcome = match known.ends_with_answer() {
                                true => verdict(&stop, &said),
                                false => signed(verdict(&stop, &said), thread),
                            };
                            return self.end(thread, outcome, (through, news)).await;
                        }
                    }
                    Some(Ok(Frame::Delta(_))) => {}
                    Some(Ok(Frame::Deleted)) => return self.deleted(thread, news).await,
                    Some(Err(error)) => return Err(gone(&error)),
                    None => return Err(PortError::Gone("the server is stopping".to_owned())),
                }
                // What has come together is entered together.
                match pin!(frames.next()).now_or_never() {
                    Some(next) => frame = next,
                    None => break,
                }
            }
            let answers = matches!(news.last(), Some(News::Says { .. }));
            if !news.is_empty() && !answers {
                let news = std::mem::take(&mut news);
                let thread = thread.clone();
                self.commit(Input::Mirror {
                    thread,
                    through,
                    news,
                })
                .await?;
            }
        }
    }

    fn known(&self, thread: &SessionId) -> Option<Thread> {
        let (state, _) = self.port.state();
        let known = state.threads.get(thread)?;
        (known.errand.as_ref() == Some(self.tool_use)).then(|| known.clone())
    }

    async fn commit(&self, input: Input) -> Result<(), PortError> {
        self.port.commit(input).await.map(|_| ())
    }

    /// Notes what an event of the thread means for the session; gives why the thread rests, once it does.
    fn note(&self, event: &Event, known: &Thread, news: &mut Vec<News>) -> Option<StopReason> {
        match &*event.body {
            Body::StatusRunning => news.push(News::Works),
            Body::AgentToolUse {
                name,
                input,
                permission,
                custom,
                origin,
                ..
            } if *custom || *permission == Permission::Ask => news.push(News::Awaits {
                tool_use: event.id.clone(),
                name: name.clone(),
                input: input.clone(),
                custom: *custom,
                origin: origin.clone(),
            }),
            Body::AgentToolResult { tool_use, .. }
            | Body::UserCustomToolResult { tool_use, .. }
            | Body::UserToolConfirmation { tool_use, .. } => {
                let entered = known.awaited.iter().any(|awaited| awaited.tool_use == *tool_use);
                let noted =
                    |one: &News| matches!(one, News::Awaits { tool_use: noted, .. } if noted == tool_use);
                if entered || news.iter().any(noted) {
                    let tool_use = tool_use.clone();
                    news.push(News::Settled { tool_use });
                }
            }
            Body::ThreadMessageSent { to, content, .. } if *to == self.info.id => {
                let content = content.clone();
                news.push(News::Says { content });
            }
            Body::StatusIdle { stop_reason, .. } => {
                let stop = stop_reason.clone();
                news.push(News::Rests { stop: stop.clone() });
                if !matches!(stop, StopReason::RequiresAction { .. }) {
                    return Some(stop);
                }
            }
            _ => {}
        }
        None
    }

    /// Tells the thread what clients have said to it.
    async fn tell(&self, thread: &SessionId, orders: Vec<Order>) -> Result<(), PortError> {
        let asked = self
            .engine
            .ask(&self.info.workspace, thread, |reply| Command::Order {
                orders,
                reply,
            });
        match asked.await {
            // What becomes of a deleted thread is told by its followers.
            Ok(()) | Err(Error::SessionNotFound) => Ok(()),
            Err(error) => Err(gone(&error)),
        }
    }

    async fn deleted(&self, thread: &SessionId, mut news: Vec<News>) -> Result<Input, PortError> {
        news.push(News::Ends);
        self.end(thread, Outcome::error(DELETED), (Seq(0), news)).await
    }

    /// The end of the tool use, with how the thread stands.
    pub(crate) async fn end(
        &self,
        thread: &SessionId,
        outcome: Outcome,
        (through, news): (Seq, Vec<News>),
    ) -> Result<Input, PortError> {
        let session = match self.engine.session(&self.info.workspace, thread).await {
            Ok(session) => Some(session),
            Err(Error::SessionNotFound) => None,
            Err(error) => return Err(gone(&error)),
        };
        let active_ms = |session: &Session| session.state.totals(now()).active_ms;
        let active_ms = session.as_ref().map(active_ms).unwrap_or_default();
        let standing = session.as_ref().map(standing);
        Ok(match &self.call {
            None => Input::FinishErrand {
                tool_use: self.tool_use.clone(),
                outcome,
                through,
                news,
                active_ms,
                standing,
            },
            Some(call) => Input::FinishCall {
                call: call.clone(),
                ok: !outcome.is_error,
                text: joined_text(&outcome.content),
                through,
                news,
                standing,
                active_ms,
            },
        })
    }
}

const DELETED: &str = "This thread was deleted before it had answered. Send the message to a new one.";

const OUTDATED: &str =
    "Your tools have been changed since this agent was created, so it can't go on. Create another one.";

/// Whether an agent that was defined on the fly works in the thread, with something that its coordinator has no more.
fn is_outdated(thread: &Session, coordinator: &Agent) -> bool {
    thread.agent.is_inline() && !thread.agent.spec.has_only_tools_of(&coordinator.spec)
}

/// What a thread has answered.
fn said(news: &[News]) -> String {
    let said = news.iter().rev().find_map(|one| match one {
        News::Says { content } => Some(joined_text(content)),
        _ => None,
    });
    said.unwrap_or_default()
}

/// An outcome that says which thread it comes from, for whoever wants to go on with it.
fn signed(mut outcome: Outcome, thread: &SessionId) -> Outcome {
    let name = thread.thread_name();
    outcome
        .content
        .push(ContentBlock::text(format!("[This is the thread {name}.]")));
    outcome
}

impl Engine {
    /// Archives a thread of a session for good, unless it works.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`]; [`Error::Rejected`] while it works, or when it is no thread of the session.
    pub async fn archive_thread(
        &self,
        workspace: &WorkspaceId,
        root: &SessionId,
        thread: &SessionId,
    ) -> crate::Result<Session> {
        let found = self.session(workspace, thread).await?;
        if found.state.archived_at.is_none() {
            self.ask(workspace, root, |reply| Command::ArchiveThread {
                thread: thread.clone(),
                reply,
            })
            .await?;
            self.close_thread(workspace, root, thread).await?;
        }
        self.session(workspace, thread).await
    }

    /// Archives the session of a thread that was archived, and lets its coordinator forget it.
    pub(crate) async fn close_thread(
        &self,
        workspace: &WorkspaceId,
        root: &SessionId,
        thread: &SessionId,
    ) -> crate::Result<()> {
        let archive = || self.ask(workspace, thread, |reply| Command::Archive { reply });
        match archive().await {
            Err(Error::Rejected(Rejection::Busy)) => {
                self.cancel_session(workspace, thread).await?;
                archive().await?;
            }
            Ok(()) | Err(Error::SessionNotFound) => {}
            Err(error) => return Err(error),
        }
        let asked = self.ask(workspace, root, |reply| Command::CloseThread {
            thread: thread.clone(),
            reply,
        });
        match asked.await {
            Ok(()) | Err(Error::Rejected(Rejection::Stale) | Error::SessionNotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
