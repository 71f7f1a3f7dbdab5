//! The actor of a session with work to do: the one place where its state changes.
//!
//! It takes commands from clients (through the registry) and inputs from the runtime (through
//! [`port::ActorPort`]), applies each through the domain's state machine, commits, and only then answers and
//! tells the followers. It owns the task that drives the turn: there is at most one, and a late word from an
//! earlier one is refused by its generation number.

mod begin;
mod command;
mod commit;
mod port;
mod stop;
mod submit;
mod threads;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use oma_domain::event::{Failure, FailureKind};
use oma_domain::session::{Effect, Input, Partial, Phase, Session, Step};
use oma_domain::{SessionId, WorkspaceId};
use oma_runtime::{Left, Port as _, SessionInfo};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinHandle};
use tracing::Instrument as _;

pub(crate) use begin::beginning;
pub(crate) use command::Command;
use commit::With;
use port::{ActorPort, Request, View};

use crate::error::{Error, Result};
use crate::quotas::Current;
use crate::registry::Key;
use crate::{Inner, measure};

/// How long a dropped turn may take to let go of what it holds in this process.
const DROP_TIMEOUT: Duration = Duration::from_millis(250);
/// How long the runtime may take to end commands; with [`DROP_TIMEOUT`] well within the second that a cancel
/// may take.
const ABORT_TIMEOUT: Duration = Duration::from_millis(600);
/// The most runtime inputs that wait for the actor.
const REQUESTS: usize = 32;

/// What the driving task and the actor share about the answer that is arriving.
pub(crate) type Partials = Arc<Mutex<Arriving>>;

/// An answer that is arriving.
#[derive(Default)]
pub(crate) struct Arriving {
    /// Its messages so far.
    messages: Vec<Partial>,
    /// How many tokens these and its thoughts have, as far as that can be reckoned.
    tokens: u64,
}

/// How long a turn rests when driving it led to nothing, and how often in a row before it is given up.
const STALL_PAUSE: Duration = Duration::from_millis(500);
const MAX_STALLS: u32 = 20;

struct Drive {
    generation: u64,
    task: JoinHandle<Left>,
    /// The view's version when it began; `None` for a pause, which is not expected to lead to anything.
    began_at: Option<u64>,
}

struct Actor {
    inner: Arc<Inner>,
    session: Session,
    info: Arc<SessionInfo>,
    view: watch::Sender<View>,
    partials: Partials,
    requests: mpsc::Sender<Request>,
    drive: Option<Drive>,
    generation: u64,
    /// The turn has to be driven, and is not.
    due: bool,
    /// How often in a row the turn was driven to no effect.
    stalls: u32,
    /// The process has restarted since the turn last moved.
    recovering: bool,
    /// The client that waits for the compaction that is the turn.
    compaction: Option<oneshot::Sender<Result<()>>>,
    deleted: bool,
    /// The agent's budgets as they were seen last.
    quota: Current,
}

/// Runs a session's actor until there is nothing left to do for it. `begins` says that a turn that is under way is not
/// one that a stop cut off, but the session's first.
pub(crate) async fn run(
    inner: Arc<Inner>,
    workspace: WorkspaceId,
    id: SessionId,
    mut mailbox: mpsc::Receiver<Command>,
    begins: bool,
) {
    let key = (workspace, id);
    let (workspace, id) = &key;
    let session = match inner.store.load(workspace, id).await {
        Ok(Some(session)) => session,
        Ok(None) => return refuse(&inner, &key, &mut mailbox, || Error::SessionNotFound),
        Err(error) => {
            tracing::error!(session_id = %id, %error, "a session could not be loaded");
            return refuse(&inner, &key, &mut mailbox, || Error::from(error.clone()));
        }
    };
    let span = tracing::error_span!(
        target: oma_trace::FOR_LOG,
        "session",
        session_id = %id,
        agent_id = %session.agent.id,
        workspace_id = %workspace,
    );
    work(inner, session, &key, &mut mailbox, begins)
        .instrument(span)
        .await;
}

