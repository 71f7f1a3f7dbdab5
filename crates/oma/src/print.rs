//! Everything that commands write: results to standard output, remarks to standard error.
//!
//! Invariant: with `--json`, standard output carries JSON and nothing else.
//! Invariant: text from the server (a model's words, a tool's output, an error) never reaches a terminal with
//! control characters in it, so it can't move the cursor, retitle the window or pretend to be something else.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};

use serde_json::Value;

/// How results are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// Whether results are JSON.
    pub(crate) json: bool,
    /// Whether results may be coloured.
    pub(crate) color: bool,
    /// Whether remarks may be coloured.
    pub(crate) color_remarks: bool,
}

/// A way to set text off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// As it is.
    Plain,
    /// Headings.
    Bold,
    /// What matters less.
    Dim,
    /// Failures.
    Red,
    /// Successes.
    Green,
    /// Warnings and questions.
    Yellow,
    /// Names of tools.
    Cyan,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "\x1b[1m",
            Self::Dim => "\x1b[2m",
            Self::Red => "\x1b[31m",
            Self::Green => "\x1b[32m",
            Self::Yellow => "\x1b[33m",
            Self::Cyan => "\x1b[36m",
        }
    }
}

impl Output {
    /// Output for this process's streams.
    #[must_use]
    pub(crate) fn new(json: bool) -> Self {
        // https://no-color.org: present and not empty.
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self {
            json,
            color: wanted && io::stdout().is_terminal(),
            color_remarks: wanted && io::stderr().is_terminal(),
        }
    }

    /// Writes a result: the value itself with `--json`, what `human` makes of it otherwise.
    ///
    /// # Errors
    /// What writing gives.
    pub(crate) fn result(&self, value: &Value, human: impl FnOnce(&Value) -> String) -> io::Result<()> {
        if self.json {
            self.json(value)
        } else {
            self.line(&human(value))
        }
    }

    /// Writes a JSON document, one line.
    ///
    /// # Errors
    /// What writing gives.
    pub(crate) fn json(&self, value: &Value) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{value}")?;
        stdout.flush()
    }

    /// Writes a line of text, unless it is empty.
    ///
    /// # Errors
    /// What writing gives.
    pub(crate) fn line(&self, text: &str) -> io::Result<()> {
        let text = text.trim_end_matches('\n');
        if text.is_empty() {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}")?;
        stdout.flush()
    }

    /// Writes text as it comes, without a line end.
    ///
    /// # Errors
    /// What writing gives.
    pub(crate) fn piece(&self, text: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// What writing gives.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }

    /// Sets text off on standard output.
    #[must_use]
    pub(crate) fn paint(&self, style: Style, text: &str) -> String {
        paint(self.color, style, text)
    }

    /// Writes a list as JSON or as text, and for people how to get the rest of it.
    ///
    /// # Errors
    /// What writing gives.
    pub(crate) fn list(&self, list: &Value, render: impl FnOnce(&Value) -> String) -> io::Result<()> {
        self.result(list, render)?;
        match list["next"].as_str() {
            Some(next) if !self.json => self.remark(Style::Dim, &format!("… more: --after {}", plain(next))),
            _ => Ok(()),
        }
    }

    /// Writes a remark, which is no part of the result, to standard error.
    ///
    /// # Errors
    /// What writing gives.
    pub(crate) fn remark(&self, style: Style, text: &str) -> io::Result<()> {
        writeln!(io::stderr().lock(), "{}", paint(self.color_remarks, style, text))
    }

    /// Writes an error to standard error; JSON with `--json`.
    pub(crate) fn failure(&self, error: &Failure) {
        let text = if self.json {
            error.to_json().to_string()
        } else {
            let label = paint(self.color_remarks, Style::Red, "error");
            format!("{label}: {}", plain(&error.to_string()))
        };
        // Nothing is left to do when even standard error is gone.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

fn paint(color: bool, style: Style, text: &str) -> String {
    if !color || style == Style::Plain {
        return text.to_owned();
    }
    format!("{}{text}\x1b[0m", style.code())
}

/// Text without control characters other than line ends and tabs.
#[must_use]
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    let harmless = |char: char| matches!(char, '\n' | '\t') || !(char.is_control() || is_bidi(char));
    if text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(
        text.chars()
            .filter(|char| *char != '\r')
            .map(|char| if harmless(char) { char } else { '\u{fffd}' })
            .collect(),
    )
}

/// Characters that change the direction of what follows, with which text can be made to look like another.
fn is_bidi(char: char) -> bool {
    matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command can't be carried out as given.
    #[error("{0}")]
    Usage(String),
    /// The server or the way to it.
    #[error(transparent)]
    Client(#[from] crate::client::Error),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    /// Writing or reading on this side.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Something else, in words.
    #[error("{0}")]
    Other(String),
    /// Everything has been said already; only the exit code is left.
    #[error("")]
    Told,
    /// Interrupted by the user.
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    /// The process's exit code.
    #[must_use]
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            // A reader that has seen enough is no failure.
            Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Interrupted => 130,
            _ => 1,
        }
    }

    /// Whether there is nothing to print.
    #[must_use]
    pub(crate) fn silent(&self) -> bool {
        matches!(self, Self::Told | Self::Interrupted)
            || matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    fn to_json(&self) -> Value {
        let code = match self {
            Self::Client(error) => error.code(),
            Self::Usage(_) => "usage",
            Self::Config(_) => "configuration",
            Self::Io(_) => "io",
            Self::Other(_) | Self::Told | Self::Interrupted => "failed",
        };
        let mut value = serde_json::json!({"error": code, "message": self.to_string()});
        if let Self::Client(crate::client::Error::Refused(refusal)) = self {
            value["status"] = refusal.status.into();
            value["details"] = refusal.details.clone().unwrap_or(Value::Null);
        }
        value
    }
}

/// The result of a command.
pub(crate) type Outcome = Result<(), Failure>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        for (text, shown) in [
            ("plain\n\ttext", "plain\n\ttext"),
            ("\x1b[2Jgone", "\u{fffd}[2Jgone"),
            ("line\r\n", "line\n"),
            ("\u{9b}31m", "\u{fffd}31m"),
            ("\u{202e}evil", "\u{fffd}evil"),
            ("größe 🦀", "größe 🦀"),
        ] {
            assert_eq!(plain(text), shown);
        }
    }

    #[test]
    fn exit_codes_tell_usage_from_failure() {
        let pipe = io::Error::from(io::ErrorKind::BrokenPipe);
        for (failure, code) in [
            (Failure::Usage("x".into()), 2),
            (Failure::Other("x".into()), 1),
            (Failure::Io(pipe), 0),
            (Failure::Interrupted, 130),
        ] {
            assert_eq!(failure.exit_code(), code);
        }
    }
}
