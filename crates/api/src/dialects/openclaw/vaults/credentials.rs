//! The credentials of a vault: add, list, read, change in place, delete.

use axum::Json;
use axum::extract::State;
use oma_domain::CredentialId;
use oma_domain::page::Order;
use oma_domain::vault::MAX_CREDENTIALS;
use oma_engine::Error;
use oma_vault::Admission;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::{AddCredential, UpdateCredential, UpdateCredentialBody};
use super::view::{CredentialDeleted, CredentialList, CredentialView};
use crate::AppState;
use crate::auth::Caller;
use crate::dialects::openclaw::error::ErrorBody;
use crate::fault::{Fault, Result};
use crate::limits;
use crate::listing::{Slice, collect, unknown_cursor};
use crate::params::{CredentialPath, Params, VaultPath};
use crate::payload::Payload;

/// Several credentials may be for the same place: of equal ones the newest counts.
const ADMISSION: Admission = Admission {
    most: MAX_CREDENTIALS,
    unique: false,
};

/// The routes of this module.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(add, list_credentials))
        .routes(routes!(get_credential, update_credential, delete_credential))
}

/// Add a credential.
///
/// Its token is presented to MCP servers whose URL is `matchUrl` or lies below its path: same scheme, host and port,
/// and the path continued at a slash. Of several that match, the one with the longest path counts. An
/// `environment_variable` is for programs in the sandbox: the variable holds a placeholder, and the secret is put in
/// its place in requests over TLS to the hosts of `networking`, on their way out. A credential's secrets can be
/// replaced, and are never shown.
#[utoipa::path(
    post, path = "/v1/vaults/{vault_id}/credentials", tag = "vaults", request_body = AddCredential,
    params(
        ("vault_id" = String, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request take effect once"),
    ),
    responses(
        (status = 200, body = CredentialView), (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
    ),
)]
async fn add(
    State(state): State<AppState>,
    caller: Caller,
    VaultPath(vault): VaultPath,
    payload: Payload,
) -> Result<Json<CredentialView>> {
    let new = payload.parse::<AddCredential>()?.into_new()?;
    let credential = state
        .engine
        .add_credential(caller.workspace(), &vault, new, ADMISSION, payload.key)
        .await?;
    caller.note_target(&credential.id);
    caller.note("vault_id", vault.as_str());
    Ok(Json(CredentialView::of(&credential)))
}

/// List the credentials of a vault.
///
/// By creation, oldest first, archived ones included.
#[utoipa::path(
    get, path = "/v1/vaults/{vault_id}/credentials", tag = "vaults",
    params(
        ("vault_id" = String, Path),
        ("limit" = Option<u32>, Query, description = "1 to 1000; 1000 without it"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses((status = 200, body = CredentialList), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)),
)]
async fn list_credentials(
    State(state): State<AppState>,
    caller: Caller,
    VaultPath(vault): VaultPath,
    params: Params,
) -> Result<Json<CredentialList>> {
    let slice = Slice::read(&params, limits::PAGE)?;
    let after = slice.after(|text| CredentialId::parse(text).ok())?;
    let (engine, workspace, vault) = (&state.engine, caller.workspace(), &vault);
    let fetch = |after: Option<CredentialId>, limit| async move {
        let page = engine
            .credentials(workspace, vault, false, Order::Ascending, after.as_ref(), limit)
            .await;
        page.map_err(cursor_fault)
    };
    let rows = collect(slice.limit, after, fetch, CredentialView::of, |credential| {
        credential.id.clone()
    })
    .await?;
    Ok(Json(CredentialList::of(vault, rows)))
}

fn cursor_fault(error: Error) -> Fault {
    match error {
        Error::Vault(oma_vault::Error::CredentialNotFound) => unknown_cursor(),
        error => error.into(),
    }
}

/// Read a credential.
#[utoipa::path(
    get, path = "/v1/vaults/{vault_id}/credentials/{credential_id}", tag = "vaults",
    params(("vault_id" = String, Path), ("credential_id" = String, Path)),
    responses((status = 200, body = CredentialView), (status = 404, body = ErrorBody)),
)]
async fn get_credential(
    State(state): State<AppState>,
    caller: Caller,
    CredentialPath { vault, credential }: CredentialPath,
) -> Result<Json<CredentialView>> {
    let found = state
        .engine
        .credential(caller.workspace(), &vault, &credential)
        .await?;
    Ok(Json(CredentialView::of(&found)))
}

/// Change a credential.
///
/// In place: sessions under way present the new token from their next request on. Where a secret goes (`matchUrl`,
/// `tokenEndpoint`, `clientId`) can't be changed, for otherwise whoever may change a credential could have its
/// secret sent to themselves; add another one instead. The hosts of an environment variable can.
#[utoipa::path(
    patch, path = "/v1/vaults/{vault_id}/credentials/{credential_id}", tag = "vaults",
    request_body = UpdateCredentialBody,
    params(("vault_id" = String, Path), ("credential_id" = String, Path)),
    responses(
        (status = 200, body = CredentialView), (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
    ),
)]
async fn update_credential(
    State(state): State<AppState>,
    caller: Caller,
    CredentialPath { vault, credential }: CredentialPath,
    payload: Payload,
) -> Result<Json<CredentialView>> {
    let UpdateCredential(change) = payload.parse::<UpdateCredential>()?;
    let changed = state
        .engine
        .update_credential(caller.workspace(), &vault, &credential, &change)
        .await?;
    Ok(Json(CredentialView::of(&changed)))
}

/// Delete a credential.
#[utoipa::path(
    delete, path = "/v1/vaults/{vault_id}/credentials/{credential_id}", tag = "vaults",
    params(("vault_id" = String, Path), ("credential_id" = String, Path)),
    responses((status = 200, body = CredentialDeleted), (status = 404, body = ErrorBody)),
)]
async fn delete_credential(
    State(state): State<AppState>,
    caller: Caller,
    CredentialPath { vault, credential }: CredentialPath,
) -> Result<Json<CredentialDeleted>> {
    state
        .engine
        .delete_credential(caller.workspace(), &vault, &credential)
        .await?;
    Ok(Json(CredentialDeleted {
        credential_id: credential.to_string(),
        deleted: true,
    }))
}
