//! `oma session`: conversations with agents: open, send, follow, cancel.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::stream::{Follow, Frame};
use crate::client::{Client, Connection, Error, Request, Slice};
use crate::commands::files::Files;
use crate::commands::message;
use crate::print::{Failure, Outcome, Output, Style};
use crate::shown::Shown;
use crate::table::{cell, dollars, fact, facts, list_table, time};
use crate::transcript;

/// How long a compaction may take; the server has its own limit below this.
const COMPACTION: Duration = Duration::from_secs(3600);

/// Open, drive and look at sessions
#[derive(Debug, clap::Args)]
pub(crate) struct Session {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Open a session
    Create {
        /// The agent's id
        agent: String,
        /// The environment's id
        #[arg(long, value_name = "ID")]
        environment: Option<String>,
    },
    /// List sessions, oldest first
    List {
        #[command(flatten)]
        slice: Slice,
        /// Only this agent's
        #[arg(long, value_name = "ID")]
        agent: Option<String>,
    },
    /// Show a session
    Get {
        /// Its id
        id: String,
    },
    /// Remove a session with its log and workspace
    Delete {
        /// Its id
        id: String,
    },
    /// Send a message
    Send(Send),
    /// List a session's events
    Events(Events),
    /// Show a session's events as they come
    Follow(Watch),
    /// Stop what a session does now
    Cancel {
        /// Its id
        id: String,
    },
    /// Replace a session's history by a summary
    Compact {
        /// Its id
        id: String,
    },
    /// Show what commands in a session's sandbox printed
    Logs {
        /// Its id
        id: String,
        /// How many lines, from the end
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        tail: u32,
    },
    /// Allow or deny a tool use that waits for it
    Confirm {
        /// The session's id
        id: String,
        /// The tool use's id
        tool_use: String,
        /// The decision
        #[arg(value_parser = ["allow", "deny"])]
        decision: String,
        /// What the model is told about a denial
        #[arg(long)]
        message: Option<String>,
    },
    /// Look at and change the files of a session's workspace
    #[command(subcommand)]
    Files(Files),
}

#[derive(Debug, clap::Args)]
struct Send {
    /// The session's id
    id: String,
    /// The message, `-` for standard input
    message: String,
    /// A model for this and later messages
    #[arg(long, value_name = "PROVIDER/MODEL")]
    model: Option<String>,
    /// How hard the model thinks from this message on
    #[arg(long, value_name = "LEVEL", value_parser = ["off", "low", "medium", "high", "xhigh"])]
    thinking: Option<String>,
    /// Makes sending the same message again under this key harmless
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Wait until it is done, then write the answer
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, clap::Args)]
struct Events {
    /// The session's id
    id: String,
    #[command(flatten)]
    slice: Slice,
    /// Newest first
    #[arg(long)]
    reverse: bool,
}

#[derive(Debug, clap::Args)]
struct Watch {
    /// The session's id
    id: String,
    /// Begin behind this event; at the first one without it
    #[arg(long, value_name = "EVENT", conflicts_with = "new")]
    after: Option<String>,
    /// Show only what happens from now on
    #[arg(long)]
    new: bool,
    /// Show answers piece by piece as the model writes them
    #[arg(long)]
    deltas: bool,
    /// End when the session is idle
    #[arg(long)]
    until_idle: bool,
}

