//! Sandboxes in containers beside Docker's own commands, by one engine in the same run, which this starts (as root):
//! from nothing to the result of the first command, from scratch or with some in advance, against `docker run`, one and
//! many at once; the same with a layer, against `docker run` of its image; a command in a sandbox that runs, against
//! `docker exec` and against a local sandbox. `cargo bench -p oma-sandbox --features docker --bench containers`;
//! `OMA_BENCH_RUNS` sets how many.

mod advance;
mod layered;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use oma_docker_engine::{BARE, Engine};
use oma_domain::{EventId, SessionId, WorkspaceId};
use oma_sandbox::host::Host;
use oma_sandbox::protocol::Call;
use oma_sandbox::{Hand, Provider as _, Spec, docker, local};

type Failure = Box<dyn std::error::Error>;

/// How much earlier runs may have to warm the page cache.
const WARM_UP: usize = 3;

/// How many are asked for at once.
const CROWD: usize = 50;

/// How many commands come for each container.
const COMMANDS: usize = 10;

/// What a container of Docker's own gets that one of ours has.
const HARDENED: [&str; 18] = [
    "--network",
    "none",
    "--read-only",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
    "--user",
    "200000:200000",
    "--memory",
    "2g",
    "--pids-limit",
    "512",
    "--cpus",
    "2",
    "--tmpfs",
    "/tmp",
    "--rm",
];

fn main() -> Result<(), Failure> {
    if !oma_docker_engine::is_possible() {
        writeln!(std::io::stdout(), "there can be no engine here: nothing measured")?;
        return Ok(());
    }
    let runs = std::env::var("OMA_BENCH_RUNS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(30);
    let engine = Engine::start(false);
    engine.import_bare();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = tempfile::tempdir()?;
    let host = runtime.block_on(async {
        let mut host = local::Config::new(folder.path().join("docker"));
        host.exe = env!("CARGO_BIN_EXE_hand-harness").into();
        let mut config = docker::Config::new(host, BARE);
        config.engine = engine.address();
        docker::open(config).await
    })?;
    let (start, first, commands) = runtime.block_on(ours(&host, runs))?;
    report("oma, docker: cold sandbox", start)?;
    report("oma, docker: cold sandbox and first command", first)?;
    report("docker run … true", docker_run(&engine, BARE, runs)?)?;
    if let Some((built, reused)) = runtime.block_on(layered::built_and_reused(&host, runs))? {
        report("oma, docker: a layer of 200 MB is built", vec![built])?;
        report("oma, docker: cold sandbox with it and first command", reused)?;
        let image = docker(&engine, &["images", "--quiet", "--filter", "label=oma.layer"])?;
        report(
            "docker run … true, of its image",
            docker_run(&engine, &image, runs)?,
        )?;
    }
    let (claim, claimed_first) = runtime.block_on(advance::claims(&host, runs))?;
    report("oma, docker: sandbox in advance", claim)?;
    report("oma, docker: sandbox in advance and first command", claimed_first)?;
    for max_warm in [0, 10, CROWD] {
        let name = format!("oma, docker: {CROWD} at once, {max_warm} in advance, until the first command");
        report(&name, runtime.block_on(advance::at_once(&host, CROWD, max_warm))?)?;
    }
    report(
        &format!("docker run: {CROWD} at once"),
        docker_run_at_once(&engine)?,
    )?;
    report("oma, docker: a command", commands)?;
    report("docker exec … true", docker_exec(&engine, runs)?)?;
    let (_, _, commands) = runtime.block_on(async {
        let mut config = local::Config::new(folder.path().join("local"));
        config.exe = env!("CARGO_BIN_EXE_hand-harness").into();
        ours(&local::open(config).await?, runs).await
    })?;
    report("oma, local: a command", commands)
}

/// How long a sandbox takes, a sandbox with its first command, and each later command.
async fn ours(host: &Host, runs: usize) -> Result<(Vec<Duration>, Vec<Duration>, Vec<Duration>), Failure> {
    let (mut start, mut first, mut later) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..runs + WARM_UP {
        let spec = Spec {
            session: SessionId::generate(),
            workspace: WorkspaceId::default_workspace(),
        };
        let begun = Instant::now();
        let attached = host.attach(&spec).await?;
        let up = begun.elapsed();
        command(&*attached.hand).await?;
        let done = begun.elapsed();
        for _ in 0..COMMANDS {
            let took = command(&*attached.hand).await?;
            if run >= WARM_UP {
                later.push(took);
            }
        }
        if run >= WARM_UP {
            start.push(up);
            first.push(done);
        }
        host.destroy(&spec.session).await?;
    }
    Ok((start, first, later))
}

async fn command(hand: &dyn Hand) -> Result<Duration, Failure> {
    let begun = Instant::now();
    let call = Call {
        tool: "bash".to_owned(),
        input: serde_json::json!({ "command": "true" }),
    };
    let reply = hand.run(&EventId::generate(), call).await?;
    if reply.is_error {
        return Err(format!("{reply:?}").into());
    }
    Ok(begun.elapsed())
}

fn docker(engine: &Engine, arguments: &[&str]) -> Result<String, Failure> {
    let output = Command::new("docker")
        .args(arguments)
        .env("DOCKER_HOST", format!("unix://{}", engine.address()))
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn docker_run(engine: &Engine, image: &str, runs: usize) -> Result<Vec<Duration>, Failure> {
    let mut times = Vec::new();
    // The image of a layer would start a hand.
    let entrypoint = ["--entrypoint", "/bin/busybox", image, "true"];
    let arguments = [&["run"][..], &HARDENED, &entrypoint].concat();
    for run in 0..runs + WARM_UP {
        let begun = Instant::now();
        docker(engine, &arguments)?;
        if run >= WARM_UP {
            times.push(begun.elapsed());
        }
    }
    Ok(times)
}

fn docker_run_at_once(engine: &Engine) -> Result<Vec<Duration>, Failure> {
    let arguments = [&["run"][..], &HARDENED, &[BARE, "/bin/busybox", "true"]].concat();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..CROWD)
            .map(|_| {
                scope.spawn(|| {
                    let run = docker(engine, &arguments).map_err(|error| error.to_string());
                    run.map(|_| begun.elapsed())
                })
            })
            .collect();
        let times = all.into_iter().map(|run| match run.join() {
            Ok(time) => Ok(time?),
            Err(_) => Err("a thread broke down".into()),
        });
        times.collect()
    })
}

fn docker_exec(engine: &Engine, runs: usize) -> Result<Vec<Duration>, Failure> {
    let mut times = Vec::new();
    let arguments = [
        &["run", "-d"][..],
        &HARDENED,
        &[BARE, "/bin/busybox", "sleep", "1000"],
    ]
    .concat();
    let container = docker(engine, &arguments)?;
    for run in 0..runs + WARM_UP {
        let begun = Instant::now();
        docker(engine, &["exec", &container, "/bin/busybox", "true"])?;
        if run >= WARM_UP {
            times.push(begun.elapsed());
        }
    }
    docker(engine, &["kill", &container])?;
    Ok(times)
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
