//! Repositories whose host asks for a token.

use reqwest::Method;
use serde_json::{Value, json};

use super::host::{Host, basic, commit, git};
use super::{ask, error, errors, run, session, start};
use crate::command_line::oma;
use crate::system::client::{Chat, Client, is_end};
use crate::system::{Data, Server, System, canary};

const TOKEN: &str = "canary-git-token-83aa";
const NEXT: &str = "canary-git-next-19c4";
const WRONG: &str = "canary-git-wrong-77e0";

/// What every token here looks like as it is sent: `x-access-token:` has a multiple of three bytes.
const AS_SENT: &[u8] = b"Y2FuYXJ5L";

fn given(host: &Host, name: &str, token: &str) -> Value {
    json!({"type": "github_repository", "url": host.url(name), "authorization_token": token})
}

/// Gives the session's first repository another token.
async fn rotate(chat: &Chat, resource: &Value, token: &str) -> Value {
    let path = chat.path(&format!("/resources/{}", resource["id"].as_str().expect("an id")));
    let body = json!({"authorization_token": token});
    ask(&chat.client, Method::POST, &path, Some(&body)).await.good()
}

/// Panics when a token is, as it is sent, in a file of the data folder or the log.
fn absent_as_sent(data: &Data) {
    assert!(
        basic(TOKEN)
            .as_bytes()
            .windows(AS_SENT.len())
            .any(|bytes| bytes == AS_SENT)
    );
    let mut folders = vec![data.path()];
    let mut files = vec![data.beside("server.log")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            match path.symlink_metadata().expect("known").file_type() {
                kind if kind.is_dir() => folders.push(path),
                kind if kind.is_file() => files.push(path),
                _ => {}
            }
        }
    }
    for file in files {
        let bytes = std::fs::read(&file).expect("readable");
        let found = memchr::memmem::find(&bytes, AS_SENT);
        assert_eq!(found, None, "a token is in {}", file.display());
    }
}

/// What the host was sent is this repository's, with this token, and something.
fn only_with(host: &Host, token: &str) {
    let seen = host.take_seen();
    assert!(!seen.is_empty());
    for one in seen {
        assert!(one.path.starts_with("/secret/"), "{one:?}");
        assert_eq!(one.authorization, Some(basic(token)), "{one:?}");
    }
}

#[tokio::test]
async fn git_goes_on_with_a_token_that_the_sandbox_never_has() {
    let host = Host::start("").await;
    host.wants(TOKEN);
    let system = start(&host).await;
    let (chat, resources) = session(system.client(), &json!([given(&host, "secret", TOKEN)])).await;
    assert!(resources[0].get("authorization_token").is_none());

    let search = "cd /workspace/secret; cat README; env; cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n'; \
                  grep -raoE 'canary.{0,20}|Y2FuYXJ5.{0,20}' /workspace /tmp /mnt; git remote -v; git config --list";
    let said = run(&chat, search).await;
    assert!(said.starts_with("second\n"), "{said}");
    assert!(!said.contains("canary") && !said.contains("Y2FuYXJ5"), "{said}");
    only_with(&host, TOKEN);

    // The server goes, the sandbox stays, and so does the way to the host.
    let system = system.crash().await;
    let chat = chat.at(system.client());
    let source = host.source("secret");
    commit(&source, "third");
    let push = "cd /workspace/secret; git pull -q && git log -1 --format=%s; git config user.name A; \
                git config user.email a@example.org; head -c 3000000 /dev/urandom > large; git add .; \
                git commit -q -m mine; git push -q origin HEAD:refs/heads/mine 2>&1; git fetch -q; \
                git branch -r --format='%(refname:short)' | tr '\\n' ' '";
    let said = run(&chat, push).await;
    assert_eq!(
        said.trim(),
        "third\norigin origin/feature/x origin/main origin/mine",
        "{said}"
    );
    assert_eq!(git(&source, &["log", "-1", "--format=%s", "mine"]), "mine");
    only_with(&host, TOKEN);

    // The host takes another one from now on, and soon the session has it.
    host.wants(NEXT);
    let fetch = "cd /workspace/secret; git fetch 2>&1; echo $?";
    let said = run(&chat, fetch).await;
    assert!(said.contains("does not accept the session's token"), "{said}");
    assert!(said.trim().ends_with("128"), "{said}");
    assert!(!said.contains("you sent"), "{said}");
    only_with(&host, TOKEN);
    let rotated = rotate(&chat, &resources[0], NEXT).await;
    assert_eq!(rotated["id"], resources[0]["id"]);
    assert_ne!(rotated["updated_at"], resources[0]["updated_at"]);
    assert!(rotated.get("authorization_token").is_none());
    assert_eq!(run(&chat, fetch).await.trim(), "0");
    only_with(&host, NEXT);
    assert_eq!(errors(&chat).await, []);

    // Another master key, and the token opens still.
    canary::absent_in_sandboxes(&system.data.path(), system.server.pid());
    let System {
        server,
        provider,
        options,
        data,
    } = system;
    server.terminate().await;
    absent_as_sent(&data);
    let rekeyed = oma(&["--json", "vault", "rekey", "--data-dir"])
        .arg(data.path())
        .output()
        .expect("the binary runs");
    assert!(rekeyed.status.success(), "{rekeyed:?}");
    let server = Server::start(&data, &options).await;
    let chat = chat.at(&server.client);
    assert_eq!(run(&chat, fetch).await.trim(), "0");
    only_with(&host, NEXT);

    // Nobody gives an archived session a token, nor reads of one.
    let archived = ask(&chat.client, Method::POST, &chat.path("/archive"), None).await;
    archived.good();
    let path = chat.path(&format!(
        "/resources/{}",
        resources[0]["id"].as_str().expect("an id")
    ));
    let body = json!({"authorization_token": TOKEN});
    assert_eq!(
        ask(&chat.client, Method::POST, &path, Some(&body)).await.status,
        400
    );
    server.terminate().await;
    provider.assert_clean();
    absent_as_sent(&data);
}

