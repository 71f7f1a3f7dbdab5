//! Without a key, the only thing between a web page and this server is the browser. This guard keeps pages of
//! other sites out: a name that was rebound to this address is refused by its `Host`, and a page of another
//! origin can't change anything. With a key neither is needed, because no browser adds the key by itself.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::fault::Fault;
use crate::{ApiConfig, AppState};

/// Probes of orchestrators name the machine's address, and learn nothing that a page could use.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// Refuses requests that a foreign web page may have caused.
pub(crate) async fn guard(State(state): State<AppState>, request: Request, next: Next) -> Response {
    if state.config.api_token.is_none()
        && !PROBES.contains(&request.uri().path())
        && let Err(fault) = check(&state.config, request.method(), request.uri(), request.headers())
    {
        return fault.into_response();
    }
    next.run(request).await
}

fn check(config: &ApiConfig, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Fault> {
    let host = host(uri, headers);
    if !host.as_ref().is_some_and(|host| host_allowed(config, host)) {
        let message = "This server does not answer under that host name; see the setting for allowed hosts";
        return Err(Fault::new(StatusCode::FORBIDDEN, "host_not_allowed", message));
    }
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if reads || origin_allowed(config, host.as_ref(), headers) {
        return Ok(());
    }
    let message = "Pages of other origins may not change anything here; see the setting for allowed origins";
    Err(Fault::new(StatusCode::FORBIDDEN, "cross_origin", message))
}

/// HTTP/2 requests carry the host in the address, HTTP/1 requests in a header.
fn host(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    if let Some(authority) = uri.authority() {
        return Some(authority.clone());
    }
    headers.get(header::HOST)?.to_str().ok()?.parse().ok()
}

fn host_allowed(config: &ApiConfig, host: &Authority) -> bool {
    let name = host
        .host()
        .trim_end_matches('.')
        .trim_start_matches('[')
        .trim_end_matches(']');
    if name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost") {
        return true;
    }
    // A page that was lured here by a name of its own (DNS rebinding) can't say an address instead of it.
    if name.parse::<IpAddr>().is_ok() {
        return true;
    }
    config.allowed_hosts.iter().any(|allowed| {
        allowed == "*" || allowed.eq_ignore_ascii_case(host.as_str()) || allowed.eq_ignore_ascii_case(name)
    })
}

fn origin_allowed(config: &ApiConfig, host: Option<&Authority>, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("invalid"));
    if let Some(origin) = text("origin") {
        let same = origin
            .split_once("://")
            .is_some_and(|(_, rest)| host.is_some_and(|host| rest.eq_ignore_ascii_case(host.as_str())));
        return same
            || config
                .allowed_origins
                .iter()
                .any(|allowed| allowed.eq_ignore_ascii_case(origin));
    }
    // Browsers that send no Origin still say where a request comes from; programs send neither.
    text("sec-fetch-site").is_none_or(|site| matches!(site, "same-origin" | "none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(method: &Method, headers: &[(&'static str, &str)]) -> &'static str {
        let config = ApiConfig {
            allowed_hosts: vec!["agents.lan".into(), "10.1.2.3:8080".into()],
            allowed_origins: vec!["https://console.example".into()],
            ..ApiConfig::default()
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().expect("legal header"));
        }
        match check(&config, method, &Uri::from_static("/v1/agents"), &map) {
            Ok(()) => "ok",
            Err(fault) => fault.code(),
        }
    }

    #[test]
    fn hosts() {
        for (host, outcome) in [
            ("localhost:8080", "ok"),
            ("LOCALHOST", "ok"),
            ("app.localhost:1", "ok"),
            ("127.0.0.1:8080", "ok"),
            ("127.9.9.9", "ok"),
            ("[::1]:8080", "ok"),
            ("agents.lan", "ok"),
            ("agents.lan:8080", "ok"),
            ("10.1.2.3:8080", "ok"),
            ("10.1.2.3:9090", "ok"),
            ("[fd00::7]:8080", "ok"),
            ("10.1.2.3.evil.example", "host_not_allowed"),
            ("evil.example:8080", "host_not_allowed"),
            ("127.0.0.1.evil.example", "host_not_allowed"),
            ("localhost.evil.example", "host_not_allowed"),
            ("xlocalhost", "host_not_allowed"),
            ("not a host", "host_not_allowed"),
        ] {
            assert_eq!(run(&Method::GET, &[("host", host)]), outcome, "{host}");
        }
        assert_eq!(run(&Method::GET, &[]), "host_not_allowed");
    }

    #[test]
    fn origins() {
        let local = ("host", "localhost:8080");
        for (header, outcome) in [
            (("x-nothing", "x"), "ok"),
            (("origin", "http://localhost:8080"), "ok"),
            (("origin", "https://console.example"), "ok"),
            (("origin", "http://localhost:3000"), "cross_origin"),
            (("origin", "https://evil.example"), "cross_origin"),
            (("origin", "null"), "cross_origin"),
            (("sec-fetch-site", "same-origin"), "ok"),
            (("sec-fetch-site", "none"), "ok"),
            (("sec-fetch-site", "same-site"), "cross_origin"),
            (("sec-fetch-site", "cross-site"), "cross_origin"),
        ] {
            for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
                assert_eq!(run(&method, &[local, header]), outcome, "{method} {header:?}");
            }
            assert_eq!(run(&Method::GET, &[local, header]), "ok", "{header:?}");
        }
    }
}
