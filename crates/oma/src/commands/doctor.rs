//! `oma doctor`: what this machine offers and what is missing.
//!
//! Invariant: it changes nothing: no folder is made that was not there, no server is disturbed. Only a bucket, of which there
//! is no other way to tell, gets a small object that is removed again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use oma_sandbox::doctor::Status;
use serde_json::{Value, json};

use crate::config::units::Bytes;
use crate::config::{Config, args};
use crate::print::{Failure, Outcome, Output, Style, plain};
use crate::serve::{checkpoints, models, sandboxes, tools};

/// How many open files a busy server needs.
const ENOUGH_OPEN_FILES: u64 = 8192;

/// How long a bucket may take to show that it can be used.
const BUCKET_TIMEOUT: Duration = Duration::from_secs(30);

/// Tell what this machine offers and what is missing
#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    flags: args::Flags,
}

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq)]
struct Finding {
    /// What it belongs to.
    group: &'static str,
    name: String,
    status: Status,
    detail: String,
    /// What would mend it.
    remedy: Option<String>,
}

impl Finding {
    fn new(group: &'static str, name: impl Into<String>, status: Status, detail: impl Into<String>) -> Self {
        Self {
            group,
            name: name.into(),
            status,
            detail: detail.into(),
            remedy: None,
        }
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    fn to_json(&self) -> Value {
        json!({
            "group": self.group,
            "name": self.name,
            "status": word(self.status),
            "detail": self.detail,
            "remedy": self.remedy,
        })
    }
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Warn => "warn",
        Status::Fail => "fail",
    }
}

impl Doctor {
    /// Looks and tells.
    ///
    /// # Errors
    /// That something that the server needs is missing.
    pub(crate) fn run(self, output: Output) -> Outcome {
        let config = Config::load(self.flags)?;
        let mut findings = vec![data_folder(&config), open_files(), access(&config)];
        findings.extend(providers(&config)?);
        findings.push(web_search(&config));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        findings.extend(runtime.block_on(sandbox(&config)));
        findings.extend(runtime.block_on(bucket(&config)));
        let failed = findings.iter().any(|finding| finding.status == Status::Fail);
        let value = json!({
            "ok": !failed,
            "checks": findings.iter().map(Finding::to_json).collect::<Vec<_>>(),
        });
        output.result(&value, |_| render(&findings, output))?;
        if failed { Err(Failure::Told) } else { Ok(()) }
    }
}

