//! The HTTP API: one router, three dialects of it, and what stands in front of all of them.
//!
//! A request passes, from the outside in: its [request id](request_id), the [metrics](telemetry), the
//! rendering of [faults](fault) in the caller's dialect, the [audit trail](audit), the catching of panics, the
//! [origin guard](origin), [authentication](auth) with the [rate limits](rate), and then the handler. Which dialect a request speaks is decided once, in
//! [`dialect`], before anything else happens.
//!
//! Invariants kept here:
//! - every route but those of [`auth::OPEN_PATHS`] needs a valid key when a key is configured;
//! - every handler works for the workspace that authentication found, never for one that a client names (I10);
//! - the list of a session's events contains exactly what its stream delivers, in the same order (I3): both
//!   go through one [projection](dialects::openclaw::events::projection);
//! - bodies, strings, lists and streams are bounded ([`limits`]), and every wait on a client has a timeout;
//! - the text of an internal error goes to the log, under the request's id, and never to a client (I9).
//!
//! Where it sits: on top; it talks to [`oma_engine::Engine`] only. The binary serves what [`router`] returns.

pub mod audit;
pub mod auth;
pub mod dialect;
pub mod dialects;
pub mod fault;
mod hands;
mod infra;
pub mod limits;
mod listing;
pub mod openapi;
mod origin;
mod panic;
mod params;
mod payload;
mod rate;
mod readiness;
mod reference;
pub mod request_id;
pub mod signup;
mod sse;
mod streams;
pub mod telemetry;
pub mod validate;

pub use rate::Peer;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use ipnet::IpNet;
use metrics_exporter_prometheus::PrometheusHandle;
use oma_domain::Timestamp;
use oma_engine::Engine;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

/// How the API behaves.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// The operator's token; with one, callers must present it or an API key. Without, anybody who gets past the
    /// origin guard is let in, as the operator.
    pub api_token: Option<SecretString>,
    /// Without a key: host names (with or without a port) under which the server may be addressed besides
    /// the loopback ones. `*` allows any name.
    pub allowed_hosts: Vec<String>,
    /// Without a key: web origins (`https://example.org`) whose pages may change things here.
    pub allowed_origins: Vec<String>,
    /// How many requests each key (and each address without one) may make in a minute; 0 for any number.
    pub rate_limit_rpm: u32,
    /// The proxies that are believed when they say for whom they ask.
    pub trusted_proxies: Vec<IpNet>,
    /// How people may sign up.
    pub signup: signup::SignUp,
    /// The server's version.
    pub version: String,
    /// The commit that it was built from, or `unknown`.
    pub commit: String,
    /// When the process started.
    pub started_at: Timestamp,
    /// The longest JSON body, in bytes.
    pub max_json_body: usize,
    /// The longest file that is read or written through the files API, in bytes.
    pub max_file: usize,
    /// How long a client may pause while it sends a body.
    pub body_idle_timeout: Duration,
    /// How long a body may take in all.
    pub body_timeout: Duration,
    /// How long a chat completion may take before its turn is stopped.
    pub chat_timeout: Duration,
    /// How long an event stream stays open once its session is idle and nothing new happens.
    pub stream_linger: Duration,
    /// The time between two heartbeats of a stream.
    pub heartbeat: Duration,
    /// The most open streams, of all sessions together.
    pub max_streams: usize,
    /// The most open streams of one API key.
    pub max_streams_per_key: usize,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            api_token: None,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            rate_limit_rpm: 0,
            trusted_proxies: Vec::new(),
            signup: signup::SignUp::default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: "unknown".to_owned(),
            started_at: oma_engine::now(),
            max_json_body: limits::JSON_BODY,
            max_file: limits::FILE,
            body_idle_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(300),
            chat_timeout: Duration::from_secs(600),
            stream_linger: Duration::from_secs(30),
            heartbeat: Duration::from_secs(15),
            max_streams: 10_000,
            max_streams_per_key: 1_000,
        }
    }
}

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    /// The engine.
    pub engine: Engine,
    /// How the API behaves.
    pub config: Arc<ApiConfig>,
    /// Renders the metrics; without it `/metrics` says that they are off.
    pub metrics: Option<PrometheusHandle>,
    /// Cancelled when the server begins to stop: open streams end, so that connections can drain.
    pub shutdown: CancellationToken,
    streams: Arc<streams::Streams>,
    /// What the operator's token is recognised by, when there is one.
    operator: Option<[u8; 32]>,
    limits: Option<Arc<rate::Limits>>,
    refusals: Arc<audit::Refusals>,
    readiness: Arc<readiness::Readiness>,
    desk: Arc<signup::Desk>,
}

impl AppState {
    /// Puts the shared state together.
    #[must_use]
    pub fn new(
        engine: Engine,
        config: ApiConfig,
        metrics: Option<PrometheusHandle>,
        shutdown: CancellationToken,
    ) -> Self {
        let streams = streams::Streams::new(config.max_streams, config.max_streams_per_key);
        Self {
            engine,
            operator: config.api_token.as_ref().map(auth::digest),
            limits: (config.rate_limit_rpm > 0).then(|| Arc::new(rate::Limits::new(config.rate_limit_rpm))),
            refusals: Arc::default(),
            readiness: Arc::default(),
            desk: Arc::default(),
            config: Arc::new(config),
            metrics,
            shutdown,
            streams: Arc::new(streams),
        }
    }
}

/// The whole API as one service. The caller listens, serves it and stops it.
pub fn router(state: AppState) -> Router {
    let document = openapi::document();
    let site = reference::routes(&document);
    let (native, _) = openapi::routes().split_for_parts();
    let native = native.with_state(state.clone()).merge(site);
    let dispatch = dialect::Dispatch::new(
        guarded(native, &state),
        guarded(dialects::claude::router(state.clone()), &state),
    );
    Router::new().fallback_service(dispatch)
}

/// Puts everything in front of a dialect's routes that stands in front of all of them. The last layer is the
/// outermost.
fn guarded(routes: Router, state: &AppState) -> Router {
    routes
        .fallback(fault::unknown_path)
        .method_not_allowed_fallback(fault::wrong_method)
        .layer(from_fn_with_state(state.clone(), audit::begin))
        .layer(from_fn_with_state(state.clone(), auth::require))
        .layer(from_fn_with_state(state.clone(), origin::guard))
        .layer(from_fn(panic::catch))
        .layer(from_fn_with_state(state.clone(), audit::record))
        .layer(from_fn(fault::render))
        .layer(from_fn(telemetry::measure))
        .layer(from_fn(request_id::assign))
}
