//! Agents that are defined on the fly: what they have, and what is refused.

use std::sync::Arc;

use oma_domain::{SessionId, SkillId, SkillVersionId, Timestamp, WorkspaceId};

use super::*;

fn spec(policy: Value) -> Spec {
    let url = json!({"url": "https://mcp.example/"});
    let custom = json!({"name": "ticket", "description": "d", "input_schema": {"type": "object"}});
    let mut spec: Spec = serde_json::from_value(json!({
        "model": "test/model", "instructions": "Lead.", "tools": [], "permission_policy": policy,
        "callable_agents": ["agt_2"], "max_subagent_depth": 3, "mcp_servers": {"Code": url, "Docs": url},
        "thinking_level": "medium", "channels": {}, "custom_tools": [custom], "quota": null, "metadata": {"a": "b"},
        "multiagent": {"type": "parts", "subagents": {"members": [{"type": "this"}], "inline": true}},
        "name": "Lead",
    }))
    .expect("a definition");
    let pin = |name: &str| Pin {
        skill: SkillId::generate(),
        version: SkillVersionId::generate(),
        name: name.into(),
        description: "d".into(),
        directory: "forms".into(),
    };
    spec.skills = vec![pin("pdf"), pin("xlsx")];
    spec
}

fn toolsets() -> Value {
    let set = |approval: &str| json!({"default": {"enabled": true, "approval": approval}, "tools": []});
    let mcp = |server: &str| {
        let mut set = set("always_allow");
        set["server"] = json!(server);
        set["prefix"] = json!(format!("mcp__{server}__"));
        set
    };
    let mut built_in = set("always_ask");
    built_in["tools"] = json!([
        {"name": "read", "tool": "read", "enabled": true, "approval": "always_allow"},
        {"name": "write", "tool": "write", "enabled": false, "approval": "always_allow"},
    ]);
    json!({"type": "toolsets", "built_in": built_in, "mcp": [mcp("Docs"), mcp("Code")]})
}

fn session(spec: Spec) -> SessionInfo {
    let id = SessionId::parse("ses_1").expect("an id");
    let agent = Agent {
        id: AgentId::parse("agt_1").expect("an id"),
        workspace: WorkspaceId::default_workspace(),
        version: 4,
        spec,
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        archived_at: None,
    };
    SessionInfo {
        id: id.clone(),
        workspace: WorkspaceId::default_workspace(),
        agent: Arc::new(agent),
        roster: Vec::new(),
        sandbox: id,
        environment: None,
        vaults: Vec::new(),
        memories: Vec::new(),
        created_by: None,
        delegation_depth: 0,
        created_at: Timestamp(0),
    }
}

fn define(session: &SessionInfo, more: Value) -> Result<Agent, String> {
    let toolbox = Toolbox::new(&session.agent.spec, &Arc::default());
    let mut definition = json!({"name": "Scout", "system": "Look.", "message": "go"});
    if let (Some(definition), Value::Object(more)) = (definition.as_object_mut(), more) {
        definition.extend(more);
    }
    Own::of(session, &toolbox).define(&definition)
}

/// The tools that it has, with what the policy says of them.
fn tools(agent: &Agent) -> Vec<String> {
    let verdict = |name: &str| match agent.spec.permission_policy.evaluate(name) {
        Permission::Allow => name.to_owned(),
        Permission::Ask => format!("{name}?"),
        Permission::Deny => format!("{name}!"),
    };
    let toolbox = Toolbox::new(&agent.spec, &Arc::default());
    let built_in = toolbox.definitions().into_iter().map(|tool| verdict(&tool.name));
    let custom = agent.spec.custom_tools.iter().map(|tool| tool.name.clone());
    let servers = agent.spec.mcp_servers.keys();
    let servers = servers.map(|server| verdict(&format!("mcp__{server}__find")));
    built_in.chain(custom).chain(servers).collect()
}

#[test]
fn it_is_its_coordinator_under_another_name_with_nobody_to_work_for_it() {
    let session = session(spec(toolsets()));
    let agent = define(&session, json!({"description": "Looks around."})).expect("an agent");
    let of = &session.agent.spec;
    let expected = Spec {
        instructions: "Look.".into(),
        name: Some("Scout".into()),
        description: Some("Looks around.".into()),
        metadata: [].into(),
        callable_agents: Vec::new(),
        multiagent: None,
        max_subagent_depth: 0,
        channels: Value::Null,
        skills: agent.spec.skills.clone(),
        ..of.clone()
    };
    assert_eq!(agent.spec, expected);
    assert!(agent.is_inline() && agent.workspace == session.workspace);
    // Its skills are where the coordinator's are, also those whose folder has another name than they give it.
    assert_eq!(folders(&agent.spec.skills), folders(&of.skills));
    let second = define(&session, json!({"skills": ["xlsx"]})).expect("an agent");
    assert_eq!(folders(&second.spec.skills), ["forms-2"]);
    assert_eq!(second.spec.skills[0].version, of.skills[1].version);
    assert_eq!(define(&session, json!({"skills": ["xlsx"]})), Ok(second));
}

