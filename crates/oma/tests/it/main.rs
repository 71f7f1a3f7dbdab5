//! Tests of the whole binary and of the workspace around it.
#![expect(clippy::expect_used, reason = "a test that can't go on has failed")]

mod arrows;
mod command_line;
mod fake_server;
mod requests;
mod server;
