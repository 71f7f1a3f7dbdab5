//! Parent tokens: what they allow and what they don't, and the command that uses one.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::command_line::oma;
use crate::system::client::{Answer, Client, is_end};
use crate::system::{System, soon};
use crate::tenants::{key, workspace};

const TOKEN: &str = "canary-api-token-77b0";

async fn start() -> System {
    System::start_with(|options| options.token(TOKEN)).await
}

/// Somebody with nothing but a parent token.
#[derive(Clone)]
struct Holder {
    anybody: Client,
    token: String,
}

impl Holder {
    async fn of(client: &Client, session: &str) -> Self {
        let path = format!("/v1/sessions/{session}/parent_token");
        let minted = client.post(&path, &json!({})).await.good();
        Self {
            anybody: Client::new(client.url(), None),
            token: minted["parent_token"].as_str().expect("a token").to_owned(),
        }
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = self.anybody.request(method, path);
        request = request.header("x-openclaw-parent-token", &self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        self.anybody.send(request).await
    }

    async fn open(&self, agent: &str) -> Answer {
        self.call(Method::POST, "/v1/sessions", Some(json!({ "agentId": agent })))
            .await
    }

    async fn post(&self, session: &str, content: &str) -> Answer {
        let path = format!("/v1/sessions/{session}/events");
        self.call(Method::POST, &path, Some(json!({ "content": content })))
            .await
    }
}

/// Other dialects' routes have the same paths, and handlers that know nothing of parents.
#[tokio::test]
async fn a_parent_token_opens_no_other_dialect() {
    let system = start().await;
    let echo = system.client().agent(json!({"model": "scripted/echo"})).await;
    let caller = json!({"model": "scripted/echo", "callableAgents": [echo], "maxSubagentDepth": 1});
    let agent = system.client().agent(caller).await;
    let (parent, other) = (
        system.client().session(&agent).await,
        system.client().session(&agent).await,
    );
    let holder = Holder::of(system.client(), &parent).await;
    let events = json!({"events": [{"type": "user.message", "content": [{"type": "text", "text": "hi"}]}]});
    let chat = json!({"model": "x", "messages": [{"role": "user", "content": "hi"}]});
    for (method, path, body) in [
        (Method::GET, format!("/v1/sessions/{other}"), None),
        (Method::GET, format!("/v1/sessions/{other}/events"), None),
        (
            Method::POST,
            format!("/v1/sessions/{other}/events"),
            Some(&events),
        ),
        (Method::POST, "/v1/chat/completions".to_owned(), Some(&chat)),
    ] {
        let mut request = holder
            .anybody
            .request(method.clone(), &path)
            .header("x-openclaw-parent-token", &holder.token)
            .header("anthropic-version", "2023-06-01");
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = holder.anybody.send(request).await;
        assert!(
            matches!(answer.status, 401 | 403 | 404),
            "{method} {path}: {}",
            answer.text()
        );
    }
    assert_eq!(system.client().events(&other).await, Vec::<Value>::new());
    system.stop().await;
}

fn id(answer: &Answer) -> String {
    answer.good()["session_id"].as_str().expect("an id").to_owned()
}

async fn parent(client: &Client, callable: &[&str], depth: u32, quota: Value) -> String {
    let mut body = json!({
        "model": "scripted/echo",
        "callableAgents": callable,
        "maxSubagentDepth": depth,
    });
    if !quota.is_null() {
        body["quota"] = quota;
    }
    let agent = client.agent(body).await;
    client.session(&agent).await
}

async fn read(client: &Client, session: &str) -> Value {
    client.get(&format!("/v1/sessions/{session}")).await.good()
}

async fn scripted(client: &Client, script: &Value) -> String {
    let body = json!({"model": "scripted/script", "instructions": script.to_string(), "tools": ["glob"]});
    client.agent(body).await
}

#[tokio::test]
async fn a_token_opens_posts_to_and_reads_its_own_children_and_nothing_else() {
    let system = start().await;
    let client = system.client();
    let echo = client.agent(json!({"model": "scripted/echo"})).await;
    let stranger = client.agent(json!({"model": "scripted/echo"})).await;
    let session = parent(client, &[&echo], 1, Value::Null).await;
    let other = client.session(&echo).await;
    let holder = Holder::of(client, &session).await;

    let child = id(&holder.open(&echo).await);
    holder.post(&child, "hello").await.good();
    client.follow(&child).await.until(is_end).await;
    let events = format!("/v1/sessions/{child}/events");
    let listed = holder.call(Method::GET, &events, None).await.good();
    assert!(
        listed["events"].to_string().contains("hello"),
        "it reads what its child says: {listed}"
    );
    let seen = holder
        .call(Method::GET, &format!("/v1/sessions/{child}"), None)
        .await
        .good();
    assert_eq!(seen["parent_session_id"], session.as_str());
    assert_eq!(seen["output"], "hello");

    for (method, path, body, status, code) in [
        (Method::GET, "/v1/sessions".to_owned(), None, 403, "forbidden"),
        (Method::GET, "/v1/agents".to_owned(), None, 403, "forbidden"),
        (Method::GET, "/v1/audit".to_owned(), None, 403, "forbidden"),
        (Method::GET, "/v1/usage".to_owned(), None, 403, "forbidden"),
        (Method::GET, format!("/v1/agents/{echo}"), None, 403, "forbidden"),
        (
            Method::DELETE,
            format!("/v1/sessions/{child}"),
            None,
            403,
            "forbidden",
        ),
        (
            Method::POST,
            format!("/v1/sessions/{child}/cancel"),
            None,
            403,
            "forbidden",
        ),
        (
            Method::POST,
            format!("/v1/sessions/{session}/parent_token"),
            None,
            403,
            "forbidden",
        ),
        (
            Method::POST,
            format!("/v1/agents/{echo}/run"),
            Some(json!({"task": "x"})),
            403,
            "forbidden",
        ),
        (
            Method::POST,
            "/v1/chat/completions".to_owned(),
            Some(json!({"model": "scripted/echo", "messages": [{"role": "user", "content": "x"}]})),
            403,
            "",
        ),
        (
            Method::POST,
            events.clone(),
            Some(json!({"type": "user.tool_confirmation", "toolUseId": "evt_1", "result": "allow"})),
            403,
            "forbidden",
        ),
        (
            Method::POST,
            "/v1/sessions".to_owned(),
            Some(json!({"agentId": echo, "vaultId": "vlt_1"})),
            403,
            "forbidden",
        ),
        // Neither its own session nor anybody else's is there for it.
        (
            Method::GET,
            format!("/v1/sessions/{session}"),
            None,
            404,
            "session_not_found",
        ),
        (
            Method::GET,
            format!("/v1/sessions/{other}"),
            None,
            404,
            "session_not_found",
        ),
        (
            Method::GET,
            format!("/v1/sessions/{other}/events?stream=true"),
            None,
            404,
            "session_not_found",
        ),
        (
            Method::POST,
            format!("/v1/sessions/{other}/events"),
            Some(json!({"content": "x"})),
            404,
            "session_not_found",
        ),
        (
            Method::POST,
            format!("/v1/sessions/{session}/events"),
            Some(json!({"content": "x"})),
            404,
            "session_not_found",
        ),
    ] {
        let what = format!("{method} {path}");
        let answer = holder.call(method, &path, body).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        if !code.is_empty() {
            assert_eq!(answer.code(), code, "{what}");
        }
    }
    assert_eq!(holder.open(&stranger).await.code(), "agent_not_in_allowlist");

    // The audit trail says on whose behalf.
    let trail = client
        .get("/v1/audit?action=session.create&limit=100")
        .await
        .good();
    let row = trail["events"].as_array().expect("rows").iter();
    let row = row
        .clone()
        .find(|row| row["target"] == child.as_str())
        .expect("a row");
    assert_eq!(row["actor"], format!("session:{session}"));
    assert_eq!(row["metadata"]["is_subagent"], true);
    assert!(!trail.to_string().contains(&holder.token));
    let minted = client.get("/v1/audit?action=session.parent_token").await.good();
    assert_eq!(minted["events"][0]["target"], session.as_str());
    let data = system.stop().await;
    assert!(!data.log().contains(&holder.token), "no token in the log");
}

#[tokio::test]
async fn bad_tokens_of_every_kind_open_nothing() {
    let system = start().await;
    let client = system.client();
    let echo = client.agent(json!({"model": "scripted/echo"})).await;
    let deep = client
        .agent(json!({"model": "scripted/echo", "callableAgents": [&echo], "maxSubagentDepth": 9}))
        .await;
    let session = parent(client, &[&echo, &deep], 1, Value::Null).await;
    let good = Holder::of(client, &session).await;
    let forged = |token: String| Holder {
        token,
        anybody: good.anybody.clone(),
    };
    let (payload, signature) = good.token.split_once('.').expect("two parts");
    let flipped: String = signature.chars().rev().collect();
    for token in [
        format!("{payload}."),
        format!("{payload}.{flipped}"),
        format!("x{payload}.{signature}"),
        "nonsense".to_owned(),
        String::new(),
    ] {
        let answer = forged(token.clone()).open(&echo).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "invalid_parent_token"),
            "{token}"
        );
        // Next to a key it counts as well.
        let request = client
            .request(Method::POST, "/v1/sessions")
            .header("x-openclaw-parent-token", &token)
            .json(&json!({"agentId": echo}));
        assert_eq!(
            client.send(request).await.code(),
            "invalid_parent_token",
            "{token}"
        );
    }
    // The body is looked at first.
    let answer = good.call(Method::POST, "/v1/sessions", Some(json!({}))).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"));

    // A child may pass on only what its parent's depth leaves, whatever its own agent says.
    let child = id(&good.open(&deep).await);
    let path = format!("/v1/sessions/{child}/parent_token");
    let answer = client.post(&path, &json!({})).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (403, "max_subagent_depth_reached")
    );

    // A token is of its workspace.
    let theirs = workspace(client, "theirs").await;
    let (_, them) = key(
        client,
        &json!({"name": "k", "scope": "admin", "workspaceId": theirs}),
    )
    .await;
    let request = them
        .request(Method::POST, "/v1/sessions")
        .header("x-openclaw-parent-token", &good.token)
        .json(&json!({"agentId": echo}));
    let answer = them.send(request).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (403, "invalid_parent_token")
    );

    // With a key of the same workspace it opens a child all the same.
    let request = client
        .request(Method::POST, "/v1/sessions")
        .header("x-openclaw-parent-token", &good.token)
        .json(&json!({"agentId": echo}));
    assert_eq!(
        client.send(request).await.good()["parent_session_id"],
        session.as_str()
    );

    // It outlives a restart of the server, but not its session.
    let system = system.crash().await;
    let good = Holder {
        anybody: Client::new(system.client().url(), None),
        ..good.clone()
    };
    good.open(&echo).await.good();
    system
        .client()
        .delete(&format!("/v1/sessions/{session}"))
        .await
        .good();
    assert_eq!(good.open(&echo).await.code(), "invalid_parent_token");
    system.stop().await;
}

