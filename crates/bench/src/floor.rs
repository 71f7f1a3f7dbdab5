//! What the same things cost without us.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use futures_util::StreamExt;
use serde_json::json;

use crate::stats::Samples;

/// A bare streamed request to the provider, read to its end.
pub(crate) async fn request(provider: &str, times: usize) -> Result<Samples> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    let mut samples = Samples::default();
    for _ in 0..times {
        let began = Instant::now();
        let body = json!({"model": "bench", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
        let answer = http
            .post(format!("{provider}/chat/completions"))
            .json(&body)
            .send()
            .await?;
        let mut bytes = answer.bytes_stream();
        while let Some(piece) = bytes.next().await {
            piece?;
        }
        samples.add(began.elapsed());
    }
    Ok(samples)
}

/// A bare SQLite commit of one row, as durable as ours.
pub(crate) fn commit(folder: &Path, times: usize) -> Result<Samples> {
    let db = rusqlite::Connection::open(folder.join("floor.db"))?;
    db.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t(body TEXT)")?;
    let mut insert = db.prepare("INSERT INTO t VALUES (?)")?;
    let body = "x".repeat(200);
    let mut samples = Samples::default();
    for _ in 0..times {
        let began = Instant::now();
        insert.execute([&body])?;
        samples.add(began.elapsed());
    }
    Ok(samples)
}
