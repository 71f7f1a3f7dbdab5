//! `oma audit`: the audit trail, over the API and in the data folder.

use std::fmt::Write as _;
use std::path::PathBuf;

use oma_store::sqlite::{Verified, verify_audit};
use serde_json::{Value, json};

use crate::client::{Client, Connection, Slice};
use crate::print::{Failure, Outcome, Output};
use crate::table::{cell, list_table, time};

/// Look at and verify the audit trail
#[derive(Debug, clap::Args)]
pub(crate) struct Audit {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List what was done, newest first; needs a key of scope `admin`
    List(List),
    /// Walk along the trail in a data folder and say whether it is what the server wrote
    Verify {
        /// The server's data folder; the server may be running
        #[arg(long, value_name = "DIR", env = "OPENCLAW_DATA_DIR", default_value = "data")]
        data_dir: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only this action; `%` in it stands for any text
    #[arg(long)]
    action: Option<String>,
    /// Only what was done to this id
    #[arg(long, value_name = "ID")]
    target: Option<String>,
    /// The workspace, for the operator; your own without it
    #[arg(long, value_name = "ID")]
    workspace: Option<String>,
    #[command(flatten)]
    slice: Slice,
}

impl Audit {
    /// Carries the command out.
    ///
    /// # Errors
    /// What the server says; that the trail can't be read, or is broken.
    pub(crate) async fn run(self, output: Output) -> Outcome {
        match self.action {
            Action::List(list) => list.run(&Client::connect(&self.connection)?, output).await,
            Action::Verify { data_dir } => {
                let found = verify_audit(&data_dir).map_err(|error| {
                    Failure::Other(format!(
                        "{}: the audit trail can't be read: {error}",
                        data_dir.display()
                    ))
                })?;
                output.result(&to_json(&found), |_| describe(&found))?;
                match found.broken {
                    None => Ok(()),
                    Some(_) => Err(Failure::Told),
                }
            }
        }
    }
}

impl List {
    async fn run(self, client: &Client, output: Output) -> Outcome {
        let query: Vec<(&str, String)> = [
            ("action", self.action),
            ("target", self.target),
            ("workspace_id", self.workspace),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name, value)))
        .collect();
        let list = client
            .list(&["v1", "audit"], "events", &query, &self.slice)
            .await?;
        output.list(&list, |list| {
            list_table(
                list,
                "events",
                &["time", "actor", "action", "target", "outcome"],
                |row| {
                    vec![
                        time(row, "ts"),
                        cell(row, "actor"),
                        cell(row, "action"),
                        cell(row, "target"),
                        cell(row, "outcome"),
                    ]
                },
            )
        })?;
        Ok(())
    }
}

fn to_json(found: &Verified) -> Value {
    json!({
        "ok": found.broken.is_none(),
        "rows": found.rows,
        "removed": found.removed,
        "head": found.head,
        "head_hash": hex(&found.head_hash),
        "broken": found.broken.as_ref().map(|broken| {
            json!({"position": broken.position, "id": broken.id, "reason": broken.reason})
        }),
    })
}

fn describe(found: &Verified) -> String {
    let mut text = format!(
        "{} entries from position {} to {}, whose hash is {}\n",
        found.rows,
        found.removed + 1,
        found.head,
        hex(&found.head_hash)
    );
    match &found.broken {
        None => text.push_str("the trail is whole\n"),
        Some(broken) => {
            let id = broken.id.as_deref().unwrap_or("no entry");
            let _ = writeln!(
                text,
                "BROKEN at position {} ({id}): {}",
                broken.position, broken.reason
            );
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
