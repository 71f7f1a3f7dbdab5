//! Real MCP servers: in the sandbox, and over HTTP beside the server. `scripts/test` installs them.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::system::client::{Chat, is_end, said};
use crate::system::{System, soon};

const MODEL: &str = "anthropic/claude-sonnet-4-5";

/// Where the servers are installed.
fn servers() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/mcp/node_modules");
    let folder = folder.canonicalize().unwrap_or(folder);
    assert!(
        folder.join("@modelcontextprotocol").is_dir(),
        "{} is not there: npm ci --prefix tests/mcp --ignore-scripts",
        folder.display()
    );
    if folder.starts_with("/tmp") {
        return beside_tmp(&folder);
    }
    folder
}

/// A copy outside of `/tmp`, since a sandbox has a `/tmp` of its own.
fn beside_tmp(folder: &Path) -> PathBuf {
    let lock = std::fs::read(folder.join(".package-lock.json")).expect("npm leaves a list");
    let mut hasher = DefaultHasher::new();
    lock.hash(&mut hasher);
    let name = format!("oma-mcp-servers-{:016x}", hasher.finish());
    let caches = PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache");
    std::fs::create_dir_all(&caches).expect("made");
    let copy = caches.join(name);
    if !copy.is_dir() {
        let partial = copy.with_extension(std::process::id().to_string());
        std::fs::create_dir_all(&partial).expect("made");
        let status = std::process::Command::new("cp")
            .arg("-r")
            .arg(folder)
            .arg(&partial)
            .status();
        assert!(status.expect("cp runs").success());
        // Another test may have been faster, with the same content.
        if std::fs::rename(&partial, &copy).is_err() {
            std::fs::remove_dir_all(&partial).expect("removed");
        }
    }
    copy.join("node_modules")
}

fn everything() -> String {
    servers()
        .join("@modelcontextprotocol/server-everything/dist/index.js")
        .display()
        .to_string()
}

fn files() -> String {
    servers()
        .join("@modelcontextprotocol/server-filesystem/dist/index.js")
        .display()
        .to_string()
}

/// A system whose sandboxes can read the servers, and whose server may dial this port of loopback.
async fn start(port: u16) -> System {
    System::start_with(|options| {
        options
            .set("OPENCLAW_SANDBOX_READABLE", &servers().display().to_string())
            .set("OPENCLAW_DIAL_ALLOW", &format!("127.0.0.1:{port}"))
            // These machines are slow when all tests run at once.
            .set("OPENCLAW_MCP_CONNECT_WAIT_MS", "60000")
    })
    .await
}

async fn session(system: &System, mut agent: Value) -> Chat {
    agent["model"] = MODEL.into();
    let client = system.client();
    let agent = client.agent(agent).await;
    let session = client.session(&agent).await;
    Chat {
        client: client.clone(),
        agent,
        session,
    }
}

/// Has one tool used and gives the result's event.
async fn call(chat: &Chat, name: &str, input: Value) -> Value {
    let events = chat
        .turn(&json!([{"tool": name, "input": input}, {"text": "done"}]))
        .await;
    let found = events.iter().find(|event| event["type"] == "agent.tool_result");
    found.unwrap_or_else(|| panic!("no result: {events:?}")).clone()
}

/// The names of the tools that the latest model request offered.
fn offered(system: &System) -> Vec<String> {
    let requests = system.provider.requests();
    let tools = requests.last().expect("a request").body["tools"]
        .as_array()
        .expect("tools")
        .clone();
    tools
        .iter()
        .map(|tool| tool["name"].as_str().expect("a name").to_owned())
        .collect()
}

