//! What an agent says of its servers: `{url, headers?}` or `{command, args?, env?, cwd?}`, by name.

use http::header::{ACCEPT, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue};
use oma_egress::target::Target;
use secrecy::SecretString;
use serde_json::{Map, Value};

/// Headers that the protocol itself sets.
const RESERVED: [&str; 5] = [
    "mcp-session-id",
    "mcp-protocol-version",
    "mcp-method",
    "mcp-name",
    "last-event-id",
];

/// One MCP server of an agent.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its name in the agent.
    pub name: String,
    /// How it is reached.
    pub place: Place,
}

/// How a server is reached.
#[derive(Debug, Clone)]
pub enum Place {
    /// Over streamable HTTP.
    Remote {
        /// Where, in canonical form.
        url: String,
        /// What goes with every request.
        headers: Vec<(HeaderName, SecretString)>,
    },
    /// As a process in the session's sandbox.
    Sandboxed(Command),
}

/// A process to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The program, looked up as a shell does.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables beside those that every command of the sandbox has.
    pub variables: Vec<(String, String)>,
    /// The folder to start in; the workspace if absent.
    pub folder: Option<String>,
}

/// What is wrong with a server's object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{message}", path.join("."), if path.is_empty() { "" } else { ": " })]
pub struct Invalid {
    /// The way to the bad value below the server's object.
    pub path: Vec<String>,
    /// What is wrong with it.
    pub message: String,
}

impl Invalid {
    fn new(path: &[&str], message: impl Into<String>) -> Self {
        Self {
            path: path.iter().map(ToString::to_string).collect(),
            message: message.into(),
        }
    }
}

impl Server {
    /// Reads all servers of an agent.
    ///
    /// # Errors
    /// [`Invalid`], with the server's name first in its path.
    pub fn all(servers: &Map<String, Value>) -> Result<Vec<Self>, Invalid> {
        let read = |(name, value): (&String, &Value)| {
            Self::read(name, value).map_err(|mut invalid| {
                invalid.path.insert(0, name.clone());
                invalid
            })
        };
        servers.iter().map(read).collect()
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn read(name: &str, value: &Value) -> Result<Self, Invalid> {
        if name.trim().is_empty() || name.chars().any(char::is_control) {
            return Err(Invalid::new(&[], "A server's name must be legible"));
        }
        let Value::Object(object) = value else {
            return Err(Invalid::new(&[], "Expected object"));
        };
        let url = string(object, "url")?;
        let program = string(object, "command")?;
        let place = match (url, program) {
            (Some(url), None) => remote(&url, object)?,
            (None, Some(program)) => sandboxed(program, object)?,
            (None, None) => return Err(Invalid::new(&[], "Expected 'url' or 'command'")),
            (Some(_), Some(_)) => {
                return Err(Invalid::new(
                    &[],
                    "Expected either 'url' or 'command', received both",
                ));
            }
        };
        Ok(Self {
            name: name.to_owned(),
            place,
        })
    }
}

fn remote(url: &str, object: &Map<String, Value>) -> Result<Place, Invalid> {
    check_hint(
        object,
        &[
            "http",
            "https",
            "url",
            "streamable-http",
            "streamable_http",
            "streamableHttp",
            "streamablehttp",
        ],
    )?;
    let target = Target::parse(url).map_err(|error| Invalid::new(&["url"], error.to_string()))?;
    let mut headers = Vec::new();
    for (name, value) in map(object, "headers")? {
        let wrong = |message: String| Invalid::new(&["headers", name], message);
        let Value::String(value) = value else {
            return Err(wrong("Expected string".to_owned()));
        };
        let name = HeaderName::try_from(name).map_err(|error| wrong(error.to_string()))?;
        let ours = [
            ACCEPT,
            CONNECTION,
            CONTENT_LENGTH,
            CONTENT_TYPE,
            HOST,
            TRANSFER_ENCODING,
        ]
        .contains(&name)
            || RESERVED.contains(&name.as_str())
            || name.as_str().starts_with("mcp-param-");
        if ours {
            return Err(wrong("This header is set by the protocol".to_owned()));
        }
        HeaderValue::from_str(value).map_err(|error| wrong(error.to_string()))?;
        headers.push((name, SecretString::from(value.as_str())));
    }
    Ok(Place::Remote {
        url: target.url.into(),
        headers,
    })
}

fn sandboxed(program: String, object: &Map<String, Value>) -> Result<Place, Invalid> {
    check_hint(object, &["stdio"])?;
    if program.trim().is_empty() {
        return Err(Invalid::new(
            &["command"],
            "String must contain at least 1 character(s)",
        ));
    }
    clean(&["command"], &program)?;
    let mut arguments = Vec::new();
    match object.get("args") {
        None => {}
        Some(Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                let path = ["args", &index.to_string()];
                let Value::String(item) = item else {
                    return Err(Invalid::new(&path, "Expected string"));
                };
                clean(&path, item)?;
                arguments.push(item.clone());
            }
        }
        Some(_) => return Err(Invalid::new(&["args"], "Expected array")),
    }
    let mut variables = Vec::new();
    for (name, value) in map(object, "env")? {
        let path = ["env", name.as_str()];
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(Invalid::new(&path, "Not a name of a variable"));
        }
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => return Err(Invalid::new(&path, "Invalid input")),
        };
        clean(&path, &value)?;
        variables.push((name.clone(), value));
    }
    let folder = string(object, "cwd")?;
    if let Some(folder) = &folder {
        clean(&["cwd"], folder)?;
    }
    Ok(Place::Sandboxed(Command {
        program,
        arguments,
        variables,
        folder: folder.filter(|folder| !folder.is_empty()),
    }))
}

