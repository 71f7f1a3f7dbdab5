//! The list of sessions, which can be read in both directions.

use axum::Json;
use axum::extract::State;
use oma_domain::page::Order;
use oma_domain::{AgentId, DeploymentId, MemoryStoreId, SessionId};
use oma_engine::{Error, SessionFilter, Standing};
use serde::Serialize;
use serde_json::value::RawValue;

use super::session;
use crate::AppState;
use crate::auth::Caller;
use crate::dialects::claude::body::bad;
use crate::dialects::claude::page::{self, Cursor};
use crate::dialects::claude::query::Query;
use crate::fault::Result;
use crate::listing::{Rows, collect};

/// A page that knows the one before it.
#[derive(Debug, Serialize)]
pub(super) struct Sessions {
    data: Vec<Box<RawValue>>,
    next_page: Option<String>,
    prev_page: Option<String>,
}

pub(super) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    query: Query,
) -> Result<Json<Sessions>> {
    let order = query.order(Order::Descending)?;
    let limit = page::limit(&query, page::MOST)?;
    let Some(filter) = filter(&query)? else {
        return Ok(Json(Sessions {
            data: Vec::new(),
            next_page: None,
            prev_page: None,
        }));
    };
    let cursor = Cursor::read(&query, order)?;
    let after = match &cursor {
        Some(cursor) => Some(SessionId::parse(&cursor.row).map_err(|_| page::invalid())?),
        None => None,
    };
    let backwards = cursor.as_ref().is_some_and(|cursor| cursor.before);
    let direction = if backwards { reversed(order) } else { order };
    let (engine, workspace, filter) = (&state.engine, caller.workspace(), &filter);
    let fetch = |after: Option<SessionId>, limit| async move {
        let page = engine
            .sessions(workspace, filter, direction, after.as_ref(), limit)
            .await;
        page.map_err(|error| match error {
            Error::SessionNotFound => page::invalid(),
            error => error.into(),
        })
    };
    let ids = std::sync::Mutex::new(Vec::new());
    let note = |session: &oma_domain::Session| {
        let mut ids = ids.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if ids.last() != Some(&session.id) {
            ids.push(session.id.clone());
        }
        session.id.clone()
    };
    let Rows { mut rows, next } = collect(limit, after, fetch, session, note).await?;
    let ids = ids
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let (first, last) = (ids.first(), ids.last());
    let cursor_at = |row: Option<&SessionId>, before: bool| {
        row.map(|row| {
            Cursor {
                before,
                ..Cursor::after(row.as_str(), order)
            }
            .to_text()
        })
    };
    let more = next.is_some();
    let (next_page, prev_page) = if backwards {
        rows.reverse();
        // It came from a page that begins after this one.
        (cursor_at(first, false), cursor_at(last, true).filter(|_| more))
    } else {
        (
            cursor_at(last, false).filter(|_| more),
            cursor_at(first, true).filter(|_| cursor.is_some()),
        )
    };
    Ok(Json(Sessions {
        data: rows,
        next_page,
        prev_page,
    }))
}

fn reversed(order: Order) -> Order {
    match order {
        Order::Ascending => Order::Descending,
        Order::Descending => Order::Ascending,
    }
}

/// Which sessions are meant; `None` when there can't be any.
fn filter(query: &Query) -> Result<Option<SessionFilter>> {
    let agent = match query.get("agent_id").map(AgentId::parse) {
        None => None,
        Some(Ok(id)) => Some(id),
        // What can't be an id is nobody's.
        Some(Err(_)) => return Ok(None),
    };
    let agent_version = query.number("agent_version", 1, u32::MAX)?;
    if agent_version.is_some() && agent.is_none() {
        return Err(bad("agent_version: needs agent_id"));
    }
    let mut standing = Vec::new();
    let archived = query.flag("include_archived")?;
    let statuses = query.list("statuses");
    for status in &statuses {
        match *status {
            "running" => standing.push(Standing::Working),
            "idle" => standing.push(Standing::Resting),
            "terminated" => standing.push(Standing::Archived),
            // A session that is about to try again is running here.
            "rescheduling" => {}
            _ => return Err(bad("statuses: must be idle, running, rescheduling or terminated")),
        }
    }
    if statuses.is_empty() {
        standing.extend([Standing::Working, Standing::Resting]);
        if archived {
            standing.push(Standing::Archived);
        }
    } else if !archived {
        standing.retain(|standing| *standing != Standing::Archived);
    }
    let deployment = match query.get("deployment_id").map(DeploymentId::parse) {
        None => None,
        Some(Ok(id)) => Some(id),
        Some(Err(_)) => return Ok(None),
    };
    // No session comes from what this server does not have yet.
    if standing.is_empty() {
        return Ok(None);
    }
    let memory_store = match query.get("memory_store_id").map(MemoryStoreId::parse) {
        None => None,
        Some(Ok(store)) => Some(store),
        // What can't be an id is one that no store has.
        Some(Err(_)) => return Ok(None),
    };
    Ok(Some(SessionFilter {
        agent,
        agent_version,
        deployment,
        memory_store,
        created: query.created()?,
        standing,
        // Those that work for another session are its threads.
        parent: Some(None),
        ..SessionFilter::default()
    }))
}
