//! Memory stores: create, list, read, update, archive, delete. Their memories and versions are beside this.

mod body;
mod memories;
mod versions;
mod view;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use oma_domain::MemoryStoreId;
use oma_domain::page::Order;
use oma_engine::{Error, ListFilter, MemoryError};
use serde_json::{Value, json};

use super::body::{Sent, bad, bounded};
use super::page::{self, Cursor, Page};
use super::query::Query;
use crate::AppState;
use crate::auth::Caller;
use crate::fault::Result;
use crate::params::MemoryStorePath;

/// The most rows of a page whose rows have contents.
const MOST_WHOLE: u32 = 20;

/// The routes of this module.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/memory_stores", post(create).get(list))
        .route(
            "/v1/memory_stores/{memory_store_id}",
            get(retrieve).post(update).delete(delete),
        )
        .route("/v1/memory_stores/{memory_store_id}/archive", post(archive))
        .merge(memories::routes())
        .merge(versions::routes())
}

/// Whether what is asked for comes with its content.
fn whole(query: &Query, unless_given: bool) -> Result<bool> {
    match query.get("view") {
        None => Ok(unless_given),
        Some("full") => Ok(true),
        Some("basic") => Ok(false),
        Some(_) => Err(bad("view: must be basic or full")),
    }
}

/// How many rows a page has. With contents it has fewer, however many are asked for.
fn limit(query: &Query, whole: bool) -> Result<u32> {
    let limit = page::limit(query, page::MOST)?;
    Ok(if whole { limit.min(MOST_WHOLE) } else { limit })
}

async fn create(State(state): State<AppState>, caller: Caller, sent: Sent) -> Result<Json<Value>> {
    let spec = body::create(&sent.value)?;
    let (engine, workspace) = (&state.engine, caller.workspace());
    let created = engine.create_memory_store(workspace, spec, sent.key).await?;
    caller.note_target(&created.id);
    Ok(Json(view::store(&created)))
}

async fn list(State(state): State<AppState>, caller: Caller, query: Query) -> Result<Json<Page>> {
    let order = Order::Descending;
    let limit = page::limit(&query, page::MOST)?;
    let filter = ListFilter {
        only_active: !query.flag("include_archived")?,
        created: query.created()?,
    };
    let after = Cursor::row(&query, order, MemoryStoreId::parse)?;
    let (engine, workspace, filter) = (&state.engine, caller.workspace(), &filter);
    let fetch = |after: Option<MemoryStoreId>, limit| async move {
        let page = engine
            .memory_stores(workspace, filter, order, after.as_ref(), limit)
            .await;
        page.map_err(|error| match error {
            Error::Memory(MemoryError::StoreNotFound) => page::invalid(),
            error => error.into(),
        })
    };
    page::list(order, limit, after, fetch, view::store, |row| row.id.clone()).await
}

async fn retrieve(
    State(state): State<AppState>,
    caller: Caller,
    MemoryStorePath(id): MemoryStorePath,
) -> Result<Json<Value>> {
    let found = state.engine.memory_store(caller.workspace(), &id).await?;
    Ok(Json(view::store(&found)))
}

async fn update(
    State(state): State<AppState>,
    caller: Caller,
    MemoryStorePath(id): MemoryStorePath,
    sent: Sent,
) -> Result<Json<Value>> {
    let update = body::update(&sent.value)?;
    let (engine, workspace) = (&state.engine, caller.workspace());
    // What the change would lead to is looked at before it is made.
    let current = engine.memory_store(workspace, &id).await?;
    bounded(&update.clone().apply(current.spec).metadata)?;
    let updated = engine
        .update_memory_store(workspace, &id, |spec| update.clone().apply(spec))
        .await?;
    Ok(Json(view::store(&updated)))
}

async fn archive(
    State(state): State<AppState>,
    caller: Caller,
    MemoryStorePath(id): MemoryStorePath,
) -> Result<Json<Value>> {
    let archived = state.engine.archive_memory_store(caller.workspace(), &id).await?;
    Ok(Json(view::store(&archived)))
}

async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    MemoryStorePath(id): MemoryStorePath,
) -> Result<Json<Value>> {
    state.engine.delete_memory_store(caller.workspace(), &id).await?;
    Ok(Json(json!({"id": id.as_str(), "type": "memory_store_deleted"})))
}
