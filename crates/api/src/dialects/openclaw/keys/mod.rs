//! API keys: create, list, read, rotate, revoke. For admins of the keys' workspace, and for the operator, who may
//! name another workspace than the default one.

pub mod body;
pub mod view;

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use oma_domain::quota::Monthly;
use oma_domain::{KeyId, Timestamp, WorkspaceId};
use oma_engine::{Error, IssuedKey, NewKey};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::agents::cursor_fault;
use super::budget::ChangeBudget;
use super::error::ErrorBody;
use crate::AppState;
use crate::auth::{Admin, Caller};
use crate::fault::Result;
use crate::limits;
use crate::listing::{Slice, collect};
use crate::params::{KeyPath, Params};
use crate::payload::Payload;
use body::{CreateKey, RotateKey};
use view::{IssuedKeyView, KeyList, KeyView};

/// The routes of this module.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, update, revoke))
        .routes(routes!(rotate))
}

/// Create an API key.
///
/// The answer is the only one that tells its secret. It works at once.
#[utoipa::path(
    post, path = "/v1/keys", tag = "keys", request_body = CreateKey,
    params((
        "Idempotency-Key" = Option<String>, Header,
        description = "Makes a repeated request take effect once; the repetition is refused, because the secret is told once",
    )),
    responses(
        (status = 200, body = IssuedKeyView), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
    ),
)]
async fn create(State(state): State<AppState>, Admin(caller): Admin, payload: Payload) -> Result<Response> {
    let body = payload.parse::<CreateKey>()?;
    let new = NewKey {
        workspace: caller.chosen_workspace(body.workspace_id)?,
        name: body.name,
        scope: body.scope,
        environment: body.environment_id,
        budget: Monthly {
            max_cost: body.max_cost_usd_per_month,
            max_tokens: body.max_tokens_per_month,
        },
        expires_at: body.expires_at,
    };
    if let Some(id) = &new.environment {
        let environment = state.engine.environment(&new.workspace, id).await?;
        if environment.spec.hosting.is_cloud() {
            return Err(Error::NotSelfHosted.into());
        }
        caller.note("environment_id", id.as_str());
    }
    caller.note("name", new.name.clone());
    caller.note("scope", new.scope.as_str());
    caller.note("workspace_id", new.workspace.as_str());
    let key = state.engine.create_key(new, payload.key).await?;
    caller.note_target(&key.key.id);
    Ok(issued(&key))
}

/// A secret stays in no cache.
fn issued(key: &IssuedKey) -> Response {
    let headers = [(header::CACHE_CONTROL, "no-store")];
    (headers, Json(IssuedKeyView::of(key))).into_response()
}

/// List API keys.
///
/// By creation, oldest first, those that no longer work included.
#[utoipa::path(
    get, path = "/v1/keys", tag = "keys",
    params(
        ("limit" = Option<u32>, Query, description = "1 to 1000; 1000 without it"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("workspace_id" = Option<String>, Query, description = "For the operator: another workspace than its own"),
    ),
    responses((status = 200, body = KeyList), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody)),
)]
async fn list(State(state): State<AppState>, Admin(caller): Admin, params: Params) -> Result<Json<KeyList>> {
    let workspace = chosen_workspace(&caller, &params)?;
    let slice = Slice::read(&params, limits::PAGE)?;
    let after = slice.after(|text| KeyId::parse(text).ok())?;
    let (engine, workspace) = (&state.engine, &workspace);
    let fetch = |after: Option<KeyId>, limit| async move {
        let page = engine.keys(workspace, after.as_ref(), limit).await;
        page.map_err(|error| cursor_fault(error, Error::ApiKeyNotFound))
    };
    let rows = collect(slice.limit, after, fetch, KeyView::of, |row| row.id.clone()).await?;
    Ok(Json(KeyList::of(rows)))
}

/// The workspace that a call is about.
fn chosen_workspace(caller: &Caller, params: &Params) -> Result<WorkspaceId> {
    caller.chosen_workspace(body::workspace(params.get("workspace_id"))?)
}

