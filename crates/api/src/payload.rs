//! A request's body as JSON, and the idempotency key that came with it.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use oma_engine::IdempotencyKey;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::AppState;
use crate::fault::{Fault, Result};
use crate::limits::{self, read_body};

/// A body, read in full but not validated yet.
pub(crate) struct Payload {
    /// The JSON value. Like in the reference, whatever is not JSON counts as an empty object.
    pub(crate) value: Value,
    /// The idempotency key, bound to this very request.
    pub(crate) key: Option<IdempotencyKey>,
}

impl FromRequest<AppState> for Payload {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &AppState) -> Result<Self> {
        let (parts, body) = request.into_parts();
        Self::read(state, &parts.method, &parts.uri, &parts.headers, body).await
    }
}

impl Payload {
    async fn read(
        state: &AppState,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Self> {
        let config = &state.config;
        let bytes = read_body(
            headers,
            body,
            config.max_json_body,
            config.body_idle_timeout,
            config.body_timeout,
        )
        .await?;
        let Ok(text) = std::str::from_utf8(&bytes) else {
            return Err(Fault::new(
                StatusCode::BAD_REQUEST,
                "invalid_body",
                "The body is not valid UTF-8",
            ));
        };
        let value = serde_json::from_str(text).unwrap_or_else(|_| Value::Object(Map::new()));
        let key = idempotency_key(method, uri, headers, &bytes)?;
        Ok(Self { value, key })
    }
}

fn idempotency_key(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Option<IdempotencyKey>> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = value.to_str().unwrap_or_default().trim();
    let sane =
        !key.is_empty() && key.len() <= limits::IDEMPOTENCY_KEY && key.bytes().all(|b| b.is_ascii_graphic());
    if !sane {
        let message = format!(
            "Idempotency-Key must be 1 to {} visible ASCII characters",
            limits::IDEMPOTENCY_KEY
        );
        return Err(Fault::new(StatusCode::BAD_REQUEST, "invalid_request", message));
    }
    let mut digest = Sha256::new();
    // The parts are of variable length: what can't occur in the first two keeps them apart.
    digest.update(method.as_str().as_bytes());
    digest.update(b"\0");
    digest.update(uri.path().as_bytes());
    digest.update(b"\0");
    digest.update(body);
    Ok(Some(IdempotencyKey {
        key: key.to_owned(),
        fingerprint: hex::encode(digest.finalize()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(method: Method, path: &'static str, given: &str, body: &str) -> Result<Option<IdempotencyKey>> {
        let mut headers = HeaderMap::new();
        headers.insert("idempotency-key", given.parse().expect("legal header"));
        idempotency_key(&method, &Uri::from_static(path), &headers, body.as_bytes())
    }

    #[test]
    fn a_key_is_bound_to_method_path_and_body() {
        let one = key(Method::POST, "/v1/agents", " k ", "{}")
            .expect("sane")
            .expect("present");
        assert_eq!(one.key, "k");
        assert_eq!(
            Some(one.clone()),
            key(Method::POST, "/v1/agents", "k", "{}").expect("sane")
        );
        for (method, path, body) in [
            (Method::PUT, "/v1/agents", "{}"),
            (Method::POST, "/v1/agent", "s{}"),
            (Method::POST, "/v1/agents", ""),
        ] {
            let other = key(method, path, "k", body).expect("sane").expect("present");
            assert_ne!(one.fingerprint, other.fingerprint, "{path} {body}");
        }
    }

    #[test]
    fn odd_keys_are_refused() {
        for given in ["", "  ", "a b", &"k".repeat(257)] {
            let fault = key(Method::POST, "/", given, "").expect_err("odd");
            assert_eq!(fault.status(), StatusCode::BAD_REQUEST, "{given:?}");
        }
        assert_eq!(
            idempotency_key(&Method::POST, &Uri::from_static("/"), &HeaderMap::new(), b""),
            Ok(None)
        );
    }
}
