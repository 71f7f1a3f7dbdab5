//! The statuses that the API's description declares.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use axum::http::{Method, Request};
use serde_json::Value;

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::to_value(oma_api::openapi::document()).unwrap());

/// The statuses that a request may be answered with; `None` when no operation is meant for it.
pub(crate) fn statuses<B>(request: &Request<B>) -> Option<BTreeSet<u16>> {
    if request.headers().contains_key("anthropic-version") {
        return None;
    }
    let method = match *request.method() {
        Method::HEAD => "get".to_owned(),
        ref method => method.as_str().to_lowercase(),
    };
    let path = request.uri().path();
    let mut paths = DOCUMENT["paths"].as_object().unwrap().iter();
    let (_, item) = paths.find(|(template, _)| is_meant(template, path))?;
    let responses = item[&method]["responses"].as_object()?;
    Some(responses.keys().map(|status| status.parse().unwrap()).collect())
}

/// Whether a path is one of a template's. The last parameter of a few takes more than one segment.
fn is_meant(template: &str, path: &str) -> bool {
    let takes_rest = template.ends_with("/{path}") || template.ends_with("/{model}");
    let mut segments = path.split('/');
    let mut parts = template.split('/').peekable();
    while let Some(part) = parts.next() {
        let Some(segment) = segments.next() else {
            return false;
        };
        if takes_rest && parts.peek().is_none() {
            return true;
        }
        let fits = part == segment || (part.starts_with('{') && !segment.is_empty());
        if !fits {
            return false;
        }
    }
    segments.next().is_none()
}
