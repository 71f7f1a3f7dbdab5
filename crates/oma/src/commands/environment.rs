//! `oma environment`: what sessions find in their sandboxes and may reach from there.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::client::{Client, Connection, Request, Slice};
use crate::commands::read_object;
use crate::print::{Failure, Outcome, Output};
use crate::table::{cell, fact, facts, list_table, time};

/// Create, look at and remove environments
#[derive(Debug, clap::Args)]
pub(crate) struct Environment {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Create an environment
    Create(Create),
    /// List environments, oldest first
    List {
        #[command(flatten)]
        slice: Slice,
    },
    /// Show an environment
    Get {
        /// Its id
        id: String,
    },
    /// Remove an environment that no session uses
    Delete {
        /// Its id
        id: String,
    },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Its name
    #[arg(required_unless_present = "file")]
    name: Option<String>,
    /// What it is for
    #[arg(long)]
    description: Option<String>,
    /// A package to install, as MANAGER:NAME (apt, cargo, gem, go, npm, pip); may be repeated
    #[arg(long = "package", value_name = "MANAGER:NAME")]
    packages: Vec<String>,
    /// A host that may be reached; all others may not. May be repeated
    #[arg(long = "allow-host", value_name = "HOST")]
    allowed_hosts: Vec<String>,
    /// A JSON file with the request's fields, `-` for standard input; other options count more
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Environment {
    /// Carries the command out.
    ///
    /// # Errors
    /// What the server says.
    pub(crate) async fn run(self, output: Output) -> Outcome {
        let client = Client::connect(&self.connection)?;
        match self.action {
            Action::Create(create) => {
                let body = create.body()?;
                let created = client.json(Request::post(&["v1", "environments"], body)).await?;
                output.result(&created, describe)?;
            }
            Action::List { slice } => {
                let list = client
                    .list(&["v1", "environments"], "environments", &[], &slice)
                    .await?;
                output.list(&list, |list| {
                    list_table(
                        list,
                        "environments",
                        &["id", "name", "network", "created"],
                        |environment| {
                            vec![
                                cell(environment, "environment_id"),
                                cell(environment, "name"),
                                cell(&environment["networking"], "type"),
                                time(environment, "created_at"),
                            ]
                        },
                    )
                })?;
            }
            Action::Get { id } => {
                let environment = client.json(Request::get(&["v1", "environments", &id])).await?;
                output.result(&environment, describe)?;
            }
            Action::Delete { id } => {
                let deleted = client.json(Request::delete(&["v1", "environments", &id])).await?;
                output.result(&deleted, |_| format!("deleted {id}"))?;
            }
        }
        Ok(())
    }
}

impl Create {
    fn body(self) -> Result<Value, Failure> {
        let mut body = match &self.file {
            Some(path) => read_object(path)?,
            None => serde_json::Map::new(),
        };
        if let Some(name) = self.name {
            body.insert("name".to_owned(), name.into());
        }
        if let Some(description) = self.description {
            body.insert("description".to_owned(), description.into());
        }
        if !self.packages.is_empty() {
            let mut packages: std::collections::BTreeMap<String, Vec<String>> = Default::default();
            for package in self.packages {
                let Some((manager, name)) = package.split_once(':') else {
                    return Err(Failure::Usage(format!(
                        "`{package}` names no package manager; write pip:{package}"
                    )));
                };
                packages
                    .entry(manager.to_owned())
                    .or_default()
                    .push(name.to_owned());
            }
            body.insert("packages".to_owned(), json!(packages));
        }
        if !self.allowed_hosts.is_empty() {
            let networking = json!({"type": "limited", "allowedHosts": self.allowed_hosts});
            body.insert("networking".to_owned(), networking);
        }
        Ok(Value::Object(body))
    }
}

fn describe(environment: &Value) -> String {
    facts(&[
        ("id", fact(environment, "environment_id")),
        ("name", fact(environment, "name")),
        ("description", fact(environment, "description")),
        ("packages", fact(environment, "packages")),
        ("networking", fact(environment, "networking")),
        ("created", time(environment, "created_at")),
    ])
}
