//! The adapters against the fake provider, which checks every request that they make.

mod answers;
mod failures;
mod harness;
mod quirks;
mod requests;
