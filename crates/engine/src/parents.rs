//! Sessions that are opened on another one's behalf with a parent token of it: by a program in its sandbox, or by tools
//! that clients run for it.
//!
//! Such a child is like one that the tool `call_agent` opens: it names its parent, is cancelled with it, and counts in
//! its budgets. Since nobody waits for its answer here, the parent learns what it consumed when it comes to rest, from a
//! task that follows it, and at the latest before anything that depends on its own budgets.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use oma_domain::event::Body;
use oma_domain::quota::Quota;
use oma_domain::session::{Phase, Rejection, Standing};
use oma_domain::{AgentId, EnvironmentId, Session, SessionId, WorkspaceId};
use oma_store::NewSession;
use secrecy::SecretString;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use crate::actor::Command;
use crate::agents::unsupported;
use crate::error::{Error, Result};
use crate::hub::{Note, Subscription};
use crate::parent_token::{Claims, LIFETIME_MS, Secret};
use crate::{Engine, IdempotencyKey, Post, Posted, keys, now, once};

/// What the store keeps the signing secret under.
const SECRET: &str = "parent_token_secret";

/// A parent token whose text is told.
#[derive(Debug)]
pub struct IssuedParentToken {
    /// Its text.
    pub token: SecretString,
    /// What it says.
    pub claims: Claims,
}

/// A session to open on another one's behalf.
#[derive(Debug, Clone)]
pub struct OpenChild {
    /// The agent.
    pub agent: AgentId,
    /// The environment, if one was named. There is only one that it can be: the parent's.
    pub environment: Option<EnvironmentId>,
}

impl Engine {
    /// Loads what parent tokens are signed with, or makes it on a server's first start.
    ///
    /// # Errors
    /// A store failure.
    pub(crate) async fn load_parent_secret(&self) -> Result<()> {
        let kept = self.inner.store.keep(SECRET, &keys::random()?).await?;
        let secret = Secret::new(&kept).ok_or_else(|| {
            Error::Internal("what the store keeps as the secret of parent tokens is none".into())
        })?;
        // A second load finds the same.
        drop(self.inner.parent_secret.set(secret));
        Ok(())
    }

    pub(crate) fn parent_secret(&self) -> Result<&Secret> {
        let secret = self.inner.parent_secret.get();
        secret.ok_or_else(|| Error::Unavailable("the secret of parent tokens is not loaded yet".into()))
    }

    /// Makes a token with which others may be opened on a session's behalf, for a day.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`]; [`Error::MaxDepth`] when tasks may not be passed on from the session.
    pub async fn mint_parent_token(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
    ) -> Result<IssuedParentToken> {
        let session = self.session(workspace, id).await?;
        if session.delegation_depth == 0 {
            return Err(Error::MaxDepth);
        }
        let callable = session.agent.spec.callable_agents.iter();
        let claims = Claims {
            parent_session_id: session.id.clone(),
            parent_agent_id: session.agent.id.clone(),
            workspace_id: workspace.clone(),
            // What can't be an agent's id can't be called.
            allowlist: callable.filter_map(|id| AgentId::parse(id).ok()).collect(),
            remaining_depth: session.delegation_depth,
            expires_at: now().plus_millis(LIFETIME_MS),
        };
        let token = self.parent_secret()?.sign(&claims).map_err(Error::Internal)?;
        Ok(IssuedParentToken { token, claims })
    }

    /// What a parent token says.
    ///
    /// # Errors
    /// [`Error::InvalidParentToken`] when it is not one of ours or has expired; [`Error::Unavailable`] before the
    /// server has started.
    pub fn verify_parent_token(&self, token: &[u8]) -> Result<Claims> {
        let claims = self.parent_secret()?.verify(token, now());
        claims.ok_or(Error::InvalidParentToken)
    }

