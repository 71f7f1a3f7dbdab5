//! Workspaces. The operator creates them; a key sees its own and no other.

use axum::Json;
use axum::extract::State;
use oma_domain::page::Page;
use oma_domain::{Workspace, WorkspaceId};
use oma_engine::Error;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::agents::cursor_fault;
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
        .routes(routes!(get))
}

/// A workspace to create.
#[derive(Debug, ToSchema)]
pub struct CreateWorkspace {
    /// Its name.
    #[schema(min_length = 1, max_length = 256)]
    name: String,
}

impl Body for CreateWorkspace {
    fn read(object: &mut Object<'_>) -> Option<Self> {
        let name = object.required("name", text(1, limits::NAME));
        Some(Self { name: name? })
    }
}

/// A workspace.
#[derive(Debug, Serialize, ToSchema)]
pub struct WorkspaceView {
    workspace_id: String,
    name: String,
    /// Milliseconds since the epoch; 0 for the default workspace.
    created_at: i64,
}

impl WorkspaceView {
    fn of(workspace: &Workspace) -> Self {
        Self {
            workspace_id: workspace.id.to_string(),
            name: workspace.name.clone(),
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
    let CreateWorkspace { name } = payload.parse::<CreateWorkspace>()?;
    let workspace = state.engine.create_workspace(name, payload.key).await?;
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
    let fetch = |after: Option<WorkspaceId>, limit| {
        let (engine, caller) = (state.engine.clone(), caller.clone());
        async move {
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
        }
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
