//! What is about the server and not about any workspace: its description, health and metrics.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::AppState;
use crate::dialects::openclaw::error::ErrorBody;
use crate::fault::{Fault, Result};
use crate::telemetry::openmetrics;

/// The routes of this module.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(root))
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(metrics))
        .routes(routes!(openapi_json))
}

/// What the server is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Description {
    name: &'static str,
    description: &'static str,
    version: String,
    /// Where the reference is.
    docs: &'static str,
    /// `required` or `disabled`, and how.
    auth: &'static str,
    /// Whether requests are limited, and how.
    rate_limit: String,
    /// The routes by group.
    #[schema(value_type = Object)]
    endpoints: Value,
}

const ENDPOINTS: &[(&str, &[(&str, &str)])] = &[
    (
        "agents",
        &[
            ("create", "POST /v1/agents"),
            ("list", "GET /v1/agents"),
            ("get", "GET /v1/agents/:agentId"),
            ("update", "PATCH /v1/agents/:agentId"),
            ("delete", "DELETE /v1/agents/:agentId"),
            ("list_versions", "GET /v1/agents/:agentId/versions"),
            ("archive", "POST /v1/agents/:agentId/archive"),
            ("warm", "POST /v1/agents/:agentId/warm"),
            ("run", "POST /v1/agents/:agentId/run"),
            ("list_files", "GET /v1/agents/:agentId/files"),
            ("get_file", "GET /v1/agents/:agentId/files/:path"),
            ("put_file", "PUT /v1/agents/:agentId/files/:path"),
            ("delete_file", "DELETE /v1/agents/:agentId/files/:path"),
        ],
    ),
    (
        "environments",
        &[
            ("create", "POST /v1/environments"),
            ("list", "GET /v1/environments"),
            ("get", "GET /v1/environments/:environmentId"),
            ("delete", "DELETE /v1/environments/:environmentId"),
            ("build", "GET /v1/environments/:environmentId/build"),
        ],
    ),
    (
        "vaults",
        &[
            ("create", "POST /v1/vaults"),
            ("list", "GET /v1/vaults"),
            ("get", "GET /v1/vaults/:vaultId"),
            ("update", "PATCH /v1/vaults/:vaultId"),
            ("delete", "DELETE /v1/vaults/:vaultId"),
            ("add_credential", "POST /v1/vaults/:vaultId/credentials"),
            ("list_credentials", "GET /v1/vaults/:vaultId/credentials"),
            (
                "get_credential",
                "GET /v1/vaults/:vaultId/credentials/:credentialId",
            ),
            (
                "update_credential",
                "PATCH /v1/vaults/:vaultId/credentials/:credentialId",
            ),
            (
                "delete_credential",
                "DELETE /v1/vaults/:vaultId/credentials/:credentialId",
            ),
        ],
    ),
    (
        "sessions",
        &[
            ("create", "POST /v1/sessions"),
            ("list", "GET /v1/sessions"),
            ("get", "GET /v1/sessions/:sessionId"),
            ("delete", "DELETE /v1/sessions/:sessionId"),
            ("post_event", "POST /v1/sessions/:sessionId/events"),
            ("list_events", "GET /v1/sessions/:sessionId/events"),
            ("stream_events", "GET /v1/sessions/:sessionId/events?stream=true"),
            ("cancel", "POST /v1/sessions/:sessionId/cancel"),
            ("compact", "POST /v1/sessions/:sessionId/compact"),
            ("create_checkpoint", "POST /v1/sessions/:sessionId/checkpoints"),
            ("list_checkpoints", "GET /v1/sessions/:sessionId/checkpoints"),
            (
                "get_checkpoint",
                "GET /v1/sessions/:sessionId/checkpoints/:checkpointId",
            ),
            (
                "delete_checkpoint",
                "DELETE /v1/sessions/:sessionId/checkpoints/:checkpointId",
            ),
            ("restore", "POST /v1/sessions/:sessionId/restore"),
            ("logs", "GET /v1/sessions/:sessionId/logs"),
            ("parent_token", "POST /v1/sessions/:sessionId/parent_token"),
        ],
    ),
    ("usage", &[("list", "GET /v1/usage")]),
    (
        "workspaces",
        &[
            ("create", "POST /v1/workspaces"),
            ("list", "GET /v1/workspaces"),
            ("get", "GET /v1/workspaces/:workspaceId"),
            ("update", "PATCH /v1/workspaces/:workspaceId"),
        ],
    ),
    (
        "keys",
        &[
            ("create", "POST /v1/keys"),
            ("list", "GET /v1/keys"),
            ("get", "GET /v1/keys/:keyId"),
            ("update", "PATCH /v1/keys/:keyId"),
            ("rotate", "POST /v1/keys/:keyId/rotate"),
            ("revoke", "DELETE /v1/keys/:keyId"),
        ],
    ),
    (
        "signup",
        &[
            ("anonymous", "POST /auth/anonymous"),
            ("github", "GET /auth/github"),
            ("github_callback", "GET /auth/github/callback"),
            ("me", "GET /auth/me"),
        ],
    ),
    ("audit", &[("list", "GET /v1/audit")]),
    (
        "openai_compat",
        &[
            ("models", "GET /v1/models"),
            ("chat_completions", "POST /v1/chat/completions"),
        ],
    ),
    (
        "health",
        &[
            ("liveness", "GET /healthz"),
            ("readiness", "GET /readyz"),
            ("metrics", "GET /metrics"),
        ],
    ),
];

