//! The work queue of self-hosted environments, as the SDKs' workers use it: poll, acknowledge, heartbeat, stop.
//!
//! Invariant: the secret of an item is told to the worker that it is handed out to, and to nobody else.

mod view;

use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{Extension, FromRequestParts, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::routing::{get, post};
use oma_domain::page::Order;
use oma_domain::work::Expected;
use oma_domain::{EnvironmentId, Scope, Timestamp, WorkId};
use oma_engine::Error;
use serde_json::{Value, json};

use super::body::{Sent, bad, bounded, merged, metadata_changes, nullable, parse};
use super::page::{self, Cursor, Page};
use super::query::Query;
use crate::AppState;
use crate::audit::Notes;
use crate::auth::Caller;
use crate::fault::{Fault, Result};
use crate::limits;
use crate::params::{EnvironmentPath, segment};
use crate::validate::checks::boolean;
use view::{beat, work};

/// The longest that a poll may wait, in milliseconds.
const BLOCK_MS: u32 = 999;
/// The longest time after which an item that was not acknowledged may be asked for, in milliseconds: a day.
const RECLAIM_MS: u32 = 86_400_000;
/// The longest lease, in seconds.
const LEASE_S: u32 = 3_600;
/// The header in which a worker names itself.
const WORKER: &str = "anthropic-worker-id";
/// What a worker says before its first heartbeat.
const NO_HEARTBEAT: &str = "NO_HEARTBEAT";

/// The routes of this module.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/environments/{environment_id}/work", get(list))
        .route("/v1/environments/{environment_id}/work/poll", get(poll))
        .route("/v1/environments/{environment_id}/work/stats", get(stats))
        .route(
            "/v1/environments/{environment_id}/work/{work_id}",
            get(retrieve).post(update),
        )
        .route("/v1/environments/{environment_id}/work/{work_id}/ack", post(ack))
        .route(
            "/v1/environments/{environment_id}/work/{work_id}/heartbeat",
            post(heartbeat),
        )
        .route(
            "/v1/environments/{environment_id}/work/{work_id}/stop",
            post(stop),
        )
}

/// The item that the path names.
struct WorkPath {
    environment: EnvironmentId,
    id: WorkId,
}

impl<S: Send + Sync> FromRequestParts<S> for WorkPath {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let EnvironmentPath(environment) = EnvironmentPath::from_request_parts(parts, state).await?;
        let text = segment(parts, "work_id", state).await?;
        let id = WorkId::parse(&text).map_err(|_| Fault::from(Error::WorkNotFound))?;
        Ok(Self { environment, id })
    }
}

async fn poll(
    State(state): State<AppState>,
    caller: Caller,
    EnvironmentPath(environment): EnvironmentPath,
    query: Query,
    Extension(notes): Extension<Notes>,
    headers: HeaderMap,
) -> Result<Json<Value>> {
    // It takes work, and gets a token to carry it out with, although it is a GET.
    caller.require(Scope::Write)?;
    let block = query.number("block_ms", 1, BLOCK_MS)?;
    let reclaim = query
        .number("reclaim_older_than_ms", 0, RECLAIM_MS)?
        .map(u64::from);
    let worker = headers.get(WORKER).and_then(|name| name.to_str().ok());
    let worker = worker.filter(|name| !name.is_empty() && name.len() <= limits::NAME);
    let wait = block.map(|millis| Duration::from_millis(millis.into()));
    let found = state
        .engine
        .poll_work(
            caller.workspace(),
            &environment,
            worker,
            reclaim,
            wait,
            notes.success(),
        )
        .await?;
    Ok(Json(match found {
        Some(handed_out) => work(&handed_out.work, Some(&handed_out.token)),
        None => Value::Null,
    }))
}

