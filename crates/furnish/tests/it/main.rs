//! What sessions have beside their workspaces, over stores that are real and sandboxes that are not.
#![expect(clippy::unwrap_used, reason = "these are tests; a failure is to end them")]
#![expect(clippy::panic, reason = "as above")]

mod environments;
mod memories;
