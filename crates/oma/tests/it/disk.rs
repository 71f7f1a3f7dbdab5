//! A disk that is full or read-only: the server says so, loses nothing, and goes on when there is space again.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use oma_fake_provider::{FakeProvider, Gate, Reply};
use serde_json::{Value, json};

use crate::command_line::{stderr, stdout};
use crate::system::client::{Chat, Client, is_end};
use crate::system::{Data, Options, Server, leftovers, soon};

const MODEL: &str = "anthropic/claude-sonnet-4-5";

/// Room for a database and not much more.
const SMALL: u64 = 24 << 20;

/// Whether file systems can be mounted here. The tests that need one say so when they can't be carried out.
#[expect(
    clippy::print_stderr,
    reason = "a test that is left out must not go unnoticed"
)]
fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("NOT TESTED: only root can make a small file system; see the test with limited files");
    }
    is_root
}

/// Something that takes all space there is.
struct Filler(PathBuf);

impl Filler {
    fn fill(data: &Data) -> Self {
        let path = data.path().join("filler");
        let mut file = File::create(&path).expect("made");
        for size in [64 << 10, 4 << 10, 1] {
            let block = vec![0x5a; size];
            while file.write_all(&block).is_ok() {}
        }
        Self(path)
    }

    fn free(self) {
        std::fs::remove_file(self.0).expect("removed");
    }
}

/// Posts until the disk is full; gives the texts that were accepted.
async fn post_until_refused(client: &Client, chat: &Chat) -> Vec<String> {
    let mut accepted = Vec::new();
    for number in 0..200 {
        let text = format!("{number} {}", "x".repeat(30_000));
        let answer = client
            .post(&chat.path("/events"), &json!({"content": text}))
            .await;
        // The disk may fill up between a call and its place in the audit trail, and the answer then says that.
        if answer.status == 200 || answer.code() == "audit_failed" {
            accepted.push(text);
            continue;
        }
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (507, "disk_full"),
            "{}",
            answer.text()
        );
        return accepted;
    }
    panic!("the disk never filled up");
}

fn texts<'a>(events: &'a [Value], kind: &str) -> Vec<&'a str> {
    let found = events.iter().filter(|event| event["type"] == kind);
    found
        .map(|event| event["content"].as_str().expect("text"))
        .collect()
}

/// Waits until the session is at rest after this message.
async fn settled(chat: &Chat, text: &str) {
    let mut frames = chat.follow().await;
    frames
        .until(|frame| frame["type"] == "user.message" && frame["content"] == text)
        .await;
    frames.until(is_end).await;
}

