//! The API's description, made from the handlers themselves. The copy at the root of the repository is checked
//! against it by a test; `UPDATE_OPENAPI=1` writes it anew.

mod refusals;

use std::sync::LazyLock;

use utoipa::openapi::path::PathItem;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ContactBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, SecurityRequirement,
};
use utoipa_axum::router::OpenApiRouter;

use crate::dialects::{openai, openclaw};
use crate::{AppState, infra};

const DESCRIPTION: &str = "Runs autonomous AI agent sessions: create an agent, open a session, post a message, \
read or stream what happens.\n\nTimes are milliseconds since the epoch. Every refusal by this API has a JSON body: `ErrorBody`, or \
`ChatErrorBody` for `/v1/chat/completions`. Requests with an `anthropic-version` header get errors in Anthropic's shape, for \
now always 501. What is no HTTP at all, or has a head that is too large, is refused without a body. An empty body counts \
as an empty object, whatever its `Content-Type`; one that is not JSON is refused. Fields and query parameters that a route does not know are ignored, except within \
`quota` and `packages`; those that it knows are checked. Lists are paged with `limit` and `after`; without them a list holds everything up to a stated limit, and \
`has_more` says whether that was all. With an `Idempotency-Key` header a POST takes effect once, however often \
it is repeated, also over restarts of the server.";

/// All routes with their descriptions.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(infra::routes())
        .merge(openclaw::models::routes())
        .merge(openclaw::agents::routes())
        .merge(openclaw::files::routes())
        .merge(openclaw::environments::routes())
        .merge(openclaw::vaults::routes())
        .merge(openclaw::usage::routes())
        .merge(openclaw::sessions::routes())
        .merge(openclaw::checkpoints::routes())
        .merge(openclaw::events::routes())
        .merge(openclaw::workspaces::routes())
        .merge(openclaw::keys::routes())
        .merge(openclaw::audit::routes())
        .merge(crate::signup::routes())
        .merge(openai::routes())
}

static DOCUMENT: LazyLock<OpenApi> = LazyLock::new(build);
static TEXT: LazyLock<Result<String, String>> = LazyLock::new(|| {
    DOCUMENT
        .to_pretty_json()
        .map(|text| text + "\n")
        .map_err(|error| error.to_string())
});

/// The API's description.
#[must_use]
pub fn document() -> OpenApi {
    DOCUMENT.clone()
}

/// The API's description as JSON text.
///
/// # Errors
/// The reason why it can't be worded, which would be a fault of ours.
pub fn document_text() -> Result<String, String> {
    TEXT.clone()
}

fn build() -> OpenApi {
    let (_, routes) = routes().split_for_parts();
    let info = InfoBuilder::new()
        .title("OpenClaw Managed Agents")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION))
        .license(Some(
            LicenseBuilder::new().name("MIT").identifier(Some("MIT")).build(),
        ))
        .contact(Some(
            ContactBuilder::new()
                .url(Some(env!("CARGO_PKG_REPOSITORY")))
                .build(),
        ))
        .build();
    let tags = [
        ("agents", "Versioned definitions of what a session runs."),
        (
            "sessions",
            "Conversations with an agent, each with a log and a workspace of its own.",
        ),
        (
            "checkpoints",
            "Saved states of sessions' workspaces, to be put back there or in another session.",
        ),
        ("events", "What happens in a session: post, list, stream."),
        ("files", "The workspaces of sessions."),
        (
            "environments",
            "What a session's sandbox contains and what it may reach.",
        ),
        (
            "vaults",
            "The credentials with which MCP servers are called. Secrets go in and never come out.",
        ),
        ("models", "The models that agents may name."),
        ("usage", "What model requests consumed."),
        ("chat", "OpenAI's chat completions, answered by agents."),
        (
            "workspaces",
            "The tenants of a server: everything belongs to one.",
        ),
        (
            "keys",
            "API keys: each opens one workspace, as far as its scope goes.",
        ),
        ("signup", "Signing up, where the operator has turned it on."),
        ("audit", "Who changed what, and how it went."),
        ("server", "Health, metrics and this document. Open to everybody."),
    ];
    let tags = tags.map(|(name, text)| TagBuilder::new().name(name).description(Some(text)).build());
    let mut document = OpenApiBuilder::new()
        .info(info)
        .tags(Some(tags))
        .security(Some([SecurityRequirement::new("api_key", [] as [&str; 0])]))
        .build();
    document.merge(routes);
    let bearer = Http::builder()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "An API key, or the server's OPENCLAW_API_TOKEN, which is the operator's. A server without a token asks for no key.",
        ))
        .build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("api_key", SecurityScheme::Http(bearer));
    let parent = ApiKeyValue::with_description(
        "X-OpenClaw-Parent-Token",
        "A parent token, in place of an API key. It may open sessions of the agents that it lists, and post to and read \
those; nothing else.",
    );
    let parent = SecurityScheme::ApiKey(ApiKey::Header(parent));
    components.add_security_scheme("parent_token", parent);
    // The router marks a parameter that takes the rest of a path with an asterisk; OpenAPI has no word for that.
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths = paths
        .into_iter()
        .map(|(path, item)| (path.replace("{*", "{"), named(item)))
        .collect();
    let components = document.components.get_or_insert_default();
    refusals::define(components, &mut document.paths);
    document
}

/// Makes the names of operations unique, because a handler is called `list` in more than one module, and their
/// summaries titles.
fn named(mut item: PathItem) -> PathItem {
    for (_, operation) in refusals::operations(&mut item) {
        let tag = operation
            .tags
            .iter()
            .flatten()
            .next()
            .map_or("server", String::as_str);
        let name = operation.operation_id.as_deref().unwrap_or_default();
        operation.operation_id = Some(format!("{tag}_{name}"));
        // A handler's first line is a sentence, a summary is a title.
        operation.summary = operation
            .summary
            .as_deref()
            .map(|text| text.trim_end_matches('.').to_owned());
    }
    item
}
