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
    let inline =
        |members: Value| json!({"type": "enabled", "inline_agents": enabled, "predefined_agents": members});
    assert_eq!(merged(json!({"subagents": enabled})).await, inline(json!([])));
    // Each level is merged for itself: what is left out stays, null is the default.
    let member = json!([{"type": "agent", "id": id(&first), "version": 1}]);
    let predefined = json!({"type": "enabled", "predefined_agents": [id(&first)]});
    assert_eq!(
        merged(json!({"subagents": predefined})).await,
        inline(member.clone())
    );
    let only_members = json!({"type": "enabled", "inline_agents": off});
    let mut expected = inline(member.clone());
    expected["inline_agents"] = off.clone();
    assert_eq!(merged(json!({"subagents": only_members})).await, expected);
    assert_eq!(merged(json!({"subagents": enabled})).await, expected);
    let default = json!({"type": "enabled", "inline_agents": null});
    assert_eq!(merged(json!({"subagents": default})).await, inline(member));
    let none = json!({"type": "enabled", "predefined_agents": null});
    assert_eq!(merged(json!({"subagents": none})).await, inline(json!([])));
    merged(json!({"subagents": off})).await;
    assert_eq!(merged(json!({"subagents": null})).await, inline(json!([])));
    // Without inline agents there has to be a member.
    let nobody = json!({"type": "multiagent_20261001", "subagents": only_members});
    let (status, _, message) = claude.refused(&path, &json!({ "multiagent": nobody })).await;
    assert_eq!(status, 400);
    assert!(
        message.starts_with("multiagent.subagents.predefined_agents: "),
        "{message}"
    );
}

#[tokio::test]
async fn sessions_show_whom_they_may_have_work_for_them() {
    let claude = Claude::start().await;
    let worker = claude.agent(json!({"name": "Worker", "system": "Work."})).await;
    let off = json!({"type": "disabled"});
    let lead = claude
        .agent(json!({"name": "Lead", "multiagent": {
            "type": "multiagent_20261001", "workflows": off,
            "subagents": {"type": "enabled", "predefined_agents": [id(&worker), {"type": "self"}]},
        }}))
        .await;
    let environment = claude.post("/v1/environments", &json!({"name": "e"})).await;
    let body = json!({"agent": id(&lead), "environment_id": id(&environment)});
    let session = claude.post("/v1/sessions", &body).await;
    insta::assert_json_snapshot!(stable(&session["agent"]["multiagent"]));
    // The other dialect shows the members. Others take their place, and what it can't show stays.
    let path = format!("/v1/agents/{}", id(&lead));
    let shown = claude.server.get(&path).await.json();
    assert_eq!(shown["callable_agents"], json!([id(&worker), id(&lead)]));
    let update = json!({"version": 1, "callableAgents": []});
    claude.server.json("PATCH", &path, &update).await;
    let left = claude.get(&path).await;
    let inline = json!({"type": "enabled", "inline_agents": {"type": "enabled"}, "predefined_agents": []});
    assert_eq!(left["multiagent"]["subagents"], inline);

    // Nobody has a tool that is called as the one by which agents are defined, not in a session either.
    let tool = json!({"type": "custom", "name": "create_agent", "description": "d", "input_schema": {"type": "object"}});
    let (status, _, message) = claude.refused(&path, &json!({"tools": [tool]})).await;
    assert!(status == 400 && message.starts_with("tools: "), "{message}");
    let with_tools = json!({"type": "agent_with_overrides", "id": id(&lead), "tools": [tool]});
    let body = json!({"agent": with_tools, "environment_id": id(&environment)});
    let (status, _, message) = claude.refused("/v1/sessions", &body).await;
    assert!(status == 400 && message.starts_with("agent.tools: "), "{message}");
    let path = format!("/v1/sessions/{}", id(&session));
    let (status, _, message) = claude.refused(&path, &json!({"agent": {"tools": [tool]}})).await;
    assert!(status == 400 && message.starts_with("agent.tools: "), "{message}");
}

