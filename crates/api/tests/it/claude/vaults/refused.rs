//! Bodies that are refused.

use serde_json::{Value, json};

use super::variables::variable;
use super::{CANARY, bearer, oauth, vault, with};
use crate::claude::{Claude, fault, id};

#[tokio::test]
async fn bad_bodies_are_refused_by_field_and_repeat_no_secret() {
    let claude = Claude::start().await;
    let path = format!("/v1/vaults/{}/credentials", vault(&claude).await);
    let fixed = bearer("https://b.example/");
    let one = format!("{path}/{}", id(&claude.post(&path, &oauth()).await));
    let other = format!("{path}/{}", id(&claude.post(&path, &fixed).await));
    let plain = with(&oauth(), "/auth/mcp_server_url", json!("https://c.example/"));
    let plain = with(&plain, "/auth/refresh", Value::Null);
    let plain = format!("{path}/{}", id(&claude.post(&path, &plain).await));
    let vaults = "/v1/vaults".to_owned();
    let oauth = with(&oauth(), "/auth/mcp_server_url", json!("https://d.example/"));
    let change = |auth: Value| json!({ "auth": auth });
    for (path, body, problem) in [
        (&vaults, json!({}), "display_name: Required"),
        (
            &vaults,
            json!({"display_name": ""}),
            "display_name: String must contain",
        ),
        (
            &vaults,
            json!({"display_name": "x".repeat(256)}),
            "display_name: String must contain",
        ),
        (
            &vaults,
            json!({"display_name": "x", "user_id": "u"}),
            "user_id: Extra inputs are not permitted",
        ),
        (
            &vaults,
            json!({"display_name": "x", "metadata": {"a": 1}}),
            "metadata.a: Expected string",
        ),
        (&path, json!({}), "auth: Required"),
        (
            &path,
            change(json!({"type": "basic"})),
            "auth.type: Invalid discriminator",
        ),
        (
            &path,
            change(json!({"type": "environment_variable", "secret_name": "A"})),
            "auth.secret_value: Required",
        ),
        (
            &path,
            with(&variable(), "/auth/secret_name", json!("A-B")),
            "auth.secret_name: Must be the name of a variable",
        ),
        (
            &path,
            with(&variable(), "/auth/secret_name", json!("HTTPS_PROXY")),
            "auth.secret_name: The sandbox gives",
        ),
        (
            &path,
            with(&variable(), "/auth/secret_name", json!("SSL_CERT_FILE")),
            "auth.secret_name: The sandbox gives",
        ),
        (
            &path,
            with(&variable(), "/auth/secret_name", json!("LD_PRELOAD")),
            "auth.secret_name: The sandbox gives",
        ),
        (
            &path,
            with(&variable(), "/auth/secret_value", json!("canary-")),
            "auth.secret_value: String must contain at least 8",
        ),
        (
            &path,
            with(&variable(), "/auth/secret_value", json!("canary-\r\nX: y")),
            "auth.secret_value: it has control characters",
        ),
        (
            &path,
            with(&variable(), "/auth/secret_value", json!(" canary-value")),
            "auth.secret_value: it has white space around it",
        ),
        (
            &path,
            with(&variable(), "/auth/secret_value", json!("ü".repeat(8_000))),
            "auth.secret_value: it must have at most 8192 bytes",
        ),
        (
            &path,
            with(&variable(), "/auth/networking", json!({"type": "limited"})),
            "auth.networking.allowed_hosts: Required",
        ),
        (
            &path,
            with(
                &variable(),
                "/auth/networking",
                json!({"type": "limited", "allowed_hosts": ["10.0.0.1"]}),
            ),
            "auth.networking.allowed_hosts.0: ",
        ),
        (
            &path,
            with(
                &variable(),
                "/auth/networking",
                json!({"type": "limited", "allowed_hosts": vec!["a.example"; 17]}),
            ),
            "auth.networking.allowed_hosts: Array must contain at most 16",
        ),
        (
            &path,
            with(&variable(), "/auth/injection_location", json!({"header": false})),
            "auth.injection_location: the secret has to be put somewhere",
        ),
        (
            &path,
            with(&variable(), "/auth/injection_location", Value::Null),
            "auth.injection_location: ",
        ),
        (
            &path,
            with(&variable(), "/auth/injection_location", json!({"path": true})),
            "auth.injection_location.path: Extra inputs",
        ),
        (
            &path,
            with(&variable(), "/auth/token", json!("canary")),
            "auth.token: Extra inputs",
        ),
        (
            &path,
            with(&fixed, "/auth/token", json!("canary with space")),
            "auth.token: it has characters",
        ),
        (
            &path,
            with(&fixed, "/auth/access_token", json!("canary")),
            "auth.access_token: Extra inputs",
        ),
        (
            &path,
            with(&fixed, "/auth/mcp_server_url", json!("a.example")),
            "auth.mcp_server_url: ",
        ),
        (
            &path,
            with(&fixed, "/auth/mcp_server_url", json!("http://a.example/")),
            "auth.mcp_server_url: A token is sent over https only",
        ),
        (
            &path,
            with(&fixed, "/auth/mcp_server_url", json!("https://a.example/?q=1")),
            "auth.mcp_server_url: It can never match",
        ),
        (
            &path,
            with(&oauth, "/auth/expires_at", json!("2020-01-01T00:00:00Z")),
            "auth.expires_at: Must be in the future",
        ),
        (
            &path,
            with(&oauth, "/auth/expires_at", json!("tomorrow")),
            "auth.expires_at: Must be a time",
        ),
        (
            &path,
            with(&oauth, "/auth/expires_at", json!(5)),
            "auth.expires_at: Expected string",
        ),
        (
            &path,
            with(
                &oauth,
                "/auth/refresh/token_endpoint",
                json!("http://id.example/"),
            ),
            "auth.refresh.token_endpoint: ",
        ),
        (
            &path,
            with(
                &oauth,
                "/auth/refresh/token_endpoint_auth",
                json!({"type": "none", "client_secret": "canary"}),
            ),
            "auth.refresh.token_endpoint_auth.client_secret: Extra inputs",
        ),
        (
            &path,
            with(
                &oauth,
                "/auth/refresh/token_endpoint_auth",
                json!({"type": "client_secret_post"}),
            ),
            "auth.refresh.token_endpoint_auth.client_secret: Required",
        ),
        (
            &one,
            change(json!({"type": "static_bearer", "token": "canary"})),
            "auth.type: Can't be changed",
        ),
        (
            &one,
            change(json!({"type": "mcp_oauth", "mcp_server_url": "https://evil.example/"})),
            "auth.mcp_server_url: Can't be changed",
        ),
        (
            &one,
            change(json!({"type": "mcp_oauth", "refresh": {"token_endpoint": "https://evil.example/"}})),
            "auth.refresh.token_endpoint: Can't be changed",
        ),
        (
            &one,
            change(
                json!({"type": "mcp_oauth", "refresh": {"token_endpoint_auth": {"type": "client_secret_post"}}}),
            ),
            "auth.refresh.token_endpoint_auth.type: Can't be changed",
        ),
        (
            &one,
            change(json!({"type": "mcp_oauth", "access_token": "canary\n"})),
            "auth.access_token: it has characters",
        ),
        (
            &other,
            change(json!({"type": "mcp_oauth"})),
            "auth.type: Can't be changed",
        ),
        (
            &other,
            change(json!({"type": "static_bearer", "expires_at": null})),
            "auth.expires_at: Extra inputs",
        ),
        (
            &plain,
            change(json!({"type": "mcp_oauth", "refresh": {"scope": ""}})),
            "auth.refresh: This credential was added without",
        ),
    ] {
        let answer = claude.send("POST", path, body.to_string()).await;
        let (status, kind, message) = fault(&answer);
        assert_eq!((status, kind.as_str()), (400, "invalid_request_error"), "{body}");
        assert!(message.starts_with(problem), "{body}: {message}");
        assert!(!answer.text().contains(CANARY), "{}", answer.text());
    }
    let (status, _, message) = claude
        .refused(&format!("{other}/mcp_oauth_validate"), &json!({}))
        .await;
    assert_eq!(status, 400);
    assert_eq!(
        message,
        "auth.type: only credentials of the type mcp_oauth can be validated"
    );
}
