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
use crate::listing::{Rows, collect};
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

/// A page, which is the same in both shapes.
fn page(rows: Rows) -> Page {
    Page {
        data: rows.rows,
        next_page: rows
            .next
            .map(|row| Cursor::after(row, Order::Descending).to_text()),
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
    let limit = query.number("limit", 1, MOST)?.unwrap_or(page::DEFAULT);
    let order = Order::Descending;
    let after = match Cursor::read(&query, order)? {
        Some(cursor) => Some(SkillId::parse(&cursor.row).map_err(|_| page::invalid())?),
        None => None,
    };
    match query.get("source") {
        None | Some("custom") => {}
        // There are none of those here.
        Some("anthropic" | "anthropic_example" | "plugin") => {
            let none = Rows {
                rows: Vec::new(),
                next: None,
            };
            return Ok(Json(self::page(none)));
        }
        Some(_) => {
            return Err(bad(
                "source: must be custom, anthropic, anthropic_example or plugin",
            ));
        }
    }
    let fetch = |after: Option<SkillId>, limit| {
        let (engine, caller) = (state.engine.clone(), caller.clone());
        async move {
            let page = engine.skills(caller.workspace(), after.as_ref(), limit).await;
            page.map_err(|error| match error {
                Error::Skill(SkillError::NotFound) => page::invalid(),
                error => error.into(),
            })
        }
    };
    let view = |row: &oma_domain::Skill| view::skill(row, shape);
    let rows = collect(limit, after, fetch, view, |row| row.id.clone()).await?;
    Ok(Json(self::page(rows)))
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
