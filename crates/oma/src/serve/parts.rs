//! What a server is made of, built from the configuration, lowest first.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use oma_api::{ApiConfig, AppState};
use oma_egress::Guard;
use oma_engine::{Deps, Engine};
use oma_furnish::{Environments, Memories, Skills};
use oma_models::retry::Policy;
use oma_runtime_native::Native;
use oma_sandbox::layers::Layers;
use oma_sandbox::mounts::Furnish;
use oma_sandbox::{Pool, Provider};
use oma_store::sqlite::{Options, Sqlite};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::config::value::Value as _;
use crate::print::Failure;
use crate::serve::{checkpoints, files, mcp, models, network, sandboxes, signup, tools, vaults};

/// The parts of a server that others than their neighbours need.
pub(crate) struct Parts {
    pub(crate) store: Arc<Sqlite>,
    pub(crate) vaults: oma_vault::Vaults,
    pub(crate) enforcement: oma_sandbox::limits::Enforcement,
    /// The backend of sandboxes, by its name.
    pub(crate) backend: &'static str,
    pub(crate) engine: Engine,
    pub(crate) environments: Environments,
    pub(crate) api: AppState,
    pub(crate) metrics: PrometheusHandle,
    /// The names of the providers that are configured.
    pub(crate) providers: Vec<String>,
}

impl Parts {
    /// Builds them.
    ///
    /// # Errors
    /// What stands in the way, with the setting that could change it.
    pub(crate) async fn build(
        config: &Config,
        address: SocketAddr,
        metrics: PrometheusHandle,
        stopping: CancellationToken,
    ) -> Result<Self, Failure> {
        sandboxes::check_secrets(config)?;
        let api_token = api_token(config)?;
        let signup = signup::configure(config)?;
        let configured = models::configure(config)?;
        let providers = configured.providers.keys().cloned().collect();
        let models = models::registry(configured)?;
        let tools = Arc::new(tools::configure(config)?);
        let store = open_store(config).await?;
        let local = sandboxes::open(config).await?;
        let enforcement = local.enforcement();
        let backend = local.name();
        sandboxes::check_limits(config, enforcement)?;
        if let Some(grader) = &config.models.grader {
            models
                .check(grader)
                .map_err(|problem| Failure::Other(format!("models.grader: {problem}")))?;
        }
        let layers: Arc<dyn Layers> = Arc::new(local.clone());
        let local: Arc<dyn Provider> = Arc::new(local);
        let durable = Arc::clone(&store) as Arc<dyn oma_store::Store>;
        let memories = Memories::new(Arc::clone(&durable), Arc::clone(&local));
        let guard = Arc::new(Guard::new(oma_egress::Policy {
            allow: config.tools.dial_allow.0.clone(),
        }));
        let vaults = vaults::open(config, &store, Arc::clone(&guard)).await?;
        let network = network::configure(config, Arc::clone(&durable), vaults.clone())?;
        let environments = Environments::new(
            Arc::clone(&durable),
            Arc::clone(&local),
            layers,
            network.clone(),
            sandboxes::environments(config),
        );
        let skills = Skills::new(durable, Arc::clone(&local));
        let access = oma_files::Access {
            guard: Arc::clone(&guard),
            vaults: vaults.clone(),
        };
        let files = files::open(config, &store, &local, access).await?;
        let archives = checkpoints::open(config)?;
        let mut furnishers: Vec<Arc<dyn Furnish>> = vec![
            // The first: nothing is put into a sandbox that has to wait.
            Arc::new(environments.clone()),
            Arc::new(files.clone()),
            Arc::new(memories.clone()),
            Arc::new(skills),
        ];
        if let Some(network) = &network {
            furnishers.push(Arc::new(network.clone()));
        }
        let pool = Pool::furnished(local, sandboxes::pool(config), furnishers);
        let native = oma_runtime_native::Config {
            inline_result_chars: config.sandbox.inline_result_chars,
            grader_model: config.models.grader.clone(),
            ..oma_runtime_native::Config::default()
        };
        let listed = models::listed(&models);
        let mcp = mcp::hub(config, Arc::clone(&guard), pool.clone(), vaults.clone());
        let mut runtime = Native::new(models, Policy::default(), tools, pool, mcp, native)
            .with_memories(memories)
            .with_environments(environments.clone());
        if let Some(network) = network {
            runtime = runtime.with_network(network);
        }
        let deps = Deps {
            store: Arc::clone(&store) as Arc<dyn oma_store::Store>,
            runtime: Arc::new(runtime),
            models: listed,
            vaults: vaults.clone(),
            files,
            archives,
            guard,
        };
        let engine = Engine::new(deps, engine(config));
        // Before anybody presents one.
        let keys = engine
            .load_keys()
            .await
            .map_err(|error| Failure::Other(format!("the API keys can't be loaded: {error}")))?;
        tracing::debug!(keys, "API keys loaded");
        // Before any call is under way.
        engine
            .record_cut_off()
            .await
            .map_err(|error| Failure::Other(format!("the audit trail can't be written: {error}")))?;
        engine
            .give_up_checkpoints()
            .await
            .map_err(|error| Failure::Other(format!("the checkpoints: {error}")))?;
        let api = AppState::new(
            engine.clone(),
            api(config, address, api_token, signup),
            Some(metrics.clone()),
            stopping,
        );
        Ok(Self {
            store,
            vaults,
            enforcement,
            backend,
            engine,
            environments,
            api,
            metrics,
            providers,
        })
    }
}

