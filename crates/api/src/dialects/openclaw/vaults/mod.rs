//! Vaults: create, list, read, rename, delete. Their credentials have a module of their own.
//!
//! Invariant: no answer has a secret in it. What a client gave can be replaced and removed, never read.

pub mod body;
pub mod credentials;
pub mod view;

use axum::Json;
use axum::extract::State;
use oma_domain::VaultId;
use oma_domain::page::Order;
use oma_engine::Error;
use oma_vault::{MetadataChange, VaultFilter};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ErrorBody;
use crate::AppState;
use crate::auth::Caller;
use crate::fault::{Fault, Result};
use crate::limits;
use crate::listing::{Slice, collect, unknown_cursor};
use crate::params::{Params, VaultPath};
use crate::payload::Payload;
use body::{CreateVault, UpdateVault};
use view::{VaultDeleted, VaultList, VaultView};

/// The routes of this module.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, update, delete))
        .merge(credentials::routes())
}

/// Create a vault.
///
/// A vault holds the credentials with which the MCP servers of a session are called. Sessions name it when they are
/// created.
#[utoipa::path(
    post, path = "/v1/vaults", tag = "vaults", request_body = CreateVault,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request take effect once")),
    responses((status = 200, body = VaultView), (status = 400, body = ErrorBody)),
)]
async fn create(State(state): State<AppState>, caller: Caller, payload: Payload) -> Result<Json<VaultView>> {
    let new = payload.parse::<CreateVault>()?.into_new();
    let vault = state
        .engine
        .create_vault(caller.workspace(), new, payload.key)
        .await?;
    caller.note_target(&vault.id);
    Ok(Json(VaultView::of(&vault)))
}

/// List vaults.
///
/// By creation, newest first unless `order` says otherwise, archived ones included.
#[utoipa::path(
    get, path = "/v1/vaults", tag = "vaults",
    params(
        ("user_id" = Option<String>, Query, description = "Only this user's vaults; `userId` means the same"),
        ("limit" = Option<u32>, Query, description = "1 to 1000; 1000 without it"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("order" = Option<String>, Query, description = "`desc` (the default) or `asc`"),
    ),
    responses((status = 200, body = VaultList), (status = 400, body = ErrorBody)),
)]
async fn list(State(state): State<AppState>, caller: Caller, params: Params) -> Result<Json<VaultList>> {
    let slice = Slice::ordered(&params, limits::PAGE, Order::Descending)?;
    let after = slice.after(|text| VaultId::parse(text).ok())?;
    let order = slice.order;
    let user = params.get("user_id").or_else(|| params.get("userId"));
    let filter = VaultFilter {
        user: user.map(str::to_owned),
        only_active: false,
    };
    let (engine, workspace, filter) = (&state.engine, caller.workspace(), &filter);
    let fetch = |after: Option<VaultId>, limit| async move {
        let page = engine
            .vaults(workspace, filter, order, after.as_ref(), limit)
            .await;
        page.map_err(cursor_fault)
    };
    let rows = collect(slice.limit, after, fetch, VaultView::of, |vault| vault.id.clone()).await?;
    Ok(Json(VaultList::of(rows)))
}

/// A list of vaults finds its cursor missing, which is the request's fault and no missing resource.
fn cursor_fault(error: Error) -> Fault {
    match error {
        Error::Vault(oma_vault::Error::VaultNotFound) => unknown_cursor(),
        error => error.into(),
    }
}

/// Read a vault.
#[utoipa::path(
    get, path = "/v1/vaults/{vault_id}", tag = "vaults",
    params(("vault_id" = String, Path)),
    responses((status = 200, body = VaultView), (status = 404, body = ErrorBody)),
)]
async fn get(
    State(state): State<AppState>,
    caller: Caller,
    VaultPath(id): VaultPath,
) -> Result<Json<VaultView>> {
    Ok(Json(VaultView::of(
        &state.engine.vault(caller.workspace(), &id).await?,
    )))
}

/// Rename a vault.
#[utoipa::path(
    patch, path = "/v1/vaults/{vault_id}", tag = "vaults", request_body = UpdateVault,
    params(("vault_id" = String, Path)),
    responses(
        (status = 200, body = VaultView), (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
    ),
)]
async fn update(
    State(state): State<AppState>,
    caller: Caller,
    VaultPath(id): VaultPath,
    payload: Payload,
) -> Result<Json<VaultView>> {
    let UpdateVault { name } = payload.parse::<UpdateVault>()?;
    let (engine, workspace) = (&state.engine, caller.workspace());
    let vault = match name {
        Some(name) => {
            let unchanged = MetadataChange::Keep;
            engine
                .update_vault(workspace, &id, Some(&name), &unchanged)
                .await?
        }
        None => engine.vault(workspace, &id).await?,
    };
    Ok(Json(VaultView::of(&vault)))
}

/// Delete a vault.
///
/// Its credentials go with it. Sessions that name it go on without them.
#[utoipa::path(
    delete, path = "/v1/vaults/{vault_id}", tag = "vaults",
    params(("vault_id" = String, Path)),
    responses((status = 200, body = VaultDeleted), (status = 404, body = ErrorBody)),
)]
async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    VaultPath(id): VaultPath,
) -> Result<Json<VaultDeleted>> {
    state.engine.delete_vault(caller.workspace(), &id).await?;
    Ok(Json(VaultDeleted {
        vault_id: id.to_string(),
        deleted: true,
    }))
}
