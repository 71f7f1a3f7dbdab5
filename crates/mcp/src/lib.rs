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

pub use config::Server;
pub use error::Error;
pub use hub::{Config, Handle, Hub};
pub use names::names_no_server;
pub use set::{Ready, Trouble};
pub use token::{NoTokens, TokenSource};
pub use tools::{Definition, Tools};
