//! Many idle sessions and followers: what they cost while nothing happens, and at a restart.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::provider::Provider;
use crate::server::{Dialect, Server};
use crate::stats::{SAME, Samples, Table};

/// How many requests are under way while the sessions are made.
const PARALLEL: usize = 16;
/// How long the idle followers are watched.
const WATCH: Duration = Duration::from_secs(20);

pub(crate) async fn measure(oma: &Path, sessions: usize, followers: usize, table: &mut Table) -> Result<()> {
    let data = tempfile::tempdir()?;
    let provider = Provider::start().await?;
    let ids = {
        let mut server = Server::start(oma, data.path(), &provider.url).await?;
        let agent = server.agent().await?;
        let server_ref = &server;
        let agent_ref = agent.as_str();
        let run = |_| async move {
            let session = server_ref.session(agent_ref).await?;
            let mut events = server_ref.follow(Dialect::Openclaw, &session).await?;
            server_ref.say(Dialect::Openclaw, &session, "hi").await?;
            while let Some(event) = events.next().await {
                if event? == "session.status_idle" {
                    break;
                }
            }
            anyhow::Ok(session)
        };
        // The first ones also pay for what is made only once.
        let first: Vec<String> = stream::iter(0..200)
            .map(run)
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        let before = server.memory_kib()?;
        let rest: Vec<String> = stream::iter(200..sessions)
            .map(run)
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        let grown = server.memory_kib()?.saturating_sub(before);
        let each = grown as f64 / rest.len().max(1) as f64;
        let figure = format!("{each:.2} KiB each");
        table.figure(
            &format!("memory with {sessions} idle sessions"),
            figure,
            "< 20 KiB",
            &format!("whole server {} MiB", server.memory_kib()? / 1024),
        );
        server.kill()?;
        [first, rest].concat()
    };
    let mut restart = Samples::default();
    for _ in 0..5 {
        let mut server = Server::start(oma, data.path(), &provider.url).await?;
        restart.add(server.ready_after);
        server.kill()?;
    }
    table.row(
        &format!("restart to ready with {sessions} sessions"),
        &restart,
        "< 1 s",
        None,
    );
    let ids = &ids[..followers.min(ids.len())];
    for (dialect, what) in [
        (Dialect::Openclaw, format!("{} idle followers", ids.len())),
        (Dialect::Claude, SAME.to_owned()),
    ] {
        // Each on a server of its own, so that one's memory is not the other's.
        let server = Server::start(oma, data.path(), &provider.url).await?;
        let (share, each) = followed(&server, ids, dialect).await?;
        let beside = format!("{each:.1} KiB each");
        table.figure(&what, format!("{share:.2} % of a core"), "< 2 %", &beside);
    }
    Ok(())
}

/// Follows idle sessions for a while; gives the share of a processor in percent and the memory of each in KiB.
async fn followed(server: &Server, ids: &[String], dialect: Dialect) -> Result<(f64, f64)> {
    let before = server.memory_kib()?;
    let mut streams = Vec::with_capacity(ids.len());
    for id in ids {
        // One dialect tells what is over first, the other says a word of greeting; then nothing happens.
        let mut events = server.follow(dialect, id).await?;
        events.next().await.context("the stream ended")??;
        streams.push(tokio::spawn(
            async move { while events.next().await.is_some() {} },
        ));
    }
    let memory = server.memory_kib()?.saturating_sub(before);
    let cpu = server.cpu()?;
    tokio::time::sleep(WATCH).await;
    let share = (server.cpu()? - cpu).as_secs_f64() / WATCH.as_secs_f64() * 100.0;
    Ok((share, memory as f64 / streams.len().max(1) as f64))
}