    /// Opens a session on the behalf of the one that the token is of, in that one's environment.
    ///
    /// # Errors
    /// [`Error::InvalidParentToken`] when the parent has been deleted; [`Error::AgentNotAllowed`],
    /// [`Error::MaxDepth`], [`Error::NotParentsEnvironment`]; what [`Engine::create_session`] gives;
    /// [`Error::Rejected`] when the parent's budget leaves too little or it has too many children.
    pub async fn open_child(
        &self,
        claims: &Claims,
        open: OpenChild,
        key: Option<IdempotencyKey>,
    ) -> Result<Session> {
        if !claims.allowlist.contains(&open.agent) {
            return Err(Error::AgentNotAllowed);
        }
        let delegation_depth = claims.remaining_depth.checked_sub(1).ok_or(Error::MaxDepth)?;
        let parent = self.parent(claims).await?;
        let workspace = &claims.workspace_id;
        let store = &*self.inner.store;
        let scope = format!("session.child:{}", parent.id);
        if let Some(receipt) = once::lookup(store, workspace, &scope, key.as_ref()).await? {
            return self.replayed_session(workspace, &receipt).await;
        }
        let theirs = parent.environment.as_ref().map(|environment| &environment.id);
        if open.environment.is_some() && open.environment.as_ref() != theirs {
            return Err(Error::NotParentsEnvironment);
        }
        let agent = self.agent(workspace, &open.agent).await?;
        if agent.archived_at.is_some() {
            return Err(Error::AgentArchived);
        }
        let runtime = &self.inner.runtime;
        runtime
            .check(&agent, parent.environment.as_deref())
            .map_err(unsupported)?;
        let roster = self.roster_of(workspace, &agent).await?;
        let id = SessionId::generate();
        let _opening = self.inner.opening.begin(&id);
        let share = self.lend(&parent, &id, None).await?;
        let session = NewSession {
            id: id.clone(),
            workspace: workspace.clone(),
            agent: Arc::new(agent),
            roster,
            environment: parent.environment.clone(),
            // Credentials are not handed on.
            vaults: Vec::new(),
            memories: Vec::new(),
            resources: Vec::new(),
            files: Vec::new(),
            file_room: 0,
            parent: Some(parent.id.clone()),
            is_thread: false,
            delegation_depth,
            share: share.filter(|share| *share != Quota::default()),
            budget: None,
            ephemeral: false,
            created_by: parent.created_by.clone(),
            title: None,
            metadata: BTreeMap::new(),
            deployment: None,
            created_at: now(),
        };
        let record = once::record(&scope, key.as_ref(), json!(id));
        let created = store.create_session(&session, record.as_ref()).await;
        if created.is_err() {
            // There is no such child; nothing that it could have consumed is lost.
            self.give_back(workspace, &parent.id, &id, None).await?;
        }
        match (created, key) {
            (Ok(()), _) => {
                let session = self.session(workspace, &id).await?;
                self.warm_like(&session);
                Ok(session)
            }
            (Err(oma_store::Error::AlreadyDone(record)), Some(key)) => {
                self.replayed_session(workspace, &once::replay(record, &key)?)
                    .await
            }
            (Err(oma_store::Error::NotFound), _) => Err(Error::EnvironmentNotFound),
            (Err(error), _) => Err(error.into()),
        }
    }

    /// A session that was opened on the behalf of the one that the token is of.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`] for every other session; [`Error::InvalidParentToken`] when the parent is gone.
    pub async fn child(&self, claims: &Claims, id: &SessionId) -> Result<Session> {
        let parent = self.parent(claims).await?;
        if !parent.state.delegated.opened.contains_key(id) {
            return Err(Error::SessionNotFound);
        }
        self.session(&claims.workspace_id, id).await
    }

    /// Gives a child a task. What it may consume for that is set aside of its parent's budgets first.
    ///
    /// # Errors
    /// What [`Engine::child`] and [`Engine::post`] give; [`Error::Rejected`] also when the parent's budget leaves too
    /// little.
    pub async fn post_to_child(
        &self,
        claims: &Claims,
        id: &SessionId,
        mut post: Post,
        key: Option<IdempotencyKey>,
    ) -> Result<Posted> {
        let child = self.child(claims, id).await?;
        let parent = self.parent(claims).await?;
        let workspace = &claims.workspace_id;
        // Whoever pays for what the parent does pays for this, too.
        post.charged = match parent.state.turn() {
            Some(turn) => turn.charged.clone(),
            None => parent.created_by.clone(),
        };
        // Before anything happens in it, so that its end is not missed.
        let followed = self.inner.hub.subscribe(id);
        let known = (child.share, standing(&child));
        // The first task is what the share was set aside for when it was opened.
        if child.state.turns > 0 {
            self.lend(&parent, id, Some(known)).await?;
        }
        let posted = self.post(workspace, id, post, key).await;
        match &posted {
            Ok(_) => self.watch_child(workspace.clone(), parent.id.clone(), id.clone(), followed),
            Err(_) => {
                let unchanged = Standing {
                    turns: u64::MAX,
                    ..known.1
                };
                // A child at work is counted when it rests.
                if child.state.turns > 0 && at_rest(&child) {
                    self.give_back(workspace, &parent.id, id, Some(unchanged)).await?;
                }
            }
        }
        posted
    }

