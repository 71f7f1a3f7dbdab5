//! The schema and its history. A migration that has been released is never changed.

use refinery::{Migration, Runner};
use rusqlite::{Connection, OptionalExtension as _};

use super::failure::Failure;
use crate::Error;

/// Marks the file as ours: "oma1".
const APPLICATION: i32 = 0x6f6d_6131;

/// Every migration in order.
const MIGRATIONS: &[(&str, &str)] = &[
    ("V1__initial", include_str!("../../migrations/V1__initial.sql")),
    ("V2__output", include_str!("../../migrations/V2__output.sql")),
    (
        "V3__deadlines",
        include_str!("../../migrations/V3__deadlines.sql"),
    ),
    (
        "V4__workspaces_and_keys",
        include_str!("../../migrations/V4__workspaces_and_keys.sql"),
    ),
    ("V5__audit", include_str!("../../migrations/V5__audit.sql")),
    ("V6__vaults", include_str!("../../migrations/V6__vaults.sql")),
    (
        "V7__delegation",
        include_str!("../../migrations/V7__delegation.sql"),
    ),
    ("V8__usage", include_str!("../../migrations/V8__usage.sql")),
    ("V9__budgets", include_str!("../../migrations/V9__budgets.sql")),
    ("V10__users", include_str!("../../migrations/V10__users.sql")),
    (
        "V11__audit_by_action",
        include_str!("../../migrations/V11__audit_by_action.sql"),
    ),
    ("V12__claude", include_str!("../../migrations/V12__claude.sql")),
    (
        "V14__governance",
        include_str!("../../migrations/V14__governance.sql"),
    ),
    ("V15__threads", include_str!("../../migrations/V15__threads.sql")),
    ("V17__files", include_str!("../../migrations/V17__files.sql")),
    ("V18__memory", include_str!("../../migrations/V18__memory.sql")),
    ("V19__skills", include_str!("../../migrations/V19__skills.sql")),
    (
        "V16__outcomes",
        include_str!("../../migrations/V16__outcomes.sql"),
    ),
    (
        "V20__deployments",
        include_str!("../../migrations/V20__deployments.sql"),
    ),
    (
        "V21__webhooks",
        include_str!("../../migrations/V21__webhooks.sql"),
    ),
    ("V22__work", include_str!("../../migrations/V22__work.sql")),
    ("V23__notices", include_str!("../../migrations/V23__notices.sql")),
    (
        "V24__checkpoints",
        include_str!("../../migrations/V24__checkpoints.sql"),
    ),
    (
        "V25__workflow_runs",
        include_str!("../../migrations/V25__workflow_runs.sql"),
    ),
];

/// Brings the database to the newest schema.
///
/// # Errors
/// [`Error::Internal`] when the file is somebody else's database or was written by a newer server.
pub(super) fn migrate(conn: &mut Connection) -> Result<(), Failure> {
    let application: i32 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION && (application != 0 || tables != 0) {
        return Err(Error::Internal("the file is the database of another program".into()).into());
    }
    let migrations = MIGRATIONS
        .iter()
        .map(|(name, sql)| Migration::unapplied(name, sql))
        .collect::<Result<Vec<_>, _>>()
        .map_err(refused)?;
    let known = migrations.iter().map(Migration::version).max().unwrap_or(0);
    if let Some(found) = stored_version(conn)?
        && found > i64::from(known)
    {
        return Err(Error::Internal(format!(
            "the database has schema version {found}, this server knows versions up to {known}: a newer server wrote it"
        ))
        .into());
    }
    // Marked first: an interrupted first start leaves a file that the next one recognises.
    if application != APPLICATION {
        conn.pragma_update(None, "application_id", APPLICATION)?;
    }
    // In one transaction: by itself the runner records a migration after it has made it, and a crash between the
    // two would have it made twice.
    let report = Runner::new(&migrations)
        .set_grouped(true)
        .run(conn)
        .map_err(refused)?;
    for migration in report.applied_migrations() {
        tracing::info!(%migration, "the schema was migrated");
    }
    Ok(())
}

/// The schema version in the file; `None` when it is new.
fn stored_version(conn: &Connection) -> Result<Option<i64>, Failure> {
    let history = "SELECT 1 FROM sqlite_schema WHERE name = 'refinery_schema_history'";
    if conn.query_row(history, [], |_| Ok(())).optional()?.is_none() {
        return Ok(None);
    }
    Ok(
        conn.query_row("SELECT max(version) FROM refinery_schema_history", [], |row| {
            row.get(0)
        })?,
    )
}

/// Keeps what SQLite said where it was SQLite, so that a full disk is called one here, too.
fn refused(error: refinery::Error) -> Failure {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if let Some(rusqlite::Error::SqliteFailure(code, message)) = inner.downcast_ref() {
            return Failure::Database(rusqlite::Error::SqliteFailure(*code, message.clone()));
        }
        cause = inner.source();
    }
    Failure::Refused(Error::Internal(format!("the schema can't be migrated: {error}")))
}
