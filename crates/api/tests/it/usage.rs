//! The usage report over HTTP.

use serde_json::{Value, json};

use crate::server::Server;

const DAY: i64 = 24 * 3_600_000;

#[tokio::test]
async fn what_was_consumed_is_reported() {
    let server = Server::start().await;
    assert_eq!(server.get("/v1/usage").await.json()["count"], 0);
    let agent = server.agent(json!({})).await;
    let other = server.agent(json!({})).await;
    let mut sessions = Vec::new();
    for agent in [&agent, &agent, &other] {
        let opened = server
            .post("/v1/sessions", &json!({"agentId": agent}))
            .await
            .json();
        sessions.push(opened["session_id"].as_str().unwrap().to_owned());
    }
    for session in &sessions {
        server.turn(session, "hello").await;
    }
    server.turn(&sessions[2], "free").await;
    // What fails without having consumed anything is not there.
    server.turn(&sessions[0], "fail").await;
    let list = server.get("/v1/usage").await.json();
    let rows = list["usage"].as_array().unwrap();
    let sum = |field: &str| rows.iter().map(|row| row[field].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("requests"), sum("output_tokens")), (4, 20));
    for (agent, requests, cost) in [(&agent, 2, json!(0.003)), (&other, 2, Value::Null)] {
        let only = server.get(&format!("/v1/usage?agent_id={agent}")).await.json();
        let [row] = only["usage"].as_array().unwrap().as_slice() else {
            panic!("one day, one model, one key: {only}");
        };
        assert_eq!(
            (
                &row["agent_id"],
                &row["requests"],
                &row["cost_usd"],
                &row["key_id"]
            ),
            (&json!(agent), &json!(requests), &cost, &Value::Null)
        );
        assert_eq!(row["day"].as_i64().unwrap() % DAY, 0);
    }
    // Pages, and days.
    let first = server.get("/v1/usage?limit=1").await.json();
    assert_eq!((&first["count"], &first["has_more"]), (&json!(1), &json!(true)));
    let next = first["next"].as_str().unwrap();
    let second = server.get(&format!("/v1/usage?after={next}")).await.json();
    assert_eq!(json!([first["usage"][0], second["usage"][0]]), list["usage"]);
    let today = rows[0]["day"].as_i64().unwrap();
    for (range, count) in [
        (format!("from={today}"), 2),
        (format!("from={}", today + 5 * DAY), 0),
        (format!("to={}", today - 1), 0),
        (format!("from={}&to={}", today - DAY, today + 5 * DAY), 2),
    ] {
        let found = server.get(&format!("/v1/usage?{range}")).await.json();
        assert_eq!(found["count"], count, "{range}");
    }
    // It stays when the sessions go.
    for session in &sessions {
        server.delete(&format!("/v1/sessions/{session}")).await;
    }
    assert_eq!(server.get("/v1/usage").await.json(), list);
}

#[tokio::test]
async fn bad_questions_are_refused() {
    let server = Server::start().await;
    for query in [
        "from=monday",
        "to=1.5",
        "limit=x",
        "after=x",
        "after=-1",
        "agent_id=a/b",
    ] {
        let answer = server.get(&format!("/v1/usage?{query}")).await;
        assert_eq!(answer.code(), (400, "invalid_request".to_owned()), "{query}");
    }
}
