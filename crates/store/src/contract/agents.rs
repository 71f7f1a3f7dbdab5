//! Agents and their versions.

use std::sync::Arc;

use oma_domain::page::Order;
use oma_domain::{AgentId, Timestamp, WorkspaceId};

use super::fixtures::{NOW, agent, collect, new_session, once};
use crate::{Error, ListFilter, Store, assert_refused};

/// What was written is read back, and the key with it.
pub async fn round_trip(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let agent = agent(&workspace);
    store
        .create_agent(&agent, Some(&once("agent.create", "k")))
        .await
        .unwrap();
    assert_eq!(store.agent(&workspace, &agent.id).await.unwrap(), Some(agent));
    assert!(
        store
            .done(&workspace, "agent.create", "k")
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(store.agent(&workspace, &AgentId::generate()).await.unwrap(), None);
}

/// An id is given once; the refused creation leaves no key behind.
pub async fn creation_conflict(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let agent = agent(&workspace);
    store.create_agent(&agent, None).await.unwrap();
    assert_refused!(
        store.create_agent(&agent, Some(&once("agent.create", "k"))).await,
        Error::Conflict
    );
    assert_eq!(store.done(&workspace, "agent.create", "k").await.unwrap(), None);
}

/// Versions are kept as they were written.
pub async fn versions(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let first = agent(&workspace);
    store.create_agent(&first, None).await.unwrap();
    let mut all = vec![first.clone()];
    for version in 2..=5_u32 {
        let mut next = first.clone();
        next.version = version;
        next.spec.instructions = format!("version {version}");
        next.updated_at = Timestamp(NOW.0 + i64::from(version));
        store.update_agent(&next).await.unwrap();
        all.push(next);
    }
    assert_eq!(
        store.agent(&workspace, &first.id).await.unwrap().as_ref(),
        all.last()
    );
    for limit in [1, 2, 5, 100] {
        let listed =
            collect(|after| store.agent_versions(&workspace, &first.id, Order::Ascending, after, limit))
                .await;
        assert_eq!(listed, all, "by pages of {limit}");
    }
    let none = store
        .agent_versions(&workspace, &AgentId::generate(), Order::Ascending, None, 10)
        .await
        .unwrap();
    assert!(none.rows.is_empty() && none.next.is_none());
}

/// Only the next version is accepted, of an agent that is there.
pub async fn stale_update(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let mut agent = agent(&workspace);
    assert_refused!(store.update_agent(&agent).await, Error::NotFound);
    store.create_agent(&agent, None).await.unwrap();
    for version in [0, 1, 3, u32::MAX] {
        agent.version = version;
        assert_refused!(store.update_agent(&agent).await, Error::Conflict);
    }
    assert_eq!(
        store.agent(&workspace, &agent.id).await.unwrap().unwrap().version,
        1
    );
    assert_eq!(
        store
            .agent_versions(&workspace, &agent.id, Order::Ascending, None, 10)
            .await
            .unwrap()
            .rows
            .len(),
        1
    );
}

/// The first archiving counts, and an archived agent is not written any more.
pub async fn archiving(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let mut agent = agent(&workspace);
    let at = Timestamp(NOW.0 + 5);
    assert_refused!(
        store.archive_agent(&workspace, &agent.id, at).await,
        Error::NotFound
    );
    store.create_agent(&agent, None).await.unwrap();
    let archived = store.archive_agent(&workspace, &agent.id, at).await.unwrap();
    assert_eq!((archived.archived_at, archived.updated_at), (Some(at), at));
    let again = store
        .archive_agent(&workspace, &agent.id, Timestamp(at.0 + 5))
        .await
        .unwrap();
    assert_eq!(again, archived);
    assert_eq!(
        store.agent(&workspace, &agent.id).await.unwrap(),
        Some(archived.clone())
    );
    assert_eq!(
        store
            .agents(&workspace, &ListFilter::default(), Order::Ascending, None, 10)
            .await
            .unwrap()
            .rows,
        [archived]
    );
    // A version is what it was when it was written.
    assert_eq!(
        store
            .agent_versions(&workspace, &agent.id, Order::Ascending, None, 10)
            .await
            .unwrap()
            .rows,
        [agent.clone()]
    );
    agent.version = 2;
    assert_refused!(store.update_agent(&agent).await, Error::Conflict);
}

/// A deleted agent is gone with its versions; its sessions go on.
pub async fn deletion(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let agent = Arc::new(agent(&workspace));
    store.create_agent(&agent, None).await.unwrap();
    let session = new_session(&workspace, &agent);
    store.create_session(&session, None).await.unwrap();
    assert!(store.delete_agent(&workspace, &agent.id, NOW).await.unwrap());
    assert!(!store.delete_agent(&workspace, &agent.id, NOW).await.unwrap());
    assert_eq!(store.agent(&workspace, &agent.id).await.unwrap(), None);
    assert!(
        store
            .agent_versions(&workspace, &agent.id, Order::Ascending, None, 10)
            .await
            .unwrap()
            .rows
            .is_empty()
    );
    assert_eq!(
        store
            .session(&workspace, &session.id)
            .await
            .unwrap()
            .unwrap()
            .agent,
        agent
    );
}
