//! Workspaces against each other, and keys that may not do everything, on the routes of this dialect alone: deployments,
//! their runs, and webhooks.

use axum::body::Body;
use serde_json::{Value, json};

use super::{id, message};
use crate::server::{Answer, Server, request};

const OPERATOR: &str = "operator-token";

struct Callers {
    server: Server,
}

impl Callers {
    async fn send(&self, token: &str, method: &str, path: &str, body: &Value) -> Answer {
        let request = request(method, path)
            .header("anthropic-version", "2026-10-21")
            .header("authorization", format!("Bearer {token}"));
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        self.server.send(request.body(Body::from(body)).unwrap()).await
    }

    /// A call of the other dialect, as the operator.
    async fn operate(&self, path: &str, body: &Value) -> Value {
        let request = request("POST", path).header("authorization", format!("Bearer {OPERATOR}"));
        let answer = self
            .server
            .send(request.body(Body::from(body.to_string())).unwrap())
            .await;
        assert!(answer.status.is_success(), "{}", answer.text());
        answer.json()
    }

    async fn good(&self, token: &str, path: &str, body: Value) -> Value {
        let answer = self.send(token, "POST", path, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }
}

#[tokio::test]
async fn nobody_else_finds_deployments_or_webhooks() {
    let server = Server::with(|config| config.api_token = Some(OPERATOR.into())).await;
    let callers = Callers { server };
    let workspace = callers
        .operate("/v1/workspaces", &json!({"name": "theirs"}))
        .await;
    let workspace = workspace["workspace_id"]
        .as_str()
        .or(workspace["id"].as_str())
        .unwrap();
    let stranger = callers
        .operate(
            "/v1/keys",
            &json!({"name": "k", "scope": "admin", "workspaceId": workspace}),
        )
        .await;
    let reader = callers
        .operate("/v1/keys", &json!({"name": "r", "scope": "read"}))
        .await;
    let writer = callers
        .operate("/v1/keys", &json!({"name": "w", "scope": "write"}))
        .await;
    let token = |key: &Value| key["secret"].as_str().or(key["key"].as_str()).unwrap().to_owned();
    let (stranger, reader, writer) = (token(&stranger), token(&reader), token(&writer));

    let agent = callers
        .good(
            &writer,
            "/v1/agents",
            json!({"name": "A", "model": "test/puppet"}),
        )
        .await;
    let environment = callers
        .good(&writer, "/v1/environments", json!({"name": "e"}))
        .await;
    let body = json!({
        "name": "D", "agent": id(&agent), "environment_id": id(&environment),
        "initial_events": [message("hello")],
    });
    let deployment = id(&callers.good(&writer, "/v1/deployments", body.clone()).await);
    let deployment = format!("/v1/deployments/{deployment}");
    let run = id(&callers
        .good(&writer, &format!("{deployment}/run"), Value::Null)
        .await);
    let run = format!("/v1/deployment_runs/{run}");
    let hooks = "/v1/organizations/webhooks";
    let hook = json!({"url": "https://a.example/", "enabled_events": ["agent.created"]});
    let endpoint = id(&callers.good(OPERATOR, hooks, hook.clone()).await);
    let endpoint = format!("{hooks}/{endpoint}");

    // A stranger's deployment can't be made of our things.
    assert_eq!(
        callers
            .send(&stranger, "POST", "/v1/deployments", &body)
            .await
            .status,
        404
    );
    let named = [
        ("GET", deployment.clone()),
        ("POST", deployment.clone()),
        ("POST", format!("{deployment}/run")),
        ("POST", format!("{deployment}/pause")),
        ("POST", format!("{deployment}/unpause")),
        ("POST", format!("{deployment}/archive")),
        ("GET", run),
        ("GET", endpoint.clone()),
        ("POST", endpoint.clone()),
        ("POST", format!("{endpoint}/regenerate_signing_secret")),
        ("DELETE", endpoint.clone()),
    ];
    for (method, path) in &named {
        let answer = callers.send(&stranger, method, path, &Value::Null).await;
        assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text());
        if *method != "GET" {
            let answer = callers.send(&reader, method, path, &Value::Null).await;
            assert_eq!(answer.status, 403, "{method} {path}: {}", answer.text());
        }
    }
    for list in ["/v1/deployments", "/v1/deployment_runs", hooks] {
        let answer = callers.send(&stranger, "GET", list, &Value::Null).await;
        assert_eq!(answer.json()["data"], json!([]), "{list}");
    }
    // Where secrets are told, only those may look who run the workspace.
    for (method, path) in named.iter().filter(|(_, path)| path.starts_with(hooks)) {
        let answer = callers.send(&writer, method, path, &Value::Null).await;
        assert_eq!(answer.status, 403, "{method} {path}");
    }
    assert_eq!(callers.send(&writer, "POST", hooks, &hook).await.status, 403);
    // Nothing of it was done.
    let found = callers
        .send(&writer, "GET", &deployment, &Value::Null)
        .await
        .json();
    assert_eq!(
        (&found["status"], &found["archived_at"]),
        (&json!("active"), &Value::Null)
    );
    let found = callers.send(OPERATOR, "GET", &endpoint, &Value::Null).await;
    assert_eq!(found.status, 200);
}
