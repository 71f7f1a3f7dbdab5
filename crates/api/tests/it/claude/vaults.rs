//! Vaults and credentials.

mod refused;
mod variables;

use serde_json::{Value, json};

use super::{Claude, fault, good, id, stable};

const CANARY: &str = "canary";

fn bearer(url: &str) -> Value {
    json!({"auth": {"type": "static_bearer", "mcp_server_url": url, "token": "canary-token"}})
}

fn oauth() -> Value {
    json!({
        "display_name": "GitHub",
        "metadata": {"team": "a"},
        "auth": {
            "type": "mcp_oauth", "mcp_server_url": "https://a.example/mcp", "access_token": "canary-access",
            "expires_at": "2099-01-01T00:00:00Z",
            "refresh": {
                "client_id": "client", "refresh_token": "canary-refresh", "scope": "read  write",
                "resource": "https://a.example/", "token_endpoint": "https://id.example/token",
                "token_endpoint_auth": {"type": "client_secret_basic", "client_secret": "canary-secret"},
            },
        },
    })
}

async fn vault(claude: &Claude) -> String {
    id(&claude.post("/v1/vaults", &json!({"display_name": "v"})).await)
}

fn with(value: &Value, pointer: &str, new: Value) -> Value {
    let mut value = value.clone();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = value.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    parent.insert(name.to_owned(), new);
    value
}

#[tokio::test]
async fn a_vault_over_its_life() {
    let claude = Claude::start().await;
    let made = claude
        .post(
            "/v1/vaults",
            &json!({"display_name": "Ada", "metadata": {"a": "1", "b": "2"}}),
        )
        .await;
    insta::assert_json_snapshot!(stable(&made));
    let path = format!("/v1/vaults/{}", id(&made));
    assert_eq!(claude.get(&path).await, made);
    assert_eq!(claude.post(&path, &json!({"display_name": null})).await, made);
    let update = json!({"display_name": "Grace", "metadata": {"a": null, "c": "3"}});
    let updated = claude.post(&path, &update).await;
    assert_eq!(
        (&updated["display_name"], &updated["metadata"]),
        (&json!("Grace"), &json!({"b": "2", "c": "3"}))
    );
    let cleared = claude.post(&path, &json!({"metadata": null})).await;
    assert_eq!(cleared["metadata"], json!({}));
    let first = claude
        .post(&format!("{path}/credentials"), &bearer("https://a.example/"))
        .await;
    let other = claude.post("/v1/vaults", &json!({"display_name": "x"})).await;

    let archived = good(&claude.send("POST", &format!("{path}/archive"), "").await);
    assert!(archived["archived_at"].is_string());
    assert_eq!(
        claude.post(&format!("{path}/archive"), &json!({})).await,
        archived
    );
    let credential = format!("{path}/credentials/{}", id(&first));
    assert_eq!(
        claude.get(&credential).await["archived_at"],
        archived["archived_at"]
    );
    for (path, body) in [
        (path.clone(), json!({"display_name": "late"})),
        (format!("{path}/credentials"), bearer("https://b.example/")),
        (
            credential,
            json!({"auth": {"type": "static_bearer", "token": "canary-late"}}),
        ),
    ] {
        let (status, kind, message) = claude.refused(&path, &body).await;
        assert_eq!((status, kind.as_str()), (400, "invalid_request_error"), "{path}");
        assert!(message.ends_with("is archived"), "{message}");
    }
    assert_eq!(claude.get("/v1/vaults").await["data"], json!([other]));
    let all = claude.get("/v1/vaults?include_archived=true&limit=1").await;
    assert_eq!(all["data"], json!([other]));
    let next = all["next_page"].as_str().unwrap();
    let rest = claude
        .get(&format!("/v1/vaults?include_archived=true&limit=1&page={next}"))
        .await;
    assert_eq!(rest, json!({"data": [archived], "next_page": null}));
    let listed = |query: &str| format!("{path}/credentials{query}");
    assert_eq!(claude.get(&listed("")).await["data"], json!([]));
    let kept = claude.get(&listed("?include_archived=true")).await;
    assert_eq!(id(&kept["data"][0]), id(&first));

    let agent = claude.agent(json!({})).await;
    let environment = claude.post("/v1/environments", &json!({"name": "e"})).await;
    let session =
        |vault: &str| json!({"agent": id(&agent), "environment_id": id(&environment), "vault_ids": [vault]});
    let (status, _, message) = claude.refused("/v1/sessions", &session(&id(&made))).await;
    assert_eq!((status, message.as_str()), (400, "the vault is archived"));
    let running = claude.post("/v1/sessions", &session(&id(&other))).await;
    assert_eq!(running["vault_ids"], json!([id(&other)]));

    let deleted = good(&claude.send("DELETE", &path, "").await);
    assert_eq!(deleted, json!({"id": id(&made), "type": "vault_deleted"}));
    for path in [&path, &listed("")] {
        let (status, kind, _) = fault(&claude.send("GET", path, "").await);
        assert_eq!((status, kind.as_str()), (404, "not_found_error"), "{path}");
    }
    assert_eq!(claude.refused("/v1/sessions", &session(&id(&made))).await.0, 404);
}

