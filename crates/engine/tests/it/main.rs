//! The engine over the real store, with a runtime whose every step the test decides.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on fails")]

mod deployments;
mod follow;
mod puppet;
mod recovery;
mod sessions;
mod webhooks;
