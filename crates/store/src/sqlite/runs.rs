//! Runs of deployments: each with its session, or with why there is none, in one transaction.

use oma_domain::deployment::{ErrorKind, Outcome, Run, Trigger};
use oma_domain::page::{Order, Page};
use oma_domain::webhook::Topic;
use oma_domain::{AgentId, DeploymentId, RunId, SessionId, Timestamp, WorkspaceId};
use rusqlite::{Connection, OptionalExtension as _, Row, ToSql, params};

use super::commits::{self, Entry};
use super::deployments::{self, DeploymentRow};
use super::failure::{Failure, unreadable};
use super::once::{self, Mark};
use super::rows::{ends, id, number, optional_id, optional_text, page, page_limit, start, unknown_cursor};
use super::sessions::{self, SessionRow};
use super::webhooks;
use crate::deployments::{NewRun, RunFilter};
use crate::{Error, Result as StoreResult};

/// A run with everything that comes of it, ready to be stored.
pub(super) struct NewRunRow {
    run: Run,
    deployment: DeploymentRow,
    opened: Option<(SessionRow, Entry)>,
}

impl NewRunRow {
    pub(super) fn new(new: &NewRun) -> StoreResult<Self> {
        Ok(Self {
            run: new.run.clone(),
            deployment: DeploymentRow::new(&new.deployment)?,
            opened: match &new.opened {
                Some((session, commit)) => Some((SessionRow::new(session)?, Entry::new(commit.clone())?)),
                None => None,
            },
        })
    }
}

pub(super) fn record(conn: &Connection, row: &NewRunRow, once: Option<&Mark>) -> Result<(), Failure> {
    once::check(conn, once)?;
    let run = &row.run;
    if conn
        .prepare_cached("SELECT 1 FROM deployment_runs WHERE id = ?")?
        .exists([run.id.as_str()])?
    {
        return Err(Error::Conflict.into());
    }
    deployments::update(conn, &row.deployment)?;
    if let Some((session, beginning)) = &row.opened {
        sessions::create(conn, session, None)?;
        commits::commit(conn, beginning)?;
    }
    let scheduled_at = match run.trigger {
        Trigger::Manual => None,
        Trigger::Schedule { scheduled_at } => Some(scheduled_at.as_millis()),
    };
    let (session, error, message) = match &run.outcome {
        Outcome::Session(session) => (Some(session.as_str()), None, None),
        Outcome::Failed { kind, message } => (None, Some(kind.as_str()), Some(message.as_str())),
    };
    conn.prepare_cached(
        "INSERT INTO deployment_runs (workspace, id, deployment, agent_id, agent_version, created_at, scheduled_at, session,
                                      error, message)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        run.workspace.as_str(),
        run.id.as_str(),
        run.deployment.as_str(),
        run.agent.as_str(),
        run.agent_version,
        run.created_at.as_millis(),
        scheduled_at,
        session,
        error,
        message,
    ])?;
    let topics: &[Topic] = match run.outcome {
        Outcome::Session(_) => &[Topic::RunStarted, Topic::RunSucceeded],
        Outcome::Failed { .. } => &[Topic::RunStarted, Topic::RunFailed],
    };
    webhooks::tell(conn, &run.workspace, topics, run.id.as_str())?;
    once::remember(conn, once)
}

const WHOLE: &str =
    "SELECT id, deployment, agent_id, agent_version, created_at, scheduled_at, session, error, message
     FROM deployment_runs";

pub(super) fn find(conn: &Connection, workspace: &WorkspaceId, id: &RunId) -> Result<Option<Run>, Failure> {
    let mut statement = conn.prepare_cached(&format!("{WHOLE} WHERE workspace = ? AND id = ?"))?;
    let mut rows = statement.query(params![workspace.as_str(), id.as_str()])?;
    rows.next()?
        .map(|row| read(row, workspace).map(|(run, _)| run))
        .transpose()
}

/// Reads a run, and its size.
fn read(row: &Row<'_>, workspace: &WorkspaceId) -> Result<(Run, usize), Failure> {
    let message = optional_text(row, "message")?.unwrap_or_default();
    let outcome = match (
        optional_id(row, "session", SessionId::parse)?,
        optional_text(row, "error")?,
    ) {
        (Some(session), _) => Outcome::Session(session),
        (None, error) => {
            let error = error.unwrap_or_default();
            Outcome::Failed {
                kind: ErrorKind::parse(error).ok_or_else(|| unreadable("error of a run", error))?,
                message: message.to_owned(),
            }
        }
    };
    let size = message.len();
    let run = Run {
        id: id(row, "id", RunId::parse)?,
        workspace: workspace.clone(),
        deployment: id(row, "deployment", DeploymentId::parse)?,
        agent: id(row, "agent_id", AgentId::parse)?,
        agent_version: number(row, "agent_version")?,
        trigger: match row.get::<_, Option<i64>>("scheduled_at")? {
            Some(at) => Trigger::Schedule {
                scheduled_at: Timestamp(at),
            },
            None => Trigger::Manual,
        },
        outcome,
        created_at: Timestamp(row.get("created_at")?),
    };
    Ok((run, size))
}

pub(super) fn list(
    conn: &Connection,
    workspace: &WorkspaceId,
    filter: &RunFilter,
    order: Order,
    after: Option<&RunId>,
    limit: u32,
) -> Result<Page<Run, RunId>, Failure> {
    let limit = page_limit(limit);
    let after: Option<i64> = match after {
        Some(id) => {
            let found = conn
                .prepare_cached("SELECT key FROM deployment_runs WHERE workspace = ? AND id = ?")?
                .query_row(params![workspace.as_str(), id.as_str()], |row| row.get(0))
                .optional()?;
            Some(found.ok_or_else(unknown_cursor)?)
        }
        None => None,
    };
    let (from, until) = ends(filter.created);
    let (workspace_text, after, one_more) = (workspace.as_str(), start(after, order), limit + 1);
    let deployment = filter.deployment.as_ref().map(DeploymentId::as_str);
    let mut values: Vec<&dyn ToSql> = vec![&workspace_text];
    if deployment.is_some() {
        values.push(&deployment);
    }
    values.extend([&after as &dyn ToSql, &from, &until, &one_more]);
    let mut statement = conn.prepare_cached(&list_sql(filter, order))?;
    let rows = statement.query(values.as_slice())?;
    page(rows, limit, |row| read(row, workspace), |run| run.id.clone())
}

/// The query of a list.
pub(super) fn list_sql(filter: &RunFilter, order: Order) -> String {
    let deployment = if filter.deployment.is_some() {
        " AND deployment = ?"
    } else {
        ""
    };
    let failed = match filter.failed {
        None => "",
        Some(true) => " AND error IS NOT NULL",
        Some(false) => " AND error IS NULL",
    };
    let scheduled = match filter.scheduled {
        None => "",
        Some(true) => " AND scheduled_at IS NOT NULL",
        Some(false) => " AND scheduled_at IS NULL",
    };
    let (beyond, direction) = match order {
        Order::Ascending => (">", ""),
        Order::Descending => ("<", " DESC"),
    };
    format!(
        "{WHOLE} WHERE workspace = ?{deployment} AND key {beyond} ? AND created_at BETWEEN ? AND ?{failed}{scheduled}
         ORDER BY key{direction} LIMIT ?"
    )
}
