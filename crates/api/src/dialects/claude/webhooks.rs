//! Webhook endpoints. Lists of these come in the older form of pages: `after_id`, `before_id`, `has_more`.

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use oma_domain::page::Order;
use oma_domain::webhook::{Disabled, Endpoint, Topic};
use oma_engine::{EndpointChange, NewEndpoint};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::body::{Sent, bad, nullable, parse};
use super::query::Query;
use super::{page, time};
use crate::AppState;
use crate::auth::Admin;
use crate::fault::Result;
use crate::limits;
use crate::params::WebhookPath;
use crate::validate::Tree;
use crate::validate::checks::{list as list_of, one_of, text};

/// The longest description, in characters.
const DESCRIPTION: usize = 2_048;

/// The routes of this module.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/organizations/webhooks", post(create).get(list))
        .route(
            "/v1/organizations/webhooks/{webhook_endpoint_id}",
            get(retrieve).post(update).delete(delete),
        )
        .route(
            "/v1/organizations/webhooks/{webhook_endpoint_id}/regenerate_signing_secret",
            post(regenerate),
        )
}

fn view(endpoint: &Endpoint) -> Value {
    json!({
        "id": endpoint.id.as_str(),
        "name": endpoint.name,
        "description": endpoint.description,
        "url": endpoint.url,
        "enabled_events": endpoint.topics.iter().map(|topic| topic.as_str()).collect::<Vec<_>>(),
        "state": if endpoint.disabled.is_some() { "disabled" } else { "enabled" },
        "disabled_reason": endpoint.disabled.map_or("", Disabled::as_str),
        "created_at": time::value(endpoint.created_at),
        "updated_at": time::value(endpoint.updated_at),
    })
}

fn topic(value: &Value, issues: &mut Tree) -> Option<Topic> {
    let name = text(1, limits::NAME)(value, issues)?;
    let topic = Topic::parse(&name);
    if topic.is_none() {
        issues.push("No event has this name");
    }
    topic
}

fn topics(value: &Value, issues: &mut Tree) -> Option<Vec<Topic>> {
    let mut topics = list_of(1, Topic::ALL.len(), topic)(value, issues)?;
    let mut seen = Vec::new();
    topics.retain(|topic| {
        let is_new = !seen.contains(topic);
        seen.push(*topic);
        is_new
    });
    Some(topics)
}

async fn create(State(state): State<AppState>, Admin(caller): Admin, sent: Sent) -> Result<Json<Value>> {
    let fields = &["url", "enabled_events", "name", "description"];
    let new = parse(&sent.value, fields, |object| {
        let url = object.required("url", text(1, limits::MATCH_URL));
        let topics = object.required("enabled_events", topics);
        let name = nullable(object, "name", text(0, limits::NAME));
        let description = nullable(object, "description", text(0, DESCRIPTION));
        Some(NewEndpoint {
            url: url?,
            topics: topics?,
            name: name?.unwrap_or_default(),
            description: description?.unwrap_or_default(),
        })
    })?;
    let (created, secret) = state
        .engine
        .create_webhook(caller.workspace(), new, sent.key)
        .await?;
    caller.note_target(&created.id);
    let mut shown = view(&created);
    shown["signing_secret"] = json!(secret.expose_secret());
    Ok(Json(shown))
}

async fn list(State(state): State<AppState>, Admin(caller): Admin, query: Query) -> Result<Json<Value>> {
    let order = query.order(Order::Descending)?;
    let limit = page::limit(&query, page::MOST)?;
    let mut all = state.engine.webhooks(caller.workspace()).await?;
    if order == Order::Descending {
        all.reverse();
    }
    let place = |name: &str| -> Result<Option<usize>> {
        let Some(id) = query.get(name) else {
            return Ok(None);
        };
        let found = all.iter().position(|endpoint| endpoint.id.as_str() == id);
        found
            .map(Some)
            .ok_or_else(|| bad(format!("{name}: no webhook endpoint has this id")))
    };
    let limit = limit as usize;
    let (from, until) = match (place("after_id")?, place("before_id")?) {
        (Some(_), Some(_)) => return Err(bad("before_id: may not go with after_id")),
        (Some(after), None) => (after + 1, (after + 1 + limit).min(all.len())),
        (None, Some(before)) => (before.saturating_sub(limit), before),
        (None, None) => (0, limit.min(all.len())),
    };
    // There is more in the direction in which the page runs.
    let has_more = if query.get("before_id").is_some() {
        from > 0
    } else {
        until < all.len()
    };
    let shown = &all[from..until];
    let id = |endpoint: Option<&Endpoint>| endpoint.map(|endpoint| endpoint.id.to_string());
    Ok(Json(json!({
        "data": shown.iter().map(view).collect::<Vec<_>>(),
        "has_more": has_more,
        "first_id": id(shown.first()),
        "last_id": id(shown.last()),
    })))
}

async fn retrieve(
    State(state): State<AppState>,
    Admin(caller): Admin,
    WebhookPath(id): WebhookPath,
) -> Result<Json<Value>> {
    let found = state.engine.webhook(caller.workspace(), &id).await?;
    Ok(Json(view(&found)))
}

async fn update(
    State(state): State<AppState>,
    Admin(caller): Admin,
    WebhookPath(id): WebhookPath,
    sent: Sent,
) -> Result<Json<Value>> {
    let fields = &["url", "enabled_events", "name", "description", "state"];
    let change = parse(&sent.value, fields, |object| {
        let url = object.optional("url", text(1, limits::MATCH_URL));
        let topics = object.optional("enabled_events", topics);
        let name = object.optional("name", text(0, limits::NAME));
        let description = object.optional("description", text(0, DESCRIPTION));
        let state = object.optional("state", one_of(&["enabled", "disabled"]));
        Some(EndpointChange {
            url: url?,
            topics: topics?,
            name: name?,
            description: description?,
            enabled: state?.map(|state| state == "enabled"),
        })
    })?;
    let updated = state
        .engine
        .update_webhook(caller.workspace(), &id, change)
        .await?;
    Ok(Json(view(&updated)))
}

async fn delete(
    State(state): State<AppState>,
    Admin(caller): Admin,
    WebhookPath(id): WebhookPath,
) -> Result<Json<Value>> {
    state.engine.delete_webhook(caller.workspace(), &id).await?;
    Ok(Json(
        json!({"id": id.as_str(), "type": "webhook_endpoint_deleted"}),
    ))
}

async fn regenerate(
    State(state): State<AppState>,
    Admin(caller): Admin,
    WebhookPath(id): WebhookPath,
) -> Result<Json<Value>> {
    let secret = state.engine.rotate_webhook(caller.workspace(), &id).await?;
    Ok(Json(json!({"signing_secret": secret.expose_secret()})))
}
