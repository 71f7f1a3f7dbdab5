//! The dial guard: every connection that the platform makes for a user goes through it; and the proxy of sandboxes.
//!
//! A user names an address (a page to fetch, an MCP server, a webhook), so without a guard a user could have
//! the server talk to itself, to its neighbours or to the cloud's metadata service. [`dial::Guard`] makes a
//! canonical host of what was named ([`target`]), resolves it once, checks every address ([`address`]) against
//! the operator's policy ([`policy`]), and dials an address that it has checked and no other.
//!
//! Invariant (I11): what is dialled is what was checked. Names are resolved and checked by the very lookup that
//! the connection is made from, so an answer that changes between a check and a dial changes nothing; an
//! address in a URL is checked in its canonical form, however it was spelled.
//! Invariant: a redirect is a new target, checked like the first; credentials don't follow it to another origin.
//! Invariant: bodies (after decompression), redirects and time are bounded.
//!
//! What a session's own processes send and fetch goes through [`proxy`], which adds the session's rules to the guard's.
//! Invariant: what a session may not reach, it learns nothing of: neither a byte nor an answer to a question of names.
//!
//! Where it sits: above nothing of ours; tools, and later MCP, OAuth and webhooks, use it.

pub mod address;
mod connect;
pub mod dial;
pub mod error;
pub mod policy;
mod post;
pub mod proxy;
pub mod resolve;
pub mod target;
#[cfg(test)]
mod tests;

pub use dial::{Excess, Fetched, Guard, Limits};
pub use error::Error;
pub use policy::{Policy, Rule};
