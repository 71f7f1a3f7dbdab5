//! Events over HTTP: posting and listing.

use axum::body::Body;
use serde_json::{Value, json};

use crate::server::{Server, is_rest, request};

#[tokio::test]
async fn bad_events_are_refused() {
    let server = Server::start().await;
    let agent = server.agent(json!({})).await;
    let session = server.session(&agent).await;
    let path = format!("/v1/sessions/{session}/events");
    let block = |block: Value| json!({"content": [block]});
    for (body, at, text) in [
        (json!({}), &["content"][..], "Required"),
        (
            json!({"content": ""}),
            &["content"],
            "String must contain at least 1 character(s)",
        ),
        (
            json!({"content": 1}),
            &["content"],
            "Expected string, received number",
        ),
        (
            json!({"content": []}),
            &["content"],
            "Array must contain at least 1 element(s)",
        ),
        (
            json!({"content": "x", "model": "nope"}),
            &["model"],
            "Expected 'provider/model'",
        ),
        (
            json!({"content": "x", "thinkingLevel": 1}),
            &["thinkingLevel"],
            "Expected 'off' | 'low' | 'medium' | 'high' | 'xhigh', received number",
        ),
        (
            json!({"type": "agent.message", "content": "x"}),
            &["type"],
            "Invalid literal value, expected \"user.message\"",
        ),
        (
            json!({"type": 1, "content": "x"}),
            &["type"],
            "Invalid literal value, expected \"user.message\"",
        ),
        (
            block(json!("x")),
            &["content", "0"],
            "Expected object, received string",
        ),
        (
            block(json!({"type": "audio"})),
            &["content", "0", "type"],
            "Invalid discriminator value. Expected 'text' | 'image' | 'document'",
        ),
        (
            block(json!({"type": "text", "text": ""})),
            &["content", "0", "text"],
            "String must contain at least 1 character(s)",
        ),
        (
            block(json!({"type": "image"})),
            &["content", "0", "source"],
            "Required",
        ),
        (
            block(json!({"type": "image", "source": {"type": "text", "data": "x"}})),
            &["content", "0", "source", "type"],
            "Invalid discriminator value. Expected 'base64' | 'url'",
        ),
        (
            block(json!({"type": "image", "source": {"type": "url", "url": "x"}})),
            &["content", "0", "source", "url"],
            "Invalid url",
        ),
        (
            block(
                json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "@@"}}),
            ),
            &["content", "0", "source", "data"],
            "Invalid base64",
        ),
        (
            block(
                json!({"type": "document", "source": {"type": "base64", "media_type": "text/html", "data": "aGk="}}),
            ),
            &["content", "0", "source", "media_type"],
            "Invalid enum value. Expected 'application/pdf', received 'text/html'",
        ),
        (
            json!({"type": "user.tool_confirmation", "result": "allow"}),
            &["toolUseId"],
            "Required",
        ),
        (
            json!({"type": "user.tool_confirmation", "toolUseId": "x", "result": "maybe"}),
            &["result"],
            "Invalid enum value. Expected 'allow' | 'deny', received 'maybe'",
        ),
    ] {
        let answer = server.post(&path, &body).await;
        assert_eq!(answer.code(), (400, "invalid_request".into()), "{body}");
        let details = answer.json()["details"].clone();
        let node = at.iter().fold(&details, |node, name| &node[*name]);
        assert_eq!(node["_errors"][0], json!(text), "{body} {details}");
    }
    // A missing session is worse than a bad body.
    assert_eq!(
        server
            .post("/v1/sessions/ses_none/events", &json!({}))
            .await
            .code()
            .0,
        404
    );
    assert!(server.events(&session, "").await.is_empty());
}

#[tokio::test]
async fn messages_queue_behind_a_busy_session() {
    let server = Server::start().await;
    let agent = server.agent(json!({})).await;
    let session = server.session(&agent).await;
    let first = server.say_and_watch(&session, "hang").await;
    assert_eq!(
        (&first["session_status"], &first["queued"]),
        (&json!("starting"), &json!(false))
    );
    let second = server.say(&session, "later").await;
    assert_eq!(
        (&second["session_status"], &second["queued"]),
        (&json!("running"), &json!(true))
    );
    assert!(
        !server
            .events(&session, "")
            .await
            .iter()
            .any(|event| event["content"] == "later")
    );
    server
        .post(&format!("/v1/sessions/{session}/cancel"), &json!({}))
        .await;
    let events = server.events(&session, "").await;
    let interrupt = events
        .iter()
        .find(|event| event["type"] == "user.interrupt")
        .unwrap();
    assert_eq!(interrupt["content"], "1 waiting message was dropped");
}

