//! The work queue of self-hosted environments.

use std::sync::Arc;

use oma_domain::session::Phase;
use oma_domain::work::{Expected, RECLAIM_MS, State, Work};
use oma_domain::{EnvironmentId, SessionId, Timestamp, WorkId, WorkspaceId};

use super::audit::entry;
use super::fixtures::{commit, stored_session, turn};
use crate::{AuditFilter, Error, Store, WorkStats, assert_refused};

fn item(workspace: &WorkspaceId, environment: &EnvironmentId, now: i64) -> Work {
    let session = SessionId::generate();
    Work::new(
        workspace.clone(),
        environment.clone(),
        session,
        Timestamp(now),
        Timestamp(now),
    )
}

/// A session has one item that is not over, and what is handed out is the oldest that is due.
pub async fn queueing(store: Arc<dyn Store>) {
    let (workspace, environment) = (WorkspaceId::generate(), EnvironmentId::generate());
    let [first, second] = [
        item(&workspace, &environment, 10),
        item(&workspace, &environment, 20),
    ];
    for work in [&first, &second] {
        assert!(store.add_work(work).await.unwrap());
        let again = Work {
            id: WorkId::generate(),
            ..work.clone()
        };
        assert!(!store.add_work(&again).await.unwrap());
    }
    let due = async |reclaim, now| {
        let due = store.due_work(&workspace, &environment, reclaim, Timestamp(now));
        due.await.unwrap().map(|work| work.id)
    };
    assert_eq!(due(RECLAIM_MS, 9).await, None);
    assert_eq!(due(RECLAIM_MS, 10).await, Some(first.id.clone()));
    let taken = first.handed_out(Timestamp(100));
    // What the trail says of it is there with it, or not at all.
    let audit = entry(&workspace, 100, "work.take", Some(first.id.as_str()));
    store
        .update_work(&first, &taken, None, Some(&audit))
        .await
        .unwrap();
    assert_refused!(
        store
            .update_work(
                &first,
                &taken,
                None,
                Some(&entry(&workspace, 101, "work.take", None))
            )
            .await,
        Error::Conflict
    );
    let trail = store
        .audit(&workspace, &AuditFilter::default(), None, 10)
        .await
        .unwrap();
    assert_eq!(trail.rows, [audit]);
    assert_eq!(due(RECLAIM_MS, 100).await, Some(second.id.clone()));
    assert_eq!(due(50, 150).await, Some(first.id.clone()));
    let kept = taken.heartbeat(Expected::None, None, Timestamp(200)).unwrap();
    store.update_work(&taken, &kept, None, None).await.unwrap();
    assert_eq!(due(50, 300).await, Some(second.id.clone()));
    assert_eq!(due(50, i64::MAX).await, Some(first.id.clone()));
    assert_eq!(
        store.work_stats(&workspace, &environment).await.unwrap(),
        WorkStats {
            queued: 1,
            pending: 0,
            oldest: Some(Timestamp(20)),
        }
    );
    let over = kept.stopped(true, Timestamp(400)).unwrap();
    store.update_work(&kept, &over, None, None).await.unwrap();
    assert_eq!(store.work_of(&workspace, &first.session).await.unwrap(), None);
    let next = Work {
        id: WorkId::generate(),
        ..first.clone()
    };
    assert!(store.add_work(&next).await.unwrap());
    let listed = store.works(&workspace, &environment, None, 2).await.unwrap();
    let ids: Vec<&WorkId> = listed.rows.iter().map(|work| &work.id).collect();
    assert_eq!(ids, [&next.id, &second.id]);
    let rest = store.works(&workspace, &environment, listed.next.as_ref(), 2);
    assert_eq!(rest.await.unwrap().rows, [over]);
}

/// A worker that was told to stop and is gone does not keep its session from another one.
pub async fn lost_workers(store: Arc<dyn Store>) {
    let (workspace, environment) = (WorkspaceId::generate(), EnvironmentId::generate());
    let first = item(&workspace, &environment, 10);
    store.add_work(&first).await.unwrap();
    let asked = first
        .handed_out(Timestamp(10))
        .stopped(false, Timestamp(11))
        .unwrap();
    store.update_work(&first, &asked, None, None).await.unwrap();
    let next = |at: i64| Work {
        id: WorkId::generate(),
        created_at: Timestamp(at),
        ..first.clone()
    };
    assert!(!store.add_work(&next(1_000)).await.unwrap());
    assert!(store.add_work(&next(asked.due.0)).await.unwrap());
    let old = store
        .work(&workspace, &environment, &first.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(old.state, State::Stopped);
}

/// An item that ends while its session still works is followed by another one.
pub async fn followers(store: Arc<dyn Store>) {
    for (phase, follows) in [
        (Phase::Idle { stop: None }, false),
        (Phase::Running { turn: turn() }, true),
        (Phase::Blocked { turn: turn() }, true),
    ] {
        let (workspace, session) = stored_session(&store).await;
        let mut change = commit(&workspace, &session, 0, 1);
        Arc::make_mut(&mut change.state).phase = phase.clone();
        store.commit(change).await.unwrap();
        let environment = EnvironmentId::generate();
        let work = Work::new(
            workspace.clone(),
            environment,
            session.clone(),
            Timestamp(1),
            Timestamp(1),
        );
        store.add_work(&work).await.unwrap();
        let kept = work.handed_out(Timestamp(2));
        let next = Work {
            id: WorkId::generate(),
            ..work.clone()
        };
        store.update_work(&work, &kept, Some(&next), None).await.unwrap();
        assert_eq!(
            store.work_of(&workspace, &session).await.unwrap(),
            Some(kept.clone())
        );
        let over = kept.stopped(true, Timestamp(3)).unwrap();
        store.update_work(&kept, &over, Some(&next), None).await.unwrap();
        let open = store.work_of(&workspace, &session).await.unwrap();
        assert_eq!(open, follows.then_some(next), "{phase:?}");
        store.delete_session(&workspace, &session).await.unwrap();
        assert_eq!(store.work_of(&workspace, &session).await.unwrap(), None);
    }
}

/// Nothing of it is seen from elsewhere.
pub async fn apart(store: Arc<dyn Store>) {
    let (workspace, environment) = (WorkspaceId::generate(), EnvironmentId::generate());
    let work = item(&workspace, &environment, 10);
    store.add_work(&work).await.unwrap();
    let (stranger, elsewhere) = (WorkspaceId::generate(), EnvironmentId::generate());
    for (workspace, environment) in [(&stranger, &environment), (&workspace, &elsewhere)] {
        assert_eq!(store.work(workspace, environment, &work.id).await.unwrap(), None);
        let due = store.due_work(workspace, environment, 0, Timestamp(i64::MAX));
        assert_eq!(due.await.unwrap(), None);
        assert!(
            store
                .works(workspace, environment, None, 10)
                .await
                .unwrap()
                .rows
                .is_empty()
        );
        assert_eq!(
            store.work_stats(workspace, environment).await.unwrap(),
            WorkStats::default()
        );
    }
    assert_eq!(store.work_of(&stranger, &work.session).await.unwrap(), None);
    let foreign = Work {
        workspace: stranger,
        ..work.clone()
    };
    assert_refused!(
        store.update_work(&foreign, &foreign, None, None).await,
        Error::NotFound
    );
}
