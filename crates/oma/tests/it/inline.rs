//! Agents that a coordinator defines on the fly, over the real binary: what the provider is asked, what clients see, and
//! what becomes of them over kills.

use oma_fake_provider::{Reply, Step};
use reqwest::Method;
use serde_json::{Value, json};

use crate::system::client::Client;
use crate::system::{System, soon};

const MODEL: &str = "claude-sonnet-4-5";

async fn post(client: &Client, path: &str, body: Value) -> Value {
    client.claude(Method::POST, path, &body).await.good()
}

async fn get(client: &Client, path: &str) -> Value {
    client.claude(Method::GET, path, &json!({})).await.good()
}

async fn list(client: &Client, path: &str) -> Vec<Value> {
    get(client, path).await["data"]
        .as_array()
        .expect("a list")
        .clone()
}

fn message(text: &str) -> Value {
    json!({"type": "user.message", "content": [{"type": "text", "text": text}]})
}

/// The path of a session that begins to work, for an agent that may define others and names these.
async fn begin(client: &Client, members: Value) -> String {
    let ticket =
        json!({"type": "custom", "name": "ticket", "description": "d", "input_schema": {"type": "object"}});
    let toolset = json!({
        "type": "agent_toolset_20260401",
        "configs": [{"name": "bash", "permission_policy": {"type": "always_ask"}}, {"name": "write", "enabled": false}],
    });
    let agent = json!({
        "name": "Lead",
        "model": MODEL,
        "system": "You lead.",
        "tools": [toolset, ticket],
        "multiagent": {
            "type": "multiagent_20261001",
            "subagents": {"type": "enabled", "predefined_agents": members},
            "workflows": {"type": "disabled"},
        },
    });
    let agent = post(client, "/v1/agents", agent).await;
    let name = format!("for {}", agent["id"]);
    let environment = post(client, "/v1/environments", json!({ "name": name })).await;
    let body = json!({
        "agent": agent["id"], "environment_id": environment["id"], "initial_events": [message("Find it.")],
    });
    let session = post(client, "/v1/sessions", body).await;
    format!("/v1/sessions/{}", session["id"].as_str().expect("an id"))
}

fn create(more: Value) -> Value {
    let mut input = json!({"name": "Scout", "system": "You look around.", "message": "Look there."});
    let fields = input.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    input
}

/// Waits until the session rests; gives the log.
async fn rest(client: &Client, path: &str) -> Vec<Value> {
    let events = format!("{path}/events");
    soon("the end of the turn", async {
        loop {
            let log = list(client, &events).await;
            if log
                .last()
                .is_some_and(|last| last["type"] == "session.status_idle")
            {
                return log;
            }
        }
    })
    .await
}

fn of<'a>(log: &'a [Value], kind: &str) -> Vec<&'a Value> {
    log.iter().filter(|event| event["type"] == kind).collect()
}

/// The thread of the agent that was defined.
async fn thread(client: &Client, path: &str) -> Value {
    let threads = list(client, &format!("{path}/threads")).await;
    let mut defined = threads
        .into_iter()
        .filter(|thread| thread["agent"]["type"] == "inline");
    let thread = defined.next().expect("a thread");
    assert!(defined.next().is_none());
    thread
}

fn names(request: &Value) -> Vec<&str> {
    let tools = request["tools"].as_array().into_iter().flatten();
    tools.filter_map(|tool| tool["name"].as_str()).collect()
}

