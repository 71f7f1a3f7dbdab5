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
use tokio::time::{Instant, sleep_until};

use crate::server::{Dialect, Server, text};
use crate::stats::{Samples, Table};
use crate::tls::Listener;

/// How much the large answer has, and each piece of it.
const LARGE: usize = 512 << 20;
const PIECE: usize = 256 << 10;
/// What a link of 10 Gbit/s lets pass in a millisecond, in bytes, and how much of its time it can make up for.
const TICK: Duration = Duration::from_millis(1);
const BURST: usize = 1_250_000;
const BUFFERED: Duration = Duration::from_millis(10);
/// Downloads each way, one after the other: of each the median counts.
const DOWNLOADS: usize = 5;
/// Requests that are not counted: those that connect.
const WARM_UP: usize = 5;

pub(crate) async fn measure(oma: &Path, requests: usize, table: &mut Table) -> Result<()> {
    let app = axum::Router::new()
        .route("/small", get(async || "fine"))
        .route("/large", get(large))
        .route("/link", get(over_a_link));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let web = listener.local_addr()?;
    let over_tls = Listener::bind().await?;
    let secure = axum::serve::Listener::local_addr(&over_tls)?;
    let same = app.clone();
    tokio::spawn(async move { axum::serve(listener, app).await });
    tokio::spawn(async move { axum::serve(over_tls, same).await });

    let data = tempfile::tempdir()?;
    let allow = format!("{web},{secure}");
    let variables = [("OPENCLAW_SANDBOX_EGRESS_ALLOW", allow.as_str())];
    let server = Server::start_with(oma, data.path(), "http://127.0.0.1:9/v1", &variables).await?;
    let small = format!(
        "curl -s -o /dev/null -w '%{{time_total}}\\n' 'http://{web}/small?[1-{}]'",
        requests + WARM_UP
    );
    // In the sandbox that address is another machine's, so it is left to the proxy.
    let inside = |command: &str| format!("export NO_PROXY= no_proxy=; {command}");

    let direct = outside(&small).await?;
    let proxied = in_sandbox(&server, &inside(&small)).await?;
    table.row(
        "a request through the proxy",
        &samples(&proxied)?,
        "< direct + 1 ms",
        Some(("without", &samples(&direct)?)),
    );
    // What a tunnel is for comes first: whoever says nothing of the kind at 443 gets none.
    let kinds = [
        (
            "a download over TLS through a tunnel",
            format!("curl -k https://{secure}/large"),
        ),
        ("the same in the clear", format!("curl -p http://{web}/large")),
        ("the same without a tunnel", format!("curl http://{web}/large")),
        (
            "a download at 10 Gbit/s over TLS",
            format!("curl -k https://{secure}/link"),
        ),
        ("at 10 Gbit/s in the clear", format!("curl -p http://{web}/link")),
        ("at 10 Gbit/s without a tunnel", format!("curl http://{web}/link")),
    ];
    for (name, command) in kinds {
        let timed = format!("{command} -s -o /dev/null -w '%{{time_total}}'");
        let (mut direct, mut proxied) = (Vec::new(), Vec::new());
        for _ in 0..DOWNLOADS {
            direct.push(rate(&outside(&timed).await?)?);
            proxied.push(rate(&in_sandbox(&server, &inside(&timed)).await?)?);
        }
        let (direct, proxied) = (median(direct), median(proxied));
        let beside = format!("without {direct:.0} MiB/s (x{:.2})", proxied / direct);
        table.figure(name, format!("{proxied:.0} MiB/s"), "> x0.70", &beside);
    }
    Ok(())
}

/// MiB a second, of what `curl` says that the large answer took.
fn rate(said: &str) -> Result<f64> {
    let seconds = said.trim().parse::<f64>();
    Ok((LARGE >> 20) as f64 / seconds.with_context(|| format!("no time: {said}"))?)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

async fn large() -> Body {
    let piece = Bytes::from(vec![0; PIECE]);
    Body::from_stream(stream::repeat(piece).take(LARGE / PIECE).map(Ok::<_, Infallible>))
}

/// The same at the pace of a link. On loopback a host is as fast as the cores of this machine, and shares them with all.
async fn over_a_link() -> Body {
    let burst = Bytes::from(vec![0; BURST]);
    let paced = stream::unfold((Instant::now(), LARGE), move |(free, left)| {
        let piece = burst.slice(..left.min(BURST));
        async move {
            if left == 0 {
                return None;
            }
            // Time in which nobody took anything is lost, but for what fits into buffers on the way.
            let free = free.max(Instant::now() - BUFFERED) + TICK;
            sleep_until(free).await;
            let left = left.saturating_sub(piece.len());
            Some((Ok::<_, Infallible>(piece), (free, left)))
        }
    });
    Body::from_stream(paced)
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