#[tokio::test]
async fn a_full_disk_is_said_loses_nothing_and_heals() {
    if !is_root() {
        return;
    }
    let provider = FakeProvider::start().await.expect("a free port");
    let data = Data::small(SMALL);
    let options = Options::with(&provider).set("OPENCLAW_SANDBOX_DISK_FLOOR", "1MiB");
    let server = Server::start(&data, &options).await;
    let client = &server.client;
    let chat = client.session_of(MODEL).await;
    let busy = client.session_of(MODEL).await;
    chat.turn(&json!([{"tool": "bash", "input": {"command": "echo kept > kept.txt"}}, {"text": "before"}]))
        .await;
    // One turn is in flight when the disk fills up.
    let gate = Gate::new();
    provider.push(
        Reply::new()
            .text("in flight")
            .gate(&gate)
            .text(&"y".repeat(200_000)),
    );
    busy.post("busy").await;
    soon("the gate", gate.reached()).await;

    let filler = Filler::fill(&data);
    let accepted = post_until_refused(client, &chat).await;
    // Reading still works, and says nothing wrong.
    assert_eq!(client.get("/healthz").await.status, 200);
    let ready = client.get("/readyz").await;
    assert_eq!(
        (ready.status, ready.code().as_str()),
        (507, "disk_full"),
        "{}",
        ready.text()
    );
    assert_eq!(chat.read().await["session_id"], chat.session.as_str());
    assert!(texts(&chat.events().await, "agent.message").contains(&"before"));
    for (path, body) in [
        (
            "/v1/agents",
            json!({"model": MODEL, "instructions": "z".repeat(500_000)}),
        ),
        (
            "/v1/environments",
            json!({"name": "e", "description": "z".repeat(500)}),
        ),
    ] {
        let answer = client.post(path, &body).await;
        assert!(
            answer.status == 200 || (answer.status, answer.code().as_str()) == (507, "disk_full"),
            "{path}: {}",
            answer.text()
        );
    }
    let put = client.put(&chat.file_path("big"), vec![1; 1 << 20]).await;
    assert!(put.status == 507, "{} {}", put.status, put.text());
    assert_eq!(client.get(&chat.file_path("kept.txt")).await.text(), "kept\n");
    gate.open();
    // A second server over a full disk starts, or says what is wrong; nothing is lost by a kill either.
    server.kill().await;
    let second = options
        .command(&data.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    drop(stop_after_first_line(second.expect("runs")));

    filler.free();
    let server = Server::start(&data, &options).await;
    let (chat, busy) = (chat.at(&server.client), busy.at(&server.client));
    settled(&busy, "busy").await;
    assert_eq!(texts(&busy.events().await, "user.message"), ["busy"]);
    assert_eq!(busy.read().await["status"], "idle");
    chat.post("afterwards").await;
    settled(&chat, "afterwards").await;
    let events = chat.events().await;
    let mut expected: Vec<&str> = accepted.iter().map(String::as_str).collect();
    expected.push("afterwards");
    // The first message was the script.
    assert_eq!(texts(&events, "user.message")[1..], expected);
    assert_eq!(server.client.get("/readyz").await.status, 200);
    assert_eq!(
        server.client.get(&chat.file_path("kept.txt")).await.text(),
        "kept\n"
    );
    server
        .client
        .put(&chat.file_path("big"), vec![1; 1 << 20])
        .await
        .good();
    server.terminate().await;
    drop(provider.take_violations());
}

/// Lets a server say one line, ends it, and gives what it said.
fn stop_after_first_line(mut child: std::process::Child) -> String {
    use std::io::{BufRead as _, BufReader};
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("readable");
    // It may have ended by itself.
    let _ = child.kill();
    child.wait().expect("waited for");
    line
}

#[tokio::test]
async fn a_turn_that_meets_a_full_disk_goes_on_when_there_is_space_again() {
    if !is_root() {
        return;
    }
    let provider = FakeProvider::start().await.expect("a free port");
    let data = Data::small(SMALL);
    let options = Options::with(&provider).set("OPENCLAW_SANDBOX_DISK_FLOOR", "1MiB");
    let server = Server::start(&data, &options).await;
    let chat = server.client.session_of(MODEL).await;
    let other = server.client.session_of(MODEL).await;
    let gate = Gate::new();
    let long = "y".repeat(400_000);
    provider.push(
        Reply::new()
            .text("in flight ")
            .gate(&gate)
            .text(&long)
            .chunk(10_000),
    );
    chat.post("busy").await;
    soon("the gate", gate.reached()).await;
    let filler = Filler::fill(&data);
    post_until_refused(&server.client, &other).await;
    // The answer arrives while it can't be written.
    gate.open();
    let told = || {
        data.log()
            .lines()
            .any(|line| line.contains("\"level\":\"error\"") && line.contains("full"))
    };
    let begun = std::time::Instant::now();
    while !told() && begun.elapsed() < crate::system::PATIENCE {
        // The log has no event to wait for: each request gives the server time to say it.
        assert_eq!(server.client.get("/healthz").await.status, 200);
    }
    assert!(told(), "the log says nothing of a full disk");
    filler.free();
    let mut frames = chat.follow().await;
    frames.until(is_end).await;
    let session = chat.read().await;
    assert_eq!(session["status"], "idle", "{session}");
    let answer = session["output"].as_str().expect("an answer");
    assert!(
        answer.contains("busy") || answer.ends_with(&long),
        "{}",
        &answer[..100]
    );
    server.terminate().await;
    drop(provider.take_violations());
}

#[tokio::test]
async fn a_read_only_data_folder_is_said_and_nothing_starts() {
    if !is_root() {
        let data = Data::new();
        std::fs::create_dir(data.path()).expect("made");
        let mut permissions = std::fs::metadata(data.path()).expect("there").permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o500);
        std::fs::set_permissions(data.path(), permissions).expect("set");
        refuses_to_start(&data);
        return;
    }
    let data = Data::small(SMALL);
    // New, and with a database that a server had before.
    data.set_read_only(true);
    refuses_to_start(&data);
    data.set_read_only(false);
    let server = Server::start(&data, &Options::default()).await;
    let agent = server.client.agent(json!({"model": "scripted/echo"})).await;
    server.terminate().await;
    data.set_read_only(true);
    refuses_to_start(&data);
    data.set_read_only(false);
    let server = Server::start(&data, &Options::default()).await;
    assert_eq!(
        server.client.get(&format!("/v1/agents/{agent}")).await.status,
        200
    );
    server.terminate().await;
}

fn refuses_to_start(data: &Data) {
    let output = Options::default().command(&data.path()).output().expect("runs");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
    let last = stderr(&output).lines().last().unwrap_or_default().to_owned();
    let said = last.to_lowercase();
    assert!(
        said.contains("read-only") || said.contains("permission denied"),
        "{last}"
    );
    assert!(
        last.contains(data.path().to_str().expect("text")),
        "it names the folder: {last}"
    );
}

/// A limit on the size of files does what a full disk does, and needs no privileges.
#[tokio::test]
async fn files_that_may_not_grow_are_no_different_from_a_full_disk() {
    let data = Data::new();
    let options = Options::default();
    // A first server makes the database; the second one may not let it grow.
    Server::start(&data, &options).await.terminate().await;
    let inner = options.command(&data.path());
    let mut limited = Command::new("bash");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 1024; exec \"$0\" \"$@\""])
        .arg(inner.get_program())
        .args(inner.get_args())
        .env_clear();
    for (name, value) in inner.get_envs() {
        if let Some(value) = value {
            limited.env(name, value);
        }
    }
    let server = Server::start_command(limited, &data.beside("server.log"), &options).await;
    let chat = server.client.session_of("scripted/echo").await;
    let accepted = post_until_refused(&server.client, &chat).await;
    assert!(!accepted.is_empty());
    assert_eq!(server.client.get("/healthz").await.status, 200);
    assert_eq!(chat.read().await["session_id"], chat.session.as_str());
    server.kill().await;
    let server = Server::start(&data, &options).await;
    let chat = chat.at(&server.client);
    chat.post("afterwards").await;
    settled(&chat, "afterwards").await;
    let events = chat.events().await;
    let mut expected: Vec<&str> = accepted.iter().map(String::as_str).collect();
    expected.push("afterwards");
    assert_eq!(texts(&events, "user.message"), expected);
    assert_eq!(server.client.delete(&chat.path("")).await.status, 200);
    server.terminate().await;
    assert_eq!(leftovers::find(&data.path()), []);
}