/// Read an API key.
#[utoipa::path(
    get, path = "/v1/keys/{key_id}", tag = "keys",
    params(
        ("key_id" = String, Path),
        ("workspace_id" = Option<String>, Query, description = "For the operator: another workspace than its own"),
    ),
    responses((status = 200, body = KeyView), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)),
)]
async fn get(
    State(state): State<AppState>,
    Admin(caller): Admin,
    KeyPath(id): KeyPath,
    params: Params,
) -> Result<Json<KeyView>> {
    let workspace = chosen_workspace(&caller, &params)?;
    Ok(Json(KeyView::of(&state.engine.key(&workspace, &id).await?)))
}

/// Change an API key's budgets.
///
/// They hold for the next model request: what was consumed in this month counts.
#[utoipa::path(
    patch, path = "/v1/keys/{key_id}", tag = "keys", request_body = ChangeBudget,
    params(
        ("key_id" = String, Path),
        ("workspace_id" = Option<String>, Query, description = "For the operator: another workspace than its own"),
    ),
    responses(
        (status = 200, body = KeyView), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody),
    ),
)]
async fn update(
    State(state): State<AppState>,
    Admin(caller): Admin,
    KeyPath(id): KeyPath,
    params: Params,
    payload: Payload,
) -> Result<Json<KeyView>> {
    let workspace = chosen_workspace(&caller, &params)?;
    let change = payload.parse::<ChangeBudget>()?;
    let key = state.engine.key(&workspace, &id).await?;
    let budget = change.apply(key.budget);
    caller.note_budget(&budget);
    let changed = state.engine.set_key_budget(&workspace, &id, budget).await?;
    Ok(Json(KeyView::of(&changed)))
}

/// Rotate an API key.
///
/// It gets a new secret, which only this answer tells. With `graceSeconds` the present one works on for that
/// long; without, it stops working at once.
#[utoipa::path(
    post, path = "/v1/keys/{key_id}/rotate", tag = "keys", request_body = RotateKey,
    params(
        ("key_id" = String, Path),
        ("workspace_id" = Option<String>, Query, description = "For the operator: another workspace than its own"),
        (
            "Idempotency-Key" = Option<String>, Header,
            description = "Makes a repeated request take effect once; the repetition is refused, because the secret is told once",
        ),
    ),
    responses(
        (status = 200, body = IssuedKeyView), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
    ),
)]
async fn rotate(
    State(state): State<AppState>,
    Admin(caller): Admin,
    KeyPath(id): KeyPath,
    params: Params,
    payload: Payload,
) -> Result<Response> {
    let workspace = chosen_workspace(&caller, &params)?;
    caller.note("workspace_id", workspace.as_str());
    let grace = Duration::from_secs(payload.parse::<RotateKey>()?.grace_seconds);
    let until = (!grace.is_zero()).then(|| {
        let millis = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
        Timestamp(oma_engine::now().as_millis().saturating_add(millis))
    });
    let rotated = state
        .engine
        .rotate_key(&workspace, &id, until, payload.key)
        .await?;
    Ok(issued(&rotated))
}

/// Revoke an API key.
///
/// It stops working at once and for good. It stays listed, with the time of its revocation.
#[utoipa::path(
    delete, path = "/v1/keys/{key_id}", tag = "keys",
    params(
        ("key_id" = String, Path),
        ("workspace_id" = Option<String>, Query, description = "For the operator: another workspace than its own"),
    ),
    responses((status = 200, body = KeyView), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)),
)]
async fn revoke(
    State(state): State<AppState>,
    Admin(caller): Admin,
    KeyPath(id): KeyPath,
    params: Params,
) -> Result<Json<KeyView>> {
    let workspace = chosen_workspace(&caller, &params)?;
    caller.note("workspace_id", workspace.as_str());
    Ok(Json(KeyView::of(
        &state.engine.revoke_key(&workspace, &id).await?,
    )))
}
