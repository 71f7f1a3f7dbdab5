//! The runtime's way to the actor that it works for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use oma_domain::page::Order;
use oma_domain::session::{Input, Partial, Rejection, State};
use oma_domain::workflow::Call;
use oma_domain::{Agent, Event, EventId, Seq, tokens};
use oma_runtime::{Answer, Committed, Delta, Port, PortError, Recipient, SessionInfo};
use tokio::sync::{mpsc, oneshot, watch};

use super::commit::Refusal;
use super::{Arriving, Partials};
use crate::delegation::Errand;
use crate::hub::Note;
use crate::turns::Place;
use crate::{Engine, Inner, threads};

/// How long to wait before a commit that met a full disk is tried again: at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MOST: Duration = Duration::from_secs(5);

/// The state as of a commit.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) version: u64,
    pub(super) state: Arc<State>,
    pub(super) head: Seq,
    /// The newest events: those of the last commit that had any, up to `head`. A turn begins with them, and needs
    /// not read again what has just been written.
    pub(super) newest: Arc<[Event]>,
}

impl View {
    /// What comes after a position, if all of it is there.
    fn after(&self, after: Seq, limit: u32) -> Option<Vec<Event>> {
        let known = self.newest.first()?.seq;
        if after.next() < known || after >= self.head {
            return None;
        }
        let events = self.newest.iter().filter(|event| event.seq > after);
        Some(events.take(limit as usize).cloned().collect())
    }
}

/// An input of the driving task.
pub(super) struct Request {
    pub(super) generation: u64,
    pub(super) input: Input,
    pub(super) reply: oneshot::Sender<Result<Committed, Refusal>>,
}

pub(super) struct ActorPort {
    generation: u64,
    requests: mpsc::Sender<Request>,
    view: watch::Receiver<View>,
    seen: AtomicU64,
    inner: Arc<Inner>,
    info: Arc<SessionInfo>,
    partials: Partials,
    /// The turn's place among those at work; it goes with the port at the latest.
    place: Mutex<Option<Place>>,
    /// Held by whoever waits for a place, so that a turn never waits for a second one.
    entering: tokio::sync::Mutex<()>,
}

impl ActorPort {
    pub(super) fn new(
        generation: u64,
        requests: mpsc::Sender<Request>,
        view: watch::Receiver<View>,
        inner: Arc<Inner>,
        info: Arc<SessionInfo>,
        partials: Partials,
    ) -> Self {
        Self {
            generation,
            requests,
            view,
            seen: AtomicU64::new(0),
            inner,
            info,
            partials,
            place: Mutex::default(),
            entering: tokio::sync::Mutex::default(),
        }
    }

