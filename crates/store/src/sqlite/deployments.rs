//! Deployments.

use async_trait::async_trait;
use oma_domain::deployment::{Run, Tick};
use oma_domain::page::{Order, Page};
use oma_domain::webhook::Topic;
use oma_domain::{AgentId, Deployment, DeploymentId, KeyId, RunId, Timestamp, WorkspaceId};
use rusqlite::{Connection, OptionalExtension as _, Row, ToSql, params};

use super::failure::{Failure, from_json, to_json};
use super::once::{self, Mark};
use super::rows::{
    ends, id, number, optional_id, optional_text, page, page_limit, start, text, unknown_cursor,
};
use super::{Sqlite, runs, webhooks};
use crate::deployments::{DeploymentFilter, Deployments, Due, NewRun, RunFilter};
use crate::{Error, Once, Result as StoreResult};

/// A deployment, ready to be stored.
pub(super) struct DeploymentRow {
    deployment: Deployment,
    spec: String,
    paused: Option<String>,
}

impl DeploymentRow {
    pub(super) fn new(deployment: &Deployment) -> StoreResult<Self> {
        Ok(Self {
            deployment: deployment.clone(),
            spec: to_json("deployment", &deployment.spec)?,
            paused: match &deployment.paused {
                Some(pause) => Some(to_json("pause", pause)?),
                None => None,
            },
        })
    }
}

fn create(conn: &Connection, row: &DeploymentRow, most: u32, once: Option<&Mark>) -> Result<(), Failure> {
    let deployment = &row.deployment;
    once::check(conn, once)?;
    if key(conn, None, &deployment.id)?.is_some() {
        return Err(Error::Conflict.into());
    }
    check_agent(conn, deployment)?;
    let live: u32 = conn
        .prepare_cached("SELECT count(*) FROM deployments WHERE workspace = ? AND archived_at IS NULL")?
        .query_row([deployment.workspace.as_str()], |row| row.get(0))?;
    if live >= most {
        return Err(Error::TooMany(live).into());
    }
    conn.prepare_cached(
        "INSERT INTO deployments (workspace, id, agent_id, revision, created_by, created_at, updated_at, archived_at,
                                  paused, scheduled_at, fires_at, last_run_at, spec)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        deployment.workspace.as_str(),
        deployment.id.as_str(),
        deployment.spec.agent.as_str(),
        revision(deployment)?,
        deployment.created_by.as_ref().map(KeyId::as_str),
        deployment.created_at.as_millis(),
        deployment.updated_at.as_millis(),
        deployment.archived_at.map(Timestamp::as_millis),
        row.paused,
        deployment.next.map(|tick| tick.scheduled_at.as_millis()),
        deployment.next.map(|tick| tick.fires_at.as_millis()),
        deployment.last_run_at.map(Timestamp::as_millis),
        row.spec,
    ])?;
    let topics = [Topic::DeploymentCreated];
    webhooks::tell(conn, &deployment.workspace, &topics, deployment.id.as_str())?;
    once::remember(conn, once)
}

/// Whoever archives an agent archives its deployments: none may be added behind their back.
fn check_agent(conn: &Connection, deployment: &Deployment) -> Result<(), Failure> {
    let there = conn
        .prepare_cached("SELECT 1 FROM agents WHERE workspace = ? AND id = ? AND archived_at IS NULL")?
        .exists(params![
            deployment.workspace.as_str(),
            deployment.spec.agent.as_str()
        ])?;
    if there {
        Ok(())
    } else {
        Err(Error::AgentGone.into())
    }
}

fn revision(deployment: &Deployment) -> Result<i64, Failure> {
    Ok(i64::try_from(deployment.revision).map_err(|error| Error::Internal(error.to_string()))?)
}

pub(super) fn update(conn: &Connection, row: &DeploymentRow) -> Result<(), Failure> {
    let deployment = &row.deployment;
    let revision = revision(deployment)?;
    let stored = find(conn, &deployment.workspace, &deployment.id)?.ok_or(Error::NotFound)?;
    if stored.revision.checked_add(1) != Some(deployment.revision) {
        return Err(Error::Conflict.into());
    }
    if deployment.archived_at.is_none() {
        check_agent(conn, deployment)?;
    }
    conn.prepare_cached(
        "UPDATE deployments SET agent_id = ?, revision = ?, updated_at = ?, archived_at = ?, paused = ?, scheduled_at = ?,
                fires_at = ?, last_run_at = ?, spec = ?
         WHERE workspace = ? AND id = ?",
    )?
    .execute(params![
        deployment.spec.agent.as_str(),
        revision,
        deployment.updated_at.as_millis(),
        deployment.archived_at.map(Timestamp::as_millis),
        row.paused,
        deployment.next.map(|tick| tick.scheduled_at.as_millis()),
        deployment.next.map(|tick| tick.fires_at.as_millis()),
        deployment.last_run_at.map(Timestamp::as_millis),
        row.spec,
        deployment.workspace.as_str(),
        deployment.id.as_str(),
    ])?;
    let topics = topics(&stored, deployment);
    webhooks::tell(conn, &deployment.workspace, &topics, deployment.id.as_str())
}

