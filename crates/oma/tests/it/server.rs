//! The server as a process: what it says, what it refuses, how it stops.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::command_line::{oma, stderr, stdout};

/// A running server. Killed when a test gives up on it.
struct Server {
    child: Child,
    facts: Value,
    stdout: BufReader<ChildStdout>,
    log: BufReader<ChildStderr>,
}

/// What a server had said by its end.
struct Ended {
    status: ExitStatus,
    /// What came on standard output after the first line.
    stdout: String,
    log: Vec<Value>,
}

impl Server {
    fn start(data: &Path, adjust: impl FnOnce(&mut Command)) -> Self {
        let mut child = command(data, adjust)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("runs");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("readable");
        if line.is_empty() {
            let mut said = String::new();
            log.read_to_string(&mut said).expect("readable");
            assert!(!line.is_empty(), "the server did not start: {said}");
        }
        let facts = serde_json::from_str(&line).expect("JSON");
        Self {
            child,
            facts,
            stdout,
            log,
        }
    }

    fn url(&self) -> &str {
        self.facts["url"].as_str().expect("a URL")
    }

    /// Runs a client command against it.
    fn client(&self, arguments: &[&str]) -> Command {
        let mut command = oma(arguments);
        command.env("OPENCLAW_URL", self.url());
        command
    }

    /// Runs a client command, which must succeed, and gives its JSON.
    fn ask(&self, arguments: &[&str]) -> Value {
        let output = self.client(arguments).arg("--json").output().expect("runs");
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}",
            stderr(&output)
        );
        serde_json::from_str(stdout(&output).lines().last().unwrap_or("null")).expect("JSON")
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a pid");
        kill_process(pid, signal).expect("it is there");
    }

    /// Reads the log up to a line with this message.
    fn wait_for(&mut self, message: &str) {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(
                self.log.read_line(&mut line).expect("readable"),
                0,
                "the log ended without `{message}`"
            );
            let said: Value = serde_json::from_str(&line).expect("JSON");
            if said["message"] == message {
                return;
            }
        }
    }

    fn end(mut self) -> Ended {
        let (mut rest, mut log) = (String::new(), String::new());
        self.stdout.read_to_string(&mut rest).expect("readable");
        self.log.read_to_string(&mut log).expect("readable");
        let status = self.child.wait().expect("ends");
        let log = log
            .lines()
            .map(|line| serde_json::from_str(line).expect("a line of JSON"))
            .collect();
        Ended {
            status,
            stdout: rest,
            log,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already in every test that went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(data: &Path, adjust: impl FnOnce(&mut Command)) -> Command {
    let mut command = oma(&["--json", "serve", "--sandbox-enforcement", "rlimit", "--data-dir"]);
    command.arg(data).env("OPENCLAW_LISTEN", "127.0.0.1:0");
    adjust(&mut command);
    command
}

#[test]
fn it_says_where_it_listens_and_stops_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    for signal in [Signal::TERM, Signal::INT] {
        let server = Server::start(&data, |_| {});
        assert_eq!(server.facts["pid"], server.child.id());
        assert_eq!(server.facts["data_dir"], json!(data));
        assert_eq!(server.ask(&["health"])["ok"], true);
        server.signal(signal);
        let ended = server.end();
        assert_eq!(ended.status.code(), Some(0), "{:?}", ended.log);
        assert_eq!(ended.stdout, "", "one line of JSON and nothing else");
        let messages: Vec<&str> = ended
            .log
            .iter()
            .filter_map(|line| line["message"].as_str())
            .collect();
        assert!(
            messages.contains(&"serving") && messages.last() == Some(&"stopped"),
            "{messages:?}"
        );
    }
}

#[test]
fn what_was_made_is_there_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), |_| {});
    let made = server.ask(&["agent", "create", "--model", "scripted/echo", "--name", "lasting"]);
    // No farewell.
    server.signal(Signal::KILL);
    assert_eq!(server.end().status.code(), None);
    let server = Server::start(folder.path(), |_| {});
    let found = server.ask(&["agent", "get", made["agent_id"].as_str().expect("an id")]);
    assert_eq!(found, made);
}

#[test]
fn it_refuses_to_start_where_it_can_not_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let running = Server::start(&folder.path().join("busy"), |_| {});
    std::fs::write(folder.path().join("file"), "").expect("written");
    let shared = folder.path().join("shared");
    std::fs::create_dir(&shared).expect("made");
    let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(&shared, mode(0o777)).expect("set");
    std::fs::write(folder.path().join("token"), " \n").expect("written");
    let token = folder.path().join("token").display().to_string();
    for (data, variable, said) in [
        (
            "fresh",
            Some(("OPENCLAW_LISTEN", address.as_str())),
            "server.listen: ",
        ),
        ("busy", None, "another server"),
        ("file", None, "file"),
        ("shared", None, "run `chmod 700 "),
        (
            "fresh",
            Some(("OPENCLAW_API_TOKEN_FILE", token.as_str())),
            "server.api_token_file: ",
        ),
        (
            "fresh",
            Some(("OPENCLAW_PRICE_FILE", "/no/such/prices.toml")),
            "models.price_file: ",
        ),
        (
            "fresh",
            Some(("OPENAI_BASE_URL", "not an address")),
            "models.providers.openai: ",
        ),
        (
            "fresh",
            Some(("OPENCLAW_SEARCH_PROVIDER", "brave")),
            "tools.search_provider: ",
        ),
        (
            "fresh",
            Some(("OPENCLAW_SEARCH_PROVIDER", "searxng")),
            "tools.search_provider: ",
        ),
    ] {
        let output = command(&folder.path().join(data), |command| {
            command.envs(variable);
        })
        .output()
        .expect("runs");
        assert_eq!(output.status.code(), Some(1), "{said}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{said}");
        let last = stderr(&output).lines().last().unwrap_or_default().to_owned();
        let error: Value = serde_json::from_str(&last).expect("JSON");
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|message| message.contains(said)),
            "{said}: {last}"
        );
    }
    let left =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&shared).expect("there").permissions());
    assert_eq!(left & 0o777, 0o777, "it is not the server's to change");
    assert!(std::fs::read_dir(&shared).expect("readable").next().is_none());
    running.signal(Signal::TERM);
    assert_eq!(running.end().status.code(), Some(0));
}

