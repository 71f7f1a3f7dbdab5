//! What a session begins with that is opened and set to work in one transaction.

use std::sync::Arc;

use oma_domain::session::{Session, State};
use oma_domain::{EventId, Seq};
use oma_store::{Commit, NewSession};
use tokio::sync::mpsc;

use super::Actor;
use super::commit::With;
use super::stop::Stopped;
use crate::error::Result;
use crate::{Inner, Submission, now};

/// The first commit of a session that is not stored yet: all of the submissions.
///
/// # Errors
/// [`Error::Rejected`](crate::Error::Rejected) when one of them is not legal where it stands, or a budget leaves nothing.
pub(crate) async fn beginning(
    inner: &Arc<Inner>,
    new: &NewSession,
    submissions: Vec<Submission>,
) -> Result<Commit> {
    let session = Session {
        id: new.id.clone(),
        workspace: new.workspace.clone(),
        agent: Arc::clone(&new.agent),
        roster: new.roster.clone(),
        is_thread: new.is_thread,
        environment: new.environment.clone(),
        vaults: new.vaults.clone(),
        memories: new.memories.clone(),
        resources: new.resources.clone(),
        parent: new.parent.clone(),
        delegation_depth: new.delegation_depth,
        share: new.share,
        ephemeral: new.ephemeral,
        created_by: new.created_by.clone(),
        deployment: new.deployment.clone(),
        created_at: new.created_at,
        head: Seq(0),
        last_event_at: None,
        state: Arc::new(State {
            title: new.title.clone(),
            metadata: new.metadata.clone(),
            budget: new.budget,
            ..State::default()
        }),
    };
    // It only reckons: no runtime ever speaks to it.
    let (requests, _) = mpsc::channel(1);
    let mut actor = Actor::new(Arc::clone(inner), session, requests);
    actor.refresh_quota().await?;
    for submission in &submissions {
        match submission {
            Submission::Message(post) => actor.check_month(post.charged.as_ref()).await?,
            Submission::DefineOutcome { charged, .. } => actor.check_month(charged.as_ref()).await?,
            _ => {}
        }
    }
    let ids: Vec<EventId> = submissions.iter().map(|_| EventId::generate()).collect();
    let plan = actor.plan(&submissions, &ids, &oma_trace::current(), Stopped::default())?;
    let (commit, _) = actor.prepare(plan.inputs, With::default(), Ok(u64::MAX), now())?;
    Ok(commit)
}
