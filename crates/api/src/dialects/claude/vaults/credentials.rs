//! Credentials of a vault: create, list, read, update, archive, validate, delete.

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use oma_domain::CredentialId;
use oma_domain::page::Order;
use oma_engine::Error;
use oma_vault::Admission;
use serde_json::{Value, json};

use super::view::{credential, validation};
use super::{auth, body};
use crate::AppState;
use crate::auth::Caller;
use crate::dialects::claude::body::{Sent, bad, bounded};
use crate::dialects::claude::page::{self, Cursor, Page};
use crate::dialects::claude::query::Query;
use crate::fault::{Fault, Result};
use crate::params::{CredentialPath, VaultPath};

/// The most credentials of a vault that this dialect adds.
const MOST: u32 = 20;

/// The routes of this module.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/vaults/{vault_id}/credentials", post(create).get(list))
        .route(
            "/v1/vaults/{vault_id}/credentials/{credential_id}",
            get(retrieve).post(update).delete(delete),
        )
        .route(
            "/v1/vaults/{vault_id}/credentials/{credential_id}/archive",
            post(archive),
        )
        .route(
            "/v1/vaults/{vault_id}/credentials/{credential_id}/mcp_oauth_validate",
            post(validate),
        )
}

async fn create(
    State(state): State<AppState>,
    caller: Caller,
    VaultPath(vault): VaultPath,
    sent: Sent,
) -> Result<Json<Value>> {
    let new = body::create_credential(&sent.value)?;
    let admission = Admission {
        most: MOST,
        unique: true,
    };
    let created = state
        .engine
        .add_credential(caller.workspace(), &vault, new, admission, sent.key)
        .await
        .map_err(named)?;
    caller.note_target(&created.id);
    caller.note("vault_id", vault.as_str());
    Ok(Json(credential(&created)))
}

/// A problem with what goes into a credential, by this dialect's name of the field.
fn named(error: Error) -> Fault {
    let Error::Vault(oma_vault::Error::Invalid { field, message }) = &error else {
        return error.into();
    };
    let name = match *field {
        "matchUrl" => "auth.mcp_server_url",
        "token" => "auth.token",
        "accessToken" => "auth.access_token",
        "expiresAt" => "auth.expires_at",
        "tokenEndpoint" => "auth.refresh.token_endpoint",
        "refreshToken" => "auth.refresh.refresh_token",
        "clientSecret" => "auth.refresh.token_endpoint_auth.client_secret",
        "scopes" => "auth.refresh.scope",
        "secretName" => "auth.secret_name",
        "secretValue" => "auth.secret_value",
        "networking" => "auth.networking.allowed_hosts",
        "injectionLocation" => "auth.injection_location",
        "type" => "auth.type",
        other => other,
    };
    bad(format!("{name}: {message}"))
}

async fn list(
    State(state): State<AppState>,
    caller: Caller,
    VaultPath(vault): VaultPath,
    query: Query,
) -> Result<Json<Page>> {
    let order = Order::Descending;
    let limit = page::limit(&query, page::MOST)?;
    let only_active = !query.flag("include_archived")?;
    let after = Cursor::row(&query, order, CredentialId::parse)?;
    let (engine, workspace, vault) = (&state.engine, caller.workspace(), &vault);
    let fetch = |after: Option<CredentialId>, limit| async move {
        let page = engine
            .credentials(workspace, vault, only_active, order, after.as_ref(), limit)
            .await;
        page.map_err(|error| match error {
            Error::Vault(oma_vault::Error::CredentialNotFound) => page::invalid(),
            error => error.into(),
        })
    };
    page::list(order, limit, after, fetch, credential, |row| row.id.clone()).await
}

async fn retrieve(
    State(state): State<AppState>,
    caller: Caller,
    CredentialPath {
        vault,
        credential: id,
    }: CredentialPath,
) -> Result<Json<Value>> {
    let found = state.engine.credential(caller.workspace(), &vault, &id).await?;
    Ok(Json(credential(&found)))
}

async fn update(
    State(state): State<AppState>,
    caller: Caller,
    CredentialPath {
        vault,
        credential: id,
    }: CredentialPath,
    sent: Sent,
) -> Result<Json<Value>> {
    let (engine, workspace) = (&state.engine, caller.workspace());
    // What may be changed depends on what it is, and that never changes.
    let current = engine.credential(workspace, &vault, &id).await?;
    let change = auth::update(&sent.value, &current.spec.kind)?;
    let mut metadata = current.metadata;
    change.metadata.apply(&mut metadata);
    bounded(&metadata)?;
    let updated = engine
        .update_credential(workspace, &vault, &id, &change)
        .await
        .map_err(named)?;
    Ok(Json(credential(&updated)))
}

async fn archive(
    State(state): State<AppState>,
    caller: Caller,
    CredentialPath {
        vault,
        credential: id,
    }: CredentialPath,
) -> Result<Json<Value>> {
    let archived = state
        .engine
        .archive_credential(caller.workspace(), &vault, &id)
        .await?;
    Ok(Json(credential(&archived)))
}

async fn validate(
    State(state): State<AppState>,
    caller: Caller,
    CredentialPath {
        vault,
        credential: id,
    }: CredentialPath,
) -> Result<Json<Value>> {
    let found = state
        .engine
        .validate_credential(caller.workspace(), &vault, &id)
        .await
        .map_err(named)?;
    Ok(Json(validation(&vault, &id, &found)))
}

async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    CredentialPath {
        vault,
        credential: id,
    }: CredentialPath,
) -> Result<Json<Value>> {
    state
        .engine
        .delete_credential(caller.workspace(), &vault, &id)
        .await?;
    Ok(Json(
        json!({"id": id.as_str(), "type": "vault_credential_deleted"}),
    ))
}