#[tokio::test]
async fn an_agent_that_is_defined_works_in_a_thread_and_is_asked_again() {
    let system = System::start().await;
    let client = system.client();
    let tools = json!({"description": "Looks.", "tools": ["read", "ticket"]});
    system
        .provider
        .push(Reply::new().tool("create_agent", create(tools)));
    system.provider.push(Reply::new().text("Nothing here."));
    let again = json!({"agent": "Scout", "thread": "latest", "message": "And now?"});
    let both = Reply::new()
        .tool("list_agents", json!({}))
        .tool("send_to_agent", again);
    system.provider.push(both);
    system.provider.push(Reply::new().text("Still nothing."));
    system.provider.push(Reply::new().text("There is nothing."));
    let path = begin(client, json!([])).await;
    let log = rest(client, &path).await;
    let requests = system.provider.requests();
    assert_eq!(requests.len(), 5);

    // The coordinator may define agents; the one that it has defined is who it says, and defines none itself.
    let lead = names(&requests[0].body);
    for tool in ["list_agents", "send_to_agent", "create_agent"] {
        assert!(lead.contains(&tool), "{lead:?}");
    }
    let asked = &requests[1].body;
    assert_eq!(asked["model"], MODEL);
    assert_eq!(names(asked), ["read", "ticket"]);
    let text = asked.to_string();
    assert!(
        text.contains("You look around.") && text.contains("Look there.") && !text.contains("You lead."),
        "{text}"
    );
    // It remembers, and its answers come back.
    let again = requests[3].body["messages"].to_string();
    assert!(
        again.contains("Nothing here.") && again.contains("And now?"),
        "{again}"
    );
    let told = requests[4].body["messages"].to_string();
    assert!(told.contains("Still nothing."), "{told}");
    // Whoever lists the threads finds its own there, under its name.
    assert!(told.contains("\\\"agent\\\":\\\"Scout\\\""), "{told}");

    // Clients see a thread as any other, and no tool.
    assert_eq!(of(&log, "session.thread_created").len(), 1);
    assert_eq!(of(&log, "session.thread_created")[0]["agent_name"], "Scout");
    let said = |kind: &str| {
        let texts = of(&log, kind)
            .into_iter()
            .map(|event| event["content"][0]["text"].clone());
        texts.collect::<Vec<_>>()
    };
    assert_eq!(said("agent.thread_message_sent"), ["Look there.", "And now?"]);
    assert_eq!(
        said("agent.thread_message_received"),
        ["Nothing here.", "Still nothing."]
    );
    assert_eq!(of(&log, "agent.tool_use").len(), 0, "{log:#?}");
    let thread = thread(client, &path).await;
    let agent = &thread["agent"];
    assert_eq!(
        (
            &agent["name"],
            &agent["system"],
            &agent["description"],
            &agent["model"]["id"]
        ),
        (
            &json!("Scout"),
            &json!("You look around."),
            &json!("Looks."),
            &json!(MODEL)
        )
    );
    assert!(
        agent.get("id").is_none() && agent.get("version").is_none(),
        "{agent}"
    );
    assert_eq!(agent["tools"][1]["name"], "ticket");
    assert_eq!(thread["status"], "idle");

    // What it consumes is the session's, and reported under a name of its own.
    let session = get(client, &path).await;
    let threads = list(client, &format!("{path}/threads")).await;
    let spent = |of: &Value| of["usage"]["output_tokens"].as_u64().expect("tokens");
    assert_eq!(spent(&session), threads.iter().map(spent).sum::<u64>());
    let report = client.get("/v1/usage").await.good();
    let rows = report["usage"].as_array().expect("rows");
    assert!(rows.iter().any(|row| row["agent_id"] == "agt_inline"), "{report}");
    // It is nobody else's agent: there is none of this id.
    assert_eq!(
        client
            .claude(Method::GET, "/v1/agents/agt_inline", &json!({}))
            .await
            .status,
        404
    );
    // The other dialect shows a session of the session's, and the tool.
    let all = client.get("/v1/sessions").await.good();
    let mut sessions = all["sessions"].as_array().expect("sessions").iter();
    let shown = sessions
        .find(|one| one["agent_id"] == "agt_inline")
        .expect("its session");
    assert_eq!(shown["parent_session_id"], session["id"]);
    let id = session["id"].as_str().expect("an id");
    let own = client
        .get(&format!("/v1/sessions/{id}/events"))
        .await
        .good()
        .to_string();
    assert!(
        own.contains("create_agent") && own.contains("send_to_agent"),
        "{own}"
    );

    // Archived, it takes nothing any more; with its session it goes.
    let id = thread["id"].as_str().expect("an id");
    post(client, &format!("{path}/threads/{id}/archive"), json!({})).await;
    let more = json!({"agent": "Scout", "thread": "latest", "message": "Hello?"});
    system.provider.push(Reply::new().tool("send_to_agent", more));
    system.provider.push(Reply::new().text("It is gone."));
    post(
        client,
        &format!("{path}/events"),
        json!({"events": [message("Ask it.")]}),
    )
    .await;
    soon("the last request", system.provider.wait_for_requests(7)).await;
    let told = system.provider.requests()[6].body["messages"].to_string();
    assert!(
        told.contains("You may not send messages to the agent Scout"),
        "{told}"
    );
    rest(client, &path).await;
    client.claude(Method::DELETE, &path, &json!({})).await.good();
    assert_eq!(client.get("/v1/sessions").await.good()["sessions"], json!([]));
    system.stop().await;
}

