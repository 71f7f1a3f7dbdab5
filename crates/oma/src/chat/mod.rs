//! `oma chat`: a conversation in the terminal, or one question from a script.
//!
//! With a terminal it is a dialogue: answers come piece by piece, tool uses in a line each, Ctrl-C cancels the
//! turn and, again, leaves. With a message as an argument, or one piped in, it is one turn: the answer goes to
//! standard output, everything else to standard error, and the exit code says whether it went well.

mod input;
mod turn;

use std::io::IsTerminal as _;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::chat::input::{Ask, Input, Line};
use crate::chat::turn::Cancel;
use crate::client::{Client, Connection, Request};
use crate::commands::{self, session};
use crate::print::{Failure, Outcome, Output, Style};
use crate::shown::Shown;

/// How long removing the temporary agent may take: whoever leaves does not want to wait.
const TIDY_TIMEOUT: Duration = Duration::from_secs(5);

const HELP: &str = "\
/quit             leave (or Ctrl-D)
/model P/M        use another model from the next message on
/thinking LEVEL   think off, low, medium, high or xhigh from the next message on
/compact          replace the history by a summary
/session          show the session's id
A line that ends with \\ goes on in the next one.";

/// Talk to an agent in the terminal
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("with").required(true).args(["agent", "model", "session"]))]
pub(crate) struct Chat {
    #[command(flatten)]
    connection: Connection,
    /// A message: send it, write the answer and leave; `-` for standard input
    message: Option<String>,
    /// The agent to talk to
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// A model to talk to, as a temporary agent
    #[arg(long, value_name = "PROVIDER/MODEL")]
    model: Option<String>,
    /// A session to go on with
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Instructions for the temporary agent
    #[arg(long, requires = "model")]
    instructions: Option<String>,
    /// How hard the temporary agent's model thinks
    #[arg(long, requires = "model", value_name = "LEVEL", value_parser = ["off", "low", "medium", "high", "xhigh"])]
    thinking: Option<String>,
    /// Keep the temporary agent and its session when leaving
    #[arg(long, requires = "model")]
    keep: bool,
    /// The environment of the new session
    #[arg(long, value_name = "ID", conflicts_with = "session")]
    environment: Option<String>,
    /// What to answer to tool uses that ask; without a terminal `ask` means `deny`
    #[arg(long, value_name = "ANSWER", default_value = "ask")]
    confirm: Confirm,
    /// Show what the model thinks
    #[arg(long)]
    show_thinking: bool,
}

/// What to answer to tool uses that ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Confirm {
    /// Ask the user
    Ask,
    /// Allow all
    Allow,
    /// Deny all
    Deny,
}

/// A conversation under way.
struct Conversation {
    client: Client,
    output: Output,
    session: String,
    /// The last event that was seen.
    cursor: Option<String>,
    /// What the next message overrides.
    overrides: serde_json::Map<String, Value>,
    confirm: Confirm,
    show_thinking: bool,
    /// Where answers to questions come from; `None` without a terminal.
    input: Option<Input>,
    interrupts: Signal,
}

/// What a conversation made for itself and removes when it ends.
#[derive(Default)]
struct Temporary {
    agent: Option<String>,
    session: Option<String>,
}

impl Chat {
    /// Talks.
    ///
    /// # Errors
    /// What the server says, or that the turn failed.
    pub(crate) async fn run(mut self, output: Output) -> Outcome {
        let interactive = self.message.is_none() && std::io::stdin().is_terminal() && !output.json;
        let message = match self.message.take() {
            _ if interactive => None,
            given => Some(commands::message(given.as_deref().unwrap_or("-"))?),
        };
        if message.as_ref().is_some_and(|message| message.trim().is_empty()) {
            return Err(Failure::Usage("the message is empty".to_owned()));
        }
        let client = Client::connect(&self.connection)?;
        let mut temporary = Temporary::default();
        let outcome = self.talk(&client, output, message, &mut temporary).await;
        // What was made is removed however the conversation ended; the first failure is the one to report.
        let removed = tokio::time::timeout(TIDY_TIMEOUT, temporary.remove(&client))
            .await
            .unwrap_or_else(|_| {
                Err(Failure::Other(
                    "the temporary agent could not be removed in time".to_owned(),
                ))
            });
        outcome.and(removed)
    }

    async fn talk(
        &self,
        client: &Client,
        output: Output,
        message: Option<String>,
        temporary: &mut Temporary,
    ) -> Outcome {
        let session = self.open(client, temporary).await?;
        let cursor = match &self.session {
            Some(_) => session::latest(client, &session).await?,
            None => None,
        };
        let mut conversation = Conversation {
            client: client.clone(),
            output,
            session,
            cursor,
            overrides: serde_json::Map::new(),
            confirm: self.confirm,
            show_thinking: self.show_thinking,
            input: if message.is_none() {
                Some(Input::start()?)
            } else {
                None
            },
            interrupts: signal(SignalKind::interrupt())?,
        };
        match message {
            Some(message) => conversation.turn(&message).await,
            None => conversation.dialogue(self.model.is_some() && !self.keep).await,
        }
    }

