//! Runs of deployments: make one, list, read.

use axum::Json;
use axum::extract::State;
use oma_domain::page::Order;
use oma_domain::{DeploymentId, RunId};
use oma_engine::{Error, RunFilter};
use serde_json::Value;

use super::view::run;
use crate::AppState;
use crate::auth::Caller;
use crate::dialects::claude::body::{Sent, bad, parse};
use crate::dialects::claude::page::{self, Cursor, Page};
use crate::dialects::claude::query::Query;
use crate::fault::Result;
use crate::limits;
use crate::params::{DeploymentPath, RunPath};

pub(super) async fn create(
    State(state): State<AppState>,
    caller: Caller,
    DeploymentPath(id): DeploymentPath,
    sent: Sent,
) -> Result<Json<Value>> {
    parse(&sent.value, &[], |_| Some(()))?;
    let made = state
        .engine
        .run_deployment(caller.workspace(), &id, caller.key(), sent.key)
        .await?;
    caller.note("run_id", made.id.as_str());
    Ok(Json(run(&made)))
}

pub(super) async fn retrieve(
    State(state): State<AppState>,
    caller: Caller,
    RunPath(id): RunPath,
) -> Result<Json<Value>> {
    let found = state.engine.deployment_run(caller.workspace(), &id).await?;
    Ok(Json(run(&found)))
}

pub(super) async fn list(State(state): State<AppState>, caller: Caller, query: Query) -> Result<Json<Page>> {
    let order = Order::Descending;
    let limit = page::limit(&query, limits::PAGE)?;
    let deployment = match query.get("deployment_id").map(DeploymentId::parse) {
        None => None,
        Some(Ok(id)) => Some(id),
        // What can't be an id is nobody's.
        Some(Err(_)) => {
            return Ok(Json(Page::default()));
        }
    };
    let failed = match query.get("has_error") {
        None => None,
        Some(_) => Some(query.flag("has_error")?),
    };
    let scheduled = match query.get("trigger_type") {
        None => None,
        Some("schedule") => Some(true),
        Some("manual") => Some(false),
        Some(_) => return Err(bad("trigger_type: must be schedule or manual")),
    };
    let filter = RunFilter {
        deployment,
        failed,
        scheduled,
        created: query.created()?,
    };
    let after = Cursor::row(&query, order, RunId::parse)?;
    let (engine, workspace, filter) = (&state.engine, caller.workspace(), &filter);
    let fetch = |after: Option<RunId>, limit| async move {
        let page = engine
            .deployment_runs(workspace, filter, order, after.as_ref(), limit)
            .await;
        page.map_err(|error| match error {
            Error::RunNotFound => page::invalid(),
            error => error.into(),
        })
    };
    page::list(order, limit, after, fetch, run, |row| row.id.clone()).await
}