async fn work(
    inner: Arc<Inner>,
    session: Session,
    key: &Key,
    mailbox: &mut mpsc::Receiver<Command>,
    begins: bool,
) {
    let (requests, mut from_runtime) = mpsc::channel(REQUESTS);
    let mut actor = Actor::new(inner, session, requests);
    if actor.session.state.is_running() {
        if !begins {
            // The server has started again since the turn last moved.
            measure::resumed(actor.session.state.queue.len());
            actor.recovering = true;
        }
        actor.due = true;
    }
    actor.close_threads(None);
    if !matches!(actor.session.state.phase, Phase::Blocked { .. }) {
        actor.tell_coordinator();
    }
    let stopping = actor.inner.closed.clone();
    loop {
        if actor.due && actor.drive.is_none() {
            actor.start_drive().await;
        }
        let busy = actor.drive.is_some();
        if !busy && actor.inner.registry.leave(key, mailbox) {
            // It has come to rest; what it has made can be kept.
            if actor.generation > 0 && !actor.deleted {
                let (workspace, id) = key.clone();
                actor.inner.collect_outputs(workspace, id);
            }
            return;
        }
        tokio::select! {
            biased;
            () = stopping.cancelled() => {
                actor.drop_drive().await;
                actor.settle_compaction(Err(stopping_error()));
                return refuse(&actor.inner, key, mailbox, stopping_error);
            }
            Some(request) = from_runtime.recv() => actor.serve(request).await,
            Some(command) = mailbox.recv() => actor.obey(command).await,
            end = finished(&mut actor.drive) => actor.end_of_drive(end).await,
        }
        if actor.deleted {
            return refuse(&actor.inner, key, mailbox, || Error::SessionNotFound);
        }
    }
}

fn stopping_error() -> Error {
    Error::Unavailable("the server is stopping".into())
}

/// Takes the session out of the registry and answers what was sent to it.
fn refuse(inner: &Inner, key: &Key, mailbox: &mut mpsc::Receiver<Command>, error: impl Fn() -> Error) {
    inner.registry.remove(key);
    mailbox.close();
    while let Ok(command) = mailbox.try_recv() {
        command.refuse(error());
    }
}

/// Waits for the end of the driving task.
async fn finished(drive: &mut Option<Drive>) -> std::result::Result<Left, JoinError> {
    match drive {
        Some(drive) => (&mut drive.task).await,
        None => std::future::pending().await,
    }
}

impl Actor {
    fn new(inner: Arc<Inner>, session: Session, requests: mpsc::Sender<Request>) -> Self {
        let info = Arc::new(SessionInfo {
            id: session.id.clone(),
            workspace: session.workspace.clone(),
            agent: Arc::clone(&session.agent),
            roster: session.roster.clone(),
            sandbox: session.sandbox().clone(),
            environment: session.environment.clone(),
            vaults: session.vaults.clone(),
            memories: session.memories.clone(),
            created_by: session.created_by.clone(),
            delegation_depth: session.delegation_depth,
            created_at: session.created_at,
        });
        let (view, _) = watch::channel(View {
            version: 0,
            state: Arc::clone(&session.state),
            head: session.head,
            newest: Arc::default(),
        });
        Self {
            quota: Current {
                version: session.agent.version,
                quota: session.agent.spec.quota,
            },
            inner,
            session,
            info,
            view,
            partials: Partials::default(),
            requests,
            drive: None,
            generation: 0,
            due: false,
            stalls: 0,
            recovering: false,
            compaction: None,
            deleted: false,
        }
    }

