//! Sessions: create, read, post to, confirm, stop, compact, delete.

use std::sync::Arc;

use oma_domain::agent::Spec;
use oma_domain::page::{Order, Page};
use oma_domain::session::Rejection;
use oma_domain::{AgentId, Environment, Event, EventId, KeyId, Seq, Session, SessionId, WorkspaceId};
use oma_sandbox::files::Workspace;
use oma_store::{NewSession, SessionFilter};
use serde_json::{Value, json};

use crate::actor::Command;
use crate::agents::{not_found, unsupported};
use crate::error::{Error, Result};
use crate::{CreateSession, Engine, IdempotencyKey, Post, Posted, now, once};

const SCOPE: &str = "session.create";

impl Engine {
    /// Creates a session, pinned to the agent's current version.
    ///
    /// # Errors
    /// [`Error::EnvironmentNotFound`], [`Error::EnvironmentArchived`], [`Error::AgentNotFound`],
    /// [`Error::AgentArchived`],
    /// [`Error::Unsupported`], [`Error::Vault`] when there is no such vault or it is archived, [`Error::SessionExists`],
    /// [`Error::KeyReused`]; [`Error::Files`] for a file that it can't be given; [`Error::Unavailable`] when the server
    /// is stopping, because no message would be taken.
    pub async fn create_session(
        &self,
        workspace: &WorkspaceId,
        create: CreateSession,
        key: Option<IdempotencyKey>,
    ) -> Result<Session> {
        self.accepting()?;
        let store = &*self.inner.store;
        if let Some(receipt) = once::lookup(store, workspace, SCOPE, key.as_ref()).await? {
            return self.replayed_session(workspace, &receipt).await;
        }
        let session = self.new_session(workspace, create).await?;
        let record = once::record(SCOPE, key.as_ref(), json!(session.id));
        let created = store.create_session(&session, record.as_ref()).await;
        if created.is_err() {
            self.inner.files.give_up(&session.files).await;
        }
        match (created, key) {
            (Ok(()), _) => {
                let session = self.session(workspace, &session.id).await?;
                self.warm_like(&session);
                Ok(session)
            }
            (Err(oma_store::Error::AlreadyDone(record)), Some(key)) => {
                self.replayed_session(workspace, &once::replay(record, &key)?)
                    .await
            }
            (Err(oma_store::Error::Conflict), _) => Err(Error::SessionExists),
            // It was deleted after it had been looked up.
            (Err(oma_store::Error::NotFound), _) => Err(Error::EnvironmentNotFound),
            (Err(error), _) => Err(error.into()),
        }
    }

    /// A session that can be created, and is not yet. Whoever does not create it has to give up its files.
    pub(crate) async fn new_session(
        &self,
        workspace: &WorkspaceId,
        create: CreateSession,
    ) -> Result<NewSession> {
        let environment = match &create.environment {
            Some(id) => Some(Arc::new(self.environment(workspace, id).await?)),
            None => None,
        };
        if environment
            .as_ref()
            .is_some_and(|environment| environment.archived_at.is_some())
        {
            return Err(Error::EnvironmentArchived);
        }
        let mut agent = match create.version {
            Some(version) => self.agent_at(workspace, &create.agent, version).await?,
            None => self.agent(workspace, &create.agent).await?,
        };
        if agent.archived_at.is_some() {
            return Err(Error::AgentArchived);
        }
        if let Some(spec) = create.spec {
            agent.spec = spec;
        }
        if let Some(environment) = environment
            .as_deref()
            .filter(|environment| !environment.spec.hosting.is_cloud())
        {
            check_hands(environment, &agent.spec, !create.resources.is_empty())?;
        }
        self.inner
            .runtime
            .check(&agent, environment.as_deref())
            .map_err(unsupported)?;
        if let Some(environment) = &environment {
            self.inner.runtime.prepare_environment(environment);
        }
        if create.budget.is_some() {
            self.check_prices(&agent)?;
        }
        self.check_skills(workspace, &agent.spec.skills).await?;
        for vault in &create.vaults {
            self.open_vault(workspace, vault).await?;
        }
        let memories = self.attach_memories(workspace, create.memories).await?;
        let delegation_depth = agent.spec.max_subagent_depth;
        let roster = self.roster_of(workspace, &agent).await?;
        let id = create.id.unwrap_or_else(SessionId::generate);
        let files = &self.inner.files;
        // The last that can fail: what it makes goes again only with the session.
        let given = files.prepare(workspace, &id, create.resources, now()).await?;
        Ok(NewSession {
            id,
            workspace: workspace.clone(),
            agent: Arc::new(agent),
            roster,
            environment,
            vaults: create.vaults,
            memories,
            resources: given.resources,
            files: given.files,
            file_room: files.limits().room,
            parent: None,
            is_thread: false,
            delegation_depth,
            share: None,
            budget: create.budget,
            created_by: create.created_by,
            deployment: create.deployment,
            ephemeral: create.ephemeral,
            title: create.title,
            metadata: create.metadata,
            created_at: now(),
        })
    }

