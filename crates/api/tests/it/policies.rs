//! Permission policies, and the MCP servers that they are about.

use serde_json::{Value, json};

use crate::server::Server;

fn deny(entries: &[&str]) -> Value {
    json!({"type": "deny", "tools": entries})
}

#[tokio::test]
async fn entries_for_servers_that_are_not_there_are_refused() {
    let server = Server::start().await;
    let servers = json!({"customer-relationship-management": {"url": "https://a.example/"}});
    let problem = json!({"_errors": ["It means no tool of any server in 'mcpServers'"]});
    let body =
        |entries: &[&str]| json!({"model": "a/b", "mcpServers": servers, "permissionPolicy": deny(entries)});
    let bad = body(&[
        "bash",
        "mcp__*",
        "mcp__crm",
        "mcp__customer-relationship-management__x",
    ]);
    let answer = server.post("/v1/agents", &bad).await;
    assert_eq!(answer.code(), (400, "invalid_request".into()));
    let tools = &answer.json()["details"]["permissionPolicy"]["tools"];
    assert_eq!(
        (&tools["2"], tools.as_object().unwrap().len()),
        (&problem, 2),
        "{tools}"
    );

    let good = body(&["bash", "mcp__*", "mcp__customer-relationship-management"]);
    let made = server.post("/v1/agents", &good).await.json();
    let path = format!("/v1/agents/{}", made["agent_id"].as_str().unwrap());
    // A server that goes, or gets another name, would leave the policy without a meaning.
    for change in [
        json!({"version": 1, "mcpServers": null}),
        json!({"version": 1, "mcpServers": {"crm": {"url": "https://a.example/"}}}),
        json!({"version": 1, "permissionPolicy": deny(&["mcp__a", "bash", "mcp__crm"])}),
    ] {
        let answer = server.json("PATCH", &path, &change).await;
        assert_eq!(answer.code(), (400, "invalid_request".into()), "{change}");
        let tools = &answer.json()["details"]["permissionPolicy"]["tools"];
        assert_eq!(tools["2"], problem, "{change}: {tools}");
    }
    let both = json!({
        "version": 1, "mcpServers": {"crm": {"url": "https://a.example/"}}, "permissionPolicy": deny(&["mcp__crm"]),
    });
    let changed = server.json("PATCH", &path, &both).await.json();
    assert_eq!(changed["version"], 2, "{changed}");
}
