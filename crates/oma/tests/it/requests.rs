//! What each client command asks the server, and what it makes of the answers.

use serde_json::{Value, json};

use crate::command_line::{oma, run, stderr, stdout};
use crate::fake_server::{FakeServer, frames};

fn ok(body: &Value) -> (u16, String) {
    (200, body.to_string())
}

#[test]
fn commands_become_requests() {
    let cases: [(&[&str], &str, Value); 14] = [
        (
            &[
                "agent",
                "create",
                "--model",
                "p/m",
                "--instructions",
                "be brief",
                "--tool",
                "bash",
                "--max-cost",
                "2.5",
                "--permission",
                "deny:write",
                "--max-age",
                "1h",
            ],
            "POST /v1/agents HTTP/1.1",
            json!({"model": "p/m", "instructions": "be brief", "tools": ["bash"],
                   "permissionPolicy": {"type": "deny", "tools": ["write"]},
                   "quota": {"maxCostUsdPerSession": 2.5, "maxWallDurationMs": 3_600_000}}),
        ),
        (
            &["agent", "get", "agt_1"],
            "GET /v1/agents/agt_1 HTTP/1.1",
            Value::Null,
        ),
        (
            &["agent", "get", "a/b?c"],
            "GET /v1/agents/a%2Fb%3Fc HTTP/1.1",
            Value::Null,
        ),
        (
            &[
                "agent",
                "update",
                "agt_1",
                "--version",
                "3",
                "--clear",
                "quota",
                "--name",
                "n",
            ],
            "PATCH /v1/agents/agt_1 HTTP/1.1",
            json!({"name": "n", "quota": null, "version": 3}),
        ),
        (
            &["agent", "archive", "agt_1"],
            "POST /v1/agents/agt_1/archive HTTP/1.1",
            Value::Null,
        ),
        (
            &["agent", "delete", "agt_1"],
            "DELETE /v1/agents/agt_1 HTTP/1.1",
            Value::Null,
        ),
        (
            &["agent", "run", "agt_1", "do it", "--session", "ses_1"],
            "POST /v1/agents/agt_1/run HTTP/1.1",
            json!({"task": "do it", "sessionId": "ses_1"}),
        ),
        (
            &[
                "env",
                "create",
                "py",
                "--package",
                "pip:numpy",
                "--package",
                "pip:pandas",
                "--allow-host",
                "example.com",
            ],
            "POST /v1/environments HTTP/1.1",
            json!({"name": "py", "packages": {"pip": ["numpy", "pandas"]},
                   "networking": {"type": "limited", "allowedHosts": ["example.com"]}}),
        ),
        (
            &["session", "create", "agt_1", "--environment", "env_1"],
            "POST /v1/sessions HTTP/1.1",
            json!({"agentId": "agt_1", "environmentId": "env_1"}),
        ),
        (
            &[
                "session",
                "send",
                "ses_1",
                "hello",
                "--model",
                "p/m",
                "--thinking",
                "low",
            ],
            "POST /v1/sessions/ses_1/events HTTP/1.1",
            json!({"type": "user.message", "content": "hello", "model": "p/m", "thinkingLevel": "low"}),
        ),
        (
            &["session", "confirm", "ses_1", "evt_1", "deny", "--message", "no"],
            "POST /v1/sessions/ses_1/events HTTP/1.1",
            json!({"type": "user.tool_confirmation", "toolUseId": "evt_1", "result": "deny", "denyMessage": "no"}),
        ),
        (
            &["session", "cancel", "ses_1"],
            "POST /v1/sessions/ses_1/cancel HTTP/1.1",
            Value::Null,
        ),
        (
            &["session", "compact", "ses_1"],
            "POST /v1/sessions/ses_1/compact HTTP/1.1",
            Value::Null,
        ),
        (&["health"], "GET /readyz HTTP/1.1", Value::Null),
    ];
    for (arguments, line, body) in cases {
        let server = FakeServer::start(vec![ok(&json!({"agent_id": "agt_1"}))]);
        let mut command = oma(arguments);
        let output = command
            .env("OPENCLAW_URL", server.url())
            .output()
            .expect("the binary runs");
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}",
            stderr(&output)
        );
        let asked = server.asked();
        assert_eq!(asked.line, line, "{arguments:?}");
        assert_eq!(asked.body, body, "{arguments:?}");
    }
}