#[tokio::test]
async fn what_children_consume_is_their_parents_also_after_a_crash() {
    let mut system = start().await;
    let client = system.client();
    let spender = json!([
        [[{"text": "spent"}, {"usage": {"input": 2_000, "output": 500}}]],
        [[{"text": "more"}, {"usage": {"input": 1_000, "output": 500}}]],
    ]);
    let spender = scripted(client, &spender).await;
    let quota = json!({"maxTokensPerSession": 40_000});
    let session = parent(client, &[&spender], 1, quota).await;
    let mut holder = Holder::of(client, &session).await;
    let child = id(&holder.open(&spender).await);
    let total = |read: &Value| {
        read["total_tokens"]["input"].as_u64().expect("a number")
            + read["total_tokens"]["output"].as_u64().expect("a number")
    };
    for (message, sum) in [("one", 2_500), ("two", 4_000)] {
        holder.post(&child, message).await.good();
        let counted = async {
            while total(&read(system.client(), &session).await) != sum {
                tokio::task::yield_now().await;
            }
        };
        soon("the child's consumption in its parent", counted).await;
        system = system.crash().await;
        holder.anybody = Client::new(system.client().url(), None);
    }
    // Each new child gets half of what is left, until that is too little; what is set aside is not there for others.
    let mut opened = 1;
    let refused = loop {
        let answer = holder.open(&spender).await;
        if answer.status != 200 {
            break answer;
        }
        opened += 1;
        assert!(opened < 20, "there is no end of it");
    };
    assert_eq!((refused.status, refused.code().as_str()), (429, "quota_exceeded"));
    assert!(opened > 3, "{opened}");
    system.stop().await;
}