#[tokio::test]
async fn credentials_over_their_life() {
    let claude = Claude::start().await;
    let path = format!("/v1/vaults/{}/credentials", vault(&claude).await);
    let fixed = claude.post(&path, &bearer("https://b.example/mcp")).await;
    let made = claude.post(&path, &oauth()).await;
    insta::assert_json_snapshot!(stable(&json!([fixed, made])));
    assert_eq!(claude.get(&path).await["data"], json!([made, fixed]));
    let one = format!("{path}/{}", id(&made));
    assert_eq!(claude.get(&one).await, made);

    // The same place in another spelling is taken, and the SDKs are told not to insist.
    for url in ["https://A.example:443/mcp/", "https://a.example/m%63p"] {
        let taken = claude.send("POST", &path, bearer(url).to_string()).await;
        assert_eq!(
            (taken.status.as_u16(), taken.json()["error"]["type"].clone()),
            (409, json!("conflict_error"))
        );
        assert_eq!(taken.headers["x-should-retry"], "false");
    }
    claude
        .post(&path, &bearer("https://a.example/mcp/narrower"))
        .await;

    let change = |auth: Value| json!({ "auth": auth });
    let updated = claude
        .post(
            &one,
            &json!({
                "display_name": null, "metadata": {"team": null, "x": "y"},
                "auth": {
                    "type": "mcp_oauth", "access_token": "canary-next",
                    "refresh": {
                        "refresh_token": null, "scope": "",
                        "token_endpoint_auth": {"type": "client_secret_basic", "client_secret": "canary-other"},
                    },
                },
            }),
        )
        .await;
    assert_eq!(updated["display_name"], Value::Null);
    assert_eq!(updated["metadata"], json!({"x": "y"}));
    assert_eq!(updated["auth"]["refresh"]["scope"], Value::Null);
    assert_eq!(
        updated["auth"]["expires_at"], made["auth"]["expires_at"],
        "it is kept"
    );
    let later = change(json!({"type": "mcp_oauth", "expires_at": "2100-01-01T00:00:00+02:00"}));
    let later = claude.post(&one, &later).await;
    assert_eq!(later["auth"]["expires_at"], "2099-12-31T22:00:00.000Z");
    let unknown = change(json!({"type": "mcp_oauth", "expires_at": null}));
    assert_eq!(
        claude.post(&one, &unknown).await["auth"]["expires_at"],
        Value::Null
    );

    let archived = good(&claude.send("POST", &format!("{one}/archive"), "").await);
    assert!(archived["archived_at"].is_string());
    let (status, _, message) = claude
        .refused(&format!("{one}/mcp_oauth_validate"), &json!({}))
        .await;
    assert_eq!((status, message.as_str()), (400, "the credential is archived"));
    let again = claude.post(&path, &oauth()).await;
    assert_ne!(id(&again), id(&made), "its place is free");
    let deleted = good(&claude.send("DELETE", &one, "").await);
    assert_eq!(
        deleted,
        json!({"id": id(&made), "type": "vault_credential_deleted"})
    );
    assert_eq!(claude.send("GET", &one, "").await.status, 404);
    let all = claude.get(&format!("{path}?include_archived=true")).await;
    assert!(!all.to_string().contains(CANARY));
}

