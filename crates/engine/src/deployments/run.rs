//! Runs of deployments. A run is recorded together with the session that it opens and what that one begins with, in one
//! transaction, so that after a crash either nothing of it is there or all of it.

use oma_domain::deployment::{ErrorKind, InitialEvent, Outcome, Pause, Run, Tick, Trigger};
use oma_domain::session::State;
use oma_domain::{Deployment, DeploymentId, KeyId, RunId, WorkspaceId};
use oma_store::{Commit, NewRun, NewSession, Once};
use serde_json::json;

use super::{CHANGE_ATTEMPTS, busy};
use crate::actor::{Command, beginning};
use crate::error::{Error, Result};
use crate::{CreateSession, Engine, IdempotencyKey, MemoryError, Post, Submission, files, measure, once};

/// Why a run opens no session.
struct Failure {
    kind: ErrorKind,
    message: String,
}

/// A session with what it begins with.
type Opened = (NewSession, Commit);

/// What came of opening one.
type Attempt = std::result::Result<Opened, Failure>;

/// The time of a schedule that is run.
pub(super) struct Due {
    /// The time.
    pub(super) tick: Tick,
    /// The one after it.
    pub(super) next: Option<Tick>,
}

impl Engine {
    /// Runs a deployment now, also while it is paused. `charged` is the key of whoever asks for it.
    ///
    /// # Errors
    /// [`Error::DeploymentNotFound`], [`Error::DeploymentArchived`], [`Error::KeyReused`]; [`Error::Unavailable`] when
    /// the server is stopping. That no session could be opened is no error, but what the run says.
    pub async fn run_deployment(
        &self,
        workspace: &WorkspaceId,
        id: &DeploymentId,
        charged: Option<KeyId>,
        key: Option<IdempotencyKey>,
    ) -> Result<Run> {
        self.accepting()?;
        let scope = format!("deployment.run:{id}");
        let run = RunId::generate();
        let record = once::record(&scope, key.as_ref(), json!(run));
        for _ in 0..CHANGE_ATTEMPTS {
            let known = once::lookup(&*self.inner.store, workspace, &scope, key.as_ref()).await?;
            if let Some(receipt) = known {
                let id = receipt.as_str().and_then(|id| RunId::parse(id).ok());
                return self
                    .deployment_run(workspace, &id.ok_or(Error::RunNotFound)?)
                    .await;
            }
            let deployment = self.deployment(workspace, id).await?;
            if deployment.archived_at.is_some() {
                return Err(Error::DeploymentArchived);
            }
            let made = self.make_run(&run, &deployment, None, charged.clone(), record.as_ref());
            if let Some(run) = made.await? {
                return Ok(run);
            }
        }
        Err(busy())
    }

    /// Makes a run of a deployment as it stands; `None` when it stands otherwise by now, or the run was made before.
    pub(super) async fn make_run(
        &self,
        id: &RunId,
        deployment: &Deployment,
        due: Option<&Due>,
        charged: Option<KeyId>,
        once: Option<&Once>,
    ) -> Result<Option<Run>> {
        let mut opened = self.open(deployment, charged).await?;
        loop {
            let new = self.new_run(id, deployment, due, opened);
            let error = match self.inner.store.record_run(&new, once).await {
                Ok(()) => {
                    self.begin(&new);
                    return Ok(Some(new.run));
                }
                Err(error) => error,
            };
            // Nothing was recorded, so the session's copies of files are nobody's.
            if let Some((session, _)) = &new.opened {
                self.inner.files.give_up(&session.files).await;
            }
            match error {
                oma_store::Error::Conflict | oma_store::Error::AlreadyDone(_) => return Ok(None),
                oma_store::Error::NotFound if new.opened.is_none() => {
                    return Err(Error::DeploymentNotFound);
                }
                // What was there when it was looked at is not there any more.
                error if new.opened.is_some() => opened = Err(refused(error.into())?),
                error => return Err(error.into()),
            }
        }
    }

    /// The run, and what becomes of the deployment.
    fn new_run(&self, id: &RunId, deployment: &Deployment, due: Option<&Due>, opened: Attempt) -> NewRun {
        let at = self.inner.config.clock.now();
        let mut after = deployment.clone();
        after.revision += 1;
        if let Some(due) = due {
            after.next = due.next;
            after.last_run_at = Some(at);
        }
        let (outcome, opened) = match opened {
            Ok(opened) => (Outcome::Session(opened.0.id.clone()), Some(opened)),
            Err(Failure { kind, message }) => {
                if kind.lasts() && after.paused.is_none() {
                    after.paused = Some(Pause::Error(kind));
                    after.updated_at = at;
                    after.next = None;
                }
                (Outcome::Failed { kind, message }, None)
            }
        };
        let run = Run {
            id: id.clone(),
            workspace: deployment.workspace.clone(),
            deployment: deployment.id.clone(),
            agent: deployment.spec.agent.clone(),
            agent_version: deployment.spec.agent_version,
            trigger: match due {
                Some(due) => Trigger::Schedule {
                    scheduled_at: due.tick.scheduled_at,
                },
                None => Trigger::Manual,
            },
            outcome,
            created_at: at,
        };
        NewRun {
            run,
            deployment: after,
            opened,
        }
    }

