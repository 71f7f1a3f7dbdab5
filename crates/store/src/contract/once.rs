//! Idempotency keys.

use std::sync::Arc;

use oma_domain::{Timestamp, WorkspaceId};

use super::fixtures::{NOW, agent, commit, environment, new_session, once, stored_session};
use crate::{Error, Once, OnceRecord, Store, assert_refused};

/// What was remembered is found.
pub async fn round_trip(store: Arc<dyn Store>) {
    let (workspace, id) = stored_session(&store).await;
    let key = once(&format!("session.post:{id}"), "a key of the client's: \"ü\"");
    let mut commit = commit(&workspace, &id, 0, 1);
    commit.once = Some(key.clone());
    store.commit(commit).await.unwrap();
    let record = store.done(&workspace, &key.scope, &key.key).await.unwrap();
    assert_eq!(
        record,
        Some(OnceRecord {
            fingerprint: key.fingerprint,
            receipt: key.receipt
        })
    );
}

/// The same key in another scope or workspace is another key.
pub async fn separate_scopes(store: Arc<dyn Store>) {
    for _ in 0..2 {
        let workspace = WorkspaceId::generate();
        for scope in ["agent.create", "other.create"] {
            assert_eq!(store.done(&workspace, scope, "k").await.unwrap(), None);
            store
                .create_agent(&agent(&workspace), Some(&once(scope, "k")))
                .await
                .unwrap();
        }
    }
}

/// A taken key stops every kind of call, and says what was done; nothing is written.
pub async fn taken_key(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let first = agent(&workspace);
    let key = once("x", "k");
    store.create_agent(&first, Some(&key)).await.unwrap();
    let known = OnceRecord {
        fingerprint: key.fingerprint.clone(),
        receipt: key.receipt.clone(),
    };
    // The second call's own fingerprint and receipt don't matter.
    let key = Once {
        fingerprint: "other".into(),
        receipt: serde_json::Value::Null,
        ..key
    };

    let second = agent(&workspace);
    let result = store.create_agent(&second, Some(&key)).await;
    assert!(
        matches!(&result, Err(Error::AlreadyDone(record)) if *record == known),
        "{result:?}"
    );
    assert_eq!(store.agent(&workspace, &second.id).await.unwrap(), None);
    // Even a repeated id: the client repeats its call, it does not make a second one.
    assert_refused!(
        store.create_agent(&first, Some(&key)).await,
        Error::AlreadyDone(_)
    );

    let environment = environment(&workspace);
    assert_refused!(
        store.create_environment(&environment, false, Some(&key)).await,
        Error::AlreadyDone(_)
    );
    assert_eq!(
        store.environment(&workspace, &environment.id).await.unwrap(),
        None
    );

    let session = new_session(&workspace, &Arc::new(first));
    assert_refused!(
        store.create_session(&session, Some(&key)).await,
        Error::AlreadyDone(_)
    );
    assert!(store.session(&workspace, &session.id).await.unwrap().is_none());
}

/// Old keys go, and can be used again; younger ones stay.
pub async fn forgetting(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    // Far before the time of the other cases, which may run at the same time.
    let long_ago = |offset: i64| Timestamp(1_000_000 + offset);
    for (name, offset) in [("old", 0), ("limit", 10), ("young", 20)] {
        let key = Once {
            at: long_ago(offset),
            ..once("agent.create", name)
        };
        store.create_agent(&agent(&workspace), Some(&key)).await.unwrap();
    }
    store
        .create_agent(&agent(&workspace), Some(&once("agent.create", "now")))
        .await
        .unwrap();
    assert!(store.forget_done(long_ago(10)).await.unwrap() >= 1);
    for (name, known) in [("old", false), ("limit", true), ("young", true), ("now", true)] {
        assert_eq!(
            store
                .done(&workspace, "agent.create", name)
                .await
                .unwrap()
                .is_some(),
            known,
            "{name}"
        );
    }
    store
        .create_agent(
            &agent(&workspace),
            Some(&Once {
                at: NOW,
                ..once("agent.create", "old")
            }),
        )
        .await
        .unwrap();
}

/// A session takes the keys of its own calls with it and no others.
pub async fn goes_with_its_session(store: Arc<dyn Store>) {
    let (workspace, id) = stored_session(&store).await;
    let neighbour = new_session(&workspace, &Arc::new(agent(&workspace)));
    store
        .create_session(&neighbour, Some(&once("session.create", "k")))
        .await
        .unwrap();
    for (session, scope) in [
        (&id, format!("session.post:{id}")),
        (&neighbour.id, format!("session.post:{}", neighbour.id)),
    ] {
        let mut commit = commit(&workspace, session, 0, 1);
        commit.once = Some(once(&scope, "k"));
        store.commit(commit).await.unwrap();
    }
    store.delete_session(&workspace, &id).await.unwrap();
    for (scope, known) in [
        (format!("session.post:{id}"), false),
        (format!("session.post:{}", neighbour.id), true),
        ("session.create".to_owned(), true),
    ] {
        assert_eq!(
            store.done(&workspace, &scope, "k").await.unwrap().is_some(),
            known,
            "{scope}"
        );
    }
}
