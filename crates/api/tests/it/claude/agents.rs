//! Agents and their versions.

use serde_json::{Value, json};

use super::{Claude, fault, id, stable};

fn toolsets() -> Value {
    json!([
        {
            "type": "agent_toolset_20260401",
            "default_config": {"permission_policy": {"type": "always_ask"}},
            "configs": [{"name": "read", "permission_policy": {"type": "always_allow"}}, {"name": "bash", "enabled": false}],
        },
        {
            "type": "mcp_toolset",
            "mcp_server_name": "Docs & more",
            "configs": [{"name": "find", "permission_policy": {"type": "always_allow"}}, {"name": "drop", "enabled": false}],
        },
        {
            "type": "custom",
            "name": "ticket",
            "description": "Opens a ticket",
            "input_schema": {"type": "object", "properties": {"title": {"type": "string"}}},
        },
    ])
}

fn servers() -> Value {
    json!([{"type": "url", "name": "Docs & more", "url": "https://docs.example/mcp"}])
}

#[tokio::test]
async fn a_whole_agent() {
    let claude = Claude::start().await;
    let agent = claude
        .agent(json!({
            "model": {"id": "test/puppet", "effort": "high"},
            "system": "Be brief.",
            "description": "Writes code",
            "metadata": {"team": "core"},
            "tools": toolsets(),
            "mcp_servers": servers(),
        }))
        .await;
    insta::assert_json_snapshot!(stable(&agent));
    let path = format!("/v1/agents/{}", id(&agent));
    assert_eq!(claude.get(&path).await, agent);
    assert_eq!(claude.get("/v1/agents").await["data"], json!([agent]));
    // The same agent in the other dialect, as near as that can say it.
    let mut native = claude.server.get(&path).await.json();
    for field in ["agent_id", "created_at", "updated_at"] {
        native[field] = json!("<other each time>");
    }
    insta::assert_json_snapshot!("as_the_other_dialect_shows_it", native);
}

#[tokio::test]
async fn an_agent_with_nothing_to_it_has_no_tools() {
    let claude = Claude::start().await;
    let agent = claude
        .agent(json!({"model": "claude-opus-5-5", "tools": null}))
        .await;
    assert_eq!(
        agent["model"],
        json!({"id": "claude-opus-5-5", "speed": "standard"})
    );
    for (field, value) in [
        ("tools", json!([])),
        ("mcp_servers", json!([])),
        ("skills", json!([])),
        ("system", Value::Null),
        ("description", Value::Null),
        ("multiagent", Value::Null),
        ("metadata", json!({})),
        ("archived_at", Value::Null),
        ("version", json!(1)),
        ("execution_identity", json!({"type": "service_account"})),
    ] {
        assert_eq!(agent[field], value, "{field}");
    }
    let native = claude
        .server
        .get(&format!("/v1/agents/{}", id(&agent)))
        .await
        .json();
    assert_eq!(native["model"], "anthropic/claude-opus-5-5");
    assert_eq!(native["permission_policy"]["type"], "deny");
}

#[tokio::test]
async fn agents_of_the_other_dialect_are_shown_as_near_as_can_be() {
    let claude = Claude::start().await;
    let plain = claude.server.agent(json!({})).await;
    let shown = claude.get(&format!("/v1/agents/{plain}")).await;
    assert_eq!(shown["name"], plain.as_str());
    let default = json!({"enabled": true, "permission_policy": {"type": "always_allow"}});
    assert_eq!(
        shown["tools"],
        json!([{"type": "agent_toolset_20260401", "default_config": default, "configs": []}])
    );
    let picky = claude
        .server
        .agent(json!({
            "name": "P",
            "tools": ["bash", "read", "glob"],
            "permissionPolicy": {"type": "always_ask", "tools": ["bash", "mcp__docs"]},
            "mcpServers": {
                "docs": {"url": "https://docs.example/mcp", "headers": {"x": "y"}},
                "files": {"command": "npx"},
            },
            "thinkingLevel": "low",
        }))
        .await;
    let shown = claude.get(&format!("/v1/agents/{picky}")).await;
    let config = |name: &str, enabled: bool, policy: &str| {
        let mut config =
            json!({"type": name, "name": name, "enabled": enabled, "permission_policy": {"type": policy}});
        if name == "web_fetch" {
            config["url_sources"] = Value::Null;
        }
        config
    };
    assert_eq!(
        shown["tools"],
        json!([
            {
                "type": "agent_toolset_20260401",
                "default_config": default,
                "configs": [
                    config("bash", true, "always_ask"),
                    config("write", false, "always_allow"),
                    config("edit", false, "always_allow"),
                    config("grep", false, "always_allow"),
                    config("web_fetch", false, "always_allow"),
                    config("web_search", false, "always_allow"),
                ],
            },
            {
                "type": "mcp_toolset",
                "mcp_server_name": "docs",
                "default_config": {"enabled": true, "permission_policy": {"type": "always_ask"}},
                "configs": [],
            },
        ])
    );
    assert_eq!(shown["model"]["effort"], json!({"type": "low"}));
    // An update of something else leaves alone what this dialect can't say.
    let path = format!("/v1/agents/{picky}");
    claude.post(&path, &json!({"description": "d"})).await;
    let native = claude.server.get(&path).await.json();
    assert_eq!(
        native["permission_policy"],
        json!({"type": "always_ask", "tools": ["bash", "mcp__docs"]})
    );
    assert_eq!(native["mcp_servers"]["files"], json!({"command": "npx"}));
    // Servers that stay keep their headers, and those with a command stay.
    let tools = json!([{"type": "mcp_toolset", "mcp_server_name": "docs"}]);
    claude
        .post(
            &path,
            &json!({"tools": tools, "mcp_servers": shown["mcp_servers"]}),
        )
        .await;
    let native = claude.server.get(&path).await.json();
    assert_eq!(native["mcp_servers"]["docs"]["headers"], json!({"x": "y"}));
    assert_eq!(native["mcp_servers"]["files"], json!({"command": "npx"}));
}

