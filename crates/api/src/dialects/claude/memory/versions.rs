//! Versions of a store's memories: list, read, redact.

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use oma_domain::memory::Operation;
use oma_domain::page::Order;
use oma_domain::{Actor, MemoryId, MemoryVersionId};
use oma_engine::{Error, MemoryError, VersionFilter};
use serde_json::Value;

use super::{limit, view, whole};
use crate::AppState;
use crate::auth::Caller;
use crate::dialects::claude::body::bad;
use crate::dialects::claude::page::{self, Cursor, Page};
use crate::dialects::claude::query::Query;
use crate::fault::Result;
use crate::params::{MemoryStorePath, MemoryVersionPath};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/memory_stores/{memory_store_id}/memory_versions", get(list))
        .route(
            "/v1/memory_stores/{memory_store_id}/memory_versions/{memory_version_id}",
            get(retrieve),
        )
        .route(
            "/v1/memory_stores/{memory_store_id}/memory_versions/{memory_version_id}/redact",
            post(redact),
        )
}

async fn list(
    State(state): State<AppState>,
    caller: Caller,
    MemoryStorePath(store): MemoryStorePath,
    query: Query,
) -> Result<Json<Page>> {
    let order = Order::Descending;
    let contents = whole(&query, false)?;
    let limit = limit(&query, contents)?;
    let filter = filter(&query, contents)?;
    let after = Cursor::row(&query, order, MemoryVersionId::parse)?;
    let (engine, workspace, store, filter) = (&state.engine, caller.workspace(), &store, &filter);
    let fetch = |after: Option<MemoryVersionId>, limit| async move {
        let after = after.as_ref();
        let page = engine
            .memory_versions(workspace, store, filter, after, limit)
            .await;
        page.map_err(|error| match error {
            Error::Memory(MemoryError::VersionNotFound) => page::invalid(),
            error => error.into(),
        })
    };
    page::list(order, limit, after, fetch, view::version, |row| row.id.clone()).await
}

fn filter(query: &Query, contents: bool) -> Result<VersionFilter> {
    let memory = match query.get("memory_id") {
        Some(id) => Some(MemoryId::parse(id).map_err(|_| bad("memory_id: is not the id of a memory"))?),
        None => None,
    };
    let operation = match query.get("operation") {
        Some(name) => {
            let operation = Operation::parse(name);
            Some(operation.ok_or_else(|| bad("operation: must be created, modified or deleted"))?)
        }
        None => None,
    };
    let mut author = None;
    for name in ["session_id", "api_key_id", "service_account_id"] {
        let Some(id) = query.get(name) else { continue };
        let wanted = match name {
            "session_id" => format!("session:{id}"),
            // Those that have no key are shown by these names in the place of a key's id.
            "api_key_id" if matches!(Actor::parse(id), Some(Actor::Operator | Actor::Local)) => id.to_owned(),
            "api_key_id" => format!("key:{id}"),
            // There are none here.
            _ => format!("service_account:{id}"),
        };
        if author.replace(wanted).is_some() {
            return Err(bad(
                "session_id, api_key_id and service_account_id: only one of them can be given, because a version has one author",
            ));
        }
    }
    Ok(VersionFilter {
        memory,
        operation,
        author,
        created: query.created()?,
        contents,
    })
}

async fn retrieve(
    State(state): State<AppState>,
    caller: Caller,
    MemoryVersionPath { store, version }: MemoryVersionPath,
    query: Query,
) -> Result<Json<Value>> {
    let whole = whole(&query, true)?;
    let found = state
        .engine
        .memory_version(caller.workspace(), &store, &version, whole)
        .await?;
    Ok(Json(view::version(&found)))
}

async fn redact(
    State(state): State<AppState>,
    caller: Caller,
    MemoryVersionPath { store, version }: MemoryVersionPath,
) -> Result<Json<Value>> {
    caller.note("memory_store_id", store.as_str());
    let (workspace, author) = (caller.workspace(), caller.actor().clone());
    let redacted = state
        .engine
        .redact_memory_version(workspace, &store, &version, author)
        .await?;
    Ok(Json(view::version(&redacted)))
}