#[tokio::test]
async fn a_vault_takes_twenty() {
    let claude = Claude::start().await;
    let path = format!("/v1/vaults/{}/credentials", vault(&claude).await);
    let mut last = Value::Null;
    for number in 0..20 {
        last = claude
            .post(&path, &bearer(&format!("https://a.example/{number}")))
            .await;
    }
    let late = bearer("https://a.example/late");
    let (status, kind, message) = claude.refused(&path, &late).await;
    assert_eq!((status, kind.as_str()), (400, "invalid_request_error"));
    assert_eq!(message, "the vault has 20 credentials already, which is the most");
    claude
        .post(&format!("{path}/{}/archive", id(&last)), &json!({}))
        .await;
    claude.post(&path, &late).await;
}

#[tokio::test]
async fn one_vault_in_both_dialects() {
    let claude = Claude::start().await;
    let server = &claude.server;
    let theirs = server
        .post("/v1/vaults", &json!({"userId": "user-1", "name": ""}))
        .await
        .json();
    let vault_id = theirs["vault_id"].as_str().unwrap();
    let added = server
        .post(
            &format!("/v1/vaults/{vault_id}/credentials"),
            &json!({
                "type": "mcp_oauth", "name": "n", "matchUrl": "https://a.example/mcp", "accessToken": "canary-access",
                "refreshToken": "canary-refresh", "clientId": "c", "tokenEndpoint": "https://id.example/token",
                "scopes": ["a", "b"],
            }),
        )
        .await
        .json();
    let path = format!("/v1/vaults/{vault_id}");
    let seen = claude.get(&path).await;
    assert_eq!(seen["display_name"], vault_id, "an empty name is no name here");
    let credential_id = added["credential_id"].as_str().unwrap();
    let credential = claude.get(&format!("{path}/credentials/{credential_id}")).await;
    insta::assert_json_snapshot!("as_this_dialect_shows_it", stable(&json!([seen, credential])));

    // What is unknown there stays when it is changed there.
    claude
        .post(&path, &json!({"display_name": "named", "metadata": {"k": "v"}}))
        .await;
    let renamed = server
        .json("PATCH", &path, &json!({"name": "renamed"}))
        .await
        .json();
    assert_eq!(
        (&renamed["user_id"], &renamed["archived_at"]),
        (&json!("user-1"), &Value::Null)
    );
    assert_eq!(claude.get(&path).await["metadata"], json!({"k": "v"}));

    let ours = claude.post("/v1/vaults", &json!({"display_name": "ours"})).await;
    let path = format!("/v1/vaults/{}", id(&ours));
    let made = claude.post(&format!("{path}/credentials"), &oauth()).await;
    claude
        .post(&format!("{path}/credentials/{}/archive", id(&made)), &json!({}))
        .await;
    let (vault, credentials) = (
        server.get(&path).await.json(),
        server.get(&format!("{path}/credentials")).await.json(),
    );
    let mut shown = json!([vault, credentials["credentials"][0]]);
    for row in shown.as_array_mut().unwrap() {
        for time in ["created_at", "updated_at", "archived_at"] {
            if row[time].is_number() {
                row[time] = json!("<millis>");
            }
        }
    }
    insta::assert_json_snapshot!("as_the_other_dialect_shows_it", stable(&shown));
}
