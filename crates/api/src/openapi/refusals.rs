//! The answers that are no success, in one place: what stands in front of the routes, and what reads their bodies,
//! gives them for all routes alike, so no handler lists them.

use std::collections::BTreeMap;

use utoipa::openapi::path::{Operation, PathItem, Paths};
use utoipa::openapi::response::Response;
use utoipa::openapi::{Components, ContentBuilder, Ref, RefOr, ResponseBuilder};

use crate::auth::OPEN_PATHS;
use crate::dialect::CHAT_PATH;
use crate::rate;

/// A status with its name in the document and what it means.
type Refusal = (u16, &'static str, &'static str);

const REFUSALS: [Refusal; 16] = [
    (
        400,
        "BadRequest",
        "The request is not valid; `details` names each part that is not.",
    ),
    (401, "Unauthorized", "No valid key came with the request."),
    (
        403,
        "Forbidden",
        "The key's scope does not reach that far; or, on a server without a token, the request came by a host name or \
         from a web origin that is not allowed.",
    ),
    (
        404,
        "NotFound",
        "What the path, the query or the body names is not there for this caller.",
    ),
    (408, "RequestTimeout", "The body did not arrive in time."),
    (
        409,
        "Conflict",
        "What is named is in a state that does not allow it.",
    ),
    (
        413,
        "TooLarge",
        "The body, or the file, is longer than the server takes.",
    ),
    (415, "UnsupportedEncoding", "The body has a `Content-Encoding`."),
    (
        422,
        "KeyReused",
        "The idempotency key was used for another request.",
    ),
    (
        429,
        "TooMany",
        "Too many requests in this minute, too many waiting messages, or a budget that is used up. `Retry-After` says \
         when it helps to ask again.",
    ),
    (
        500,
        "Internal",
        "A fault of the server's own; its log has more under the request's id.",
    ),
    (
        502,
        "BadGateway",
        "Somebody whom the server had to ask did not answer as they should.",
    ),
    (
        503,
        "Unavailable",
        "The server can't take this now: it is stopping, has too much to do, or a store that it needs is away. `Retry-After` \
         says when to ask again.",
    ),
    (504, "TimedOut", "The turn took too long and was stopped."),
    (501, "NotImplemented", "This server does not do that."),
    (507, "NoRoom", "The disk, or the workspace, is full."),
];

/// Which error shape a path's refusals have.
fn schema(path: &str) -> &'static str {
    if path == CHAT_PATH {
        "ChatErrorBody"
    } else {
        "ErrorBody"
    }
}

fn component(path: &str, name: &str) -> String {
    let prefix = if path == CHAT_PATH { "Chat" } else { "" };
    format!("{prefix}{name}")
}

/// Says in an operation how it may refuse: as its handler declares, and as all like it do.
fn complete(path: &str, method: &str, operation: &mut Operation) {
    let answers = &mut operation.responses.responses;
    let mut statuses: Vec<u16> = Vec::new();
    if !OPEN_PATHS.contains(&path) {
        statuses.extend([400, 401, 403, 429, 500, 503]);
    } else if !rate::EXEMPT.contains(&path) {
        statuses.extend([403, 429]);
    }
    if operation.request_body.is_some() {
        statuses.extend([400, 408, 413]);
        // A file is kept as it comes, however it is encoded.
        if method != "put" {
            statuses.push(415);
        }
    }
    if method != "get" {
        statuses.push(507);
    }
    let mut parameters = operation.parameters.iter().flatten();
    if parameters.any(|it| matches!(it, RefOr::T(it) if it.name == "Idempotency-Key")) {
        statuses.push(422);
    }
    statuses.extend(answers.keys().filter_map(|status| status.parse::<u16>().ok()));
    for (status, name, _) in REFUSALS.iter().filter(|(status, ..)| statuses.contains(status)) {
        let reference = Ref::from_response_name(component(path, name));
        answers.insert(status.to_string(), RefOr::Ref(reference));
    }
}

/// The operations of a path, with their methods.
pub(super) fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let operations = [
        ("get", &mut item.get),
        ("put", &mut item.put),
        ("post", &mut item.post),
        ("delete", &mut item.delete),
        ("patch", &mut item.patch),
    ];
    operations
        .into_iter()
        .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// Defines the answers that operations refer to.
pub(super) fn define(components: &mut Components, paths: &mut Paths) {
    let mut used: BTreeMap<String, RefOr<Response>> = BTreeMap::new();
    for (path, item) in &mut paths.paths {
        for (method, operation) in operations(item) {
            complete(path, method, operation);
            for (status, name, text) in REFUSALS {
                if operation.responses.responses.contains_key(&status.to_string()) {
                    let content = ContentBuilder::new()
                        .schema(Some(Ref::from_schema_name(schema(path))))
                        .build();
                    let response = ResponseBuilder::new()
                        .description(text)
                        .content("application/json", content)
                        .build();
                    used.insert(component(path, name), RefOr::T(response));
                }
            }
        }
    }
    components.responses = used;
}
