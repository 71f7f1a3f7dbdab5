//! Sessions: what they were created with, where they stand, and the lists of them.

use std::collections::VecDeque;
use std::sync::Arc;

use oma_domain::page::{Order, Page};
use oma_domain::session::{Queued, State};
use oma_domain::webhook::Topic;
use oma_domain::{
    AgentId, DeploymentId, KeyId, MemoryStoreId, Seq, Session, SessionId, Timestamp, WorkspaceId,
};
use rusqlite::{Connection, OptionalExtension as _, Row, ToSql, params};

use super::failure::{Failure, from_json, to_json};
use super::once::{self, Mark};
use super::rows::{ends, id, number, optional_id, optional_text, page, page_limit, text, unknown_cursor};
use super::snapshots::{self, Shared};
use super::{
    checkpoints, environments, events, files, memory, queue, resources, vaults, webhooks, work, workspaces,
};
use crate::{Error, NewSession, Result as StoreResult, SessionFilter, Span, Standing};

/// A session, ready to be stored.
pub(super) struct SessionRow {
    session: NewSession,
    agent: String,
    roster: Vec<String>,
    vaults: Option<String>,
    memories: Option<String>,
    state: String,
    share: Option<String>,
}

impl SessionRow {
    pub(super) fn new(session: &NewSession) -> StoreResult<Self> {
        Ok(Self {
            session: session.clone(),
            agent: to_json("agent", &session.agent)?,
            roster: session
                .roster
                .iter()
                .map(|agent| to_json("agent", agent))
                .collect::<StoreResult<_>>()?,
            vaults: match session.vaults.as_slice() {
                [] => None,
                vaults => Some(to_json("list of vaults", &vaults)?),
            },
            memories: match session.memories.as_slice() {
                [] => None,
                memories => Some(to_json("list of memory stores", &memories)?),
            },
            state: to_json(
                "state",
                &State {
                    title: session.title.clone(),
                    metadata: session.metadata.clone(),
                    budget: session.budget,
                    ..State::default()
                },
            )?,
            share: match &session.share {
                Some(share) => Some(to_json("share", share)?),
                None => None,
            },
        })
    }
}

pub(super) fn create(conn: &Connection, row: &SessionRow, once: Option<&Mark>) -> Result<(), Failure> {
    let session = &row.session;
    once::check(conn, once)?;
    if conn
        .prepare_cached("SELECT 1 FROM sessions WHERE id = ?")?
        .exists([session.id.as_str()])?
    {
        return Err(Error::Conflict.into());
    }
    workspaces::check_sessions(conn, &session.workspace)?;
    let environment = match &session.environment {
        // It may have been deleted since the caller read it.
        Some(environment) => {
            Some(environments::key(conn, &session.workspace, &environment.id)?.ok_or(Error::NotFound)?)
        }
        None => None,
    };
    for vault in &session.vaults {
        // So may these, or archived.
        match vaults::find(conn, &session.workspace, vault)? {
            None => return Err(Error::VaultGone.into()),
            Some(vault) if vault.archived_at.is_some() => return Err(Error::VaultArchived.into()),
            Some(_) => {}
        }
    }
    // A thread has the stores of its parent, whatever has become of them.
    let memories = if session.is_thread {
        &[]
    } else {
        session.memories.as_slice()
    };
    for attached in memories {
        // And these.
        memory::attachable(conn, &session.workspace, &attached.store)?;
    }
    let snapshot = snapshots::pin(conn, &session.agent, &row.agent)?;
    conn.prepare_cached(
        "INSERT INTO sessions (workspace, id, agent_id, snapshot, environment, vaults, memories, parent, ephemeral, created_at,
                               delegation_depth, share, created_by, thread, deployment)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        session.workspace.as_str(),
        session.id.as_str(),
        session.agent.id.as_str(),
        snapshot,
        environment,
        row.vaults,
        row.memories,
        session.parent.as_ref().map(SessionId::as_str),
        session.ephemeral,
        session.created_at.as_millis(),
        session.delegation_depth,
        row.share,
        session.created_by.as_ref().map(KeyId::as_str),
        session.is_thread,
        session.deployment.as_ref().map(DeploymentId::as_str),
    ])?;
    let key = conn.last_insert_rowid();
    for attached in memories {
        memory::attach(conn, &session.workspace, key, &attached.store)?;
    }
    for (position, (agent, body)) in session.roster.iter().zip(&row.roster).enumerate() {
        snapshots::pin_member(conn, key, position, agent, body)?;
    }
    conn.prepare_cached(
        "INSERT INTO session_states (session, workspace, head, unfinished, idle_since, state) VALUES (?, ?, 0, 0, ?, ?)",
    )?
    .execute(params![
        key,
        session.workspace.as_str(),
        session.ephemeral.then_some(session.created_at.as_millis()),
        row.state,
    ])?;
    let key = conn.query_row(
        "SELECT key FROM sessions WHERE id = ?",
        [session.id.as_str()],
        |row| row.get::<_, i64>(0),
    )?;
    for file in &session.files {
        files::add(conn, file, Some(key), None, session.file_room)?;
    }
    for resource in &session.resources {
        resources::add(conn, &session.workspace, key, resource)?;
    }
    // Those that work for another session are no clients' own.
    if session.parent.is_none() {
        webhooks::tell(
            conn,
            &session.workspace,
            &[Topic::SessionCreated],
            session.id.as_str(),
        )?;
    }
    once::remember(conn, once)
}

