//! The fake provider as a program, for tests and benches that are not written in Rust.
//!
//! It prints its address as the only line on standard output. `GET /requests` and `GET /violations` show what
//! it has seen.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::Parser;
use oma_fake_provider::{FakeProvider, script};

/// A fake model provider: speaks the wire protocols from a script and checks every request.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The port on 127.0.0.1; 0 for a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// A JSON file with a list of replies, one for each request in order. After them, and without a file, the
    /// conversation drives: a user text `script:[…]` holds replies, any other is echoed.
    script: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let provider = FakeProvider::bind(SocketAddr::from(([127, 0, 0, 1], arguments.port))).await?;
    if let Some(path) = arguments.script {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let replies = script::replies(&text).map_err(|error| anyhow!("{}: {error}", path.display()))?;
        for reply in replies {
            provider.push(reply);
        }
    }
    let mut out = std::io::stdout();
    writeln!(out, "{}", provider.url())?;
    out.flush()?;
    provider.run().await;
    Ok(())
}
