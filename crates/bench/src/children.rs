//! A session that has many others work for it at once.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use crate::provider::Provider;
use crate::server::{Dialect, Server, text};
use crate::stats::{Samples, Table};

/// How often it is done.
const TIMES: usize = 10;

pub(crate) async fn measure(oma: &Path, children: usize, table: &mut Table) -> Result<()> {
    let data = tempfile::tempdir()?;
    let provider = Provider::start().await?;
    let server = Server::start(oma, data.path(), &provider.url).await?;
    let echo = text(
        &server
            .post("/v1/agents", json!({"model": "scripted/echo"}))
            .await?,
        "agent_id",
    )?;
    let calls: Vec<Value> = (0..children)
        .map(|number| json!({"tool": "call_agent", "input": {"agent": echo, "task": number.to_string()}}))
        .collect();
    let caller = json!({
        "model": "scripted/script",
        "instructions": json!([[calls, {"text": "done"}]]).to_string(),
        "callableAgents": [echo],
        "maxSubagentDepth": 1,
    });
    let caller = text(&server.post("/v1/agents", caller).await?, "agent_id")?;
    let [mut delegated, mut alone] = std::array::from_fn(|_| Samples::default());
    for _ in 0..TIMES {
        let began = Instant::now();
        let results = turn(&server, &caller).await?;
        delegated.add(began.elapsed());
        ensure!(results == children, "{results} of {children} came back");
        let began = Instant::now();
        let turns = stream::iter(0..children).map(|_| turn(&server, &echo));
        turns.buffer_unordered(children).try_collect::<Vec<_>>().await?;
        alone.add(began.elapsed());
    }
    table.row(
        &format!("{children} agents called at once"),
        &delegated,
        "-",
        Some(("as many clients' sessions", &alone)),
    );
    Ok(())
}

/// A turn of a new session; gives the number of results of tools.
async fn turn(server: &Server, agent: &str) -> Result<usize> {
    let session = server.session(agent).await?;
    let mut events = server.follow(Dialect::Openclaw, &session).await?;
    server.say(Dialect::Openclaw, &session, "go").await?;
    let mut results = 0;
    loop {
        match events.next().await.context("the stream ended")??.as_str() {
            "agent.tool_result" => results += 1,
            "session.status_idle" => return Ok(results),
            _ => {}
        }
    }
}