#[test]
fn an_update_without_a_version_builds_on_the_current_one() {
    let server = FakeServer::start(vec![ok(&json!({"version": 4})), ok(&json!({"version": 5}))]);
    let output = run(&[
        "agent",
        "update",
        "agt_1",
        "--model",
        "p/m",
        "--url",
        &server.url(),
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(server.asked().line, "GET /v1/agents/agt_1 HTTP/1.1");
    assert_eq!(server.asked().body, json!({"model": "p/m", "version": 4}));
}

#[test]
fn the_token_comes_from_a_file_or_the_environment_and_is_never_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "from-file\n").expect("written");
    let refusal = json!({"error": "unauthorized", "message": "invalid token"}).to_string();
    for (from_file, token) in [(false, "from-env"), (true, "from-file")] {
        let server = FakeServer::start(vec![(401, refusal.clone())]);
        let mut command = oma(&["agent", "list", "--url", &server.url()]);
        command.env("OPENCLAW_API_TOKEN", "from-env");
        if from_file {
            command.arg("--token-file").arg(&file);
        }
        let output = command.output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(1));
        assert!(
            stderr(&output).contains("invalid token (unauthorized, HTTP 401)"),
            "{}",
            stderr(&output)
        );
        assert!(!stderr(&output).contains(token), "the token is not shown");
        assert_eq!(
            server.asked().header("authorization"),
            Some(format!("Bearer {token}").as_str())
        );
    }
    let output = run(&["agent", "list", "--token", "x"]);
    assert_eq!(output.status.code(), Some(2), "a token is no argument");
}

