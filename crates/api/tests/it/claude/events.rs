//! Events: what is posted, listed and streamed.

use serde_json::{Value, json};

use super::{Claude, fault, find, kinds, message, stable};

fn toolset(policy: &str) -> Value {
    json!([{"type": "agent_toolset_20260401", "default_config": {"permission_policy": {"type": policy}}}])
}

fn ticket() -> Value {
    json!([{
        "type": "custom", "name": "ticket", "description": "Opens a ticket", "input_schema": {"type": "object"},
    }])
}

/// What the list has, without messages that wait.
async fn listed(claude: &Claude, session: &str) -> Vec<Value> {
    let list = claude.get(&format!("/v1/sessions/{session}/events")).await;
    list["data"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_turn_in_the_documented_order() {
    let claude = Claude::start().await;
    let session = claude.session(toolset("always_allow")).await;
    let frames = claude.turn(&session, json!([message("tool")])).await;
    assert_eq!(
        kinds(&frames),
        [
            "session.status_running",
            "session.thread_status_running",
            "user.message",
            "span.model_request_start",
            "agent.thinking",
            "agent.tool_use",
            "span.model_request_end",
            "agent.tool_result",
            "span.model_request_start",
            "agent.message",
            "span.model_request_end",
            "session.thread_status_idle",
            "session.usage",
            "session.status_idle",
        ]
    );
    let streamed: Vec<Value> = frames.into_iter().map(|frame| frame.data).collect();
    assert_eq!(
        listed(&claude, &session).await,
        streamed,
        "list and stream differ"
    );
    insta::assert_json_snapshot!(stable(&json!(streamed)));
}

#[tokio::test]
async fn asking_waits_for_the_answers_of_clients() {
    let claude = Claude::start().await;
    let session = claude.session(toolset("always_ask")).await;
    let path = format!("/v1/sessions/{session}/events");
    let frames = claude.turn(&session, json!([message("tool")])).await;
    let tool = find(&frames, "agent.tool_use");
    assert_eq!(
        (&tool["evaluated_permission"], &tool["evaluation"]),
        (&json!("ask"), &json!({"type": "always_ask"}))
    );
    let idle = &frames.last().unwrap().data;
    assert_eq!(
        idle["stop_reason"],
        json!({"type": "requires_action", "event_ids": [tool["id"]]})
    );
    assert_eq!(
        claude.get(&format!("/v1/sessions/{session}")).await["status"],
        "idle"
    );

    let (status, _, said) = claude.refused(&path, &json!({"events": [message("more")]})).await;
    assert_eq!(status, 400);
    assert!(
        said.starts_with("Invalid user.message event at events[0]: waiting on responses to events ["),
        "{said}"
    );
    let confirm = |id: &Value, more: Value| {
        let mut event = json!({"type": "user.tool_confirmation", "tool_use_id": id, "result": "allow"});
        event
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        event
    };
    for bad in [
        confirm(&json!("evt_none"), json!({})),
        confirm(&tool["id"], json!({"deny_message": "no"})),
        confirm(&tool["id"], json!({"result": "maybe"})),
    ] {
        assert_eq!(
            claude.refused(&path, &json!({"events": [bad]})).await.0,
            400,
            "{bad}"
        );
    }
    // All or nothing: the first of these is legal, the second is not.
    let twice = json!({"events": [confirm(&tool["id"], json!({})), confirm(&tool["id"], json!({}))]});
    assert_eq!(claude.refused(&path, &twice).await.0, 400);
    let before = listed(&claude, &session).await.len();
    // A message may follow the answer in one request: it waits for its turn.
    let mut stream = claude.stream(&session, "").await;
    let deny = confirm(&tool["id"], json!({"result": "deny", "deny_message": "not now"}));
    let data = claude.events(&session, json!([deny, message("and then")])).await;
    assert!(data[0]["processed_at"].is_string(), "{data}");
    assert_eq!(
        (&data[1]["processed_at"], &data[1]["type"]),
        (&Value::Null, &json!("user.message"))
    );
    let frames = stream.until("session.status_idle").await;
    assert_eq!(frames[0].data, data[0]);
    let result = find(&frames, "agent.tool_result");
    assert_eq!(
        (&result["tool_use_id"], &result["is_error"]),
        (&tool["id"], &json!(true))
    );
    let said = frames
        .iter()
        .find(|frame| frame.data["id"] == data[1]["id"])
        .unwrap();
    assert!(said.data["processed_at"].is_string());
    assert_eq!(listed(&claude, &session).await.len(), before + frames.len());
    assert_eq!(
        claude
            .refused(&path, &json!({"events": [confirm(&tool["id"], json!({}))]}))
            .await
            .0,
        400
    );
}

#[tokio::test]
async fn what_was_shown_of_a_tool_use_stays_when_the_agent_changes() {
    let claude = Claude::start().await;
    let session = claude.session(toolset("auto")).await;
    let path = format!("/v1/sessions/{session}");
    let mut stream = claude.stream(&session, "").await;
    // The built-in tool asks; there is no such MCP server, so what the model made up is a denied tool.
    claude.events(&session, json!([message("tool docs")])).await;
    let mut frames = stream.until("session.status_idle").await;
    let auto = &find(&frames, "agent.tool_use")["evaluation"];
    assert_eq!(auto["evaluated_permission"]["reason_code"], "indeterminate");
    assert_eq!(
        frames
            .iter()
            .filter(|frame| frame.event == "agent.tool_use")
            .count(),
        2
    );
    claude.events(&session, json!([{"type": "user.interrupt"}])).await;
    frames.extend(stream.until("session.status_idle").await);
    // Now it is a server, and nobody asks any more.
    let mut tools = toolset("always_allow");
    let allowed = json!({"permission_policy": {"type": "always_allow"}});
    tools
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "mcp_toolset", "mcp_server_name": "docs", "default_config": allowed}));
    let servers = json!([{"type": "url", "name": "docs", "url": "https://docs.example/mcp"}]);
    let change = json!({"agent": {"tools": tools, "mcp_servers": servers}});
    claude.post(&path, &change).await;
    frames.extend(stream.until("session.updated").await);
    claude.events(&session, json!([message("tool docs")])).await;
    let turn = stream.until("session.status_idle").await;
    assert_eq!(find(&turn, "agent.mcp_tool_use")["mcp_server_name"], "docs");
    assert_eq!(
        find(&turn, "agent.mcp_tool_use")["evaluation"],
        json!({"type": "always_allow"})
    );
    frames.extend(turn);
    let change = json!({"agent": {"tools": toolset("always_ask"), "mcp_servers": []}});
    claude.post(&path, &change).await;
    frames.extend(stream.until("session.updated").await);
    let streamed: Vec<Value> = frames.into_iter().map(|frame| frame.data).collect();
    assert_eq!(
        listed(&claude, &session).await,
        streamed,
        "list and stream differ"
    );
}

