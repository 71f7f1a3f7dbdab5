//! Vaults over a real store, a real issuer on loopback, and kills.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failure is to end the test")]

mod again;
mod crash;
mod issuer;
mod keys;
mod matching;
mod probe;
mod refresh;
mod setup;
