//! The durable queue.

use std::sync::Arc;

use oma_domain::session::{QueueChange, Queued};
use oma_domain::{SessionId, WorkspaceId};

use super::fixtures::{commit, queued, stored_session};
use crate::{Error, Result, Store, assert_refused};

async fn change(
    store: &Arc<dyn Store>,
    workspace: &WorkspaceId,
    session: &SessionId,
    queue: Vec<QueueChange>,
) -> Result<()> {
    let mut commit = commit(workspace, session, 0, 0);
    commit.queue = queue;
    store.commit(commit).await
}

async fn waiting(store: &Arc<dyn Store>, workspace: &WorkspaceId, session: &SessionId) -> Vec<Arc<Queued>> {
    let session = store.load(workspace, session).await.unwrap().unwrap();
    session.state.queue.iter().cloned().collect()
}

/// First in, first out, over several commits and within one; another session's queue is not touched.
pub async fn order(store: Arc<dyn Store>) {
    let (workspace, id) = stored_session(&store).await;
    let (other, neighbour) = stored_session(&store).await;
    let messages: Vec<_> = ["a", "b", "c", "d"].map(queued).into();
    let push = |index: usize| QueueChange::Push(Arc::clone(&messages[index]));
    let pop = |index: usize| QueueChange::Pop(messages[index].id.clone());
    change(
        &store,
        &other,
        &neighbour,
        vec![QueueChange::Push(queued("theirs"))],
    )
    .await
    .unwrap();

    change(&store, &workspace, &id, vec![push(0), push(1)])
        .await
        .unwrap();
    assert_eq!(waiting(&store, &workspace, &id).await, messages[..2]);
    change(&store, &workspace, &id, vec![pop(0), push(2)])
        .await
        .unwrap();
    assert_eq!(waiting(&store, &workspace, &id).await, messages[1..3]);
    change(&store, &workspace, &id, vec![pop(1), pop(2), push(3), pop(3)])
        .await
        .unwrap();
    assert!(waiting(&store, &workspace, &id).await.is_empty());
    // A message that left can be added again.
    change(&store, &workspace, &id, vec![push(0)]).await.unwrap();
    assert_eq!(waiting(&store, &workspace, &id).await, messages[..1]);
    assert_eq!(waiting(&store, &other, &neighbour).await.len(), 1);
}

/// All messages leave at once; what is added after that stays.
pub async fn clearing(store: Arc<dyn Store>) {
    let (workspace, id) = stored_session(&store).await;
    let last = queued("last");
    change(&store, &workspace, &id, vec![QueueChange::Clear])
        .await
        .unwrap();
    change(
        &store,
        &workspace,
        &id,
        vec![
            QueueChange::Push(queued("a")),
            QueueChange::Push(queued("b")),
            QueueChange::Clear,
            QueueChange::Push(Arc::clone(&last)),
        ],
    )
    .await
    .unwrap();
    assert_eq!(waiting(&store, &workspace, &id).await, [last]);
    change(&store, &workspace, &id, vec![QueueChange::Clear])
        .await
        .unwrap();
    assert!(waiting(&store, &workspace, &id).await.is_empty());
}

/// Only the oldest message can leave, and a message waits once.
pub async fn wrong_pop(store: Arc<dyn Store>) {
    let (workspace, id) = stored_session(&store).await;
    let (a, b) = (queued("a"), queued("b"));
    let push = |message: &Arc<Queued>| QueueChange::Push(Arc::clone(message));
    let pop = |message: &Arc<Queued>| QueueChange::Pop(message.id.clone());
    assert_refused!(
        change(&store, &workspace, &id, vec![pop(&a)]).await,
        Error::Internal(_)
    );
    change(&store, &workspace, &id, vec![push(&a), push(&b)])
        .await
        .unwrap();
    assert_refused!(
        change(&store, &workspace, &id, vec![pop(&b)]).await,
        Error::Internal(_)
    );
    assert_refused!(
        change(&store, &workspace, &id, vec![pop(&a), pop(&a)]).await,
        Error::Internal(_)
    );
    assert_refused!(
        change(&store, &workspace, &id, vec![push(&a)]).await,
        Error::Internal(_)
    );
    assert_eq!(waiting(&store, &workspace, &id).await, [a, b]);
}
