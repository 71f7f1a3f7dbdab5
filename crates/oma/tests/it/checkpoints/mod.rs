//! Saved states of workspaces.

mod bucket;
mod relay;
mod store;

use std::fs;

use oma_fake_provider::{Reply, Step};
use serde_json::{Value, json};

use crate::system::client::{Chat, is_end};
use crate::system::{Data, System, soon};

const MODEL: &str = "anthropic/claude-sonnet-4-5";

fn text(result: &Value) -> &str {
    result["content"].as_str().expect("text").trim()
}

async fn save(chat: &Chat) -> Value {
    chat.client
        .post(&chat.path("/checkpoints"), &json!({}))
        .await
        .good()
}

fn id(checkpoint: &Value) -> String {
    checkpoint["checkpoint_id"].as_str().expect("an id").to_owned()
}

async fn restore(chat: &Chat, checkpoint: &str) -> crate::system::client::Answer {
    let body = json!({ "checkpointId": checkpoint });
    chat.client.post(&chat.path("/restore"), &body).await
}

/// The archives that are there.
fn archives(data: &Data) -> usize {
    fs::read_dir(data.path().join("checkpoints"))
        .expect("readable")
        .count()
}

#[tokio::test]
async fn a_workspace_is_saved_and_put_back_here_or_elsewhere() {
    let system = System::start().await;
    let client = system.client();
    let chat = client.session_of(MODEL).await;
    chat.run("mkdir d && echo one > d/f && ln -s f d/l && ln d/f same && printf '#!/bin/sh\necho ran' > d/x && chmod +x d/x")
        .await;
    let saved = save(&chat).await;
    assert_eq!(saved["session_id"], chat.session.as_str());
    assert_eq!(
        (&saved["entries"], &saved["skipped"]),
        (&json!(5), &json!(0)),
        "{saved}"
    );
    assert_eq!(saved["bytes"], 4 + 18);
    assert_eq!(archives(&system.data), 1);
    let path = chat.path(&format!("/checkpoints/{}", id(&saved)));
    assert_eq!(client.get(&path).await.good(), saved);
    let list = client.get(&chat.path("/checkpoints")).await.good();
    assert_eq!(list, json!({"checkpoints": [saved], "count": 1}));

    chat.run("rm -r d; echo two > same; echo more > other").await;
    assert_eq!(restore(&chat, &id(&saved)).await.good(), saved);
    let look = "cat d/f same d/l; d/x; ls -A; id -un; stat -c %U d d/f; echo more >> d/f";
    let seen = "one\none\none\nran\nd\nsame\nagent\nagent\nagent";
    assert_eq!(text(&chat.run(look).await), seen);
    // A session that has had nothing, and one that is another agent's.
    let other = client.session_of(MODEL).await;
    restore(&other, &id(&saved)).await.good();
    assert_eq!(text(&other.run(look).await), seen);
    let path = other.path(&format!("/checkpoints/{}", id(&saved)));
    assert_eq!(
        client.get(&path).await.code(),
        "checkpoint_not_found",
        "it is not its own"
    );
    assert_eq!(client.delete(&path).await.status, 404);

    // Over a restart, and into a workspace that others have saved meanwhile.
    let again = save(&other).await;
    let system = system.crash().await;
    let client = system.client();
    let (chat, other) = (chat.at(client), other.at(client));
    restore(&chat, &id(&again)).await.good();
    assert_eq!(text(&chat.run("cat d/f").await), "one\nmore");
    // They go with their session, or by themselves.
    client.delete(&other.path("")).await.good();
    assert_eq!(restore(&chat, &id(&again)).await.code(), "checkpoint_not_found");
    let path = chat.path(&format!("/checkpoints/{}", id(&saved)));
    client.delete(&path).await.good();
    assert_eq!(archives(&system.data), 0);
    assert_eq!(client.get(&chat.path("/checkpoints")).await.good()["count"], 0);
    system.stop().await;
}

