//! Lists: complete, in order, without repetition, also while rows are added and removed.

use std::fmt::Debug;
use std::sync::Arc;

use oma_domain::page::{Order, Page};
use oma_domain::{AgentId, EnvironmentId, SessionId, WorkspaceId};

use super::fixtures::{agent, collect, environment, new_session};
use crate::{Error, ListFilter, Result, SessionFilter, Store, assert_refused};

/// All rows come in order, whatever a page's size is.
async fn assert_order<T, C, F>(all: Vec<T>, list: impl Fn(Option<C>, u32) -> F)
where
    T: PartialEq + Debug,
    F: Future<Output = Result<Page<T, C>>>,
{
    for limit in [1, 4, 9, 100] {
        let listed = collect(|after| list(after, limit)).await;
        assert_eq!(listed, all, "by pages of {limit}");
    }
}

/// Agents of the same millisecond come in the order in which they were added.
pub async fn agents_by_creation(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let mut all = Vec::new();
    for _ in 0..9 {
        let agent = agent(&workspace);
        store.create_agent(&agent, None).await.unwrap();
        all.push(agent);
    }
    let (store, workspace, filter, order) = (&store, &workspace, &ListFilter::default(), Order::Ascending);
    assert_order(all, |after: Option<AgentId>, limit| async move {
        store
            .agents(workspace, filter, order, after.as_ref(), limit)
            .await
    })
    .await;
}

/// Environments of the same millisecond come in the order in which they were added.
pub async fn environments_by_creation(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let mut all = Vec::new();
    for _ in 0..9 {
        let environment = environment(&workspace);
        store.create_environment(&environment, false, None).await.unwrap();
        all.push(environment);
    }
    let (store, workspace, filter, order) = (&store, &workspace, &ListFilter::default(), Order::Ascending);
    assert_order(all, |after: Option<EnvironmentId>, limit| async move {
        store
            .environments(workspace, filter, order, after.as_ref(), limit)
            .await
    })
    .await;
}

/// While others add sessions, a reader sees each one that was there exactly once, and in order.
pub async fn sessions_while_rows_are_added(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let agent = Arc::new(agent(&workspace));
    let mut known = Vec::new();
    for _ in 0..40 {
        let new = new_session(&workspace, &agent);
        store.create_session(&new, None).await.unwrap();
        known.push(new.id);
    }
    for order in [Order::Ascending, Order::Descending] {
        let writer = {
            let (store, workspace, agent) = (Arc::clone(&store), workspace.clone(), Arc::clone(&agent));
            tokio::spawn(async move {
                let mut added = Vec::new();
                for number in 0..40 {
                    let mut new = new_session(&workspace, &agent);
                    // As client-chosen ids and an unsteady clock would have it.
                    new.id = SessionId::parse(&format!("{number}-{}", new.id)).unwrap();
                    new.created_at.0 -= number;
                    store.create_session(&new, None).await.unwrap();
                    added.push(new.id);
                }
                added
            })
        };
        let filter = SessionFilter::default();
        let listed = collect(|after: Option<SessionId>| {
            let (store, workspace, filter) = (&store, &workspace, &filter);
            async move { store.sessions(workspace, filter, order, after.as_ref(), 3).await }
        })
        .await;
        let added = writer.await.unwrap();
        let mut listed: Vec<_> = listed.into_iter().map(|session| session.id).collect();
        if order == Order::Descending {
            listed.reverse();
        }
        let all: Vec<_> = known.iter().chain(&added).cloned().collect();
        let old: Vec<_> = listed.iter().filter(|id| known.contains(id)).cloned().collect();
        assert_eq!(old, known, "{order:?}: a row was lost or came twice");
        let mut rest = all.iter();
        assert!(
            listed.iter().all(|id| rest.any(|other| other == id)),
            "{order:?}: not in order"
        );
        known = all;
    }
}

/// A cursor that names no row is an error, not an empty list.
pub async fn unknown_cursors(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let filter = SessionFilter::default();
    assert_refused!(
        store
            .agents(
                &workspace,
                &ListFilter::default(),
                Order::Ascending,
                Some(&AgentId::generate()),
                10
            )
            .await,
        Error::NotFound
    );
    assert_refused!(
        store
            .environments(
                &workspace,
                &ListFilter::default(),
                Order::Ascending,
                Some(&EnvironmentId::generate()),
                10
            )
            .await,
        Error::NotFound
    );
    for order in [Order::Ascending, Order::Descending] {
        let cursor = SessionId::generate();
        assert_refused!(
            store
                .sessions(&workspace, &filter, order, Some(&cursor), 10)
                .await,
            Error::NotFound
        );
    }
}
