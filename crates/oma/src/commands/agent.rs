//! `oma agent`: who does the work: a model, instructions, tools and limits.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::client::{Client, Connection, Request, Slice};
use crate::commands::session::settle;
use crate::commands::{message, read_object, read_text};
use crate::print::{Failure, Outcome, Output};
use crate::table::{cell, dollars, fact, facts, list_table, time};

/// Create, look at and change agents
#[derive(Debug, clap::Args)]
pub(crate) struct Agent {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Create an agent
    Create(Box<Create>),
    /// List agents, oldest first
    List {
        #[command(flatten)]
        slice: Slice,
    },
    /// Show an agent
    Get {
        /// Its id
        id: String,
    },
    /// Change an agent; this makes a new version of it
    Update(Box<Update>),
    /// List an agent's versions, oldest first
    Versions {
        /// Its id
        id: String,
        #[command(flatten)]
        slice: Slice,
    },
    /// Retire an agent: its sessions go on, new ones are refused
    Archive {
        /// Its id
        id: String,
    },
    /// Remove an agent with its versions; its sessions stay
    Delete {
        /// Its id
        id: String,
    },
    /// Give an agent a task in a new session, or in one of its sessions
    Run(Run),
}

#[derive(Debug, clap::Args)]
struct Create {
    /// The model, PROVIDER/MODEL
    #[arg(long, required_unless_present = "file", value_name = "PROVIDER/MODEL")]
    model: Option<String>,
    #[command(flatten)]
    fields: Fields,
}

#[derive(Debug, clap::Args)]
struct Update {
    /// Its id
    id: String,
    /// The version that the change builds on; the current one without it
    #[arg(long)]
    version: Option<u64>,
    /// The model, PROVIDER/MODEL
    #[arg(long, value_name = "PROVIDER/MODEL")]
    model: Option<String>,
    /// A field to clear: tools, instructions, name, callable-agents, mcp-servers or quota; may be repeated
    #[arg(long = "clear", value_name = "FIELD", value_parser = [
        "tools", "instructions", "name", "callable-agents", "mcp-servers", "quota",
    ])]
    cleared: Vec<String>,
    #[command(flatten)]
    fields: Fields,
}

#[derive(Debug, clap::Args)]
struct Fields {
    /// What the agent is to do and how
    #[arg(long, conflicts_with = "instructions_file")]
    instructions: Option<String>,
    /// A file with the instructions, `-` for standard input
    #[arg(long, value_name = "FILE")]
    instructions_file: Option<PathBuf>,
    /// A name for people
    #[arg(long)]
    name: Option<String>,
    /// A tool that the agent has; may be repeated. It has all of them without this option
    #[arg(long = "tool", value_name = "TOOL")]
    tools: Vec<String>,
    /// How hard the model thinks
    #[arg(long, value_name = "LEVEL", value_parser = ["off", "low", "medium", "high", "xhigh"])]
    thinking: Option<String>,
    /// What tools may do: `always-allow`, `deny:TOOL,...`, `always-ask` or `always-ask:TOOL,...`
    #[arg(long, value_name = "POLICY", value_parser = parse_policy)]
    permission: Option<Value>,
    /// The most that a session may cost, in US dollars
    #[arg(long, value_name = "USD")]
    max_cost: Option<f64>,
    /// The most tokens that a session may use
    #[arg(long, value_name = "TOKENS")]
    max_tokens: Option<u64>,
    /// How long a session may be used, for example 8h
    #[arg(long, value_name = "DURATION", value_parser = crate::config::units::parse_duration)]
    max_age: Option<Duration>,
    /// An agent that this one may delegate to; may be repeated
    #[arg(long = "callable-agent", value_name = "ID")]
    callable_agents: Vec<String>,
    /// How deep delegation may go
    #[arg(long, value_name = "LEVELS")]
    max_subagent_depth: Option<u32>,
    /// A JSON file with the agent's MCP servers by name, `-` for standard input
    #[arg(long, value_name = "FILE")]
    mcp_servers: Option<PathBuf>,
    /// A JSON file with the request's fields, `-` for standard input; other options count more
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Its id
    id: String,
    /// The task, `-` for standard input
    task: String,
    /// One of the agent's sessions; a new one without it
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Wait until it is done, then write the answer
    #[arg(long)]
    wait: bool,
}