#[tokio::test]
async fn a_cancel_reaches_the_children() {
    let system = start().await;
    let client = system.client();
    let hang = scripted(client, &json!([[[{"delay_ms": 600_000}, {"text": "never"}]]])).await;
    let session = parent(client, &[&hang], 1, Value::Null).await;
    let holder = Holder::of(client, &session).await;
    for end in ["cancel", "delete"] {
        let child = id(&holder.open(&hang).await);
        holder.post(&child, "wait").await.good();
        let path = format!("/v1/sessions/{session}");
        match end {
            "cancel" => client.post(&format!("{path}/cancel"), &json!({})).await.good(),
            _ => client.delete(&path).await.good(),
        };
        let stopped = read(client, &child).await;
        assert_eq!(stopped["stop_reason"], "interrupted", "{end}: {stopped}");
    }
    system.stop().await;
}

/// Runs the command and gives its exit code, standard output and standard error.
async fn call(url: &str, token: &str, target: &str, task: &str) -> (i32, String, String) {
    let mut command = tokio::process::Command::from(oma(&["call-agent", "--target", target, "--task", task]));
    command
        .env("OPENCLAW_ORCHESTRATOR_URL", url)
        .env("OPENCLAW_ORCHESTRATOR_TOKEN", token)
        .env_remove("OPENCLAW_API_TOKEN")
        .kill_on_drop(true);
    let ended = tokio::time::timeout(Duration::from_secs(60), command.output());
    let output = ended.await.expect("in time").expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().expect("an exit code");
    (code, text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn the_command_waits_for_slow_children_and_tells_of_failures() {
    let system = start().await;
    let client = system.client();
    let slow = scripted(client, &json!([[[{"delay_ms": 2_500}, {"text": "at last"}]]])).await;
    let broken = scripted(
        client,
        &json!([[[{"error": {"kind": "request_failed", "message": "no"}}]]]),
    )
    .await;
    let session = parent(client, &[&slow, &broken], 1, Value::Null).await;
    let Holder { token, .. } = Holder::of(client, &session).await;
    let (code, out, err) = call(client.url(), &token, &slow, "take your time").await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(out.lines().count(), 1);
    let said: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(said["content"], "at last");
    let child = said["subagent_session_id"].as_str().expect("an id");
    assert_eq!(
        said["events_url"],
        format!("{}/v1/sessions/{child}/events", client.url())
    );
    assert_eq!(read(client, child).await["parent_session_id"], session.as_str());

    for (token, target, words) in [
        (token.as_str(), broken.as_str(), "did not do its task"),
        (token.as_str(), "agt_unknown", "agent_not_in_allowlist"),
        ("forged.token", slow.as_str(), "invalid_parent_token"),
        ("", slow.as_str(), "OPENCLAW_ORCHESTRATOR_TOKEN is not set"),
    ] {
        let (code, out, err) = call(client.url(), token, target, "x").await;
        assert_eq!(code, 1, "{words}: {out}{err}");
        assert!(
            err.starts_with("oma call-agent: ") && err.contains(words),
            "{err}"
        );
    }
    for arguments in [
        &["call-agent"][..],
        &["call-agent", "--target", "x"],
        &["call-agent", "--odd"],
    ] {
        let status = oma(arguments).output().expect("it runs").status;
        assert_eq!(status.code(), Some(2), "{arguments:?}");
    }
    system.stop().await;
}
