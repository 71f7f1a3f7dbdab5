//! Environments.

use serde_json::{Value, json};

use super::{Claude, id, stable};

#[tokio::test]
async fn an_environment_over_its_life() {
    let claude = Claude::start().await;
    let made = claude
        .post(
            "/v1/environments",
            &json!({"name": "plain", "description": "d", "metadata": {"a": "1", "b": "2"}}),
        )
        .await;
    insta::assert_json_snapshot!(stable(&made));
    let path = format!("/v1/environments/{}", id(&made));
    assert_eq!(claude.get(&path).await, made);
    // The name is one environment's, and the SDKs are told not to insist.
    let again = claude
        .send("POST", "/v1/environments", r#"{"name": "plain"}"#)
        .await;
    assert_eq!(
        (again.status.as_u16(), again.json()["error"]["type"].clone()),
        (409, json!("conflict_error"))
    );
    assert_eq!(again.headers["x-should-retry"], "false");

    let same = claude
        .post(&path, &json!({"name": "plain", "config": {"type": "cloud"}}))
        .await;
    assert_eq!(same, made);
    // The empty text is a description, too.
    let emptied = claude.post(&path, &json!({"description": ""})).await;
    assert_eq!(emptied["description"], "");
    let update = json!({"name": "new", "description": null, "metadata": {"a": null, "b": "", "c": "3"}});
    let updated = claude.post(&path, &update).await;
    assert_eq!(
        (&updated["name"], &updated["description"], &updated["metadata"]),
        (&json!("new"), &Value::Null, &json!({"c": "3"}))
    );
    let other = claude.post("/v1/environments", &json!({"name": "plain"})).await;
    assert_eq!(claude.refused(&path, &json!({"name": "plain"})).await.0, 409);

    let archived = claude.send("POST", &format!("{path}/archive"), "").await.json();
    assert!(archived["archived_at"].is_string());
    assert_eq!(
        claude.post(&format!("{path}/archive"), &json!({})).await,
        archived
    );
    assert_eq!(claude.refused(&path, &json!({"name": "late"})).await.0, 400);
    let agent = claude.agent(json!({})).await;
    let session = json!({"agent": id(&agent), "environment_id": id(&made)});
    let (status, _, message) = claude.refused("/v1/sessions", &session).await;
    assert_eq!((status, message.as_str()), (400, "the environment is archived"));

    assert_eq!(claude.get("/v1/environments").await["data"], json!([other]));
    let all = claude.get("/v1/environments?include_archived=true").await;
    assert_eq!(all["data"], json!([other, archived]));
    let deleted = claude.send("DELETE", &path, "").await.json();
    assert_eq!(deleted, json!({"id": id(&made), "type": "environment_deleted"}));
    assert_eq!(claude.send("GET", &path, "").await.status, 404);
}

#[tokio::test]
async fn what_the_server_can_not_do_is_refused() {
    let claude = Claude::start().await;
    for (body, named) in [
        (json!({"name": ""}), "name"),
        (json!({"name": "e", "scope": "account"}), "scope"),
        (
            json!({"name": "e", "config": {"type": "self_hosted", "networking": null}}),
            "config.networking",
        ),
        (
            json!({"name": "e", "config": {"type": "cloud", "packages": {"pip": ["numpy"]}}}),
            "packages",
        ),
        (
            json!({"name": "e", "config": {"type": "cloud", "networking": {"type": "limited", "allowed_hosts": ["https://a"]}}}),
            "config.networking.allowed_hosts.0",
        ),
    ] {
        let (status, _, message) = claude.refused("/v1/environments", &body).await;
        assert_eq!(status, 400, "{body}");
        assert!(message.starts_with(&format!("{named}: ")), "{message}");
    }
    let networking = json!({"type": "limited", "allowed_hosts": ["a.example"], "allow_mcp_servers": true});
    let body = json!({"name": "limited", "config": {"type": "cloud", "networking": networking}});
    let made = claude.post("/v1/environments", &body).await;
    assert_eq!(
        made["config"]["networking"],
        json!({
            "type": "limited", "allowed_hosts": ["a.example"], "allow_mcp_servers": true,
            "allow_package_managers": false,
        })
    );
    // All that is there already may be said.
    let config = json!({"type": "cloud", "networking": {"type": "unrestricted"}, "packages": {"type": "packages", "pip": [], "apt": null}});
    claude
        .post(
            "/v1/environments",
            &json!({"name": "e", "config": config, "scope": "organization"}),
        )
        .await;
}
