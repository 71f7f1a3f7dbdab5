//! `oma session files`: the files of a session's workspace.

use std::path::PathBuf;

use reqwest::Method;
use serde_json::Value;

use crate::client::{Client, Request};
use crate::commands::read_bytes;
use crate::print::{Failure, Outcome, Output};
use crate::table::{cell, list_table};

/// The largest file that is sent, in bytes. The server has its own limit, which may be lower.
const MAX_FILE: u64 = 1 << 30;

/// Look at and change the files of a session's workspace
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Files {
    /// List a folder
    List {
        /// The session's id
        session: String,
        /// The folder, relative to the workspace
        #[arg(default_value = "")]
        path: String,
    },
    /// Read a file
    Get {
        /// The session's id
        session: String,
        /// The file, relative to the workspace
        path: String,
        /// Where to write it; standard output without this option
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Write a file
    Put {
        /// The session's id
        session: String,
        /// The file, relative to the workspace
        path: String,
        /// What to write; standard input without this option
        #[arg(long, value_name = "FILE", default_value = "-")]
        from: PathBuf,
    },
    /// Remove a file
    Delete {
        /// The session's id
        session: String,
        /// The file, relative to the workspace
        path: String,
    },
}

impl Files {
    /// Carries the command out.
    ///
    /// # Errors
    /// What the server says.
    pub(crate) async fn run(self, client: &Client, output: Output) -> Outcome {
        match self {
            Self::List { session, path } => {
                let agent = agent_of(client, &session).await?;
                let request = Request::get(&["v1", "agents", &agent, "files"])
                    .query("session_id", session)
                    .query("path", path);
                let list = client.json(request).await?;
                output.result(&list, |list| {
                    list_table(list, "entries", &["name", "size", "modified"], |entry| {
                        let folder = entry["type"] == "dir";
                        let name = cell(entry, "name") + if folder { "/" } else { "" };
                        let size = if folder {
                            "-".to_owned()
                        } else {
                            cell(entry, "size")
                        };
                        vec![name, size, modified(entry)]
                    })
                })?;
            }
            Self::Get {
                session,
                path,
                output: to,
            } => {
                let agent = agent_of(client, &session).await?;
                let bytes = client
                    .bytes(Request::get(&file(&agent, &path)?).query("session_id", session))
                    .await?;
                match to {
                    Some(to) => {
                        std::fs::write(&to, &bytes)
                            .map_err(|error| Failure::Other(format!("{}: {error}", to.display())))?;
                        let written = serde_json::json!({"path": path, "size": bytes.len(), "output": to});
                        output.result(&written, |_| {
                            format!("wrote {} bytes to {}", bytes.len(), to.display())
                        })?;
                    }
                    None if output.json => {
                        return Err(Failure::Usage(
                            "a file's content is not JSON: add --output FILE".to_owned(),
                        ));
                    }
                    None => output.bytes(&bytes)?,
                }
            }
            Self::Put { session, path, from } => {
                let bytes = read_bytes(&from, MAX_FILE)?;
                let agent = agent_of(client, &session).await?;
                let request = Request::new(Method::PUT, &file(&agent, &path)?)
                    .query("session_id", session)
                    .bytes(bytes);
                let written = client.json(request).await?;
                output.result(&written, |written| {
                    format!(
                        "wrote {} bytes to {}",
                        cell(written, "size"),
                        cell(written, "path")
                    )
                })?;
            }
            Self::Delete { session, path } => {
                let agent = agent_of(client, &session).await?;
                let request = Request::delete(&file(&agent, &path)?).query("session_id", session);
                let deleted = client.json(request).await?;
                output.result(&deleted, |_| format!("deleted {path}"))?;
            }
        }
        Ok(())
    }
}

/// The agent of a session: the API's file routes stand below agents.
async fn agent_of(client: &Client, session: &str) -> Result<String, Failure> {
    let session = client.json(Request::get(&["v1", "sessions", session])).await?;
    match session["agent_id"].as_str() {
        Some(agent) => Ok(agent.to_owned()),
        None => Err(Failure::Other(
            "the server names no agent for this session".to_owned(),
        )),
    }
}

/// The segments of a file's route.
///
/// `..` is refused here, because an HTTP client resolves it and would ask for something else.
fn file<'a>(agent: &'a str, path: &'a str) -> Result<Vec<&'a str>, Failure> {
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if parts.is_empty() || parts.contains(&"..") {
        return Err(Failure::Usage(format!(
            "`{path}` is not a path inside the workspace"
        )));
    }
    Ok(["v1", "agents", agent, "files"]
        .into_iter()
        .chain(parts)
        .collect())
}

/// `mtime` is a number of milliseconds that may have a fraction.
fn modified(entry: &Value) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "fractions of a millisecond are not shown"
    )]
    let millis = entry["mtime"].as_f64().map(|millis| millis as i64);
    crate::table::time(&serde_json::json!({"at": millis}), "at")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_workspace() {
        assert_eq!(
            file("agt_1", "/a//./b c").expect("legal"),
            ["v1", "agents", "agt_1", "files", "a", "b c"]
        );
        for path in ["", "/", "..", "a/../b", "."] {
            assert!(file("agt_1", path).is_err(), "{path}");
        }
    }
}
