//! What can go wrong between the command line and the server.

use reqwest::Url;
use serde_json::Value;

/// What can go wrong between the command line and the server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The address, the token or an argument can't be used.
    #[error("{0}")]
    Unusable(String),
    /// The server can't be reached, or went away.
    #[error("{0}")]
    Unreachable(String),
    /// The server said no.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The server said something that it may not say.
    #[error("{0}")]
    Protocol(String),
}

impl Error {
    /// From an error of the HTTP client.
    #[must_use]
    pub(crate) fn unreachable(base: &Url, error: reqwest::Error) -> Self {
        let error = error.without_url();
        if error.is_connect() {
            return Self::Unreachable(format!(
                "no server answers at {base} ({}); start one with `oma serve`, or name another with --url",
                innermost(&error)
            ));
        }
        if error.is_timeout() {
            return Self::Unreachable(format!("{base} did not answer in time"));
        }
        Self::Unreachable(format!("the connection to {base} failed: {}", innermost(&error)))
    }

    /// A code for programs.
    #[must_use]
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Unusable(_) => "usage",
            Self::Unreachable(_) => "unreachable",
            Self::Refused(refusal) => &refusal.code,
            Self::Protocol(_) => "protocol",
        }
    }

    /// Whether trying again may help.
    #[must_use]
    pub(crate) fn passing(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Refused(refusal) => matches!(refusal.status, 408 | 429 | 500..),
            Self::Unusable(_) | Self::Protocol(_) => false,
        }
    }
}

/// The cause at the bottom, which says most to people.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// An answer that says no.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The code, for programs.
    pub(crate) code: String,
    /// What the server says, for people.
    pub(crate) message: Option<String>,
    /// What is wrong with which field.
    pub(crate) details: Option<Value>,
}

impl Refusal {
    /// From the answer's status and body. Both of the service's error shapes are understood, and what is
    /// neither (a proxy's page) is quoted in part.
    #[must_use]
    pub(crate) fn from_answer(status: u16, body: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let (error, outer) = match &value["error"] {
            Value::Object(_) => (&value["error"]["type"], &value["error"]),
            other => (other, &value),
        };
        let message = match outer["message"].as_str() {
            Some(message) => Some(message.to_owned()),
            None if value.is_null() && !body.is_empty() => {
                Some(crate::table::clip(&String::from_utf8_lossy(body), 200))
            }
            None => None,
        };
        Self {
            status,
            code: error.as_str().unwrap_or("http_error").to_owned(),
            message,
            details: outer.get("details").filter(|details| !details.is_null()).cloned(),
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.message {
            Some(message) => write!(formatter, "{message} ({}, HTTP {})", self.code, self.status)?,
            None => write!(formatter, "{} (HTTP {})", self.code, self.status)?,
        }
        if self.status == 401 {
            write!(
                formatter,
                "\n  set OPENCLAW_API_TOKEN, or name a file with the token by --token-file"
            )?;
        }
        if let Some(details) = &self.details {
            let mut lines = Vec::new();
            flatten(details, "", &mut lines);
            for line in lines {
                write!(formatter, "\n  {line}")?;
            }
        }
        Ok(())
    }
}

/// Turns the tree of field errors into lines `field.inner: what is wrong`.
fn flatten(tree: &Value, path: &str, lines: &mut Vec<String>) {
    let Value::Object(fields) = tree else { return };
    for (name, inner) in fields {
        if name == "_errors" {
            for error in inner.as_array().into_iter().flatten().filter_map(Value::as_str) {
                lines.push(if path.is_empty() {
                    error.to_owned()
                } else {
                    format!("{path}: {error}")
                });
            }
        } else {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            flatten(inner, &path, lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_of_refusal_is_understood() {
        for (status, body, shown) in [
            (
                404,
                r#"{"error":"agent_not_found"}"#,
                "agent_not_found (HTTP 404)",
            ),
            (
                409,
                r#"{"error":"version_conflict","message":"expected version 1, got 2"}"#,
                "expected version 1, got 2 (version_conflict, HTTP 409)",
            ),
            (
                400,
                r#"{"error":"invalid_request","details":{"_errors":["odd"],"quota":{"_errors":[],"max":{"_errors":["Required"]}}}}"#,
                "invalid_request (HTTP 400)\n  odd\n  quota.max: Required",
            ),
            (
                409,
                r#"{"error":{"message":"the session is busy","type":"session_busy"}}"#,
                "the session is busy (session_busy, HTTP 409)",
            ),
            (
                502,
                "<html>Bad\nGateway</html>",
                "<html>Bad Gateway</html> (http_error, HTTP 502)",
            ),
            (500, "", "http_error (HTTP 500)"),
        ] {
            assert_eq!(Refusal::from_answer(status, body.as_bytes()).to_string(), shown);
        }
    }
}
