//! Webhook endpoints.

use serde_json::{Value, json};

use super::{Claude, fault, good, id, stable};

const PATH: &str = "/v1/organizations/webhooks";

#[tokio::test]
async fn an_endpoint_over_its_life() {
    let claude = Claude::start().await;
    let body = json!({
        "url": "https://a.example/hook?key=1",
        "enabled_events": ["session.status_idled", "agent.created", "agent.created", "external_key.failed"],
        "name": "Ops", "description": "on call",
    });
    let created = claude.post(PATH, &body).await;
    let secret = created["signing_secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("whsec_") && secret.len() == 50, "{secret}");
    let mut shown = created.clone();
    shown["signing_secret"] = json!("<secret>");
    insta::assert_json_snapshot!("an_endpoint", stable(&shown));
    let path = format!("{PATH}/{}", id(&created));
    let mut expected = created.clone();
    expected.as_object_mut().unwrap().remove("signing_secret");
    assert_eq!(claude.get(&path).await, expected);

    let updated = claude
        .post(
            &path,
            &json!({"state": "disabled", "enabled_events": ["agent.deleted"]}),
        )
        .await;
    assert_eq!(
        [
            &updated["state"],
            &updated["disabled_reason"],
            &updated["enabled_events"]
        ],
        [&json!("disabled"), &json!(""), &json!(["agent.deleted"])]
    );
    let renewed = good(
        &claude
            .send("POST", &format!("{path}/regenerate_signing_secret"), "")
            .await,
    );
    assert_ne!(renewed["signing_secret"], json!(secret));
    let deleted = good(&claude.send("DELETE", &path, "").await);
    assert_eq!(
        deleted,
        json!({"id": id(&created), "type": "webhook_endpoint_deleted"})
    );
    for (method, path) in [
        ("GET", path.clone()),
        ("DELETE", path.clone()),
        ("POST", format!("{path}/regenerate_signing_secret")),
    ] {
        let (status, kind, _) = fault(&claude.send(method, &path, "").await);
        assert_eq!(
            (status, kind.as_str()),
            (404, "not_found_error"),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn lists_go_both_ways() {
    let claude = Claude::start().await;
    let mut ids = Vec::new();
    for number in 0..5 {
        let body = json!({"url": format!("https://a.example/{number}"), "enabled_events": ["agent.created"]});
        ids.push(id(&claude.post(PATH, &body).await));
    }
    ids.reverse();
    let page = async |query: &str| -> (Vec<String>, Value) {
        let page = claude.get(&format!("{PATH}{query}")).await;
        let found: Vec<String> = page["data"].as_array().unwrap().iter().map(id).collect();
        assert_eq!(page["first_id"].as_str(), found.first().map(String::as_str));
        assert_eq!(page["last_id"].as_str(), found.last().map(String::as_str));
        (found, page["has_more"].clone())
    };
    assert_eq!(page("").await, (ids.clone(), json!(false)));
    assert_eq!(page("?limit=2").await, (ids[..2].to_vec(), json!(true)));
    let after = format!("?limit=2&after_id={}", ids[2]);
    assert_eq!(page(&after).await, (ids[3..].to_vec(), json!(false)));
    let before = format!("?limit=2&before_id={}", ids[3]);
    assert_eq!(page(&before).await, (ids[1..3].to_vec(), json!(true)));
    let before = format!("?limit=2&before_id={}", ids[1]);
    assert_eq!(page(&before).await, (ids[..1].to_vec(), json!(false)));
    let (ascending, _) = page("?order=asc").await;
    assert_eq!(ascending.first(), ids.last());
    for bad in ["?limit=0", "?after_id=whk_none", "?order=up"] {
        assert_eq!(
            fault(&claude.send("GET", &format!("{PATH}{bad}"), "").await).0,
            400,
            "{bad}"
        );
    }
}

#[tokio::test]
async fn what_is_refused() {
    let claude = Claude::start().await;
    let good_url = "https://a.example/";
    for (body, said) in [
        (json!({"enabled_events": ["agent.created"]}), "url: Required"),
        (json!({"url": good_url}), "enabled_events: Required"),
        (json!({"url": good_url, "enabled_events": []}), "enabled_events"),
        (
            json!({"url": good_url, "enabled_events": ["agent"]}),
            "enabled_events.0",
        ),
        (
            json!({"url": good_url, "enabled_events": ["agent.created"], "secret": "x"}),
            "secret: Extra inputs",
        ),
        (
            json!({"url": "http://a.example/", "enabled_events": ["agent.created"]}),
            "url: must be https",
        ),
        (
            json!({"url": "https://10.1.2.3/", "enabled_events": ["agent.created"]}),
            "url: 10.1.2.3:443 may not be reached",
        ),
    ] {
        let (status, kind, message) = claude.refused(PATH, &body).await;
        assert_eq!((status, kind.as_str()), (400, "invalid_request_error"), "{body}");
        assert!(message.starts_with(said), "{body}: {message}");
    }
}
