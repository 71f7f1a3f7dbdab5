//! Commits: the one way in which a session changes.

use std::sync::Arc;

use oma_domain::agent::Agent;
use oma_domain::event::StopReason;
use oma_domain::session::{Phase, State};
use oma_domain::webhook::Topic;
use oma_domain::{AgentId, Event, Seq, SessionId, Timestamp, WorkspaceId};
use rusqlite::{Connection, params};

use super::agents;
use super::audit::{self, EntryRow};
use super::events::{self, EventRow};
use super::failure::{Failure, to_json};
use super::once::{self, Mark};
use super::queue::{self, Change};
use super::rows::number;
use super::snapshots;
use super::usage::{self, Addition};
use super::webhooks::{self, About};
use crate::{Commit, Error, Result as StoreResult};

/// A commit, checked and ready to be stored.
pub(super) struct Entry {
    workspace: WorkspaceId,
    session: SessionId,
    expected_head: Seq,
    events: Vec<EventRow>,
    queue: Vec<Change>,
    state: String,
    output: Option<Arc<str>>,
    evaluations: Option<String>,
    agent: Option<(Arc<Agent>, String)>,
    needs_agent: Option<AgentId>,
    resumes: Resumes,
    idle: bool,
    deadline: Option<Timestamp>,
    /// How many of its workflow runs have not ended.
    open_runs: u32,
    archived: bool,
    notices: Vec<Notices>,
    once: Option<Mark>,
    used: Option<Addition>,
    audit: Option<EntryRow>,
    head: Seq,
    last_event_at: Option<Timestamp>,
}

/// Whether a restarted server has to take the session up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resumes {
    Always,
    IfMessagesWait,
    Never,
}

/// What an event is told as.
struct Notices {
    topics: &'static [Topic],
    thread: Option<SessionId>,
}

impl Notices {
    fn of(event: &Event) -> Option<Self> {
        let topics = Topic::of_event(&event.body);
        (!topics.is_empty()).then(|| Self {
            topics,
            thread: Topic::thread_of_event(&event.body).cloned(),
        })
    }
}

impl Resumes {
    fn of(state: &State) -> Self {
        match &state.phase {
            Phase::Running { .. } => Self::Always,
            // It has yet to tell them.
            _ if state.has_threads_to_close() => Self::Always,
            // It waits for a client.
            Phase::Blocked { .. } => Self::Never,
            // Nothing starts before the budget is raised.
            Phase::Idle {
                stop: Some(StopReason::BudgetReached { .. }),
            } => Self::Never,
            Phase::Idle { .. } => Self::IfMessagesWait,
        }
    }
}

impl Entry {
    /// # Errors
    /// [`Error::Internal`] when the events do not follow `expected_head` without gaps or belong elsewhere.
    pub(super) fn new(commit: Commit) -> StoreResult<Self> {
        let mut head = commit.expected_head;
        for event in &commit.events {
            head = head.next();
            if event.seq != head || event.session != commit.session {
                return Err(Error::Internal(format!(
                    "event {} of {} at {} can't be committed to {} at {}",
                    event.id, event.session, event.seq.0, commit.session, head.0
                )));
            }
        }
        Ok(Self {
            events: commit
                .events
                .iter()
                .map(EventRow::new)
                .collect::<StoreResult<_>>()?,
            queue: commit.queue.iter().map(Change::new).collect::<StoreResult<_>>()?,
            state: to_json("state", &*commit.state)?,
            output: commit.output,
            evaluations: match &commit.evaluations {
                Some(evaluations) => Some(to_json("list of evaluations", &**evaluations)?),
                None => None,
            },
            agent: match commit.agent {
                Some(agent) => {
                    let body = to_json("agent", &agent)?;
                    Some((agent, body))
                }
                None => None,
            },
            needs_agent: commit.needs_agent,
            resumes: Resumes::of(&commit.state),
            idle: matches!(commit.state.phase, Phase::Idle { .. }),
            deadline: commit.state.deadline(),
            open_runs: u32::try_from(commit.state.runs.len()).unwrap_or(u32::MAX),
            archived: commit.state.archived_at.is_some(),
            notices: commit.events.iter().filter_map(Notices::of).collect(),
            once: Mark::of(&commit.workspace, commit.once.as_ref())?,
            used: commit.used.as_ref().map(Addition::new).transpose()?,
            audit: commit.audit.map(EntryRow::new).transpose()?,
            last_event_at: commit.events.last().map(|event| event.at),
            expected_head: commit.expected_head,
            workspace: commit.workspace,
            session: commit.session,
            head,
        })
    }
}

