//! Sessions.

use serde_json::{Value, json};

use super::{Claude, fault, find, id, message, stable};

#[tokio::test]
async fn a_session_over_its_life() {
    let claude = Claude::start().await;
    let agent = claude
        .agent(json!({"tools": [{"type": "agent_toolset_20260401"}]}))
        .await;
    let environment = claude.post("/v1/environments", &json!({"name": "e"})).await;
    let body = json!({
        "agent": {"type": "agent", "id": id(&agent), "version": 1},
        "environment_id": id(&environment),
        "title": "T", "metadata": {"k": "v"},
        "budget": {"type": "limit", "max_list_cost": {"amount": "2500", "currency": "USD"}},
    });
    let fresh = claude.post("/v1/sessions", &body).await;
    insta::assert_json_snapshot!(stable(&fresh));
    let path = format!("/v1/sessions/{}", id(&fresh));

    let frames = claude.turn(&id(&fresh), json!([message("hello")])).await;
    let done = claude.get(&path).await;
    assert_eq!(
        (&done["status"], &done["usage"]),
        (&json!("idle"), &find(&frames, "session.usage")["usage"])
    );
    assert_eq!(
        (
            &done["usage"]["input_tokens"],
            &done["usage"]["output_tokens"],
            &done["usage"]["cache_read_input_tokens"]
        ),
        (&json!(10), &json!(5), &json!(2))
    );

    let updated = claude
        .post(&path, &json!({"title": "", "metadata": {"k": null, "l": "w"}}))
        .await;
    assert_eq!(
        (&updated["title"], &updated["metadata"]),
        (&Value::Null, &json!({"l": "w"}))
    );
    let emptied = claude.post(&path, &json!({"metadata": null})).await;
    assert_eq!(emptied["metadata"], json!({}));
    assert_eq!(
        claude.refused(&path, &json!({"vault_ids": ["vlt_1"]})).await.0,
        400
    );

    let archived = claude.send("POST", &format!("{path}/archive"), "").await.json();
    assert_eq!(archived["status"], "terminated");
    assert!(archived["archived_at"].is_string());
    assert_eq!(claude.get("/v1/sessions").await["data"], json!([]));
    let (status, _, said) = claude
        .refused(&format!("{path}/events"), &json!({"events": [message("x")]}))
        .await;
    assert_eq!(
        (status, said),
        (
            400,
            format!("Cannot send events to archived session: {}", id(&fresh))
        )
    );
    assert_eq!(claude.refused(&path, &json!({"title": "late"})).await.0, 400);
    // The other dialect refuses it, too.
    let late = claude
        .server
        .post(&format!("{path}/events"), &json!({"content": "x"}))
        .await;
    assert_eq!(late.code(), (409, "session_archived".into()));

    let deleted = claude.send("DELETE", &path, "").await.json();
    assert_eq!(deleted, json!({"id": id(&fresh), "type": "session_deleted"}));
    assert_eq!(claude.send("GET", &path, "").await.status, 404);
}

#[tokio::test]
async fn a_session_may_begin_with_messages_and_change_its_agent() {
    let claude = Claude::start().await;
    let agent = claude.agent(json!({"system": "s"})).await;
    let environment = claude.post("/v1/environments", &json!({"name": "e"})).await;
    let body = json!({
        "agent": {
            "type": "agent_with_overrides", "id": id(&agent), "system": null, "model": "test/other",
            "tools": [{"type": "agent_toolset_20260401", "configs": [{"name": "bash", "enabled": false}]}],
        },
        "environment_id": id(&environment),
        "initial_events": [message("hang")],
    });
    let session = claude.post("/v1/sessions", &body).await;
    assert_eq!(session["status"], "running");
    let snapshot = &session["agent"];
    assert_eq!(
        (
            &snapshot["id"],
            &snapshot["version"],
            &snapshot["system"],
            &snapshot["model"]["id"]
        ),
        (&agent["id"], &json!(1), &Value::Null, &json!("test/other"))
    );
    assert_eq!(snapshot["tools"][0]["configs"][0]["enabled"], false);
    assert_eq!(
        claude.get(&format!("/v1/agents/{}", id(&agent))).await["system"],
        "s"
    );
    let path = format!("/v1/sessions/{}", id(&session));
    let (status, _, said) = fault(&claude.send("POST", &format!("{path}/archive"), "").await);
    assert!(
        status == 400 && said.contains("cannot be archived while its status is running"),
        "{said}"
    );
    assert_eq!(claude.send("DELETE", &path, "").await.status, 400);
    claude
        .turn(&id(&session), json!([{"type": "user.interrupt"}]))
        .await;
    claude.post(&format!("{path}/archive"), &json!({})).await;
}