    pub(crate) async fn replayed_session(&self, workspace: &WorkspaceId, receipt: &Value) -> Result<Session> {
        let id = receipt
            .as_str()
            .and_then(|id| SessionId::parse(id).ok())
            .ok_or(Error::SessionNotFound)?;
        self.session(workspace, &id).await
    }

    /// A session as of its last commit.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub async fn session(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<Session> {
        self.inner
            .store
            .session(workspace, id)
            .await?
            .ok_or(Error::SessionNotFound)
    }

    /// Sessions by creation.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`] when the cursor is unknown.
    pub async fn sessions(
        &self,
        workspace: &WorkspaceId,
        filter: &SessionFilter,
        order: Order,
        after: Option<&SessionId>,
        limit: u32,
    ) -> Result<Page<Session, SessionId>> {
        let page = self
            .inner
            .store
            .sessions(workspace, filter, order, after, limit)
            .await;
        page.map_err(|error| not_found(error, Error::SessionNotFound))
    }

    /// Stops whatever the session does and removes it with its log, sandbox and workspace.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub async fn delete_session(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<()> {
        let session = self.session(workspace, id).await?;
        if session.parent.is_some() {
            // What it consumed counts in its parent, also when nobody can ask it any more.
            match self.interrupt(workspace, id, true, None).await {
                Ok(()) | Err(Error::Rejected(Rejection::NotRunning)) => {}
                Err(error) => return Err(error),
            }
            let stopped = self.session(workspace, id).await?;
            self.settle_with_parent(&stopped).await?;
        }
        self.ask(workspace, id, |reply| Command::Delete { reply }).await?;
        // What can't be removed now is tried again by the sweep.
        if let Err(error) = self.inner.files.release().await {
            tracing::warn!(session_id = %id, %error, "the files of a deleted session are not all gone yet");
        }
        Ok(())
    }

    /// Posts a message. It is durable when this returns, and takes effect exactly once.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`]; [`Error::AgentNotFound`] when the agent was deleted;
    /// [`Error::InvalidModel`];
    /// [`Error::Rejected`] when a budget is used up, the queue is full, or the session is busy and the post
    /// wants it idle; [`Error::KeyReused`].
    pub async fn post(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
        post: Post,
        key: Option<IdempotencyKey>,
    ) -> Result<Posted> {
        if let Some(model) = &post.model {
            self.check_model(model)?;
        }
        self.ask(workspace, id, |reply| Command::Post {
            post: Box::new(post),
            trace: oma_trace::current(),
            key,
            reply,
        })
        .await
    }

    /// Answers a tool use that asks.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`]; [`Error::Rejected`] when that tool use does not ask.
    pub async fn confirm(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
        tool_use: EventId,
        allow: bool,
        deny_message: Option<String>,
        key: Option<IdempotencyKey>,
    ) -> Result<()> {
        self.ask(workspace, id, |reply| Command::Confirm {
            tool_use,
            allow,
            deny_message,
            key,
            reply,
        })
        .await
    }

    /// Stops the turn, within a second, keeping its partial output; with `clear_queue` the waiting messages
    /// are dropped as well, otherwise the next of them follows. With `only` no other turn than the one that
    /// this message started is stopped.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`]; [`Error::Rejected`] when nothing goes on, or something else.
    pub async fn interrupt(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
        clear_queue: bool,
        only: Option<EventId>,
    ) -> Result<()> {
        self.ask(workspace, id, |reply| Command::Interrupt {
            clear_queue,
            only,
            reply,
        })
        .await
    }

    /// Summarises the history, so that later requests carry less of it. `charged` is the key of whoever asks for it.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`]; [`Error::Rejected`] when the session is busy or has no history;
    /// [`Error::CompactionFailed`]; [`Error::Unavailable`] when it takes too long (it still goes on).
    pub async fn compact(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
        charged: Option<KeyId>,
    ) -> Result<()> {
        let asked = self.ask(workspace, id, |reply| Command::Compact { charged, reply });
        let Ok(outcome) = tokio::time::timeout(self.inner.config.compact_timeout, asked).await else {
            return Err(Error::Unavailable(
                "the compaction takes longer than this request may; it goes on".into(),
            ));
        };
        outcome
    }

    /// Events after `from` (ascending) or before it (descending; from the end without it).
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub async fn events(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
        from: Option<Seq>,
        order: Order,
        limit: u32,
    ) -> Result<Page<Event, Seq>> {
        let page = self.inner.store.events(workspace, id, from, order, limit).await?;
        if page.rows.is_empty() {
            self.session(workspace, id).await?;
        }
        Ok(page)
    }

    /// A session with the messages that wait for it, oldest first, by the ids that their events will have, and a page of
    /// its events, both as they were at one time.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub async fn session_and_events(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
        from: Option<Seq>,
        order: Order,
        limit: u32,
    ) -> Result<(Session, Page<Event, Seq>)> {
        let store = &self.inner.store;
        let found = store
            .session_and_events(workspace, id, from, order, limit)
            .await?;
        found.ok_or(Error::SessionNotFound)
    }

    /// The position of an event, if the session has it.
    ///
    /// # Errors
    /// A store failure.
    pub async fn locate(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
        event: &EventId,
    ) -> Result<Option<Seq>> {
        Ok(self.inner.store.locate(workspace, id, event).await?)
    }

    /// The newest lines that the session's sandbox printed; none when it has no sandbox. When there is one is the
    /// server's affair, so its absence is not told apart from a sandbox that has printed nothing.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub async fn logs(&self, workspace: &WorkspaceId, id: &SessionId, tail: usize) -> Result<String> {
        let session = self.session(workspace, id).await?;
        let logs = self.inner.runtime.logs(session.sandbox(), tail).await;
        Ok(logs.unwrap_or_default())
    }

    /// The files of a session's workspace.
    ///
    /// # Errors
    /// [`Error::AgentNotFound`]; [`Error::SessionNotFound`], also when the session is another agent's.
    pub async fn workspace(
        &self,
        workspace: &WorkspaceId,
        agent: &AgentId,
        id: &SessionId,
    ) -> Result<Arc<dyn Workspace>> {
        let session = self.session(workspace, id).await;
        match session {
            Ok(session) if session.agent.id == *agent => {
                let workspace = self.inner.runtime.workspace(session.sandbox()).await;
                workspace.map_err(Error::Internal)
            }
            Ok(_) | Err(Error::SessionNotFound) => {
                self.agent(workspace, agent).await?;
                Err(Error::SessionNotFound)
            }
            Err(error) => Err(error),
        }
    }
}

/// What sessions whose tools run with their developer can't have.
fn check_hands(environment: &Environment, agent: &Spec, has_resources: bool) -> Result<()> {
    if has_resources {
        check_resources(environment)?;
    }
    if agent.multiagent.is_some() {
        let message = format!(
            "Environment {} is a self-hosted environment, whose workers carry out the tools of one thread. Agents with \
             `multiagent` are not supported there.",
            environment.id
        );
        return Err(Error::Unsupported {
            field: "agent",
            message,
        });
    }
    Ok(())
}

/// The field that says what sessions are given.
pub(crate) const RESOURCES: &str = "resources";

/// Whether an environment takes anything but memory stores.
///
/// # Errors
/// [`Error::Unsupported`].
pub(crate) fn check_resources(environment: &Environment) -> Result<()> {
    if environment.spec.hosting.is_cloud() {
        return Ok(());
    }
    let message = format!(
        "Environment {} is a self-hosted environment. `resources` other than memory stores are not supported with \
         self-hosted environments.",
        environment.id
    );
    Err(Error::Unsupported {
        field: RESOURCES,
        message,
    })
}
