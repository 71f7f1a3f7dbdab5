//! Repositories that sessions are given, from a host of the test's own. That tokens show nowhere is what
//! `system::canary` sees to; here it is looked for in the form in which it is sent, too.

mod host;
mod private;
mod skills;

use reqwest::Method;
use serde_json::{Value, json};

use crate::system::System;
use crate::system::client::{Answer, Chat, Client};
use host::{Host, git};

const MODEL: &str = "anthropic/claude-sonnet-4-5";

async fn ask(client: &Client, method: Method, path: &str, body: Option<&Value>) -> Answer {
    let mut request = client
        .request(method, path)
        .header("anthropic-version", "2026-10-21");
    if let Some(body) = body {
        request = request.json(body);
    }
    client.send(request).await
}

async fn create(client: &Client, resources: &Value) -> Answer {
    let agent = json!({"name": "a", "model": MODEL, "tools": [{"type": "agent_toolset_20260401"}]});
    let agent = ask(client, Method::POST, "/v1/agents", Some(&agent)).await.good();
    let environment = json!({"name": format!("e {}", agent["id"])});
    let environment = ask(client, Method::POST, "/v1/environments", Some(&environment)).await;
    let environment = environment.good();
    let body = json!({"agent": agent["id"], "environment_id": environment["id"], "resources": resources});
    ask(client, Method::POST, "/v1/sessions", Some(&body)).await
}

fn chat(client: &Client, session: &Value) -> Chat {
    let id = |value: &Value| value.as_str().expect("an id").to_owned();
    Chat {
        client: client.clone(),
        agent: id(&session["agent"]["id"]),
        session: id(&session["id"]),
    }
}

/// A session that is given these, and its resources as clients read them.
async fn session(client: &Client, resources: &Value) -> (Chat, Vec<Value>) {
    let session = create(client, resources).await.good();
    let resources = session["resources"].as_array().expect("a list").clone();
    (chat(client, &session), resources)
}

async fn run(chat: &Chat, command: &str) -> String {
    let result = chat.run(command).await;
    result["content"].as_str().expect("text").to_owned()
}

/// The kinds and addresses of the errors of repositories that the session's log tells of.
async fn errors(chat: &Chat) -> Vec<(String, String)> {
    let path = format!("{}?limit=1000", chat.path("/events"));
    let events = ask(&chat.client, Method::GET, &path, None).await.good();
    let events = events["data"].as_array().expect("a list").clone();
    let errors = events.iter().filter(|event| event["type"] == "session.error");
    let told = errors.map(|event| {
        let error = &event["error"];
        assert_eq!(error["retry_status"], json!({"type": "retrying"}), "{error}");
        let text = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
        assert!(text("message").contains(&text("repository_url")), "{error}");
        (text("type"), text("repository_url"))
    });
    told.collect()
}

fn error(kind: &str, url: String) -> (String, String) {
    (format!("repository_{kind}_error"), url)
}

async fn start(host: &Host) -> System {
    let allowed = host.address.to_string();
    System::start_with(|options| {
        options
            .set("OPENCLAW_DIAL_ALLOW", &allowed)
            .set("OPENCLAW_LOG_LEVEL", "trace")
    })
    .await
}

#[tokio::test]
async fn public_repositories_are_cloned_and_what_fails_is_told() {
    let other = Host::start("").await;
    let host = Host::start(&format!("http://{}", other.address)).await;
    let system = start(&host).await;
    let client = system.client();
    let source = host.source("tool");
    let (first, loose) = (
        git(&source, &["rev-parse", "feature/x"]),
        git(&source, &["rev-parse", "refs/hidden/loose"]),
    );
    let given = |name: &str, path: &str, checkout: Value| {
        json!({
            "type": "github_repository",
            "url": host.url(name),
            "mount_path": format!("/workspace/{path}"),
            "checkout": checkout,
        })
    };
    let plain = |name: &str| json!({"type": "github_repository", "url": host.url(name)});
    let (chat, resources) = session(
        client,
        &json!([
            plain("tool"),
            given("tool", "by-branch", json!({"type": "branch", "name": "feature/x"})),
            given("tool", "by-commit", json!({"type": "commit", "sha": first})),
            given("tool", "src/loose", json!({"type": "commit", "sha": loose})),
            given("tool", "none", json!({"type": "branch", "name": "no-such-branch"})),
            given("tool", "nothing", json!({"type": "commit", "sha": "0".repeat(40)})),
            plain("secret"),
            plain("closed"),
            plain("gone"),
            plain("away"),
            plain("page"),
            // Its name leads to an address that the operator has not allowed.
            {"type": "github_repository", "url": "https://localhost/a/private"},
        ]),
    )
    .await;
    assert_eq!(resources[0]["mount_path"], "/workspace/tool");
    assert_eq!(resources[0]["url"], host.url("tool"));
    assert_eq!(resources[0]["checkout"], Value::Null);
    assert_eq!(
        resources[1]["checkout"],
        json!({"type": "branch", "name": "feature/x"})
    );

    let look = "cd /workspace; ls -A . src; for d in tool by-branch by-commit src/loose; do \
                git -C $d log --format=%s | tr '\\n' ' '; cat $d/README; \
                git -C $d status --porcelain -b | head -1; git -C $d config remote.origin.url; done; ls -A /tmp";
    let said = run(&chat, look).await;
    let url = host.url("tool");
    for part in [
        ".:\nby-branch\nby-commit\nsrc\ntool\n\nsrc:\nloose\n".to_owned(),
        format!("second first second\n## main...origin/main\n{url}\n"),
        format!("first first\n## feature/x...origin/feature/x\n{url}\n"),
        format!("first first\n## HEAD (no branch)\n{url}\n"),
        format!("loose second first loose\n## HEAD (no branch)\n{url}"),
    ] {
        assert!(said.contains(&part), "{part}\n---\n{said}");
    }
    assert_eq!(
        errors(&chat).await,
        [
            error("checkout", host.url("tool")),
            error("checkout", host.url("tool")),
            error("authentication", host.url("secret")),
            error("forbidden", host.url("closed")),
            error("not_found", host.url("gone")),
            error("clone", host.url("away")),
            error("clone", host.url("page")),
            error("clone", "https://localhost/a/private".to_owned()),
        ]
    );
    assert!(other.take_seen().is_empty(), "a redirect led to another host");
    assert!(host.take_seen().iter().all(|seen| seen.authorization.is_none()));

    // What is there is the session's, also after its sandbox has gone; and git finds its way from the next one, too.
    run(&chat, "rm /workspace/tool/README").await;
    host::commit(&source, "third");
    let system = system.crash().await;
    let chat = chat.at(system.client());
    let said = run(
        &chat,
        "cd /workspace/tool; git status --porcelain; git checkout -q .; git pull -q && git log -1 --format=%s",
    )
    .await;
    assert_eq!(said.trim(), "D README\nthird", "{said}");
    // Only what git itself asks for is answered, and only for the session's own.
    let probe = "way=$(git -C /workspace/tool remote get-url origin); for path in /HEAD /info/refs /objects/info/packs \
                 2/info/refs?service=git-upload-pack /../secret/info/refs?service=git-upload-pack; do \
                 curl -s --path-as-is -o /dev/null -w '%{http_code} ' \"$way$path\"; done";
    assert_eq!(run(&chat, probe).await.trim(), "404 404 404 404 404");
    system.stop().await;
}

