//! Pages of a long log.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use oma_domain::event::Body;
use oma_domain::{ContentBlock, Event, EventId, Seq, SessionId, Timestamp, WorkspaceId};
use oma_store::sqlite::Sqlite;
use oma_store::{Commit, Store};
use serde_json::Value;

use crate::provider::Provider;
use crate::server::{Dialect, Server};
use crate::stats::{AIM, SAME, Samples, Table};

const BATCH: usize = 500;

pub(crate) async fn measure(oma: &Path, events: usize, table: &mut Table) -> Result<()> {
    let data = tempfile::tempdir()?;
    let provider = Provider::start().await?;
    let id = {
        let mut server = Server::start(oma, data.path(), &provider.url).await?;
        let agent = server.agent().await?;
        let id = server.session(&agent).await?;
        server.kill()?;
        id
    };
    let cursors = fill(data.path(), &id, events).await?;
    let server = Server::start(oma, data.path(), &provider.url).await?;
    let [mut samples, mut claude] = [Samples::default(), Samples::default()];
    let deeper = depths(&server, &id).await?;
    for round in 0..3 {
        for (cursor, deeper) in cursors.iter().zip(&deeper) {
            let path = format!("/v1/sessions/{id}/events?limit=100&after={cursor}");
            let taken = page(&server, Dialect::Openclaw, &path, "events").await?;
            let path = format!("/v1/sessions/{id}/events?limit=100&page={deeper}");
            let taken_in_claude = page(&server, Dialect::Claude, &path, "data").await?;
            if round > 0 {
                samples.add(taken);
                claude.add(taken_in_claude);
            }
        }
    }
    table.row(
        &format!("page of 100 from a log of {events}"),
        &samples,
        "< 3 ms",
        None,
    );
    table.row(SAME, &claude, AIM, Some(("openclaw dialect", &samples)));
    Ok(())
}

/// Times a page of 100 whose rows are in this field.
async fn page(server: &Server, dialect: Dialect, path: &str, field: &str) -> Result<Duration> {
    let began = Instant::now();
    let page = server.get_bytes_as(dialect, path).await?;
    let taken = began.elapsed();
    let page: Value = serde_json::from_slice(&page)?;
    let rows = page[field].as_array().context("no events")?.len();
    anyhow::ensure!(rows == 100, "a page of {rows}");
    Ok(taken)
}

/// Cursors of the Claude dialect, one for each thousand events of a session but the last.
async fn depths(server: &Server, session: &str) -> Result<Vec<String>> {
    let path = format!("/v1/sessions/{session}/events?limit=1000");
    let mut cursors = Vec::new();
    let mut page = server.get_as(Dialect::Claude, &path).await?;
    while let Some(next) = page["next_page"].as_str() {
        cursors.push(next.to_owned());
        page = server
            .get_as(Dialect::Claude, &format!("{path}&page={next}"))
            .await?;
    }
    Ok(cursors)
}

/// Writes a long log and returns cursors spread over its depth.
async fn fill(data: &Path, session: &str, events: usize) -> Result<Vec<EventId>> {
    let store = Sqlite::open(data, &Default::default())?;
    let workspace = WorkspaceId::default_workspace();
    let id = SessionId::parse(session)?;
    let mut cursors = Vec::new();
    let mut head = Seq(0);
    let mut written = 0;
    while written < events {
        let session = store
            .session(&workspace, &id)
            .await?
            .context("the session is gone")?;
        let expected_head = head;
        let mut batch = Vec::with_capacity(BATCH);
        for _ in 0..BATCH.min(events - written) {
            head = head.next();
            let content = vec![ContentBlock::text(format!(
                "message {} {}",
                head.0,
                "text ".repeat(20)
            ))];
            let body = Arc::new(Body::UserMessage { content, from: None });
            let event = EventId::generate();
            if written % (events / 40).max(1) == 0 && written + 101 < events {
                cursors.push(event.clone());
            }
            batch.push(Event {
                id: event,
                seq: head,
                session: id.clone(),
                at: Timestamp(1),
                body,
            });
            written += 1;
        }
        let commit = Commit {
            workspace: workspace.clone(),
            session: id.clone(),
            expected_head,
            events: batch,
            queue: Vec::new(),
            state: session.state,
            output: None,
            evaluations: None,
            agent: None,
            needs_agent: None,
            once: None,
            used: None,
            audit: None,
        };
        store.commit(commit).await?;
    }
    Ok(cursors)
}
