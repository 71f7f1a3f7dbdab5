//! Environments: create, list, read, delete. They can't be changed.

pub mod body;
pub mod view;

use axum::Json;
use axum::extract::State;
use oma_domain::EnvironmentId;
use oma_domain::page::Order;
use oma_engine::{Error, ListFilter};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Deleted;
use super::agents::cursor_fault;
use super::error::ErrorBody;
use crate::AppState;
use crate::auth::Caller;
use crate::fault::Result;
use crate::limits;
use crate::listing::{Slice, collect};
use crate::params::{EnvironmentPath, Params};
use crate::payload::Payload;
use body::CreateEnvironment;
use view::{BuildView, EnvironmentList, EnvironmentView};

/// The routes of this module.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, delete))
        .routes(routes!(build))
}

/// Create an environment.
///
/// What its packages and its setup script leave is built at once, in the background, and shared by all its sessions.
/// What this server can't carry out is refused with the code `unsupported`.
#[utoipa::path(
    post, path = "/v1/environments", tag = "environments", request_body = CreateEnvironment,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request take effect once")),
    responses((status = 200, body = EnvironmentView), (status = 400, body = ErrorBody)),
)]
async fn create(
    State(state): State<AppState>,
    caller: Caller,
    payload: Payload,
) -> Result<Json<EnvironmentView>> {
    let spec = payload.parse::<CreateEnvironment>()?.into_spec();
    let environment = state
        .engine
        .create_environment(caller.workspace(), spec, false, payload.key)
        .await?;
    caller.note_target(&environment.id);
    Ok(Json(EnvironmentView::of(&environment)))
}

/// List environments.
///
/// By creation, oldest first.
#[utoipa::path(
    get, path = "/v1/environments", tag = "environments",
    params(
        ("limit" = Option<u32>, Query, description = "1 to 1000; 1000 without it"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses((status = 200, body = EnvironmentList), (status = 400, body = ErrorBody)),
)]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    params: Params,
) -> Result<Json<EnvironmentList>> {
    let slice = Slice::read(&params, limits::PAGE)?;
    let after = slice.after(|text| EnvironmentId::parse(text).ok())?;
    let (engine, workspace) = (&state.engine, caller.workspace());
    let fetch = |after: Option<EnvironmentId>, limit| async move {
        let page = engine
            .environments(
                workspace,
                &ListFilter::default(),
                Order::Ascending,
                after.as_ref(),
                limit,
            )
            .await;
        page.map_err(|error| cursor_fault(error, Error::EnvironmentNotFound))
    };
    let rows = collect(slice.limit, after, fetch, EnvironmentView::of, |row| {
        row.id.clone()
    })
    .await?;
    Ok(Json(EnvironmentList::of(rows)))
}

/// Read an environment.
#[utoipa::path(
    get, path = "/v1/environments/{environment_id}", tag = "environments",
    params(("environment_id" = String, Path)),
    responses((status = 200, body = EnvironmentView), (status = 404, body = ErrorBody)),
)]
async fn get(
    State(state): State<AppState>,
    caller: Caller,
    EnvironmentPath(id): EnvironmentPath,
) -> Result<Json<EnvironmentView>> {
    Ok(Json(EnvironmentView::of(
        &state.engine.environment(caller.workspace(), &id).await?,
    )))
}

/// Read how far an environment is built.
///
/// Begins the build where this server knows of none.
#[utoipa::path(
    get, path = "/v1/environments/{environment_id}/build", tag = "environments",
    params(("environment_id" = String, Path)),
    responses((status = 200, body = BuildView), (status = 404, body = ErrorBody)),
)]
async fn build(
    State(state): State<AppState>,
    caller: Caller,
    EnvironmentPath(id): EnvironmentPath,
) -> Result<Json<BuildView>> {
    Ok(Json(BuildView::of(
        state.engine.environment_build(caller.workspace(), &id).await?,
    )))
}

/// Delete an environment.
///
/// Refused while sessions refer to it.
#[utoipa::path(
    delete, path = "/v1/environments/{environment_id}", tag = "environments",
    params(("environment_id" = String, Path)),
    responses((status = 200, body = Deleted), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)),
)]
async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    EnvironmentPath(id): EnvironmentPath,
) -> Result<Json<Deleted>> {
    state.engine.delete_environment(caller.workspace(), &id).await?;
    Ok(Json(Deleted { deleted: true }))
}
