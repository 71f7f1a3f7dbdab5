//! Vaults and credentials over HTTP.

use serde_json::{Value, json};

use crate::server::{Server, id, request};

const CANARY: &str = "canary";

fn bearer() -> Value {
    json!({"type": "static_bearer", "name": "n", "matchUrl": "https://a.example/mcp", "token": "canary-token"})
}

fn oauth() -> Value {
    json!({
        "type": "mcp_oauth", "name": "n", "matchUrl": "https://a.example/", "accessToken": "canary-access",
        "refreshToken": "canary-refresh", "clientSecret": "canary-client", "clientId": "client",
        "tokenEndpoint": "https://id.example/token?tenant=1", "expiresAt": 1_900_000_000_000_i64,
    })
}

async fn vault(server: &Server) -> String {
    let body = json!({"userId": "user-1", "name": ""});
    id(&server.post("/v1/vaults", &body).await, "vault_id")
}

fn changed(body: &Value, field: &str, value: Value) -> Value {
    let mut body = body.clone();
    body[field] = value;
    body
}

fn without(body: &Value, field: &str) -> Value {
    let mut body = body.clone();
    body.as_object_mut().unwrap().shift_remove(field);
    body
}

#[tokio::test]
async fn bad_bodies_are_refused() {
    let server = Server::start().await;
    let vault = vault(&server).await;
    let long = |length| json!("x".repeat(length));
    let vaults = "/v1/vaults".to_owned();
    let credentials = format!("/v1/vaults/{vault}/credentials");
    let (bearer, oauth) = (bearer(), oauth());
    for (path, body, field, text) in [
        (&vaults, json!({}), "userId", "Required"),
        (&vaults, json!([]), "", "Expected object, received array"),
        (
            &vaults,
            json!({"userId": ""}),
            "userId",
            "String must contain at least 1",
        ),
        (
            &vaults,
            json!({"userId": long(257)}),
            "userId",
            "String must contain at most 256",
        ),
        (
            &vaults,
            json!({"userId": 4}),
            "userId",
            "Expected string, received number",
        ),
        (
            &vaults,
            json!({"userId": "u", "name": null}),
            "name",
            "Expected string, received null",
        ),
        (
            &vaults,
            json!({"userId": "u", "name": long(257)}),
            "name",
            "String must contain at most 256",
        ),
        (
            &credentials,
            json!({}),
            "type",
            "Invalid discriminator value. Expected 'static_bearer' | ",
        ),
        (
            &credentials,
            changed(&bearer, "type", json!("canary")),
            "type",
            "Invalid discriminator",
        ),
        (&credentials, without(&bearer, "name"), "name", "Required"),
        (
            &credentials,
            changed(&bearer, "name", json!("")),
            "name",
            "String must contain at least 1",
        ),
        (&credentials, without(&bearer, "matchUrl"), "matchUrl", "Required"),
        (
            &credentials,
            changed(&bearer, "matchUrl", long(2049)),
            "matchUrl",
            "String must contain at most 2048",
        ),
        (
            &credentials,
            changed(&bearer, "matchUrl", json!("a.example")),
            "matchUrl",
            "not a usable URL",
        ),
        (
            &credentials,
            changed(&bearer, "matchUrl", json!("http://a.example/")),
            "matchUrl",
            "https only",
        ),
        (
            &credentials,
            changed(&bearer, "matchUrl", json!("https://10.0.0.1/")),
            "matchUrl",
            "never match",
        ),
        (
            &credentials,
            changed(&bearer, "matchUrl", json!("https://a.example/?q")),
            "matchUrl",
            "never match",
        ),
        (&credentials, without(&bearer, "token"), "token", "Required"),
        (
            &credentials,
            changed(&bearer, "token", json!("")),
            "token",
            "String must contain at least 1",
        ),
        (
            &credentials,
            changed(&bearer, "token", json!(["canary"])),
            "token",
            "Expected string",
        ),
        (
            &credentials,
            changed(&bearer, "token", json!("canary\r\nX: 1")),
            "token",
            "header",
        ),
        (
            &credentials,
            changed(&bearer, "token", long(65_537)),
            "token",
            "String must contain at most 65536",
        ),
        (
            &credentials,
            without(&oauth, "accessToken"),
            "accessToken",
            "Required",
        ),
        (
            &credentials,
            without(&oauth, "refreshToken"),
            "refreshToken",
            "Required",
        ),
        (&credentials, without(&oauth, "clientId"), "clientId", "Required"),
        (
            &credentials,
            without(&oauth, "tokenEndpoint"),
            "tokenEndpoint",
            "Required",
        ),
        (
            &credentials,
            changed(&oauth, "tokenEndpoint", json!("id")),
            "tokenEndpoint",
            "Invalid url",
        ),
        (
            &credentials,
            changed(&oauth, "tokenEndpoint", json!("http://id.example/")),
            "tokenEndpoint",
            "https only",
        ),
        (
            &credentials,
            changed(&oauth, "expiresAt", json!(-1)),
            "expiresAt",
            "greater than or equal to 0",
        ),
        (
            &credentials,
            changed(&oauth, "expiresAt", json!("soon")),
            "expiresAt",
            "Expected number",
        ),
        (
            &credentials,
            changed(&oauth, "expiresAt", json!(1.5)),
            "expiresAt",
            "Expected integer",
        ),
        (
            &credentials,
            changed(&oauth, "scopes", json!("a")),
            "scopes",
            "Expected array",
        ),
        (
            &credentials,
            changed(&oauth, "scopes", json!(vec!["a"; 65])),
            "scopes",
            "Array must contain at most 64",
        ),
        (
            &credentials,
            changed(&oauth, "clientSecret", json!(null)),
            "clientSecret",
            "Expected string",
        ),
        (
            &credentials,
            changed(&oauth, "tokenEndpointAuth", json!("private_key_jwt")),
            "tokenEndpointAuth",
            "Invalid enum value",
        ),
        (
            &credentials,
            changed(
                &without(&oauth, "clientSecret"),
                "tokenEndpointAuth",
                json!("client_secret_basic"),
            ),
            "clientSecret",
            "Required with",
        ),
    ] {
        let answer = server.post(path, &body).await;
        assert_eq!(answer.code(), (400, "invalid_request".into()), "{body}");
        assert!(!answer.text().contains(CANARY), "{}", answer.text());
        let details = &answer.json()["details"];
        let node = if field.is_empty() {
            details
        } else {
            &details[field]
        };
        let found = node["_errors"][0].as_str().unwrap_or_default();
        assert!(found.contains(text), "{field} {details}");
    }
    let variable = json!({
        "type": "environment_variable", "name": "n", "secretName": "A", "secretValue": "canary-value",
        "networking": {"type": "unrestricted"},
    });
    for (field, value, text) in [
        ("secretName", json!("1A"), "Must be the name of a variable"),
        ("secretName", json!("HOME"), "The sandbox gives"),
        ("secretValue", json!("canary"), "at least 8"),
        ("secretValue", json!("canary\nvalue"), "control characters"),
        ("networking", json!({"type": "open"}), ""),
        (
            "injectionLocation",
            json!({"header": false, "query": false}),
            "put somewhere",
        ),
        ("injectionLocation", json!({"header": 1}), ""),
    ] {
        let mut body = variable.clone();
        body[field] = value;
        let refused = server.post(&credentials, &body).await;
        assert_eq!(refused.code(), (400, "invalid_request".into()), "{body}");
        let said = refused.text();
        assert!(
            said.contains(field) && said.contains(text) && !said.contains(CANARY),
            "{said}"
        );
    }
    assert_eq!(server.get(&credentials).await.json()["count"], 0);
}

