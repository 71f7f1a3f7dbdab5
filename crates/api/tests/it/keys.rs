//! Workspaces and API keys over HTTP.

use axum::body::Body;
use serde_json::{Value, json};

use crate::server::{Answer, Server, request};

const TOKEN: &str = "s3cret";

/// A caller with a key.
struct As<'a> {
    server: &'a Server,
    key: String,
}

impl As<'_> {
    async fn call(&self, method: &str, path: &str, body: &Value) -> Answer {
        let request = request(method, path).header("authorization", format!("Bearer {}", self.key));
        let body = if body.is_null() {
            Body::empty()
        } else {
            Body::from(body.to_string())
        };
        self.server.send(request.body(body).unwrap()).await
    }

    async fn good(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.call(method, path, body).await;
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        answer.json()
    }

    async fn key(&self, body: Value) -> Value {
        self.good("POST", "/v1/keys", &body).await
    }

    fn with(&self, issued: &Value) -> As<'_> {
        let key = issued["secret"].as_str().unwrap().to_owned();
        As {
            server: self.server,
            key,
        }
    }

    async fn status(&self) -> u16 {
        self.call("GET", "/v1/agents", &Value::Null).await.status.as_u16()
    }
}

async fn server() -> Server {
    Server::with(|config| config.api_token = Some(TOKEN.into())).await
}

fn operator(server: &Server) -> As<'_> {
    As {
        server,
        key: TOKEN.to_owned(),
    }
}

#[tokio::test]
async fn a_secret_is_told_once_and_opens_one_workspace() {
    let server = server().await;
    let operator = operator(&server);
    let workspace = operator
        .good("POST", "/v1/workspaces", &json!({"name": "tenant"}))
        .await;
    let workspace = workspace["workspace_id"].as_str().unwrap();
    let made = json!({"name": "ci", "scope": "write", "workspaceId": workspace});
    let answer = operator.call("POST", "/v1/keys", &made).await;
    assert_eq!(answer.headers["cache-control"], "no-store");
    let issued = answer.json();
    let secret = issued["secret"].as_str().unwrap();
    assert!(secret.starts_with("omk_") && secret.len() == 68, "{secret}");
    let key = operator.with(&issued);
    let agent = key
        .good("POST", "/v1/agents", &json!({"model": "test/puppet"}))
        .await;
    let path = format!("/v1/agents/{}", agent["agent_id"].as_str().unwrap());
    assert_eq!(key.call("GET", &path, &Value::Null).await.status, 200);
    assert_eq!(
        operator.call("GET", &path, &Value::Null).await.code(),
        (404, "agent_not_found".into())
    );
    let listed = operator
        .good("GET", &format!("/v1/keys?workspace_id={workspace}"), &Value::Null)
        .await;
    let row = &listed["keys"][0];
    assert_eq!((&row["key_id"], &listed["count"]), (&issued["key_id"], &json!(1)));
    assert!(row["last_used_at"].is_i64(), "{row}");
    assert!(row.get("secret").is_none() && !listed.to_string().contains(secret));
    assert_eq!(operator.good("GET", "/v1/keys", &Value::Null).await["count"], 0);
    let seen = key.good("GET", "/v1/workspaces", &Value::Null).await;
    assert_eq!(
        (&seen["count"], &seen["workspaces"][0]["workspace_id"]),
        (&json!(1), &json!(workspace))
    );
    let all = operator.good("GET", "/v1/workspaces", &Value::Null).await;
    assert_eq!(all["count"], 2);
}

#[tokio::test]
async fn scopes_bound_what_a_key_may_do() {
    let server = server().await;
    let operator = operator(&server);
    let (agents, keys) = ("/v1/agents", "/v1/keys");
    let agent = json!({"model": "test/puppet"});
    let new = json!({"name": "k", "scope": "read"});
    for (scope, reads, writes, manages) in [
        ("read", 200, 403, 403),
        ("write", 200, 200, 403),
        ("admin", 200, 200, 200),
    ] {
        let key = operator.key(json!({"name": scope, "scope": scope})).await;
        let key = operator.with(&key);
        assert_eq!(
            key.call("GET", agents, &Value::Null).await.status,
            reads,
            "{scope}"
        );
        assert_eq!(
            key.call("HEAD", agents, &Value::Null).await.status,
            reads,
            "{scope}"
        );
        assert_eq!(key.call("POST", agents, &agent).await.status, writes, "{scope}");
        assert_eq!(
            key.call("GET", keys, &Value::Null).await.status,
            manages,
            "{scope}"
        );
        assert_eq!(key.call("POST", keys, &new).await.status, manages, "{scope}");
        // Only the operator makes workspaces, and keys in others than its own.
        let workspace = key.call("POST", "/v1/workspaces", &json!({"name": "w"})).await;
        assert_eq!(workspace.code(), (403, "forbidden".into()), "{scope}");
        let elsewhere = json!({"name": "k", "scope": "read", "workspaceId": "wrk_other"});
        let answer = key.call("POST", keys, &elsewhere).await;
        let refused = if manages == 200 { 404 } else { 403 };
        assert_eq!(answer.status, refused, "{scope}: {}", answer.text());
    }
}