#[tokio::test]
async fn custom_tools_are_answered_by_the_client() {
    let claude = Claude::start().await;
    let session = claude.session(ticket()).await;
    let frames = claude.turn(&session, json!([message("ticket")])).await;
    let used = find(&frames, "agent.custom_tool_use");
    assert_eq!(
        (&used["name"], &used["input"]),
        (&json!("ticket"), &json!({"title": "it broke"}))
    );
    let stop = json!({"type": "requires_action", "event_ids": [used["id"]]});
    assert_eq!(frames.last().unwrap().data["stop_reason"], stop);
    let result = json!({
        "type": "user.custom_tool_result", "custom_tool_use_id": used["id"], "is_error": false,
        "content": [
            {"type": "text", "text": "No. 7"},
            {"type": "search_result", "source": "https://a.example", "title": "A", "citations": {"enabled": false},
             "content": [{"type": "text", "text": "found"}]},
        ],
    });
    let mut stream = claude.stream(&session, "").await;
    let data = claude.events(&session, json!([result])).await;
    assert!(data[0]["processed_at"].is_string());
    let frames = stream.until("session.status_idle").await;
    assert_eq!(frames[0].data, data[0], "the echo is what the stream has");
    insta::assert_json_snapshot!(stable(&json!(
        frames.iter().map(|frame| &frame.data).collect::<Vec<_>>()
    )));
    let again = claude
        .refused(
            &format!("/v1/sessions/{session}/events"),
            &json!({"events": [result]}),
        )
        .await;
    assert_eq!(again.0, 400);
    // The other dialect sees the same session, which works in its eyes until it is answered.
    let native = claude.server.events(&session, "").await;
    assert!(
        native
            .iter()
            .any(|event| event["type"] == "user.custom_tool_result")
    );
}