#[tokio::test]
async fn an_advisor_is_a_model() {
    let claude = Claude::start().await;
    let worker = claude.agent(json!({"name": "Worker"})).await;
    let opus = json!({"type": "advisor", "model": "claude-opus-4-5"});
    let member = json!({"type": "agent", "id": id(&worker), "version": 1});
    // It comes last, wherever it was named.
    let lead = claude
        .agent(json!({"name": "Lead", "multiagent": coordinator(json!([opus, id(&worker)]))}))
        .await;
    assert_eq!(lead["multiagent"], coordinator(json!([member, opus])));
    let path = format!("/v1/agents/{}", id(&lead));
    let same = json!({"multiagent": lead["multiagent"]});
    assert_eq!(claude.post(&path, &same).await["version"], 1);
    let environment = claude.post("/v1/environments", &json!({"name": "e"})).await;
    let body = json!({"agent": id(&lead), "environment_id": id(&environment)});
    let session = claude.post("/v1/sessions", &body).await;
    let shown = &session["agent"]["multiagent"]["agents"];
    assert_eq!((&shown[0]["name"], &shown[1]), (&json!("Worker"), &opus));

    // The other dialect takes the members away, and leaves the advisor.
    let update = json!({"version": 1, "callableAgents": []});
    claude.server.json("PATCH", &path, &update).await;
    assert_eq!(claude.get(&path).await["multiagent"], coordinator(json!([opus])));

    // In the newer form it is kept, replaced and disabled by itself.
    let off = json!({"type": "disabled"});
    let parts = |advisor: Value| json!({"multiagent": {"type": "multiagent_20261001", "advisor": advisor}});
    let enabled = json!({"type": "enabled", "model": "claude-opus-4-5"});
    let whole = json!({"multiagent": {
        "type": "multiagent_20261001", "advisor": enabled, "subagents": off, "workflows": off,
    }});
    let whole = claude.post(&path, &whole).await;
    assert_eq!(
        whole["multiagent"],
        json!({"type": "multiagent_20261001", "advisor": enabled, "subagents": off, "workflows": off})
    );
    let kept = json!({"multiagent": {"type": "multiagent_20261001"}});
    assert_eq!(claude.post(&path, &kept).await["multiagent"], whole["multiagent"]);
    let other = json!({"type": "enabled", "model": "test/puppet"});
    assert_eq!(
        claude.post(&path, &parts(other.clone())).await["multiagent"]["advisor"],
        other
    );
    assert_eq!(
        claude.post(&path, &parts(Value::Null)).await["multiagent"]["advisor"],
        off
    );

    // Nobody else has its name, and nobody has a tool that is called as the one that asks it.
    let body = json!({"name": "anthropic.advisor", "model": "test/puppet"});
    let (status, _, message) = claude.refused("/v1/agents", &body).await;
    assert!(status == 400 && message.contains("name"), "{status} {message}");
    let (status, _, message) = claude.refused(&path, &json!({"name": "anthropic.advisor"})).await;
    assert!(status == 400 && message.contains("name"), "{status} {message}");
    let tool = json!({"type": "custom", "name": "consult_advisor", "description": "d", "input_schema": {"type": "object"}});
    let mut body = json!({"name": "Lead", "model": "test/puppet", "tools": [tool]});
    claude.post("/v1/agents", &body).await;
    body["multiagent"] = coordinator(json!([opus]));
    let (status, _, message) = claude.refused("/v1/agents", &body).await;
    assert!(status == 400 && message.starts_with("tools: "), "{message}");
    let workflows = json!({"type": "enabled", "inline_agents": off, "predefined_agents": [id(&worker)]});
    let tool = json!({"type": "custom", "name": "run_workflow", "description": "d", "input_schema": {"type": "object"}});
    let mut body = json!({
        "name": "Lead", "model": "test/puppet", "tools": [tool],
        "multiagent": {"type": "multiagent_20261001", "subagents": off, "workflows": workflows},
    });
    let (status, _, message) = claude.refused("/v1/agents", &body).await;
    assert!(status == 400 && message.starts_with("tools: "), "{message}");
    body["tools"] = json!([]);
    let made = claude.post("/v1/agents", &body).await;
    let shown = &made["multiagent"]["workflows"];
    assert_eq!(
        (&shown["type"], &shown["inline_agents"]),
        (&json!("enabled"), &off)
    );
    assert_eq!(shown["predefined_agents"][0]["id"], worker["id"]);
    // By itself the newer form has both.
    body["multiagent"] = json!({"type": "multiagent_20261001"});
    let made = claude.post("/v1/agents", &body).await;
    let whole = json!({"type": "enabled", "inline_agents": {"type": "enabled"}, "predefined_agents": []});
    let shown = &made["multiagent"];
    assert_eq!((&shown["subagents"], &shown["workflows"]), (&whole, &whole));
    assert_eq!(shown["advisor"], off);
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
            coordinator(json!([{"type": "advisor"}])),
            "multiagent.agents.0.model",
        ),
        (
            coordinator(json!([{"type": "advisor", "model": "m", "id": "x"}])),
            "multiagent.agents.0.id",
        ),
        (
            coordinator(json!([{"type": "advisor", "model": "nobody/m"}])),
            "multiagent.agents.0.model",
        ),
        (
            coordinator(json!([{"type": "advisor", "model": "m"}, {"type": "advisor", "model": "n"}])),
            "multiagent.agents.1",
        ),
        (coordinator(json!(["agt_advisor"])), "multiagent.agents.0"),
        (
            coordinator(json!([{"type": "self", "id": "x"}])),
            "multiagent.agents.0.id",
        ),
        (
            parts(json!({"workflows": {"type": "enabled", "inline_agents": off}})),
            "multiagent.workflows.predefined_agents",
        ),
        (
            parts(
                json!({"workflows": {"type": "enabled", "inline_agents": off, "predefined_agents": vec!["x"; 21]}}),
            ),
            "multiagent.workflows.predefined_agents",
        ),
        (
            parts(json!({"advisor": {"type": "enabled"}, "subagents": off})),
            "multiagent.advisor.model",
        ),
        (
            parts(json!({"advisor": {"type": "enabled", "model": "nobody/m"}, "subagents": off})),
            "multiagent.advisor.model",
        ),
        (
            parts(json!({"advisor": {"type": "disabled", "model": "m"}, "subagents": off})),
            "multiagent.advisor.model",
        ),
        (
            parts(json!({"subagents": {"type": "enabled", "inline_agents": true}})),
            "multiagent.subagents.inline_agents",
        ),
        (
            parts(json!({"subagents": {"type": "enabled", "inline_agents": {"type": "enabled", "max": 1}}})),
            "multiagent.subagents.inline_agents.max",
        ),
        (
            parts(json!({"subagents": {"type": "enabled", "predefined_agents": vec!["x"; 21]}})),
            "multiagent.subagents.predefined_agents",
        ),
        (
            parts(json!({"subagents": {"type": "disabled", "predefined_agents": []}})),
            "multiagent.subagents.predefined_agents",
        ),
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
