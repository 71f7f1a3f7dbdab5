//! The commands but `serve` and `chat`: each turns its arguments into requests and the answers into tables.

pub(crate) mod agent;
pub(crate) mod audit;
pub(crate) mod budget;
pub(crate) mod call_agent;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod doctor;
pub(crate) mod environment;
pub(crate) mod files;
pub(crate) mod health;
pub(crate) mod key;
pub(crate) mod models;
pub(crate) mod session;
pub(crate) mod usage;
pub(crate) mod vault;
pub(crate) mod workspace;

use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

use crate::print::{Failure, Outcome, Output};

/// The largest file or standard input that is read as text, in bytes.
const MAX_TEXT: u64 = 16 << 20;

/// The source revision that this binary was built from, when the build knew it.
pub(crate) const COMMIT: Option<&str> = option_env!("OPENCLAW_COMMIT");

/// Shows the version.
///
/// # Errors
/// What writing gives.
pub(crate) fn version(output: Output) -> Outcome {
    let version = env!("CARGO_PKG_VERSION");
    let value = serde_json::json!({"name": "oma", "version": version, "commit": COMMIT});
    output.result(&value, |_| match COMMIT {
        Some(commit) => format!("oma {version} ({commit})"),
        None => format!("oma {version}"),
    })?;
    Ok(())
}

/// Reads a file, or standard input for `-`, whole.
///
/// # Errors
/// That it can't be read or is too large.
pub(crate) fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let wrong = |error: std::io::Error| Failure::Other(format!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(wrong)?;
    } else {
        let file = std::fs::File::open(path).map_err(wrong)?;
        file.take(limit + 1).read_to_end(&mut bytes).map_err(wrong)?;
    }
    if bytes.len() as u64 > limit {
        return Err(Failure::Other(format!(
            "{}: it is larger than {limit} bytes",
            path.display()
        )));
    }
    Ok(bytes)
}

/// Reads a text file, or standard input for `-`.
///
/// # Errors
/// That it can't be read, is too large or is not UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read_bytes(path, MAX_TEXT)?)
        .map_err(|_| Failure::Other(format!("{}: it is not UTF-8 text", path.display())))
}

/// A message from the command line: itself, or standard input for `-`. The line end that every tool puts behind
/// its output is no part of it.
///
/// # Errors
/// That standard input can't be read or is not UTF-8.
pub(crate) fn message(argument: &str) -> Result<String, Failure> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let text = read_text(Path::new("-"))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

/// Reads a JSON object from a file, or standard input for `-`.
///
/// # Errors
/// That it can't be read or is not a JSON object.
pub(crate) fn read_object(path: &Path) -> Result<serde_json::Map<String, Value>, Failure> {
    match serde_json::from_str(&read_text(path)?) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Failure::Other(format!(
            "{}: it is not a JSON object",
            path.display()
        ))),
        Err(error) => Err(Failure::Other(format!(
            "{}: it is not JSON: {error}",
            path.display()
        ))),
    }
}