#[tokio::test]
async fn interrupts_end_turns_and_let_the_next_message_follow() {
    let claude = Claude::start().await;
    let session = claude.session(toolset("always_allow")).await;
    // At rest it is no more than echoed.
    let data = claude.events(&session, json!([{"type": "user.interrupt"}])).await;
    assert_eq!(data[0]["type"], "user.interrupt");
    assert_eq!(listed(&claude, &session).await, Vec::<Value>::new());

    let mut stream = claude.stream(&session, "?event_deltas[]=agent.message").await;
    claude.events(&session, json!([message("hang")])).await;
    stream.until("event_delta").await;
    claude.events(&session, json!([message("waits")])).await;
    let waiting = listed(&claude, &session).await.pop().unwrap();
    assert_eq!(
        (&waiting["processed_at"], &waiting["content"][0]["text"]),
        (&Value::Null, &json!("waits"))
    );
    claude
        .events(&session, json!([{"type": "user.interrupt"}, message("steer")]))
        .await;
    let frames = stream.until("session.status_idle").await;
    assert_eq!(
        frames.last().unwrap().data["stop_reason"],
        json!({"type": "end_turn"})
    );
    assert!(kinds(&frames).contains(&"user.interrupt"));
    let frames = stream.until("session.status_idle").await;
    let said: Vec<&Value> = frames
        .iter()
        .filter(|frame| frame.event == "user.message")
        .map(|frame| &frame.data["content"][0]["text"])
        .collect();
    assert_eq!(said, ["waits", "steer"]);

    // What waits for a confirmation is closed by an interrupt, without asking the model again.
    let session = claude.session(toolset("always_ask")).await;
    claude.turn(&session, json!([message("tool")])).await;
    let frames = claude.turn(&session, json!([{"type": "user.interrupt"}])).await;
    assert_eq!(find(&frames, "agent.tool_result")["is_error"], true);
    assert_eq!(
        frames.last().unwrap().data["stop_reason"],
        json!({"type": "end_turn"})
    );
    assert!(!kinds(&frames).contains(&"span.model_request_start"));
}

#[tokio::test]
async fn previews_are_opt_in_and_a_prefix_of_the_message() {
    let claude = Claude::start().await;
    let session = claude.session(toolset("always_allow")).await;
    let mut plain = claude.stream(&session, "").await;
    let mut eager = claude
        .stream(
            &session,
            "?event_deltas%5B%5D=agent.message&event_deltas=agent.thinking",
        )
        .await;
    claude.events(&session, json!([message("hello")])).await;
    assert!(
        !kinds(&plain.until("session.status_idle").await)
            .iter()
            .any(|kind| kind.starts_with("event_"))
    );
    let frames = eager.until("session.status_idle").await;
    let kinds = kinds(&frames);
    let place = |kind: &str| kinds.iter().position(|found| *found == kind).unwrap();
    let order = [
        "span.model_request_start",
        "event_start",
        "event_delta",
        "agent.message",
        "span.model_request_end",
    ];
    assert!(order.map(place).is_sorted(), "{kinds:?}");
    let whole = find(&frames, "agent.message");
    assert_eq!(
        find(&frames, "event_start")["event"],
        json!({"type": "agent.message", "id": whole["id"]})
    );
    let pieces: String = frames
        .iter()
        .filter(|frame| frame.event == "event_delta" && frame.data["event_id"] == whole["id"])
        .map(|frame| frame.data["delta"]["content"]["text"].as_str().unwrap())
        .collect();
    let text = whole["content"][0]["text"].as_str().unwrap();
    assert!(!pieces.is_empty() && text.starts_with(&pieces), "{pieces} {text}");
    let path = format!("/v1/sessions/{session}/events/stream?event_deltas=agent.tool_use");
    assert_eq!(fault(&claude.send("GET", &path, "").await).0, 400);
}

#[tokio::test]
async fn a_stream_begins_now_unless_it_resumes() {
    let claude = Claude::start().await;
    let session = claude.session(toolset("always_allow")).await;
    let first = claude.turn(&session, json!([message("one")])).await;
    let second = claude.turn(&session, json!([message("two")])).await;
    assert_eq!(
        find(&second, "user.message")["content"][0]["text"],
        "two",
        "no replay"
    );
    let all: Vec<_> = first.iter().chain(&second).cloned().collect();
    // From every frame on, also from those in the middle of an event.
    for (seen, frame) in all.iter().enumerate() {
        let after = frame.id.clone().unwrap();
        assert_eq!(frame.data["id"], after.as_str());
        let mut stream = claude.stream(&session, &format!("?after={after}")).await;
        let mut rest = Vec::new();
        while rest.len() < all.len() - seen - 1 {
            let next = stream.next().await.unwrap();
            if next.event != "ping" {
                rest.push(next);
            }
        }
        assert_eq!(rest, all[seen + 1..]);
    }
    let unknown = format!("/v1/sessions/{session}/events/stream?after=evt_none");
    assert_eq!(fault(&claude.send("GET", &unknown, "").await).0, 400);
}