#[test]
fn it_has_what_it_is_given_of_its_coordinators_tools_under_the_same_policy() {
    let all = [
        "bash?",
        "read",
        "edit?",
        "glob?",
        "grep?",
        "web_fetch?",
        "ticket",
        "mcp__Code__find",
        "mcp__Docs__find",
    ];
    let of_toolsets = session(spec(toolsets()));
    for (given, expected) in [
        (json!({}), &all[..]),
        (json!({"tools": null}), &all),
        (json!({"tools": []}), &[]),
        (json!({"tools": ["read"]}), &["read"]),
        (json!({"tools": ["bash", "bash", "ticket"]}), &["bash?", "ticket"]),
        (json!({"tools": ["mcp__Docs"]}), &["mcp__Docs__find"]),
        (
            json!({"tools": ["read", "mcp__Code"]}),
            &["read", "mcp__Code__find"],
        ),
    ] {
        let agent = define(&of_toolsets, given.clone()).expect("an agent");
        assert_eq!(tools(&agent), expected, "{given}");
        assert!(agent.spec.has_only_tools_of(&of_toolsets.agent.spec), "{given}");
        // What was not given is denied, not only not offered.
        for name in ["bash", "read", "write", "mcp__Docs__find", "mcp__Code__find"] {
            let own = of_toolsets.agent.spec.permission_policy.evaluate(name);
            let verdict = agent.spec.permission_policy.evaluate(name);
            assert!(verdict == own || verdict == Permission::Deny, "{given}: {name}");
        }
    }
    let asking = json!({"type": "always_ask", "tools": ["bash", "mcp__Docs"], "timeoutMs": 5000});
    let asking = session(spec(asking));
    let agent = define(&asking, json!({"tools": ["bash", "grep", "mcp__Docs"]})).expect("an agent");
    assert_eq!(tools(&agent), ["bash?", "grep", "mcp__Docs__find?"]);
    assert_eq!(agent.spec.permission_policy.timeout_ms(), Some(5000));
    assert!(agent.spec.has_only_tools_of(&asking.agent.spec));
    // Of what the coordinator has no more it has more than that.
    let lost = |change: fn(&mut Spec)| {
        let mut of = asking.agent.spec.clone();
        change(&mut of);
        !agent.spec.has_only_tools_of(&of)
    };
    assert!(!lost(|of| of.custom_tools.clear()) && !lost(|of| of.tools = vec!["grep".into(), "bash".into()]));
    assert!(lost(|of| of.tools = vec!["bash".into()]) && lost(|of| of.mcp_servers.clear()));
    assert!(lost(|of| of.permission_policy = PermissionPolicy::default()));
    let all = define(&asking, json!({})).expect("an agent");
    let mut without = asking.agent.spec.clone();
    without.custom_tools.clear();
    assert!(!all.spec.has_only_tools_of(&without));
    // Without the tool that reads them there are no skills.
    assert_eq!(agent.spec.skills, []);
}

#[test]
fn what_can_not_be_is_refused() {
    let of_toolsets = session(spec(toolsets()));
    let long = |max: usize| "x".repeat(max + 1);
    for (given, named) in [
        (json!({"name": null}), "\"name\""),
        (json!({"name": " "}), "\"name\""),
        (json!({"name": 1}), "\"name\""),
        (json!({"name": long(MAX_NAME)}), "256"),
        (json!({"name": ADVISOR}), "reserved"),
        (json!({"name": "Lead"}), "another name"),
        (json!({"name": "agt_1"}), "another name"),
        (json!({"system": ""}), "\"system\""),
        (json!({"system": long(MAX_SYSTEM)}), "100000"),
        (json!({"description": long(MAX_DESCRIPTION)}), "2048"),
        (json!({"tools": "bash"}), "\"tools\""),
        (json!({"tools": [1]}), "\"tools\""),
        // It has none of these itself, or can't give them.
        (json!({"tools": ["write"]}), "no tool write"),
        (json!({"tools": ["web_search"]}), "no tool web_search"),
        (json!({"tools": ["create_agent"]}), "no tool create_agent"),
        (json!({"tools": ["mcp__Other"]}), "no tool mcp__Other"),
        (json!({"tools": ["mcp__Docs__find"]}), "mcp__Docs means all tools"),
        (json!({"skills": ["docx"]}), "no skill docx"),
        (json!({"skills": ["pdf"], "tools": ["bash"]}), "read"),
    ] {
        let refused = define(&of_toolsets, given.clone()).expect_err("a refusal");
        assert!(refused.contains(named), "{given}: {refused}");
    }
    // An empty list of tools means all of them where there are no sets.
    let open = session(spec(json!({"type": "always_allow"})));
    let refused = define(&open, json!({"tools": ["ticket"]})).expect_err("a refusal");
    assert!(refused.contains("at least one"), "{refused}");
    // What servers' tools are called can depend on each other.
    let mut alike = spec(json!({"type": "deny", "tools": ["mcp__Docs__*"]}));
    let server = json!({"url": "https://mcp.example/"});
    alike.mcp_servers.insert("Docs_".to_owned(), server);
    let alike = session(alike);
    let label = oma_mcp::prefixes(&["Code", "Docs", "Docs_"])[1]
        .trim_end_matches('_')
        .to_owned();
    let refused = define(&alike, json!({"tools": ["bash", label]})).expect_err("a refusal");
    assert!(refused.contains("together"), "{refused}");
}

#[test]
fn the_model_is_told_what_it_may_give() {
    let session = session(spec(toolsets()));
    let toolbox = Toolbox::new(&session.agent.spec, &Arc::default());
    let (fields, required) = Own::of(&session, &toolbox).schema();
    assert_eq!(required, ["name", "system"]);
    let tools = &fields["tools"]["items"]["enum"];
    assert_eq!(
        tools,
        &json!([
            "bash",
            "read",
            "edit",
            "glob",
            "grep",
            "web_fetch",
            "ticket",
            "mcp__Code",
            "mcp__Docs"
        ])
    );
    assert_eq!(fields["skills"]["items"]["enum"], json!(["pdf", "xlsx"]));
    for name in tools.as_array().expect("names") {
        assert!(define(&session, json!({"tools": [name]})).is_ok(), "{name}");
    }
}