/// What a change is told as. That a run moved it on is told by the run.
fn topics(before: &Deployment, after: &Deployment) -> Vec<Topic> {
    let mut topics = Vec::new();
    if after.archived_at != before.archived_at {
        topics.push(Topic::DeploymentArchived);
    } else if after.paused.is_some() && before.paused.is_none() {
        topics.push(Topic::DeploymentPaused);
    } else if after.paused.is_none() && before.paused.is_some() {
        topics.push(Topic::DeploymentUnpaused);
    }
    if after.spec != before.spec {
        topics.push(Topic::DeploymentUpdated);
    }
    topics
}

/// Archives the deployments of an agent that is archived or goes.
pub(super) fn archive_of_agent(
    conn: &Connection,
    workspace: &WorkspaceId,
    agent: &AgentId,
    at: Timestamp,
) -> Result<(), Failure> {
    let mut statement = conn.prepare_cached(
        "UPDATE deployments SET archived_at = ?1, updated_at = ?1, paused = NULL, scheduled_at = NULL, fires_at = NULL,
                revision = revision + 1
         WHERE workspace = ?2 AND agent_id = ?3 AND archived_at IS NULL RETURNING id",
    )?;
    let archived: Vec<String> = statement
        .query_map(
            params![at.as_millis(), workspace.as_str(), agent.as_str()],
            |row| row.get(0),
        )?
        .collect::<Result<_, _>>()?;
    for id in &archived {
        webhooks::tell(conn, workspace, &[Topic::DeploymentArchived], id)?;
    }
    Ok(())
}

const WHOLE: &str =
    "SELECT id, revision, created_by, created_at, updated_at, archived_at, paused, scheduled_at, fires_at,
            last_run_at, spec FROM deployments";

fn find(
    conn: &Connection,
    workspace: &WorkspaceId,
    id: &DeploymentId,
) -> Result<Option<Deployment>, Failure> {
    let mut statement = conn.prepare_cached(&format!("{WHOLE} WHERE workspace = ? AND id = ?"))?;
    let mut rows = statement.query(params![workspace.as_str(), id.as_str()])?;
    rows.next()?
        .map(|row| read(row, workspace).map(|(deployment, _)| deployment))
        .transpose()
}

fn time(row: &Row<'_>, column: &str) -> Result<Option<Timestamp>, Failure> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp))
}

/// Reads a deployment, and the size of its definition.
fn read(row: &Row<'_>, workspace: &WorkspaceId) -> Result<(Deployment, usize), Failure> {
    let spec = text(row, "spec")?;
    let next = match (time(row, "scheduled_at")?, time(row, "fires_at")?) {
        (Some(scheduled_at), Some(fires_at)) => Some(Tick {
            scheduled_at,
            fires_at,
        }),
        _ => None,
    };
    let deployment = Deployment {
        id: id(row, "id", DeploymentId::parse)?,
        workspace: workspace.clone(),
        spec: from_json("deployment", spec)?,
        created_by: optional_id(row, "created_by", KeyId::parse)?,
        created_at: Timestamp(row.get("created_at")?),
        updated_at: Timestamp(row.get("updated_at")?),
        archived_at: time(row, "archived_at")?,
        paused: match optional_text(row, "paused")? {
            Some(pause) => Some(from_json("pause", pause)?),
            None => None,
        },
        next,
        last_run_at: time(row, "last_run_at")?,
        revision: number(row, "revision")?,
    };
    Ok((deployment, spec.len()))
}

fn list(
    conn: &Connection,
    workspace: &WorkspaceId,
    filter: &DeploymentFilter,
    order: Order,
    after: Option<&DeploymentId>,
    limit: u32,
) -> Result<Page<Deployment, DeploymentId>, Failure> {
    let limit = page_limit(limit);
    let after = match after {
        Some(id) => Some(key(conn, Some(workspace), id)?.ok_or_else(unknown_cursor)?),
        None => None,
    };
    let (from, until) = ends(filter.created);
    let (workspace_text, after, one_more) = (workspace.as_str(), start(after, order), limit + 1);
    let agent = filter.agent.as_ref().map(AgentId::as_str);
    let mut values: Vec<&dyn ToSql> = vec![&workspace_text];
    if agent.is_some() {
        values.push(&agent);
    }
    values.extend([&after as &dyn ToSql, &from, &until, &one_more]);
    let mut statement = conn.prepare_cached(&list_sql(filter, order))?;
    let rows = statement.query(values.as_slice())?;
    page(rows, limit, |row| read(row, workspace), |row| row.id.clone())
}

/// The query of a list.
pub(super) fn list_sql(filter: &DeploymentFilter, order: Order) -> String {
    let agent = if filter.agent.is_some() {
        " AND agent_id = ?"
    } else {
        ""
    };
    let paused = match filter.paused {
        None => "",
        Some(true) => " AND paused IS NOT NULL",
        Some(false) => " AND paused IS NULL",
    };
    let active = if filter.only_active {
        " AND archived_at IS NULL"
    } else {
        ""
    };
    let (beyond, direction) = match order {
        Order::Ascending => (">", ""),
        Order::Descending => ("<", " DESC"),
    };
    format!(
        "{WHOLE} WHERE workspace = ?{agent} AND key {beyond} ? AND created_at BETWEEN ? AND ?{paused}{active}
         ORDER BY key{direction} LIMIT ?"
    )
}