#[tokio::test]
async fn blocks_and_overrides_arrive() {
    let server = Server::start().await;
    let agent = server.agent(json!({})).await;
    let session = server.session(&agent).await;
    let content = json!([
        {"type": "text", "text": "look"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
        {"type": "document", "source": {"type": "text", "data": "page"}, "title": "Notes"},
    ]);
    let body =
        json!({"type": "user.message", "content": content, "model": "other/model", "thinkingLevel": "high"});
    let answer = server
        .post(&format!("/v1/sessions/{session}/events"), &body)
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    server.until(&session, "", is_rest).await;
    let events = server.events(&session, "").await;
    let kinds: Vec<_> = events
        .iter()
        .map(|event| {
            (
                event["type"].as_str().unwrap(),
                event["content"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        kinds,
        [
            ("session.status_running", ""),
            ("session.model_change", "other/model"),
            ("session.thinking_level_change", "high"),
            ("user.message", "look\n[image: image/png]\n[document: Notes]"),
            ("agent.message", "re: look"),
            ("session.status_idle", ""),
        ]
    );
    assert_eq!(events[4]["model"], "other/model");
}

#[tokio::test]
async fn confirmations() {
    let server = Server::start().await;
    let agent = server
        .agent(json!({"permissionPolicy": {"type": "always_ask"}}))
        .await;
    for (verdict, by_frame_id) in [("allow", false), ("deny", true)] {
        let session = server.session(&agent).await;
        let path = format!("/v1/sessions/{session}/events");
        server.say(&session, "tool").await;
        let seen = server
            .until(&session, "", |frame| {
                frame.event == "agent.tool_confirmation_request"
            })
            .await;
        let asks = &seen.last().unwrap().data;
        let used = &seen[seen.len() - 2].data;
        assert_eq!(
            (&asks["approval_id"], &asks["tool_name"]),
            (&used["event_id"], &json!("bash"))
        );
        assert_eq!(asks["tool_arguments"], json!({"command": "true"}));
        assert_eq!(
            server.get(&format!("/v1/sessions/{session}")).await.json()["stop_reason"],
            "requires_action"
        );
        let id = if by_frame_id {
            &asks["event_id"]
        } else {
            &asks["approval_id"]
        };
        let answer = json!({"type": "user.tool_confirmation", "toolUseId": id, "result": verdict, "denyMessage": "no"});
        let confirmed = server.post(&path, &answer).await;
        assert_eq!(
            confirmed.json(),
            json!({"session_id": session, "confirmed": true})
        );
        server.until(&session, "", is_rest).await;
        assert_eq!(
            server.post(&path, &answer).await.code(),
            (409, "confirm_tool_failed".into())
        );
        let result = server
            .events(&session, "")
            .await
            .into_iter()
            .find(|event| event["type"] == "agent.tool_result")
            .unwrap();
        assert_eq!(result["is_error"], json!(verdict == "deny"));
        assert_eq!(result["tool_call_id"], used["event_id"]);
    }
    let session = server.session(&agent).await;
    for id in ["evt_none", "not an id"] {
        let answer = json!({"type": "user.tool_confirmation", "toolUseId": id, "result": "allow"});
        let refused = server
            .post(&format!("/v1/sessions/{session}/events"), &answer)
            .await;
        assert_eq!(refused.code(), (409, "confirm_tool_failed".into()), "{id}");
    }
}

#[tokio::test]
async fn a_repeated_message_takes_effect_once() {
    let server = Server::start().await;
    let agent = server.agent(json!({})).await;
    let session = server.session(&agent).await;
    let path = format!("/v1/sessions/{session}/events");
    let post = |text: &str| {
        let request = request("POST", &path).header("idempotency-key", "m1");
        server.send(
            request
                .body(Body::from(json!({"content": text}).to_string()))
                .unwrap(),
        )
    };
    let (first, second) = tokio::join!(post("hello"), post("hello"));
    assert_eq!(first.json()["event_id"], second.json()["event_id"]);
    server.until(&session, "", is_rest).await;
    assert_eq!(post("hello").await.json()["event_id"], first.json()["event_id"]);
    assert_eq!(post("other").await.code(), (422, "idempotency_key_reused".into()));
    assert_eq!(
        server.get(&format!("/v1/sessions/{session}")).await.json()["turns"],
        1
    );
}

#[tokio::test]
async fn pages_join_into_the_whole_log_in_both_orders() {
    let server = Server::start().await;
    let agent = server
        .agent(json!({"permissionPolicy": {"type": "always_ask"}}))
        .await;
    let session = server.session(&agent).await;
    server.turn(&session, "one").await;
    server.say(&session, "tool").await;
    server
        .until(&session, "", |frame| {
            frame.event == "agent.tool_confirmation_request"
        })
        .await;
    let whole = server.events(&session, "").await;
    assert!(
        whole
            .iter()
            .all(|event| !event["type"].as_str().unwrap().starts_with("span."))
    );
    for order in ["asc", "desc"] {
        let mut expected = whole.clone();
        if order == "desc" {
            expected.reverse();
        }
        for limit in 1..=whole.len() + 1 {
            let (mut seen, mut after) = (Vec::new(), String::new());
            loop {
                let page = server
                    .get(&format!(
                        "/v1/sessions/{session}/events?order={order}&limit={limit}&after={after}"
                    ))
                    .await
                    .json();
                let rows = page["events"].as_array().unwrap();
                assert!(rows.len() <= limit && page["count"] == json!(rows.len()));
                assert_eq!(page["has_more"], json!(page["next"].is_string()));
                seen.extend(rows.clone());
                match page["next"].as_str() {
                    Some(next) => after = next.to_owned(),
                    None => break,
                }
            }
            assert_eq!(seen, expected, "{order} by {limit}");
        }
        // Any event's id is a cursor.
        for (index, event) in expected.iter().enumerate() {
            let id = event["event_id"].as_str().unwrap();
            let rest = server
                .events(&session, &format!("?order={order}&after={id}"))
                .await;
            assert_eq!(rest, expected[index + 1..], "{order} after {id}");
        }
    }
    for cursor in ["evt_none", "nonsense%20", "evt_none:1"] {
        let answer = server
            .get(&format!("/v1/sessions/{session}/events?after={cursor}"))
            .await;
        assert_eq!(answer.code(), (400, "invalid_request".into()), "{cursor}");
    }
}