/// Checks what clients say of the transport beside the address or the command.
fn check_hint(object: &Map<String, Value>, known: &[&str]) -> Result<(), Invalid> {
    for field in ["type", "transport"] {
        match object.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::String(hint)) if known.contains(&hint.as_str()) => {}
            Some(Value::String(hint)) if hint == "sse" => {
                let message = "The SSE transport was replaced by streamable HTTP, which is spoken here: name \
                               the server's streamable HTTP address";
                return Err(Invalid::new(&[field], message));
            }
            Some(_) => {
                return Err(Invalid::new(
                    &[field],
                    format!("Expected one of {}", known.join(", ")),
                ));
            }
        }
    }
    Ok(())
}

fn string(object: &Map<String, Value>, field: &str) -> Result<Option<String>, Invalid> {
    match object.get(field) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Invalid::new(&[field], "Expected string")),
    }
}

fn map<'a>(
    object: &'a Map<String, Value>,
    field: &str,
) -> Result<impl Iterator<Item = (&'a String, &'a Value)>, Invalid> {
    match object.get(field) {
        None => Ok(None.into_iter().flatten()),
        Some(Value::Object(map)) => Ok(Some(map).into_iter().flatten()),
        Some(_) => Err(Invalid::new(&[field], "Expected object")),
    }
}

fn clean(path: &[&str], text: &str) -> Result<(), Invalid> {
    if text.contains('\0') {
        return Err(Invalid::new(path, "String must not contain NUL"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use serde_json::json;

    #[test]
    fn good_servers() {
        let servers = json!({
            "docs": {"url": "https://Docs.example./mcp#x", "headers": {"Authorization": "Bearer x"}, "type": "http"},
            "files": {"command": "node", "args": ["x.js", "/workspace"], "env": {"A": 1, "B": true, "C": "d"},
                      "cwd": "/workspace", "transport": "stdio", "kept": [1]},
        });
        let servers = Server::all(servers.as_object().unwrap()).unwrap();
        let Place::Remote { url, headers } = &servers[0].place else {
            panic!()
        };
        assert_eq!(url, "https://docs.example/mcp");
        assert_eq!(headers[0].0, "authorization");
        assert_eq!(headers[0].1.expose_secret(), "Bearer x");
        let Place::Sandboxed(command) = &servers[1].place else {
            panic!()
        };
        assert_eq!(
            command.variables,
            [("A", "1"), ("B", "true"), ("C", "d")].map(|(n, v)| (n.into(), v.into()))
        );
        assert!(
            !format!("{servers:?}").contains("Bearer x"),
            "secrets are not printed"
        );
    }

    #[test]
    fn bad_servers() {
        for (server, path, message) in [
            (json!(1), "", "Expected object"),
            (json!({}), "", "'url' or 'command'"),
            (json!({"url": "http://a.example", "command": "x"}), "", "both"),
            (json!({"url": "ftp://a.example"}), "url", "only http and https"),
            (json!({"url": "http://u:p@a.example"}), "url", "user name"),
            (
                json!({"url": "http://a.example", "type": "sse"}),
                "type",
                "streamable HTTP",
            ),
            (
                json!({"url": "http://a.example", "transport": "stdio"}),
                "transport",
                "Expected one of",
            ),
            (
                json!({"url": "http://a.example", "headers": {"A b": "x"}}),
                "headers.A b",
                "invalid",
            ),
            (
                json!({"url": "http://a.example", "headers": {"A": "x\ny"}}),
                "headers.A",
                "failed",
            ),
            (
                json!({"url": "http://a.example", "headers": {"Host": "b"}}),
                "headers.Host",
                "protocol",
            ),
            (
                json!({"url": "http://a.example", "headers": {"Mcp-Session-Id": "b"}}),
                "headers.Mcp-Session-Id",
                "protocol",
            ),
            (json!({"command": " "}), "command", "at least 1"),
            (json!({"command": "a\u{0}"}), "command", "NUL"),
            (
                json!({"command": "a", "args": ["b", 1]}),
                "args.1",
                "Expected string",
            ),
            (
                json!({"command": "a", "env": {"A=B": "x"}}),
                "env.A=B",
                "variable",
            ),
            (
                json!({"command": "a", "env": {"A": []}}),
                "env.A",
                "Invalid input",
            ),
            (json!({"command": "a", "type": "http"}), "type", "stdio"),
        ] {
            let invalid = Server::read("s", &server).expect_err(&server.to_string());
            assert_eq!(invalid.path.join("."), path, "{server}");
            assert!(invalid.message.contains(message), "{server}: {}", invalid.message);
        }
        assert!(Server::read(" ", &json!({"command": "a"})).is_err());
    }
}
