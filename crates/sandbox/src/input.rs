//! What the tools that run in a sandbox take. The server checks an input with [`Input::parse`] before it
//! starts a sandbox for it, and the hand parses it with the same code.
//!
//! Invariant: an input that was parsed is complete: every tool can start with it, and fails only for what it
//! meets in the sandbox.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The names of the tools that run in a sandbox.
pub const TOOLS: [&str; 6] = ["bash", "read", "write", "edit", "glob", "grep"];

/// The longest command, in bytes.
pub const MAX_COMMAND: usize = 1 << 20;

/// The longest path, in bytes.
pub const MAX_PATH: usize = 4_096;

/// The longest pattern of `glob` and `grep`, in bytes.
pub const MAX_PATTERN: usize = 4_096;

/// The most lines of context that `grep` gives on either side.
pub const MAX_CONTEXT: usize = 50;

/// Why an input is refused. The text is for the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// No tool of the sandbox has this name.
    #[error("there is no tool `{0}` in the sandbox")]
    UnknownTool(String),
    /// The input does not fit the tool's schema.
    #[error("invalid input for `{tool}`: {reason}")]
    Input {
        /// The tool.
        tool: &'static str,
        /// What is wrong, beginning with the field's name where there is one.
        reason: String,
    },
}

/// A command for the session's shell.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bash {
    /// The command; may only be absent with `restart`.
    #[serde(default)]
    pub command: Option<String>,
    /// Ends the shell with everything that it has started, and begins a new one.
    #[serde(default, deserialize_with = "or_default")]
    pub restart: bool,
    /// Milliseconds that the command may take.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// A file to show.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// The file.
    pub file_path: String,
    /// First and last line, from 1, both included; a last line of 0 or less means the file's end.
    #[serde(default)]
    pub view_range: Option<(i64, i64)>,
}

/// A file to write whole.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Write {
    /// The file.
    pub file_path: String,
    /// All of its text.
    pub content: String,
}

/// A text to replace in a file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The file.
    pub file_path: String,
    /// What to replace.
    pub old_string: String,
    /// What to put there.
    pub new_string: String,
    /// Whether every occurrence is replaced; otherwise there must be exactly one.
    #[serde(default, deserialize_with = "or_default")]
    pub replace_all: bool,
}

/// Files to find by name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Glob {
    /// A glob; `**` stands for any number of folders.
    pub pattern: String,
    /// The folder to search.
    #[serde(default)]
    pub path: Option<String>,
}

/// How `grep` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum OutputMode {
    /// The matching lines.
    #[default]
    Content,
    /// The files that have one.
    FilesWithMatches,
    /// How many matching lines each file has.
    Count,
}

/// Text to find in files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grep {
    /// A regular expression.
    pub pattern: String,
    /// The file or folder to search.
    #[serde(default)]
    pub path: Option<String>,
    /// Only files that this glob matches.
    #[serde(default)]
    pub glob: Option<String>,
    /// Whether case does not count.
    #[serde(default, deserialize_with = "or_default")]
    pub ignore_case: bool,
    /// Lines to show before and after each match.
    #[serde(default, deserialize_with = "or_default")]
    pub context: usize,
    /// What to answer.
    #[serde(default, deserialize_with = "or_default")]
    pub output_mode: OutputMode,
}

/// The input of one of the tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// `bash`
    Bash(Bash),
    /// `read`
    Read(Read),
    /// `write`
    Write(Write),
    /// `edit`
    Edit(Edit),
    /// `glob`
    Glob(Glob),
    /// `grep`
    Grep(Grep),
}

impl Input {
    /// Reads the input of the tool called `tool`.
    ///
    /// # Errors
    /// [`Invalid`], with words for the model.
    pub fn parse(tool: &str, input: &Value) -> Result<Self, Invalid> {
        match tool {
            "bash" => typed::<Bash>("bash", input, Bash::check).map(Self::Bash),
            "read" => typed::<Read>("read", input, Read::check).map(Self::Read),
            "write" => typed::<Write>("write", input, |i| path("file_path", &i.file_path)).map(Self::Write),
            "edit" => typed::<Edit>("edit", input, Edit::check).map(Self::Edit),
            "glob" => typed::<Glob>("glob", input, Glob::check).map(Self::Glob),
            "grep" => typed::<Grep>("grep", input, Grep::check).map(Self::Grep),
            other => Err(Invalid::UnknownTool(other.to_owned())),
        }
    }
}

/// Reads a JSON object into a tool's input; shared with the tools that run on the server.
///
/// # Errors
/// What is wrong, in words for the model, beginning with the field's name where there is one.
pub fn from_object<T: DeserializeOwned>(input: &Value) -> Result<T, String> {
    if !input.is_object() {
        return Err("the input must be a JSON object".to_owned());
    }
    serde_path_to_error::deserialize(input).map_err(|error| {
        let field = error.path().to_string();
        if field == "." {
            error.inner().to_string()
        } else {
            format!("{field}: {}", error.inner())
        }
    })
}

fn typed<T: DeserializeOwned>(
    tool: &'static str,
    input: &Value,
    check: impl FnOnce(&T) -> Result<(), String>,
) -> Result<T, Invalid> {
    from_object(input)
        .and_then(|value: T| check(&value).map(|()| value))
        .map_err(|reason| Invalid::Input { tool, reason })
}

/// Models write `null` for a field that they leave out.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