/// The routes as the description lists them.
pub(crate) fn endpoints() -> Value {
    let groups = ENDPOINTS.iter().map(|(group, routes)| {
        let routes: Map<String, Value> = routes
            .iter()
            .map(|(name, route)| ((*name).to_owned(), json!(route)))
            .collect();
        ((*group).to_owned(), Value::Object(routes))
    });
    Value::Object(groups.collect())
}

/// Describe the server.
///
/// A browser is sent to the reference.
#[utoipa::path(
    get, path = "/", tag = "server", security(()),
    responses((status = 200, body = Description), (status = 302, description = "To the reference")),
)]
async fn root(State(state): State<AppState>, headers: HeaderMap) -> Response {
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accepts.is_some_and(|accepts| accepts.contains("text/html")) {
        return (StatusCode::FOUND, [(header::LOCATION, "/docs")]).into_response();
    }
    let required = state.config.api_token.is_some();
    Json(Description {
        name: "OpenClaw Managed Agents",
        description: "Runs autonomous AI agent sessions behind an HTTP API",
        version: state.config.version.clone(),
        docs: "/docs",
        auth: if required {
            "required (Authorization: Bearer <OPENCLAW_API_TOKEN>)"
        } else {
            "disabled"
        },
        rate_limit: match state.config.rate_limit_rpm {
            0 => "disabled".to_owned(),
            requests => format!("{requests} requests per minute and key"),
        },
        endpoints: endpoints(),
    })
    .into_response()
}

/// That the server lives.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// Always true.
    ok: bool,
    version: String,
    commit: String,
    /// When the process started, in milliseconds since the epoch.
    start_ts: i64,
    /// Milliseconds since then.
    uptime_ms: u64,
    /// The most sandboxes that are started in advance.
    max_warm: usize,
    /// The most turns at once.
    max_active: usize,
}

/// Say that the process lives.
///
/// Touches neither the store nor a sandbox.
#[utoipa::path(get, path = "/healthz", tag = "server", security(()), responses((status = 200, body = Health)))]
async fn healthz(State(state): State<AppState>) -> Json<Health> {
    let config = &state.config;
    let stats = state.engine.stats();
    Json(Health {
        ok: true,
        version: config.version.clone(),
        commit: config.commit.clone(),
        start_ts: config.started_at.as_millis(),
        uptime_ms: oma_engine::now().millis_since(config.started_at),
        max_warm: stats.max_warm,
        max_active: stats.max_turns,
    })
}

/// That the server can take work.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Ready {
    /// Always true; otherwise the answer is an error.
    ok: bool,
}

/// Say whether the server can take work.
///
/// Asks the store whether it accepts writes, at most once a second however many ask. A server that stops says so at once,
/// while it still answers.
#[utoipa::path(
    get, path = "/readyz", tag = "server", security(()),
    responses((status = 200, body = Ready), (status = 503, body = ErrorBody), (status = 507, body = ErrorBody)),
)]
async fn readyz(State(state): State<AppState>) -> Result<Json<Ready>> {
    state.readiness.ask(&state.engine).await?;
    Ok(Json(Ready { ok: true }))
}

/// Read the metrics.
///
/// In Prometheus' text format, or in OpenMetrics' where `Accept` prefers `application/openmetrics-text`.
#[utoipa::path(
    get, path = "/metrics", tag = "server", security(()),
    responses(
        (status = 200, content((String = "text/plain"), (String = "application/openmetrics-text"))),
        (status = 404, body = ErrorBody),
    ),
)]
async fn metrics(State(state): State<AppState>, headers: HeaderMap) -> Result<Response> {
    let Some(handle) = &state.metrics else {
        return Err(Fault::new(
            StatusCode::NOT_FOUND,
            "metrics_disabled",
            "This process records no metrics",
        ));
    };
    crate::telemetry::sample(&state.engine);
    let text = handle.render();
    let (content_type, text) = if openmetrics::is_asked_for(&headers) {
        (openmetrics::CONTENT_TYPE, openmetrics::from_prometheus(&text))
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", text)
    };
    let headers = [(header::CONTENT_TYPE, content_type), (header::VARY, "accept")];
    Ok((headers, text).into_response())
}

/// Read this document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "server", security(()),
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json")),
)]
async fn openapi_json() -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    match crate::openapi::document_text() {
        Ok(text) => (content_type, text).into_response(),
        Err(error) => Fault::internal(format!("the API document can't be worded: {error}")).into_response(),
    }
}