#[tokio::test]
async fn environment_variables() {
    let server = Server::start().await;
    let credentials = format!("/v1/vaults/{}/credentials", vault(&server).await);
    let networking = json!({"type": "limited", "allowedHosts": ["api.example.com"]});
    let body = json!({
        "type": "environment_variable", "name": "n", "secretName": "API_KEY", "secretValue": "canary-value",
        "networking": networking, "injectionLocation": {"query": true},
    });
    let made = server.post(&credentials, &body).await.json();
    assert_eq!(made["type"], "environment_variable");
    assert_eq!(made["secret_name"], "API_KEY");
    assert_eq!(
        made["networking"],
        json!({"type": "limited", "allowed_hosts": ["api.example.com"]})
    );
    assert_eq!(
        made["injection_location"],
        json!({"header": false, "query": true, "body": false})
    );
    assert!(made.get("match_url").is_none());
    let one = format!("{credentials}/{}", made["credential_id"].as_str().unwrap());
    let body = json!({"injectionLocation": {"header": true}, "networking": {"type": "unrestricted"}});
    let changed = server.json("PATCH", &one, &body).await.json();
    assert_eq!(
        changed["injection_location"],
        json!({"header": true, "query": true, "body": false})
    );
    assert_eq!(changed["networking"], json!({"type": "unrestricted"}));
    for body in [
        json!({"token": "canary"}),
        json!({"secretName": "B"}),
        json!({"matchUrl": "https://a.example/"}),
    ] {
        let refused = server.json("PATCH", &one, &body).await;
        assert_eq!(refused.code(), (400, "invalid_request".into()), "{body}");
    }
    assert!(!server.get(&credentials).await.text().contains(CANARY));
}