impl Session {
    /// Carries the command out.
    ///
    /// # Errors
    /// What the server says.
    pub(crate) async fn run(self, output: Output) -> Outcome {
        let client = Client::connect(&self.connection)?;
        match self.action {
            Action::Create { agent, environment } => {
                let session = create(&client, &agent, environment.as_deref()).await?;
                output.result(&session, describe)?;
            }
            Action::List { slice, agent } => {
                let query: Vec<(&str, String)> = agent.into_iter().map(|agent| ("agent_id", agent)).collect();
                let list = client
                    .list(&["v1", "sessions"], "sessions", &query, &slice)
                    .await?;
                output.list(&list, describe_all)?;
            }
            Action::Get { id } => {
                let session = client.json(Request::get(&["v1", "sessions", &id])).await?;
                output.result(&session, describe)?;
            }
            Action::Delete { id } => {
                let deleted = client.json(Request::delete(&["v1", "sessions", &id])).await?;
                output.result(&deleted, |_| format!("deleted {id}"))?;
            }
            Action::Send(send) => send.run(&client, output).await?,
            Action::Events(events) => events.run(&client, output).await?,
            Action::Follow(watch) => watch.run(client, output).await?,
            Action::Cancel { id } => {
                let cancelled = cancel(&client, &id).await?;
                output.result(&cancelled, |_| "cancelled".to_owned())?;
            }
            Action::Compact { id } => {
                let request =
                    Request::new(Method::POST, &["v1", "sessions", &id, "compact"]).within(COMPACTION);
                let compacted = client.json(request).await?;
                output.result(&compacted, |_| "compacted".to_owned())?;
            }
            Action::Logs { id, tail } => {
                let request = Request::get(&["v1", "sessions", &id, "logs"]).query("tail", tail.to_string());
                let logs = client.bytes(request).await?;
                let text = String::from_utf8_lossy(&logs);
                output.result(&json!({"session_id": id, "logs": text}), |_| {
                    crate::print::plain(&text).into_owned()
                })?;
            }
            Action::Confirm {
                id,
                tool_use,
                decision,
                message,
            } => {
                let allow = decision == "allow";
                let confirmed = confirm(&client, &id, &tool_use, allow, message.as_deref()).await?;
                output.result(&confirmed, |_| {
                    if allow { "allowed" } else { "denied" }.to_owned()
                })?;
            }
            Action::Files(files) => files.run(&client, output).await?,
        }
        Ok(())
    }
}

impl Send {
    async fn run(self, client: &Client, output: Output) -> Outcome {
        let message = message(&self.message)?;
        let mut body = json!({"type": "user.message", "content": message});
        if let Some(model) = self.model {
            body["model"] = model.into();
        }
        if let Some(thinking) = self.thinking {
            body["thinkingLevel"] = thinking.into();
        }
        let mut request = Request::post(&["v1", "sessions", &self.id, "events"], body);
        if let Some(key) = &self.idempotency_key {
            request = request.header("idempotency-key", key)?;
        }
        let posted = client.json(request).await?;
        if self.wait {
            return settle(client, &self.id, output).await;
        }
        output.result(&posted, |posted| {
            let queued = posted["queued"] == Value::Bool(true);
            if queued {
                "queued behind other messages"
            } else {
                "accepted"
            }
            .to_owned()
        })?;
        Ok(())
    }
}

impl Events {
    async fn run(self, client: &Client, output: Output) -> Outcome {
        let order = if self.reverse { "desc" } else { "asc" };
        let query = [("order", order.to_owned())];
        let path = ["v1", "sessions", self.id.as_str(), "events"];
        let list = client.list(&path, "events", &query, &self.slice).await?;
        output.list(&list, |list| {
            let lines: Vec<String> = list["events"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|event| {
                    let stamp = output.paint(Style::Dim, &time(event, "created_at"));
                    Some(format!("{stamp}  {}", transcript::render(event, &output)?))
                })
                .collect();
            lines.join("\n")
        })?;
        Ok(())
    }
}

