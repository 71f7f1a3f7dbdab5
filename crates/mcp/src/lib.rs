//! The tools of MCP servers, for the agents that name some.
//!
//! A server that has a URL is called from here over streamable HTTP, through the dial guard; one that has a
//! command runs inside the session's sandbox. [`Hub`] keeps the connections of the sessions that are at work,
//! [`Tools`] is what they offer at one moment, under the names that the model is told. The protocol itself is
//! the official SDK's, which no other crate sees.
//!
//! Invariant: every dial goes through the guard, redirects included (I11), and to its origin only.
//! Invariant: a token is asked for at each request, sent to the server that it is for, and is in no error, log
//! or result (I9).
//! Invariant: a server that is down, slow or hostile costs a session bounded time and memory, and nothing else.
//! Invariant: a call that may have run is not made again (I6).
//!
//! Where it sits: above the sandbox and egress, below the native runtime.

pub mod config;
mod connection;
mod error;
mod hub;
mod link;
mod names;
mod outcome;
mod remote;
mod secrets;
mod set;
mod streams;
mod token;
mod tools;

use oma_domain::agent::Spec;
use oma_domain::origin::{Origin, ServerTool};

pub use config::Server;
pub use error::Error;
pub use hub::{Config, Handle, Hub};
pub use names::names_no_server;
pub use set::{Ready, Trouble};
pub use token::{NoTokens, TokenSource};
pub use tools::{Definition, Tools};

/// What the names of each server's tools begin with, in the same order, for an agent with just these servers.
#[must_use]
pub fn prefixes(servers: &[&str]) -> Vec<String> {
    let names = names::of_servers(servers);
    names
        .into_iter()
        .map(|name| format!("{}{name}__", oma_domain::policy::MCP_PREFIX))
        .collect()
}

/// Where a tool comes from that an agent's servers do not offer now, by its name alone; and who is to say whether it runs.
#[must_use]
pub fn origin(spec: &Spec, tool: &str) -> Origin {
    let names: Vec<&str> = spec.mcp_servers.keys().map(String::as_str).collect();
    let found = prefixes(&names)
        .into_iter()
        .zip(names)
        .find_map(|(prefix, server)| {
            let tool = tool.strip_prefix(&prefix)?.to_owned();
            let server = server.to_owned();
            Some(ServerTool { server, tool })
        });
    Origin::of(&spec.permission_policy, &[tool], found)
}

/// The name under which a model is told of a server's tool, unless another tool of that server would have the same one.
/// `prefix` is one of [`prefixes`].
#[must_use]
pub fn tool_name(prefix: &str, tool: &str) -> String {
    let server = prefix
        .strip_prefix(oma_domain::policy::MCP_PREFIX)
        .unwrap_or(prefix);
    let server = server.strip_suffix("__").unwrap_or(server);
    names::of_tools(server, &[tool]).pop().unwrap_or_default()
}