#[tokio::test]
async fn a_token_that_is_wrong_can_be_put_right() {
    let other = Host::start("").await;
    let host = Host::start(&format!("http://{}", other.address)).await;
    host.wants(TOKEN);
    let system = start(&host).await;
    let (chat, resources) = session(
        system.client(),
        &json!([
            given(&host, "secret", WRONG),
            given(&host, "gone", TOKEN),
            given(&host, "away", TOKEN),
            given(&host, "moved", TOKEN),
        ]),
    )
    .await;
    let said = run(&chat, "ls /workspace; cat /workspace/moved/README").await;
    assert_eq!(said.trim(), "moved\nsecond");
    let told = [
        error("authentication", host.url("secret")),
        error("not_found", host.url("gone")),
        error("clone", host.url("away")),
    ];
    assert_eq!(errors(&chat).await, told);
    assert!(other.take_seen().is_empty(), "a token went to another host");
    for seen in host.take_seen() {
        let expected = if seen.authorization == Some(basic(WRONG)) {
            "/secret/"
        } else {
            "/"
        };
        assert!(seen.path.starts_with(expected), "{seen:?}");
    }
    // It is not asked again at once.
    run(&chat, "true").await;
    assert_eq!(host.take_seen().len(), 0);
    rotate(&chat, &resources[0], TOKEN).await;
    assert_eq!(run(&chat, "cat /workspace/secret/README").await.trim(), "second");
    // One that has moved on its own host is found there each time.
    assert_eq!(
        run(&chat, "git -C /workspace/moved fetch 2>&1; echo $?")
            .await
            .trim(),
        "0"
    );
    system.stop().await;
}

/// Runs a deployment and gives what its session's first command printed.
async fn said_by_run(client: &Client, deployment: &Value) -> String {
    let path = format!(
        "/v1/deployments/{}/run",
        deployment["id"].as_str().expect("an id")
    );
    let run = ask(client, Method::POST, &path, None).await.good();
    let session = run["session_id"].as_str().expect("a session");
    let mut frames = client.follow(session).await;
    let events = frames.until(is_end).await;
    let result = events.iter().find(|event| event["type"] == "agent.tool_result");
    let result = result.expect("a result");
    result["content"].as_str().expect("text").trim().to_owned()
}

#[tokio::test]
async fn deployments_give_their_sessions_a_token() {
    let host = Host::start("").await;
    host.wants(TOKEN);
    let system = start(&host).await;
    let client = system.client();
    let (chat, _) = session(client, &json!([])).await;
    let opened = ask(client, Method::GET, &chat.path(""), None).await.good();
    let script =
        json!([{"tool": "bash", "input": {"command": "cat /workspace/secret/README"}}, {"text": "ran"}]);
    let content = json!([{"type": "text", "text": format!("script:{script}")}]);
    let body = json!({
        "name": "d",
        "agent": chat.agent,
        "environment_id": opened["environment_id"],
        "initial_events": [{"type": "user.message", "content": content}],
        "resources": [given(&host, "secret", TOKEN)],
    });
    let deployment = ask(client, Method::POST, "/v1/deployments", Some(&body))
        .await
        .good();
    assert_eq!(said_by_run(client, &deployment).await, "second");
    only_with(&host, TOKEN);

    // What was read can be sent back, and the token stays; another one takes its place.
    let path = format!("/v1/deployments/{}", deployment["id"].as_str().expect("an id"));
    let mut back = json!({"resources": deployment["resources"]});
    back["resources"][0]["checkout"] = json!({"type": "branch", "name": "feature/x"});
    let updated = ask(client, Method::POST, &path, Some(&back)).await.good();
    assert_eq!(updated["resources"], back["resources"]);
    assert_eq!(said_by_run(client, &updated).await, "first");
    only_with(&host, TOKEN);
    host.wants(NEXT);
    let next = json!({"resources": [given(&host, "secret", NEXT)]});
    let updated = ask(client, Method::POST, &path, Some(&next)).await.good();
    assert_eq!(said_by_run(client, &updated).await, "second");
    only_with(&host, NEXT);
    let data = system.stop().await;
    absent_as_sent(&data);
}
