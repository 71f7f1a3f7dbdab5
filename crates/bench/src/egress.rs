//! What the way out of a sandbox costs: the same `curl` in a sandbox, through the server's proxy, and outside, without.

use std::convert::Infallible;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::body::{Body, Bytes};
use axum::routing::get;
use futures_util::{StreamExt, stream};
use serde_json::json;

use crate::server::{Dialect, Server, text};
use crate::stats::{Samples, Table};

/// How much the large answer has, and each piece of it.
const LARGE: usize = 512 << 20;
const PIECE: usize = 256 << 10;
/// Requests that are not counted: those that connect.
const WARM_UP: usize = 5;

pub(crate) async fn measure(oma: &Path, requests: usize, table: &mut Table) -> Result<()> {
    let app = axum::Router::new()
        .route("/small", get(async || "fine"))
        .route("/large", get(large));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let web = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });

    let data = tempfile::tempdir()?;
    let allow = web.to_string();
    let variables = [("OPENCLAW_SANDBOX_EGRESS_ALLOW", allow.as_str())];
    let server = Server::start_with(oma, data.path(), "http://127.0.0.1:9/v1", &variables).await?;
    let small = format!(
        "curl -s -o /dev/null -w '%{{time_total}}\\n' 'http://{web}/small?[1-{}]'",
        requests + WARM_UP
    );
    let large = format!("curl -s -o /dev/null -w '%{{time_total}}' http://{web}/large");
    // In the sandbox that address is another machine's, so it is left to the proxy; the large one through a tunnel.
    let inside = |command: &str| format!("export NO_PROXY= no_proxy=; {command}");
    let tunnelled = inside(&large.replace("curl", "curl -p"));

    let direct = outside(&small).await?;
    let proxied = in_sandbox(&server, &inside(&small)).await?;
    table.row(
        "a request through the proxy",
        &samples(&proxied)?,
        "< direct + 1 ms",
        Some(("without", &samples(&direct)?)),
    );
    let seconds = |said: &str| {
        said.trim()
            .parse::<f64>()
            .with_context(|| format!("no time: {said}"))
    };
    let direct = seconds(&outside(&large).await?)?;
    let proxied = seconds(&in_sandbox(&server, &tunnelled).await?)?;
    let rate = |seconds: f64| format!("{:.0} MiB/s", (LARGE >> 20) as f64 / seconds);
    let beside = format!("without {} (x{:.2})", rate(direct), direct / proxied);
    table.figure("a download through a tunnel", rate(proxied), "> x0.70", &beside);
    Ok(())
}

async fn large() -> Body {
    let piece = Bytes::from(vec![0; PIECE]);
    Body::from_stream(stream::repeat(piece).take(LARGE / PIECE).map(Ok::<_, Infallible>))
}

async fn outside(command: &str) -> Result<String> {
    let mut shell = Command::new("bash");
    shell
        .args(["-c", command])
        .env("NO_PROXY", "*")
        .env("no_proxy", "*");
    let output = tokio::task::spawn_blocking(move || shell.output()).await??;
    Ok(String::from_utf8(output.stdout)?)
}

/// What a command in a sandbox of its own prints.
async fn in_sandbox(server: &Server, command: &str) -> Result<String> {
    let turn = json!([[{"tool": "bash", "input": {"command": command}}], [{"text": "{{last_tool_result}}"}]]);
    let script = json!({"turns": [turn]}).to_string();
    let agent = json!({"model": "scripted/script", "instructions": script});
    let agent = text(&server.post("/v1/agents", agent).await?, "agent_id")?;
    let session = server.session(&agent).await?;
    let mut events = server.follow(Dialect::Openclaw, &session).await?;
    server.say(Dialect::Openclaw, &session, "go").await?;
    while events.next().await.context("the stream ended")?? != "session.status_idle" {}
    let session = server
        .get_as(Dialect::Openclaw, &format!("/v1/sessions/{session}"))
        .await?;
    text(&session, "output")
}

fn samples(said: &str) -> Result<Samples> {
    let mut samples = Samples::default();
    for line in said.lines().skip(WARM_UP) {
        let seconds = line.trim().parse().with_context(|| format!("no time: {line}"))?;
        samples.add(Duration::from_secs_f64(seconds));
    }
    if said.lines().count() <= WARM_UP {
        bail!("nothing was measured: {said}");
    }
    Ok(samples)
}