#[test]
fn with_a_token_only_its_bearers_get_in_and_it_is_never_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), |command| {
        command
            .env("OPENCLAW_API_TOKEN", "sesame-open")
            .env("OPENCLAW_LOG_LEVEL", "debug");
    });
    for (token, code) in [
        (None, Some(1)),
        (Some("wrong"), Some(1)),
        (Some("sesame-open"), Some(0)),
    ] {
        let mut client = server.client(&["agent", "list"]);
        if let Some(token) = token {
            client.env("OPENCLAW_API_TOKEN", token);
        }
        let output = client.output().expect("runs");
        assert_eq!(output.status.code(), code, "{token:?}: {}", stderr(&output));
    }
    assert_eq!(server.ask(&["health"])["ok"], true, "health needs no token");
    let facts = server.facts.to_string();
    server.signal(Signal::TERM);
    let ended = server.end();
    assert_eq!(ended.status.code(), Some(0));
    let said = format!("{facts}{:?}", ended.log);
    assert!(!said.contains("sesame-open"));
}

/// An agent whose answer takes long.
fn slow_session(server: &Server) -> String {
    let script = json!([[[{"text": "begun "}, {"delay_ms": 600_000}, {"text": "done"}]]]).to_string();
    let agent = server.ask(&[
        "agent",
        "create",
        "--model",
        "scripted/script",
        "--instructions",
        &script,
    ]);
    let session = server.ask(&["session", "create", agent["agent_id"].as_str().expect("an id")]);
    let session = session["session_id"].as_str().expect("an id").to_owned();
    server.ask(&["session", "send", &session, "go"]);
    session
}

#[test]
fn a_turn_that_does_not_end_in_time_is_left_to_the_next_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), |command| {
        command.env("OPENCLAW_DRAIN_TIMEOUT_MS", "100");
    });
    let session = slow_session(&server);
    server.signal(Signal::TERM);
    let ended = server.end();
    assert_eq!(ended.status.code(), Some(0), "{:?}", ended.log);

    let mut server = Server::start(folder.path(), |_| {});
    server.wait_for("sessions that the last stop cut off go on");
    let found = server.ask(&["session", "get", &session]);
    assert!(
        matches!(found["status"].as_str(), Some("starting" | "running")),
        "{found}"
    );
    server.ask(&["session", "cancel", &session]);
    assert_eq!(server.ask(&["session", "get", &session])["status"], "idle");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = Server::start(folder.path(), |command| {
        command.env("OPENCLAW_DRAIN_TIMEOUT_MS", "3600000");
    });
    slow_session(&server);
    server.signal(Signal::TERM);
    server.wait_for("stopping");
    server.signal(Signal::TERM);
    let ended = server.end();
    assert_eq!(ended.status.code(), Some(1), "{:?}", ended.log);
}

#[test]
fn a_question_is_answered_in_one_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), |_| {});
    let output = server
        .client(&["chat", "--model", "scripted/echo", "hello there"])
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(
        (stdout(&output).as_str(), stderr(&output).as_str()),
        ("hello there\n", "")
    );
    let question = folder.path().join("question");
    std::fs::write(&question, "piped\nin\n").expect("written");
    let output = server
        .client(&["chat", "--model", "scripted/echo"])
        .stdin(std::fs::File::open(&question).expect("there"))
        .output()
        .expect("runs");
    assert_eq!(stdout(&output), "piped\nin\n", "{}", stderr(&output));
    // Nothing of them stays.
    assert_eq!(server.ask(&["session", "list"])["count"], 0);
    assert_eq!(server.ask(&["agent", "list"])["count"], 0);

    let agent = server.ask(&["agent", "create", "--model", "scripted/echo"]);
    let agent = agent["agent_id"].as_str().expect("an id");
    let done = server.ask(&["agent", "run", agent, "work", "--wait"]);
    assert_eq!(
        (&done["status"], &done["output"]),
        (&json!("idle"), &json!("work"))
    );
    let session = done["session_id"].as_str().expect("an id");
    let again = server.ask(&["session", "send", session, "more", "--wait"]);
    assert_eq!(again["output"], "more");
    let events = server.ask(&["session", "events", session]);
    let followed = server
        .client(&["session", "follow", session, "--until-idle", "--json"])
        .output()
        .expect("runs");
    let followed: Vec<Value> = stdout(&followed)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(json!(followed), events["events"]);
}
