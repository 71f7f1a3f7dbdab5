//! Credentials that sandboxes have as environment variables.

use serde_json::{Value, json};

use super::{CANARY, vault, with};
use crate::claude::{Claude, good, id};

pub(super) fn variable() -> Value {
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