    /// The session to talk in; a new one, of a new agent if need be.
    async fn open(&self, client: &Client, temporary: &mut Temporary) -> Result<String, Failure> {
        if let Some(session) = &self.session {
            let found = client.json(Request::get(&["v1", "sessions", session])).await?;
            return Ok(found["session_id"].as_str().unwrap_or(session).to_owned());
        }
        let agent = match (&self.agent, &self.model) {
            (Some(agent), _) => agent.clone(),
            (None, model) => {
                let mut body = json!({"model": model, "name": "oma chat"});
                if let Some(instructions) = &self.instructions {
                    body["instructions"] = instructions.as_str().into();
                }
                if let Some(thinking) = &self.thinking {
                    body["thinkingLevel"] = thinking.as_str().into();
                }
                let made = client.json(Request::post(&["v1", "agents"], body)).await?;
                let id = id_of(&made, "agent_id")?;
                if !self.keep {
                    temporary.agent = Some(id.clone());
                }
                id
            }
        };
        let made = session::create(client, &agent, self.environment.as_deref()).await?;
        let id = id_of(&made, "session_id")?;
        if temporary.agent.is_some() {
            temporary.session = Some(id.clone());
        }
        Ok(id)
    }
}

fn id_of(made: &Value, field: &str) -> Result<String, Failure> {
    match made[field].as_str() {
        Some(id) => Ok(id.to_owned()),
        None => Err(Failure::Other(format!("the server's answer has no `{field}`"))),
    }
}

impl Temporary {
    async fn remove(self, client: &Client) -> Outcome {
        if let Some(session) = &self.session {
            client.json(Request::delete(&["v1", "sessions", session])).await?;
        }
        if let Some(agent) = &self.agent {
            client.json(Request::delete(&["v1", "agents", agent])).await?;
        }
        Ok(())
    }
}

impl Conversation {
    async fn dialogue(&mut self, temporary: bool) -> Outcome {
        let what = if temporary { "temporary session" } else { "session" };
        let head = format!("{what} {} · /help · Ctrl-C cancels a turn", self.session);
        self.output.remark(Style::Dim, &head)?;
        while let Some(line) = self.read_message().await? {
            let line = line.trim();
            match line
                .split_once(' ')
                .map_or((line, ""), |(word, rest)| (word, rest.trim()))
            {
                ("", _) => {}
                ("/quit" | "/exit", _) => break,
                ("/help", _) => self.output.remark(Style::Dim, HELP)?,
                ("/session", _) => self.output.remark(Style::Dim, &self.session.clone())?,
                ("/model", model) if !model.is_empty() => {
                    self.overrides.insert("model".to_owned(), model.into());
                }
                ("/thinking", level) if !level.is_empty() => {
                    self.overrides.insert("thinkingLevel".to_owned(), level.into());
                }
                ("/compact", _) => self.compact().await?,
                (word, _) if word.starts_with('/') => {
                    self.output
                        .remark(Style::Yellow, "no such command; /help lists them")?;
                }
                _ => match self.turn(line).await {
                    // One turn that went wrong is no reason to leave.
                    Err(failure @ (Failure::Client(_) | Failure::Other(_))) => self.output.failure(&failure),
                    Err(Failure::Told) => {}
                    other => other?,
                },
            }
        }
        if !temporary {
            let again = format!("oma chat --session {}", self.session);
            self.output.remark(Style::Dim, &format!("to go on: {again}"))?;
        }
        Ok(())
    }

    /// A message, which may have several lines; `None` when the user leaves.
    async fn read_message(&mut self) -> Result<Option<String>, Failure> {
        let Some(input) = &mut self.input else {
            return Ok(None);
        };
        let mut message = String::new();
        let mut prompt = "› ";
        loop {
            let line = match input.line(prompt, Ask::Message).await? {
                Line::Text(line) => line,
                // Ctrl-C drops what was typed; on an empty prompt it leaves.
                Line::Interrupted if !message.is_empty() => return Ok(Some(String::new())),
                Line::Interrupted => return Ok(None),
                Line::End => return Ok((!message.is_empty()).then_some(message)),
            };
            match line.strip_suffix('\\') {
                Some(start) => {
                    message.push_str(start);
                    message.push('\n');
                    prompt = "… ";
                }
                None => {
                    message.push_str(&line);
                    return Ok(Some(message));
                }
            }
        }
    }

    async fn compact(&mut self) -> Outcome {
        self.forget_interrupts()?;
        let (client, session) = (self.client.clone(), self.session.clone());
        let path = ["v1", "sessions", &session, "compact"];
        let request = Request::new(reqwest::Method::POST, &path).within(Duration::from_secs(3600));
        let mut answer = std::pin::pin!(client.json(request));
        let mut cancel = Cancel::NotAsked;
        let compacted = loop {
            tokio::select! {
                compacted = answer.as_mut() => break compacted,
                _ = self.interrupts.recv() => self.interrupt(&mut cancel, &mut Shown::default()).await?,
            }
        };
        match compacted {
            Ok(_) => self.output.remark(Style::Dim, "the history is a summary now")?,
            Err(error) => self.output.failure(&error.into()),
        }
        Ok(())
    }

    /// Drops interrupts from before: they meant something that is over.
    fn forget_interrupts(&mut self) -> std::io::Result<()> {
        self.interrupts = signal(SignalKind::interrupt())?;
        Ok(())
    }
}