#[tokio::test]
async fn lists_are_filtered_and_read_in_both_directions() {
    let claude = Claude::start().await;
    let environment = claude.post("/v1/environments", &json!({"name": "e"})).await;
    let (first, second) = (claude.agent(json!({})).await, claude.agent(json!({})).await);
    let mut all = Vec::new();
    for n in 0..6 {
        let agent = if n % 2 == 0 { &first } else { &second };
        let body = json!({"agent": id(agent), "environment_id": id(&environment), "title": n.to_string()});
        all.push(claude.post("/v1/sessions", &body).await);
    }
    let titles = |page: &Value| -> Vec<String> {
        let rows = page["data"].as_array().unwrap().iter();
        rows.map(|session| session["title"].as_str().unwrap().to_owned())
            .collect()
    };
    let list = async |query: String| claude.get(&format!("/v1/sessions?{query}")).await;
    for (order, expected) in [
        ("desc", [["5", "4"], ["3", "2"], ["1", "0"]]),
        ("asc", [["0", "1"], ["2", "3"], ["4", "5"]]),
    ] {
        let mut page = list(format!("order={order}&limit=2")).await;
        assert_eq!(page["prev_page"], Value::Null);
        for (n, expected) in expected.iter().enumerate() {
            assert_eq!(titles(&page), *expected);
            match page["next_page"].as_str() {
                Some(next) => page = list(format!("order={order}&limit=2&page={next}")).await,
                None => assert_eq!(n, 2),
            }
        }
        for expected in [expected[1], expected[0]] {
            let before = page["prev_page"].as_str().unwrap().to_owned();
            page = list(format!("order={order}&limit=2&page={before}")).await;
            assert_eq!(titles(&page), expected);
        }
        assert_eq!(page["prev_page"], Value::Null);
        // From there forwards again.
        let next = page["next_page"].as_str().unwrap();
        assert_eq!(
            titles(&list(format!("order={order}&limit=2&page={next}")).await),
            expected[1]
        );
        let other = if order == "asc" { "desc" } else { "asc" };
        let wrong = claude
            .send("GET", &format!("/v1/sessions?order={other}&page={next}"), "")
            .await;
        assert_eq!(wrong.status, 400);
    }
    let archived = format!("/v1/sessions/{}/archive", id(&all[1]));
    claude.post(&archived, &json!({})).await;
    claude.events(&id(&all[2]), json!([message("hang")])).await;
    let since = all[4]["created_at"].as_str().unwrap();
    for (query, expected) in [
        ("order=asc".to_owned(), &["0", "2", "3", "4", "5"][..]),
        (
            "order=asc&include_archived=true".to_owned(),
            &["0", "1", "2", "3", "4", "5"],
        ),
        ("statuses%5B%5D=running".to_owned(), &["2"]),
        (
            "order=asc&statuses[]=idle&statuses[]=running".to_owned(),
            &["0", "2", "3", "4", "5"],
        ),
        ("statuses=terminated&include_archived=true".to_owned(), &["1"]),
        ("statuses=terminated".to_owned(), &[]),
        ("statuses=rescheduling".to_owned(), &[]),
        (format!("order=asc&agent_id={}", id(&second)), &["3", "5"]),
        (
            format!("order=asc&agent_id={}&agent_version=1", id(&first)),
            &["0", "2", "4"],
        ),
        (format!("agent_id={}&agent_version=2", id(&first)), &[]),
        ("agent_id=no%20one".to_owned(), &[]),
        ("deployment_id=depl_1".to_owned(), &[]),
        (format!("order=asc&created_at[gte]={since}&limit=1"), &["4"]),
    ] {
        assert_eq!(titles(&list(query.clone()).await), expected, "{query}");
    }
    for query in [
        "agent_version=1",
        "statuses=asleep",
        "order=up",
        "created_at[gt]=now",
    ] {
        let (status, _, _) = fault(&claude.send("GET", &format!("/v1/sessions?{query}"), "").await);
        assert_eq!(status, 400, "{query}");
    }
}

#[tokio::test]
async fn bad_sessions_are_refused() {
    let claude = Claude::start().await;
    let agent = claude.agent(json!({})).await;
    let environment = claude.post("/v1/environments", &json!({"name": "e"})).await;
    let good = json!({"agent": id(&agent), "environment_id": id(&environment)});
    for (field, value, status) in [
        ("agent", json!("agt_none"), 404),
        (
            "agent",
            json!({"type": "agent", "id": id(&agent), "version": 2}),
            404,
        ),
        (
            "agent",
            json!({"type": "agent", "id": id(&agent), "version": 0}),
            400,
        ),
        (
            "agent",
            json!({"type": "agent_with_overrides", "id": id(&agent), "model": null}),
            400,
        ),
        (
            "agent",
            json!({"type": "agent_with_overrides", "id": id(&agent), "tools": [{"type": "mcp_toolset", "mcp_server_name": "x"}]}),
            400,
        ),
        ("agent", json!({"type": "other"}), 400),
        ("environment_id", json!("env_none"), 404),
        ("vault_ids", json!(["vlt_none"]), 404),
        ("resources", json!([{"type": "file", "file_id": "file_1"}]), 404),
        (
            "resources",
            json!([{"type": "memory_store", "memory_store_id": "m"}]),
            404,
        ),
        ("initial_events", json!([{"type": "user.interrupt"}]), 400),
        (
            "initial_events",
            json!([{"type": "user.message", "content": []}]),
            400,
        ),
        (
            "initial_events",
            json!([{"type": "user.define_outcome", "description": "d"}]),
            400,
        ),
        (
            "budget",
            json!({"type": "limit", "max_list_cost": {"amount": "0", "currency": "USD"}}),
            400,
        ),
        (
            "budget",
            json!({"type": "limit", "max_list_cost": {"amount": "12.5", "currency": "USD"}}),
            400,
        ),
        (
            "budget",
            json!({"type": "limit", "max_list_cost": {"amount": "1", "currency": "EUR"}}),
            400,
        ),
    ] {
        let mut body = good.clone();
        body[field] = value.clone();
        assert_eq!(
            claude.refused("/v1/sessions", &body).await.0,
            status,
            "{field}: {value}"
        );
    }
    assert_eq!(claude.get("/v1/sessions").await["data"], json!([]));
}
