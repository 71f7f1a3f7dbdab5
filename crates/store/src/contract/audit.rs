//! The audit trail.

use std::sync::Arc;

use oma_domain::audit::Entry;
use oma_domain::{AuditId, Seq, Timestamp, WorkspaceId};

use super::fixtures::{NOW, commit, once, stored_session};
use crate::{AuditFilter, Commit, Error, Store, assert_refused};

pub(super) fn entry(workspace: &WorkspaceId, at: i64, action: &str, target: Option<&str>) -> Entry {
    let metadata = serde_json::json!({ "model": "scripted/echo" });
    Entry {
        id: AuditId::generate(),
        workspace: workspace.clone(),
        at: Timestamp(NOW.0 + at),
        request_id: Some("req_1".into()),
        actor: "operator".into(),
        action: action.into(),
        target: target.map(str::to_owned),
        outcome: "ok".into(),
        metadata: metadata.as_object().cloned(),
    }
}

async fn furnish(store: &Arc<dyn Store>) -> (WorkspaceId, Vec<Entry>) {
    let workspace = WorkspaceId::generate();
    let mut entries = Vec::new();
    // Two of the same millisecond, and a clock that went back.
    for (at, action, target) in [
        (1, "agent.create", Some("a")),
        (5, "agent.update", Some("a")),
        (5, "session.create", Some("s")),
        (3, "session.delete", None),
    ] {
        let entry = entry(&workspace, at, action, target);
        store.append_audit(&entry).await.unwrap();
        entries.push(entry);
    }
    (workspace, entries)
}

/// Entries are read back, newest first, page by page, in their workspace only.
pub async fn listing(store: Arc<dyn Store>) {
    let (workspace, entries) = furnish(&store).await;
    let order = [2, 1, 3, 0].map(|index: usize| entries[index].clone());
    let all = AuditFilter::default();
    assert_eq!(store.audit(&workspace, &all, None, 10).await.unwrap().rows, order);
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = store.audit(&workspace, &all, after.as_ref(), 1).await.unwrap();
        assert_eq!(page.rows.len(), 1);
        seen.extend(page.rows);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, order);
    let stranger = WorkspaceId::generate();
    assert!(
        store
            .audit(&stranger, &all, None, 10)
            .await
            .unwrap()
            .rows
            .is_empty()
    );
    assert_refused!(
        store.audit(&stranger, &all, Some(&entries[0].id), 10).await,
        Error::NotFound
    );
}

/// A call that is noted and does not end is told of by the next start; one that ends is told of once.
pub async fn calls_that_do_not_end(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let mut ended = entry(&workspace, 2, "agent.create", None);
    let cut_off = entry(&workspace, 1, "session.create", Some("s"));
    for entry in [&ended, &cut_off] {
        store.open_audit(entry, entry.target.is_none()).await.unwrap();
    }
    let listed = async || {
        let all = AuditFilter::default();
        store.audit(&workspace, &all, None, 10).await.unwrap().rows
    };
    assert_eq!(listed().await, [], "nothing is told of a call that is under way");
    ended.target = Some("a".into());
    store.append_audit(&ended).await.unwrap();
    assert_eq!(listed().await, [ended.clone()]);
    assert!(store.close_audit("cut_off").await.unwrap() >= 1);
    let mut expected = cut_off.clone();
    expected.outcome = "cut_off".into();
    expected.metadata = None;
    assert_eq!(listed().await, [ended.clone(), expected.clone()]);
    store.close_audit("again").await.unwrap();
    assert_eq!(listed().await, [ended.clone(), expected.clone()]);
    store.append_audit(&ended).await.unwrap();
    let entries = listed().await;
    let (again, rest) = entries.split_first().unwrap();
    assert_eq!(rest, [ended.clone(), expected]);
    assert_ne!(again.id, ended.id, "it is another entry of the same call");
    assert_eq!(again.request_id, ended.request_id);
}

/// Filters hold together.
pub async fn filters(store: Arc<dyn Store>) {
    let (workspace, _) = furnish(&store).await;
    let found = async |filter: AuditFilter| -> Vec<String> {
        let page = store.audit(&workspace, &filter, None, 10).await.unwrap();
        page.rows.into_iter().map(|row| row.action).collect()
    };
    let text = |text: &str| Some(text.to_owned());
    let time = |at: i64| Some(Timestamp(NOW.0 + at));
    let filter = AuditFilter::default;
    assert_eq!(
        found(AuditFilter {
            action: text("agent.create"),
            ..filter()
        })
        .await,
        ["agent.create"]
    );
    assert_eq!(
        found(AuditFilter {
            action: text("session.%"),
            ..filter()
        })
        .await,
        ["session.create", "session.delete"]
    );
    assert!(
        found(AuditFilter {
            action: text("agent"),
            ..filter()
        })
        .await
        .is_empty()
    );
    assert_eq!(
        found(AuditFilter {
            target: text("a"),
            since: time(5),
            ..filter()
        })
        .await,
        ["agent.update"]
    );
    assert_eq!(
        found(AuditFilter {
            since: time(3),
            until: time(3),
            ..filter()
        })
        .await,
        ["session.delete"]
    );
}

/// An entry that comes with a commit is there when the commit is, and with one that is refused it is not.
pub async fn with_a_commit(store: Arc<dyn Store>) {
    let (workspace, id) = stored_session(&store).await;
    let with = |head: u64, action: &str| Commit {
        audit: Some(entry(&workspace, 1, action, Some(id.as_str()))),
        ..commit(&workspace, &id, head, 1)
    };
    store.commit(with(0, "session.event")).await.unwrap();
    assert_refused!(store.commit(with(0, "session.event")).await, Error::Conflict);
    // This one fails behind everything else.
    let mut late = with(1, "session.event");
    late.once = Some(once("session.post", "k"));
    store.commit(late.clone()).await.unwrap();
    late.expected_head = Seq(2);
    late.events = commit(&workspace, &id, 2, 1).events;
    assert_refused!(store.commit(late).await, Error::AlreadyDone(_));
    let rows = store
        .audit(&workspace, &AuditFilter::default(), None, 10)
        .await
        .unwrap()
        .rows;
    let told: Vec<_> = rows
        .iter()
        .map(|row| (row.action.as_str(), row.target.as_deref()))
        .collect();
    assert_eq!(told, [("session.event", Some(id.as_str())); 2]);
}
