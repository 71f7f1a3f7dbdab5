//! `oma chat` as people use it: the real binary in a terminal, and in a pipe.

use std::process::{Command, Stdio};

use oma_fake_provider::{Gate, Reply, Step};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::command_line::{oma, stderr, stdout};
use crate::system::client::is_end;
use crate::system::pty::{CTRL_C, CTRL_D, Terminal};
use crate::system::{System, soon};

const MODEL: &str = "anthropic/claude-sonnet-4-5";
const PROMPT: &str = "› ";
const CANCELLING: &str = "cancelling; Ctrl-C again leaves";

/// A command line of a system.
fn command(system: &System, arguments: &[&str]) -> Command {
    let mut command = oma(arguments);
    command.env("OPENCLAW_URL", system.client().url());
    command
}

/// A dialogue with an agent, at its first prompt.
async fn dialogue(system: &System, agent: &str) -> Terminal {
    let mut terminal = Terminal::run(&command(system, &["chat", "--agent", agent]));
    terminal.until("Ctrl-C cancels a turn").await;
    terminal.until(PROMPT).await;
    terminal
}

/// The events of the only session there is.
async fn events(system: &System) -> Vec<Value> {
    let list = system.client().get("/v1/sessions").await.good();
    assert_eq!(list["count"], 1, "{list}");
    let session = list["sessions"][0]["session_id"].as_str().expect("an id");
    system.client().events(session).await
}

/// Why the last turn ended.
async fn last_stop(system: &System) -> Value {
    let events = events(system).await;
    let last = events.iter().rfind(|event| is_end(event)).expect("a turn");
    last["stop_reason"].clone()
}

#[tokio::test]
async fn answers_come_piece_by_piece_and_tools_are_shown() {
    let system = System::start().await;
    let agent = system.client().agent(json!({"model": MODEL})).await;
    let mut terminal = dialogue(&system, &agent).await;
    let gate = Gate::new();
    system.provider.push(
        Reply::new()
            .thinking("Nobody asked for this.")
            .text("Before the gate")
            .gate(&gate)
            .text("and after it"),
    );
    terminal.enter("hello");
    terminal.until("Before the gate").await;
    assert!(!terminal.shown().contains("after it"));
    gate.open();
    terminal.until("and after it\n").await;
    terminal.until(PROMPT).await;

    let command = "echo $((6 * 7)); seq 10";
    system.provider.push(
        Reply::new()
            .text("Let me count.")
            .tool("bash", json!({"command": command})),
    );
    system.provider.push(Reply::new().text("It is 42."));
    terminal.enter("count");
    for shown in [
        "Let me count.\n",
        &format!("▸ bash {command}\n"),
        "  42\n  1\n",
        "more lines\n",
        "It is 42.\n",
        PROMPT,
    ] {
        terminal.until(shown).await;
    }

    // A message of two lines, and one that is given up.
    terminal.enter("first line \\");
    terminal.until("… ").await;
    terminal.enter("second line");
    terminal.until("first line \nsecond line\n").await;
    terminal.until(PROMPT).await;
    terminal.enter("never mind \\");
    terminal.until("… ").await;
    terminal.press(CTRL_C);
    terminal.until(PROMPT).await;

    // What the provider refuses is said, and is no reason to leave.
    system
        .provider
        .push(Reply::failure(400, "invalid_request_error", "no such thing"));
    terminal.enter("fail");
    terminal.until("no such thing").await;
    terminal.until(PROMPT).await;

    terminal.press(CTRL_D);
    let (status, shown) = terminal.ended().await;
    assert_eq!(status.code(), Some(0), "{shown}");
    assert!(shown.contains("to go on: oma chat --session ses_"), "{shown}");
    for once in ["Before the gate", "and after it", "Let me count.", "It is 42."] {
        assert_eq!(shown.matches(once).count(), 1, "{once} in {shown}");
    }
    assert!(!shown.contains("Nobody asked"), "{shown}");
    assert_eq!(
        shown.matches("no such thing").count(),
        1,
        "an error is said once: {shown}"
    );
    let messages: Vec<Value> = events(&system)
        .await
        .iter()
        .filter(|event| event["type"] == "user.message")
        .map(|event| event["content"].clone())
        .collect();
    assert_eq!(
        messages,
        ["hello", "count", "first line \nsecond line", "fail"],
        "what was given up is not sent"
    );
    system.stop().await;
}

