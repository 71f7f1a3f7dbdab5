//! The files of a session's workspace. Every access goes through the session's own workspace, which resolves
//! paths beneath its root and follows no link out of it (I12).

use axum::Json;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use oma_domain::{AgentId, SessionId};
use oma_engine::Error;
use oma_sandbox::files::{Entry, Workspace};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ErrorBody;
use crate::AppState;
use crate::auth::Caller;
use crate::fault::{Fault, Result};
use crate::limits::{self, read_body};
use crate::params::{AgentPath, Params, segment};

/// The routes of this module.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, put, delete))
        // A path that names the root by a trailing slash.
        .route(
            "/v1/agents/{agent_id}/files/",
            axum::routing::get(get).put(put).delete(delete),
        )
}

/// The file that the path names, cleaned: no empty, `.` or `..` components.
///
/// A backslash is a character like any other, as it is for the sandbox and for the list of files: whatever is listed
/// can be read under the path that the list has for it.
struct FilePath(String);

impl<S: Send + Sync> FromRequestParts<S> for FilePath {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        clean(&segment(parts, "path", state).await?).map(Self)
    }
}

fn clean(path: &str) -> Result<String> {
    let invalid = |message: &str| Fault::new(StatusCode::BAD_REQUEST, "invalid_path", message);
    if path.len() > limits::FILE_PATH {
        return Err(invalid(&format!(
            "A path has at most {} bytes",
            limits::FILE_PATH
        )));
    }
    if path.contains('\0') {
        return Err(invalid("A path has no NUL"));
    }
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if parts.contains(&"..") {
        return Err(invalid("A path does not go up with '..'"));
    }
    Ok(parts.join("/"))
}

/// The workspace that agent and `session_id` name; 400 without a `session_id`.
async fn workspace(
    state: &AppState,
    caller: &Caller,
    agent: &AgentId,
    params: &Params,
) -> Result<Arc<dyn Workspace>> {
    let Some(session) = params.get("session_id") else {
        let message = "The query parameter session_id is missing";
        return Err(Fault::new(StatusCode::BAD_REQUEST, "missing_session_id", message));
    };
    let Ok(session) = SessionId::parse(session) else {
        state.engine.agent(caller.workspace(), agent).await?;
        return Err(Error::SessionNotFound.into());
    };
    Ok(state
        .engine
        .workspace(caller.workspace(), agent, &session)
        .await?)
}

/// An entry of a folder.
#[derive(Debug, Serialize, ToSchema)]
pub struct EntryView {
    name: String,
    /// From the workspace's root.
    path: String,
    /// `file` or `dir`.
    r#type: &'static str,
    /// Bytes.
    size: u64,
    /// Last change, in milliseconds since the epoch.
    mtime: f64,
}

impl EntryView {
    fn of(entry: Entry) -> Self {
        let Entry {
            name,
            path,
            is_dir,
            size,
            mtime_ms,
        } = entry;
        Self {
            name,
            path,
            r#type: if is_dir { "dir" } else { "file" },
            size,
            mtime: mtime_ms,
        }
    }
}

/// A folder.
#[derive(Debug, Serialize, ToSchema)]
pub struct Folder {
    agent_id: String,
    /// As it was given.
    path: String,
    /// Folders first, then by name.
    entries: Vec<EntryView>,
    /// Whether the folder has more entries than one answer lists.
    has_more: bool,
}

/// List a folder.
///
/// Of the workspace of one of the agent's sessions. Links and special files are left out; at most 10000
/// entries.
#[utoipa::path(
    get, path = "/v1/agents/{agent_id}/files", tag = "files",
    params(
        ("agent_id" = String, Path),
        ("session_id" = String, Query),
        ("path" = Option<String>, Query, description = "From the workspace's root, which it is without it"),
    ),
    responses((status = 200, body = Folder), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)),
)]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    AgentPath(agent): AgentPath,
    params: Params,
) -> Result<Json<Folder>> {
    let files = workspace(&state, &caller, &agent, &params).await?;
    let given = params.get("path").unwrap_or_default();
    let mut entries = files.list(&clean(given)?, limits::FOLDER_ENTRIES + 1).await?;
    let has_more = entries.len() > limits::FOLDER_ENTRIES;
    entries.truncate(limits::FOLDER_ENTRIES);
    Ok(Json(Folder {
        agent_id: agent.to_string(),
        path: given.to_owned(),
        entries: entries.into_iter().map(EntryView::of).collect(),
        has_more,
    }))
}