#[tokio::test]
async fn a_vault_over_its_life() {
    let server = Server::start().await;
    // The reference's client sends an empty name, and others none.
    let made = server
        .post("/v1/vaults", &json!({"userId": "user-1"}))
        .await
        .json();
    let id = made["vault_id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("vlt_"));
    let at = made["created_at"].clone();
    assert_eq!(
        made,
        json!({"vault_id": id, "user_id": "user-1", "name": "", "created_at": at, "updated_at": at, "archived_at": null})
    );
    let path = format!("/v1/vaults/{id}");
    assert_eq!(server.get(&path).await.json(), made);
    let body = json!({"userId": "user-2", "name": "second"});
    let second = server.post("/v1/vaults", &body).await.json();
    for (query, expected) in [
        ("", vec![&second, &made]),
        ("?order=asc", vec![&made, &second]),
        ("?user_id=user-1", vec![&made]),
        ("?userId=user-2", vec![&second]),
        ("?user_id=nobody", vec![]),
        ("?limit=1", vec![&second]),
    ] {
        let list = server.get(&format!("/v1/vaults{query}")).await.json();
        assert_eq!(list["vaults"], json!(expected), "{query}");
        assert_eq!(list["count"], expected.len(), "{query}");
        assert_eq!(list["has_more"], query == "?limit=1");
    }
    let next = format!(
        "/v1/vaults?limit=1&after={}",
        second["vault_id"].as_str().unwrap()
    );
    assert_eq!(server.get(&next).await.json()["vaults"], json!([made]));
    assert_eq!(server.get("/v1/vaults?after=vlt_none").await.code().0, 400);

    let renamed = server.json("PATCH", &path, &json!({"name": "mine"})).await.json();
    assert_eq!(renamed["name"], "mine");
    assert_eq!(server.json("PATCH", &path, &json!({})).await.json(), renamed);
    assert_eq!(
        server.json("PATCH", &path, &json!({"name": 4})).await.code().0,
        400
    );
    let gone = server.delete(&path).await.json();
    assert_eq!(gone, json!({"vault_id": id, "deleted": true}));
    for method in ["GET", "PATCH", "DELETE"] {
        for path in [path.as_str(), "/v1/vaults/no%20such"] {
            let answer = server.json(method, path, &json!({"name": "x"})).await;
            assert_eq!(answer.code(), (404, "vault_not_found".into()), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn credentials_over_their_lives() {
    let server = Server::start().await;
    let vault = vault(&server).await;
    let path = format!("/v1/vaults/{vault}/credentials");
    let fixed = server.post(&path, &bearer()).await.json();
    let fixed_id = fixed["credential_id"].as_str().unwrap().to_owned();
    assert!(fixed_id.starts_with("crd_"));
    assert_eq!(
        fixed,
        json!({
            "credential_id": fixed_id, "vault_id": vault, "name": "n", "type": "static_bearer",
            "match_url": "https://a.example/mcp", "created_at": fixed["created_at"],
            "updated_at": fixed["updated_at"], "archived_at": null,
        })
    );
    let with_scopes = changed(&oauth(), "scopes", json!(["a", "b"]));
    let refreshed = server.post(&path, &with_scopes).await.json();
    let refreshed_id = refreshed["credential_id"].as_str().unwrap().to_owned();
    for (field, value) in [
        ("type", json!("mcp_oauth")),
        ("client_id", json!("client")),
        ("token_endpoint", json!("https://id.example/token?tenant=1")),
        ("scopes", json!(["a", "b"])),
        ("expires_at", json!(1_900_000_000_000_i64)),
    ] {
        assert_eq!(refreshed[field], value, "{field}");
    }
    let public = without(&without(&oauth(), "clientSecret"), "expiresAt");
    let public = server.post(&path, &public).await.json();
    let basic = changed(&oauth(), "tokenEndpointAuth", json!("client_secret_basic"));
    let basic = server.post(&path, &basic).await.json();
    for (credential, auth) in [
        (&refreshed, "client_secret_post"),
        (&public, "none"),
        (&basic, "client_secret_basic"),
    ] {
        assert_eq!(credential["token_endpoint_auth"], auth);
    }
    let removed = format!("{path}/{}", basic["credential_id"].as_str().unwrap());
    assert_eq!(server.delete(&removed).await.code().0, 200);
    assert!(
        public["expires_at"].is_null() && public["scopes"].is_null(),
        "{public}"
    );
    let list = server.get(&path).await;
    assert!(!list.text().contains(CANARY), "{}", list.text());
    assert_eq!(list.json()["credentials"], json!([fixed, refreshed, public]));
    assert_eq!(
        (&list.json()["vault_id"], &list.json()["count"]),
        (&json!(vault), &json!(3))
    );
    let page = format!("{path}?limit=1&after={fixed_id}");
    assert_eq!(server.get(&page).await.json()["credentials"], json!([refreshed]));
    assert_eq!(server.get(&format!("{path}?after=crd_none")).await.code().0, 400);

    let one = format!("{path}/{fixed_id}");
    let other = format!("{path}/{refreshed_id}");
    assert_eq!(server.get(&one).await.json(), fixed);
    let update = json!({"name": "m", "token": "canary-two"});
    let changed = server.json("PATCH", &one, &update).await;
    assert!(!changed.text().contains(CANARY));
    assert_eq!(changed.json()["name"], "m");
    let update = json!({"accessToken": "canary-a", "refreshToken": "canary-r", "expiresAt": 5, "scopes": []});
    let changed = server.json("PATCH", &other, &update).await.json();
    assert_eq!(
        (&changed["expires_at"], &changed["scopes"]),
        (&json!(5), &json!([]))
    );
    for (path, body, field) in [
        (&one, json!({"matchUrl": "https://evil.example/"}), "matchUrl"),
        (&one, json!({"type": "mcp_oauth"}), "type"),
        (&one, json!({"accessToken": "canary"}), "accessToken"),
        (&one, json!({"token": "canary\n"}), "token"),
        (
            &other,
            json!({"tokenEndpoint": "https://evil.example/"}),
            "tokenEndpoint",
        ),
        (&other, json!({"clientId": "x"}), "clientId"),
        (&other, json!({"token": "canary"}), "token"),
        (&other, json!({"expiresAt": null}), "expiresAt"),
    ] {
        let answer = server.json("PATCH", path, &body).await;
        assert_eq!(answer.code(), (400, "invalid_request".into()), "{body}");
        assert!(
            answer.json()["details"][field]["_errors"][0].is_string(),
            "{body}"
        );
        assert!(!answer.text().contains(CANARY));
    }

    let gone = server.delete(&one).await.json();
    assert_eq!(gone, json!({"credential_id": fixed_id, "deleted": true}));
    let elsewhere = self::vault(&server).await;
    for method in ["GET", "PATCH", "DELETE"] {
        for (path, code) in [
            (one.clone(), "credential_not_found"),
            (
                format!("/v1/vaults/{elsewhere}/credentials/{refreshed_id}"),
                "credential_not_found",
            ),
            (format!("{path}/no%20such"), "credential_not_found"),
            (
                format!("/v1/vaults/vlt_none/credentials/{refreshed_id}"),
                "vault_not_found",
            ),
        ] {
            let answer = server.json(method, &path, &json!({"name": "x"})).await;
            assert_eq!(answer.code(), (404, code.into()), "{method} {path}");
        }
    }
    let nowhere = "/v1/vaults/vlt_none/credentials";
    assert_eq!(
        server.post(nowhere, &bearer()).await.code(),
        (404, "vault_not_found".into())
    );
    assert_eq!(server.get(nowhere).await.code(), (404, "vault_not_found".into()));
}

#[tokio::test]
async fn a_vault_has_room_for_so_many_credentials() {
    let server = Server::start().await;
    let path = format!("/v1/vaults/{}/credentials", vault(&server).await);
    for _ in 0..100 {
        assert_eq!(server.post(&path, &bearer()).await.status, 200);
    }
    let full = server.post(&path, &bearer()).await;
    assert_eq!(full.code(), (409, "too_many_credentials".into()));
}

#[tokio::test]
async fn a_repeated_request_takes_effect_once() {
    let server = Server::start().await;
    let send = async |path: &str, body: &Value| {
        let request = request("POST", path).header("idempotency-key", "k");
        let body = axum::body::Body::from(body.to_string());
        server.send(request.body(body).unwrap()).await
    };
    let body = json!({"userId": "u"});
    let first = send("/v1/vaults", &body).await;
    assert_eq!(send("/v1/vaults", &body).await.json(), first.json());
    let other = send("/v1/vaults", &json!({"userId": "v"})).await;
    assert_eq!(other.code(), (422, "idempotency_key_reused".into()));
    let path = format!("/v1/vaults/{}/credentials", id(&first, "vault_id"));
    let first = send(&path, &bearer()).await;
    assert_eq!(first.status, 200, "{}", first.text());
    assert_eq!(send(&path, &bearer()).await.json(), first.json());
    let other = send(&path, &changed(&bearer(), "token", json!("other"))).await;
    assert_eq!(other.code(), (422, "idempotency_key_reused".into()));
    assert_eq!(server.get(&path).await.json()["count"], 1);
    assert_eq!(server.get("/v1/vaults").await.json()["count"], 1);
}

#[tokio::test]
async fn sessions_name_vaults() {
    let server = Server::start().await;
    let agent = server.agent(json!({})).await;
    let (first, second) = (vault(&server).await, vault(&server).await);
    for (body, expected) in [
        (json!({}), json!([])),
        (json!({"vaultId": first}), json!([first])),
        (json!({"vaultIds": [second, first]}), json!([second, first])),
        (
            json!({"vaultId": first, "vaultIds": [second, first]}),
            json!([first, second]),
        ),
    ] {
        let mut body = body.clone();
        body["agentId"] = json!(agent);
        let session = server.post("/v1/sessions", &body).await.json();
        assert_eq!(session["vault_ids"], expected, "{body}");
        let path = format!("/v1/sessions/{}", session["session_id"].as_str().unwrap());
        assert_eq!(server.get(&path).await.json()["vault_ids"], expected);
    }
    server.delete(&format!("/v1/vaults/{first}")).await;
    let late = server
        .post(
            "/v1/sessions",
            &json!({"agentId": agent, "vaultIds": [second, first]}),
        )
        .await;
    assert_eq!(late.code(), (404, "vault_not_found".into()));
}
