//! Checkpoints in a bucket of a real store.

use serde_json::{Value, json};

use super::relay::Relay;
use super::store::{PREFIX, Store};
use super::{MODEL, archives, id, restore, save, text};
use crate::command_line::oma;
use crate::system::client::{Answer, Chat};
use crate::system::{Data, System, soon};

fn key(checkpoint: &Value) -> String {
    format!("{PREFIX}/{}", id(checkpoint))
}

async fn try_save(chat: &Chat) -> Answer {
    chat.client.post(&chat.path("/checkpoints"), &json!({})).await
}

async fn delete(chat: &Chat, checkpoint: &Value) {
    let path = chat.path(&format!("/checkpoints/{}", id(checkpoint)));
    chat.client.delete(&path).await.good();
}

/// The names of what the data folder has of archives.
fn files(data: &Data) -> Vec<String> {
    let entries = std::fs::read_dir(data.path().join("checkpoints")).expect("readable");
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("readable").file_name().into_string();
    entries.map(|entry| name(entry).expect("text")).collect()
}

fn assert_unavailable(answer: &Answer, reason: &str) {
    let found = (answer.status, &*answer.code());
    assert_eq!(found, (503, "checkpoint_store_unavailable"), "{}", answer.text());
    assert_eq!(answer.header("retry-after"), Some("30"));
    assert!(answer.text().contains(reason), "{}", answer.text());
}

#[tokio::test]
async fn a_bucket_keeps_workspaces_over_restarts() {
    let Some(mut store) = Store::start().await else {
        return;
    };
    let endpoint = store.endpoint();
    let system = System::start_with(|options| store.options(options, &endpoint)).await;
    let client = system.client();
    let chat = client.session_of(MODEL).await;
    chat.run("mkdir d && echo one > d/f && ln -s f d/l").await;
    let small = save(&chat).await;
    assert_eq!(store.keys().await, [key(&small)]);
    // What does not get smaller, and goes in parts.
    let made = chat
        .run("head -c 70000000 /dev/urandom > d/big && sha256sum < d/big")
        .await;
    let sum = text(&made).to_owned();
    let big = save(&chat).await;
    assert!(big["size"].as_u64() > Some(64 << 20), "{big}");
    assert_eq!(store.keys().await, [key(&small), key(&big)]);
    assert_eq!(store.uploads().await, [""; 0]);
    assert_eq!(archives(&system.data), 0, "nothing of it stays here");

    let system = system.crash().await;
    let client = system.client();
    let chat = chat.at(client);
    let other = client.session_of(MODEL).await;
    assert_eq!(restore(&other, &id(&big)).await.good(), big);
    assert_eq!(text(&other.run("sha256sum < d/big; rm d/big").await), sum);
    restore(&chat, &id(&small)).await.good();
    assert_eq!(text(&chat.run("cat d/l; ls d").await), "one\nf\nl");
    assert_eq!(archives(&system.data), 0);

    // What is not what was saved changes nothing.
    chat.run("echo two > d/f").await;
    store.flip(&key(&small)).await;
    let damaged = restore(&chat, &id(&small)).await;
    assert_eq!((damaged.status, &*damaged.code()), (500, "checkpoint_damaged"));
    store.take_away(&key(&small)).await;
    let damaged = restore(&chat, &id(&small)).await;
    assert_eq!((damaged.status, &*damaged.code()), (500, "checkpoint_damaged"));
    assert_eq!(text(&chat.run("cat d/f").await), "two");

    // They go with their session, or by themselves.
    let last = save(&other).await;
    client.delete(&chat.path("")).await.good();
    delete(&other, &last).await;
    assert_eq!(store.keys().await, [""; 0]);
    let data = system.stop().await;
    store.assert_secret("the log", &data.log());
}

