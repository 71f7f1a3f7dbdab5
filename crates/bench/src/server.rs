//! The binary under measurement.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use axum::body::Bytes;
use futures_util::{Stream, StreamExt};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sse_stream::SseByteStream;

/// The dialect that a request speaks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Dialect {
    Openclaw,
    Claude,
}

const START_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    pub(crate) http: reqwest::Client,
    /// From the start of the process to its first ready answer.
    pub(crate) ready_after: Duration,
}

impl Server {
    pub(crate) async fn start(oma: &Path, data: &Path, provider: &str) -> Result<Self> {
        Self::start_with(oma, data, provider, &[]).await
    }

    /// The same with variables of the environment.
    pub(crate) async fn start_with(
        oma: &Path,
        data: &Path,
        provider: &str,
        variables: &[(&str, &str)],
    ) -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let listen = format!("127.0.0.1:{port}");
        let began = Instant::now();
        let child = Command::new(oma)
            .args(["serve", "--listen", &listen, "--data-dir"])
            .arg(data)
            .env("OPENAI_BASE_URL", provider)
            .env("OPENAI_API_KEY", "bench")
            .env("OPENCLAW_LOG_LEVEL", "error")
            .env("OPENCLAW_RATE_LIMIT_RPM", "0")
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("{} can't be started", oma.display()))?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("http://{listen}");
        let mut server = Self {
            child,
            url,
            http,
            ready_after: Duration::ZERO,
        };
        while server
            .http
            .get(format!("{}/readyz", server.url))
            .send()
            .await
            .is_err()
        {
            if let Some(status) = server.child.try_wait()? {
                bail!("the server ended: {status}");
            }
            if began.elapsed() > START_TIMEOUT {
                bail!("the server is not ready after {START_TIMEOUT:?}");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.ready_after = began.elapsed();
        Ok(server)
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Result<Value> {
        self.post_as(Dialect::Openclaw, path, body).await
    }

    pub(crate) async fn post_as(&self, dialect: Dialect, path: &str, body: Value) -> Result<Value> {
        let request = self.request(dialect, Method::POST, path);
        let answer = request.json(&body).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            bail!("POST {path}: {status} {text}");
        }
        Ok(serde_json::from_str(&text)?)
    }

    pub(crate) async fn get_as(&self, dialect: Dialect, path: &str) -> Result<Value> {
        Ok(serde_json::from_slice(&self.get_bytes_as(dialect, path).await?)?)
    }

    /// An answer that has arrived and has not been looked at.
    pub(crate) async fn get_bytes_as(&self, dialect: Dialect, path: &str) -> Result<Bytes> {
        let answer = self.request(dialect, Method::GET, path).send().await?;
        Ok(answer.error_for_status()?.bytes().await?)
    }

    fn request(&self, dialect: Dialect, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match dialect {
            Dialect::Openclaw => request,
            Dialect::Claude => request.header("anthropic-version", "2026-10-21"),
        }
    }

    pub(crate) async fn agent(&self) -> Result<String> {
        let agent = self.post("/v1/agents", json!({"model": "openai/bench"})).await?;
        text(&agent, "agent_id")
    }

    pub(crate) async fn session(&self, agent: &str) -> Result<String> {
        let session = self.post("/v1/sessions", json!({"agentId": agent})).await?;
        text(&session, "session_id")
    }

    /// Says something to a session.
    pub(crate) async fn say(&self, dialect: Dialect, session: &str, text: &str) -> Result<()> {
        let body = match dialect {
            Dialect::Openclaw => json!({"content": text}),
            Dialect::Claude => {
                json!({"events": [{"type": "user.message", "content": [{"type": "text", "text": text}]}]})
            }
        };
        self.post_as(dialect, &format!("/v1/sessions/{session}/events"), body)
            .await?;
        Ok(())
    }

    /// The types of the session's events as they come.
    pub(crate) async fn follow(
        &self,
        dialect: Dialect,
        session: &str,
    ) -> Result<impl Stream<Item = Result<String>> + Unpin + use<>> {
        let path = match dialect {
            Dialect::Openclaw => format!("/v1/sessions/{session}/events?stream=true"),
            Dialect::Claude => format!("/v1/sessions/{session}/events/stream"),
        };
        let answer = self.request(dialect, Method::GET, &path).send().await?;
        let answer = answer.error_for_status()?;
        Ok(SseByteStream::new(answer.bytes_stream()).map(|event| Ok(event?.event.unwrap_or_default())))
    }

    /// CPU time that the process has used.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |index: usize| {
            fields
                .get(index)
                .and_then(|field| field.parse::<u64>().ok())
                .unwrap_or(0)
        };
        // Fields 14 and 15 of proc(5), counted from the one after the name; a tick is 10 ms on Linux.
        Ok(Duration::from_millis((ticks(11) + ticks(12)) * 10))
    }

    /// Resident memory in KiB.
    pub(crate) fn memory_kib(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .context("no VmRSS")?;
        line.split_whitespace()
            .nth(1)
            .and_then(|kib| kib.parse().ok())
            .context("VmRSS is no number")
    }

    /// Ends the process at once.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; there is nobody left to tell.
        let _ended = self.kill();
    }
}

pub(crate) fn text(value: &Value, field: &str) -> Result<String> {
    Ok(value[field]
        .as_str()
        .with_context(|| format!("no {field} in {value}"))?
        .to_owned())
}
