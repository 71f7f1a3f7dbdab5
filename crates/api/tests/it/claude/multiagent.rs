//! Agents that have others work in threads of their sessions.

use serde_json::{Value, json};

use super::{Claude, id, stable};

fn coordinator(agents: Value) -> Value {
    json!({"type": "coordinator", "agents": agents})
}

#[tokio::test]
async fn members_are_pinned_when_the_agent_is_saved() {
    let claude = Claude::start().await;
    let worker = claude.agent(json!({"name": "Worker", "system": "Work."})).await;
    let path = format!("/v1/agents/{}", id(&worker));
    let agents = json!([id(&worker), {"type": "self"}]);
    let lead = claude
        .agent(json!({"name": "Lead", "multiagent": coordinator(agents)}))
        .await;
    let own = json!({"type": "agent", "id": id(&lead), "version": 1});
    let member = json!({"type": "agent", "id": id(&worker), "version": 1});
    assert_eq!(lead["multiagent"], coordinator(json!([member, own])));

    // What comes later changes neither the agent nor its sessions.
    claude.post(&path, &json!({"system": "Rest."})).await;
    let environment = claude.post("/v1/environments", &json!({"name": "e"})).await;
    let body = json!({"agent": id(&lead), "environment_id": id(&environment)});
    let session = claude.post("/v1/sessions", &body).await;
    insta::assert_json_snapshot!(stable(&session["agent"]["multiagent"]));
    let listed = claude.get("/v1/sessions").await;
    assert_eq!(listed["data"][0]["agent"], session["agent"]);

    // What is read may be sent back; what is left out is kept; a copy of the agent is one of the version that it has.
    let lead_path = format!("/v1/agents/{}", id(&lead));
    let same = claude
        .post(&lead_path, &json!({"multiagent": lead["multiagent"]}))
        .await;
    assert_eq!(same["version"], 1);
    let second = claude.post(&lead_path, &json!({"name": "Chief"})).await;
    assert_eq!(second["multiagent"]["agents"][1]["version"], 2);
    let agents = json!([{"type": "agent", "id": id(&worker)}]);
    let third = claude
        .post(&lead_path, &json!({"multiagent": coordinator(agents)}))
        .await;
    assert_eq!(
        third["multiagent"]["agents"],
        json!([{"type": "agent", "id": id(&worker), "version": 2}])
    );
    // The other dialect shows whom it may have work for it, and leaves that alone.
    let shown = claude.server.get(&lead_path).await.json();
    assert_eq!(shown["callable_agents"], json!([id(&worker)]));
    let update = json!({"version": 3, "name": "Boss", "callableAgents": [id(&worker)]});
    claude.server.json("PATCH", &lead_path, &update).await;
    let fourth = claude.get(&lead_path).await;
    assert_eq!(
        (&fourth["name"], &fourth["multiagent"]),
        (&json!("Boss"), &third["multiagent"])
    );
    claude
        .server
        .json("PATCH", &lead_path, &json!({"version": 4, "callableAgents": []}))
        .await;
    assert_eq!(claude.get(&lead_path).await["multiagent"], Value::Null);

    let cleared = claude
        .post(
            &lead_path,
            &json!({"multiagent": coordinator(json!([id(&worker)]))}),
        )
        .await;
    assert_eq!(cleared["multiagent"]["type"], "coordinator");
    let cleared = claude.post(&lead_path, &json!({"multiagent": null})).await;
    assert_eq!(cleared["multiagent"], Value::Null);
    // A session goes on showing its members when they are gone.
    assert_eq!(claude.send("DELETE", &path, "").await.status, 200);
    let path = format!("/v1/sessions/{}", id(&session));
    assert_eq!(claude.get(&path).await["agent"], session["agent"]);
}

#[tokio::test]
async fn the_newer_form_is_merged_part_by_part() {
    let claude = Claude::start().await;
    let first = claude.agent(json!({"name": "First"})).await;
    let second = claude.agent(json!({"name": "Second"})).await;
    let off = json!({"type": "disabled"});
    let subagents = |members: &[&Value]| {
        let ids: Vec<&Value> = members.iter().map(|member| &member["id"]).collect();
        json!({"type": "enabled", "inline_agents": off, "predefined_agents": ids})
    };
    let lead = claude
        .agent(json!({"multiagent": {
            "type": "multiagent_20261001", "workflows": off, "subagents": subagents(&[&first]),
        }}))
        .await;
    insta::assert_json_snapshot!(stable(&lead["multiagent"]));
    let path = format!("/v1/agents/{}", id(&lead));
    let merged = async |part: Value| {
        let mut body = json!({"type": "multiagent_20261001"});
        body.as_object_mut()
            .unwrap()
            .extend(part.as_object().unwrap().clone());
        claude.post(&path, &json!({ "multiagent": body })).await["multiagent"]["subagents"].clone()
    };
    assert_eq!(merged(json!({})).await, lead["multiagent"]["subagents"]);
    let enabled = json!({"type": "enabled"});
    assert_eq!(
        merged(json!({"subagents": enabled})).await,
        lead["multiagent"]["subagents"]
    );
    let predefined = json!({"type": "enabled", "predefined_agents": [id(&second)]});
    let replaced = merged(json!({"subagents": predefined, "advisor": null})).await;
    assert_eq!(replaced["predefined_agents"][0]["id"], second["id"]);
    assert_eq!(merged(json!({"subagents": off})).await, off);
    // What is disabled has kept nothing that could be merged with.
    let body = json!({"multiagent": {"type": "multiagent_20261001", "subagents": enabled}});
    let (status, _, message) = claude.refused(&path, &body).await;
    assert_eq!(status, 400);
    assert!(
        message.starts_with("multiagent.subagents.inline_agents"),
        "{message}"
    );
}

