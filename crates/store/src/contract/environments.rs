//! Environments.

use std::sync::Arc;

use oma_domain::page::Order;
use oma_domain::{EnvironmentId, Timestamp, WorkspaceId};

use super::fixtures::{NOW, agent, environment, new_session, once};
use crate::{Error, ListFilter, Span, Store, assert_refused};

/// What was written is read back, and the key with it.
pub async fn round_trip(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let environment = environment(&workspace);
    store
        .create_environment(&environment, false, Some(&once("environment.create", "k")))
        .await
        .unwrap();
    assert_eq!(
        store.environment(&workspace, &environment.id).await.unwrap(),
        Some(environment.clone())
    );
    assert!(
        store
            .done(&workspace, "environment.create", "k")
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(
        store
            .environment(&workspace, &EnvironmentId::generate())
            .await
            .unwrap(),
        None
    );
    assert!(
        store
            .delete_environment(&workspace, &environment.id)
            .await
            .unwrap()
    );
    assert!(
        !store
            .delete_environment(&workspace, &environment.id)
            .await
            .unwrap()
    );
    assert_eq!(
        store.environment(&workspace, &environment.id).await.unwrap(),
        None
    );
}

/// An id is given once.
pub async fn creation_conflict(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let environment = environment(&workspace);
    store.create_environment(&environment, false, None).await.unwrap();
    assert_refused!(
        store.create_environment(&environment, false, None).await,
        Error::Conflict
    );
}

/// An environment stays for as long as a session refers to it.
pub async fn in_use(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let agent = Arc::new(agent(&workspace));
    let environment = Arc::new(environment(&workspace));
    store.create_environment(&environment, false, None).await.unwrap();
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let mut session = new_session(&workspace, &agent);
        session.environment = Some(Arc::clone(&environment));
        store.create_session(&session, None).await.unwrap();
        sessions.push(session.id);
    }
    assert_refused!(
        store.delete_environment(&workspace, &environment.id).await,
        Error::InUse(2)
    );
    store.delete_session(&workspace, &sessions[0]).await.unwrap();
    assert_refused!(
        store.delete_environment(&workspace, &environment.id).await,
        Error::InUse(1)
    );
    store.delete_session(&workspace, &sessions[1]).await.unwrap();
    assert!(
        store
            .delete_environment(&workspace, &environment.id)
            .await
            .unwrap()
    );
}

/// An environment is changed from what it was, and a name can be kept for one environment.
pub async fn updates(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let first = environment(&workspace);
    store.create_environment(&first, true, None).await.unwrap();
    let namesake = environment(&workspace);
    assert_refused!(
        store.create_environment(&namesake, true, None).await,
        Error::NameTaken
    );
    // Other workspaces have names of their own.
    let elsewhere = environment(&WorkspaceId::generate());
    store.create_environment(&elsewhere, true, None).await.unwrap();

    let mut renamed = first.clone();
    renamed.spec.name = "rust".into();
    renamed.updated_at = Timestamp(NOW.0 + 1);
    store.update_environment(&first, &renamed, true).await.unwrap();
    assert_eq!(
        store.environment(&workspace, &first.id).await.unwrap(),
        Some(renamed.clone())
    );
    assert_refused!(
        store.update_environment(&first, &renamed, true).await,
        Error::Conflict
    );
    assert_refused!(
        store.update_environment(&namesake, &namesake, true).await,
        Error::NotFound
    );
    store.create_environment(&namesake, true, None).await.unwrap();
    assert_refused!(
        store.update_environment(&renamed, &first, true).await,
        Error::NameTaken
    );
    // The name of an archived one is free.
    let mut archived = namesake.clone();
    archived.archived_at = Some(Timestamp(NOW.0 + 2));
    store
        .update_environment(&namesake, &archived, true)
        .await
        .unwrap();
    store.update_environment(&renamed, &first, true).await.unwrap();

    let active = ListFilter {
        only_active: true,
        ..ListFilter::default()
    };
    let list = async |filter: ListFilter, order| {
        let page = store
            .environments(&workspace, &filter, order, None, 10)
            .await
            .unwrap();
        page.rows
    };
    assert_eq!(list(active, Order::Ascending).await, std::slice::from_ref(&first));
    let all = ListFilter::default();
    assert_eq!(list(all, Order::Descending).await, [archived, first]);
    let later = ListFilter {
        created: Span {
            from: Some(Timestamp(NOW.0 + 1)),
            until: None,
        },
        ..ListFilter::default()
    };
    assert_eq!(list(later, Order::Ascending).await, []);
}
