//! `oma workspace`: the tenants of a server.

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, Connection, Request, Slice};
use crate::commands::budget::{self, MonthlyBudget};
use crate::print::{Outcome, Output};
use crate::table::{cell, fact, facts, list_table, time};

/// Create and look at workspaces
#[derive(Debug, clap::Args)]
pub(crate) struct Workspace {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Create a workspace; needs the server's own token
    Create {
        /// Its name
        name: String,
        #[command(flatten)]
        budget: MonthlyBudget,
    },
    /// Change what may be consumed in a workspace in a month; needs the server's own token
    Budget {
        /// Its id
        id: String,
        #[command(flatten)]
        budget: MonthlyBudget,
    },
    /// List workspaces, oldest first
    List {
        #[command(flatten)]
        slice: Slice,
    },
    /// Show a workspace
    Get {
        /// Its id
        id: String,
    },
}

impl Workspace {
    /// Carries the command out.
    ///
    /// # Errors
    /// What the server says.
    pub(crate) async fn run(self, output: Output) -> Outcome {
        let client = Client::connect(&self.connection)?;
        match self.action {
            Action::Create { name, budget } => {
                let mut body = json!({ "name": name });
                for (field, value) in budget.fields(true) {
                    body[field] = value;
                }
                let created = client.json(Request::post(&["v1", "workspaces"], body)).await?;
                output.result(&created, describe)?;
            }
            Action::Budget { id, budget } => {
                let request = Request::new(Method::PATCH, &["v1", "workspaces", &id]);
                let changed = client
                    .json(request.json(Value::Object(budget.fields(false))))
                    .await?;
                output.result(&changed, describe)?;
            }
            Action::List { slice } => {
                let list = client
                    .list(&["v1", "workspaces"], "workspaces", &[], &slice)
                    .await?;
                output.list(&list, |list| {
                    list_table(list, "workspaces", &["id", "name", "created"], |row| {
                        vec![
                            cell(row, "workspace_id"),
                            cell(row, "name"),
                            time(row, "created_at"),
                        ]
                    })
                })?;
            }
            Action::Get { id } => {
                let workspace = client.json(Request::get(&["v1", "workspaces", &id])).await?;
                output.result(&workspace, describe)?;
            }
        }
        Ok(())
    }
}

fn describe(workspace: &Value) -> String {
    facts(&[
        ("id", fact(workspace, "workspace_id")),
        ("name", fact(workspace, "name")),
        ("monthly budget", budget::describe(workspace)),
        ("created", time(workspace, "created_at")),
    ])
}