    fn place(&self) -> MutexGuard<'_, Option<Place>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arriving(&self) -> MutexGuard<'_, Arriving> {
        self.partials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn request(&self, input: Input) -> Result<Result<Committed, Refusal>, PortError> {
        let (reply, answer) = oneshot::channel();
        let request = Request {
            generation: self.generation,
            input,
            reply,
        };
        let gone = || PortError::Gone("the session's actor has ended".into());
        self.requests.send(request).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

#[async_trait]
impl Port for ActorPort {
    fn state(&self) -> (Arc<State>, Seq) {
        let view = self.view.borrow();
        self.seen.store(view.version, Ordering::Relaxed);
        (Arc::clone(&view.state), view.head)
    }

    async fn changed(&self) {
        let seen = self.seen.load(Ordering::Relaxed);
        let mut view = self.view.clone();
        if view.wait_for(|view| view.version != seen).await.is_err() {
            // The actor has ended, and with it this task is about to be dropped.
            std::future::pending::<()>().await;
        }
    }

    /// A commit that meets a full or read-only disk is tried again until it succeeds: the work is done and
    /// must not be lost, and the session stays cancellable meanwhile.
    async fn commit(&self, input: Input) -> Result<Committed, PortError> {
        let mut pause = RETRY_FIRST;
        loop {
            // From before the question on, so that no answer is missed.
            let mut freed = std::pin::pin!(self.inner.ledger.freed());
            freed.as_mut().enable();
            match self.request(input.clone()).await? {
                // Others' requests, which end by themselves.
                Err(Refusal::Crowded) => oma_runtime::aside(self, freed).await,
                Ok(committed) => {
                    self.seen.store(self.view.borrow().version, Ordering::Relaxed);
                    return Ok(committed);
                }
                Err(Refusal::Rejected(rejection)) => return Err(rejection.into()),
                Err(Refusal::Store(
                    error @ (oma_store::Error::Full
                    | oma_store::Error::ReadOnly(_)
                    | oma_store::Error::Unavailable(_)),
                )) => {
                    tracing::error!(%error, "a commit waits for the store");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MOST);
                }
                Err(Refusal::Store(error)) => {
                    tracing::error!(%error, "a commit failed");
                    return Err(PortError::Gone(error.to_string()));
                }
            }
        }
    }

    async fn history(&self, after: Seq, limit: u32) -> Result<Vec<Event>, PortError> {
        let known = self.view.borrow().after(after, limit);
        if let Some(events) = known {
            return Ok(events);
        }
        let SessionInfo { workspace, id, .. } = &*self.info;
        let page = self
            .inner
            .store
            .events(workspace, id, Some(after), Order::Ascending, limit)
            .await;
        page.map(|page| page.rows)
            .map_err(|error| PortError::Gone(error.to_string()))
    }

    fn delta(&self, delta: Delta) {
        match &delta {
            Delta::MessageStart { event } => {
                let view = self.view.borrow();
                let model = view
                    .state
                    .model
                    .as_deref()
                    .unwrap_or(&self.info.agent.spec.model)
                    .to_owned();
                let partial = Partial {
                    id: event.clone(),
                    text: String::new(),
                    model,
                };
                self.arriving().messages.push(partial);
            }
            Delta::Text { event, text } => {
                let mut arriving = self.arriving();
                arriving.tokens += tokens::at_most(text);
                if let Some(partial) = arriving.messages.iter_mut().find(|partial| partial.id == *event) {
                    partial.text.push_str(text);
                }
            }
            Delta::Thinking { text, .. } => self.arriving().tokens += tokens::at_most(text),
            Delta::ThinkingStart { .. } => {}
        }
        let head = self.view.borrow().head;
        self.inner
            .hub
            .publish(&self.info.id, || [Note::Delta { head, delta }]);
    }

    async fn delegate(&self, tool_use: &EventId, agent: &str, task: &str) -> Result<Answer, PortError> {
        let set_aside = |state: &State| state.delegated.shares.get(tool_use).copied();
        let known = set_aside(&self.view.borrow().state);
        let share = match known {
            Some(share) => Some(share),
            None => {
                let asked = Input::Delegate {
                    tool_use: tool_use.clone(),
                };
                set_aside(&self.commit(asked).await?.state)
            }
        };
        let charged = self
            .view
            .borrow()
            .state
            .turn()
            .and_then(|turn| turn.charged.clone());
        let errand = Errand {
            charged,
            parent: &self.info,
            tool_use,
            agent,
            task,
            share,
        };
        let engine = Engine {
            inner: Arc::clone(&self.inner),
        };
        Box::pin(engine.run_errand(&errand))
            .await
            .map_err(|error| PortError::Gone(error.to_string()))
    }

    async fn send(&self, tool_use: &EventId, to: Recipient, message: &str) -> Result<Input, PortError> {
        let turn = self.view.borrow().state.turn().cloned();
        let errand = threads::Errand {
            engine: Engine {
                inner: Arc::clone(&self.inner),
            },
            port: self,
            info: &self.info,
            tool_use,
            charged: turn.and_then(|turn| turn.charged),
            call: None,
        };
        Box::pin(errand.run(&to, message)).await
    }

    async fn call(&self, call: &Call, agent: &Arc<Agent>, prompt: &str) -> Result<Input, PortError> {
        let state = Arc::clone(&self.view.borrow().state);
        let run = state.runs.get(&call.run).ok_or(Rejection::Stale)?;
        let errand = threads::Errand {
            engine: Engine {
                inner: Arc::clone(&self.inner),
            },
            port: self,
            info: &self.info,
            tool_use: &run.tool_use,
            charged: state.turn().and_then(|turn| turn.charged.clone()),
            call: Some(call.clone()),
        };
        Box::pin(errand.answer(agent, prompt)).await
    }

    fn leave_place(&self) {
        drop(self.place().take());
    }

    async fn take_place(&self) {
        let _entering = self.entering.lock().await;
        if self.place().is_some() {
            return;
        }
        match self.inner.turns.enter().await {
            Some(place) => *self.place() = Some(place),
            // The engine is gone and this task is about to be dropped; the turn goes on at the next start.
            None => std::future::pending().await,
        }
    }
}
