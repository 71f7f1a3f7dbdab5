//! A database that an older server wrote.

use std::path::Path;
use std::sync::Arc;

use oma_store::Store;
use oma_store::contract::fixtures::stored_session;
use oma_store::sqlite::{Options, Sqlite};
use rusqlite::Connection;

const FIRST_SCHEMA: &str = include_str!("../../migrations/V1__initial.sql");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_database_keeps_its_sessions_outputs() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(&data, &Options::default()).unwrap());
    let (workspace, id) = stored_session(&store).await;
    drop(store);
    let older = temp.path().join("older.db");
    make_older(&data.join("store.db"), &older);
    std::fs::rename(older, data.join("store.db")).unwrap();
    let store = Sqlite::open(&data, &Options::default()).unwrap();
    let session = store.session(&workspace, &id).await.unwrap().unwrap();
    assert_eq!(session.state.output.as_deref(), Some("what was said"));
}

/// Makes a database as the first server wrote it, of what another one has in the first schema's tables and columns.
fn make_older(newer: &Path, older: &Path) {
    let conn = Connection::open(older).unwrap();
    conn.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    conn.execute_batch(FIRST_SCHEMA).unwrap();
    let tables: Vec<(String, String)> = conn
        .prepare(
            "SELECT t.name, group_concat(c.name) FROM sqlite_schema t JOIN pragma_table_info(t.name) c
             WHERE t.type = 'table' GROUP BY t.name",
        )
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    conn.execute("ATTACH ? AS newer", [newer.to_str().unwrap()])
        .unwrap();
    for (table, columns) in tables {
        let copy =
            format!("INSERT OR REPLACE INTO main.{table} ({columns}) SELECT {columns} FROM newer.{table}");
        conn.execute(&copy, []).unwrap();
    }
    let history = "SELECT sql FROM newer.sqlite_schema WHERE name = 'refinery_schema_history'";
    let history: String = conn.query_row(history, [], |row| row.get(0)).unwrap();
    conn.execute_batch(&history).unwrap();
    let mark: i32 = conn
        .pragma_query_value(Some("newer"), "application_id", |row| row.get(0))
        .unwrap();
    conn.pragma_update(Some("main"), "application_id", mark).unwrap();
    conn.execute_batch(
        "INSERT INTO main.refinery_schema_history
             SELECT * FROM newer.refinery_schema_history WHERE version = 1;
         UPDATE main.session_states SET state = json_set(state, '$.output', 'what was said');
         DETACH newer;",
    )
    .unwrap();
}