#[tokio::test]
async fn rotation_and_revocation_act_at_once() {
    let server = server().await;
    let operator = operator(&server);
    let first = operator.key(json!({"name": "k", "scope": "read"})).await;
    let id = first["key_id"].as_str().unwrap();
    let rotate = format!("/v1/keys/{id}/rotate");
    let second = operator.good("POST", &rotate, &json!({})).await;
    assert_eq!(operator.with(&first).status().await, 401);
    assert_eq!(operator.with(&second).status().await, 200);
    let third = operator
        .good("POST", &rotate, &json!({"graceSeconds": 600}))
        .await;
    assert!(third["previous_until"].is_i64() && third["rotated_at"].is_i64());
    for live in [&second, &third] {
        assert_eq!(operator.with(live).status().await, 200);
    }
    let fourth = operator
        .good("POST", &rotate, &json!({"graceSeconds": 600}))
        .await;
    assert_eq!(
        operator.with(&second).status().await,
        401,
        "at most one secret before the present one"
    );
    let revoked = operator
        .good("DELETE", &format!("/v1/keys/{id}"), &Value::Null)
        .await;
    assert!(revoked["revoked_at"].is_i64());
    for dead in [&third, &fourth] {
        assert_eq!(operator.with(dead).status().await, 401);
    }
    assert_eq!(
        operator.call("POST", &rotate, &json!({})).await.code(),
        (409, "key_revoked".into())
    );
    let again = operator
        .good("DELETE", &format!("/v1/keys/{id}"), &Value::Null)
        .await;
    assert_eq!(again["revoked_at"], revoked["revoked_at"]);
}

#[tokio::test]
async fn a_repeated_creation_makes_no_second_key() {
    let server = server().await;
    let send = async |body: &str| {
        let request = request("POST", "/v1/keys")
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("idempotency-key", "once");
        server
            .send(request.body(Body::from(body.to_owned())).unwrap())
            .await
    };
    let body = r#"{"name": "k", "scope": "read"}"#;
    assert_eq!(send(body).await.status, 200);
    assert_eq!(send(body).await.code(), (409, "secret_shown".into()));
    let other = r#"{"name": "other", "scope": "read"}"#;
    assert_eq!(send(other).await.code(), (422, "idempotency_key_reused".into()));
    let listed = operator(&server).good("GET", "/v1/keys", &Value::Null).await;
    assert_eq!(listed["count"], 1);
}

#[tokio::test]
async fn bad_input_is_refused() {
    let server = server().await;
    let operator = operator(&server);
    for (path, body, field) in [
        ("/v1/workspaces", json!({}), "name"),
        ("/v1/workspaces", json!({"name": ""}), "name"),
        ("/v1/keys", json!({"scope": "read"}), "name"),
        ("/v1/keys", json!({"name": "k"}), "scope"),
        ("/v1/keys", json!({"name": "k", "scope": "root"}), "scope"),
        (
            "/v1/keys",
            json!({"name": "k".repeat(257), "scope": "read"}),
            "name",
        ),
        (
            "/v1/keys",
            json!({"name": "k", "scope": "read", "expiresAt": 1}),
            "expiresAt",
        ),
        (
            "/v1/keys",
            json!({"name": "k", "scope": "read", "expiresAt": "soon"}),
            "expiresAt",
        ),
        (
            "/v1/keys",
            json!({"name": "k", "scope": "read", "workspaceId": "../x"}),
            "workspaceId",
        ),
    ] {
        let answer = operator.call("POST", path, &body).await;
        assert_eq!(answer.code(), (400, "invalid_request".into()), "{body}");
        assert!(
            answer.json()["details"][field].is_object(),
            "{body}: {}",
            answer.text()
        );
    }
    let key = operator.key(json!({"name": "k", "scope": "read"})).await;
    let rotate = format!("/v1/keys/{}/rotate", key["key_id"].as_str().unwrap());
    for grace in [json!(-1), json!(2_592_001), json!(1.5), json!("1h")] {
        let answer = operator
            .call("POST", &rotate, &json!({"graceSeconds": grace}))
            .await;
        assert_eq!(answer.status, 400, "{grace}");
    }
    for (method, path) in [
        ("GET", "/v1/keys/key_none"),
        ("DELETE", "/v1/keys/key_none"),
        ("POST", "/v1/keys/key_none/rotate"),
        ("GET", "/v1/keys/a%20b"),
    ] {
        let answer = operator.call(method, path, &json!({})).await;
        assert_eq!(answer.code(), (404, "key_not_found".into()), "{method} {path}");
    }
    let answer = operator
        .call("GET", "/v1/workspaces/wrk_none", &Value::Null)
        .await;
    assert_eq!(answer.code(), (404, "workspace_not_found".into()));
    let stray = json!({"name": "k", "scope": "read", "workspaceId": "wrk_none"});
    let answer = operator.call("POST", "/v1/keys", &stray).await;
    assert_eq!(answer.code(), (404, "workspace_not_found".into()));
    let answer = operator
        .call("GET", "/v1/keys?after=key_none", &Value::Null)
        .await;
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn keys_count_even_where_none_is_needed() {
    let server = Server::start().await;
    let local = As {
        server: &server,
        key: "anything".into(),
    };
    let read = local.key(json!({"name": "k", "scope": "read"})).await;
    let read = local.with(&read);
    assert_eq!(read.status().await, 200);
    let answer = read
        .call("POST", "/v1/agents", &json!({"model": "test/puppet"}))
        .await;
    assert_eq!(answer.code(), (403, "forbidden".into()));
    let unknown = As {
        server: &server,
        key: format!("omk_{}", "0".repeat(64)),
    };
    assert_eq!(unknown.status().await, 401);
    assert_eq!(local.status().await, 200);
}
