//! The counters of what was consumed.

use std::sync::Arc;

use oma_domain::agent::Agent;
use oma_domain::usage::{CostTotal, NanoUsd, Usage};
use oma_domain::{KeyId, SessionId, WorkspaceId};

use super::fixtures::{agent, collect, commit, new_session};
use crate::{Store, UsageFilter, UsageRow, Used};

const ALWAYS: UsageFilter = UsageFilter {
    from: 0,
    to: i64::MAX,
    agent: None,
};

fn ours() -> KeyId {
    KeyId::parse("key_ours").unwrap()
}

fn used(day: i64, model: &str, tokens: u64) -> Used {
    Used {
        day,
        model: model.into(),
        key: Some(ours()),
        requests: 1,
        usage: Usage {
            input: tokens,
            output: tokens + 1,
            cache_read: tokens + 2,
            cache_write: tokens + 3,
        },
        cost: CostTotal {
            known: NanoUsd(tokens * 10),
            unknown_requests: tokens % 2,
        },
    }
}

async fn session(store: &Arc<dyn Store>, agent: &Arc<Agent>) -> SessionId {
    let new = new_session(&agent.workspace, agent);
    store.create_session(&new, None).await.unwrap();
    new.id
}

async fn spend(store: &Arc<dyn Store>, workspace: &WorkspaceId, session: &SessionId, head: u64, used: Used) {
    let mut change = commit(workspace, session, head, 1);
    change.used = Some(used);
    store.commit(change).await.unwrap();
}

async fn all(store: &Arc<dyn Store>, workspace: &WorkspaceId, filter: &UsageFilter) -> Vec<UsageRow> {
    store.usage(workspace, filter, None, 1000).await.unwrap().rows
}

/// What agrees in day, agent, model and key is added up; a commit that fails adds nothing; no other workspace sees it.
pub async fn sums(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let agent = Arc::new(agent(&workspace));
    let one = session(&store, &agent).await;
    let other = session(&store, &agent).await;
    spend(&store, &workspace, &one, 0, used(5, "p/m", 100)).await;
    spend(&store, &workspace, &one, 1, used(5, "p/m", 11)).await;
    spend(&store, &workspace, &one, 2, used(5, "p/n", 1)).await;
    spend(&store, &workspace, &one, 3, used(6, "p/m", 1)).await;
    // Another key.
    let theirs = Used {
        key: Some(KeyId::generate()),
        ..used(5, "p/m", 1)
    };
    spend(&store, &workspace, &other, 0, theirs).await;
    // None at all.
    let nobodys = Used {
        key: None,
        ..used(5, "p/m", 2)
    };
    spend(&store, &workspace, &other, 1, nobodys).await;
    let mut stale = commit(&workspace, &one, 0, 1);
    stale.used = Some(used(5, "p/m", 1));
    store.commit(stale).await.unwrap_err();
    let rows = all(&store, &workspace, &ALWAYS).await;
    let shown: Vec<_> = rows
        .iter()
        .map(|row| (row.used.day, row.used.model.as_str(), row.used.usage.input))
        .collect();
    assert_eq!(
        shown,
        [
            (5, "p/m", 111),
            (5, "p/n", 1),
            (6, "p/m", 1),
            (5, "p/m", 1),
            (5, "p/m", 2)
        ]
    );
    let first = &rows[0];
    assert_eq!((&first.agent, first.used.requests), (&agent.id, 2));
    assert_eq!(
        (
            first.used.usage.output,
            first.used.usage.cache_read,
            first.used.usage.cache_write
        ),
        (113, 115, 117)
    );
    let cost = CostTotal {
        known: NanoUsd(1110),
        unknown_requests: 1,
    };
    assert_eq!(first.used.cost, cost);
    let keys: Vec<_> = rows.iter().map(|row| row.used.key.as_ref()).collect();
    assert_eq!(keys[..3], [Some(&ours()); 3]);
    assert!(keys[3].is_some_and(|key| *key != ours()) && keys[4].is_none());
    // Sums over days, of all and of one key.
    for (key, from, to, input) in [
        (None, 5, 6, 116),
        (None, 5, 5, 115),
        (None, 6, 6, 1),
        (None, 7, 9, 0),
        (Some(ours()), 5, 6, 113),
        (Some(KeyId::generate()), 0, 9, 0),
    ] {
        let sum = store.consumed(&workspace, key.as_ref(), from, to).await.unwrap();
        assert_eq!(sum.usage.input, input, "{key:?} {from} {to}");
    }
    let sum = store.consumed(&workspace, Some(&ours()), 5, 5).await.unwrap();
    assert_eq!((sum.usage.output, sum.cost.known), (115, NanoUsd(1120)));
    assert_eq!(all(&store, &WorkspaceId::generate(), &ALWAYS).await, []);
    // What was consumed stays when the session goes.
    store.delete_session(&workspace, &one).await.unwrap();
    assert_eq!(all(&store, &workspace, &ALWAYS).await, rows);
}

/// Days and agents choose; pages join.
pub async fn pages(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let (ours, theirs) = (Arc::new(agent(&workspace)), Arc::new(agent(&workspace)));
    let (one, other) = (session(&store, &ours).await, session(&store, &theirs).await);
    for day in 0..5_u32 {
        let head = u64::from(day);
        spend(&store, &workspace, &one, head, used(i64::from(day), "p/m", 1)).await;
        spend(&store, &workspace, &other, head, used(i64::from(day), "p/m", 1)).await;
    }
    let rows = all(&store, &workspace, &ALWAYS).await;
    assert_eq!(rows.len(), 10);
    for limit in [1, 3, 10] {
        let paged = collect(|after: Option<i64>| {
            let (store, workspace) = (&store, &workspace);
            async move { store.usage(workspace, &ALWAYS, after, limit).await }
        })
        .await;
        assert_eq!(paged, rows, "{limit}");
    }
    let some = UsageFilter {
        from: 1,
        to: 3,
        agent: Some(ours.id.clone()),
    };
    let days: Vec<i64> = all(&store, &workspace, &some)
        .await
        .iter()
        .map(|row| row.used.day)
        .collect();
    assert_eq!(days, [1, 2, 3]);
}