#[tokio::test]
async fn servers_in_the_sandbox() {
    let system = start(1).await;
    let chat = session(
        &system,
        json!({"mcpServers": {
            "everything": {"command": "node", "args": [everything(), "stdio"], "env": {"OWN": "variable"}},
            "files": {"command": "node", "args": [files(), "/workspace"]},
            "broken": {"command": "no-such-program"},
        }}),
    )
    .await;
    let events = chat
        .turn(&json!([{"tool": "mcp__everything__get-sum", "input": {"a": 2, "b": 40}}, {"text": "sum"}]))
        .await;
    let error = events
        .iter()
        .find(|event| event["type"] == "agent.error")
        .expect("an error");
    assert_eq!(
        (error["error_type"].as_str(), error["retrying"].as_bool()),
        (Some("mcp_connection_failed_error"), Some(true))
    );
    let text = error["content"].as_str().expect("text");
    assert!(
        text.contains("\"broken\"") && text.contains("no-such-program"),
        "{text}"
    );
    let result = events
        .iter()
        .find(|event| event["type"] == "agent.tool_result")
        .expect("a result");
    assert!(
        result["content"].as_str().expect("text").contains("42"),
        "{result}"
    );
    assert_eq!(said(&events), "sum");
    assert!(
        offered(&system).contains(&"mcp__files__write_file".to_owned()),
        "{:?}",
        offered(&system)
    );

    // They share the workspace with everything else, and have nothing of the server's.
    let input = json!({"path": "/workspace/from-mcp.txt", "content": "written by a server"});
    assert_eq!(
        call(&chat, "mcp__files__write_file", input).await["is_error"],
        false
    );
    let file = chat.client.get(&chat.file_path("from-mcp.txt")).await;
    assert_eq!(file.text(), "written by a server");
    let outside = call(
        &chat,
        "mcp__files__read_text_file",
        json!({"path": "/etc/passwd"}),
    )
    .await;
    assert_eq!(outside["is_error"], true, "{outside}");
    let environment = call(&chat, "mcp__everything__get-env", json!({})).await;
    let environment = environment["content"].as_str().expect("text");
    assert!(
        environment.contains("variable") && !environment.contains(crate::system::MODEL_KEY),
        "{environment}"
    );
    // A bad input is the server's to refuse.
    let refused = call(&chat, "mcp__everything__get-sum", json!({"a": "x"})).await;
    assert_eq!(refused["is_error"], true, "{refused}");
    system.stop().await;
}

#[tokio::test]
async fn a_call_in_the_sandbox_over_a_crash_and_a_cancel() {
    let system = start(1).await;
    let servers = json!({"everything": {"command": "node", "args": [everything(), "stdio"]}});
    let chat = session(&system, json!({"mcpServers": servers})).await;
    let long = json!([
        {"tool": "mcp__everything__trigger-long-running-operation", "input": {"duration": 600, "steps": 2}},
        {"text": "went on"}
    ]);
    let is_use = |event: &Value| event["type"] == "agent.tool_use";
    chat.play(&long).await;
    chat.follow().await.until(is_use).await;
    let system = system.crash().await;
    let chat = chat.at(system.client());
    let events = chat.follow().await.until(is_end).await;
    let result = events
        .iter()
        .find(|event| event["type"] == "agent.tool_result")
        .expect("a result");
    let text = result["content"].as_str().expect("text");
    assert!(
        result["is_error"] == true && text.contains("may or may not"),
        "{result}"
    );
    assert_eq!(said(&events), "went on");
    // The server is started anew.
    let echoed = call(&chat, "mcp__everything__echo", json!({"message": "again"})).await;
    assert!(
        echoed["content"].as_str().expect("text").contains("again"),
        "{echoed}"
    );

    let posted = chat.play(&long).await;
    let mut frames = chat.follow().await;
    frames
        .until(|frame| frame["event_id"] == posted["event_id"])
        .await;
    frames.until(is_use).await;
    chat.client.post(&chat.path("/cancel"), &json!({})).await.good();
    let events = frames.until(is_end).await;
    assert!(
        events.iter().any(|event| event["type"] == "agent.tool_result"),
        "{events:?}"
    );
    let echoed = call(&chat, "mcp__everything__echo", json!({"message": "after all"})).await;
    assert!(
        echoed["content"].as_str().expect("text").contains("after all"),
        "{echoed}"
    );
    system.stop().await;
}

