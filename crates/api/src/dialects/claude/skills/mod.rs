//! Skills: upload, list, read, delete; and what agents say of them. Clients with the beta header of 2025 get the shapes
//! of that time.

mod choice;
mod upload;
mod versions;
mod view;

pub(crate) use choice::{SkillChoice, check_tools, choices, resolve, view as of_agent};

use std::convert::Infallible;

use axum::Json;
use axum::Router;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::routing::get;
use oma_domain::SkillId;
use oma_domain::page::Order;
use oma_engine::{Error, SkillError};
use serde_json::{Value, json};

use super::body::bad;
use super::page::{self, Cursor, Page};
use super::query::Query;
use crate::AppState;
use crate::auth::Caller;
use crate::fault::Result;
use crate::params::SkillPath;
use upload::Upload;

/// The most rows of a page.
const MOST: u32 = 1_000;

/// The routes of this module.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/skills", get(list).post(create))
        .route("/v1/skills/{skill_id}", get(retrieve).delete(delete))
        .merge(versions::routes())
}

/// Which shapes a client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Those without a beta header.
    Current,
    /// Those of `skills-2025-10-02`.
    Old,
}

impl<S: Send + Sync> FromRequestParts<S> for Shape {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> std::result::Result<Self, Infallible> {
        let betas = parts.headers.get_all("anthropic-beta").iter();
        let mut betas = betas
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        Ok(match betas.any(|beta| beta.trim() == "skills-2025-10-02") {
            true => Self::Old,
            false => Self::Current,
        })
    }
}

async fn create(
    State(state): State<AppState>,
    caller: Caller,
    shape: Shape,
    upload: Upload,
) -> Result<Json<Value>> {
    caller.note("name", upload.skill.name.clone());
    let created = state
        .engine
        .create_skill(caller.workspace(), upload.display_name, upload.skill, upload.key)
        .await?;
    caller.note_target(&created.id);
    Ok(Json(view::skill(&created, shape)))
}

async fn list(
    State(state): State<AppState>,
    caller: Caller,
    shape: Shape,
    query: Query,
) -> Result<Json<Page>> {
    let limit = page::limit(&query, MOST)?;
    let order = Order::Descending;
    let after = Cursor::row(&query, order, SkillId::parse)?;
    match query.get("source") {
        None | Some("custom") => {}
        // There are none of those here.
        Some("anthropic" | "anthropic_example" | "plugin") => {
            return Ok(Json(Page::default()));
        }
        Some(_) => {
            return Err(bad(
                "source: must be custom, anthropic, anthropic_example or plugin",
            ));
        }
    }
    let (engine, workspace) = (&state.engine, caller.workspace());
    let fetch = |after: Option<SkillId>, limit| async move {
        let page = engine.skills(workspace, after.as_ref(), limit).await;
        page.map_err(|error| match error {
            Error::Skill(SkillError::NotFound) => page::invalid(),
            error => error.into(),
        })
    };
    let view = |row: &oma_domain::Skill| view::skill(row, shape);
    page::list(order, limit, after, fetch, view, |row| row.id.clone()).await
}

async fn retrieve(
    State(state): State<AppState>,
    caller: Caller,
    shape: Shape,
    SkillPath(id): SkillPath,
) -> Result<Json<Value>> {
    let found = state.engine.skill(caller.workspace(), &id).await?;
    Ok(Json(view::skill(&found, shape)))
}

async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    SkillPath(id): SkillPath,
) -> Result<Json<Value>> {
    state.engine.delete_skill(caller.workspace(), &id).await?;
    Ok(Json(json!({"id": id.as_str(), "type": "skill_deleted"})))
}
