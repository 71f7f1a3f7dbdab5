//! What a broken chain looks like, and what retention leaves.

use oma_domain::audit::Entry;
use oma_domain::{AuditId, Timestamp, WorkspaceId};
use rusqlite::Connection;
use tempfile::TempDir;

use super::verify::{Broken, verify};
use crate::sqlite::{Options, Sqlite};
use crate::{Access as _, Trail as _};

/// A trail of five entries at the times 1 to 5.
async fn trail() -> (Sqlite, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(folder.path(), &Options::default()).unwrap();
    for at in 1..=5 {
        store.append_audit(&entry(at)).await.unwrap();
    }
    (store, folder)
}

fn entry(at: i64) -> Entry {
    let metadata = serde_json::json!({ "at": at });
    Entry {
        id: AuditId::generate(),
        workspace: WorkspaceId::default_workspace(),
        at: Timestamp(at),
        request_id: None,
        actor: "operator".into(),
        action: "agent.create".into(),
        target: Some("agt_1".into()),
        outcome: "ok".into(),
        metadata: metadata.as_object().cloned(),
    }
}

/// What a server that is killed would leave behind.
#[tokio::test]
async fn notes_go_with_the_next_change() {
    let (store, folder) = trail().await;
    let conn = Connection::open(folder.path().join("store.db")).unwrap();
    let noted = || -> Vec<i64> {
        let mut statement = conn.prepare("SELECT at FROM audit_open ORDER BY at").unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let [refused, changing, out] = [10, 11, 12].map(entry);
    store.open_audit(&refused, false).await.unwrap();
    store.open_audit(&changing, false).await.unwrap();
    // A call that changed nothing costs no note, neither its own nor another's.
    store.append_audit(&refused).await.unwrap();
    assert_eq!(noted(), [] as [i64; 0]);
    // Anybody's change takes them along, and so does a call that changes something elsewhere.
    store.touch_keys(&[]).await.unwrap();
    assert_eq!(noted(), [11]);
    store.open_audit(&out, true).await.unwrap();
    store.touch_keys(&[]).await.unwrap();
    assert_eq!(noted(), [11, 12]);
    store.append_audit(&changing).await.unwrap();
    assert_eq!(noted(), [12]);
    // Calls that are under way at an orderly end are not forgotten.
    store.open_audit(&entry(13), false).await.unwrap();
    store.close().await;
    assert_eq!(noted(), [12, 13]);
}

#[tokio::test]
async fn a_whole_chain_is_verified_while_it_is_open_and_after() {
    let (store, folder) = trail().await;
    let open = verify(folder.path()).unwrap();
    assert_eq!(
        (open.rows, open.removed, open.head, &open.broken),
        (5, 0, 5, &None)
    );
    store.close().await;
    assert_eq!(verify(folder.path()).unwrap(), open);
    assert!(verify(&folder.path().join("nowhere")).is_err());
}

#[tokio::test]
async fn every_edit_shows() {
    for (edit, position) in [
        ("UPDATE audit SET actor = 'key:key_2' WHERE key = 3", 3),
        ("UPDATE audit SET outcome = 'failed' WHERE key = 1", 1),
        ("UPDATE audit SET target = NULL WHERE key = 2", 2),
        ("UPDATE audit SET request_id = '' WHERE key = 2", 2),
        ("UPDATE audit SET at = 7 WHERE key = 5", 5),
        ("UPDATE audit SET metadata = '{\"at\":2 }' WHERE key = 2", 2),
        ("UPDATE audit SET workspace = 'wrk_other' WHERE key = 4", 4),
        ("UPDATE audit SET hash = zeroblob(32) WHERE key = 4", 4),
        (
            "UPDATE audit SET actor = 'operatora', action = 'gent.create' WHERE key = 2",
            2,
        ),
        ("DELETE FROM audit WHERE key = 2", 2),
        ("DELETE FROM audit WHERE key = 1", 1),
        ("DELETE FROM audit WHERE key = 5", 5),
        ("DELETE FROM audit", 1),
        ("UPDATE audit SET key = 6 WHERE key = 5", 5),
    ] {
        let (store, folder) = trail().await;
        store.close().await;
        let conn = Connection::open(folder.path().join("store.db")).unwrap();
        assert!(conn.execute(edit, []).unwrap() > 0, "{edit}");
        drop(conn);
        let found = verify(folder.path()).unwrap().broken;
        assert_eq!(
            found.map(|broken: Broken| broken.position),
            Some(position),
            "{edit}"
        );
    }
}

#[tokio::test]
async fn what_retention_leaves_can_be_verified() {
    let (store, folder) = trail().await;
    let whole = verify(folder.path()).unwrap();
    assert_eq!(store.forget_audit(Timestamp(1)).await.unwrap(), 0);
    assert_eq!(store.forget_audit(Timestamp(4)).await.unwrap(), 3);
    let rest = verify(folder.path()).unwrap();
    assert_eq!(
        (rest.rows, rest.removed, rest.head, &rest.broken),
        (2, 3, 5, &None)
    );
    assert_eq!(rest.head_hash, whole.head_hash);
    assert_eq!(store.forget_audit(Timestamp(100)).await.unwrap(), 2);
    let none = verify(folder.path()).unwrap();
    assert_eq!(
        (none.rows, none.removed, none.head, &none.broken),
        (0, 5, 5, &None)
    );
    store.close().await;
    // The anchor is part of what is verified.
    let conn = Connection::open(folder.path().join("store.db")).unwrap();
    conn.execute("UPDATE audit_ends SET position = 3 WHERE name = 'anchor'", [])
        .unwrap();
    assert!(verify(folder.path()).unwrap().broken.is_some());
}

#[tokio::test]
async fn each_filter_has_an_index() {
    let (store, _folder) = trail().await;
    let filter = |action: Option<&str>, target: Option<&str>| crate::AuditFilter {
        action: action.map(str::to_owned),
        target: target.map(str::to_owned),
        ..crate::AuditFilter::default()
    };
    for (filter, index) in [
        (filter(None, None), "audit_listed"),
        (filter(Some("key.create"), None), "audit_by_action"),
        (filter(None, Some("agt_1")), "audit_by_target"),
    ] {
        for after in [None, Some((3, 3))] {
            let (sql, values) = super::query(&WorkspaceId::default_workspace(), &filter, after, 10);
            let explain = move |conn: &Connection| -> Result<String, super::Failure> {
                let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                let lines =
                    statement.query_map(rusqlite::params_from_iter(values), |row| row.get("detail"))?;
                let lines: Vec<String> = lines.collect::<rusqlite::Result<_>>()?;
                Ok(lines.join("; "))
            };
            let plan = store.readers.run(explain).await.unwrap();
            assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{plan}");
        }
    }
}
