//! Vaults and credentials.

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

fn variable() -> Value {
    json!({"auth": {
        "type": "environment_variable", "secret_name": "API_KEY", "secret_value": "canary-value",
        "networking": {"type": "limited", "allowed_hosts": ["api.example.com", "*.cdn.example.com"]},
    }})
}

#[tokio::test]
async fn an_environment_variable_over_its_life() {
    let claude = Claude::start().await;
    let path = format!("/v1/vaults/{}/credentials", vault(&claude).await);
    let made = claude.post(&path, &variable()).await;
    assert_eq!(
        made["auth"],
        json!({
            "type": "environment_variable", "secret_name": "API_KEY",
            "networking": {"type": "limited", "allowed_hosts": ["api.example.com", "*.cdn.example.com"]},
            "injection_location": {"header": true, "body": true},
        })
    );
    let one = format!("{path}/{}", id(&made));
    assert_eq!(claude.get(&one).await, made);
    let (status, kind, _) = claude.refused(&path, &variable()).await;
    assert_eq!(
        (status, kind.as_str()),
        (409, "conflict_error"),
        "one for each variable"
    );
    let given = with(&variable(), "/auth/injection_location", json!({"header": true}));
    let given = with(&given, "/auth/secret_name", json!("OTHER_KEY"));
    let given = with(&given, "/auth/networking", json!({"type": "unrestricted"}));
    let given = claude.post(&path, &given).await;
    assert_eq!(
        given["auth"]["injection_location"],
        json!({"header": true, "body": false})
    );
    assert_eq!(given["auth"]["networking"], json!({"type": "unrestricted"}));

    let change = |fields: Value| {
        let mut auth = json!({"type": "environment_variable"});
        auth.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        json!({ "auth": auth })
    };
    let merged = claude
        .post(&one, &change(json!({"injection_location": {"body": false}})))
        .await;
    assert_eq!(
        merged["auth"]["injection_location"],
        json!({"header": true, "body": false})
    );
    let (status, _, message) = claude
        .refused(&one, &change(json!({"injection_location": {"header": false}})))
        .await;
    assert_eq!(status, 400);
    assert!(message.starts_with("auth.injection_location: "), "{message}");
    let (status, ..) = claude
        .refused(&one, &change(json!({"injection_location": null})))
        .await;
    assert_eq!(status, 400);
    let elsewhere = json!({"type": "limited", "allowed_hosts": ["b.example.com"]});
    let fields = json!({"networking": elsewhere, "secret_value": null});
    let moved = claude.post(&one, &change(fields)).await;
    assert_eq!(moved["auth"]["networking"], elsewhere);
    let kept = claude
        .post(
            &one,
            &change(json!({"networking": null, "secret_value": "canary-next"})),
        )
        .await;
    assert_eq!(kept["auth"]["networking"], elsewhere);
    for (fields, problem) in [
        (
            json!({"secret_name": "OTHER"}),
            "auth.secret_name: Can't be changed",
        ),
        (json!({"token": "canary"}), "auth.token: Extra inputs"),
        (
            json!({"secret_value": "canary"}),
            "auth.secret_value: String must contain at least 8",
        ),
    ] {
        let (status, _, message) = claude.refused(&one, &change(fields)).await;
        assert_eq!(status, 400);
        assert!(
            message.starts_with(problem) && !message.contains(CANARY),
            "{message}"
        );
    }
    let (status, ..) = claude
        .refused(&format!("{one}/mcp_oauth_validate"), &json!({}))
        .await;
    assert_eq!(status, 400);
    let archived = good(&claude.send("POST", &format!("{one}/archive"), "").await);
    assert!(archived["archived_at"].is_string());
    claude.post(&path, &variable()).await;
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
