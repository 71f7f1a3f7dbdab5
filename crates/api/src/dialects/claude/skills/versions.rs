//! Versions of a skill: upload, list, read, download, delete.

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use oma_domain::SkillVersionId;
use oma_domain::page::Order;
use oma_engine::{Error, SkillError};
use serde_json::{Value, json};

use super::upload::Upload;
use super::{MOST, Shape, view};
use crate::AppState;
use crate::auth::Caller;
use crate::dialects::claude::page::{self, Cursor, Page};
use crate::dialects::claude::query::Query;
use crate::fault::Result;
use crate::params::{SkillPath, SkillVersionPath};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/skills/{skill_id}/versions", get(list).post(create))
        .route(
            "/v1/skills/{skill_id}/versions/{version}",
            get(retrieve).delete(delete),
        )
        .route("/v1/skills/{skill_id}/versions/{version}/content", get(content))
}

async fn create(
    State(state): State<AppState>,
    caller: Caller,
    shape: Shape,
    SkillPath(skill): SkillPath,
    upload: Upload,
) -> Result<Json<Value>> {
    upload.refuse_display_name()?;
    let created = state
        .engine
        .add_skill_version(caller.workspace(), &skill, upload.skill, upload.key)
        .await?;
    caller.note_target(&created.id);
    caller.note("skill_id", skill.as_str());
    Ok(Json(view::version(&created, shape)))
}

async fn list(
    State(state): State<AppState>,
    caller: Caller,
    shape: Shape,
    SkillPath(skill): SkillPath,
    query: Query,
) -> Result<Json<Page>> {
    let order = Order::Descending;
    let limit = page::limit(&query, MOST)?;
    let after = Cursor::row(&query, order, SkillVersionId::parse)?;
    let (engine, workspace, skill) = (&state.engine, caller.workspace(), &skill);
    let fetch = |after: Option<SkillVersionId>, limit| async move {
        let page = engine
            .skill_versions(workspace, skill, after.as_ref(), limit)
            .await;
        page.map_err(|error| match error {
            Error::Skill(SkillError::VersionNotFound) => page::invalid(),
            error => error.into(),
        })
    };
    let view = |row: &oma_domain::skill::SkillVersion| view::version(row, shape);
    page::list(order, limit, after, fetch, view, |row| row.id.clone()).await
}

async fn retrieve(
    State(state): State<AppState>,
    caller: Caller,
    shape: Shape,
    SkillVersionPath { skill, which }: SkillVersionPath,
) -> Result<Json<Value>> {
    let found = state
        .engine
        .skill_version(caller.workspace(), &skill, &which)
        .await?;
    Ok(Json(view::version(&found, shape)))
}

async fn content(
    State(state): State<AppState>,
    caller: Caller,
    SkillVersionPath { skill, which }: SkillVersionPath,
) -> Result<Response> {
    let (version, content) = state
        .engine
        .skill_content(caller.workspace(), &skill, &which)
        .await?;
    // A skill's name has nothing in it that a header could not carry.
    let disposition = format!("attachment; filename=\"{}.zip\"", version.name);
    let headers = [
        (header::CONTENT_TYPE, "application/zip".to_owned()),
        (header::CONTENT_DISPOSITION, disposition),
    ];
    Ok((headers, content).into_response())
}

async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    shape: Shape,
    SkillVersionPath { skill, which }: SkillVersionPath,
) -> Result<Json<Value>> {
    caller.note("skill_id", skill.as_str());
    let removed = state
        .engine
        .delete_skill_version(caller.workspace(), &skill, &which)
        .await?;
    caller.note_target(&removed.id);
    let id = match shape {
        Shape::Current => removed.id.to_string(),
        Shape::Old => removed.number.to_string(),
    };
    Ok(Json(json!({"id": id, "type": "skill_version_deleted"})))
}