#[tokio::test]
async fn ctrl_c_cancels_a_turn_and_leaves_at_the_prompt() {
    let system = System::start().await;
    let agent = system.client().agent(json!({"model": MODEL})).await;
    let mut terminal = dialogue(&system, &agent).await;
    // While the model speaks.
    system
        .provider
        .push(Reply::new().text("A beginning").step(Step::Stall));
    terminal.enter("speak");
    terminal.until("A beginning").await;
    terminal.press(CTRL_C);
    terminal.until(CANCELLING).await;
    terminal.until(PROMPT).await;
    assert_eq!(last_stop(&system).await, "interrupted");
    // While a command runs.
    system
        .provider
        .push(Reply::new().tool("bash", json!({"command": "sleep 600"})));
    terminal.enter("sleep");
    terminal.until("▸ bash sleep 600\n").await;
    terminal.press(CTRL_C);
    terminal.until(CANCELLING).await;
    terminal.until(PROMPT).await;
    assert_eq!(last_stop(&system).await, "interrupted");
    // While the history is summarised.
    let served = system.provider.served();
    system.provider.push(Reply::new().step(Step::Stall));
    terminal.enter("/compact");
    soon(
        "the request for a summary",
        system.provider.wait_for_requests(served + 1),
    )
    .await;
    terminal.press(CTRL_C);
    terminal.until(CANCELLING).await;
    terminal.until(PROMPT).await;
    // None of that reaches the next turn.
    system.provider.push(Reply::new().text("Still here."));
    terminal.enter("still there?");
    terminal.until("Still here.\n").await;
    terminal.until(PROMPT).await;
    assert_eq!(last_stop(&system).await, "end_turn");
    system.provider.push(Reply::new().text("A summary."));
    terminal.enter("/compact");
    terminal.until("the history is a summary now\n").await;
    terminal.until(PROMPT).await;

    terminal.press(CTRL_C);
    let (status, shown) = terminal.ended().await;
    assert_eq!(status.code(), Some(0), "{shown}");
    assert_eq!(shown.matches("A beginning").count(), 1, "{shown}");
    system.stop().await;
}

#[tokio::test]
async fn a_second_ctrl_c_leaves_though_the_server_does_not_answer() {
    // The turn is not cancelled then, so that the server's stop has to cut it off.
    let system = System::start_with(|options| options.set("OPENCLAW_DRAIN_TIMEOUT_MS", "200")).await;
    let agent = system.client().agent(json!({"model": MODEL})).await;
    let mut terminal = dialogue(&system, &agent).await;
    system
        .provider
        .push(Reply::new().text("A beginning").step(Step::Stall));
    terminal.enter("speak");
    terminal.until("A beginning").await;
    let server = Pid::from_raw(system.server.pid()).expect("a pid");
    kill_process(server, Signal::STOP).expect("it is there");
    terminal.press(CTRL_C);
    terminal.until(CANCELLING).await;
    terminal.press(CTRL_C);
    let (status, shown) = terminal.ended().await;
    assert_eq!(status.code(), Some(130), "{shown}");
    kill_process(server, Signal::CONT).expect("it is there");
    system.stop().await;
}