const WHOLE: &str =
    "SELECT s.key, s.id, s.snapshot, s.environment, s.vaults, s.memories, s.parent, s.thread, s.delegation_depth, s.share,
            s.created_by, s.deployment, s.ephemeral, s.created_at, t.head, t.last_event_at, t.state, t.output, t.evaluations
     FROM sessions s JOIN session_states t ON t.session = s.key";

pub(super) fn find(
    conn: &Connection,
    workspace: &WorkspaceId,
    id: &SessionId,
    with_queue: bool,
) -> Result<Option<Session>, Failure> {
    let mut statement = conn.prepare_cached(&format!("{WHOLE} WHERE s.workspace = ? AND s.id = ?"))?;
    let mut rows = statement.query(params![workspace.as_str(), id.as_str()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let queue = if with_queue {
        queue::list(conn, row.get("key")?)?
    } else {
        VecDeque::new()
    };
    let (session, _) = read(row, queue, &mut Shared::new(conn, workspace), workspace)?;
    Ok(Some(session))
}

/// Reads a session, and the size of its state.
fn read(
    row: &Row<'_>,
    queue: VecDeque<Arc<Queued>>,
    shared: &mut Shared<'_>,
    workspace: &WorkspaceId,
) -> Result<(Session, usize), Failure> {
    let stored = text(row, "state")?;
    let output = optional_text(row, "output")?;
    let evaluations = optional_text(row, "evaluations")?;
    let size = stored.len() + output.map_or(0, str::len) + evaluations.map_or(0, str::len);
    let state = State {
        queue,
        output: output.map(Arc::from),
        evaluations: match evaluations {
            Some(evaluations) => Arc::new(from_json("list of evaluations", evaluations)?),
            None => Arc::default(),
        },
        ..from_json("state", stored)?
    };
    let agent = shared.agent(row.get("snapshot")?)?;
    let session = Session {
        id: id(row, "id", SessionId::parse)?,
        workspace: workspace.clone(),
        roster: shared.roster(row.get("key")?, &agent)?,
        agent,
        environment: match row.get::<_, Option<i64>>("environment")? {
            Some(key) => Some(shared.environment(key)?),
            None => None,
        },
        vaults: match optional_text(row, "vaults")? {
            Some(vaults) => from_json("list of vaults", vaults)?,
            None => Vec::new(),
        },
        memories: match optional_text(row, "memories")? {
            Some(memories) => from_json("list of memory stores", memories)?,
            None => Vec::new(),
        },
        resources: resources::list(shared.conn(), row.get("key")?)?,
        parent: optional_id(row, "parent", SessionId::parse)?,
        is_thread: row.get("thread")?,
        delegation_depth: row.get("delegation_depth")?,
        share: match optional_text(row, "share")? {
            Some(share) => Some(from_json("share", share)?),
            None => None,
        },
        ephemeral: row.get("ephemeral")?,
        created_by: optional_id(row, "created_by", KeyId::parse)?,
        deployment: optional_id(row, "deployment", DeploymentId::parse)?,
        created_at: Timestamp(row.get("created_at")?),
        head: Seq(number(row, "head")?),
        last_event_at: row.get::<_, Option<i64>>("last_event_at")?.map(Timestamp),
        state: Arc::new(state),
    };
    Ok((session, size))
}

pub(super) fn list(
    conn: &Connection,
    workspace: &WorkspaceId,
    filter: &SessionFilter,
    order: Order,
    after: Option<&SessionId>,
    limit: u32,
) -> Result<Page<Session, SessionId>, Failure> {
    let limit = page_limit(limit);
    let after = match after {
        Some(id) => Some(key(conn, workspace, id)?.ok_or_else(unknown_cursor)?),
        None => None,
    };
    let workspace_text = workspace.as_str();
    let agent = filter.agent.as_ref().map(AgentId::as_str);
    let one_more = limit + 1;
    let mut values: Vec<&dyn ToSql> = vec![&workspace_text];
    if agent.is_some() {
        values.push(&agent);
    }
    if filter.ephemeral.is_some() {
        values.push(&filter.ephemeral);
    }
    let parent = filter
        .parent
        .as_ref()
        .and_then(|parent| parent.as_ref())
        .map(SessionId::as_str);
    if parent.is_some() {
        values.push(&parent);
    }
    let deployment = filter.deployment.as_ref().map(DeploymentId::as_str);
    if deployment.is_some() {
        values.push(&deployment);
    }
    if filter.agent_version.is_some() {
        values.push(&filter.agent_version);
    }
    let store = filter.memory_store.as_ref().map(MemoryStoreId::as_str);
    if store.is_some() {
        values.push(&workspace_text);
        values.push(&store);
    }
    let (from, until) = ends(filter.created);
    if filter.created != Span::default() {
        values.push(&from);
        values.push(&until);
    }
    if after.is_some() {
        values.push(&after);
    }
    values.push(&one_more);
    let sql = list_sql(filter, order, after.is_some());
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query(values.as_slice())?;
    let mut shared = Shared::new(conn, workspace);
    page(
        rows,
        limit,
        |row| read(row, VecDeque::new(), &mut shared, workspace),
        |session| session.id.clone(),
    )
}

/// The query of a list. Each combination is a statement of its own, so that each finds its own index.
pub(super) fn list_sql(filter: &SessionFilter, order: Order, continued: bool) -> String {
    let agent = if filter.agent.is_some() {
        " AND s.agent_id = ?"
    } else {
        ""
    };
    let ephemeral = if filter.ephemeral.is_some() {
        " AND s.ephemeral = ?"
    } else {
        ""
    };
    let (cursor, direction) = match order {
        Order::Ascending => (" AND s.key > ?", ""),
        Order::Descending => (" AND s.key < ?", " DESC"),
    };
    let cursor = if continued { cursor } else { "" };
    let parent = match &filter.parent {
        None => "",
        Some(None) => " AND s.parent IS NULL",
        Some(Some(_)) => " AND s.parent = ?",
    };
    let deployment = if filter.deployment.is_some() {
        " AND s.deployment = ?"
    } else {
        ""
    };
    let version = if filter.agent_version.is_some() {
        " AND (SELECT version FROM agent_snapshots a WHERE a.key = s.snapshot) = ?"
    } else {
        ""
    };
    let store = if filter.memory_store.is_some() {
        " AND s.key IN (SELECT session FROM session_memories WHERE workspace = ? AND store = ?)"
    } else {
        ""
    };
    let created = if filter.created == Span::default() {
        ""
    } else {
        " AND s.created_at BETWEEN ? AND ?"
    };
    let standing: Vec<&str> = filter
        .standing
        .iter()
        .map(|standing| match standing {
            Standing::Working => "t.state ->> '$.phase.phase' = 'running'",
            Standing::Resting => "(t.state ->> '$.phase.phase' != 'running' AND t.archived = 0)",
            Standing::Archived => "t.archived = 1",
        })
        .collect();
    let standing = match standing.as_slice() {
        [] => String::new(),
        conditions => format!(" AND ({})", conditions.join(" OR ")),
    };
    format!(
        "{WHOLE} WHERE s.workspace = ?{agent}{ephemeral}{parent}{deployment}{version}{store}{created}{standing}{cursor} ORDER BY s.key{direction} LIMIT ?"
    )
}

pub(super) fn delete(conn: &Connection, workspace: &WorkspaceId, id: &SessionId) -> Result<bool, Failure> {
    let found: Option<(i64, i64, bool)> = conn
        .prepare_cached("SELECT key, snapshot, parent IS NULL FROM sessions WHERE workspace = ? AND id = ?")?
        .query_row(params![workspace.as_str(), id.as_str()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((key, snapshot, is_own)) = found else {
        return Ok(false);
    };
    if is_own {
        webhooks::tell(conn, workspace, &[Topic::SessionDeleted], id.as_str())?;
    }
    events::clear(conn, key)?;
    queue::clear(conn, key)?;
    once::forget_session(conn, workspace, id)?;
    let roster = snapshots::clear_roster(conn, key)?;
    memory::detach(conn, key)?;
    resources::clear(conn, key)?;
    files::clear(conn, key)?;
    checkpoints::clear(conn, key)?;
    work::forget_session(conn, workspace, id)?;
    conn.prepare_cached("DELETE FROM session_states WHERE session = ?")?
        .execute([key])?;
    conn.prepare_cached("DELETE FROM sessions WHERE key = ?")?
        .execute([key])?;
    for snapshot in std::iter::once(snapshot).chain(roster) {
        snapshots::unpin(conn, snapshot)?;
    }
    Ok(true)
}

pub(super) fn unfinished(
    conn: &Connection,
    after: Option<&SessionId>,
    limit: u32,
) -> Result<Page<(WorkspaceId, SessionId), SessionId>, Failure> {
    let limit = page_limit(limit);
    let mut statement = conn.prepare_cached(
        "SELECT s.workspace, s.id FROM session_states t JOIN sessions s ON s.key = t.session
         WHERE t.unfinished = 1 AND s.id > ? ORDER BY s.id LIMIT ?",
    )?;
    // Every id is greater than the empty text.
    let rows = statement.query(params![after.map_or("", SessionId::as_str), limit + 1])?;
    let read = |row: &Row<'_>| {
        let found = (
            id(row, "workspace", WorkspaceId::parse)?,
            id(row, "id", SessionId::parse)?,
        );
        Ok((found, 0))
    };
    page(rows, limit, read, |(_, id)| id.clone())
}

pub(super) fn expired(
    conn: &Connection,
    before: Timestamp,
    limit: u32,
) -> Result<Vec<(WorkspaceId, SessionId)>, Failure> {
    let limit = page_limit(limit);
    let mut statement = conn.prepare_cached(
        "SELECT s.workspace, s.id FROM session_states t JOIN sessions s ON s.key = t.session
         WHERE t.idle_since < ? ORDER BY t.idle_since LIMIT ?",
    )?;
    let mut rows = statement.query(params![before.as_millis(), limit])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push((
            id(row, "workspace", WorkspaceId::parse)?,
            id(row, "id", SessionId::parse)?,
        ));
    }
    Ok(found)
}

pub(super) fn deadlines(
    conn: &Connection,
    limit: u32,
) -> Result<Vec<(WorkspaceId, SessionId, Timestamp)>, Failure> {
    let mut statement = conn.prepare_cached(
        "SELECT s.workspace, s.id, t.deadline FROM session_states t JOIN sessions s ON s.key = t.session
         WHERE t.deadline IS NOT NULL ORDER BY t.deadline LIMIT ?",
    )?;
    let mut rows = statement.query([page_limit(limit)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push((
            id(row, "workspace", WorkspaceId::parse)?,
            id(row, "id", SessionId::parse)?,
            Timestamp(row.get("deadline")?),
        ));
    }
    Ok(found)
}

/// Whether a session of an agent has a workflow run that has not ended. Few sessions of anybody's have one.
pub(super) fn has_open_run(
    conn: &Connection,
    workspace: &WorkspaceId,
    agent: &AgentId,
) -> Result<bool, Failure> {
    let mut statement = conn.prepare_cached(
        "SELECT 1 FROM session_states t JOIN sessions s ON s.key = t.session
         WHERE t.open_runs > 0 AND s.workspace = ? AND s.agent_id = ? LIMIT 1",
    )?;
    Ok(statement.exists(params![workspace.as_str(), agent.as_str()])?)
}

pub(super) fn existing(conn: &Connection, mut ids: Vec<SessionId>) -> Result<Vec<SessionId>, Failure> {
    let mut statement = conn.prepare_cached("SELECT 1 FROM sessions WHERE id = ?")?;
    let mut failure = None;
    ids.retain(|id| match statement.exists([id.as_str()]) {
        Ok(exists) => exists,
        Err(error) => {
            failure = Some(error);
            false
        }
    });
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(ids),
    }
}

/// The row's key, by which events and queue rows refer to it.
pub(super) fn key(
    conn: &Connection,
    workspace: &WorkspaceId,
    id: &SessionId,
) -> Result<Option<i64>, Failure> {
    Ok(conn
        .prepare_cached("SELECT key FROM sessions WHERE workspace = ? AND id = ?")?
        .query_row(params![workspace.as_str(), id.as_str()], |row| row.get(0))
        .optional()?)
}