fn parse_policy(text: &str) -> Result<Value, String> {
    let (kind, tools) = match text.split_once(':') {
        Some((kind, tools)) => (kind, Some(tools)),
        None => (text, None),
    };
    let tools: Option<Vec<&str>> = tools.map(|tools| {
        tools
            .split(',')
            .map(str::trim)
            .filter(|tool| !tool.is_empty())
            .collect()
    });
    match (kind, tools) {
        ("always-allow", None) => Ok(json!({"type": "always_allow"})),
        ("deny", Some(tools)) if !tools.is_empty() => Ok(json!({"type": "deny", "tools": tools})),
        ("always-ask", None) => Ok(json!({"type": "always_ask"})),
        ("always-ask", Some(tools)) if !tools.is_empty() => Ok(json!({"type": "always_ask", "tools": tools})),
        _ => Err("write always-allow, deny:TOOL,..., always-ask or always-ask:TOOL,...".to_owned()),
    }
}

impl Fields {
    /// The request's fields.
    fn body(self, model: Option<String>) -> Result<Map<String, Value>, Failure> {
        let from_stdin = [&self.instructions_file, &self.mcp_servers, &self.file];
        if from_stdin
            .into_iter()
            .flatten()
            .filter(|path| path.as_os_str() == "-")
            .count()
            > 1
        {
            return Err(Failure::Usage(
                "only one option can read standard input".to_owned(),
            ));
        }
        let mut body = match &self.file {
            Some(path) => read_object(path)?,
            None => Map::new(),
        };
        let instructions = match &self.instructions_file {
            Some(path) => Some(read_text(path)?),
            None => self.instructions,
        };
        let mut quota = Map::new();
        if let Some(cost) = self.max_cost {
            quota.insert("maxCostUsdPerSession".to_owned(), cost.into());
        }
        if let Some(tokens) = self.max_tokens {
            quota.insert("maxTokensPerSession".to_owned(), tokens.into());
        }
        if let Some(age) = self.max_age {
            let millis = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            quota.insert("maxWallDurationMs".to_owned(), millis.into());
        }
        let mcp_servers = match &self.mcp_servers {
            Some(path) => Some(Value::Object(read_object(path)?)),
            None => None,
        };
        let fields = [
            ("model", model.map(Value::from)),
            ("instructions", instructions.map(Value::from)),
            ("name", self.name.map(Value::from)),
            ("tools", non_empty(self.tools)),
            ("thinkingLevel", self.thinking.map(Value::from)),
            ("permissionPolicy", self.permission),
            ("quota", (!quota.is_empty()).then_some(Value::Object(quota))),
            ("callableAgents", non_empty(self.callable_agents)),
            ("maxSubagentDepth", self.max_subagent_depth.map(Value::from)),
            ("mcpServers", mcp_servers),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                body.insert(name.to_owned(), value);
            }
        }
        Ok(body)
    }
}

fn non_empty(list: Vec<String>) -> Option<Value> {
    (!list.is_empty()).then(|| json!(list))
}

impl Agent {
    /// Carries the command out.
    ///
    /// # Errors
    /// What the server says.
    pub(crate) async fn run(self, output: Output) -> Outcome {
        let client = Client::connect(&self.connection)?;
        match self.action {
            Action::Create(create) => {
                let body = create.fields.body(create.model)?;
                let created = client
                    .json(Request::post(&["v1", "agents"], Value::Object(body)))
                    .await?;
                output.result(&created, describe)?;
            }
            Action::List { slice } => {
                let list = client.list(&["v1", "agents"], "agents", &[], &slice).await?;
                output.list(&list, |list| {
                    list_table(
                        list,
                        "agents",
                        &["id", "name", "model", "version", "state", "created"],
                        |agent| {
                            let state = if agent["archived_at"].is_null() {
                                "active"
                            } else {
                                "archived"
                            };
                            vec![
                                cell(agent, "agent_id"),
                                cell(agent, "name"),
                                cell(agent, "model"),
                                cell(agent, "version"),
                                state.to_owned(),
                                time(agent, "created_at"),
                            ]
                        },
                    )
                })?;
            }
            Action::Get { id } => {
                let agent = client.json(Request::get(&["v1", "agents", &id])).await?;
                output.result(&agent, describe)?;
            }
            Action::Update(update) => {
                let changed = update.send(&client).await?;
                output.result(&changed, describe)?;
            }
            Action::Versions { id, slice } => {
                let list = client
                    .list(&["v1", "agents", &id, "versions"], "versions", &[], &slice)
                    .await?;
                output.list(&list, |list| {
                    list_table(
                        list,
                        "versions",
                        &["version", "name", "model", "written"],
                        |agent| {
                            vec![
                                cell(agent, "version"),
                                cell(agent, "name"),
                                cell(agent, "model"),
                                time(agent, "created_at"),
                            ]
                        },
                    )
                })?;
            }
            Action::Archive { id } => {
                let archived = client
                    .json(Request::new(
                        reqwest::Method::POST,
                        &["v1", "agents", &id, "archive"],
                    ))
                    .await?;
                output.result(&archived, |_| format!("archived {id}"))?;
            }
            Action::Delete { id } => {
                let deleted = client.json(Request::delete(&["v1", "agents", &id])).await?;
                output.result(&deleted, |_| format!("deleted {id}"))?;
            }
            Action::Run(run) => run.send(&client, output).await?,
        }
        Ok(())
    }
}