    /// A session as the deployment wants it, or why there can be none.
    ///
    /// # Errors
    /// What says nothing about the deployment: a store that fails.
    async fn open(&self, deployment: &Deployment, charged: Option<KeyId>) -> Result<Attempt> {
        let Deployment { workspace, spec, .. } = deployment;
        let (resources, memories) = self
            .unseal_given(workspace, &deployment.id, &spec.resources)
            .await?;
        let create = CreateSession {
            resources,
            memories,
            version: Some(spec.agent_version),
            environment: Some(spec.environment.clone()),
            vaults: spec.vaults.clone(),
            budget: spec.budget.and_then(|budget| budget.max_cost),
            created_by: charged.clone(),
            deployment: Some(deployment.id.clone()),
            ..CreateSession::of(spec.agent.clone())
        };
        let session = match self.new_session(workspace, create).await {
            Ok(session) => session,
            Err(error) => return Ok(Err(refused(error)?)),
        };
        let events = spec.initial_events.iter().map(|event| match event {
            InitialEvent::Message { content } => Submission::Message(Post {
                content: content.clone(),
                model: None,
                thinking_level: None,
                only_if_idle: false,
                charged: charged.clone(),
                audit: None,
            }),
            InitialEvent::DefineOutcome {
                description,
                rubric,
                max_iterations,
            } => Submission::DefineOutcome {
                description: description.clone(),
                rubric: rubric.clone(),
                max_iterations: *max_iterations,
                charged: charged.clone(),
            },
            InitialEvent::System { content } => Submission::System(content.clone()),
        });
        match beginning(&self.inner, &session, events.collect()).await {
            Ok(commit) => Ok(Ok((session, commit))),
            Err(error) => {
                self.inner.files.give_up(&session.files).await;
                Ok(Err(refused(error)?))
            }
        }
    }

    /// Starts the work of a session that is durable by now.
    fn begin(&self, new: &NewRun) {
        let trigger = match new.run.trigger {
            Trigger::Manual => "manual",
            Trigger::Schedule { .. } => "schedule",
        };
        let outcome = match &new.run.outcome {
            Outcome::Session(_) => "ok",
            Outcome::Failed { kind, .. } => kind.as_str(),
        };
        metrics::counter!("deployment_runs_total", "trigger" => trigger, "outcome" => outcome).increment(1);
        let Some((session, commit)) = &new.opened else {
            return;
        };
        measure::transition(
            &State::default(),
            &commit.state,
            &commit.events,
            session.created_at,
        );
        let (reply, _answer) = tokio::sync::oneshot::channel();
        if let Err(error) = self.send(&session.workspace, &session.id, Command::Begin { reply }) {
            // The next start finds it among those that were cut off.
            tracing::warn!(session_id = %session.id, %error, "a run's session waits for the next start");
        }
    }
}

/// What a refusal says in the record of a run.
///
/// # Errors
/// The error itself when it says nothing about the deployment.
fn refused(error: Error) -> Result<Failure> {
    let kind = match &error {
        Error::EnvironmentNotFound => ErrorKind::EnvironmentNotFound,
        Error::EnvironmentArchived => ErrorKind::EnvironmentArchived,
        // There is no kind for an agent that is gone.
        Error::AgentNotFound | Error::AgentArchived => ErrorKind::AgentArchived,
        Error::Vault(oma_vault::Error::VaultNotFound) => ErrorKind::VaultNotFound,
        Error::Vault(oma_vault::Error::VaultArchived) => ErrorKind::VaultArchived,
        Error::Files(files::Error::NotFound | files::Error::Expired) => ErrorKind::FileNotFound,
        Error::Files(files::Error::Invalid { .. } | files::Error::TooManyResources(_)) => {
            ErrorKind::SessionCreationRejected
        }
        // There is no kind of its own for a workspace whose storage is full; it goes away as soon as there is room.
        Error::Files(files::Error::NoRoom(_)) => ErrorKind::SessionRateLimited,
        Error::Memory(MemoryError::StoreArchived) => ErrorKind::MemoryStoreArchived,
        Error::Memory(MemoryError::StoreNotFound) => ErrorKind::SessionResourceNotFound,
        Error::Unsupported {
            field: crate::sessions::RESOURCES,
            ..
        } => ErrorKind::SelfHostedResources,
        Error::TooManySessions(_) => ErrorKind::SessionRateLimited,
        Error::Rejected(oma_domain::session::Rejection::QuotaExceeded(_)) => ErrorKind::SessionRateLimited,
        Error::Unsupported {
            field: crate::skills::FIELD,
            ..
        } => ErrorKind::SkillNotFound,
        Error::Rejected(_) | Error::Unsupported { .. } | Error::InvalidModel(_) | Error::NotBudgetable(_) => {
            ErrorKind::SessionCreationRejected
        }
        _ => return Err(error),
    };
    Ok(Failure {
        kind,
        message: error.to_string(),
    })
}