    async fn parent(&self, claims: &Claims) -> Result<Session> {
        match self
            .session(&claims.workspace_id, &claims.parent_session_id)
            .await
        {
            Err(Error::SessionNotFound) => Err(Error::InvalidParentToken),
            found => found,
        }
    }

    /// Has a session set aside what a child may consume; tells how much that is.
    async fn lend(
        &self,
        parent: &Session,
        child: &SessionId,
        known: Option<(Option<Quota>, Standing)>,
    ) -> Result<Option<Quota>> {
        self.ask(&parent.workspace, &parent.id, |reply| Command::Lend {
            child: child.clone(),
            known,
            reply,
        })
        .await
    }

    /// Tells a session what a child has consumed, or that it is gone.
    async fn give_back(
        &self,
        workspace: &WorkspaceId,
        parent: &SessionId,
        child: &SessionId,
        standing: Option<Standing>,
    ) -> Result<()> {
        let asked = self.ask(workspace, parent, |reply| Command::GiveBack {
            child: child.clone(),
            standing,
            reply,
        });
        match asked.await {
            // It has been counted already, or there is nobody any more in whose budget it could count.
            Ok(()) | Err(Error::Rejected(Rejection::Stale) | Error::SessionNotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Tells the parent when the child has come to rest. Should the server stop before, the parent looks by itself.
    fn watch_child(
        &self,
        workspace: WorkspaceId,
        parent: SessionId,
        child: SessionId,
        followed: Subscription,
    ) {
        let engine = self.clone();
        let stopping = self.inner.stopping.clone();
        self.inner.tasks.spawn(async move {
            let told = engine.tell_parent(&workspace, &parent, &child, followed);
            tokio::select! {
                () = stopping.cancelled() => {}
                told = told => if let Err(error) = told {
                    tracing::error!(session = %parent, %child, %error, "a child's consumption waits to be counted");
                },
            }
        });
    }

    async fn tell_parent(
        &self,
        workspace: &WorkspaceId,
        parent: &SessionId,
        child: &SessionId,
        mut followed: Subscription,
    ) -> Result<()> {
        loop {
            match self.session(workspace, child).await {
                Ok(session) if at_rest(&session) => {
                    let standing = Some(standing(&session));
                    return self.give_back(workspace, parent, child, standing).await;
                }
                Ok(_) => {}
                Err(Error::SessionNotFound) => {
                    return self.give_back(workspace, parent, child, None).await;
                }
                Err(error) => return Err(error),
            }
            loop {
                match followed.notes.recv().await {
                    Ok(Note::Event(event)) if matches!(*event.body, Body::StatusIdle { .. }) => break,
                    Ok(Note::Event(_) | Note::Delta { .. }) => {}
                    Ok(Note::Deleted) | Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return Ok(()),
                }
            }
        }
    }

    /// Counts in its parent what a session has consumed that is about to be deleted.
    pub(crate) async fn settle_with_parent(&self, session: &Session) -> Result<()> {
        let Some(parent) = &session.parent else {
            return Ok(());
        };
        let last = Standing {
            turns: u64::MAX,
            ..standing(session)
        };
        self.give_back(&session.workspace, parent, &session.id, Some(last))
            .await
    }
}

/// The children that are about to be stored.
#[derive(Debug, Default)]
pub(crate) struct Opening(Mutex<HashSet<SessionId>>);

/// A child that is about to be stored, until this is dropped.
pub(crate) struct Begun<'a>(&'a Opening, SessionId);

impl Opening {
    fn lock(&self) -> MutexGuard<'_, HashSet<SessionId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that a child is about to be stored, until what this gives is dropped.
    pub(crate) fn begin(&self, child: &SessionId) -> Begun<'_> {
        self.lock().insert(child.clone());
        Begun(self, child.clone())
    }

    /// Whether a child is not missing but about to be stored.
    pub(crate) fn has(&self, child: &SessionId) -> bool {
        self.lock().contains(child)
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

/// How a session stands.
pub(crate) fn standing(session: &Session) -> Standing {
    Standing {
        turns: session.state.turns,
        spent: session.state.total(),
    }
}

/// Whether nothing goes on in a session, not even a wait for a confirmation.
pub(crate) fn at_rest(session: &Session) -> bool {
    matches!(session.state.phase, Phase::Idle { .. })
}
