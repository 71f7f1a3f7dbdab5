//! Saved states of workspaces.

use std::sync::Arc;

use oma_domain::{Checkpoint, CheckpointId, SessionId, WorkspaceId};

use super::fixtures::{NOW, stored_session};
use crate::{Error, Store, assert_refused};

fn checkpoint(workspace: &WorkspaceId, session: &SessionId) -> Checkpoint {
    Checkpoint {
        id: CheckpointId::generate(),
        workspace: workspace.clone(),
        session: session.clone(),
        size: 100,
        sha256: "ab".repeat(32),
        bytes: 1_000,
        entries: 7,
        skipped: 1,
        created_at: NOW,
    }
}

async fn is_released(store: &Arc<dyn Store>, id: &CheckpointId) -> bool {
    let mut after: Option<CheckpointId> = None;
    // By the piece, as whoever removes them asks.
    loop {
        let page = store.released_checkpoints(after.as_ref(), 2).await.unwrap();
        if page.contains(id) {
            return true;
        }
        assert!(page.is_sorted() && page.len() <= 2);
        assert!(page.iter().all(|id| after.as_ref() < Some(id)));
        match page.last() {
            Some(last) => after = Some(last.clone()),
            None => return false,
        }
    }
}

/// A checkpoint is seen when it is whole, in its workspace only, and goes.
pub async fn life(store: Arc<dyn Store>) {
    let (workspace, session) = stored_session(&store).await;
    let other = WorkspaceId::generate();
    let [first, second] = [(); 2].map(|()| checkpoint(&workspace, &session));
    store.begin_checkpoint(&first, 2).await.unwrap();
    assert_eq!(store.checkpoint(&workspace, &first.id).await.unwrap(), None);
    assert!(store.checkpoints(&workspace, &session).await.unwrap().is_empty());
    store.finish_checkpoint(&first).await.unwrap();
    let again = store.finish_checkpoint(&first).await;
    assert_refused!(again, Error::NotFound);
    store.begin_checkpoint(&second, 2).await.unwrap();
    // One that is being made counts.
    let third = checkpoint(&workspace, &session);
    assert_refused!(store.begin_checkpoint(&third, 2).await, Error::TooMany(2));
    store.finish_checkpoint(&second).await.unwrap();
    assert_eq!(
        store.checkpoint(&workspace, &first.id).await.unwrap(),
        Some(first.clone())
    );
    assert_eq!(
        store.checkpoints(&workspace, &session).await.unwrap(),
        [second.clone(), first.clone()]
    );
    assert_eq!(store.checkpoint(&other, &first.id).await.unwrap(), None);
    assert!(store.checkpoints(&other, &session).await.unwrap().is_empty());
    assert!(!store.delete_checkpoint(&other, &first.id).await.unwrap());
    let theirs = checkpoint(&other, &session);
    assert_refused!(store.begin_checkpoint(&theirs, 9).await, Error::NotFound);

    assert!(store.delete_checkpoint(&workspace, &first.id).await.unwrap());
    assert!(!store.delete_checkpoint(&workspace, &first.id).await.unwrap());
    assert!(is_released(&store, &first.id).await && !is_released(&store, &second.id).await);
    store
        .forget_released_checkpoints(std::slice::from_ref(&first.id))
        .await
        .unwrap();
    assert!(!is_released(&store, &first.id).await);
    // With its session, whole or not.
    store.begin_checkpoint(&third, 2).await.unwrap();
    assert!(store.delete_session(&workspace, &session).await.unwrap());
    assert!(is_released(&store, &second.id).await && is_released(&store, &third.id).await);
    assert_eq!(store.checkpoint(&workspace, &second.id).await.unwrap(), None);
    assert_refused!(store.finish_checkpoint(&third).await, Error::NotFound);
}

/// What a server was making when it ended is given up, and nothing else. Needs a store of its own.
pub async fn given_up(store: Arc<dyn Store>) {
    let (workspace, session) = stored_session(&store).await;
    let [whole, half] = [(); 2].map(|()| checkpoint(&workspace, &session));
    for checkpoint in [&whole, &half] {
        store.begin_checkpoint(checkpoint, 9).await.unwrap();
    }
    store.finish_checkpoint(&whole).await.unwrap();
    let given_up = store.give_up_checkpoints().await.unwrap();
    assert_eq!(given_up, std::slice::from_ref(&half.id));
    assert!(is_released(&store, &half.id).await);
    assert_eq!(store.checkpoints(&workspace, &session).await.unwrap(), [whole]);
}
