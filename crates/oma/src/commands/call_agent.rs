//! `oma call-agent`: has another agent do a task on a session's behalf. For programs in a session's sandbox and for tools
//! that clients run for a session, so it takes everything from the environment and writes one line of JSON.

use std::time::Duration;

use reqwest::Url;
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::client::stream::Follow;
use crate::client::{Client, Request};
use crate::commands::{message, session};
use crate::config::value::Value as _;
use crate::print::{Failure, Outcome, Output, Style};

/// The variable with the parent token.
const TOKEN: &str = "OPENCLAW_ORCHESTRATOR_TOKEN";

/// Has another agent do a task on a session's behalf
///
/// The parent token of the session is taken from OPENCLAW_ORCHESTRATOR_TOKEN. Waits for the answer and writes one line of JSON: `subagent_session_id`, `content` (the agent's last message) and
/// `events_url`.
#[derive(Debug, clap::Args)]
pub(crate) struct CallAgent {
    /// The agent's id
    #[arg(long, value_name = "ID")]
    target: String,
    /// The task, `-` for standard input
    #[arg(long, value_name = "TEXT")]
    task: String,
    /// How long to wait for the answer; the agent works on when that is over
    #[arg(long, value_name = "DURATION", default_value = "1d", value_parser = duration)]
    timeout: Duration,
    /// The server's address
    #[arg(
        long,
        env = "OPENCLAW_ORCHESTRATOR_URL",
        default_value = "http://127.0.0.1:8080"
    )]
    url: Url,
}

fn duration(text: &str) -> Result<Duration, String> {
    Duration::parse(text)
}

/// The parent token: only from the environment, because a command line shows to every process of the machine.
fn token() -> Result<SecretString, Failure> {
    let token = std::env::var(TOKEN).unwrap_or_default();
    match token.trim() {
        "" => Err(Failure::Other(format!(
            "{TOKEN} is not set: it takes a parent token, as POST /v1/sessions/{{id}}/parent_token gives them"
        ))),
        token => Ok(SecretString::from(token.to_owned())),
    }
}

impl CallAgent {
    /// Carries the command out.
    ///
    /// # Errors
    /// What the server says; that the agent failed or did not answer in time.
    pub(crate) async fn run(self, output: Output) -> Outcome {
        match self.call(output).await {
            // Several programs may write to the same place; each says who it is.
            Err(failure) if !output.json && !failure.silent() => {
                let text = format!("oma call-agent: {failure}");
                output.remark(Style::Plain, &crate::print::plain(&text))?;
                Err(Failure::Told)
            }
            outcome => outcome,
        }
    }

    async fn call(self, output: Output) -> Outcome {
        let client = Client::for_parent(self.url, token()?)?;
        let task = message(&self.task)?;
        let opened = session::create(&client, &self.target, None).await?;
        let Some(id) = opened["session_id"].as_str() else {
            return Err(Failure::Other("the server opened no session".into()));
        };
        let waited = tokio::time::timeout(self.timeout, answer(&client, id, &task)).await;
        let Ok(answered) = waited else {
            return Err(Failure::Other(format!(
                "{id} has not answered in time; it works on, see {}",
                events_url(&client, id)
            )));
        };
        let answered = answered?;
        output.json(&json!({
            "subagent_session_id": id,
            "content": answered["output"].as_str().unwrap_or_default(),
            "events_url": events_url(&client, id),
        }))?;
        match answered["stop_reason"].as_str() {
            Some("end_turn" | "max_tokens") => Ok(()),
            reason => {
                let why = answered["error"].as_str().or(reason).unwrap_or("it is idle");
                Err(Failure::Other(format!("{id} did not do its task: {why}")))
            }
        }
    }
}

/// Gives the session its task and waits until it rests, however long it takes to begin.
async fn answer(client: &Client, id: &str, task: &str) -> Result<Value, Failure> {
    let path = ["v1", "sessions", id, "events"];
    client
        .json(Request::post(&path, json!({ "content": task })))
        .await?;
    let mut follow = Follow::new(client.clone(), id, None, false);
    loop {
        let frame = follow.next().await?;
        if session::is_settled(&frame) {
            let read = client.json(Request::get(&["v1", "sessions", id])).await?;
            // While it waits for a confirmation it is not done.
            if !matches!(read["status"].as_str(), Some("starting" | "running")) {
                return Ok(read);
            }
        }
    }
}

fn events_url(client: &Client, id: &str) -> String {
    let base = client.base().as_str().trim_end_matches('/');
    format!("{base}/v1/sessions/{id}/events")
}