fn bounded(field: &str, text: &str, max: usize) -> Result<(), String> {
    if text.is_empty() {
        return Err(format!("{field}: must not be empty"));
    }
    if text.len() > max {
        return Err(format!(
            "{field}: is {} bytes long; at most {max} are allowed",
            text.len()
        ));
    }
    if text.contains('\0') {
        return Err(format!("{field}: must not contain a NUL character"));
    }
    Ok(())
}

fn path(field: &str, text: &str) -> Result<(), String> {
    bounded(field, text, MAX_PATH)
}

impl Bash {
    fn check(&self) -> Result<(), String> {
        if self.timeout_ms == Some(0) {
            return Err("timeout_ms: must be at least 1".to_owned());
        }
        match &self.command {
            Some(command) => bounded("command", command, MAX_COMMAND),
            None if self.restart => Ok(()),
            None => Err("command: is required, unless `restart` is true".to_owned()),
        }
    }
}

impl Read {
    fn check(&self) -> Result<(), String> {
        path("file_path", &self.file_path)?;
        match self.view_range {
            Some((start, _)) if start < 1 => Err(format!(
                "view_range: the first line is {start}; lines are counted from 1"
            )),
            Some((start, end)) if end > 0 && end < start => Err(format!(
                "view_range: the last line, {end}, comes before the first, {start}"
            )),
            _ => Ok(()),
        }
    }
}

impl Edit {
    fn check(&self) -> Result<(), String> {
        path("file_path", &self.file_path)?;
        if self.old_string.is_empty() {
            return Err("old_string: must not be empty; use `write` to create a file".to_owned());
        }
        if self.old_string == self.new_string {
            return Err("new_string: is the same as old_string, so nothing would change".to_owned());
        }
        Ok(())
    }
}

impl Glob {
    fn check(&self) -> Result<(), String> {
        bounded("pattern", &self.pattern, MAX_PATTERN)?;
        self.path.as_deref().map_or(Ok(()), |text| path("path", text))
    }
}

impl Grep {
    fn check(&self) -> Result<(), String> {
        bounded("pattern", &self.pattern, MAX_PATTERN)?;
        self.path.as_deref().map_or(Ok(()), |text| path("path", text))?;
        self.glob
            .as_deref()
            .map_or(Ok(()), |text| bounded("glob", text, MAX_PATTERN))?;
        if self.context > MAX_CONTEXT {
            return Err(format!("context: at most {MAX_CONTEXT} lines are allowed"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn good_inputs() {
        for (tool, input) in [
            ("bash", json!({"command": "ls"})),
            ("bash", json!({"restart": true})),
            (
                "bash",
                json!({"command": "ls", "restart": null, "timeout_ms": null}),
            ),
            ("read", json!({"file_path": "a", "view_range": [1, -1]})),
            ("read", json!({"file_path": "a", "view_range": [3, 3]})),
            ("write", json!({"file_path": "a", "content": ""})),
            (
                "edit",
                json!({"file_path": "a", "old_string": "x", "new_string": ""}),
            ),
            ("glob", json!({"pattern": "**/*.rs", "path": null})),
            (
                "grep",
                json!({"pattern": "x", "output_mode": "count", "context": 2, "ignore_case": true}),
            ),
        ] {
            Input::parse(tool, &input).unwrap_or_else(|error| panic!("{tool} {input}: {error}"));
        }
    }

    #[test]
    fn bad_inputs_say_which_field_is_wrong() {
        let long = "x".repeat(MAX_PATH + 1);
        for (tool, input, expected) in [
            ("bash", json!({}), "command: is required"),
            ("bash", json!([]), "must be a JSON object"),
            ("bash", json!({"command": 3}), "command: invalid type"),
            ("bash", json!({"command": ""}), "command: must not be empty"),
            ("bash", json!({"command": "a\u{0}b"}), "NUL"),
            (
                "bash",
                json!({"command": "ls", "timeout_ms": 0}),
                "timeout_ms: must be at least 1",
            ),
            (
                "bash",
                json!({"command": "ls", "timeout_ms": "5"}),
                "timeout_ms: invalid type",
            ),
            (
                "bash",
                json!({"cmd": "ls"}),
                "unknown field `cmd`, expected one of `command`",
            ),
            ("read", json!({"file_path": long}), "at most 4096"),
            (
                "read",
                json!({"file_path": "a", "view_range": [0, 2]}),
                "counted from 1",
            ),
            (
                "read",
                json!({"file_path": "a", "view_range": [5, 2]}),
                "comes before",
            ),
            (
                "read",
                json!({"file_path": "a", "view_range": [5]}),
                "view_range: invalid length 1",
            ),
            ("write", json!({"file_path": "a"}), "missing field `content`"),
            (
                "edit",
                json!({"file_path": "a", "old_string": "", "new_string": "b"}),
                "old_string: must not",
            ),
            (
                "edit",
                json!({"file_path": "a", "old_string": "b", "new_string": "b"}),
                "nothing would change",
            ),
            ("glob", json!({"pattern": ""}), "pattern: must not be empty"),
            ("grep", json!({"pattern": "x", "context": 51}), "context: at most"),
            (
                "grep",
                json!({"pattern": "x", "output_mode": "all"}),
                "output_mode: unknown variant",
            ),
            ("web_fetch", json!({}), "no tool `web_fetch`"),
        ] {
            let text = Input::parse(tool, &input).unwrap_err().to_string();
            assert!(text.contains(expected), "{tool} {input}: {text}");
        }
    }
}
