//! A request's body as JSON, and the idempotency key that came with it.
//!
//! Like in the reference, no `Content-Type` is asked for, and a body without anything in it counts as an empty object.
//! What is there and is no JSON is refused with what is wrong and where: taken for an empty object, it would be refused
//! for fields that it has, or carried out without them.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use oma_engine::IdempotencyKey;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::AppState;
use crate::fault::{Fault, Result};
use crate::limits::{self, read_body};
use crate::validate::{self, Tree};

/// A body, read in full but not validated yet.
pub(crate) struct Payload {
    /// The JSON value, or why there is none.
    value: Result<Value>,
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
    /// The body as what the route takes.
    ///
    /// # Errors
    /// 400 `invalid_request`, with all that is wrong.
    pub(crate) fn parse<T: validate::Body>(&self) -> Result<T> {
        match &self.value {
            Ok(value) => T::parse(value),
            Err(fault) => Err(fault.clone()),
        }
    }

    /// The body as JSON, whatever it is, and the idempotency key.
    ///
    /// # Errors
    /// 400 `invalid_request` when it is no JSON.
    pub(crate) fn into_parts(self) -> Result<(Value, Option<IdempotencyKey>)> {
        Ok((self.value?, self.key))
    }

    async fn read(
        state: &AppState,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Self> {
        let encoding = headers.get(header::CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(Fault::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_encoding",
                "Bodies are taken as they are, without any Content-Encoding",
            ));
        }
        let config = &state.config;
        let bytes = read_body(
            headers,
            body,
            config.max_json_body,
            config.body_idle_timeout,
            config.body_timeout,
        )
        .await?;
        let text = match std::str::from_utf8(&bytes) {
            Ok(text) => text,
            Err(error) => {
                let message = format!("The body is not valid UTF-8 from byte {} on", error.valid_up_to());
                return Err(Fault::new(StatusCode::BAD_REQUEST, "invalid_body", message));
            }
        };
        let key = idempotency_key(method, uri, headers, &bytes)?;
        Ok(Self {
            value: json(text),
            key,
        })
    }
}

/// Some editors and shells begin a file with this mark; it is no part of the text.
const BYTE_ORDER_MARK: char = '\u{feff}';

fn json(text: &str) -> Result<Value> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    if text.trim_ascii().is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    serde_json::from_str(text).map_err(|error| {
        // The parser names the problem and its place, and repeats nothing of the text.
        let problem = error.to_string();
        let hint = if problem.contains("hex escape") || problem.contains("surrogate") {
            "; half of a surrogate pair (\\ud800 to \\udfff) stands for nothing by itself"
        } else {
            ""
        };
        let mut issues = Tree::default();
        issues.push(format!("The body is not valid JSON: {problem}{hint}"));
        Fault::invalid(&issues)
    })
}

/// The key of a request, bound to it by what tells its body from others.
pub(crate) fn idempotency_key(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Option<IdempotencyKey>> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let key = value.to_str().unwrap_or_default().trim();
    let sane = values.next().is_none()
        && !key.is_empty()
        && key.len() <= limits::IDEMPOTENCY_KEY
        && key.bytes().all(|b| b.is_ascii_graphic());
    if !sane {
        let message = format!(
            "Idempotency-Key must be given once, as 1 to {} visible ASCII characters",
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
    fn what_is_no_json_is_refused_with_its_place() {
        for (text, expected) in [
            ("", Ok(r"{}")),
            (" \n", Ok(r"{}")),
            ("\u{feff}", Ok(r"{}")),
            ("\u{feff}{\"a\":1}", Ok(r#"{"a":1}"#)),
            (r#"{"a":"\ud83d\ude00"}"#, Ok("{\"a\":\"\u{1f600}\"}")),
            (r#"{"content":"\ud800"}"#, Err("surrogate")),
            (r#"{"content":"\udc00x"}"#, Err("surrogate")),
            ("{", Err("EOF while parsing an object at line 1 column 1")),
            ("{\n\"a\": 1,}", Err("trailing comma at line 2 column 8")),
            ("{} {}", Err("trailing characters at line 1 column 4")),
            ("{'a': 1}", Err("at line 1 column 2")),
            ("{\"a\": 1e999}", Err("number out of range at line 1")),
            ("{\"a\": \"\u{0}\"}", Err("control character")),
            ("\u{feff}\u{feff}{}", Err("line 1 column 1")),
        ] {
            match (json(text), expected) {
                (Ok(value), Ok(expected)) => assert_eq!(value.to_string(), expected, "{text:?}"),
                (Err(fault), Err(expected)) => {
                    assert_eq!(
                        (fault.status(), fault.code()),
                        (StatusCode::BAD_REQUEST, "invalid_request")
                    );
                    let said = fault.details().map(ToString::to_string).unwrap_or_default();
                    assert!(said.contains("The body is not valid JSON"), "{text:?}: {said}");
                    assert!(said.contains(expected), "{text:?}: {said}");
                }
                (found, _) => panic!("{text:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn odd_keys_are_refused() {
        for given in ["", "  ", "a b", &"k".repeat(257)] {
            let fault = key(Method::POST, "/", given, "").expect_err("odd");
            assert_eq!(fault.status(), StatusCode::BAD_REQUEST, "{given:?}");
        }
        let asked =
            |headers: &HeaderMap| idempotency_key(&Method::POST, &Uri::from_static("/"), headers, b"");
        let mut headers = HeaderMap::new();
        assert_eq!(asked(&headers), Ok(None));
        for key in ["a", "b"] {
            headers.append("idempotency-key", key.parse().expect("legal header"));
        }
        assert_eq!(
            asked(&headers).expect_err("two").status(),
            StatusCode::BAD_REQUEST
        );
    }
}
