//! The API over the real engine and store, with a runtime that does what the user's message says.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on fails")]

mod access;
mod agents;
mod audit;
mod chat;
mod claude;
mod declared;
mod environments;
mod events;
mod files;
mod keys;
mod openapi;
mod policies;
mod projection;
mod puppet;
mod server;
mod sessions;
mod stream;
mod usage;
mod vaults;
