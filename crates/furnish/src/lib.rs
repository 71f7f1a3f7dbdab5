//! What sessions have beside their workspaces: memory stores and skills, which live in the store, and a way out.
//!
//! [`Skills`] puts the skills of a session's agent below `/mnt/skills`, once. [`Memories`] puts copies of its memory
//! stores below `/mnt/memory`, brings what others changed, and takes back what the session wrote: after each tool that
//! ran in the sandbox, before the tool's result is committed. [`Network`] lets its processes out as far as its
//! environment allows.
//!
//! Invariants kept here:
//! - what a session wrote is in the store, with a version of its own, before the result of the tool that wrote it is in
//!   the log; after a crash it is found by comparing the copy with what it was, which is durable;
//! - a copy gets what others changed only after what the session wrote has been taken back, so nothing that it wrote is
//!   overwritten unseen; where both changed the same memory the session's word is the last, and the other's is a version;
//! - what can't be taken back is told to the model, once;
//! - a store that a session may only read is changed by nothing that the session does.
//!
//! Where it sits: above the store and the sandboxes, below the runtime, which asks for it between tools.

pub mod environments;
mod memories;
mod network;
mod replica;
mod scan;
mod skills;
pub mod worker;

pub use environments::Environments;
pub use memories::Memories;
pub use network::Network;
pub use skills::Skills;

use oma_sandbox::Error;

/// The sandbox should not be used: what belongs into it could not be put there.
fn failed(what: &str, error: impl std::fmt::Display) -> Error {
    Error::Io {
        what: what.to_owned(),
        source: std::io::Error::other(error.to_string()),
    }
}
