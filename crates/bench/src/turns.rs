//! Turns with a model that answers at once: what we add, through each dialect. The dialects take turns on one server, so
//! that whatever else the machine does is the same for both.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use futures_util::{Stream, StreamExt};

use crate::floor;
use crate::provider::Provider;
use crate::server::{Dialect, Server};
use crate::stats::{AIM, SAME, Samples, Table};

/// Turns that warm everything up and are not counted.
const WARM_UP: usize = 20;

/// What is timed of a turn.
#[derive(Default)]
struct Figures {
    whole: Samples,
    posts: Samples,
    reach: Samples,
    deliver: Samples,
    command: Samples,
}

pub(crate) async fn measure(oma: &Path, turns: usize, table: &mut Table) -> Result<()> {
    let data = tempfile::tempdir()?;
    let mut provider = Provider::start().await?;
    let server = Server::start(oma, data.path(), &provider.url).await?;
    let agent = server.agent().await?;
    let [openclaw, claude] = [server.session(&agent).await?, server.session(&agent).await?];
    let mut events = server.follow(Dialect::Openclaw, &openclaw).await?;
    let mut claude_events = server.follow(Dialect::Claude, &claude).await?;
    let [mut ours, mut theirs] = [Figures::default(), Figures::default()];
    for count in 0..turns + WARM_UP {
        if count == WARM_UP {
            [ours, theirs] = [Figures::default(), Figures::default()];
        }
        turn(
            &server,
            &mut provider,
            Dialect::Openclaw,
            &openclaw,
            &mut events,
            &mut ours,
        )
        .await?;
        turn(
            &server,
            &mut provider,
            Dialect::Claude,
            &claude,
            &mut claude_events,
            &mut theirs,
        )
        .await?;
    }
    let bare = floor::request(&provider.url, turns).await?;
    while provider.served.try_recv().is_ok() {}
    let commit = floor::commit(data.path(), turns)?;
    for _ in 0..turns.min(40) {
        first_command(&server, &agent, Dialect::Openclaw, &mut ours.command).await?;
        first_command(&server, &agent, Dialect::Claude, &mut theirs.command).await?;
    }
    let commit = ("bare SQLite commit", &commit);
    let rows = [
        (
            "a whole turn, POST to idle",
            &ours.whole,
            "< 5 ms",
            Some(("bare model request", &bare)),
            &theirs.whole,
        ),
        ("POST to 2xx", &ours.posts, "-", Some(commit), &theirs.posts),
        (
            "POST to model request",
            &ours.reach,
            "< 3 ms",
            Some(commit),
            &theirs.reach,
        ),
        (
            "end of answer to SSE client",
            &ours.deliver,
            "< 2 ms",
            Some(commit),
            &theirs.deliver,
        ),
        (
            "first command in a fresh sandbox",
            &ours.command,
            "< 25 ms",
            None,
            &theirs.command,
        ),
    ];
    for (what, ours, aim, floor, theirs) in rows {
        table.row(what, ours, aim, floor);
        table.row(SAME, theirs, AIM, Some(("openclaw dialect", ours)));
    }
    Ok(())
}

async fn turn(
    server: &Server,
    provider: &mut Provider,
    dialect: Dialect,
    session: &str,
    events: &mut (impl Stream<Item = Result<String>> + Unpin),
    figures: &mut Figures,
) -> Result<()> {
    let began = Instant::now();
    server.say(dialect, session, "hi").await?;
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
    figures.posts.add(posted);
    figures.whole.add(ended - began);
    figures.reach.add(served.came.saturating_duration_since(began));
    let said = said.context("no message")?;
    figures
        .deliver
        .add(said.saturating_duration_since(served.answered));
    Ok(())
}

/// The first tool of a session: its sandbox is begun when the model begins to write the tool use.
async fn first_command(server: &Server, agent: &str, dialect: Dialect, samples: &mut Samples) -> Result<()> {
    let session = server.session(agent).await?;
    let mut events = server.follow(dialect, &session).await?;
    server.say(dialect, &session, "use a tool").await?;
    let mut used = None;
    loop {
        let event = events.next().await.context("the stream ended")??;
        match event.as_str() {
            "agent.tool_use" => used = Some(Instant::now()),
            "agent.tool_result" => samples.add(used.context("no tool use")?.elapsed()),
            "session.status_idle" => return Ok(()),
            _ => {}
        }
    }
}
