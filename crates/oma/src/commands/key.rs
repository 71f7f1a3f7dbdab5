//! `oma key`: the API keys of a workspace.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, Connection, Request, Slice};
use crate::commands::budget::{self, MonthlyBudget};
use crate::config::value::Value as _;
use crate::print::{Failure, Outcome, Output};
use crate::table::{cell, fact, facts, list_table, time};

/// Create, look at, rotate and revoke API keys
#[derive(Debug, clap::Args)]
pub(crate) struct Key {
    #[command(flatten)]
    connection: Connection,
    /// The workspace of the keys, for the operator; your own without it
    #[arg(long, global = true, value_name = "ID")]
    workspace: Option<String>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Create a key; its secret is shown this once
    Create {
        /// Its name
        name: String,
        /// What it may do: `read` looks, `write` also changes, `admin` also manages keys
        #[arg(long, value_enum, required_unless_present = "environment")]
        scope: Option<Scope>,
        /// The self-hosted environment whose workers are to hold it: it is good for their work and for nothing else
        #[arg(long, value_name = "ID")]
        environment: Option<String>,
        /// When it stops working, from now (`12h`, `30d`); never without it
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        expires_in: Option<Duration>,
        #[command(flatten)]
        budget: MonthlyBudget,
    },
    /// Change what may be consumed with a key in a month
    Budget {
        /// Its id
        id: String,
        #[command(flatten)]
        budget: MonthlyBudget,
    },
    /// List keys, oldest first
    List {
        #[command(flatten)]
        slice: Slice,
    },
    /// Show a key
    Get {
        /// Its id
        id: String,
    },
    /// Give a key a new secret, which is shown this once
    Rotate {
        /// Its id
        id: String,
        /// How long the present secret works on (`10m`, `1d`); not at all without it
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        grace: Option<Duration>,
    },
    /// Revoke a key, at once and for good
    Revoke {
        /// Its id
        id: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Scope {
    Read,
    Write,
    Admin,
}

impl Scope {
    fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    Duration::parse(text)
}

impl Key {
    /// Carries the command out.
    ///
    /// # Errors
    /// What the server says.
    pub(crate) async fn run(self, output: Output) -> Outcome {
        let client = Client::connect(&self.connection)?;
        let workspace = self.workspace;
        let there = |request| chosen(request, workspace.as_deref());
        match self.action {
            Action::Create {
                name,
                scope,
                environment,
                expires_in,
                budget,
            } => {
                // A key of an environment has no other scope.
                let scope = scope.unwrap_or(Scope::Write);
                let mut body = json!({ "name": name, "scope": scope.name() });
                if let Some(environment) = environment {
                    body["environmentId"] = json!(environment);
                }
                if let Some(workspace) = &workspace {
                    body["workspaceId"] = json!(workspace);
                }
                if let Some(expires_in) = expires_in {
                    body["expiresAt"] = json!(millis_from_now(expires_in)?);
                }
                for (field, value) in budget.fields(true) {
                    body[field] = value;
                }
                let created = client.json(Request::post(&["v1", "keys"], body)).await?;
                output.result(&created, describe)?;
            }
            Action::Budget { id, budget } => {
                let request = Request::new(Method::PATCH, &["v1", "keys", &id]);
                let request = request.json(Value::Object(budget.fields(false)));
                let changed = client.json(there(request)).await?;
                output.result(&changed, describe)?;
            }
            Action::List { slice } => {
                let query: Vec<(&str, String)> =
                    workspace.map(|id| ("workspace_id", id)).into_iter().collect();
                let list = client.list(&["v1", "keys"], "keys", &query, &slice).await?;
                output.list(&list, |list| {
                    list_table(
                        list,
                        "keys",
                        &[
                            "id",
                            "name",
                            "scope",
                            "created",
                            "expires",
                            "last used",
                            "revoked",
                        ],
                        row,
                    )
                })?;
            }
            Action::Get { id } => {
                let key = client.json(there(Request::get(&["v1", "keys", &id]))).await?;
                output.result(&key, describe)?;
            }
            Action::Rotate { id, grace } => {
                let body = json!({ "graceSeconds": grace.unwrap_or_default().as_secs() });
                let request = Request::post(&["v1", "keys", &id, "rotate"], body);
                let rotated = client.json(there(request)).await?;
                output.result(&rotated, describe)?;
            }
            Action::Revoke { id } => {
                let revoked = client.json(there(Request::delete(&["v1", "keys", &id]))).await?;
                output.result(&revoked, |_| format!("revoked {id}"))?;
            }
        }
        Ok(())
    }
}

fn chosen<'a>(request: Request<'a>, workspace: Option<&str>) -> Request<'a> {
    match workspace {
        Some(id) => request.query("workspace_id", id),
        None => request,
    }
}

fn millis_from_now(duration: Duration) -> Result<u64, Failure> {
    let then = SystemTime::now().checked_add(duration);
    let since_epoch = then.and_then(|then| then.duration_since(UNIX_EPOCH).ok());
    since_epoch
        .and_then(|time| u64::try_from(time.as_millis()).ok())
        .ok_or_else(|| Failure::Usage("that is too far in the future".into()))
}

fn row(key: &Value) -> Vec<String> {
    vec![
        cell(key, "key_id"),
        cell(key, "name"),
        cell(key, "scope"),
        time(key, "created_at"),
        time(key, "expires_at"),
        time(key, "last_used_at"),
        time(key, "revoked_at"),
    ]
}

fn describe(key: &Value) -> String {
    let mut lines = vec![
        ("id", fact(key, "key_id")),
        ("workspace", fact(key, "workspace_id")),
        ("name", fact(key, "name")),
        ("scope", fact(key, "scope")),
        ("environment", fact(key, "environment_id")),
        ("monthly budget", budget::describe(key)),
        ("created", time(key, "created_at")),
        ("rotated", time(key, "rotated_at")),
        ("old secret until", time(key, "previous_until")),
        ("expires", time(key, "expires_at")),
        ("last used", time(key, "last_used_at")),
        ("revoked", time(key, "revoked_at")),
    ];
    if key.get("secret").is_some() {
        lines.push(("secret", fact(key, "secret")));
    }
    facts(&lines)
}