#[tokio::test]
async fn what_can_not_be_is_refused_by_name() {
    let claude = Claude::start().await;
    let worker = claude.agent(json!({})).await;
    let archived = claude.agent(json!({})).await;
    claude
        .post(&format!("/v1/agents/{}/archive", id(&archived)), &json!({}))
        .await;
    let lead = claude
        .agent(json!({"multiagent": coordinator(json!([id(&worker)]))}))
        .await;
    let off = json!({"type": "disabled"});
    let parts = |more: Value| {
        let mut body = json!({"type": "multiagent_20261001", "workflows": off});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        body
    };
    for (multiagent, named) in [
        (json!({"type": "swarm"}), "multiagent.type"),
        (coordinator(json!([])), "multiagent.agents"),
        (coordinator(json!(vec!["x"; 21])), "multiagent.agents"),
        (coordinator(json!(["agt_none"])), "multiagent.agents.0"),
        (coordinator(json!(["no/id"])), "multiagent.agents.0"),
        (
            coordinator(json!([{"type": "agent", "id": id(&worker), "version": 9}])),
            "multiagent.agents.0",
        ),
        (
            coordinator(json!([id(&worker), {"type": "agent", "id": id(&worker)}])),
            "multiagent.agents.1",
        ),
        (
            coordinator(json!([{"type": "self"}, {"type": "self"}])),
            "multiagent.agents.1",
        ),
        (coordinator(json!([id(&archived)])), "multiagent.agents.0"),
        (coordinator(json!([id(&lead)])), "multiagent.agents.0"),
        (
            coordinator(json!([{"type": "advisor", "model": "m"}])),
            "multiagent.agents.0.type",
        ),
        (
            coordinator(json!([{"type": "self", "id": "x"}])),
            "multiagent.agents.0.id",
        ),
        (json!({"type": "multiagent_20261001"}), "multiagent.workflows"),
        (
            parts(json!({"workflows": {"type": "enabled"}})),
            "multiagent.workflows",
        ),
        (parts(json!({"workflows": null})), "multiagent.workflows"),
        (
            parts(json!({"advisor": {"type": "enabled", "model": "m"}})),
            "multiagent.advisor",
        ),
        (parts(json!({})), "multiagent.subagents.inline_agents"),
        (
            parts(json!({"subagents": {"type": "enabled", "inline_agents": off}})),
            "multiagent.subagents.predefined_agents",
        ),
        (
            parts(
                json!({"subagents": {"type": "enabled", "inline_agents": off, "predefined_agents": ["agt_none"]}}),
            ),
            "multiagent.subagents.predefined_agents.0",
        ),
    ] {
        let body = json!({"name": "Lead", "model": "test/puppet", "multiagent": multiagent});
        let (status, _, message) = claude.refused("/v1/agents", &body).await;
        assert_eq!(status, 400, "{multiagent}");
        assert!(
            message.starts_with(&format!("{named}: ")),
            "{multiagent}: {message}"
        );
    }
    let tool = json!({"type": "custom", "name": "send_to_agent", "description": "d", "input_schema": {"type": "object"}});
    let body = json!({
        "name": "Lead", "model": "test/puppet", "tools": [tool], "multiagent": coordinator(json!([id(&worker)])),
    });
    let (status, _, message) = claude.refused("/v1/agents", &body).await;
    assert!(status == 400 && message.starts_with("tools: "), "{message}");
    // A deleted member leaves nothing to make a session with.
    claude
        .send("DELETE", &format!("/v1/agents/{}", id(&worker)), "")
        .await;
    let environment = claude.post("/v1/environments", &json!({"name": "e"})).await;
    let body = json!({"agent": id(&lead), "environment_id": id(&environment)});
    let (status, _, message) = claude.refused("/v1/sessions", &body).await;
    assert!(
        status == 400 && message.contains(&id(&worker)),
        "{status} {message}"
    );
}