#[tokio::test]
async fn a_bucket_that_is_away_keeps_nobody() {
    let Some(mut store) = Store::start().await else {
        return;
    };
    let relay = Relay::start(&store.endpoint()).await;
    let system = System::start_with(|options| store.options(options, &relay.url)).await;
    let chat = system.client().session_of(MODEL).await;
    chat.run("echo one > f").await;
    let saved = save(&chat).await;
    chat.run("echo two > f").await;

    relay.open(false);
    assert_unavailable(
        &try_save(&chat).await,
        "the store of checkpoints broke off the connection",
    );
    assert_unavailable(&restore(&chat, &id(&saved)).await, "the store of checkpoints");
    let list = chat.client.get(&chat.path("/checkpoints")).await.good();
    assert_eq!(list, json!({"checkpoints": [saved], "count": 1}));
    assert_eq!(text(&chat.run("cat f").await), "two");
    // Nothing but a word that what was sent was not answered, which stays over restarts: it may come to be there.
    let unanswered = files(&system.data);
    assert!(
        matches!(&*unanswered, [only] if only.starts_with("sent-")),
        "{unanswered:?}"
    );
    // It is gone for clients at once, and for the bucket as soon as that can be told; also over a restart.
    delete(&chat, &saved).await;
    assert_eq!(restore(&chat, &id(&saved)).await.code(), "checkpoint_not_found");
    let system = system.crash().await;
    let chat = chat.at(system.client());
    assert_eq!(text(&chat.run("cat f").await), "two");
    assert_eq!(store.keys().await, [key(&saved)]);
    relay.open(true);
    let again = save(&chat).await;
    delete(&chat, &again).await;
    assert_eq!(store.keys().await, [""; 0]);

    // What a server that dies has sent of a long one is no object, and goes when the next one starts.
    chat.run("head -c 70000000 /dev/urandom > big").await;
    relay.let_through(30_000_000);
    let saving = {
        let chat = chat.at(system.client());
        tokio::spawn(async move {
            let path = chat.path("/checkpoints");
            let request = chat.client.request(reqwest::Method::POST, &path).json(&json!({}));
            crate::system::client::Client::try_send(request).await
        })
    };
    soon("an upload under way", relay.used_up()).await;
    assert_eq!(store.uploads().await.len(), 1);
    relay.let_through(u64::MAX);
    let system = system.crash().await;
    assert!(soon("its end", saving).await.expect("no panic").is_err());
    soon("the upload's end", async {
        while !store.uploads().await.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    })
    .await;
    assert_eq!(store.keys().await, [""; 0]);
    assert_eq!(files(&system.data), unanswered);
    let chat = chat.at(system.client());
    assert_eq!(
        chat.client.get(&chat.path("/checkpoints")).await.good()["count"],
        0
    );
    system.stop().await;
}

#[tokio::test]
async fn a_signature_that_is_refused_is_told_as_such() {
    const SECRET: &str = "canary-s3-secret-5b0e7d";

    let Some(mut store) = Store::start().await else {
        return;
    };
    let endpoint = store.endpoint();
    let system = System::start_with(|options| {
        store
            .options(options, &endpoint)
            .set("OPENCLAW_S3_SECRET_ACCESS_KEY", SECRET)
    })
    .await;
    let chat = system.client().session_of(MODEL).await;
    chat.run("echo one > f").await;
    assert_unavailable(&try_save(&chat).await, "answers 403 (SignatureDoesNotMatch)");
    assert_eq!(text(&chat.run("cat f").await), "one");
    assert_eq!(store.keys().await, [""; 0]);
    let data = system.stop().await;
    store.assert_secret("the log", &data.log());

    // The doctor says it, too, and with the right secret that all is well. It leaves nothing there.
    let folder = tempfile::tempdir().expect("a folder");
    let secret_file = folder.path().join("secret");
    std::fs::write(
        &secret_file,
        store.facts["secret_access_key"].as_str().expect("text"),
    )
    .expect("written");
    let bucket = format!("s3://{}", store.facts["bucket"].as_str().expect("text"));
    for (variable, value, status, said) in [
        (
            "OPENCLAW_S3_SECRET_ACCESS_KEY",
            SECRET,
            "fail",
            "answers 403 (SignatureDoesNotMatch)",
        ),
        (
            "OPENCLAW_S3_SECRET_ACCESS_KEY_FILE",
            secret_file.to_str().expect("text"),
            "ok",
            "can be written",
        ),
    ] {
        let output = oma(&["doctor", "--json", "--data-dir"])
            .arg(folder.path().join("data"))
            .env("OPENCLAW_CHECKPOINTS", &bucket)
            .env("OPENCLAW_S3_ENDPOINT", &endpoint)
            .env(
                "OPENCLAW_S3_REGION",
                store.facts["region"].as_str().expect("text"),
            )
            .env(
                "OPENCLAW_S3_ACCESS_KEY_ID",
                store.facts["access_key_id"].as_str().expect("text"),
            )
            .env(variable, value)
            .output()
            .expect("the binary runs");
        let told = String::from_utf8(output.stdout).expect("text");
        let found: Value = serde_json::from_str(&told).expect("JSON");
        let checks = found["checks"].as_array().expect("a list");
        let check = checks
            .iter()
            .find(|check| check["name"] == "checkpoints")
            .expect("it was looked at");
        assert_eq!(check["status"], status, "{check}");
        assert!(check["detail"].as_str().expect("text").contains(said), "{check}");
        store.assert_secret("what the doctor says", &told);
        assert!(!told.contains(SECRET));
    }
    assert_eq!(store.keys().await, [""; 0]);
}
