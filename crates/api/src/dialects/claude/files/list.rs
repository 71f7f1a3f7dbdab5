//! Lists of files, newest first: pages of today's shape, and of the one before for clients that ask for it.

use axum::Json;
use axum::extract::State;
use oma_domain::page::Order;
use oma_domain::{File, FileId, SessionId};
use oma_engine::{Error, FileFilter, files};
use serde_json::Value;

use super::view::Shape;
use crate::AppState;
use crate::auth::Caller;
use crate::dialects::claude::body::bad;
use crate::dialects::claude::page::{self, Cursor};
use crate::dialects::claude::query::Query;
use crate::fault::Result;

/// The most rows of a page, and the most ids that can be asked for.
const MOST: u32 = 1_000;
const MOST_IDS: usize = 100;

pub(super) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    shape: Shape,
    query: Query,
) -> Result<Json<Value>> {
    let limit = page::limit(&query, MOST)?;
    let ids = query.list("ids");
    if !ids.is_empty() {
        return named(&state, &caller, shape, &query, &ids).await;
    }
    let session = match query.get("scope_id") {
        // What is no id of a session has no files.
        Some(id) => match SessionId::parse(id) {
            Ok(id) => Some(id),
            Err(_) => return Ok(Json(shape.all(&[]))),
        },
        None => None,
    };
    let filter = FileFilter {
        session,
        now: oma_engine::now(),
    };
    let lister = Lister {
        state: &state,
        caller: &caller,
        filter: &filter,
        limit,
        shape,
    };
    if shape == Shape::Older || query.get("before_id").is_some() || query.get("after_id").is_some() {
        return lister.older(&query).await;
    }
    let order = Order::Descending;
    let after = Cursor::row(&query, order, FileId::parse)?;
    let (rows, next) = lister.page(order, after).await?.ok_or_else(page::invalid)?;
    let next = next.map(|row| Cursor::after(row.as_str(), order).to_text());
    Ok(Json(shape.page(&rows, next)))
}

/// The files of these ids, as far as there are such.
async fn named(
    state: &AppState,
    caller: &Caller,
    shape: Shape,
    query: &Query,
    ids: &[&str],
) -> Result<Json<Value>> {
    if query.get("page").is_some() || query.get("limit").is_some() {
        return Err(bad("ids: can't be given together with page or limit"));
    }
    if ids.len() > MOST_IDS {
        return Err(bad(format!("ids: there may be at most {MOST_IDS}")));
    }
    let mut found: Vec<File> = Vec::new();
    for id in ids {
        let Ok(id) = FileId::parse(id) else { continue };
        if found.iter().any(|file| file.id == id) {
            continue;
        }
        match state.engine.file(caller.workspace(), &id).await {
            Ok(file) => found.push(file),
            Err(Error::Files(files::Error::NotFound | files::Error::Expired)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(session) = query.get("scope_id") {
        found.retain(|file| file.session.as_ref().is_some_and(|id| id.as_str() == session));
    }
    Ok(Json(shape.all(&found)))
}

struct Lister<'a> {
    state: &'a AppState,
    caller: &'a Caller,
    filter: &'a FileFilter,
    limit: u32,
    shape: Shape,
}

impl Lister<'_> {
    /// A page, and where the next one begins; `None` when the row before it is not there.
    async fn page(&self, order: Order, after: Option<FileId>) -> Result<Option<(Vec<File>, Option<FileId>)>> {
        let workspace = self.caller.workspace();
        let page = self
            .state
            .engine
            .files(workspace, self.filter, order, after.as_ref(), self.limit)
            .await;
        match page {
            Ok(page) => Ok(Some((page.rows, page.next))),
            Err(Error::Files(files::Error::NotFound)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The older shape: pages before and after a file.
    async fn older(&self, query: &Query) -> Result<Json<Value>> {
        let id = |name: &str| -> Result<Option<FileId>> {
            let missing = || bad(format!("{name}: no file has this id"));
            query
                .get(name)
                .map(|id| FileId::parse(id).map_err(|_| missing()))
                .transpose()
        };
        let (before, after) = (id("before_id")?, id("after_id")?);
        let (name, order, from) = match (before, after) {
            (Some(_), Some(_)) => return Err(bad("before_id: can't be given together with after_id")),
            (Some(before), None) => ("before_id", Order::Ascending, Some(before)),
            (None, after) => ("after_id", Order::Descending, after),
        };
        let page = self.page(order, from).await?;
        let (mut rows, next) = page.ok_or_else(|| bad(format!("{name}: no file has this id")))?;
        if order == Order::Ascending {
            rows.reverse();
        }
        Ok(Json(self.shape.part(&rows, next.is_some())))
    }
}
