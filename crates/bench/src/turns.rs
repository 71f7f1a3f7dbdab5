//! Turns with a model that answers at once: what we add.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use serde_json::json;

use crate::floor;
use crate::provider::Provider;
use crate::server::Server;
use crate::stats::{Samples, Table};

/// Turns that warm everything up and are not counted.
const WARM_UP: usize = 20;

pub(crate) async fn measure(oma: &Path, turns: usize, table: &mut Table) -> Result<()> {
    let data = tempfile::tempdir()?;
    let mut provider = Provider::start().await?;
    let server = Server::start(oma, data.path(), &provider.url).await?;
    let agent = server.agent().await?;
    let session = server.session(&agent).await?;
    let mut events = server.follow(&session).await?;
    let path = format!("/v1/sessions/{session}/events");
    let [mut whole, mut posts, mut reach, mut deliver] = std::array::from_fn(|_| Samples::default());
    for turn in 0..turns + WARM_UP {
        let began = Instant::now();
        server.post(&path, json!({"content": "hi"})).await?;
        let posted = began.elapsed();
        let mut said = None;
        loop {
            let event = events.next().await.context("the stream ended")??;
            match event.as_str() {
                "agent.message" => said = Some(Instant::now()),
                "session.status_idle" => break,
                _ => {}
            }
        }
        let ended = Instant::now();
        let served = provider.served.recv().await.context("no request came")?;
        if turn >= WARM_UP {
            posts.add(posted);
            whole.add(ended - began);
            reach.add(served.came.saturating_duration_since(began));
            deliver.add(
                said.context("no message")?
                    .saturating_duration_since(served.answered),
            );
        }
    }
    let bare = floor::request(&provider.url, turns).await?;
    while provider.served.try_recv().is_ok() {}
    let commit = floor::commit(data.path(), turns)?;
    table.row(
        "a whole turn, POST to idle",
        &whole,
        "< 5 ms",
        Some(("bare model request", &bare)),
    );
    table.row("POST to 2xx", &posts, "-", Some(("bare SQLite commit", &commit)));
    table.row(
        "POST to model request",
        &reach,
        "< 3 ms",
        Some(("bare SQLite commit", &commit)),
    );
    table.row(
        "end of answer to SSE client",
        &deliver,
        "< 2 ms",
        Some(("bare SQLite commit", &commit)),
    );
    first_command(&server, &agent, turns.min(40), table).await
}

/// The first tool of a session: its sandbox is begun when the model begins to write the tool use.
async fn first_command(server: &Server, agent: &str, times: usize, table: &mut Table) -> Result<()> {
    let mut samples = Samples::default();
    for _ in 0..times {
        let session = server.session(agent).await?;
        let mut events = server.follow(&session).await?;
        server
            .post(
                &format!("/v1/sessions/{session}/events"),
                json!({"content": "use a tool"}),
            )
            .await?;
        let mut used = None;
        loop {
            let event = events.next().await.context("the stream ended")??;
            match event.as_str() {
                "agent.tool_use" => used = Some(Instant::now()),
                "agent.tool_result" => samples.add(used.context("no tool use")?.elapsed()),
                "session.status_idle" => break,
                _ => {}
            }
        }
    }
    table.row("first command in a fresh sandbox", &samples, "< 25 ms", None);
    Ok(())
}