    /// Has the runtime do the turn's work. A request that an earlier drive left under way is closed first; if
    /// the store can't take that now, the turn rests and this is tried again.
    async fn start_drive(&mut self) {
        if self.is_sampling()
            && let Err(refusal) = self.apply(Input::Wake, With::default()).await
        {
            tracing::error!(error = %refusal, "a turn waits for the store");
            self.due = false;
            self.generation += 1;
            let task = tokio::spawn(async {
                tokio::time::sleep(STALL_PAUSE).await;
                Left::Tidy
            });
            self.drive = Some(Drive {
                generation: self.generation,
                task,
                began_at: None,
            });
            return;
        }
        self.due = false;
        self.generation += 1;
        let port = Arc::new(ActorPort::new(
            self.generation,
            self.requests.clone(),
            self.view.subscribe(),
            Arc::clone(&self.inner),
            Arc::clone(&self.info),
            Arc::clone(&self.partials),
        ));
        let recovering = std::mem::take(&mut self.recovering);
        let inner = Arc::clone(&self.inner);
        let info = Arc::clone(&self.info);
        let stalled = self.stalls > 0;
        let work = async move {
            if stalled {
                tokio::time::sleep(STALL_PAUSE).await;
            }
            inner
                .want_hands(&info.workspace, info.environment.as_deref(), &info.id)
                .await;
            port.take_place().await;
            inner.runtime.drive(&info, port, recovering).await
        };
        let task = tokio::spawn(work.instrument(self.span()));
        let began_at = Some(self.view.borrow().version);
        self.drive = Some(Drive {
            generation: self.generation,
            task,
            began_at,
        });
    }

    /// The driving task has returned. If the session still runs, another turn has begun or the store failed
    /// under it: it is driven again, more slowly when that leads to nothing, and not for ever.
    async fn end_of_drive(&mut self, end: std::result::Result<Left, JoinError>) {
        let Some(drive) = self.drive.take() else { return };
        self.due = self.session.state.is_running();
        if !self.due {
            self.stalls = 0;
            return;
        }
        // A tidy end leaves open only what was confirmed or answered as the drive ended: no one has started that.
        let is_tidy = matches!(end, Ok(Left::Tidy));
        self.recovering |= !is_tidy && !self.session.state.open_tools().is_empty();
        let panicked = end.is_err_and(|error| error.is_panic());
        match drive.began_at {
            Some(version) if version == self.view.borrow().version => self.stalls += 1,
            Some(_) => self.stalls = 0,
            None => {}
        }
        if panicked || self.stalls > MAX_STALLS {
            tracing::error!(panicked, "a turn can't go on");
            let message = "the server met a fault of its own; it has been logged".to_owned();
            let failure = Failure {
                kind: FailureKind::Internal,
                message,
            };
            if let Err(error) = self.apply(Input::FailTurn { failure }, With::default()).await {
                tracing::error!(%error, "a turn could not be ended");
            }
            self.due = self.session.state.is_running();
        }
    }

    /// Ends the driving task and forgets whatever it may still say.
    async fn drop_drive(&mut self) {
        let Some(drive) = self.drive.take() else { return };
        self.generation += 1;
        drive.task.abort();
        if tokio::time::timeout(DROP_TIMEOUT, drive.task).await.is_err() {
            tracing::error!("a turn's task does not let go");
        }
    }

    fn note_effects(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Drive => self.due = true,
            }
        }
    }

    /// Answers the client that waits for a compaction.
    fn settle_compaction(&mut self, outcome: Result<()>) {
        if let Some(waiting) = self.compaction.take() {
            // A client that has left does not want to know.
            let _gone = waiting.send(outcome);
        }
    }

    /// The span around a drive, a part of the trace of whoever posted the turn's message.
    fn span(&self) -> tracing::Span {
        let Session {
            id, workspace, agent, ..
        } = &self.session;
        // At this level it is there whatever the log's level is.
        let span = tracing::error_span!(
            "turn",
            session_id = %id,
            agent_id = %agent.id,
            workspace_id = %workspace,
            "otel.name" = format!("invoke_agent {}", agent.spec.name.as_deref().unwrap_or_default()).trim_end(),
            "gen_ai.operation.name" = "invoke_agent",
            "gen_ai.agent.id" = %agent.id,
            "gen_ai.agent.version" = agent.version,
            "gen_ai.conversation.id" = %id,
        );
        let turn = self.session.state.turn();
        if let Some(parent) = turn.and_then(|turn| turn.trace.as_ref()) {
            oma_trace::adopt(&span, parent);
        }
        span
    }

    fn is_sampling(&self) -> bool {
        let turn = self.session.state.turn();
        turn.is_some_and(|turn| matches!(turn.step, Step::Sampling { .. }))
    }
}
