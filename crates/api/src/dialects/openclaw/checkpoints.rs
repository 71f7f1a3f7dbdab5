//! Checkpoints: saved states of a session's workspace, and putting one back.

use axum::Json;
use axum::extract::State;
use oma_domain::{Checkpoint, CheckpointId};
use oma_engine::checkpoints::CheckpointError;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Deleted;
use super::error::ErrorBody;
use crate::AppState;
use crate::auth::Caller;
use crate::fault::Result;
use crate::limits;
use crate::params::{CheckpointPath, SessionPath};
use crate::payload::Payload;
use crate::validate::checks::text;
use crate::validate::{Body, Object};

/// The routes of this module.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, delete))
        .routes(routes!(restore))
}

/// A saved state of a session's workspace.
#[derive(Debug, Serialize, ToSchema)]
pub struct CheckpointView {
    checkpoint_id: String,
    /// The session that it was made of, and goes with.
    session_id: String,
    /// Bytes of the archive.
    size: u64,
    /// The archive's SHA-256, in hexadecimal.
    sha256: String,
    /// Bytes of all files, unpacked.
    bytes: u64,
    /// Files, folders and links.
    entries: u64,
    /// Pipes, sockets and devices, which are not in it.
    skipped: u64,
    /// Milliseconds since the epoch.
    created_at: i64,
}

impl CheckpointView {
    fn of(checkpoint: Checkpoint) -> Self {
        Self {
            checkpoint_id: checkpoint.id.to_string(),
            session_id: checkpoint.session.to_string(),
            size: checkpoint.size,
            sha256: checkpoint.sha256,
            bytes: checkpoint.bytes,
            entries: checkpoint.entries,
            skipped: checkpoint.skipped,
            created_at: checkpoint.created_at.as_millis(),
        }
    }
}

/// The checkpoints of a session.
#[derive(Debug, Serialize, ToSchema)]
pub struct CheckpointList {
    /// The newest first.
    checkpoints: Vec<CheckpointView>,
    count: usize,
}

/// Save a session's workspace.
///
/// All files, folders and links of `/workspace`, as they are now. The session's sandbox ends for that, as an idle one
/// does, and its next tool use starts another one; while a turn is at work, or something runs in the sandbox, the answer is
/// 409 `session_busy`. The checkpoint goes with the session.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/checkpoints", tag = "checkpoints",
    params(("session_id" = String, Path)),
    responses(
        (status = 200, body = CheckpointView), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 413, body = ErrorBody),
    ),
)]
async fn create(
    State(state): State<AppState>,
    caller: Caller,
    SessionPath(id): SessionPath,
) -> Result<Json<CheckpointView>> {
    let made = state.engine.create_checkpoint(caller.workspace(), &id).await?;
    caller.note("checkpoint", made.id.to_string());
    Ok(Json(CheckpointView::of(made)))
}

/// List a session's checkpoints.
///
/// All of them, the newest first; a session has at most 100.
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}/checkpoints", tag = "checkpoints",
    params(("session_id" = String, Path)),
    responses((status = 200, body = CheckpointList), (status = 404, body = ErrorBody)),
)]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    SessionPath(id): SessionPath,
) -> Result<Json<CheckpointList>> {
    let found = state.engine.checkpoints(caller.workspace(), &id).await?;
    Ok(Json(CheckpointList {
        count: found.len(),
        checkpoints: found.into_iter().map(CheckpointView::of).collect(),
    }))
}

/// Read a checkpoint.
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}/checkpoints/{checkpoint_id}", tag = "checkpoints",
    params(("session_id" = String, Path), ("checkpoint_id" = String, Path)),
    responses((status = 200, body = CheckpointView), (status = 404, body = ErrorBody)),
)]
async fn get(
    State(state): State<AppState>,
    caller: Caller,
    CheckpointPath { session, checkpoint }: CheckpointPath,
) -> Result<Json<CheckpointView>> {
    let found = state
        .engine
        .checkpoint(caller.workspace(), &session, &checkpoint)
        .await?;
    Ok(Json(CheckpointView::of(found)))
}

/// Delete a checkpoint.
#[utoipa::path(
    delete, path = "/v1/sessions/{session_id}/checkpoints/{checkpoint_id}", tag = "checkpoints",
    params(("session_id" = String, Path), ("checkpoint_id" = String, Path)),
    responses((status = 200, body = Deleted), (status = 404, body = ErrorBody)),
)]
async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    CheckpointPath { session, checkpoint }: CheckpointPath,
) -> Result<Json<Deleted>> {
    state
        .engine
        .delete_checkpoint(caller.workspace(), &session, &checkpoint)
        .await?;
    Ok(Json(Deleted { deleted: true }))
}

/// Which checkpoint to put back.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct RestoreWorkspace {
    /// A checkpoint of this session, or of another one of the same workspace of the API.
    #[schema(min_length = 1, max_length = 256)]
    pub checkpoint_id: String,
}

impl Body for RestoreWorkspace {
    fn read(object: &mut Object<'_>) -> Option<Self> {
        let checkpoint_id = object.required("checkpointId", text(1, limits::NAME));
        Some(Self {
            checkpoint_id: checkpoint_id?,
        })
    }
}

/// Put a checkpoint back.
///
/// What the session's workspace has is replaced, all at once, by what was saved, of this session or another one. The
/// session's sandbox ends for that, with whatever runs in it; while a turn is at work the answer is 409 `session_busy`. The
/// model is not told.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/restore", tag = "checkpoints", request_body = RestoreWorkspace,
    params(("session_id" = String, Path)),
    responses(
        (status = 200, body = CheckpointView), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 413, body = ErrorBody),
    ),
)]
async fn restore(
    State(state): State<AppState>,
    caller: Caller,
    SessionPath(id): SessionPath,
    payload: Payload,
) -> Result<Json<CheckpointView>> {
    let body = payload.parse::<RestoreWorkspace>()?;
    caller.note("checkpoint", body.checkpoint_id.clone());
    let checkpoint = CheckpointId::parse(&body.checkpoint_id)
        .map_err(|_| oma_engine::Error::from(CheckpointError::NotFound));
    let restored = match checkpoint {
        Ok(checkpoint) => {
            state
                .engine
                .restore_checkpoint(caller.workspace(), &id, &checkpoint)
                .await?
        }
        Err(error) => {
            state.engine.session(caller.workspace(), &id).await?;
            return Err(error.into());
        }
    };
    Ok(Json(CheckpointView::of(restored)))
}
