//! What stands between a client and its answer: authentication, limits and the audit trail, in CPU time of the
//! server. Requests come side by side, as on a busy day, so that the audit's commits are shared as they would be.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::Method;

use crate::provider::Provider;
use crate::server::Server;
use crate::stats::Table;

const TOKEN: &str = "bench-token";
/// How many requests are under way at once.
const PARALLEL: usize = 16;
/// Requests that warm everything up and are not counted.
const WARM_UP: usize = 2_000;

pub(crate) async fn measure(oma: &Path, requests: usize, table: &mut Table) -> Result<()> {
    let provider = Provider::start().await?;
    let with = async |variables: &[(&str, &str)]| {
        let data = tempfile::tempdir()?;
        let server = Server::start_with(oma, data.path(), &provider.url, variables).await?;
        let read = cost(&server, Method::GET, 200, "/v1/agents", requests).await?;
        // Both are refused for what they say, before anything is looked up; only the second is an attempt at a change.
        let refused = cost(&server, Method::GET, 400, "/v1/agents?limit=0", requests).await?;
        let audited = cost(&server, Method::POST, 400, "/v1/agents", requests).await?;
        anyhow::Ok((read, audited - refused))
    };
    let (bare, _) = with(&[]).await?;
    let (known, _) = with(&[("OPENCLAW_API_TOKEN", TOKEN)]).await?;
    let both = [
        ("OPENCLAW_API_TOKEN", TOKEN),
        ("OPENCLAW_RATE_LIMIT_RPM", "1000000"),
    ];
    let (limited, audit) = with(&both).await?;
    let beside = format!("a whole read without both {bare:.1} us");
    for (what, adds) in [
        ("authentication adds", known - bare),
        ("rate limits add", limited - known),
        ("an audit entry adds", audit),
    ] {
        table.figure(what, format!("{adds:.1} us of CPU"), "< 50 us", &beside);
    }
    Ok(())
}

/// Microseconds of the server's CPU time for a request.
async fn cost(server: &Server, method: Method, status: u16, path: &str, requests: usize) -> Result<f64> {
    run(server, &method, status, path, WARM_UP).await?;
    let before = server.cpu()?;
    run(server, &method, status, path, requests).await?;
    let used: Duration = server.cpu()? - before;
    Ok(used.as_secs_f64() * 1e6 / requests as f64)
}

async fn run(server: &Server, method: &Method, status: u16, path: &str, requests: usize) -> Result<()> {
    let url = format!("{}{path}", server.url);
    let send = |_| async {
        let request = server
            .http
            .request(method.clone(), &url)
            .bearer_auth(TOKEN)
            .body("{}");
        let answer = request.send().await?;
        if answer.status() != status {
            bail!("{method} {path}: {} {}", answer.status(), answer.text().await?);
        }
        // To the end, so that the connection serves the next request.
        answer.bytes().await?;
        Ok(())
    };
    stream::iter(0..requests)
        .map(send)
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await
}
