//! Environments.

use std::sync::Arc;

use oma_domain::{EnvironmentId, WorkspaceId};

use super::fixtures::{agent, environment, new_session, once};
use crate::{Error, Store, assert_refused};

/// What was written is read back, and the key with it.
pub async fn round_trip(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let environment = environment(&workspace);
    store
        .create_environment(&environment, Some(&once("environment.create", "k")))
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
    store.create_environment(&environment, None).await.unwrap();
    assert_refused!(
        store.create_environment(&environment, None).await,
        Error::Conflict
    );
}

/// An environment stays for as long as a session refers to it.
pub async fn in_use(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let agent = Arc::new(agent(&workspace));
    let environment = Arc::new(environment(&workspace));
    store.create_environment(&environment, None).await.unwrap();
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