fn render(findings: &[Finding], output: Output) -> String {
    let width = findings
        .iter()
        .map(|finding| finding.name.len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    let mut group = "";
    for finding in findings {
        if finding.group != group {
            group = finding.group;
            text.push_str(&format!("{}\n", output.paint(Style::Bold, group)));
        }
        let (mark, style) = match finding.status {
            Status::Ok => ("ok  ", Style::Green),
            Status::Warn => ("warn", Style::Yellow),
            Status::Fail => ("FAIL", Style::Red),
        };
        let mark = output.paint(style, mark);
        text.push_str(&format!(
            "  {mark} {:width$}  {}\n",
            finding.name,
            plain(&finding.detail)
        ));
        if let Some(remedy) = &finding.remedy {
            text.push_str(&format!(
                "       {:width$}  {}\n",
                "",
                output.paint(Style::Dim, &plain(remedy))
            ));
        }
    }
    text
}

/// Whether the data folder can be used, and how much room it has.
fn data_folder(config: &Config) -> Finding {
    use std::os::unix::fs::PermissionsExt as _;

    let path = &config.data_dir;
    let finding = |status, detail: String| Finding::new("server", "data folder", status, detail);
    let shown = path.display();
    if let Some(exposed) = oma_sandbox::local::exposed(path, &config.sandbox.readable.0) {
        let detail = format!("{shown}: every sandbox can read {}", exposed.display());
        return finding(Status::Fail, detail).remedy("name another folder with --data-dir");
    }
    let there = match path.metadata() {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return finding(Status::Fail, format!("{shown}: {error}")),
    };
    if there.as_ref().is_some_and(|metadata| !metadata.is_dir()) {
        return finding(Status::Fail, format!("{shown} is not a folder"))
            .remedy("name another with --data-dir");
    }
    if let Some(metadata) = &there
        && metadata.permissions().mode() & 0o022 != 0
    {
        let detail = format!("{shown}: others may write there, so the server refuses it");
        return finding(Status::Fail, detail).remedy(format!("chmod 700 {shown}"));
    }
    let Some(existing) = nearest_existing(path) else {
        return finding(
            Status::Fail,
            format!("{shown} can't be made: no folder above it exists"),
        );
    };
    if let Err(error) = rustix::fs::access(
        &existing,
        rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
    ) {
        return finding(
            Status::Fail,
            format!("{} can't be written: {error}", existing.display()),
        )
        .remedy("change its owner, or name another folder with --data-dir");
    }
    let free = match rustix::fs::statvfs(&existing) {
        Ok(space) => space.f_bavail.saturating_mul(space.f_frsize),
        Err(error) => return finding(Status::Fail, format!("{}: {error}", existing.display())),
    };
    let room = format!("{} MiB free", free >> 20);
    let floor = config.sandbox.disk_floor;
    if free < floor.0.saturating_add(Bytes::MEBIBYTE.0 * 256) {
        return finding(Status::Warn, format!("{shown}: only {room}")).remedy(format!(
            "sandboxes can't write when less than {floor} is free (sandbox.disk_floor)"
        ));
    }
    match there {
        None => finding(Status::Ok, format!("{shown} will be made, {room}")),
        Some(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
            let detail = format!("{shown}: others may see which files are in it, {room}");
            finding(Status::Warn, detail).remedy(format!("chmod 700 {shown}"))
        }
        Some(_) => finding(Status::Ok, format!("{shown}, {room}")),
    }
}

fn nearest_existing(path: &Path) -> Option<PathBuf> {
    path.ancestors()
        .find(|ancestor| ancestor.exists())
        .map(Path::to_owned)
}

fn open_files() -> Finding {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let finding = |status, detail| Finding::new("server", "open files", status, detail);
    match limit {
        Some(limit) if limit < ENOUGH_OPEN_FILES => finding(Status::Warn, format!("at most {limit}"))
            .remedy("raise the hard limit (ulimit -Hn, LimitNOFILE=) for many connections or sandboxes"),
        Some(limit) => finding(Status::Ok, format!("at most {limit}")),
        None => finding(Status::Ok, "no limit".to_owned()),
    }
}

fn access(config: &Config) -> Finding {
    let server = &config.server;
    let address = server.listen.0;
    let has_token = server.api_token.is_some() || server.api_token_file.is_some();
    let finding = |status, detail: String| Finding::new("server", "access", status, detail);
    if has_token {
        finding(Status::Ok, format!("{address}, with a token"))
    } else if address.ip().is_loopback() {
        finding(
            Status::Warn,
            format!("{address}, without a token: every user of this machine may do everything"),
        )
        .remedy("set OPENCLAW_API_TOKEN")
    } else {
        finding(
            Status::Warn,
            format!("{address}, without a token: everybody who reaches it may do everything"),
        )
        .remedy("set OPENCLAW_API_TOKEN")
    }
}

/// The providers that are configured; names only, never a key.
fn providers(config: &Config) -> Result<Vec<Finding>, Failure> {
    let configured = models::configure(config)?;
    if configured.providers.is_empty() {
        let none = Finding::new(
            "models",
            "providers",
            Status::Warn,
            "none: only scripted/... models work",
        )
        .remedy("set ANTHROPIC_API_KEY, OPENAI_API_KEY or another provider's key");
        return Ok(vec![none]);
    }
    Ok(configured
        .providers
        .iter()
        .map(|(name, provider)| {
            let has_key = provider.api_key.is_some()
                || provider.aws.is_some()
                || provider.headers.contains_key("authorization");
            let key = if has_key { "with a key" } else { "without a key" };
            Finding::new(
                "models",
                name,
                Status::Ok,
                format!("{}, {key}", provider.base_url),
            )
        })
        .collect())
}

fn web_search(config: &Config) -> Finding {
    let finding = |status, detail: String| Finding::new("tools", "web_search", status, detail);
    match (tools::configure(config), &config.tools.search_provider) {
        (Err(error), _) => finding(Status::Fail, error.to_string()),
        (Ok(_), None) => finding(Status::Ok, "not configured: agents have no such tool".to_owned()),
        (Ok(_), Some(provider)) => finding(Status::Ok, format!("by {}", provider.as_str())),
    }
}

/// How much memory a sandbox may have, beside what there is.
fn memory(limit: u64) -> Finding {
    let machine = sandboxes::machine_memory();
    let detail = format!("{} MiB each, of the machine's {} MiB", limit >> 20, machine >> 20);
    if limit > machine {
        return Finding::new("sandbox", "memory", Status::Warn, detail)
            .remedy("one sandbox can use up the machine's memory; lower sandbox.memory");
    }
    Finding::new("sandbox", "memory", Status::Ok, detail)
}

async fn sandbox(config: &Config) -> Vec<Finding> {
    let configured = sandboxes::configure(config);
    let memory = memory(configured.limits.memory);
    let probed = sandboxes::probe(config).await.into_iter().map(|check| Finding {
        group: "sandbox",
        name: check.name.to_owned(),
        status: check.status,
        detail: check.detail,
        remedy: check.remedy,
    });
    std::iter::once(memory)
        .chain(probed)
        .chain(std::iter::once(network(config).await))
        .collect()
}

/// Whether sandboxes would have their way out.
async fn network(config: &Config) -> Finding {
    let finding = |status, detail: String| Finding::new("sandbox", "network", status, detail);
    if !config.sandbox.egress {
        return finding(
            Status::Ok,
            "sandboxes have none, as configured (sandbox.egress)".to_owned(),
        );
    }
    match oma_furnish::worker::try_out(Path::new("/proc/self/exe")).await {
        Ok(()) => finding(
            Status::Ok,
            "proxies are processes without privileges".to_owned(),
        ),
        Err(reason) => finding(
            Status::Fail,
            format!("a sandbox's proxy (oma egress) can't be started, so there is no way out: {reason}"),
        )
        .remedy(
            "as root the server needs CAP_SETUID and CAP_SETGID, and the kernel seccomp; sandbox.egress=false says that no way out is meant",
        ),
    }
}

/// Whether the bucket of checkpoints can be written, where there is one.
async fn bucket(config: &Config) -> Option<Finding> {
    let finding = |status, detail: String| Finding::new("sandbox", "checkpoints", status, detail);
    let bucket = match checkpoints::bucket(config) {
        Ok(bucket) => bucket?,
        Err(error) => return Some(finding(Status::Fail, error.to_string())),
    };
    let address = bucket.address();
    let remedy = "see `s3` in the configuration; the key needs to write, read and delete objects there";
    Some(match tokio::time::timeout(BUCKET_TIMEOUT, bucket.probe()).await {
        Ok(Ok(())) => finding(Status::Ok, format!("{address} can be written")),
        Ok(Err(error)) => finding(Status::Fail, format!("{address}: {error}")).remedy(remedy),
        Err(_) => {
            let seconds = BUCKET_TIMEOUT.as_secs();
            finding(
                Status::Fail,
                format!("{address}: no answer within {seconds} seconds"),
            )
            .remedy(remedy)
        }
    })
}