#[test]
fn lists_are_read_page_by_page() {
    let page = |ids: &[&str], next: Option<&str>| {
        let agents: Vec<Value> = ids
            .iter()
            .map(|id| json!({"agent_id": id, "model": "p/m"}))
            .collect();
        ok(&json!({"agents": agents, "count": ids.len(), "has_more": next.is_some(), "next": next}))
    };
    let server = FakeServer::start(vec![
        page(&["agt_1", "agt_2"], Some("agt_2")),
        page(&["agt_3"], None),
    ]);
    let output = run(&["agent", "list", "--json", "--url", &server.url()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let list: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!(list["count"], 3);
    assert_eq!(list["has_more"], false);
    assert_eq!(list["agents"][2]["agent_id"], "agt_3");
    assert_eq!(server.asked().line, "GET /v1/agents?limit=500 HTTP/1.1");
    assert_eq!(
        server.asked().line,
        "GET /v1/agents?limit=500&after=agt_2 HTTP/1.1"
    );
    assert_eq!(list["next"], Value::Null);

    // No more is asked for than is wanted, and whoever reads learns how to go on.
    for json in [true, false] {
        let server = FakeServer::start(vec![page(&["agt_5"], Some("agt_5"))]);
        let url = server.url();
        let mut arguments = vec!["agent", "list", "--limit", "1", "--after", "agt_4", "--url", &url];
        if json {
            arguments.push("--json");
        }
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(server.asked().line, "GET /v1/agents?limit=1&after=agt_4 HTTP/1.1");
        if json {
            let list: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
            assert_eq!(
                (&list["has_more"], &list["next"]),
                (&json!(true), &json!("agt_5"))
            );
        } else {
            assert_eq!(stderr(&output), "… more: --after agt_5\n");
        }
    }
    let output = run(&["agent", "list", "--limit", "0"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn following_resumes_behind_the_last_event_after_a_lost_connection() {
    let event = |id: &str, kind: &str, content: &str| json!({"event_id": id, "session_id": "ses_1", "type": kind, "content": content, "created_at": 0});
    let idle = ok(&json!({"session_id": "ses_1", "status": "idle"}));
    let newest = |id: &str| ok(&json!({"events": [event(id, "session.status_running", "")]}));
    let server = FakeServer::start(vec![
        newest("evt_1"),
        (200, frames(&[event("evt_1", "session.status_running", "")])),
        ok(&json!({"session_id": "ses_1", "status": "running"})),
        (200, frames(&[event("evt_2", "user.message", "hi")])),
        (
            200,
            frames(&[
                event("evt_3", "agent.message", "hello"),
                event("evt_4", "session.status_idle", ""),
            ]),
        ),
        idle,
        newest("evt_4"),
    ]);
    let output = run(&[
        "session",
        "follow",
        "ses_1",
        "--until-idle",
        "--json",
        "--url",
        &server.url(),
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let ids: Vec<Value> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["event_id"].clone())
        .collect();
    assert_eq!(ids, ["evt_1", "evt_2", "evt_3", "evt_4"]);
    let streams: Vec<Option<String>> = std::iter::repeat_with(|| server.asked())
        .take(7)
        .filter(|asked| asked.line.contains("stream=true"))
        .map(|asked| asked.header("last-event-id").map(str::to_owned))
        .collect();
    assert_eq!(
        streams,
        [None, Some("evt_1".to_owned()), Some("evt_2".to_owned())]
    );
}

#[test]
fn following_a_session_that_has_never_worked_until_it_is_idle_ends_at_once() {
    let server = FakeServer::start(vec![
        ok(&json!({"events": []})),
        ok(&json!({"session_id": "ses_1", "status": "idle"})),
    ]);
    let output = run(&[
        "session",
        "follow",
        "ses_1",
        "--until-idle",
        "--url",
        &server.url(),
    ]);
    assert_eq!(
        (output.status.code(), stdout(&output).as_str()),
        (Some(0), ""),
        "{}",
        stderr(&output)
    );
}

#[test]
fn one_question_writes_the_answer_and_nothing_else_to_standard_output() {
    let event = |id: &str, kind: &str, content: &str, more: Value| {
        let mut event =
            json!({"event_id": id, "session_id": "ses_1", "type": kind, "content": content, "created_at": 0});
        for (name, value) in more.as_object().into_iter().flatten() {
            event[name] = value.clone();
        }
        event
    };
    let none = || json!({});
    let server = FakeServer::start(vec![
        ok(&json!({"agent_id": "agt_1"})),
        ok(&json!({"session_id": "ses_1"})),
        (
            200,
            frames(&[
                event("evt_0", "session.status_idle", "", none()),
                event("evt_1", "user.message", "what?", none()),
                event(
                    "evt_2",
                    "agent.tool_use",
                    "bash",
                    json!({"tool_name": "bash", "tool_call_id": "evt_2", "tool_arguments": {"command": "ls"}}),
                ),
                event(
                    "evt_3",
                    "agent.tool_result",
                    "a.txt",
                    json!({"tool_name": "bash"}),
                ),
                event("evt_4", "agent.message_delta", "one ", none()),
                event("evt_4", "agent.message_delta", "fi", none()),
                event("evt_4", "agent.message", "one file", none()),
                event("evt_5", "session.status_idle", "", none()),
            ]),
        ),
        ok(&json!({"session_id": "ses_1", "session_status": "starting", "queued": false})),
        ok(&json!({"deleted": true})),
        ok(&json!({"deleted": true})),
    ]);
    let output = run(&["chat", "--model", "p/m", "what?", "--url", &server.url()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "one file\n");
    assert_eq!(stderr(&output), "▸ bash ls\n  a.txt\n");
    for line in [
        "POST /v1/agents HTTP/1.1",
        "POST /v1/sessions HTTP/1.1",
        "GET /v1/sessions/ses_1/events?stream=true&deltas=true HTTP/1.1",
        "POST /v1/sessions/ses_1/events HTTP/1.1",
        "DELETE /v1/sessions/ses_1 HTTP/1.1",
        "DELETE /v1/agents/agt_1 HTTP/1.1",
    ] {
        assert_eq!(server.asked().line, line);
    }
}

#[test]
fn an_answer_is_shown_once_whatever_its_pieces_were() {
    let event = |id: &str, kind: &str, content: &str| json!({"event_id": id, "session_id": "ses_1", "type": kind, "content": content, "created_at": 0});
    let delta = |content: &str| event("evt_2", "agent.message_delta", content);
    let note = || event("evt_1", "agent.error", "trying again");
    for (pieces, shown) in [
        (vec![], "the answer\n"),
        (vec![delta("the "), delta("answer")], "the answer\n"),
        (vec![delta("the "), delta("ans")], "the answer\n"),
        // A slow reader misses pieces in the middle.
        (vec![delta("the "), delta("wer")], "the wer\nthe answer\n"),
        // Something else comes between.
        (vec![delta("the "), note(), delta("answer")], "the \nanswer\n"),
        // The pieces of an attempt that failed.
        (
            vec![event("evt_0", "agent.message_delta", "lost")],
            "lost\nthe answer\n",
        ),
    ] {
        let mut stream = vec![event("evt_0", "user.message", "what?")];
        stream.extend(pieces);
        stream.extend([
            event("evt_2", "agent.message", "the answer"),
            event("evt_3", "session.status_idle", ""),
        ]);
        let server = FakeServer::start(vec![
            ok(&json!({"session_id": "ses_1"})),
            ok(&json!({"events": []})),
            (200, frames(&stream)),
            ok(&json!({"event_id": "evt_0", "queued": false})),
        ]);
        let output = run(&["chat", "--session", "ses_1", "what?", "--url", &server.url()]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(stdout(&output), shown);
    }
}

#[test]
fn a_turn_that_fails_is_a_failed_command() {
    let event = |id: &str, kind: &str, content: &str| json!({"event_id": id, "session_id": "ses_1", "type": kind, "content": content, "created_at": 0});
    let server = FakeServer::start(vec![
        ok(&json!({"session_id": "ses_1"})),
        ok(&json!({"events": []})),
        (
            200,
            frames(&[
                event("evt_1", "user.message", "what?"),
                event("evt_2", "agent.error", "the key was \u{1b}[31mrefused"),
                event("evt_3", "session.status_failed", ""),
            ]),
        ),
        ok(&json!({"session_id": "ses_1", "session_status": "starting", "queued": false})),
    ]);
    let output = run(&["chat", "--session", "ses_1", "what?", "--url", &server.url()]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
    assert!(
        stderr(&output).contains("the key was \u{fffd}[31mrefused"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn tool_uses_that_ask_are_denied_when_nobody_can_be_asked() {
    let event = |id: &str, kind: &str| {
        json!({"event_id": id, "session_id": "ses_1", "type": kind, "content": "hi", "created_at": 0,
               "approval_id": "evt_2", "tool_name": "bash", "tool_arguments": {"command": "rm -rf /"}})
    };
    for (confirm, result) in [("ask", "deny"), ("deny", "deny"), ("allow", "allow")] {
        let server = FakeServer::start(vec![
            ok(&json!({"session_id": "ses_1"})),
            ok(&json!({"events": []})),
            (
                200,
                frames(&[
                    event("evt_1", "user.message"),
                    event("evt_2", "agent.tool_confirmation_request"),
                    event("evt_3", "session.status_idle"),
                ]),
            ),
            ok(&json!({"queued": false})),
            ok(&json!({"confirmed": true})),
        ]);
        let output = run(&[
            "chat",
            "--session",
            "ses_1",
            "hi",
            "--confirm",
            confirm,
            "--url",
            &server.url(),
        ]);
        assert_eq!(output.status.code(), Some(0), "{confirm}: {}", stderr(&output));
        for _ in 0..4 {
            server.asked();
        }
        let answer = server.asked().body;
        assert_eq!(
            (&answer["toolUseId"], &answer["result"]),
            (&json!("evt_2"), &json!(result)),
            "{confirm}"
        );
    }
}

#[test]
fn answers_that_are_not_this_service_are_named() {
    let server = FakeServer::start(vec![(200, "<html>hello</html>".to_owned())]);
    let output = run(&["models", "--url", &server.url()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("did not answer with JSON"),
        "{}",
        stderr(&output)
    );
}