/// Read a file.
#[utoipa::path(
    get, path = "/v1/agents/{agent_id}/files/{*path}", tag = "files",
    params(("agent_id" = String, Path), ("path" = String, Path), ("session_id" = String, Query)),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 413, body = ErrorBody),
    ),
)]
async fn get(
    State(state): State<AppState>,
    caller: Caller,
    AgentPath(agent): AgentPath,
    FilePath(path): FilePath,
    params: Params,
) -> Result<Response> {
    let files = workspace(&state, &caller, &agent, &params).await?;
    if path.is_empty() {
        return Err(Fault::new(
            StatusCode::NOT_FOUND,
            "file_not_found",
            "no such file",
        ));
    }
    let bytes = match files.read(&path, state.config.max_file as u64).await {
        // For a reader a folder is a file that is not there.
        Err(oma_sandbox::files::Error::InvalidPath(message)) => {
            return Err(Fault::new(StatusCode::NOT_FOUND, "file_not_found", message));
        }
        outcome => outcome?,
    };
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        // Agents write these files: a browser may not take one for a page.
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_DISPOSITION, "attachment"),
    ];
    Ok((headers, bytes).into_response())
}

/// A file that was written.
#[derive(Debug, Serialize, ToSchema)]
pub struct Written {
    agent_id: String,
    /// Bytes.
    size: usize,
    path: String,
}

/// Write a file.
///
/// Whole, making its parents. The body is the file's bytes.
#[utoipa::path(
    put, path = "/v1/agents/{agent_id}/files/{*path}", tag = "files",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    params(("agent_id" = String, Path), ("path" = String, Path), ("session_id" = String, Query)),
    responses(
        (status = 200, body = Written), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 413, body = ErrorBody), (status = 507, body = ErrorBody),
    ),
)]
async fn put(
    State(state): State<AppState>,
    caller: Caller,
    AgentPath(agent): AgentPath,
    FilePath(path): FilePath,
    params: Params,
    request: Request,
) -> Result<Json<Written>> {
    let files = workspace(&state, &caller, &agent, &params).await?;
    not_root(&path)?;
    let config = &state.config;
    let (parts, body) = request.into_parts();
    let bytes = read_body(
        &parts.headers,
        body,
        config.max_file,
        config.body_idle_timeout,
        config.body_timeout,
    )
    .await?;
    let size = bytes.len();
    files.write(&path, bytes).await?;
    Ok(Json(Written {
        agent_id: agent.to_string(),
        size,
        path,
    }))
}

/// The workspace itself can't be written or removed.
fn not_root(path: &str) -> Result<()> {
    if path.is_empty() {
        let message = "The root is no file";
        return Err(Fault::new(StatusCode::BAD_REQUEST, "invalid_path", message));
    }
    Ok(())
}

/// A file that was removed.
#[derive(Debug, Serialize, ToSchema)]
pub struct Removed {
    agent_id: String,
    path: String,
    /// Always true.
    deleted: bool,
}

/// Delete a file.
#[utoipa::path(
    delete, path = "/v1/agents/{agent_id}/files/{*path}", tag = "files",
    params(("agent_id" = String, Path), ("path" = String, Path), ("session_id" = String, Query)),
    responses((status = 200, body = Removed), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)),
)]
async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    AgentPath(agent): AgentPath,
    FilePath(path): FilePath,
    params: Params,
) -> Result<Json<Removed>> {
    let files = workspace(&state, &caller, &agent, &params).await?;
    not_root(&path)?;
    files.remove(&path).await?;
    Ok(Json(Removed {
        agent_id: agent.to_string(),
        path,
        deleted: true,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let long = "x".repeat(limits::FILE_PATH + 1);
        for (given, cleaned) in [
            ("a/b.txt", Some("a/b.txt")),
            ("/a//./b", Some("a/b")),
            ("a\\b", Some("a\\b")),
            ("a\\..\\b", Some("a\\..\\b")),
            ("", Some("")),
            ("./", Some("")),
            ("...", Some("...")),
            ("a..b", Some("a..b")),
            ("..", None),
            ("a/../b", None),
            ("a\0b", None),
            (&*long, None),
        ] {
            assert_eq!(clean(given).ok().as_deref(), cleaned, "{given:?}");
        }
    }
}