#[tokio::test]
async fn tool_uses_that_ask_are_asked_about() {
    let system = System::start().await;
    let agent = system
        .client()
        .agent(json!({"model": MODEL, "permissionPolicy": {"type": "always_ask", "tools": ["bash"]}}))
        .await;
    let mut terminal = dialogue(&system, &agent).await;
    let use_tool = |answer: &str| {
        system
            .provider
            .push(Reply::new().tool("bash", json!({"command": "echo $((6 * 7))"})));
        system.provider.push(Reply::new().text(answer));
    };
    let question = "allow bash echo $((6 * 7))? [y]es [n]o [a]ll ";
    for (answers, outcome) in [
        // What is no answer is asked again.
        (&["perhaps", "n"][..], "Denied, then."),
        (&["y"], "Once, then."),
        (&["a"], "Always, then."),
    ] {
        use_tool(outcome);
        terminal.enter("do it");
        for answer in answers {
            terminal.until(question).await;
            terminal.enter(answer);
        }
        terminal.until(outcome).await;
        terminal.until(PROMPT).await;
    }
    use_tool("Without a question.");
    terminal.enter("again");
    terminal.until("Without a question.").await;
    terminal.until(PROMPT).await;
    terminal.enter("/quit");
    let (status, shown) = terminal.ended().await;
    assert_eq!(status.code(), Some(0), "{shown}");
    let results: Vec<bool> = events(&system)
        .await
        .iter()
        .filter(|event| event["type"] == "agent.tool_result")
        .map(|event| event["is_error"].as_bool().expect("a flag"))
        .collect();
    assert_eq!(results, [true, false, false, false]);

    // The next dialogue asks again. A question that is answered with Ctrl-C cancels the turn.
    let session = system.client().get("/v1/sessions").await.good()["sessions"][0]["session_id"].clone();
    let session = session.as_str().expect("an id");
    let mut terminal = Terminal::run(&command(&system, &["chat", "--session", session]));
    terminal.until(PROMPT).await;
    system
        .provider
        .push(Reply::new().tool("bash", json!({"command": "echo $((6 * 7))"})));
    terminal.enter("once more");
    terminal.until(question).await;
    terminal.press(CTRL_C);
    terminal.until(CANCELLING).await;
    terminal.until(PROMPT).await;
    assert_eq!(last_stop(&system).await, "interrupted");
    terminal.press(CTRL_D);
    assert_eq!(terminal.ended().await.0.code(), Some(0));
    system.stop().await;
}

#[tokio::test]
async fn a_temporary_session_is_gone_after_the_dialogue() {
    let system = System::start().await;
    let mut terminal = Terminal::run(&command(&system, &["chat", "--model", MODEL]));
    terminal.until("temporary session").await;
    terminal.until(PROMPT).await;
    terminal.enter("hello there");
    terminal.until("hello there\n").await;
    terminal.until("hello there\n").await;
    terminal.until(PROMPT).await;
    assert_eq!(system.client().get("/v1/sessions").await.good()["count"], 1);
    terminal.press(CTRL_D);
    let (status, shown) = terminal.ended().await;
    assert_eq!(status.code(), Some(0), "{shown}");
    assert_eq!(system.client().get("/v1/sessions").await.good()["count"], 0);
    assert_eq!(system.client().get("/v1/agents").await.good()["count"], 0);
    system.stop().await;
}

#[tokio::test]
async fn what_is_piped_in_is_one_question() {
    let system = System::start().await;
    system.provider.push(
        Reply::new()
            .text("Let me count.")
            .tool("bash", json!({"command": "echo $((6 * 7))"})),
    );
    system.provider.push(Reply::new().text("It is 42."));
    let mut child = tokio::process::Command::from(command(&system, &["chat", "--model", MODEL]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("runs");
    let mut input = child.stdin.take().expect("piped");
    input
        .write_all("How much\nis it? ü\n".as_bytes())
        .await
        .expect("written");
    drop(input);
    let output = soon("the end", child.wait_with_output()).await.expect("ends");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "Let me count.\nIt is 42.\n");
    assert_eq!(stderr(&output), "▸ bash echo $((6 * 7))\n  42\n");
    let asked = system.provider.requests()[0].body["messages"][0]["content"].to_string();
    assert!(asked.contains("How much\\nis it? ü\""), "{asked}");
    // What was made for it is gone.
    assert_eq!(system.client().get("/v1/agents").await.good()["count"], 0);
    system.stop().await;
}

#[tokio::test]
async fn a_question_that_is_interrupted_is_cancelled() {
    let system = System::start().await;
    let agent = system.client().agent(json!({"model": MODEL})).await;
    system
        .provider
        .push(Reply::new().text("A beginning").step(Step::Stall));
    let mut child = tokio::process::Command::from(command(&system, &["chat", "--agent", &agent, "speak"]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("runs");
    let mut said = child.stdout.take().expect("piped");
    let mut piece = [0; "A beginning".len()];
    soon("the first words", said.read_exact(&mut piece))
        .await
        .expect("readable");
    assert_eq!(&piece, b"A beginning");
    let pid = Pid::from_raw(child.id().expect("it runs").cast_signed()).expect("a pid");
    kill_process(pid, Signal::INT).expect("it is there");
    let output = soon("the end", child.wait_with_output()).await.expect("ends");
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains(CANCELLING), "{}", stderr(&output));
    assert_eq!(last_stop(&system).await, "interrupted");
    system.stop().await;
}