fn read_due(row: &Row<'_>) -> Result<Due, Failure> {
    Ok(Due {
        workspace: id(row, "workspace", WorkspaceId::parse)?,
        deployment: id(row, "id", DeploymentId::parse)?,
        fires_at: Timestamp(row.get("fires_at")?),
    })
}

fn due(conn: &Connection, limit: u32) -> Result<Vec<Due>, Failure> {
    let mut statement = conn.prepare_cached(
        "SELECT workspace, id, fires_at FROM deployments WHERE fires_at IS NOT NULL ORDER BY fires_at LIMIT ?",
    )?;
    let mut rows = statement.query([page_limit(limit)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read_due(row)?);
    }
    Ok(found)
}

fn scheduled(
    conn: &Connection,
    after: Option<&DeploymentId>,
    limit: u32,
) -> Result<Page<Due, DeploymentId>, Failure> {
    let limit = page_limit(limit);
    let mut statement = conn.prepare_cached(
        "SELECT workspace, id, fires_at FROM deployments WHERE fires_at IS NOT NULL AND id > ? ORDER BY id LIMIT ?",
    )?;
    // Every id is greater than the empty text.
    let rows = statement.query(params![after.map_or("", DeploymentId::as_str), limit + 1])?;
    page(
        rows,
        limit,
        |row| Ok((read_due(row)?, 0)),
        |due| due.deployment.clone(),
    )
}

/// The row's key, in whichever workspace unless one is named.
fn key(
    conn: &Connection,
    workspace: Option<&WorkspaceId>,
    id: &DeploymentId,
) -> Result<Option<i64>, Failure> {
    let found: Option<(i64, String)> = conn
        .prepare_cached("SELECT key, workspace FROM deployments WHERE id = ?")?
        .query_row([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let fits = |found: &str| workspace.is_none_or(|workspace| workspace.as_str() == found);
    Ok(found.filter(|(_, found)| fits(found)).map(|(key, _)| key))
}

#[async_trait]
impl Deployments for Sqlite {
    async fn create_deployment(
        &self,
        deployment: &Deployment,
        most: u32,
        once: Option<&Once>,
    ) -> StoreResult<()> {
        let row = DeploymentRow::new(deployment)?;
        let once = Mark::of(&deployment.workspace, once)?;
        self.writer
            .run(move |conn| create(conn, &row, most, once.as_ref()))
            .await
    }

    async fn deployment(
        &self,
        workspace: &WorkspaceId,
        id: &DeploymentId,
    ) -> StoreResult<Option<Deployment>> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.readers.run(move |conn| find(conn, &workspace, &id)).await
    }

    async fn deployments(
        &self,
        workspace: &WorkspaceId,
        filter: &DeploymentFilter,
        order: Order,
        after: Option<&DeploymentId>,
        limit: u32,
    ) -> StoreResult<Page<Deployment, DeploymentId>> {
        let (workspace, filter, after) = (workspace.clone(), filter.clone(), after.cloned());
        self.readers
            .run(move |conn| list(conn, &workspace, &filter, order, after.as_ref(), limit))
            .await
    }

    async fn update_deployment(&self, deployment: &Deployment) -> StoreResult<()> {
        let row = DeploymentRow::new(deployment)?;
        self.writer.run(move |conn| update(conn, &row)).await
    }

    async fn due_deployments(&self, limit: u32) -> StoreResult<Vec<Due>> {
        self.readers.run(move |conn| due(conn, limit)).await
    }

    async fn scheduled_deployments(
        &self,
        after: Option<&DeploymentId>,
        limit: u32,
    ) -> StoreResult<Page<Due, DeploymentId>> {
        let after = after.cloned();
        self.readers
            .run(move |conn| scheduled(conn, after.as_ref(), limit))
            .await
    }

    async fn record_run(&self, run: &NewRun, once: Option<&Once>) -> StoreResult<()> {
        let row = runs::NewRunRow::new(run)?;
        let once = Mark::of(&run.run.workspace, once)?;
        self.writer
            .run(move |conn| runs::record(conn, &row, once.as_ref()))
            .await
    }

    async fn deployment_run(&self, workspace: &WorkspaceId, id: &RunId) -> StoreResult<Option<Run>> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.readers
            .run(move |conn| runs::find(conn, &workspace, &id))
            .await
    }

    async fn deployment_runs(
        &self,
        workspace: &WorkspaceId,
        filter: &RunFilter,
        order: Order,
        after: Option<&RunId>,
        limit: u32,
    ) -> StoreResult<Page<Run, RunId>> {
        let (workspace, filter, after) = (workspace.clone(), filter.clone(), after.cloned());
        self.readers
            .run(move |conn| runs::list(conn, &workspace, &filter, order, after.as_ref(), limit))
            .await
    }
}
