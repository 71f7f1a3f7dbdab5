//! One session that does its worst, and others that don't notice (I8).

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::unix::pipe::{OpenOptions, Receiver};

use crate::system::client::{Chat, is_end, said};
use crate::system::{System, soon};

const MODEL: &str = "anthropic/claude-sonnet-4-5";

/// How long a turn of a neighbour may take on a small machine that others are wearing out.
const QUICK: Duration = Duration::from_secs(20);

/// The most of a result that the model is shown, in bytes: its characters are ASCII here.
const MOST_SHOWN: usize = 110_000;

/// A turn with a command, as somebody would notice it.
async fn works(chat: &Chat) {
    let begun = Instant::now();
    let script =
        json!([{"tool": "bash", "input": {"command": "echo $((6 * 7)) > f && cat f"}}, {"text": "done"}]);
    let events = chat.turn(&script).await;
    let result = events
        .iter()
        .find(|event| event["type"] == "agent.tool_result")
        .expect("one");
    assert_eq!(
        (result["content"].as_str().map(str::trim), &result["is_error"]),
        (Some("42"), &json!(false)),
        "{events:?}"
    );
    assert_eq!(said(&events), "done");
    assert!(begun.elapsed() < QUICK, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs_in_one_session_do_not_stop_the_others() {
    let system = System::start_with(|options| {
        options
            .set("OPENCLAW_SANDBOX_MEMORY", "256MiB")
            .set("OPENCLAW_SANDBOX_TMP", "32MiB")
            .set("OPENCLAW_SANDBOX_PROCESSES", "64")
            .set("OPENCLAW_SANDBOX_DISK", "32MiB")
            .set("OPENCLAW_SANDBOX_INODES", "5000")
            .set("OPENCLAW_COMMAND_TIMEOUT_MS", "1500")
            .set("OPENCLAW_COMMAND_OUTPUT", "256KiB")
    })
    .await;
    let neighbour = system.client().session_of(MODEL).await;
    works(&neighbour).await;
    let bomber = system.client().session_of(MODEL).await;
    for bomb in [
        // Processes.
        ":() { : | : & }; :; wait",
        // Memory, in a process and in files.
        "python3 -c 'x = [bytearray(1 << 20) for _ in range(4000)]'",
        "head -c 400M /dev/zero > /tmp/a; head -c 400M /dev/zero > b; head -c 400M /dev/zero > /dev/shm/c",
        // Output.
        "yes",
        // Time on the processors.
        "while true; do :; done & while true; do :; done & while true; do :; done",
        // Files.
        "python3 -c 'import os\nfor n in range(10 ** 7): open(str(n), \"w\").close()'",
        // Commands that don't want to end.
        "trap '' TERM INT HUP; setsid sleep 600 & sleep 600",
    ] {
        let script = json!([{"tool": "bash", "input": {"command": bomb}}, {"text": "survived"}]);
        bomber.play(&script).await;
        let mut frames = bomber.follow().await;
        frames
            .until(|frame| frame["tool_arguments"]["command"] == bomb)
            .await;
        works(&neighbour).await;
        let rest = frames.until(is_end).await;
        assert_eq!(
            rest.last().expect("one")["stop_reason"],
            "end_turn",
            "{bomb}: {rest:?}"
        );
        assert_eq!(said(&rest), "survived", "{bomb}");
        let result = rest
            .iter()
            .find(|event| event["type"] == "agent.tool_result")
            .expect("one");
        let length = result["content"].as_str().expect("text").len();
        assert!(length < MOST_SHOWN, "{bomb}: {length} bytes");
        // The bomber itself gets out of it, too: by what the tool has for ending whatever it left running.
        let script = json!([{"tool": "bash", "input": {"restart": true}}, {"text": "restarted"}]);
        assert_eq!(said(&bomber.turn(&script).await), "restarted", "{bomb}");
        let next = bomber
            .run("rm -rf /workspace/* /tmp/* /dev/shm/*; echo alive")
            .await;
        assert!(
            next["content"].as_str().expect("text").contains("alive"),
            "{bomb}: {next}"
        );
        works(&neighbour).await;
    }
    let begun = Instant::now();
    system.client().delete(&bomber.path("")).await.good();
    assert!(begun.elapsed() < QUICK, "{:?}", begun.elapsed());
    works(&neighbour).await;
    system.stop().await;
}

/// Makes a pipe in a session's workspace, through which its commands say something to the test.
async fn pipe(system: &System, chat: &Chat, name: &str) -> BufReader<Receiver> {
    let made = chat.run(&format!("mkfifo -m 666 {name}")).await;
    assert_eq!(made["is_error"], false, "{made}");
    let path = system
        .data
        .path()
        .join("workspaces")
        .join(&chat.session)
        .join(name);
    // Open for writing as well, so that it is not at its end before a command has opened it.
    let receiver = OpenOptions::new()
        .read_write(true)
        .open_receiver(path)
        .expect("a pipe");
    BufReader::new(receiver)
}

#[tokio::test]
async fn a_cancel_ends_a_whole_tree_of_commands_within_a_second() {
    let system = System::start().await;
    let chat = system.client().session_of(MODEL).await;
    let mut pipe = pipe(&system, &chat, "begun").await;
    for command in [
        "echo it runs > begun; sleep 4711",
        "trap '' TERM INT HUP; sleep 4711 & echo it runs > begun; sleep 4711 & wait",
        "setsid nohup sleep 4711 > /dev/null 2>&1 & echo it runs > begun; sleep 4711",
        "(sleep 4711 | cat | cat) & echo it runs > begun; exec python3 -c 'import time; time.sleep(4711)'",
    ] {
        let script = json!([{"tool": "bash", "input": {"command": command}}, {"text": "never"}]);
        chat.play(&script).await;
        let mut frames = chat.follow().await;
        frames
            .until(|frame| frame["tool_arguments"]["command"] == command)
            .await;
        let mut line = String::new();
        soon("a word of the command", pipe.read_line(&mut line))
            .await
            .expect("readable");
        assert_eq!(line, "it runs\n");
        let begun = Instant::now();
        system
            .client()
            .post(&chat.path("/cancel"), &json!({}))
            .await
            .good();
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "{command}: {:?}",
            begun.elapsed()
        );
        let rest = frames.until(is_end).await;
        let result = rest
            .iter()
            .find(|event| event["type"] == "agent.tool_result")
            .expect("one");
        assert_eq!(result["is_error"], true, "{command}: {result}");
        let seen = chat
            .run("for process in /proc/[0-9]*; do tr '\\0' ' ' < $process/cmdline; echo; done")
            .await;
        let seen = seen["content"].as_str().expect("text");
        assert!(!seen.contains("4711"), "{command}: {seen}");
    }
    system.stop().await;
}
