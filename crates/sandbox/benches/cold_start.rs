//! From nothing to the result of the first command: a cold sandbox of ours, one with a layer, one that was started in advance, and
//! many at once, beside `bwrap` making one of about the same shape, where that is installed. `cargo bench -p oma-sandbox`;
//! `OMA_BENCH_RUNS` sets how many.

mod advance;
mod layered;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use oma_domain::{EventId, SessionId, WorkspaceId};
use oma_sandbox::host::Host;
use oma_sandbox::local::{self, Config};
use oma_sandbox::protocol::Call;
use oma_sandbox::{Provider as _, Spec};

type Failure = Box<dyn std::error::Error>;

/// How much earlier runs may have to warm the page cache.
const WARM_UP: usize = 5;
/// How many are asked for at once.
const CROWD: usize = 50;

fn main() -> Result<(), Failure> {
    let runs = std::env::var("OMA_BENCH_RUNS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(200);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (start, first) = runtime.block_on(ours(runs))?;
    report("oma: cold sandbox", start)?;
    report("oma: cold sandbox and first command", first)?;
    let layered = runtime.block_on(async { layered::built_and_reused(&open().await?.1, runs).await })?;
    match layered {
        Some((built, reused)) => {
            report("oma: a layer of 200 MB is built", vec![built])?;
            report("oma: cold sandbox with it and first command", reused)?;
        }
        None => writeln!(std::io::stdout(), "no layers can be built here: not measured")?,
    }
    let (claim, first) = runtime.block_on(async { advance::claims(&open().await?.1, runs).await })?;
    report("oma: sandbox in advance", claim)?;
    report("oma: sandbox in advance and first command", first)?;
    for max_warm in [0, 10, CROWD] {
        let crowd = async { advance::at_once(&open().await?.1, CROWD, max_warm).await };
        let name = format!("oma: {CROWD} at once, {max_warm} in advance, until the first command");
        report(&name, runtime.block_on(crowd)?)?;
    }
    match bwrap(runs)? {
        Some(times) => {
            report("bwrap --unshare-all … true", times)?;
            report(&format!("bwrap: {CROWD} at once"), bwrap_at_once()?)
        }
        None => Ok(writeln!(
            std::io::stdout(),
            "bwrap is not installed: no peer measured"
        )?),
    }
}

async fn open() -> Result<(tempfile::TempDir, Host), Failure> {
    let folder = tempfile::tempdir()?;
    let mut config = Config::new(folder.path());
    config.exe = env!("CARGO_BIN_EXE_hand-harness").into();
    let host = local::open(config).await?;
    Ok((folder, host))
}

async fn ours(runs: usize) -> Result<(Vec<Duration>, Vec<Duration>), Failure> {
    let (_folder, local) = open().await?;
    let (mut start, mut first) = (Vec::new(), Vec::new());
    for run in 0..runs + WARM_UP {
        let session = SessionId::generate();
        let begun = Instant::now();
        let attached = local
            .attach(&Spec {
                session: session.clone(),
                workspace: WorkspaceId::default_workspace(),
            })
            .await?;
        let up = begun.elapsed();
        let call = Call {
            tool: "bash".to_owned(),
            input: serde_json::json!({ "command": "true" }),
        };
        let reply = attached.hand.run(&EventId::generate(), call).await?;
        let done = begun.elapsed();
        if reply.is_error {
            return Err(format!("{reply:?}").into());
        }
        if run >= WARM_UP {
            start.push(up);
            first.push(done);
        }
        local.destroy(&session).await?;
    }
    Ok((start, first))
}

fn bwrap(runs: usize) -> Result<Option<Vec<Duration>>, Failure> {
    if !["/usr/bin/bwrap", "/usr/local/bin/bwrap"]
        .iter()
        .any(|path| Path::new(path).exists())
    {
        return Ok(None);
    }
    let mut times = Vec::new();
    for run in 0..runs + WARM_UP {
        let begun = Instant::now();
        let status = shaped().status()?;
        if !status.success() {
            return Err(format!("bwrap ended with {status}").into());
        }
        if run >= WARM_UP {
            times.push(begun.elapsed());
        }
    }
    Ok(Some(times))
}

fn bwrap_at_once() -> Result<Vec<Duration>, Failure> {
    let begun = Instant::now();
    let children: Vec<_> = (0..CROWD)
        .map(|_| {
            std::thread::spawn(move || -> std::io::Result<Duration> {
                let status = shaped().status()?;
                if !status.success() {
                    return Err(std::io::Error::other(format!("bwrap ended with {status}")));
                }
                Ok(begun.elapsed())
            })
        })
        .collect();
    let times = children.into_iter().map(|child| match child.join() {
        Ok(time) => Ok(time?),
        Err(_) => Err("a thread broke down".into()),
    });
    times.collect()
}

/// A sandbox of about the same shape, for one command.
fn shaped() -> Command {
    let mut command = Command::new("bwrap");
    command
        .args([
            "--unshare-all",
            "--unshare-user",
            "--uid",
            "1000",
            "--gid",
            "1000",
            "--cap-drop",
            "ALL",
        ])
        .args(["--new-session", "--die-with-parent", "--ro-bind", "/usr", "/usr"])
        .args(["--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"])
        .args([
            "--symlink",
            "usr/lib64",
            "/lib64",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
        ])
        .args(["--tmpfs", "/tmp", "/bin/bash", "-c", "true"])
        .stdin(Stdio::null());
    command
}

fn report(name: &str, mut times: Vec<Duration>) -> Result<(), Failure> {
    times.sort();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    let (min, p50, p99, runs) = (at(0), at(50), at(99), times.len());
    writeln!(
        std::io::stdout(),
        "{name}: min {min:.1} ms, p50 {p50:.1} ms, p99 {p99:.1} ms ({runs} runs)"
    )?;
    Ok(())
}
