//! Many callers at once.

use std::sync::Arc;

use oma_domain::page::Order;
use oma_domain::{EventId, Seq, WorkspaceId};
use tokio::task::JoinSet;

use super::fixtures::{agent, commit, new_session, once, stored_session};
use crate::{Error, ListFilter, Store};

/// Of two commits on the same head exactly one is accepted, every time.
pub async fn one_of_two_commits_wins(store: Arc<dyn Store>) {
    let (workspace, id) = stored_session(&store).await;
    for head in 0..50 {
        let mut pair = JoinSet::new();
        for _ in 0..2 {
            let (store, commit) = (Arc::clone(&store), commit(&workspace, &id, head, 1));
            pair.spawn(async move {
                let event = commit.events[0].id.clone();
                store.commit(commit).await.map(|()| event)
            });
        }
        let outcomes = pair.join_all().await;
        let winners: Vec<_> = outcomes.iter().flatten().collect();
        assert_eq!(winners.len(), 1, "{outcomes:?}");
        assert!(
            outcomes
                .iter()
                .any(|outcome| matches!(outcome, Err(Error::Conflict))),
            "{outcomes:?}"
        );
        assert_eq!(
            store.locate(&workspace, &id, winners[0]).await.unwrap(),
            Some(Seq(head + 1))
        );
    }
    let log = store
        .events(&workspace, &id, None, Order::Ascending, 1000)
        .await
        .unwrap()
        .rows;
    assert!(log.iter().map(|event| event.seq.0).eq(1..=50), "gapless");
}

/// Of many calls with the same key exactly one is carried out.
pub async fn one_of_many_keys_wins(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let mut calls = JoinSet::new();
    for _ in 0..16 {
        let (store, workspace) = (Arc::clone(&store), workspace.clone());
        calls.spawn(async move {
            let agent = agent(&workspace);
            let mut key = once("agent.create", "k");
            key.receipt = serde_json::json!(agent.id);
            (agent.id.clone(), store.create_agent(&agent, Some(&key)).await)
        });
    }
    let outcomes = calls.join_all().await;
    let agents = store
        .agents(&workspace, &ListFilter::default(), Order::Ascending, None, 100)
        .await
        .unwrap()
        .rows;
    assert_eq!(agents.len(), 1);
    for (id, outcome) in outcomes {
        match outcome {
            Ok(()) => assert_eq!(id, agents[0].id),
            Err(Error::AlreadyDone(record)) => assert_eq!(record.receipt, serde_json::json!(agents[0].id)),
            Err(error) => assert_eq!(Some(error.to_string()), None),
        }
    }
}

/// All who keep a value under one name at the same time get the same one.
pub async fn first_kept_value_wins(store: Arc<dyn Store>) {
    let name = EventId::generate().to_string();
    let mut calls = JoinSet::new();
    for number in 0..16_u8 {
        let (store, name) = (Arc::clone(&store), name.clone());
        calls.spawn(async move { store.keep(&name, &[number]).await.unwrap() });
    }
    let values = calls.join_all().await;
    let kept = store.kept(&name).await.unwrap().unwrap();
    assert!(values.iter().all(|value| *value == kept), "{values:?}");
}

/// Many sessions are written at once, refused commits among them; each log has what was accepted.
pub async fn many_sessions(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let agent = Arc::new(agent(&workspace));
    let mut writers = JoinSet::new();
    for _ in 0..24 {
        let (store, new) = (Arc::clone(&store), new_session(&workspace, &agent));
        writers.spawn(async move {
            let workspace = &new.workspace;
            store.create_session(&new, None).await.unwrap();
            for head in 0..20 {
                let good = commit(workspace, &new.id, head, 1);
                let bad = commit(workspace, &new.id, head + 7, 1);
                let (good, bad) = tokio::join!(store.commit(good), store.commit(bad));
                good.unwrap();
                assert!(matches!(bad, Err(Error::Conflict)), "{bad:?}");
                // What was acknowledged is seen by whoever asks next.
                let session = store.session(workspace, &new.id).await.unwrap().unwrap();
                assert_eq!(session.head, Seq(head + 1));
            }
            let log = store
                .events(workspace, &new.id, None, Order::Ascending, 1000)
                .await
                .unwrap()
                .rows;
            assert!(log.iter().map(|event| event.seq.0).eq(1..=20), "gapless");
        });
    }
    writers.join_all().await;
}
