//! What a session's sandbox is given: list, add, read, remove.

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use oma_domain::page::Order;
use oma_domain::resource::Spec;
use oma_domain::{FileId, Resource, ResourceId, Session};
use oma_engine::files::NewResource;
use oma_engine::{Error, files};
use serde_json::{Value, json};

use super::attached;
use super::repository::{repository, token};
use crate::AppState;
use crate::auth::Caller;
use crate::dialects::claude::body::{Sent, bad, nullable, only, parse};
use crate::dialects::claude::page::{self, Cursor};
use crate::dialects::claude::query::Query;
use crate::dialects::claude::time;
use crate::fault::{Fault, Result};
use crate::limits;
use crate::params::{ResourcePath, SessionPath};
use crate::validate::checks::{discriminator, text};
use crate::validate::{Object, Tree};

/// The most resources of a page; all of them without a limit.
const MOST: u32 = 1_000;
/// The longest path that a client may give, in characters.
pub(super) const MOUNT_PATH: usize = 1_200;

/// The routes of this module.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/sessions/{session_id}/resources", get(list).post(add))
        .route(
            "/v1/sessions/{session_id}/resources/{resource_id}",
            get(retrieve).post(update).delete(remove),
        )
}

/// A resource to give a session.
pub(super) fn new_resource(value: &Value, issues: &mut Tree) -> Option<NewResource> {
    let mut object = Object::of(value, issues)?;
    match discriminator(&mut object, &["file", "github_repository", "memory_store"])? {
        "file" => file(&mut object),
        "memory_store" => {
            let problem = "Memory stores can be given to a session only when it is created";
            object.issues().at("type").push(problem);
            None
        }
        _ => repository(&mut object).map(NewResource::Repository),
    }
}

fn file(object: &mut Object<'_>) -> Option<NewResource> {
    only(object, &["type", "file_id", "mount_path"]);
    let file = object.required("file_id", |value, issues| {
        let id = text(1, limits::NAME)(value, issues)?;
        let id = FileId::parse(&id).ok();
        if id.is_none() {
            issues.push("No file has this id");
        }
        id
    });
    let mount_path = nullable(object, "mount_path", text(1, MOUNT_PATH));
    Some(NewResource::File {
        file: file?,
        mount_path: mount_path?,
    })
}

/// A resource as clients read it.
pub(super) fn view(resource: &Resource) -> Value {
    let Resource {
        id,
        spec,
        created_at,
        updated_at,
    } = resource;
    let mut view = match spec {
        Spec::File { file, mount_path } => json!({
            "type": "file",
            "id": id.as_str(),
            "file_id": file.as_str(),
            "mount_path": mount_path,
        }),
        Spec::Repository {
            url,
            checkout,
            mount_path,
            token: _,
        } => json!({
            "type": "github_repository",
            "id": id.as_str(),
            "url": url,
            "checkout": checkout,
            "mount_path": mount_path,
        }),
    };
    view["created_at"] = time::value(*created_at);
    view["updated_at"] = time::value(*updated_at);
    view
}

/// All that a session's sandbox is given, as clients read it, each with an id: memory stores have none but their own.
pub(super) fn all(session: &Session) -> Vec<(&str, Value)> {
    let resources = session.resources.iter().map(|one| (one.id.as_str(), view(one)));
    let memories = session.memories.iter();
    let memories = memories.map(|one| (one.store.as_str(), attached::view(one)));
    resources.chain(memories).collect()
}

async fn list(
    State(state): State<AppState>,
    caller: Caller,
    SessionPath(id): SessionPath,
    query: Query,
) -> Result<Json<Value>> {
    let limit = query.number("limit", 1, MOST)?.unwrap_or(MOST) as usize;
    let session = state.engine.session(caller.workspace(), &id).await?;
    let order = Order::Ascending;
    let all = all(&session);
    let start = match Cursor::read(&query, order)? {
        Some(cursor) => {
            let place = all.iter().position(|(id, _)| *id == cursor.row);
            place.ok_or_else(page::invalid)? + 1
        }
        None => 0,
    };
    let rest = all.get(start..).unwrap_or_default();
    let rows = rest.get(..limit).unwrap_or(rest);
    let last = rows.last().filter(|_| rest.len() > rows.len());
    let next = last.map(|(id, _)| Cursor::after(*id, order).to_text());
    let data: Vec<&Value> = rows.iter().map(|(_, view)| view).collect();
    Ok(Json(json!({"data": data, "next_page": next})))
}

async fn add(
    State(state): State<AppState>,
    caller: Caller,
    SessionPath(id): SessionPath,
    sent: Sent,
) -> Result<Json<Value>> {
    let mut issues = Tree::default();
    let new = match new_resource(&sent.value, &mut issues) {
        Some(NewResource::Repository(_)) => {
            return Err(bad(
                "type: A repository can only be given to a session that is created",
            ));
        }
        Some(new) if issues.is_empty() => new,
        _ => return Err(bad(issues.first())),
    };
    let added = state.engine.add_resource(caller.workspace(), &id, new).await?;
    caller.note("resource_id", added.id.as_str());
    Ok(Json(view(&added)))
}

fn missing() -> Fault {
    Error::Files(files::Error::ResourceNotFound).into()
}

async fn found(state: &AppState, caller: &Caller, path: &ResourcePath) -> Result<Resource> {
    let session = state.engine.session(caller.workspace(), &path.session).await?;
    let mut resources = session.resources.into_iter();
    resources.find(|one| one.id == path.resource).ok_or_else(missing)
}

async fn retrieve(State(state): State<AppState>, caller: Caller, path: ResourcePath) -> Result<Json<Value>> {
    Ok(Json(view(&found(&state, &caller, &path).await?)))
}

async fn update(
    State(state): State<AppState>,
    caller: Caller,
    path: ResourcePath,
    sent: Sent,
) -> Result<Json<Value>> {
    let Spec::Repository { .. } = found(&state, &caller, &path).await?.spec else {
        return Err(bad("Only the token of a repository can be changed"));
    };
    let token = parse(&sent.value, &["authorization_token"], |object| {
        object.required("authorization_token", token)
    })?;
    let rotated = state
        .engine
        .rotate_repository_token(caller.workspace(), &path.session, &path.resource, &token)
        .await?;
    Ok(Json(view(&rotated)))
}

async fn remove(State(state): State<AppState>, caller: Caller, path: ResourcePath) -> Result<Json<Value>> {
    if let Spec::Repository { .. } = found(&state, &caller, &path).await?.spec {
        return Err(bad("A repository stays for as long as its session"));
    }
    state
        .engine
        .remove_resource(caller.workspace(), &path.session, &path.resource)
        .await?;
    Ok(Json(
        json!({"id": ResourceId::as_str(&path.resource), "type": "session_resource_deleted"}),
    ))
}