#[tokio::test]
async fn lists_are_paged_and_filtered() {
    let claude = Claude::start().await;
    let session = claude.session(toolset("always_allow")).await;
    claude.turn(&session, json!([message("tool")])).await;
    let all = listed(&claude, &session).await;
    let path = format!("/v1/sessions/{session}/events");
    for order in ["asc", "desc"] {
        for limit in 1..=all.len() {
            let mut seen = Vec::new();
            let mut query = format!("order={order}&limit={limit}");
            loop {
                let page = claude.get(&format!("{path}?{query}")).await;
                seen.extend(page["data"].as_array().unwrap().clone());
                match page["next_page"].as_str() {
                    Some(next) => query = format!("order={order}&limit={limit}&page={next}"),
                    None => break,
                }
            }
            if order == "desc" {
                seen.reverse();
            }
            assert_eq!(seen, all, "{order} by {limit}");
        }
    }
    let of = async |query: &str| {
        claude.get(&format!("{path}?{query}")).await["data"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(of("types[]=agent.message&types[]=agent.tool_use").await, 2);
    assert_eq!(of("types=user.message").await, 1);
    assert_eq!(of("created_at[gt]=2100-01-01T00:00:00Z").await, 0);
    assert_eq!(of("created_at[lt]=2100-01-01T00:00:00Z").await, all.len());
    for query in ["limit=1001", "page=evt_1", "order=up"] {
        assert_eq!(
            fault(&claude.send("GET", &format!("{path}?{query}"), "").await).0,
            400,
            "{query}"
        );
    }
}

#[tokio::test]
async fn endings() {
    let claude = Claude::start().await;
    let session = claude.session(toolset("always_allow")).await;
    let frames = claude.turn(&session, json!([message("fail")])).await;
    assert_eq!(
        find(&frames, "session.error")["error"],
        json!({
            "type": "model_overloaded_error", "message": "the provider says no", "retry_status": {"type": "exhausted"},
        })
    );
    assert_eq!(
        frames.last().unwrap().data["stop_reason"],
        json!({"type": "retries_exhausted"})
    );
    assert_eq!(find(&frames, "span.model_request_end")["is_error"], true);

    let mut stream = claude.stream(&session, "").await;
    let path = format!("/v1/sessions/{session}");
    claude.post(&path, &json!({"title": "T"})).await;
    claude.post(&format!("{path}/archive"), &json!({})).await;
    claude.send("DELETE", &path, "").await;
    let frames = stream.until("session.deleted").await;
    assert_eq!(
        kinds(&frames),
        [
            "session.updated",
            "session.thread_status_terminated",
            "session.status_terminated",
            "session.deleted"
        ]
    );
    assert_eq!(frames[0].data["title"], "T");
    assert_eq!(frames[0].data.get("metadata"), None, "only what changed");
    assert_eq!(stream.next().await, None, "the stream ends");
}

#[tokio::test]
async fn bad_events_are_refused() {
    let claude = Claude::start().await;
    let session = claude.session(toolset("always_allow")).await;
    let path = format!("/v1/sessions/{session}/events");
    let said = |content: Value| json!({"type": "user.message", "content": content});
    for (event, named) in [
        (json!({"type": "user.shout"}), "events.0.type"),
        (json!({"type": "agent.message"}), "events.0.type"),
        (json!({"type": "user.define_outcome"}), "events.0.description"),
        (json!({"type": "user.tool_result"}), "events.0.tool_use_id"),
        (
            json!({"type": "system.message", "content": []}),
            "events.0.content",
        ),
        (said(json!("text")), "events.0.content"),
        (said(json!([])), "events.0.content"),
        (said(json!([{"type": "redacted"}])), "events.0.content.0.type"),
        (
            said(json!([{"type": "text", "text": "x", "cache_control": {}}])),
            "events.0.content.0.cache_control",
        ),
        (
            said(json!([{"type": "image", "source": {"type": "file", "file_id": "f"}}])),
            "events.0.content.0.source.file_id",
        ),
        (
            said(
                json!([{"type": "image", "source": {"type": "base64", "media_type": "image/tiff", "data": "aGk="}}]),
            ),
            "events.0.content.0.source.media_type",
        ),
        (
            json!({"type": "user.message", "content": [], "id": "x"}),
            "events.0.id",
        ),
        (
            json!({"type": "user.interrupt", "session_thread_id": "sthr_x"}),
            "events.0.session_thread_id",
        ),
        (
            json!({"type": "user.custom_tool_result", "custom_tool_use_id": 1}),
            "events.0.custom_tool_use_id",
        ),
    ] {
        let (status, _, message) = claude.refused(&path, &json!({"events": [event]})).await;
        assert_eq!(status, 400, "{event}");
        assert!(
            message.starts_with(&format!("{named}: ")),
            "{message}, not {named}"
        );
    }
    for body in [
        json!({}),
        json!({"events": []}),
        json!({"events": [message("x")], "event": 1}),
    ] {
        assert_eq!(claude.refused(&path, &body).await.0, 400, "{body}");
    }
    assert_eq!(listed(&claude, &session).await, Vec::<Value>::new());
    // Pictures and documents are taken, also with nulls where nothing is said.
    let document = json!({
        "type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}, "title": null, "context": "c",
    });
    let image =
        json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}});
    let data = claude
        .events(&session, json!([said(json!([document, image]))]))
        .await;
    assert_eq!(data[0]["content"], json!([document, image]));
}