async fn open_store(config: &Config) -> Result<Arc<Sqlite>, Failure> {
    let folder = config.data_dir.clone();
    let opened = tokio::task::spawn_blocking(move || Sqlite::open(&folder, &Options::default())).await;
    match opened {
        Ok(Ok(store)) => Ok(Arc::new(store)),
        Ok(Err(error)) => Err(Failure::Other(format!("{}: {error}", config.data_dir.display()))),
        Err(error) => Err(Failure::Other(format!("opening the store broke down: {error}"))),
    }
}

/// The token that callers must present, from its setting or its file.
fn api_token(config: &Config) -> Result<Option<SecretString>, Failure> {
    let Some(path) = &config.server.api_token_file else {
        return Ok(config.server.api_token.clone());
    };
    let wrong =
        |reason: String| Failure::Other(format!("server.api_token_file: {}: {reason}", path.display()));
    let text = crate::commands::read_text(path).map_err(|error| wrong(error.to_string()))?;
    SecretString::parse(&text).map(Some).map_err(wrong)
}

fn engine(config: &Config) -> oma_engine::Config {
    let engine = &config.engine;
    let days = config.server.audit_retention_days;
    oma_engine::Config {
        max_turns: engine.max_turns,
        max_requests_per_turn: engine.max_requests_per_turn,
        drain_timeout: engine.drain_timeout,
        ephemeral_age: engine.ephemeral_age,
        idempotency_age: engine.idempotency_age,
        compact_timeout: engine.compact_timeout,
        schedule_jitter: engine.schedule_jitter,
        max_skills: engine.max_skills,
        max_skill_versions: engine.max_skill_versions,
        max_memory_stores: engine.max_memory_stores,
        clock: oma_engine::Clock::System,
        audit_age: (days > 0).then(|| Duration::from_secs(u64::from(days) * 24 * 3600)),
    }
}

fn api(
    config: &Config,
    address: SocketAddr,
    api_token: Option<SecretString>,
    signup: oma_api::signup::SignUp,
) -> ApiConfig {
    let server = &config.server;
    let mut allowed_hosts = server.allowed_hosts.0.clone();
    if !address.ip().is_unspecified() {
        allowed_hosts.push(address.to_string());
    }
    let bytes = |limit: crate::config::units::Bytes| usize::try_from(limit.0).unwrap_or(usize::MAX);
    let commit = server
        .commit
        .as_deref()
        .or(crate::commands::COMMIT)
        .unwrap_or("unknown");
    ApiConfig {
        api_token,
        allowed_hosts,
        allowed_origins: server.allowed_origins.0.clone(),
        rate_limit_rpm: server.rate_limit_rpm,
        trusted_proxies: server.trusted_proxies.0.clone(),
        signup,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: commit.to_owned(),
        max_json_body: bytes(server.max_body),
        max_file: bytes(server.max_file),
        body_idle_timeout: server.body_idle_timeout,
        body_timeout: server.body_timeout,
        chat_timeout: server.run_timeout,
        max_streams: server.max_streams,
        max_streams_per_key: server.max_streams_per_key,
        ..ApiConfig::default()
    }
}