#[tokio::test]
async fn its_tool_uses_ask_as_its_coordinators_do() {
    let system = System::start().await;
    let client = system.client();
    system
        .provider
        .push(Reply::new().tool("create_agent", create(json!({"tools": ["bash"]}))));
    let run = json!({"command": "echo seen"});
    system.provider.push(Reply::new().tool("bash", run));
    let path = begin(client, json!([])).await;
    let log = rest(client, &path).await;
    let uses = of(&log, "agent.tool_use");
    let thread = thread(client, &path).await;
    assert_eq!(
        (
            uses.len(),
            &uses[0]["name"],
            &uses[0]["evaluated_permission"],
            &uses[0]["session_thread_id"]
        ),
        (1, &json!("bash"), &json!("ask"), &thread["id"])
    );
    system.provider.push(Reply::new().text("I saw it."));
    system.provider.push(Reply::new().text("It was seen."));
    let allow = json!({"type": "user.tool_confirmation", "tool_use_id": uses[0]["id"], "result": "allow"});
    post(client, &format!("{path}/events"), json!({"events": [allow]})).await;
    soon("the last request", system.provider.wait_for_requests(4)).await;
    let result = system.provider.requests()[2].body["messages"].to_string();
    assert!(result.contains("seen"), "{result}");
    // A tool that it was not given is none of its tools, though its coordinator has it.
    rest(client, &path).await;
    let more = json!({"agent": "Scout", "thread": "latest", "message": "Read."});
    system.provider.push(Reply::new().tool("send_to_agent", more));
    system
        .provider
        .push(Reply::new().tool("read", json!({"path": "/etc/hostname"})));
    system.provider.push(Reply::new().text("I can't."));
    system.provider.push(Reply::new().text("It can't."));
    post(
        client,
        &format!("{path}/events"),
        json!({"events": [message("Go on.")]}),
    )
    .await;
    soon("the last request", system.provider.wait_for_requests(8)).await;
    let messages = system.provider.requests()[6].body["messages"].clone();
    let result = &messages.as_array().expect("messages").last().expect("a result")["content"][0];
    assert_eq!(result["is_error"], true, "{result}");
    system.stop().await;
}

