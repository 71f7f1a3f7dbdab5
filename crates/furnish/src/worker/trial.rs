//! Whether a proxy can be a process of its own here: one that becomes as little as each of them, and then ends.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use oma_sandbox::confine;
use tokio::process::Command;
use tokio::time::timeout;

/// What such a process is told.
pub(super) const ARGUMENT: &str = "trial";
/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most that is read of what it says.
const MAX_WORDS: usize = 300;

/// The whole of the process.
pub(super) fn main() -> ExitCode {
    match confine::reduce().and_then(|()| confine::close()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = write!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// Has `<program> egress` try it.
///
/// # Errors
/// What stands against it: without it sandboxes have no way out.
pub async fn try_out(program: &Path) -> Result<(), String> {
    let mut command = Command::new(program);
    command
        .args(["egress", ARGUMENT])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let ended = timeout(PATIENCE, command.output()).await;
    let ended = ended.map_err(|_| format!("it has not ended within {PATIENCE:?}"))?;
    let output = ended.map_err(|error| format!("starting it: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let words: String = said.trim().chars().take(MAX_WORDS).collect();
    if words.is_empty() {
        return Err(format!("it has ended: {}", output.status));
    }
    Err(words)
}