impl Watch {
    async fn run(self, client: Client, output: Output) -> Outcome {
        let id = self.id.as_str();
        let mut newest = None;
        if self.new || self.until_idle {
            newest = latest(&client, id).await?;
        }
        let after = if self.new {
            newest.clone()
        } else {
            self.after.clone()
        };
        if self.until_idle && newest == after && !is_busy(&client, id).await? {
            return Ok(());
        }
        let mut follow = Follow::new(client.clone(), id, after, self.deltas);
        let mut shown = Shown::default();
        loop {
            let frame = match follow.next().await {
                Ok(frame) => frame,
                // The session was deleted: there is nothing left to follow.
                Err(Error::Refused(refusal)) if refusal.status == 404 && shown.any() => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            shown.frame(&frame, output)?;
            if frame.kind == "session.deleted" {
                return Ok(());
            }
            // On the way through the log, an earlier turn's end is not the end.
            let may_be_last = is_settled(&frame) || (frame.id.is_some() && frame.id == newest);
            if self.until_idle && may_be_last && !is_busy(&client, id).await? {
                newest = latest(&client, id).await?;
                if newest == frame.id {
                    return Ok(());
                }
            }
        }
    }
}

/// Opens a session.
///
/// # Errors
/// What the server says.
pub(crate) async fn create(client: &Client, agent: &str, environment: Option<&str>) -> Result<Value, Error> {
    let mut body = json!({"agentId": agent});
    if let Some(environment) = environment {
        body["environmentId"] = environment.into();
    }
    client.json(Request::post(&["v1", "sessions"], body)).await
}

/// Stops what a session does now.
///
/// # Errors
/// What the server says.
pub(crate) async fn cancel(client: &Client, session: &str) -> Result<Value, Error> {
    client
        .json(Request::new(Method::POST, &["v1", "sessions", session, "cancel"]))
        .await
}

/// Answers a tool use that asks.
///
/// # Errors
/// What the server says.
pub(crate) async fn confirm(
    client: &Client,
    session: &str,
    tool_use: &str,
    allow: bool,
    message: Option<&str>,
) -> Result<Value, Error> {
    let result = if allow { "allow" } else { "deny" };
    let mut body = json!({"type": "user.tool_confirmation", "toolUseId": tool_use, "result": result});
    if let Some(message) = message {
        body["denyMessage"] = message.into();
    }
    client
        .json(Request::post(&["v1", "sessions", session, "events"], body))
        .await
}

/// The id of a session's newest event.
///
/// # Errors
/// What the server says.
pub(crate) async fn latest(client: &Client, session: &str) -> Result<Option<String>, Error> {
    let request = Request::get(&["v1", "sessions", session, "events"])
        .query("order", "desc")
        .query("limit", "1");
    let page = client.json(request).await?;
    Ok(page["events"][0]["event_id"].as_str().map(str::to_owned))
}

async fn is_busy(client: &Client, session: &str) -> Result<bool, Error> {
    let session = client.json(Request::get(&["v1", "sessions", session])).await?;
    Ok(matches!(session["status"].as_str(), Some("starting" | "running")))
}

/// Whether a frame says that the session has stopped working.
#[must_use]
pub(crate) fn is_settled(frame: &Frame) -> bool {
    matches!(
        frame.kind.as_str(),
        "session.status_idle" | "session.status_failed"
    )
}

/// Waits until a session has stopped working, then writes its answer.
///
/// # Errors
/// That it failed, with its own words.
pub(crate) async fn settle(client: &Client, id: &str, output: Output) -> Outcome {
    let session = loop {
        // The newest event comes first: what ends the work after this is behind it, so it can't be missed.
        let after = latest(client, id).await?;
        let session = client.json(Request::get(&["v1", "sessions", id])).await?;
        if !matches!(session["status"].as_str(), Some("starting" | "running")) {
            break session;
        }
        let mut follow = Follow::new(client.clone(), id, after, false);
        loop {
            let frame = follow.next().await?;
            if frame.kind == "agent.tool_confirmation_request" {
                let tool_use = frame.data["tool_call_id"]
                    .as_str()
                    .unwrap_or_else(|| frame.text("approval_id"));
                output.remark(
                    Style::Yellow,
                    &format!(
                        "waits for a confirmation: {}\n  oma session confirm {id} {tool_use} allow|deny",
                        transcript::call(&frame.data)
                    ),
                )?;
            }
            if is_settled(&frame) {
                break;
            }
        }
    };
    output.result(&session, |session| {
        crate::print::plain(session["output"].as_str().unwrap_or_default()).into_owned()
    })?;
    if session["status"] == "failed" {
        if output.json {
            return Err(Failure::Told);
        }
        let reason = session["error"].as_str().unwrap_or("the turn failed");
        return Err(Failure::Other(reason.to_owned()));
    }
    Ok(())
}

fn describe_all(list: &Value) -> String {
    list_table(
        list,
        "sessions",
        &["id", "agent", "status", "turns", "cost", "last event"],
        |session| {
            vec![
                cell(session, "session_id"),
                cell(session, "agent_id"),
                cell(session, "status"),
                cell(session, "turns"),
                dollars(session, "cost_usd"),
                time(session, "last_event_at"),
            ]
        },
    )
}

fn describe(session: &Value) -> String {
    let tokens = &session["tokens"];
    facts(&[
        ("id", fact(session, "session_id")),
        ("agent", fact(session, "agent_id")),
        ("environment", fact(session, "environment_id")),
        ("status", fact(session, "status")),
        ("error", fact(session, "error")),
        ("turns", fact(session, "turns")),
        (
            "tokens",
            format!("{} in, {} out", cell(tokens, "input"), cell(tokens, "output")),
        ),
        ("cost", dollars(session, "cost_usd")),
        ("created", time(session, "created_at")),
        ("last event", time(session, "last_event_at")),
        ("output", fact(session, "output")),
    ])
}