#[tokio::test]
async fn what_is_taken_from_the_session_is_not_had_by_another_way() {
    let system = System::start().await;
    let client = system.client();
    system
        .provider
        .push(Reply::new().tool("create_agent", create(json!({"tools": ["read"]}))));
    system.provider.push(Reply::new().text("Nothing here."));
    system.provider.push(Reply::new().text("There is nothing."));
    let path = begin(client, json!([])).await;
    rest(client, &path).await;
    let send = json!({"agent": "Scout", "thread": "latest", "message": "And now?"});
    // What it was not given may change.
    let mut requests = 3;
    for (configs, goes_on) in [
        (json!([{"name": "bash", "enabled": false}]), true),
        (
            json!([{"name": "read", "permission_policy": {"type": "always_ask"}}]),
            false,
        ),
        (json!([{"name": "read", "enabled": false}]), false),
    ] {
        let tools = json!([{"type": "agent_toolset_20260401", "configs": configs}]);
        post(client, &path, json!({"agent": {"tools": tools}})).await;
        system
            .provider
            .push(Reply::new().tool("send_to_agent", send.clone()));
        if goes_on {
            system.provider.push(Reply::new().text("Still nothing."));
        }
        system.provider.push(Reply::new().text("So it is."));
        post(
            client,
            &format!("{path}/events"),
            json!({"events": [message("Ask it.")]}),
        )
        .await;
        rest(client, &path).await;
        requests += if goes_on { 3 } else { 2 };
        let made = system.provider.requests();
        assert_eq!(made.len(), requests, "{configs}");
        let messages = made[requests - 1].body["messages"].clone();
        let result = &messages.as_array().expect("messages").last().expect("a result")["content"];
        let told = result.to_string();
        assert_eq!(told.contains("Create another one"), !goes_on, "{configs}: {told}");
    }
    system.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_definition_is_told() {
    let system = System::start().await;
    let client = system.client();
    let worker = post(client, "/v1/agents", json!({"name": "Worker", "model": MODEL})).await;
    let wrong = [
        (json!({"tools": ["write"]}), "You have no tool write to give"),
        (
            json!({"tools": ["create_agent"]}),
            "You have no tool create_agent to give",
        ),
        (json!({"model": "claude-opus-4-5"}), "has no field"),
        (json!({"name": "Worker"}), "choose another name"),
        (json!({"name": "anthropic.advisor"}), "reserved"),
        (
            json!({"system": "x".repeat(100_001)}),
            "at most 100000 characters",
        ),
        (json!({"message": ""}), "needs a text for"),
    ];
    let mut reply = Reply::new();
    for (more, _) in &wrong {
        reply = reply.tool("create_agent", create(more.clone()));
    }
    system.provider.push(reply);
    system.provider.push(Reply::new().text("Alone, then."));
    let path = begin(client, json!([worker["id"]])).await;
    let log = rest(client, &path).await;
    assert_eq!(of(&log, "session.thread_created").len(), 0, "{log:#?}");
    let requests = system.provider.requests();
    let messages = requests[1].body["messages"].as_array().expect("messages").clone();
    let results = messages.last().expect("results")["content"]
        .as_array()
        .expect("results")
        .clone();
    assert_eq!(results.len(), wrong.len());
    for (result, (more, told)) in results.iter().zip(&wrong) {
        assert!(
            result["is_error"] == true && result.to_string().contains(told),
            "{more}: {result}"
        );
    }
    system.stop().await;
}

#[tokio::test]
async fn a_defined_agent_goes_on_after_a_kill_at_any_point() {
    let mut system = System::start().await;
    let again = json!({"agent": "Scout", "thread": "latest", "message": "And now?"});
    for cut in 0..5 {
        let asked = system.provider.requests().len();
        let plan = [
            Reply::new().tool("create_agent", create(json!({"tools": ["read"]}))),
            Reply::new().text("Nothing here."),
            Reply::new().tool("send_to_agent", again.clone()),
            Reply::new().text("Still nothing."),
            Reply::new().text("There is nothing."),
        ];
        for (at, reply) in plan.into_iter().enumerate() {
            if at == cut {
                system.provider.push(Reply::new().step(Step::Stall));
            }
            system.provider.push(reply);
        }
        let path = begin(system.client(), json!([])).await;
        let reached = system.provider.wait_for_requests((asked + cut + 1) as u64);
        soon("the request", reached).await;
        system = system.crash().await;
        let client = system.client();
        let log = rest(client, &path).await;
        let requests = system.provider.requests();
        assert_eq!(requests.len(), asked + 6, "killed at request {cut}");
        assert_eq!(
            of(&log, "session.thread_created").len(),
            1,
            "killed at request {cut}"
        );
        assert_eq!(
            of(&log, "agent.thread_message_sent").len(),
            2,
            "killed at request {cut}"
        );
        assert_eq!(
            of(&log, "agent.thread_message_received").len(),
            2,
            "killed at request {cut}"
        );
        // It is who it was.
        let thread = thread(client, &path).await;
        assert_eq!(thread["agent"]["system"], "You look around.");
        let of_scout = requests[asked..].iter().map(|request| &request.body);
        let of_scout: Vec<&Value> = of_scout.filter(|body| names(body) == ["read"]).collect();
        let twice = usize::from(cut == 1 || cut == 3);
        assert_eq!(of_scout.len(), 2 + twice, "killed at request {cut}");
        for body in of_scout {
            assert!(
                body.to_string().contains("You look around."),
                "killed at request {cut}: {body}"
            );
        }
    }
    system.stop().await;
}
