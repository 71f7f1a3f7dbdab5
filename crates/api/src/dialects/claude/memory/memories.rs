//! Memories of a store: create, list, read, update, delete.

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use oma_domain::memory::{Prefix, Sha};
use oma_domain::page::Order;
use oma_engine::MemoryFilter;
use serde_json::{Value, json};

use super::{body, limit, view, whole};
use crate::AppState;
use crate::auth::Caller;
use crate::dialects::claude::body::{Sent, bad};
use crate::dialects::claude::page::{self, Cursor, Page};
use crate::dialects::claude::query::Query;
use crate::fault::Result;
use crate::params::{MemoryPath, MemoryStorePath};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route(
            "/v1/memory_stores/{memory_store_id}/memories",
            post(create).get(list),
        )
        .route(
            "/v1/memory_stores/{memory_store_id}/memories/{memory_id}",
            get(retrieve).post(update).delete(delete),
        )
}

async fn create(
    State(state): State<AppState>,
    caller: Caller,
    MemoryStorePath(store): MemoryStorePath,
    query: Query,
    sent: Sent,
) -> Result<Json<Value>> {
    let whole = whole(&query, false)?;
    let (path, content) = body::new_memory(&sent.value)?;
    let (workspace, author) = (caller.workspace(), caller.actor().clone());
    let created = state
        .engine
        .create_memory(workspace, &store, author, path, content, sent.key)
        .await?;
    caller.note_target(&created.id);
    caller.note("memory_store_id", store.as_str());
    Ok(Json(view::memory(&created, whole)))
}

async fn list(
    State(state): State<AppState>,
    caller: Caller,
    MemoryStorePath(store): MemoryStorePath,
    query: Query,
) -> Result<Json<Page>> {
    let order = Order::Ascending;
    let contents = whole(&query, false)?;
    let limit = limit(&query, contents)?;
    let prefix = match query.get("path_prefix") {
        Some(text) => Prefix::parse(text).map_err(|problem| bad(format!("path_prefix: {problem}")))?,
        None => Prefix::default(),
    };
    let rolled_up = match query.get("depth") {
        None | Some("0") => false,
        Some("1") => true,
        Some(_) => return Err(bad("depth: must be 0 or 1")),
    };
    let filter = MemoryFilter {
        prefix,
        rolled_up,
        contents,
    };
    let after = Cursor::read(&query, order)?.map(|cursor| cursor.row);
    let (engine, workspace, store, filter) = (&state.engine, caller.workspace(), &store, &filter);
    let fetch = |after: Option<String>, limit| async move {
        let page = engine
            .memories(workspace, store, filter, after.as_deref(), limit)
            .await;
        Ok(page?)
    };
    page::list(order, limit, after, fetch, view::item, |item| {
        item.path().to_owned()
    })
    .await
}

async fn retrieve(
    State(state): State<AppState>,
    caller: Caller,
    MemoryPath { store, memory }: MemoryPath,
    query: Query,
) -> Result<Json<Value>> {
    let whole = whole(&query, true)?;
    let found = state
        .engine
        .memory(caller.workspace(), &store, &memory, whole)
        .await?;
    Ok(Json(view::memory(&found, whole)))
}

async fn update(
    State(state): State<AppState>,
    caller: Caller,
    MemoryPath { store, memory }: MemoryPath,
    query: Query,
    sent: Sent,
) -> Result<Json<Value>> {
    let whole = whole(&query, false)?;
    let edit = body::edit(&sent.value)?;
    caller.note("memory_store_id", store.as_str());
    let (workspace, author) = (caller.workspace(), caller.actor().clone());
    let updated = state
        .engine
        .update_memory(workspace, &store, &memory, author, edit)
        .await?;
    Ok(Json(view::memory(&updated, whole)))
}

async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    MemoryPath { store, memory }: MemoryPath,
    query: Query,
) -> Result<Json<Value>> {
    let expected = match query.get("expected_content_sha256") {
        Some(text) => {
            let sha = Sha::parse(text);
            Some(sha.ok_or_else(|| bad(format!("expected_content_sha256: {}", body::SHA)))?)
        }
        None => None,
    };
    caller.note("memory_store_id", store.as_str());
    let (workspace, author) = (caller.workspace(), caller.actor().clone());
    state
        .engine
        .delete_memory(workspace, &store, &memory, author, expected)
        .await?;
    Ok(Json(json!({"id": memory.as_str(), "type": "memory_deleted"})))
}
