//! The openai dialect: chat completions, answered by an agent's session.
//!
//! An agent has its own instructions, model, tools and history, so of the request only the last user message
//! counts. A session that is named (by header or by `user`) is kept and goes on with the next request; without
//! a name each request gets a session of its own, which goes away by itself.

pub mod body;
mod chat;
pub mod error;
mod reply;
mod stream;
mod turn;

pub(crate) use chat::routes;
