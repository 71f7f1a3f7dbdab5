//! Tests of the whole binary and of the workspace around it.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that can't go on has failed"
)]

mod advisors;
mod api;
mod arrows;
mod bombs;
mod builds;
mod checkpoints;
mod command_line;
mod containers;
mod crash;
mod credentials;
mod disk;
mod egress;
mod environments;
mod fake_server;
mod governance;
mod inline;
mod installs;
mod isolation;
mod mcp;
mod memories;
mod metrics;
mod network;
#[cfg(feature = "otel")]
mod otel;
mod outcomes;
mod registries;
mod repositories;
mod requests;
mod secrets;
mod server;
mod signup;
mod stopping;
mod system;
mod tenant_files;
mod tenants;
mod terminal;
mod vaults;
mod warm;
mod workflows;
