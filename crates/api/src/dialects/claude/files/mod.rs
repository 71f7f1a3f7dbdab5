//! Files: upload, list, read, download, delete. Bytes pass through in pieces, on their way in and out.

mod list;
mod upload;
mod view;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use oma_domain::File;
use serde_json::{Value, json};
use tokio_util::io::ReaderStream;

use crate::AppState;
use crate::auth::Caller;
use crate::fault::Result;
use crate::params::FilePath;
use upload::Received;
use view::Shape;

/// How many bytes a download reads at once.
const PIECE: usize = 128 << 10;

/// The routes of this module.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/files", post(create).get(list::list))
        .route("/v1/files/{file_id}", get(retrieve).delete(delete))
        .route("/v1/files/{file_id}/content", get(content))
}

async fn create(
    State(state): State<AppState>,
    caller: Caller,
    shape: Shape,
    request: Request,
) -> Result<Json<Value>> {
    let Received { upload, new, key } = upload::receive(&state, request).await?;
    let created = state
        .engine
        .create_file(caller.workspace(), upload, new, key)
        .await?;
    caller.note_target(&created.id);
    Ok(Json(shape.file(&created)))
}

async fn retrieve(
    State(state): State<AppState>,
    caller: Caller,
    shape: Shape,
    FilePath(id): FilePath,
) -> Result<Json<Value>> {
    let found = state.engine.file(caller.workspace(), &id).await?;
    Ok(Json(shape.file(&found)))
}

async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    FilePath(id): FilePath,
) -> Result<Json<Value>> {
    state.engine.delete_file(caller.workspace(), &id).await?;
    Ok(Json(json!({"id": id.as_str(), "type": "file_deleted"})))
}

async fn content(State(state): State<AppState>, caller: Caller, FilePath(id): FilePath) -> Result<Response> {
    let (found, bytes) = state.engine.download_file(caller.workspace(), &id).await?;
    let bytes = ReaderStream::with_capacity(tokio::fs::File::from_std(bytes), PIECE);
    // Agents write these files: a browser must not take one for a page of this server.
    let headers = [
        (header::CONTENT_TYPE, found.mime_type.clone()),
        (header::CONTENT_LENGTH, found.size.to_string()),
        (header::CONTENT_DISPOSITION, disposition(&found)),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; sandbox".to_owned(),
        ),
    ];
    Ok((headers, Body::from_stream(bytes)).into_response())
}

/// What a client should call the file.
fn disposition(file: &File) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_');
    format!(
        "attachment; filename*=UTF-8''{}",
        utf8_percent_encode(&file.filename, KEPT)
    )
}