/// The reference server over streamable HTTP.
async fn start_http() -> (Child, u16) {
    let port = TcpListener::bind("127.0.0.1:0")
        .expect("a free port")
        .local_addr()
        .expect("an address")
        .port();
    let mut child = Command::new("node")
        .args([everything(), "streamableHttp".to_owned()])
        .env("PORT", port.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("node runs");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let listening = async {
        while let Some(line) = lines.next_line().await.expect("readable") {
            if line.contains("listening") {
                return;
            }
        }
        panic!("the server ended");
    };
    soon("the server's start", listening).await;
    // Read on, so that it never waits for its log to be read.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, port)
}

#[tokio::test]
async fn a_server_over_http_that_goes_away() {
    let (mut server, port) = start_http().await;
    let system = start(port).await;
    let servers = json!({"every": {"url": format!("http://127.0.0.1:{port}/mcp"), "type": "http"}});
    let chat = session(&system, json!({"mcpServers": servers})).await;
    let echoed = call(&chat, "mcp__every__echo", json!({"message": "over HTTP"})).await;
    assert!(
        echoed["content"].as_str().expect("text").contains("over HTTP"),
        "{echoed}"
    );
    let image = call(&chat, "mcp__every__get-tiny-image", json!({})).await;
    assert_eq!(image["is_error"], false, "{image}");
    let shown = system.provider.requests().last().expect("a request").body["messages"].to_string();
    assert!(shown.contains("image/png"), "{shown}");
    let structured = call(
        &chat,
        "mcp__every__get-structured-content",
        json!({"location": "New York"}),
    )
    .await;
    assert!(
        structured["content"]
            .as_str()
            .expect("text")
            .contains("temperature"),
        "{structured}"
    );

    server.kill().await.expect("killed");
    let events = chat
        .turn(&json!([{"tool": "mcp__every__echo", "input": {"message": "x"}}, {"text": "on"}]))
        .await;
    assert_eq!(said(&events), "on");
    let events = [events, chat.turn(&json!([{"text": "and on"}])).await].concat();
    assert!(said(&events).ends_with("and on"));
    let error = events
        .iter()
        .find(|event| event["type"] == "agent.error")
        .expect("an error");
    assert_eq!(error["error_type"], "mcp_connection_failed_error");
    assert!(
        error["content"].as_str().expect("text").contains("\"every\""),
        "{error}"
    );
    system.stop().await;
}

#[tokio::test]
async fn policies_cover_servers_by_name_and_prefix() {
    let (_server, port) = start_http().await;
    let system = start(port).await;
    let servers = json!({"every": {"url": format!("http://127.0.0.1:{port}/mcp")}});
    let denied = json!({"type": "deny", "tools": ["mcp__every__echo"]});
    let chat = session(
        &system,
        json!({"mcpServers": servers, "permissionPolicy": denied}),
    )
    .await;
    let refused = call(&chat, "mcp__every__echo", json!({"message": "x"})).await;
    assert!(
        refused["content"]
            .as_str()
            .expect("text")
            .contains("policy denies"),
        "{refused}"
    );
    let names = offered(&system);
    assert!(
        !names.contains(&"mcp__every__echo".to_owned()) && names.contains(&"mcp__every__get-sum".to_owned())
    );

    let asks = json!({"type": "always_ask", "tools": ["mcp__every"]});
    let chat = session(&system, json!({"mcpServers": servers, "permissionPolicy": asks})).await;
    chat.play(&json!([{"tool": "mcp__every__echo", "input": {"message": "asked"}}, {"text": "done"}]))
        .await;
    let asks = |event: &Value| event["approval_id"].is_string();
    let events = chat.follow().await.until(asks).await;
    let asked = events.last().expect("a question");
    let confirm =
        json!({"type": "user.tool_confirmation", "toolUseId": asked["approval_id"], "result": "allow"});
    let request = chat
        .client
        .request(Method::POST, &chat.path("/events"))
        .json(&confirm);
    chat.client.send(request).await.good();
    let mut frames = chat.follow().await;
    let events = frames.until(|frame| frame["type"] == "agent.tool_result").await;
    let result = events.last().expect("a result");
    assert!(
        result["content"].as_str().expect("text").contains("asked"),
        "{result}"
    );

    // The model is told of these tools by other names than the policy's.
    let long = "customer-relationship-management";
    let servers = json!({long: {"url": format!("http://127.0.0.1:{port}/mcp")}});
    let denied = json!({"type": "deny", "tools": [format!("mcp__{long}__echo")]});
    let chat = session(
        &system,
        json!({"mcpServers": servers, "permissionPolicy": denied}),
    )
    .await;
    let events = chat.turn(&json!([{"text": "what is there"}])).await;
    assert_eq!(said(&events), "what is there");
    let names = offered(&system);
    let shown = names
        .iter()
        .find_map(|name| name.strip_suffix("__get-sum"))
        .expect("the others are offered");
    assert_ne!(shown, format!("mcp__{long}"));
    assert!(!names.contains(&format!("{shown}__echo")), "{names:?}");
    let refused = call(&chat, &format!("{shown}__echo"), json!({"message": "x"})).await;
    assert!(
        refused["content"]
            .as_str()
            .expect("text")
            .contains("policy denies"),
        "{refused}"
    );
    system.stop().await;
}
