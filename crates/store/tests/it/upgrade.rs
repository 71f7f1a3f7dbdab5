//! A database that an older server wrote.

use std::sync::Arc;

use oma_store::Store;
use oma_store::contract::fixtures::stored_session;
use oma_store::sqlite::{Options, Sqlite};
use rusqlite::Connection;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_database_keeps_its_sessions_outputs() {
    let temp = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(temp.path(), &Options::default()).unwrap());
    let (workspace, id) = stored_session(&store).await;
    drop(store);
    let conn = Connection::open(temp.path().join("store.db")).unwrap();
    conn.execute_batch(
        "DELETE FROM refinery_schema_history WHERE version >= 2;
         DROP TABLE webhook_outbox;
         DROP TABLE webhook_endpoints;
         DROP TABLE deployment_runs;
         DROP TABLE deployments;
         DROP INDEX sessions_by_deployment;
         ALTER TABLE sessions DROP COLUMN deployment;
         ALTER TABLE session_states DROP COLUMN evaluations;
         DROP TABLE session_resources;
         DROP TABLE files;
         DROP TABLE file_totals;
         DROP TABLE released_files;
         DROP TABLE expired_files;
         DROP TABLE work;
         DROP TABLE session_rosters;
         ALTER TABLE sessions DROP COLUMN thread;
         DROP INDEX sessions_by_parent;
         ALTER TABLE environments DROP COLUMN updated_at;
         ALTER TABLE environments DROP COLUMN archived_at;
         ALTER TABLE session_states DROP COLUMN archived;
         DROP TABLE usage;
         ALTER TABLE sessions DROP COLUMN created_by;
         ALTER TABLE sessions DROP COLUMN delegation_depth;
         ALTER TABLE sessions DROP COLUMN share;
         DROP TABLE audit;
         DROP TABLE audit_open;
         DROP TABLE audit_ends;
         DROP TABLE users;
         DROP TABLE api_keys;
         DROP TABLE workspaces;
         DROP INDEX session_states_deadline;
         ALTER TABLE session_states DROP COLUMN deadline;
         ALTER TABLE sessions DROP COLUMN vaults;
         DROP TABLE credentials;
         DROP TABLE vaults;
         DROP TABLE master_key;
         ALTER TABLE session_states DROP COLUMN output;
         UPDATE session_states SET state = json_set(state, '$.output', 'what was said');",
    )
    .unwrap();
    drop(conn);
    let store = Sqlite::open(temp.path(), &Options::default()).unwrap();
    let session = store.session(&workspace, &id).await.unwrap().unwrap();
    assert_eq!(session.state.output.as_deref(), Some("what was said"));
}