#[tokio::test]
async fn what_is_in_use_is_neither_saved_nor_replaced() {
    let system = System::start().await;
    let client = system.client();
    let chat = client.session_of(MODEL).await;
    chat.run("echo one > f").await;
    let saved = save(&chat).await;
    // A process in the background.
    chat.run("sleep 1000 >/dev/null 2>&1 & echo $! > pid").await;
    let refused = client.post(&chat.path("/checkpoints"), &json!({})).await;
    assert_eq!((refused.status, &*refused.code()), (409, "session_busy"));
    assert!(text(&chat.run("kill -0 $(cat pid) && echo alive").await).contains("alive"));
    // A turn.
    system
        .provider
        .push(Reply::new().text("a piece").step(Step::Stall));
    let mut frames = soon("a stream", client.try_follow(&chat.session, None, true))
        .await
        .expect("a stream");
    chat.post("stall").await;
    frames.until(|frame| frame["type"] == "agent.message_delta").await;
    for refused in [
        client.post(&chat.path("/checkpoints"), &json!({})).await,
        restore(&chat, &id(&saved)).await,
    ] {
        assert_eq!((refused.status, &*refused.code()), (409, "session_busy"));
    }
    client.post(&chat.path("/cancel"), &json!({})).await.good();
    frames.until(is_end).await;
    // What runs in the background ends where a workspace is replaced.
    let pid = text(&chat.run("cat pid").await).to_owned();
    restore(&chat, &id(&saved)).await.good();
    assert_eq!(text(&chat.run("cat f; ls -A").await), "one\nf");
    let gone = chat.run(&format!("kill -0 {pid} 2>/dev/null || echo gone")).await;
    assert_eq!(text(&gone), "gone");
    system.stop().await;
}

#[tokio::test]
async fn what_is_wrong_changes_nothing() {
    let system = System::start_with(|options| options.set("OPENCLAW_SANDBOX_DISK", "1MiB")).await;
    let client = system.client();
    let chat = client.session_of(MODEL).await;
    chat.run("echo one > f").await;
    let saved = save(&chat).await;
    chat.run("echo two > f").await;
    for (body, status, code) in [
        (json!({}), 400, "invalid_request"),
        (json!({"checkpointId": 1}), 400, "invalid_request"),
        (json!({"checkpointId": "chk_none"}), 404, "checkpoint_not_found"),
        (json!({"checkpointId": "../../etc"}), 404, "checkpoint_not_found"),
    ] {
        let refused = client.post(&chat.path("/restore"), &body).await;
        assert_eq!((refused.status, &*refused.code()), (status, code), "{body}");
    }
    let nobody = client.post("/v1/sessions/ses_none/checkpoints", &json!({})).await;
    assert_eq!(nobody.code(), "session_not_found");
    // An archive that is not what was saved, and one that is gone.
    let archive = system.data.path().join("checkpoints").join(id(&saved));
    let bytes = fs::read(&archive).expect("readable");
    let mut forged = bytes.clone();
    *forged.last_mut().expect("not empty") ^= 1;
    fs::write(&archive, forged).expect("written");
    assert_eq!(restore(&chat, &id(&saved)).await.code(), "checkpoint_damaged");
    fs::remove_file(&archive).expect("removed");
    assert_eq!(restore(&chat, &id(&saved)).await.code(), "checkpoint_damaged");
    assert_eq!(text(&chat.run("cat f").await), "two");
    fs::write(&archive, bytes).expect("written");
    // More than a workspace may have.
    chat.run("truncate -s 2M hole").await;
    let refused = client.post(&chat.path("/checkpoints"), &json!({})).await;
    assert_eq!((refused.status, &*refused.code()), (413, "workspace_too_large"));
    assert_eq!(archives(&system.data), 1, "nothing of it is left");
    assert_eq!(client.get(&chat.path("/checkpoints")).await.good()["count"], 1);
    // What a server has not finished is no checkpoint of the next one.
    fs::write(system.data.path().join("checkpoints/.partial-x"), "half").expect("written");
    let system = system.crash().await;
    assert_eq!(archives(&system.data), 1);
    let chat = chat.at(system.client());
    restore(&chat, &id(&saved)).await.good();
    assert_eq!(text(&chat.run("cat f").await), "one");
    system.stop().await;
}

#[tokio::test]
async fn archives_that_cant_be_removed_keep_no_others() {
    let system = System::start().await;
    let chat = system.client().session_of(MODEL).await;
    chat.run("echo one > f").await;
    let folder = system.data.path().join("checkpoints");
    let mut all = Vec::new();
    // More than are removed at once.
    for _ in 0..12 {
        all.push(id(&save(&chat).await));
    }
    let last = all.pop().expect("one");
    for id in &all {
        let path = folder.join(id);
        fs::remove_file(&path).expect("its archive");
        fs::create_dir(&path).expect("something in its place");
    }
    for id in all.iter().chain([&last]) {
        let path = chat.path(&format!("/checkpoints/{id}"));
        chat.client.delete(&path).await.good();
    }
    assert!(!folder.join(&last).exists());
    assert_eq!(archives(&system.data), all.len());
    system.stop().await;
}
