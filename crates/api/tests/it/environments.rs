//! Environments over HTTP.

use serde_json::{Value, json};

use crate::server::Server;

#[tokio::test]
async fn bad_environments_are_refused() {
    let server = Server::start().await;
    let limited =
        |hosts: Value| json!({"name": "e", "networking": {"type": "limited", "allowedHosts": hosts}});
    for (body, path, text) in [
        (json!({}), &["name"][..], "Required"),
        (
            json!({"name": ""}),
            &["name"],
            "String must contain at least 1 character(s)",
        ),
        (
            json!({"name": "e", "description": "x".repeat(501)}),
            &["description"],
            "String must contain at most 500 character(s)",
        ),
        (
            json!({"name": "e", "packages": null}),
            &["packages"],
            "Expected object, received null",
        ),
        (
            json!({"name": "e", "packages": {"brew": []}}),
            &["packages"],
            "Unrecognized key(s) in object: 'brew'",
        ),
        (
            json!({"name": "e", "packages": {"pip": "x"}}),
            &["packages", "pip"],
            "Expected array, received string",
        ),
        (
            json!({"name": "e", "networking": {}}),
            &["networking", "type"],
            "Invalid discriminator value. Expected 'unrestricted' | 'limited'",
        ),
        (
            json!({"name": "e", "networking": {"type": "limited"}}),
            &["networking", "allowedHosts"],
            "Required",
        ),
        (
            limited(json!([])),
            &["networking", "allowedHosts"],
            "Array must contain at least 1 element(s)",
        ),
        (
            limited(json!(["ok.example", "*"])),
            &["networking", "allowedHosts", "1"],
            "An asterisk may only stand first, as in '*.example.com'",
        ),
        (
            limited(json!(["http://x.example"])),
            &["networking", "allowedHosts", "0"],
            "Must be a host name, without scheme, port or path",
        ),
        (
            limited(json!(["10.0.0.1"])),
            &["networking", "allowedHosts", "0"],
            "Must be a host name, not an address",
        ),
    ] {
        let answer = server.post("/v1/environments", &body).await;
        assert_eq!(answer.code(), (400, "invalid_request".into()), "{body}");
        let details = answer.json()["details"].clone();
        let node = path.iter().fold(&details, |node, name| &node[*name]);
        assert_eq!(node["_errors"], json!([text]), "{body} {details}");
    }
}

#[tokio::test]
async fn what_can_not_be_carried_out_is_refused() {
    let server = Server::start().await;
    for (body, field) in [(json!({"name": "e", "packages": {"pip": ["numpy"]}}), "packages")] {
        let answer = server.post("/v1/environments", &body).await;
        assert_eq!(answer.code(), (400, "unsupported".into()), "{body}");
        assert!(
            answer.json()["details"][field]["_errors"][0].is_string(),
            "{body}"
        );
    }
    assert_eq!(server.get("/v1/environments").await.json()["count"], 0);
}

#[tokio::test]
async fn environments_live_until_nobody_uses_them() {
    let server = Server::start().await;
    let body = json!({"name": "plain", "packages": {"pip": []}});
    let made = server.post("/v1/environments", &body).await.json();
    assert_eq!(made["description"], "");
    assert_eq!(
        (&made["packages"], &made["networking"]),
        (&json!({"pip": []}), &json!({"type": "unrestricted"}))
    );
    let id = made["environment_id"].as_str().unwrap();
    let path = format!("/v1/environments/{id}");
    assert_eq!(server.get(&path).await.json(), made);
    assert_eq!(
        server.get("/v1/environments").await.json()["environments"],
        json!([made])
    );
    let agent = server.agent(json!({})).await;
    let session = server
        .post("/v1/sessions", &json!({"agentId": agent, "environmentId": id}))
        .await
        .json();
    assert_eq!(session["environment_id"], json!(id));
    let in_use = server.delete(&path).await;
    assert_eq!(in_use.code(), (409, "environment_in_use".into()));
    assert!(in_use.json()["message"].as_str().unwrap().contains('1'));
    server
        .delete(&format!(
            "/v1/sessions/{}",
            session["session_id"].as_str().unwrap()
        ))
        .await;
    assert_eq!(server.delete(&path).await.json(), json!({"deleted": true}));
    assert_eq!(
        server.delete(&path).await.code(),
        (404, "environment_not_found".into())
    );
    assert_eq!(server.get("/v1/environments?after=env_none").await.code().0, 400);
}
