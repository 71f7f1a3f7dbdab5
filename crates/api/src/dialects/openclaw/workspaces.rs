//! Workspaces. The operator creates them; a key sees its own and no other.

use axum::Json;
use axum::extract::State;
use oma_domain::page::Page;
use oma_domain::quota::Monthly;
use oma_domain::usage::NanoUsd;
use oma_domain::{Workspace, WorkspaceId};
use oma_engine::Error;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::agents::cursor_fault;
use super::budget::{self, ChangeBudget};
use super::error::ErrorBody;
use crate::AppState;
use crate::auth::{Caller, Operator};
use crate::fault::Result;
use crate::limits;
use crate::listing::{Rows, Slice, collect};
use crate::params::{Params, WorkspacePath};
use crate::payload::Payload;
use crate::validate::checks::text;
use crate::validate::{Body, Object};

/// The routes of this module.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, update))
}

/// A workspace to create.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct CreateWorkspace {
    /// Its name.
    #[schema(min_length = 1, max_length = 256)]
    name: String,
    /// The most that model requests in it may cost in a calendar month (UTC): US dollars, above 0.
    #[schema(value_type = Option<f64>, nullable = false)]
    max_cost_usd_per_month: Option<NanoUsd>,
    /// The most tokens in a calendar month (UTC), input and output together.
    #[schema(minimum = 1, nullable = false)]
    max_tokens_per_month: Option<u64>,
}

impl Body for CreateWorkspace {
    fn read(object: &mut Object<'_>) -> Option<Self> {
        let name = object.required("name", text(1, limits::NAME));
        let budget = budget::read(object);
        let Monthly { max_cost, max_tokens } = budget?;
        Some(Self {
            name: name?,
            max_cost_usd_per_month: max_cost,
            max_tokens_per_month: max_tokens,
        })
    }
}

/// A workspace.
#[derive(Debug, Serialize, ToSchema)]
pub struct WorkspaceView {
    workspace_id: String,
    name: String,
    /// US dollars; null for any amount.
    #[schema(required)]
    max_cost_usd_per_month: Option<f64>,
    /// Null for any number.
    #[schema(required)]
    max_tokens_per_month: Option<u64>,
    /// Milliseconds since the epoch; 0 for the default workspace.
    created_at: i64,
}

impl WorkspaceView {
    fn of(workspace: &Workspace) -> Self {
        Self {
            workspace_id: workspace.id.to_string(),
            name: workspace.name.clone(),
            max_cost_usd_per_month: workspace.budget.max_cost.map(NanoUsd::as_usd),
            max_tokens_per_month: workspace.budget.max_tokens,
            created_at: workspace.created_at.as_millis(),
        }
    }
}

/// A page of workspaces.
#[derive(Debug, Serialize, ToSchema)]
pub struct WorkspaceList {
    #[schema(value_type = Vec<WorkspaceView>)]
    workspaces: Vec<Box<RawValue>>,
    /// How many there are on this page.
    count: usize,
    /// Whether there are more after this page.
    has_more: bool,
    /// The cursor of the next page.
    #[schema(required)]
    next: Option<String>,
}

impl WorkspaceList {
    fn of(Rows { rows, next }: Rows) -> Self {
        Self {
            count: rows.len(),
            has_more: next.is_some(),
            next,
            workspaces: rows,
        }
    }
}

/// Create a workspace.
///
/// For the operator alone: it needs the server's own token.
#[utoipa::path(
    post, path = "/v1/workspaces", tag = "workspaces", request_body = CreateWorkspace,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request take effect once")),
    responses(
        (status = 200, body = WorkspaceView), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
    ),
)]
async fn create(
    State(state): State<AppState>,
    Operator(caller): Operator,
    payload: Payload,
) -> Result<Json<WorkspaceView>> {
    let body = payload.parse::<CreateWorkspace>()?;
    let budget = Monthly {
        max_cost: body.max_cost_usd_per_month,
        max_tokens: body.max_tokens_per_month,
    };
    let workspace = state
        .engine
        .create_workspace(body.name, budget, payload.key)
        .await?;
    caller.note_target(&workspace.id);
    Ok(Json(WorkspaceView::of(&workspace)))
}

/// List workspaces.
///
/// By creation, oldest first: all for the operator, its own for a key.
#[utoipa::path(
    get, path = "/v1/workspaces", tag = "workspaces",
    params(
        ("limit" = Option<u32>, Query, description = "1 to 1000; 1000 without it"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses((status = 200, body = WorkspaceList), (status = 400, body = ErrorBody)),
)]
async fn list(State(state): State<AppState>, caller: Caller, params: Params) -> Result<Json<WorkspaceList>> {
    let slice = Slice::read(&params, limits::PAGE)?;
    let after = slice.after(|text| WorkspaceId::parse(text).ok())?;
    let (engine, caller) = (&state.engine, &caller);
    let fetch = |after: Option<WorkspaceId>, limit| async move {
        if caller.actor().is_operator() {
            let page = engine.workspaces(after.as_ref(), limit).await;
            return page.map_err(|error| cursor_fault(error, Error::WorkspaceNotFound));
        }
        let rows = match after {
            None => vec![engine.find_workspace(caller.workspace()).await?],
            Some(after) if after == *caller.workspace() => Vec::new(),
            Some(_) => return Err(crate::listing::unknown_cursor()),
        };
        Ok(Page { rows, next: None })
    };
    let rows = collect(slice.limit, after, fetch, WorkspaceView::of, |row| row.id.clone()).await?;
    Ok(Json(WorkspaceList::of(rows)))
}

/// Read a workspace.
///
/// A key may read its own.
#[utoipa::path(
    get, path = "/v1/workspaces/{workspace_id}", tag = "workspaces",
    params(("workspace_id" = String, Path)),
    responses((status = 200, body = WorkspaceView), (status = 404, body = ErrorBody)),
)]
async fn get(
    State(state): State<AppState>,
    caller: Caller,
    WorkspacePath(id): WorkspacePath,
) -> Result<Json<WorkspaceView>> {
    let id = caller.chosen_workspace(Some(id))?;
    Ok(Json(WorkspaceView::of(&state.engine.find_workspace(&id).await?)))
}

/// Change a workspace's budgets.
///
/// For the operator alone. They hold for the next model request: what was consumed in this month counts.
#[utoipa::path(
    patch, path = "/v1/workspaces/{workspace_id}", tag = "workspaces", request_body = ChangeBudget,
    params(("workspace_id" = String, Path)),
    responses(
        (status = 200, body = WorkspaceView), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody),
    ),
)]
async fn update(
    State(state): State<AppState>,
    Operator(caller): Operator,
    WorkspacePath(id): WorkspacePath,
    payload: Payload,
) -> Result<Json<WorkspaceView>> {
    let change = payload.parse::<ChangeBudget>()?;
    let workspace = state.engine.find_workspace(&id).await?;
    let budget = change.apply(workspace.budget);
    caller.note_budget(&budget);
    let changed = state.engine.set_workspace_budget(&id, budget).await?;
    Ok(Json(WorkspaceView::of(&changed)))
}