pub(super) fn commit(conn: &Connection, entry: &Entry) -> Result<(), Failure> {
    let Stored {
        session,
        head,
        ephemeral,
        created_at,
        is_own,
    } = stored(conn, entry)?;
    // A repeated call finds its key first: that the log has gone on since is its own doing.
    once::check(conn, entry.once.as_ref())?;
    if head != entry.expected_head {
        return Err(Error::Conflict.into());
    }
    if let Some(agent) = &entry.needs_agent
        && agents::key(conn, &entry.workspace, agent)?.is_none()
    {
        return Err(Error::AgentGone.into());
    }
    for event in &entry.events {
        events::append(conn, &entry.workspace, session, event)?;
    }
    for change in &entry.queue {
        queue::apply(conn, &entry.workspace, session, change)?;
    }
    let unfinished = match entry.resumes {
        Resumes::Always => true,
        Resumes::IfMessagesWait => queue::waits(conn, session)?,
        Resumes::Never => false,
    };
    let head = i64::try_from(entry.head.0).map_err(|error| Error::Internal(error.to_string()))?;
    conn.prepare_cached(
        "UPDATE session_states SET head = ?1, last_event_at = coalesce(?2, last_event_at), unfinished = ?3, state = ?4,
                idle_since = CASE WHEN ?5 THEN coalesce(?2, last_event_at, ?6) END, output = coalesce(?7, output),
                deadline = ?8, archived = ?9, evaluations = coalesce(?10, evaluations), open_runs = ?11
         WHERE session = ?12",
    )?
    .execute(params![
        head,
        entry.last_event_at.map(Timestamp::as_millis),
        unfinished,
        entry.state,
        ephemeral && entry.idle && !unfinished,
        created_at,
        entry.output.as_deref(),
        entry.deadline.map(Timestamp::as_millis),
        entry.archived,
        entry.evaluations,
        entry.open_runs,
        session,
    ])?;
    if let Some((agent, body)) = &entry.agent {
        snapshots::repin(conn, session, agent, body)?;
    }
    if is_own {
        for Notices { topics, thread } in &entry.notices {
            let about = About {
                resource: entry.session.as_str(),
                vault: None,
                thread: thread.as_ref().map(SessionId::as_str),
            };
            webhooks::tell_about(conn, &entry.workspace, topics, about)?;
        }
    }
    if let Some(used) = &entry.used {
        usage::add(conn, &entry.workspace, session, used)?;
    }
    if let Some(row) = &entry.audit {
        audit::append(conn, row)?;
    }
    once::remember(conn, entry.once.as_ref())
}

/// What a commit needs of the stored session.
struct Stored {
    session: i64,
    head: Seq,
    ephemeral: bool,
    created_at: i64,
    /// Whether it works for no other session.
    is_own: bool,
}

fn stored(conn: &Connection, entry: &Entry) -> Result<Stored, Failure> {
    let mut statement = conn.prepare_cached(
        "SELECT s.key, s.ephemeral, s.created_at, s.parent IS NULL AS is_own, t.head FROM sessions s JOIN session_states t ON t.session = s.key
         WHERE s.workspace = ? AND s.id = ?",
    )?;
    let mut rows = statement.query(params![entry.workspace.as_str(), entry.session.as_str()])?;
    let Some(row) = rows.next()? else {
        return Err(Error::NotFound.into());
    };
    Ok(Stored {
        session: row.get("key")?,
        head: Seq(number(row, "head")?),
        ephemeral: row.get("ephemeral")?,
        created_at: row.get("created_at")?,
        is_own: row.get("is_own")?,
    })
}
