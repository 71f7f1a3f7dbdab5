//! The tools inside a sandbox: `bash`, `read`, `write`, `edit`, `glob`, `grep`.
//!
//! They run with the rights of the session's commands, so a path may lead anywhere that a command could reach;
//! what keeps it in bounds is the sandbox. Relative paths start at the workspace, whatever folder the shell
//! is in.
//!
//! Invariant: every tool ends: commands and searches have a time limit, files are opened without waiting.
//! Invariant: every result is bounded; one that is too long for the model is in a file, and the model is told
//! which.

mod bash;
mod edit;
mod glob;
mod grep;
mod paths;
mod read;
mod walk;
mod write;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use oma_domain::{ContentBlock, EventId};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::paths::Places;
use super::guard::writing::Writing;
use super::limits::ToolLimits;
use super::log_ring::LogRing;
use crate::input::Input;
use crate::protocol::{Call, Reply};
use crate::spill;

/// The longest that a tool which only looks at files may take. A search ends earlier by itself and says so.
const FILE_TOOL_TIMEOUT: Duration = Duration::from_secs(60);

/// How soon a search stops by itself, with what it has found.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(30);

/// What the model is told once it has made room.
const ROOM_AGAIN: &str = "[There is room on the disk again. While this ran, nothing could be written yet.]";

/// What a tool says, before it is fitted for the model.
#[derive(Debug)]
pub(super) struct Answer {
    content: Vec<ContentBlock>,
    is_error: bool,
}

impl Answer {
    fn text(text: impl Into<String>, is_error: bool) -> Self {
        Self {
            content: vec![ContentBlock::text(text)],
            is_error,
        }
    }
}

fn failure(text: impl Into<String>) -> Answer {
    Answer::text(text, true)
}

/// What a tool that works on files gives: content, or words for the model on why there is none.
type FileResult = Result<Vec<ContentBlock>, String>;

/// What a tool that looks at files gives below `workspace`: a way in for the fuzz targets.
///
/// # Errors
/// What is wrong with the call, in words for the model.
#[cfg(any(test, fuzzing))]
pub fn look(workspace: PathBuf, call: &Call) -> Result<Vec<ContentBlock>, String> {
    let watch = walk::Watch::new(CancellationToken::new(), SEARCH_TIMEOUT);
    let (places, limits) = (Places::new(workspace), ToolLimits::default());
    match Input::parse(&call.tool, &call.input).map_err(|error| error.to_string())? {
        Input::Glob(input) => glob::run(&places, &limits, &input, &watch),
        Input::Grep(input) => grep::run(&places, &limits, &input, &watch),
        _ => Err("this does not only look".to_owned()),
    }
}

/// The tools of one sandbox.
pub struct Tools {
    places: Places,
    limits: ToolLimits,
    bash: bash::Bash,
    /// Whose turn it is to change a file. An edit reads, changes and replaces, and models ask for several
    /// edits of one file at once: none may be lost, and they are made in the order of their arrival.
    changes: Arc<Semaphore>,
    writing: Writing,
}

impl Tools {
    /// Tools over the files below `workspace`. What commands print goes to `log` as well; `writing` says
    /// whether they may write.
    #[must_use]
    pub(crate) fn new(workspace: PathBuf, limits: ToolLimits, log: Arc<LogRing>, writing: Writing) -> Self {
        let bash = bash::Bash::new(workspace.clone(), limits.clone(), log, writing.clone());
        Self {
            places: Places::new(workspace),
            limits,
            bash,
            changes: Arc::new(Semaphore::new(1)),
            writing,
        }
    }

    /// Runs one tool to its end, or until soon after `cancel`, and returns what it gave. Everything that can
    /// go wrong is told to the model in the reply. `key` names the file that a long result goes to.
    pub async fn run(&self, key: &EventId, call: Call, cancel: CancellationToken) -> Reply {
        let was_denied = tokio::select! {
            denial = self.writing.before_call() => denial.is_some(),
            () = cancel.cancelled() => false,
        };
        let answer = match Input::parse(&call.tool, &call.input) {
            Ok(Input::Bash(input)) => self.bash.run(input, cancel.clone()).await,
            Ok(input) => self.run_on_files(input, cancel.clone()).await,
            Err(error) => failure(error.to_string()),
        };
        let mut reply = self.fit(key, answer).await;
        // Who has cancelled waits for nothing more.
        let denial = tokio::select! {
            denial = self.writing.after_call() => denial,
            () = cancel.cancelled() => self.writing.last_denial(),
        };
        match denial {
            Some(denial) => reply.content.push(ContentBlock::text(&*denial)),
            None if was_denied => reply.content.push(ContentBlock::text(ROOM_AGAIN)),
            None => {}
        }
        reply
    }

