//! Reading logs.

use std::sync::Arc;

use oma_domain::event::Body;
use oma_domain::page::{MAX_LIMIT, Order};
use oma_domain::{EventId, Seq, SessionId, WorkspaceId};

use super::fixtures::{collect, commit, stored_session, text};
use crate::Store;

/// From every cursor, in both orders, the rest of the log follows.
pub async fn pages_at_every_cursor(store: Arc<dyn Store>) {
    let (workspace, id) = stored_session(&store).await;
    // A neighbour on each side, so that a range that is too wide would be seen.
    let (other, neighbour) = stored_session(&store).await;
    store.commit(commit(&other, &neighbour, 0, 5)).await.unwrap();
    let whole = commit(&workspace, &id, 0, 25);
    let all = whole.events.clone();
    store.commit(whole).await.unwrap();

    for limit in [1, 7, 25, 1000] {
        for start in 0..=26_u64 {
            for order in [Order::Ascending, Order::Descending] {
                let expected: Vec<_> = match order {
                    Order::Ascending => all.iter().filter(|event| event.seq.0 > start).cloned().collect(),
                    Order::Descending => all
                        .iter()
                        .rev()
                        .filter(|event| event.seq.0 < start)
                        .cloned()
                        .collect(),
                };
                let listed = collect(|from: Option<Seq>| {
                    store.events(&workspace, &id, from.or(Some(Seq(start))), order, limit)
                })
                .await;
                assert_eq!(listed, expected, "{order:?} from {start} by {limit}");
                let found = store.session_and_events(&workspace, &id, Some(Seq(start)), order, limit);
                let (session, page) = found.await.unwrap().unwrap();
                let first: Vec<_> = expected.into_iter().take(limit as usize).collect();
                assert_eq!((session.head, page.rows), (Seq(25), first));
            }
        }
        let forwards = collect(|from| store.events(&workspace, &id, from, Order::Ascending, limit)).await;
        assert_eq!(forwards, all);
        let mut backwards =
            collect(|from| store.events(&workspace, &id, from, Order::Descending, limit)).await;
        backwards.reverse();
        assert_eq!(backwards, all);
    }
}

/// Limits are bounded, cursors beyond the end are the end, and a missing session has no events.
pub async fn bounds(store: Arc<dyn Store>) {
    let (workspace, id) = stored_session(&store).await;
    store
        .commit(commit(&workspace, &id, 0, u64::from(MAX_LIMIT) + 5))
        .await
        .unwrap();
    let page = store
        .events(&workspace, &id, None, Order::Ascending, u32::MAX)
        .await
        .unwrap();
    assert_eq!(
        (page.rows.len(), page.next),
        (MAX_LIMIT as usize, Some(Seq(u64::from(MAX_LIMIT))))
    );
    let page = store
        .events(&workspace, &id, None, Order::Ascending, 0)
        .await
        .unwrap();
    assert_eq!((page.rows.len(), page.next), (1, Some(Seq(1))));
    for far in [Seq(1 << 31), Seq(1 << 32), Seq(u64::MAX)] {
        let beyond = store
            .events(&workspace, &id, Some(far), Order::Ascending, 10)
            .await
            .unwrap();
        assert!(beyond.rows.is_empty() && beyond.next.is_none(), "{far:?}");
        let last = store
            .events(&workspace, &id, Some(far), Order::Descending, 1)
            .await
            .unwrap();
        assert_eq!(last.rows[0].seq, Seq(u64::from(MAX_LIMIT) + 5), "{far:?}");
    }
    for order in [Order::Ascending, Order::Descending] {
        let page = store
            .events(&workspace, &SessionId::generate(), None, order, 10)
            .await
            .unwrap();
        assert!(page.rows.is_empty() && page.next.is_none());
        let missing = SessionId::generate();
        let found = store.session_and_events(&workspace, &missing, None, order, 10);
        assert!(found.await.unwrap().is_none());
    }
}

/// Large events come whole and in order, whatever the pages are.
pub async fn large_bodies(store: Arc<dyn Store>) {
    let (workspace, id) = stored_session(&store).await;
    let mut sizes = Vec::new();
    for seq in 1..=6_u64 {
        let mut commit = commit(&workspace, &id, seq - 1, 1);
        let size = usize::try_from(seq).unwrap() << 20;
        commit.events[0].body = Arc::new(Body::UserMessage {
            content: vec![text("ä".repeat(size / 2))],
            from: None,
        });
        sizes.push(commit.events[0].body.clone());
        store.commit(commit).await.unwrap();
    }
    for order in [Order::Ascending, Order::Descending] {
        let mut listed: Vec<_> = collect(|from| store.events(&workspace, &id, from, order, 1000))
            .await
            .into_iter()
            .map(|event| event.body)
            .collect();
        if order == Order::Descending {
            listed.reverse();
        }
        assert!(listed == sizes, "{order:?}: a body was lost or changed");
    }
}

/// An event is found in its own session only.
pub async fn locate(store: Arc<dyn Store>) {
    let (workspace, id) = stored_session(&store).await;
    let (other, neighbour) = stored_session(&store).await;
    let whole = commit(&workspace, &id, 0, 3);
    let mut same = commit(&other, &neighbour, 0, 3);
    // The same id may occur in another log, at another place.
    same.events[2].id = whole.events[0].id.clone();
    store.commit(whole.clone()).await.unwrap();
    store.commit(same.clone()).await.unwrap();
    for event in &whole.events {
        assert_eq!(
            store.locate(&workspace, &id, &event.id).await.unwrap(),
            Some(event.seq)
        );
    }
    assert_eq!(
        store
            .locate(&other, &neighbour, &whole.events[0].id)
            .await
            .unwrap(),
        Some(Seq(3))
    );
    for (workspace, session, event) in [
        (&workspace, &id, &EventId::generate()),
        (&workspace, &id, &same.events[0].id),
        (&workspace, &SessionId::generate(), &whole.events[0].id),
        (&WorkspaceId::generate(), &id, &whole.events[0].id),
    ] {
        assert_eq!(store.locate(workspace, session, event).await.unwrap(), None);
    }
}