async fn list(
    State(state): State<AppState>,
    caller: Caller,
    EnvironmentPath(environment): EnvironmentPath,
    query: Query,
) -> Result<Json<Page>> {
    let order = Order::Descending;
    let limit = page::limit(&query, page::MOST)?;
    let after = Cursor::row(&query, order, WorkId::parse)?;
    let (engine, workspace, environment) = (&state.engine, caller.workspace(), &environment);
    let fetch = |after: Option<WorkId>, limit| async move {
        let page = engine.works(workspace, environment, after.as_ref(), limit);
        page.await.map_err(|error| match error {
            Error::WorkNotFound => page::invalid(),
            error => error.into(),
        })
    };
    page::list(
        order,
        limit,
        after,
        fetch,
        |item| work(item, None),
        |row| row.id.clone(),
    )
    .await
}

async fn stats(
    State(state): State<AppState>,
    caller: Caller,
    EnvironmentPath(environment): EnvironmentPath,
) -> Result<Json<Value>> {
    let queue = state.engine.work_queue(caller.workspace(), &environment).await?;
    Ok(Json(view::stats(&queue)))
}

async fn retrieve(State(state): State<AppState>, caller: Caller, path: WorkPath) -> Result<Json<Value>> {
    let found = state
        .engine
        .work(caller.workspace(), &path.environment, &path.id)
        .await?;
    Ok(Json(work(&found, None)))
}

async fn update(
    State(state): State<AppState>,
    caller: Caller,
    path: WorkPath,
    sent: Sent,
) -> Result<Json<Value>> {
    let changes = parse(&sent.value, &["metadata"], |object| {
        object.required("metadata", metadata_changes)
    })?;
    let change = |mut item: oma_domain::work::Work| -> Result<_> {
        item.metadata = merged(item.metadata, changes.clone());
        bounded(&item.metadata)?;
        Ok(item)
    };
    let updated = state
        .engine
        .update_work(caller.workspace(), &path.environment, &path.id, change)
        .await?;
    Ok(Json(work(&updated, None)))
}

async fn ack(State(state): State<AppState>, caller: Caller, path: WorkPath) -> Result<Json<Value>> {
    let known = state
        .engine
        .acknowledge_work(caller.workspace(), &path.environment, &path.id)
        .await?;
    Ok(Json(work(&known, None)))
}

async fn heartbeat(
    State(state): State<AppState>,
    caller: Caller,
    path: WorkPath,
    query: Query,
) -> Result<Json<Value>> {
    let expected = expected(query.get("expected_last_heartbeat"))?;
    let lease = query.number("desired_ttl_seconds", 1, LEASE_S)?;
    let lease = lease.map(|seconds| u64::from(seconds) * 1_000);
    let beaten = state
        .engine
        .heartbeat_work(caller.workspace(), &path.environment, &path.id, expected, lease)
        .await;
    match beaten {
        Ok(item) => Ok(Json(beat(&item))),
        Err(Error::LeaseLost(item)) => {
            let state = view::lease(&item);
            Err(Fault::from(Error::LeaseLost(item)).with_details(state))
        }
        Err(error) => Err(error.into()),
    }
}

/// The heartbeat that a worker says was the last.
fn expected(text: Option<&str>) -> Result<Expected> {
    match text {
        None => Ok(Expected::Anything),
        Some(NO_HEARTBEAT) => Ok(Expected::None),
        Some(text) => {
            let at: jiff::Timestamp = text.parse().map_err(|_| {
                bad(format!(
                    "expected_last_heartbeat: must be {NO_HEARTBEAT} or what the heartbeat before it gave"
                ))
            })?;
            Ok(Expected::At(Timestamp(at.as_millisecond())))
        }
    }
}

async fn stop(
    State(state): State<AppState>,
    caller: Caller,
    path: WorkPath,
    sent: Sent,
) -> Result<Json<Value>> {
    let force = parse(&sent.value, &["force"], |object| {
        Some(nullable(object, "force", boolean)?.unwrap_or_default())
    })?;
    let stopped = state
        .engine
        .stop_work(caller.workspace(), &path.environment, &path.id, force)
        .await?;
    caller.note("force", json!(force));
    Ok(Json(work(&stopped, None)))
}