    /// Ends the shell and everything that commands left running.
    pub async fn shutdown(&self) {
        self.bash.shutdown().await;
    }

    async fn run_on_files(&self, input: Input, cancel: CancellationToken) -> Answer {
        let (places, limits) = (self.places.clone(), self.limits.clone());
        // A guard, so that the work stops too when this future is dropped or gives up.
        let stop = cancel.child_token();
        let _stop_on_return = stop.clone().drop_guard();
        let changes = Arc::clone(&self.changes);
        let work = async move {
            let turn = match &input {
                // The semaphore is never closed, so an error can't come.
                Input::Write(_) | Input::Edit(_) => changes.acquire_owned().await.ok(),
                _ => None,
            };
            let work = move || {
                let watch = walk::Watch::new(stop, SEARCH_TIMEOUT);
                let result = match input {
                    Input::Bash(_) => Err("`bash` does not work on files".to_owned()),
                    Input::Read(input) => read::run(&places, &limits, &input),
                    Input::Write(input) => write::run(&places, &limits, &input),
                    Input::Edit(input) => edit::run(&places, &limits, &input),
                    Input::Glob(input) => glob::run(&places, &limits, &input, &watch),
                    Input::Grep(input) => grep::run(&places, &limits, &input, &watch),
                };
                // The turn ends with the work and not with the wait for it, which may be cut short.
                drop(turn);
                result
            };
            tokio::task::spawn_blocking(work).await
        };
        tokio::select! {
            biased;
            done = work => match done {
                Ok(Ok(content)) => Answer { content, is_error: false },
                Ok(Err(text)) => failure(text),
                Err(error) => failure(format!("the tool broke: {error}")),
            },
            () = cancel.cancelled() => failure("The call was cancelled."),
            () = tokio::time::sleep(FILE_TOOL_TIMEOUT) => {
                failure(format!("The tool did not end within {} seconds.", FILE_TOOL_TIMEOUT.as_secs()))
            }
        }
    }

    /// Puts what is too long for the model into a file.
    async fn fit(&self, key: &EventId, answer: Answer) -> Reply {
        let Answer {
            mut content,
            is_error,
        } = answer;
        let inline = self.limits.inline_result_chars;
        for block in &mut content {
            let ContentBlock::Text { text } = block else {
                continue;
            };
            if !spill::is_too_long(text, inline) {
                continue;
            }
            let whole = std::mem::take(text);
            let path = spill::path(key);
            let file = self.places.workspace().join(&path);
            let kept = tokio::task::spawn_blocking(move || {
                let kept = keep(&file, &whole);
                (whole, kept)
            });
            match kept.await {
                Ok((whole, Ok(()))) => *text = spill::preview(&whole, inline, spill::Kept::At(&path)),
                Ok((whole, Err(error))) => {
                    *text = spill::preview(&whole, inline, spill::Kept::Lost(&error.to_string()));
                }
                Err(error) => *text = format!("The result was lost: {error}"),
            }
        }
        Reply { content, is_error }
    }
}

