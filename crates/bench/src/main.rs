//! Measures the real binary from outside, over HTTP, and prints one table.
//!
//! Every figure stands beside a floor that was measured in the same run on the same machine: what the same thing
//! costs without us (a bare request to the provider, a bare SQLite commit). See `bench/README.md`.
//!
//! Where it sits: a program of its own; nothing depends on it.
#![expect(clippy::print_stdout, reason = "this program's whole output is its table")]

mod children;
mod egress;
mod floor;
mod guards;
mod history;
mod idle;
mod provider;
mod server;
mod stats;
mod tls;
mod turns;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

use stats::Table;

/// Measures a release build of `oma`.
#[derive(Parser)]
struct Args {
    /// The binary to measure.
    #[arg(long, default_value = "target/release/oma")]
    oma: PathBuf,
    /// How many turns to time.
    #[arg(long, default_value_t = 300)]
    turns: usize,
    /// How many sessions the idle and restart figures use.
    #[arg(long, default_value_t = 10_000)]
    sessions: usize,
    /// How many followers wait on idle sessions.
    #[arg(long, default_value_t = 1_000)]
    followers: usize,
    /// How many agents a session calls at once.
    #[arg(long, default_value_t = 100)]
    children: usize,
    /// How many requests the cost of authentication, limits and audit is taken from.
    #[arg(long, default_value_t = 20_000)]
    requests: usize,
    /// How many events the long log has.
    #[arg(long, default_value_t = 50_000)]
    events: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let mut table = Table::default();
    turns::measure(&args.oma, args.turns, &mut table).await?;
    children::measure(&args.oma, args.children, &mut table).await?;
    egress::measure(&args.oma, args.turns, &mut table).await?;
    guards::measure(&args.oma, args.requests, &mut table).await?;
    history::measure(&args.oma, args.events, &mut table).await?;
    idle::measure(&args.oma, args.sessions, args.followers, &mut table).await?;
    print!("{table}");
    Ok(())
}
