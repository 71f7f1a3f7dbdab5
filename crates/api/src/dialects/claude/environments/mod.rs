//! Environments: create, list, read, update, archive, delete.

mod body;
mod view;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use oma_domain::EnvironmentId;
use oma_domain::page::Order;
use oma_engine::{Error, ListFilter};
use serde_json::{Value, json};

use super::body::Sent;
use super::page::{self, Cursor, Page};
use super::query::Query;
use crate::AppState;
use crate::auth::Caller;
use crate::fault::{Fault, Result};
use crate::params::EnvironmentPath;
use view::environment;

/// The routes of this module.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/environments", post(create).get(list))
        .route(
            "/v1/environments/{environment_id}",
            get(retrieve).post(update).delete(delete),
        )
        .route("/v1/environments/{environment_id}/archive", post(archive))
}

async fn create(State(state): State<AppState>, caller: Caller, sent: Sent) -> Result<Json<Value>> {
    let spec = body::create(&sent.value)?;
    let created = state
        .engine
        .create_environment(caller.workspace(), spec, true, sent.key)
        .await?;
    caller.note_target(&created.id);
    Ok(Json(environment(&created)))
}

async fn list(State(state): State<AppState>, caller: Caller, query: Query) -> Result<Json<Page>> {
    let order = Order::Descending;
    let limit = page::limit(&query, page::MOST)?;
    let filter = ListFilter {
        only_active: !query.flag("include_archived")?,
        ..ListFilter::default()
    };
    let after = Cursor::row(&query, order, EnvironmentId::parse)?;
    let (engine, workspace, filter) = (&state.engine, caller.workspace(), &filter);
    let fetch = |after: Option<EnvironmentId>, limit| async move {
        let page = engine
            .environments(workspace, filter, order, after.as_ref(), limit)
            .await;
        page.map_err(|error| match error {
            Error::EnvironmentNotFound => page::invalid(),
            error => error.into(),
        })
    };
    page::list(order, limit, after, fetch, environment, |row| row.id.clone()).await
}

async fn retrieve(
    State(state): State<AppState>,
    caller: Caller,
    EnvironmentPath(id): EnvironmentPath,
) -> Result<Json<Value>> {
    let found = state.engine.environment(caller.workspace(), &id).await?;
    Ok(Json(environment(&found)))
}

async fn update(
    State(state): State<AppState>,
    caller: Caller,
    EnvironmentPath(id): EnvironmentPath,
    sent: Sent,
) -> Result<Json<Value>> {
    let update = body::update(&sent.value)?;
    let (engine, workspace) = (&state.engine, caller.workspace());
    // What the change would lead to is looked at before it is made.
    let current = engine.environment(workspace, &id).await?;
    if !update.keeps(current.spec.hosting) {
        let message = "config.type: what an environment is can't be changed";
        return Err(Fault::new(
            StatusCode::BAD_REQUEST,
            "invalid_config_type_change",
            message,
        ));
    }
    let next = update.clone().apply(current.spec);
    super::body::bounded(&next.metadata)?;
    let updated = engine
        .update_environment(workspace, &id, |spec| update.clone().apply(spec))
        .await?;
    Ok(Json(environment(&updated)))
}

async fn archive(
    State(state): State<AppState>,
    caller: Caller,
    EnvironmentPath(id): EnvironmentPath,
) -> Result<Json<Value>> {
    let archived = state.engine.archive_environment(caller.workspace(), &id).await?;
    Ok(Json(environment(&archived)))
}

async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    EnvironmentPath(id): EnvironmentPath,
) -> Result<Json<Value>> {
    state.engine.delete_environment(caller.workspace(), &id).await?;
    Ok(Json(json!({"id": id.as_str(), "type": "environment_deleted"})))
}
