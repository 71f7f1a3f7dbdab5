//! Vaults: create, list, read, update, archive, delete. Their credentials have a module of their own.
//!
//! Invariant: no answer has a secret in it. What a client gave can be replaced and removed, never read.

mod auth;
mod body;
mod credentials;
mod view;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use oma_domain::VaultId;
use oma_domain::page::Order;
use oma_engine::Error;
use oma_vault::VaultFilter;
use serde_json::{Value, json};

use super::body::{Sent, bounded};
use super::page::{self, Cursor, Page};
use super::query::Query;
use crate::AppState;
use crate::auth::Caller;
use crate::fault::Result;
use crate::params::VaultPath;
use view::vault;

/// The routes of this module.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/vaults", post(create).get(list))
        .route("/v1/vaults/{vault_id}", get(retrieve).post(update).delete(delete))
        .route("/v1/vaults/{vault_id}/archive", post(archive))
        .merge(credentials::routes())
}

async fn create(State(state): State<AppState>, caller: Caller, sent: Sent) -> Result<Json<Value>> {
    let new = body::create(&sent.value)?;
    let created = state
        .engine
        .create_vault(caller.workspace(), new, sent.key)
        .await?;
    caller.note_target(&created.id);
    Ok(Json(vault(&created)))
}

async fn list(State(state): State<AppState>, caller: Caller, query: Query) -> Result<Json<Page>> {
    let order = Order::Descending;
    let limit = page::limit(&query, page::MOST)?;
    let filter = VaultFilter {
        user: None,
        only_active: !query.flag("include_archived")?,
    };
    let after = Cursor::row(&query, order, VaultId::parse)?;
    let (engine, workspace, filter) = (&state.engine, caller.workspace(), &filter);
    let fetch = |after: Option<VaultId>, limit| async move {
        let page = engine
            .vaults(workspace, filter, order, after.as_ref(), limit)
            .await;
        page.map_err(|error| match error {
            Error::Vault(oma_vault::Error::VaultNotFound) => page::invalid(),
            error => error.into(),
        })
    };
    page::list(order, limit, after, fetch, vault, |row| row.id.clone()).await
}

async fn retrieve(
    State(state): State<AppState>,
    caller: Caller,
    VaultPath(id): VaultPath,
) -> Result<Json<Value>> {
    Ok(Json(vault(&state.engine.vault(caller.workspace(), &id).await?)))
}

async fn update(
    State(state): State<AppState>,
    caller: Caller,
    VaultPath(id): VaultPath,
    sent: Sent,
) -> Result<Json<Value>> {
    let update = body::update(&sent.value)?;
    let (engine, workspace) = (&state.engine, caller.workspace());
    // What the change would lead to is looked at before it is made.
    let mut metadata = engine.vault(workspace, &id).await?.metadata;
    update.metadata.apply(&mut metadata);
    bounded(&metadata)?;
    let updated = engine
        .update_vault(workspace, &id, update.name.as_deref(), &update.metadata)
        .await?;
    Ok(Json(vault(&updated)))
}

async fn archive(
    State(state): State<AppState>,
    caller: Caller,
    VaultPath(id): VaultPath,
) -> Result<Json<Value>> {
    let archived = state.engine.archive_vault(caller.workspace(), &id).await?;
    Ok(Json(vault(&archived)))
}

async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    VaultPath(id): VaultPath,
) -> Result<Json<Value>> {
    state.engine.delete_vault(caller.workspace(), &id).await?;
    Ok(Json(json!({"id": id.as_str(), "type": "vault_deleted"})))
}
