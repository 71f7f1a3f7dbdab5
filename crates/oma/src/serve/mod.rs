//! `oma serve`: puts the server together, runs it, and takes it down in order.
//!
//! [`parts`] builds what there is from the configuration, lowest first: store, models, tools, sandboxes, runtime,
//! engine. Here is the order of things: the address is taken before anything is opened, so that a second server
//! fails early; requests are answered as soon as the store is open, and recovery goes on beside them; on
//! SIGTERM or SIGINT no new work is taken and the server says that it is not ready, but goes on answering: clients can
//! read, follow, cancel and confirm while turns get a bounded time to end. Then it closes, and what has not ended goes
//! on after the next start. The sandboxes of those turns are left running for that, and so are those in which something
//! runs; all others end.
//!
//! Invariant: without a token the server listens beyond loopback only if the configuration says so.
//! Invariant: the process ends within the drain time and a few seconds, whatever hangs, or within a minute when an
//! issuer of tokens does not answer; a second signal ends it at once.

pub(crate) mod announce;
pub(crate) mod checkpoints;
pub(crate) mod files;
pub(crate) mod http;
pub(crate) mod json_log;
pub(crate) mod logging;
pub(crate) mod mcp;
pub(crate) mod models;
pub(crate) mod network;
pub(crate) mod open_files;
#[cfg(feature = "otel")]
pub(crate) mod otel;
pub(crate) mod parts;
pub(crate) mod remarks;
pub(crate) mod sandboxes;
pub(crate) mod signals;
pub(crate) mod signup;
pub(crate) mod telemetry;
pub(crate) mod tools;
mod upload;
pub(crate) mod vaults;

use std::net::SocketAddr;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use oma_engine::Engine;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, args};
use crate::print::{Failure, Outcome, Output};
use crate::serve::parts::Parts;
use crate::serve::signals::StopSignals;
use crate::serve::telemetry::Telemetry;

/// How long connections may take to close after the turns have ended.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long threads that block may take to notice the end.
const THREADS_TIMEOUT: Duration = Duration::from_secs(1);
/// The waits between attempts at recovery.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// Run the server
#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    flags: args::Flags,
}

impl Serve {
    /// Serves until a signal asks it to stop.
    ///
    /// # Errors
    /// What keeps it from serving.
    pub(crate) fn run(self, output: Output) -> Outcome {
        let config = Config::load(self.flags)?;
        let telemetry = Telemetry::start(&config.log)?;
        let open_files = open_files::raise();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let outcome = runtime.block_on(serve(config, output, open_files, telemetry.metrics.clone()));
        runtime.shutdown_timeout(THREADS_TIMEOUT);
        telemetry.flush();
        outcome
    }
}

async fn serve(
    config: Config,
    output: Output,
    open_files: Option<u64>,
    metrics: PrometheusHandle,
) -> Outcome {
    let mut signals = StopSignals::listen()?;
    let listener = listen(config.server.listen.0).await?;
    let address = listener.local_addr()?;
    let stopping = CancellationToken::new();
    let parts = Parts::build(&config, address, metrics, stopping.clone()).await?;

    let server = tokio::spawn(http::serve(
        listener,
        oma_api::router(parts.api.clone()),
        config.server.max_connections,
        stopping.clone(),
    ));
    let sweeper = tokio::spawn({
        let engine = parts.engine.clone();
        let environments = parts.environments.clone();
        async move {
            tokio::join!(
                environments.keep_collecting(),
                engine.sweep(),
                engine.keep_deadlines(),
                engine.keep_schedules(),
                engine.keep_webhooks()
            )
        }
    });
    let recovery = tokio::spawn(recover(parts.engine.clone()));
    let upkeep = tokio::spawn(oma_api::telemetry::upkeep(
        parts.metrics.clone(),
        parts.engine.clone(),
        stopping.clone(),
    ));

    let facts = announce::facts(address, &config.data_dir);
    remarks::started(&config, &parts, address, open_files);
    let line = |_: &_| format!("oma {} listens on http://{address}", env!("CARGO_PKG_VERSION"));
    if let Err(error) = output.result(&facts, line) {
        // Whoever started it does not listen; that is no reason not to serve.
        tracing::warn!(%error, "the address could not be written to standard output");
    }
    announce::tell_service_manager("READY=1");

    let signal = signals.next().await;
    tracing::info!(signal, drain = ?config.engine.drain_timeout, "stopping");
    announce::tell_service_manager("STOPPING=1");
    recovery.abort();
    let drained = async {
        drain(&parts, server, &stopping).await;
        parts.vaults.close().await;
    };
    tokio::select! {
        () = drained => {}
        signal = signals.next() => {
            // Nothing is lost by this: the log has everything that was accepted.
            tracing::warn!(signal, "stopped at once; turns at work go on after the next start");
            return Err(Failure::Told);
        }
    }
    sweeper.abort();
    upkeep.abort();
    parts.store.close().await;
    tracing::info!("stopped");
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Failure::Other(format!("server.listen: {address}: {error}")))
}

/// Ends the turns, then the connections that waited for them.
async fn drain(parts: &Parts, mut server: tokio::task::JoinHandle<()>, stopping: &CancellationToken) {
    parts.engine.stop().await;
    stopping.cancel();
    // No turn waits for one any more, and the next server begins anew.
    let closing = parts.environments.close();
    let (closed, ()) = tokio::join!(tokio::time::timeout(CLOSE_TIMEOUT, &mut server), closing);
    match closed {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "the HTTP server broke down"),
        Err(_) => {
            tracing::warn!("connections that did not close in time are cut off");
            server.abort();
        }
    }
}

/// Wakes what the last stop cut off. A store that fails is asked again: giving up would leave sessions running
/// for ever.
async fn recover(engine: Engine) {
    let mut wait = FIRST_RETRY;
    loop {
        match engine.recover().await {
            Ok(woken) => {
                if woken > 0 {
                    tracing::info!(sessions = woken, "sessions that the last stop cut off go on");
                }
                break;
            }
            Err(error) => {
                tracing::error!(%error, retry_in = ?wait, "recovery failed");
                tokio::time::sleep(wait).await;
                wait = wait.saturating_mul(2).min(LAST_RETRY);
            }
        }
    }
    // After those that need one now.
    if let Err(error) = engine.warm_up().await {
        tracing::warn!(%error, "no sandboxes are started in advance yet");
    }
}