#[tokio::test]
async fn updates_write_versions_and_leave_out_what_is_not_sent() {
    let claude = Claude::start().await;
    let first = claude
        .agent(json!({
            "model": {"id": "test/puppet", "effort": {"type": "low"}},
            "system": "s", "description": "d", "metadata": {"a": "1", "b": "2"},
            "tools": toolsets(), "mcp_servers": servers(),
        }))
        .await;
    let path = format!("/v1/agents/{}", id(&first));
    let update = async |body: Value| claude.post(&path, &body).await;
    // Nothing changes: no new version.
    assert_eq!(update(json!({})).await, first);
    assert_eq!(
        update(json!({"name": "Coder", "version": 1, "metadata": {"a": "1"}})).await,
        first
    );
    let second =
        update(json!({"version": 1, "name": "B", "metadata": {"a": null, "c": "3"}, "system": null})).await;
    assert_eq!(
        (
            &second["version"],
            &second["name"],
            &second["system"],
            &second["metadata"]
        ),
        (&json!(2), &json!("B"), &Value::Null, &json!({"b": "2", "c": "3"}))
    );
    assert_eq!(
        (&second["tools"], &second["description"]),
        (&first["tools"], &first["description"])
    );
    // The effort stays with the model, and goes with it.
    let same = update(json!({"model": "test/puppet"})).await;
    assert_eq!(same["version"], 2);
    let other = update(json!({"model": "test/other"})).await;
    assert_eq!(other["model"], json!({"id": "test/other", "speed": "standard"}));
    let emptied =
        update(json!({"tools": [], "mcp_servers": null, "description": "", "metadata": null})).await;
    assert_eq!(
        (
            &emptied["tools"],
            &emptied["mcp_servers"],
            &emptied["description"],
            &emptied["metadata"]
        ),
        (&json!([]), &json!([]), &Value::Null, &json!({}))
    );
    let (status, kind, _) = claude.refused(&path, &json!({"version": 1, "name": "B"})).await;
    assert_eq!((status, kind.as_str()), (409, "conflict_error"));

    assert_eq!(claude.get(&format!("{path}?version=1")).await["name"], "Coder");
    let versions = claude.get(&format!("{path}/versions?limit=3")).await;
    let numbers: Vec<_> = versions["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|agent| &agent["version"])
        .collect();
    assert_eq!(numbers, [4, 3, 2]);
    let next = versions["next_page"].as_str().unwrap();
    let rest = claude.get(&format!("{path}/versions?page={next}")).await;
    assert_eq!(
        (&rest["data"][0]["version"], &rest["next_page"]),
        (&json!(1), &Value::Null)
    );
    let (status, _, _) = fault(&claude.send("GET", &format!("{path}?version=9"), "").await);
    assert_eq!(status, 404);
}

#[tokio::test]
async fn archived_and_deleted() {
    let claude = Claude::start().await;
    let agent = claude.agent(json!({})).await;
    let path = format!("/v1/agents/{}", id(&agent));
    let archived = claude.post(&format!("{path}/archive"), &json!({})).await;
    assert!(archived["archived_at"].is_string());
    assert_eq!(claude.get("/v1/agents").await["data"], json!([]));
    assert_eq!(
        claude.get("/v1/agents?include_archived=true").await["data"],
        json!([archived])
    );
    let (status, kind, _) = claude.refused(&path, &json!({"name": "late"})).await;
    assert_eq!((status, kind.as_str()), (400, "invalid_request_error"));
    let environment = claude.post("/v1/environments", &json!({"name": "e"})).await;
    let session = json!({"agent": id(&agent), "environment_id": id(&environment)});
    assert_eq!(claude.refused("/v1/sessions", &session).await.0, 400);
    let deleted = claude.send("DELETE", &path, "").await.json();
    assert_eq!(deleted, json!({"id": id(&agent), "type": "agent_deleted"}));
    assert_eq!(claude.send("GET", &path, "").await.status, 404);
}

#[tokio::test]
async fn bad_agents_are_refused() {
    let claude = Claude::start().await;
    let toolset = |more: Value| {
        let mut set = json!({"type": "agent_toolset_20260401"});
        set.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!([set])
    };
    let custom = |name: &str, schema: Value| json!([{"type": "custom", "name": name, "description": "d", "input_schema": schema}]);
    let object = || json!({"type": "object"});
    let seventeen: serde_json::Map<_, _> = (0..17).map(|n| (n.to_string(), json!("v"))).collect();
    for (field, value, named) in [
        ("name", json!(""), "name"),
        ("name", Value::Null, "name"),
        ("model", json!(""), "model"),
        ("model", json!({}), "model.id"),
        (
            "model",
            json!({"id": "a/b", "effort": "enormous"}),
            "model.effort",
        ),
        ("model", json!({"id": "a/b", "speed": "fast"}), "model.speed"),
        (
            "model",
            json!({"id": "a/b", "inference_geo": "us"}),
            "model.inference_geo",
        ),
        ("system", json!("x".repeat(100_001)), "system"),
        ("metadata", json!(seventeen), "metadata"),
        ("metadata", json!({"k": 1}), "metadata.k"),
        ("metadata", json!({"k": "v".repeat(513)}), "metadata.k"),
        (
            "skills",
            json!([{"type": "anthropic", "skill_id": "pdf"}]),
            "skills.0.skill_id",
        ),
        (
            "multiagent",
            json!({"type": "coordinator", "agents": []}),
            "multiagent.agents",
        ),
        (
            "execution_identity",
            json!({"type": "aws_role", "role_arn": "x"}),
            "execution_identity.type",
        ),
        ("tools", json!([{"type": "computer"}]), "tools.0.type"),
        (
            "tools",
            toolset(json!({"configs": [{"name": "sudo"}]})),
            "tools.0.configs.0.name",
        ),
        (
            "tools",
            toolset(json!({"configs": [{"name": "bash", "type": "read"}]})),
            "tools.0.configs.0.type",
        ),
        (
            "tools",
            toolset(json!({"configs": [{"name": "bash"}, {"name": "bash"}]})),
            "tools.0.configs.1",
        ),
        (
            "tools",
            toolset(json!({"configs": [{"name": "web_fetch", "allowed_domains": ["a.example"]}]})),
            "tools.0.configs.0.allowed_domains.0",
        ),
        (
            "tools",
            toolset(json!({"default_config": {"permission_policy": {"type": "never"}}})),
            "tools.0.default_config.permission_policy.type",
        ),
        (
            "tools",
            json!([{"type": "agent_toolset_20260401"}, {"type": "agent_toolset_20260401"}]),
            "tools.1",
        ),
        ("tools", custom("bash", object()), "tools.0.name"),
        ("tools", custom("mcp__x", object()), "tools.0.name"),
        ("tools", custom("a b", object()), "tools.0.name"),
        (
            "tools",
            custom("ok", json!({"type": "string"})),
            "tools.0.input_schema.type",
        ),
        (
            "tools",
            custom("ok", json!({"type": "object", "anyOf": []})),
            "tools.0.input_schema.anyOf",
        ),
        (
            "tools",
            json!([{"type": "mcp_toolset", "mcp_server_name": "nobody"}]),
            "tools",
        ),
        ("mcp_servers", servers(), "mcp_servers"),
        (
            "mcp_servers",
            json!([{"type": "url", "name": "x", "url": "file:///etc"}]),
            "mcp_servers.0.url",
        ),
        (
            "mcp_servers",
            json!([{"type": "url", "name": "x", "url": "https://a.example"}, {"type": "url", "name": "x", "url": "https://b.example"}]),
            "mcp_servers.1.name",
        ),
    ] {
        let mut body = json!({"name": "A", "model": "a/b"});
        body[field] = value.clone();
        let (status, _, message) = claude.refused("/v1/agents", &body).await;
        assert_eq!(status, 400, "{field}: {value}");
        assert!(
            message.starts_with(&format!("{named}: ")),
            "{message}, not {named}"
        );
    }
}
