//! What a stop in order leaves behind: nothing that nobody needs.

use std::fs;

use oma_fake_provider::{Reply, Step};
use serde_json::{Value, json};

use crate::system::client::is_end;
use crate::system::{Data, Server, System, leftovers, soon};

const MODEL: &str = "anthropic/claude-sonnet-4-5";

/// The sessions whose sandboxes are there.
fn sandboxes(data: &Data) -> Vec<String> {
    let entries = fs::read_dir(data.path().join("sandboxes")).expect("readable");
    entries
        .map(|entry| entry.expect("readable").file_name().display().to_string())
        .collect()
}

fn text(result: &Value) -> &str {
    result["content"].as_str().expect("text")
}

#[tokio::test]
async fn idle_sandboxes_end_and_those_with_work_stay() {
    let system = System::start().await;
    let client = system.client();
    let (idle, other) = (client.session_of(MODEL).await, client.session_of(MODEL).await);
    idle.run("echo kept > file").await;
    other.run("true").await;
    let at_work = client.session_of(MODEL).await;
    at_work.run("sleep 1000 >/dev/null 2>&1 & echo $! > pid").await;
    let System {
        server,
        provider,
        options,
        data,
    } = system;
    server.terminate().await;
    assert_eq!(sandboxes(&data), std::slice::from_ref(&at_work.session));
    assert!(!leftovers::processes(&data.path()).is_empty());

    let server = Server::start(&data, &options).await;
    let (idle, at_work) = (idle.at(&server.client), at_work.at(&server.client));
    assert_eq!(text(&idle.run("cat file").await).trim(), "kept");
    let ended = at_work
        .run("kill $(cat pid) && wait $(cat pid); echo ended $?")
        .await;
    assert!(
        text(&ended).contains("ended 143"),
        "the command was there: {ended}"
    );
    server.terminate().await;
    provider.assert_clean();
    assert_eq!(leftovers::processes(&data.path()), Vec::<i32>::new());
    assert_eq!(leftovers::groups(&data.path()), Vec::<std::path::PathBuf>::new());
    assert_eq!(sandboxes(&data), Vec::<String>::new());
    let workspaces = fs::read_dir(data.path().join("workspaces")).expect("readable");
    assert_eq!(workspaces.count(), 3, "the workspaces stay");
}

#[tokio::test]
async fn a_turn_that_goes_on_finds_its_shell_as_it_left_it() {
    let system = System::start_with(|options| options.set("OPENCLAW_DRAIN_TIMEOUT_MS", "100")).await;
    let chat = system.client().session_of(MODEL).await;
    let set = json!({"command": "MARK=remembered"});
    system.provider.push(Reply::new().tool("bash", set));
    system.provider.push(Reply::new().step(Step::Stall));
    let show = json!({"command": "echo $MARK"});
    system.provider.push(Reply::new().tool("bash", show));
    system.provider.push(Reply::new().text("done"));
    chat.post("go").await;
    soon("the second request", system.provider.wait_for_requests(2)).await;
    let System {
        server,
        provider,
        options,
        data,
    } = system;
    server.terminate().await;
    let server = Server::start(&data, &options).await;
    let chat = chat.at(&server.client);
    let mut frames = chat.follow().await;
    let events = frames.until(is_end).await;
    let last = events.iter().rfind(|event| event["type"] == "agent.tool_result");
    assert_eq!(text(last.expect("a result")).trim(), "remembered", "{events:?}");
    server.terminate().await;
    provider.assert_clean();
    assert_eq!(leftovers::processes(&data.path()), Vec::<i32>::new());
}
