//! MCP servers: this dialect knows those that have a URL. Others, and the headers of these, are an agent's through the
//! other dialect; they stay as they are.

use oma_domain::agent::Spec;
use serde_json::{Map, Value, json};

use crate::dialects::claude::body::object;
use crate::validate::checks::{list, one_of, text, url};
use crate::validate::{Object, Tree};

/// The most servers.
const SERVERS: usize = 20;
/// The longest name, in characters.
const NAME: usize = 255;
/// The longest URL, in characters.
const URL: usize = 2_048;

/// A server that a client names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerChoice {
    pub(crate) name: String,
    pub(crate) url: String,
}

/// Reads the list of servers.
pub(crate) fn mcp_servers(value: &Value, issues: &mut Tree) -> Option<Vec<ServerChoice>> {
    let server = |value: &Value, issues: &mut Tree| object(&["type", "name", "url"], read)(value, issues);
    let servers: Vec<ServerChoice> = list(0, SERVERS, server)(value, issues)?;
    for (index, server) in servers.iter().enumerate() {
        if servers[..index].iter().any(|earlier| earlier.name == server.name) {
            let problem = format!("There is another server called '{}'", server.name);
            issues.at(&index.to_string()).at("name").push(problem);
            return None;
        }
    }
    Some(servers)
}

fn read(object: &mut Object<'_>) -> Option<ServerChoice> {
    let kind = object.required("type", one_of(&["url"]));
    let name = object.required("name", text(1, NAME));
    let url = object.required("url", url(URL));
    kind?;
    let server = ServerChoice {
        name: name?,
        url: url?,
    };
    if let Err(invalid) = oma_mcp::Server::read(&server.name, &json!({"url": server.url})) {
        let place = if invalid.path.is_empty() { "name" } else { "url" };
        object.issues().at(place).push(invalid.message);
        return None;
    }
    Some(server)
}

/// The servers that this dialect knows, with their URLs.
pub(super) fn remote(spec: &Spec) -> impl Iterator<Item = (&str, &str)> {
    spec.mcp_servers.iter().filter_map(|(name, server)| {
        let url = server.get("url")?.as_str()?;
        Some((name.as_str(), url))
    })
}

/// Puts these servers in the place of those that this dialect knows. One that stays keeps its headers.
pub(crate) fn replace_servers(spec: &mut Spec, servers: Vec<ServerChoice>) {
    let mut next: Map<String, Value> = Map::new();
    for ServerChoice { name, url } in servers {
        let same = |server: &&Value| server.get("url").and_then(Value::as_str) == Some(url.as_str());
        let kept = spec.mcp_servers.get(&name).filter(same).cloned();
        next.insert(name, kept.unwrap_or_else(|| json!({"url": url})));
    }
    for (name, server) in &spec.mcp_servers {
        if server.get("url").is_none() && !next.contains_key(name) {
            next.insert(name.clone(), server.clone());
        }
    }
    spec.mcp_servers = next;
}
