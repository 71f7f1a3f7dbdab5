//! The audit trail of a workspace, for its admins.

use axum::Json;
use axum::extract::State;
use oma_domain::audit::Entry;
use oma_domain::{AuditId, Timestamp, WorkspaceId};
use oma_engine::Error;
use oma_engine::audit::AuditFilter;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::agents::cursor_fault;
use super::error::ErrorBody;
use crate::AppState;
use crate::auth::Admin;
use crate::fault::{Fault, Result};
use crate::listing::{Rows, Slice, collect};
use crate::params::Params;

/// How many entries a client gets that asks for no number.
const UNPAGED: u32 = 100;

/// The routes of this module.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
}

/// A call that changed something, or tried to.
#[derive(Debug, Serialize, ToSchema)]
pub struct EntryView {
    id: String,
    /// Milliseconds since the epoch.
    ts: i64,
    #[schema(required)]
    request_id: Option<String>,
    /// `operator`, `key:` and a key's id, `local` on a server that asks for no key, or `ip:` and an address.
    #[schema(example = "key:key_01j0000000000000000000000a")]
    actor: String,
    #[schema(example = "agent.create")]
    action: String,
    /// The id of what it was done to.
    #[schema(required)]
    target: Option<String>,
    /// `ok`, the code of the error, `client_gone` when the client left before it was answered, or
    /// `cut_off` when the server ended before that.
    outcome: String,
    #[schema(required, value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
}

impl EntryView {
    fn of(entry: &Entry) -> Self {
        Self {
            id: entry.id.to_string(),
            ts: entry.at.as_millis(),
            request_id: entry.request_id.clone(),
            actor: entry.actor.clone(),
            action: entry.action.clone(),
            target: entry.target.clone(),
            outcome: entry.outcome.clone(),
            metadata: entry.metadata.clone(),
        }
    }
}

/// A page of the audit trail.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditList {
    #[schema(value_type = Vec<EntryView>)]
    events: Vec<Box<RawValue>>,
    /// How many there are on this page.
    count: usize,
    /// Whether there are more after this page.
    has_more: bool,
    /// The cursor of the next page.
    #[schema(required)]
    next: Option<String>,
}

impl AuditList {
    fn of(Rows { rows, next }: Rows) -> Self {
        Self {
            count: rows.len(),
            has_more: next.is_some(),
            next,
            events: rows,
        }
    }
}

/// List the audit trail.
///
/// Newest first. Needs a key of scope `admin`.
#[utoipa::path(
    get, path = "/v1/audit", tag = "audit",
    params(
        ("since" = Option<i64>, Query, description = "Not before, in milliseconds since the epoch"),
        ("until" = Option<i64>, Query, description = "Not after"),
        ("action" = Option<String>, Query, description = "Only this action; `%` in it stands for any text"),
        ("target" = Option<String>, Query, description = "Only what was done to this id"),
        ("limit" = Option<u32>, Query, description = "1 to 1000; 100 without it"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("workspace_id" = Option<String>, Query, description = "For the operator: another workspace than its own"),
    ),
    responses((status = 200, body = AuditList), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody)),
)]
async fn list(
    State(state): State<AppState>,
    Admin(caller): Admin,
    params: Params,
) -> Result<Json<AuditList>> {
    let named = params.get("workspace_id").map(WorkspaceId::parse).transpose();
    let workspace = caller.chosen_workspace(named.map_err(|_| Fault::from(Error::WorkspaceNotFound))?)?;
    let slice = Slice::read(&params, UNPAGED)?;
    let after = slice.after(|text| AuditId::parse(text).ok())?;
    let filter = AuditFilter {
        since: time(&params, "since")?,
        until: time(&params, "until")?,
        action: params.get("action").map(str::to_owned),
        target: params.get("target").map(str::to_owned),
    };
    let (engine, workspace, filter) = (&state.engine, &workspace, &filter);
    let fetch = |after: Option<AuditId>, limit| async move {
        let page = engine.audit(workspace, filter, after.as_ref(), limit).await;
        page.map_err(|error| cursor_fault(error, Error::AuditNotFound))
    };
    let rows = collect(slice.limit, after, fetch, EntryView::of, |row| row.id.clone()).await?;
    Ok(Json(AuditList::of(rows)))
}

fn time(params: &Params, name: &str) -> Result<Option<Timestamp>> {
    let parse = |text: &str| {
        let millis = text.parse().map(Timestamp);
        millis.map_err(|_| Fault::invalid_field(&[name], "Expected an integer"))
    };
    params.get(name).map(parse).transpose()
}
