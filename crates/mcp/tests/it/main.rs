//! HTTP servers that behave and that don't, over real sockets.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that can't go on has failed"
)]

mod hostile;
mod policies;
mod server;
mod tests;
