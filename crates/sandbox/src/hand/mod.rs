//! The hand: the small server inside each sandbox.
//!
//! `oma hand --launch` is the whole command line ([`main`]), or `oma hand --contained` where a container is the
//! sandbox already, to which `oma hand --relay` may be the way; only the server runs it. It makes the sandbox ([`launch`]), becomes pid 1 in it and serves one frame protocol ([`server`]) on a socket that lies on the
//! host and can't be seen from inside. [`calls`] remembers what runs and what waits; [`tools`] does the work;
//! [`guard`] watches memory and disk; [`process`] starts, kills and reaps processes; [`copy_up`] copies files of the host
//! for builds of ordinary users.
//!
//! Invariant: the hand trusts nothing of the session: it has the same user, so it is closed to ptrace and
//! `/proc`, holds no secret but what tells its server from others ([`token`]), and can't be signalled from inside: as pid 1, and
//! where that does not suffice, by what commands may call ([`launch::filter::commands`]).
//! Invariant: when the hand ends, the kernel ends every process of the sandbox.

mod calls;
mod copy_up;
mod datagrams;
mod doors;
mod eager;
mod entrance;
mod guard;
pub(crate) mod launch;
pub mod limits;
pub mod log_ring;
mod port;
pub mod process;
#[cfg(feature = "docker")]
pub(crate) mod relay;
mod server;
mod service;
mod splice;
mod threads;
pub(crate) mod token;
pub mod tools;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use oma_domain::EventId;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::fittings;
use crate::protocol::{Call, Reply};
use launch::Launched;
use launch::filter::commands::Beside;

/// The argument after `hand` that makes a sandbox.
pub(crate) const LAUNCH: &str = "--launch";

/// The argument after `hand` that serves in a container, which is the sandbox.
pub(crate) const CONTAINED: &str = "--contained";

/// The argument after `hand` that does so where only a relay leads to it.
#[cfg(feature = "docker")]
pub(crate) const RELAYED: &str = "--relayed";

/// How long the tools may take to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// The whole of `oma hand`: `arguments` are those after `hand`. Must be called before anything else in the
/// process: before any thread, and before any descriptor is opened.
#[must_use]
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let launched = match (arguments.next(), arguments.next()) {
        (Some(only), None) if only == LAUNCH => launch::launch(),
        (Some(only), None) if only == CONTAINED => launch::contained::launch().map(Some),
        #[cfg(feature = "docker")]
        (Some(only), None) if only == RELAYED => launch::contained::launch_relayed().map(Some),
        #[cfg(feature = "docker")]
        (Some(only), None) if only == relay::RELAY => return relay::main(),
        _ => {
            let _ = writeln!(
                io::stderr(),
                "This command is for the server's own use: it starts a sandbox."
            );
            return ExitCode::from(2);
        }
    };
    let launched = match launched {
        Ok(Some(launched)) => launched,
        Ok(None) => return ExitCode::SUCCESS,
        // It has been reported to the server already.
        Err(_) => return ExitCode::FAILURE,
    };
    adopt(&launched.duties.variables);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    threads::configure(&mut runtime, launched.duties.has_own_kernel);
    let runtime = runtime.enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(work(launched))) {
        Ok(()) => ExitCode::SUCCESS,
        // There is nobody to tell: the server sees the connection end and the sandbox gone.
        Err(_) => ExitCode::FAILURE,
    }
}

/// Gives everything that is started from here on these variables, but for those that are the sandbox's own.
fn adopt(variables: &BTreeMap<String, String>) {
    for (name, value) in variables {
        if !fittings::is_taken(name) {
            // SAFETY: nobody else reads or writes the environment: this process has one thread yet, or in a build of an
            // ordinary user two more, which do not (`copy_up`).
            unsafe { std::env::set_var(name, value) };
        }
    }
}

#[async_trait]
impl calls::Run for tools::Tools {
    async fn run(&self, key: &EventId, call: Call, cancel: CancellationToken) -> Reply {
        Self::run(self, key, call, cancel).await
    }
}

async fn work(launched: Launched) -> io::Result<()> {
    let Launched {
        duties,
        entrance,
        doors,
        relay,
    } = launched;
    let mut entrance = entrance::Entrance::new(entrance)?;
    guard::ignore_file_size_signal()?;

    let log = Arc::new(log_ring::LogRing::new());
    let workspace = PathBuf::from(launch::WORKSPACE);
    let writing = guard::writing::Writing::allowed();
    let tools = Arc::new(tools::Tools::new(
        workspace.clone(),
        duties.tools.clone(),
        Arc::clone(&log),
        writing.clone(),
    ));
    let runner: Arc<dyn calls::Run> = Arc::<tools::Tools>::clone(&tools);
    let calls = calls::Calls::new(runner);
    let shared = server::Shared::new(Arc::clone(&calls), log, workspace, doors)?;

    let reaper = tokio::spawn(reap());
    let mut guards = guard::start(&duties, &calls, writing)?;
    let threads = match duties.has_own_kernel {
        true => threads::start_all().await?,
        false => Vec::new(),
    };
    process::keep_away_from(Beside { threads, relay });
    let served = tokio::select! {
        served = server::serve(&mut entrance, &shared, &duties) => served,
        // Nothing may run unguarded.
        _ = guards.join_next() => Err(io::Error::other("a guard has broken")),
    };
    server::wind_down(&shared).await;
    // What does not end in time is killed below.
    let _ = timeout(SHUTDOWN_TIMEOUT, tools.shutdown()).await;
    guards.abort_all();
    reaper.abort();
    process::kill_everything();
    served
}

/// Reaps what nobody waits for, after each word of a child's end.
async fn reap() -> io::Result<()> {
    let mut ends = signal(SignalKind::child())?;
    while ends.recv().await.is_some() {
        process::reap_strays();
    }
    Ok(())
}