#[tokio::test]
async fn what_is_no_repository_for_this_server_is_refused() {
    let system = System::start().await;
    let client = system.client();
    for (fields, expected) in [
        (json!({}), "resources.0.url"),
        (json!({"url": "http://example.org/a"}), "https"),
        (json!({"url": "http://127.0.0.1:9/a"}), "url: "),
        (json!({"url": "https://169.254.169.254/a"}), "url: "),
        (json!({"url": "https://[::1]/a"}), "url: "),
        (json!({"url": "https://user:pass@example.org/a"}), "https://"),
        (json!({"url": "ssh://example.org/a"}), "https://"),
        (json!({"url": "file:///etc"}), "https://"),
        (json!({"url": "https://example.org/a?x"}), "https://"),
        (json!({"url": "https://example.org/"}), "https://"),
        (
            json!({"url": "https://example.org/a", "authorization_token": "canary-a b"}),
            "authorization_token",
        ),
        (
            json!({"url": "https://example.org/a", "authorization_token": ""}),
            "authorization_token",
        ),
        (
            json!({"url": "https://example.org/a", "authorization_token": ["canary-a"]}),
            "authorization_token",
        ),
        (
            json!({"url": "https://example.org/a", "checkout": {"type": "branch", "name": "--upload-pack=x"}}),
            "checkout",
        ),
        (
            json!({"url": "https://example.org/a", "checkout": {"type": "commit", "sha": "HEAD~1234"}}),
            "checkout",
        ),
        (
            json!({"url": "https://example.org/a", "mount_path": "/mnt/skills/a"}),
            "mount_path",
        ),
        (json!({"url": "https://example.org/a", "branch": "x"}), "branch"),
    ] {
        let mut resource = fields.clone();
        resource["type"] = json!("github_repository");
        let answer = create(client, &json!([resource])).await;
        assert_eq!(answer.status, 400, "{fields}");
        assert!(answer.text().contains(expected), "{fields}: {}", answer.text());
    }
    let twice = json!({"type": "github_repository", "url": "https://example.org/a"});
    let answer = create(client, &json!([twice, twice])).await;
    assert_eq!(answer.status, 400);
    assert!(
        answer.text().contains("another resource's path"),
        "{}",
        answer.text()
    );

    // A session that has one keeps it, and gets no other.
    let (chat, resources) = session(client, &json!([twice])).await;
    let path = chat.path("/resources");
    let one = format!("{path}/{}", resources[0]["id"].as_str().expect("an id"));
    assert_eq!(ask(client, Method::GET, &one, None).await.good(), resources[0]);
    for (method, path, body) in [
        (
            Method::POST,
            &path,
            json!({"type": "github_repository", "url": "https://example.org/b"}),
        ),
        (Method::DELETE, &one, Value::Null),
        (Method::POST, &one, json!({})),
        (Method::POST, &one, json!({"authorization_token": null})),
        (
            Method::POST,
            &one,
            json!({"authorization_token": "canary-a", "url": "https://example.org/b"}),
        ),
    ] {
        let answer = ask(client, method.clone(), path, Some(&body)).await;
        assert_eq!(answer.status, 400, "{method} {body}: {}", answer.text());
    }
    let listed = ask(client, Method::GET, &path, None).await.good();
    assert_eq!(listed["data"], json!(resources));
    system.stop().await;
}
