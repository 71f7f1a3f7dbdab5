//! Threads.

use serde_json::{Value, json};

use super::{Claude, fault, message, stable};

#[tokio::test]
async fn every_session_has_a_primary_thread() {
    let claude = Claude::start().await;
    let session = claude.session(json!([{"type": "agent_toolset_20260401"}])).await;
    let path = format!("/v1/sessions/{session}/threads");
    let threads = claude.get(&path).await;
    insta::assert_json_snapshot!(stable(&threads));
    let thread = threads["data"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        claude.get(&format!("{path}/{thread}")).await["id"],
        thread.as_str()
    );
    assert_eq!(
        claude.get(&format!("{path}?statuses[]=idle")).await["data"][0]["id"],
        thread.as_str()
    );
    assert_eq!(
        claude.get(&format!("{path}?statuses=running")).await["data"],
        json!([])
    );
    assert_eq!(
        fault(&claude.send("GET", &format!("{path}?statuses=asleep"), "").await).0,
        400
    );

    let frames = claude.turn(&session, json!([message("tool")])).await;
    let of_thread = claude.get(&format!("{path}/{thread}/events?limit=4")).await;
    let next = of_thread["next_page"].as_str().unwrap();
    let rest = claude.get(&format!("{path}/{thread}/events?page={next}")).await;
    let listed: Vec<&Value> = [&of_thread, &rest]
        .iter()
        .flat_map(|page| page["data"].as_array().unwrap())
        .collect();
    let about_threads = |kind: &str| {
        !matches!(
            kind,
            "session.status_running" | "session.status_idle" | "session.usage"
        )
    };
    let expected: Vec<&Value> = frames
        .iter()
        .filter(|frame| about_threads(&frame.event))
        .map(|frame| &frame.data)
        .collect();
    assert_eq!(listed, expected);
    assert_eq!(expected[0]["session_thread_id"], thread.as_str());

    // A stream of it resumes as that of the session does.
    let after = expected[2]["id"].as_str().unwrap();
    let mut stream = claude
        .open(&format!("{path}/{thread}/stream?after={after}"))
        .await;
    let streamed = stream.until("session.thread_status_idle").await;
    let streamed: Vec<&Value> = streamed.iter().map(|frame| &frame.data).collect();
    assert_eq!(streamed, expected[3..]);

    // It is interrupted by its name, and archived with its session only.
    claude
        .events(
            &session,
            json!([{"type": "user.interrupt", "session_thread_id": thread}]),
        )
        .await;
    assert_eq!(
        fault(&claude.send("POST", &format!("{path}/{thread}/archive"), "").await).0,
        400
    );
    let other = claude.session(json!([])).await;
    for (method, path) in [
        ("GET", format!("/v1/sessions/{other}/threads/{thread}")),
        ("GET", format!("/v1/sessions/{other}/threads/{thread}/events")),
        ("GET", format!("/v1/sessions/{other}/threads/{thread}/stream")),
        ("POST", format!("/v1/sessions/{other}/threads/{thread}/archive")),
        ("GET", format!("/v1/sessions/{session}/threads/sthr_none")),
        ("GET", format!("/v1/sessions/{session}/threads/{session}")),
        ("GET", "/v1/sessions/ses_none/threads".to_owned()),
    ] {
        assert_eq!(
            fault(&claude.send(method, &path, "").await).0,
            404,
            "{method} {path}"
        );
    }
}