/// Writes a result to its file, in a folder that stays out of the session's repositories.
fn keep(file: &Path, text: &str) -> io::Result<()> {
    let folder = file.parent().ok_or(io::ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(folder)?;
    if let Some(hidden) = folder.parent() {
        let ignore = hidden.join(".gitignore");
        match std::fs::File::create_new(&ignore) {
            Ok(mut created) => io::Write::write_all(&mut created, b"*\n")?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    // Whatever else has the name goes: nothing is written through links, and opening what is new never waits (`copy_up`).
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let result = std::fs::File::create_new(file)
        .and_then(|mut created| io::Write::write_all(&mut created, text.as_bytes()));
    if result.is_err() {
        // Half a result under the name of the whole would mislead, and its space may be wanted.
        let _ = std::fs::remove_file(file);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use oma_domain::content::joined_text;
    use serde_json::{Value, json};

    fn tools(folder: &tempfile::TempDir, limits: ToolLimits) -> Tools {
        let (log, writing) = (Arc::new(LogRing::new()), Writing::allowed());
        Tools::new(folder.path().to_owned(), limits, log, writing)
    }

    async fn run(tools: &Tools, tool: &str, input: Value) -> (String, bool) {
        let call = Call {
            tool: tool.to_owned(),
            input,
        };
        let reply = tools
            .run(&EventId::generate(), call, CancellationToken::new())
            .await;
        (joined_text(&reply.content), reply.is_error)
    }

    #[tokio::test]
    async fn bad_calls_are_explained() {
        let folder = tempfile::tempdir().unwrap();
        let tools = tools(&folder, ToolLimits::default());
        for (tool, input, expected) in [
            ("sing", json!({}), "there is no tool `sing`"),
            ("read", json!({}), "missing field `file_path`"),
            ("read", json!({"file_path": "none"}), "none does not exist"),
            ("glob", json!({"pattern": "a["}), "not a valid glob"),
        ] {
            let (text, is_error) = run(&tools, tool, input).await;
            assert!(is_error && text.contains(expected), "{tool}: {text}");
        }
    }

    #[tokio::test]
    async fn edits_at_once_are_all_made() {
        let folder = tempfile::tempdir().unwrap();
        let tools = Arc::new(tools(&folder, ToolLimits::default()));
        let lines: String = (0..50).map(|n| format!("<{n}>\n")).collect();
        std::fs::write(folder.path().join("f"), lines).unwrap();
        let mut edits = Vec::new();
        for n in 0..50 {
            let tools = Arc::clone(&tools);
            let input =
                json!({"file_path": "f", "old_string": format!("<{n}>"), "new_string": format!("done {n}")});
            edits.push(tokio::spawn(async move { run(&tools, "edit", input).await }));
        }
        for edit in edits {
            let (text, is_error) = edit.await.unwrap();
            assert!(!is_error, "{text}");
        }
        let expected: String = (0..50).map(|n| format!("done {n}\n")).collect();
        assert_eq!(
            std::fs::read_to_string(folder.path().join("f")).unwrap(),
            expected
        );
    }

    #[tokio::test]
    async fn a_long_result_goes_to_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let tools = tools(
            &folder,
            ToolLimits {
                inline_result_chars: 100,
                ..ToolLimits::default()
            },
        );
        let key = EventId::generate();
        let call = Call {
            tool: "bash".to_owned(),
            input: json!({"command": "seq 1 1000"}),
        };
        let reply = tools.run(&key, call, CancellationToken::new()).await;
        let text = joined_text(&reply.content);
        let path = format!(".oma/results/{key}.txt");
        assert!(
            text.starts_with("1\n2\n") && text.ends_with("\n1000\n") && text.contains(&path),
            "{text}"
        );
        let whole: String = (1..=1000).map(|n| format!("{n}\n")).collect();
        assert_eq!(std::fs::read_to_string(folder.path().join(path)).unwrap(), whole);
        assert_eq!(
            std::fs::read_to_string(folder.path().join(".oma/.gitignore")).unwrap(),
            "*\n"
        );

        // What is in its place goes, and what that leads to stays.
        let (key, victim) = (EventId::generate(), folder.path().join("victim"));
        std::fs::write(&victim, "precious").unwrap();
        let file = folder.path().join(format!(".oma/results/{key}.txt"));
        std::os::unix::fs::symlink(&victim, &file).unwrap();
        keep(&file, "result").unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "result");

        // Where the file can't be, the model is told.
        let blocked = tempfile::tempdir().unwrap();
        std::fs::write(blocked.path().join(".oma"), "in the way").unwrap();
        let tools = self::tools(
            &blocked,
            ToolLimits {
                inline_result_chars: 100,
                ..ToolLimits::default()
            },
        );
        let (text, is_error) = run(&tools, "bash", json!({"command": "seq 1 1000"})).await;
        assert!(!is_error && text.contains("could not be kept"), "{text}");
        tools.shutdown().await;
    }
}