impl Update {
    async fn send(self, client: &Client) -> Result<Value, Failure> {
        let path = ["v1", "agents", self.id.as_str()];
        let mut body = self.fields.body(self.model)?;
        for field in &self.cleared {
            let name = match field.as_str() {
                "callable-agents" => "callableAgents",
                "mcp-servers" => "mcpServers",
                other => other,
            };
            if body.insert(name.to_owned(), Value::Null).is_some() {
                return Err(Failure::Usage(format!("`{field}` can't be both set and cleared")));
            }
        }
        let version = match self.version {
            Some(version) => version.into(),
            None if body.contains_key("version") => Value::Null,
            None => client.json(Request::get(&path)).await?["version"].take(),
        };
        if !version.is_null() {
            body.insert("version".to_owned(), version);
        }
        let request = Request::new(reqwest::Method::PATCH, &path).json(Value::Object(body));
        Ok(client.json(request).await?)
    }
}

impl Run {
    async fn send(self, client: &Client, output: Output) -> Outcome {
        let task = message(&self.task)?;
        let mut body = json!({"task": task});
        if let Some(session) = self.session {
            body["sessionId"] = session.into();
        }
        let started = client
            .json(Request::post(&["v1", "agents", &self.id, "run"], body))
            .await?;
        let Some(session) = started["session_id"].as_str().filter(|_| self.wait) else {
            output.result(&started, |started| {
                facts(&[
                    ("session", fact(started, "session_id")),
                    ("status", fact(started, "status")),
                ])
            })?;
            return Ok(());
        };
        settle(client, session, output).await
    }
}

fn describe(agent: &Value) -> String {
    let quota = &agent["quota"];
    let limits: Vec<String> = [
        ("cost", dollars(quota, "maxCostUsdPerSession")),
        ("tokens", cell(quota, "maxTokensPerSession")),
        (
            "age",
            quota["maxWallDurationMs"].as_u64().map_or_else(
                || "-".to_owned(),
                |millis| crate::config::units::show_duration(Duration::from_millis(millis)),
            ),
        ),
    ]
    .into_iter()
    .filter(|(_, limit)| limit != "-")
    .map(|(name, limit)| format!("{name} {limit}"))
    .collect();
    let archived = if agent["archived_at"].is_null() {
        String::new()
    } else {
        time(agent, "archived_at")
    };
    facts(&[
        ("id", fact(agent, "agent_id")),
        ("name", fact(agent, "name")),
        ("model", fact(agent, "model")),
        ("thinking", fact(agent, "thinking_level")),
        ("tools", fact(agent, "tools")),
        ("permissions", policy_text(&agent["permission_policy"])),
        ("limits", limits.join(", ")),
        ("delegates to", fact(agent, "callable_agents")),
        ("mcp servers", fact(agent, "mcp_servers")),
        ("version", fact(agent, "version")),
        ("created", time(agent, "created_at")),
        ("updated", time(agent, "updated_at")),
        ("archived", archived),
        ("instructions", fact(agent, "instructions")),
    ])
}

/// A policy as `--permission` takes it.
fn policy_text(policy: &Value) -> String {
    let kind = fact(policy, "type").replace('_', "-");
    match fact(policy, "tools").as_str() {
        "" => kind,
        tools => format!("{kind}:{}", tools.replace(", ", ",")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_and_refused() {
        for (text, policy) in [
            ("always-allow", json!({"type": "always_allow"})),
            (
                "deny:bash, write",
                json!({"type": "deny", "tools": ["bash", "write"]}),
            ),
            ("always-ask", json!({"type": "always_ask"})),
            (
                "always-ask:bash",
                json!({"type": "always_ask", "tools": ["bash"]}),
            ),
        ] {
            assert_eq!(policy_text(&policy), text.replace(' ', ""));
            assert_eq!(parse_policy(text), Ok(policy));
        }
        for text in ["", "deny", "deny:", "always-allow:bash", "sometimes"] {
            assert!(parse_policy(text).is_err(), "{text}");
        }
    }
}
