//! The runtime itself: what it works with, and its side of the `Runtime` trait.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use oma_domain::agent::{Agent, RuntimeKind};
use oma_domain::content::joined_text;
use oma_domain::environment::{self, Environment, Networking};
use oma_domain::session::{OpenTool, Outcome};
use oma_domain::{ContentBlock, EnvironmentId, EventId, SessionId, WorkspaceId};
use oma_furnish::environments::{Report, Stage};
use oma_furnish::{Environments, Memories, Network};
use oma_mcp::Hub;
use oma_models::Registry;
use oma_models::retry::Policy;
use oma_runtime::{Build, BuildStage, Left, Port, PortError, Runtime, SessionInfo, Unsupported};
use oma_sandbox::Spec;
use oma_sandbox::files::Workspace;
use oma_sandbox::files::archive::{Bounds, Contents};
use oma_sandbox::pool::{Counts, Pool};
use oma_sandbox::spill::{self, Kept};
use oma_tools::Toolbox;

use crate::building;
use crate::conversation::Conversation;
use crate::prompt;
use crate::recent::Recent;
use crate::turn::Run;

/// Bounds of the native loop.
#[derive(Debug, Clone)]
pub struct Config {
    /// How full the model's context may get before it is summarised, in percent.
    pub compact_at_percent: u64,
    /// The longest result that the model is shown whole, in characters.
    pub inline_result_chars: usize,
    /// How many bytes of conversations are kept for the next turns of their sessions.
    pub recent_bytes: u64,
    /// The model that grades outcomes, `provider/model`; the session's own otherwise.
    pub grader_model: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            compact_at_percent: 80,
            inline_result_chars: 100_000,
            recent_bytes: 32 << 20,
            grader_model: None,
        }
    }
}

/// The native runtime.
pub struct Native {
    pub(crate) models: Arc<Registry>,
    pub(crate) retry: Policy,
    pub(crate) tools: Arc<oma_tools::Config>,
    pub(crate) pool: Pool,
    pub(crate) mcp: Hub,
    pub(crate) config: Config,
    pub(crate) recent: Recent,
    pub(crate) memories: Option<Memories>,
    network: Option<Network>,
    pub(crate) environments: Option<Environments>,
    /// Sandboxes of several threads that have taken the place of others, which this process has learnt of: only one
    /// of the threads hears of it from the pool, and all have to know.
    pub(crate) replaced: Mutex<HashSet<SessionId>>,
}

impl Native {
    /// A runtime over these models, tools, sandboxes and connections to MCP servers.
    #[must_use]
    pub fn new(
        models: Arc<Registry>,
        retry: Policy,
        tools: Arc<oma_tools::Config>,
        pool: Pool,
        mcp: Hub,
        config: Config,
    ) -> Self {
        Self {
            models,
            retry,
            tools,
            pool,
            mcp,
            recent: Recent::new(config.recent_bytes),
            replaced: Mutex::default(),
            config,
            memories: None,
            network: None,
            environments: None,
        }
    }

    /// Takes back what sessions write into these memory stores.
    #[must_use]
    pub fn with_memories(mut self, memories: Memories) -> Self {
        self.memories = Some(memories);
        self
    }

    /// Sandboxes have this way out, so environments can limit it.
    #[must_use]
    pub fn with_network(mut self, network: Network) -> Self {
        self.network = Some(network);
        self
    }

    /// Sandboxes have what their environments ask for.
    #[must_use]
    pub fn with_environments(mut self, environments: Environments) -> Self {
        self.environments = Some(environments);
        self
    }

    /// Whether the session's sandbox can be started now, without a build that it would have to wait for. One that is
    /// wanted begins.
    pub(crate) fn is_built(&self, session: &SessionInfo) -> bool {
        let (Some(environments), Some(environment)) = (&self.environments, &session.environment) else {
            return true;
        };
        let is_ready = environments.is_ready(environment);
        if !is_ready {
            environments.prepare(environment);
        }
        is_ready
    }

    /// Waits, beside all places for sandboxes, until the session's environment is built, which its log tells of meanwhile. A sandbox that runs has what it
    /// began with.
    pub(crate) async fn built(
        &self,
        session: &SessionInfo,
        port: &dyn Port,
    ) -> Result<(), oma_sandbox::Error> {
        match (&self.environments, &session.environment) {
            (Some(environments), Some(environment)) if !environments.is_ready(environment) => {
                match self.pool.provider().reattach(&session.sandbox).await? {
                    Some(_) => Ok(()),
                    None => building::wait(environments, environment, &session.id, port).await,
                }
            }
            _ => Ok(()),
        }
    }

    /// Takes back what a session wrote into its memory stores when no result of a tool waits for it.
    pub(crate) fn keep_memories_behind(&self, session: &SessionInfo) {
        if let Some(memories) = &self.memories {
            memories.collect_behind(self.sandbox_spec(session), session.memories.clone());
        }
    }

    /// Adds to a result of a tool that ran in the sandbox what has to be said of the memories that it wrote. They are
    /// in the store when this returns.
    pub(crate) async fn keep_memories(&self, session: &SessionInfo, mut outcome: Outcome) -> Outcome {
        let Some(memories) = &self.memories else {
            return outcome;
        };
        let spec = self.sandbox_spec(session);
        let notes = memories.collect(&spec, &session.memories).await;
        if !notes.is_empty() {
            let text = format!("<memory>\n{}\n</memory>", notes.join("\n"));
            outcome.content.push(ContentBlock::text(text));
        }
        outcome
    }

    pub(crate) fn sandbox_spec(&self, session: &SessionInfo) -> Spec {
        Spec {
            session: session.sandbox.clone(),
            workspace: session.workspace.clone(),
        }
    }

    /// Puts a result that is too long for the model into the workspace, with a preview in its place.
    pub(crate) async fn spill(&self, session: &SessionInfo, tool: &EventId, outcome: Outcome) -> Outcome {
        let inline = self.config.inline_result_chars;
        let is_text = |block: &ContentBlock| matches!(block, ContentBlock::Text { .. });
        let text = joined_text(&outcome.content);
        if !spill::is_too_long(&text, inline) {
            return outcome;
        }
        let path = spill::path(tool);
        let written = match self.pool.provider().workspace(&session.sandbox).await {
            Ok(files) => files
                .write(&path, text.clone().into())
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let kept = match &written {
            Ok(()) => Kept::At(&path),
            Err(reason) => {
                tracing::error!(%reason, "a long result could not be written into the workspace");
                Kept::Lost("the workspace can't be written")
            }
        };
        let preview = spill::preview(&text, inline, kept);
        let files = outcome.content.into_iter().filter(|block| !is_text(block));
        Outcome {
            content: std::iter::once(ContentBlock::text(preview))
                .chain(files)
                .collect(),
            is_error: outcome.is_error,
        }
    }
}

#[async_trait]
impl Runtime for Native {
    fn check(&self, agent: &Agent, environment: Option<&Environment>) -> Result<(), Unsupported> {
        let refuse = |field, message: &str| {
            Err(Unsupported {
                field,
                message: message.to_owned(),
            })
        };
        let spec = &agent.spec;
        if spec.runtime != RuntimeKind::Native {
            return refuse("runtime", "this server has no such runtime");
        }
        if let Some(unknown) = spec
            .tools
            .iter()
            .find(|tool| !oma_tools::known_names().contains(&tool.as_str()))
        {
            let known = oma_tools::known_names().join(", ");
            let message = format!("there is no tool {unknown:?}; the tools are {known}");
            return Err(Unsupported {
                field: "tools",
                message,
            });
        }
        if let Err(invalid) = oma_mcp::Server::all(&spec.mcp_servers) {
            return refuse("mcpServers", &invalid.to_string());
        }
        let Some(environment) = environment else {
            return Ok(());
        };
        self.check_environment(&environment.spec)?;
        let failure = self
            .environments
            .as_ref()
            .and_then(|known| known.failure(environment));
        failure.map_or(Ok(()), |reason| refuse("environment", &reason))
    }

    fn check_environment(&self, environment: &environment::Spec) -> Result<(), Unsupported> {
        let refuse = |field, message: &str| {
            Err(Unsupported {
                field,
                message: message.to_owned(),
            })
        };
        match &self.environments {
            Some(environments) => {
                if let Err((field, message)) = environments.check(environment) {
                    return refuse(field, &message);
                }
            }
            None if environment.is_built() => {
                return refuse("packages", "this server can't install anything into environments");
            }
            None => {}
        }
        if environment.networking != Networking::Unrestricted && self.network.is_none() {
            return refuse(
                "networking",
                "sandboxes of this server have no network, so none can be limited",
            );
        }
        Ok(())
    }

    fn check_model(&self, model: &str) -> Result<(), String> {
        self.models.check(model)
    }

    fn has_price(&self, model: &str) -> bool {
        // Whoever can't be asked for want of a key costs nothing before there is one.
        self.models
            .resolve(model)
            .map_or(true, |model| model.price(0).is_some())
    }

    fn servers_changed(&self, session: &SessionId) {
        self.mcp.discard(session);
        if let Some(network) = &self.network {
            network.servers_changed(session);
        }
    }

    fn environment_changed(&self, environment: &EnvironmentId) {
        self.pool.refit();
        if let Some(network) = &self.network {
            network.environment_changed(environment);
        }
    }

    fn prepare_environment(&self, environment: &Environment) {
        if let Some(environments) = &self.environments {
            environments.prepare(environment);
        }
    }

    async fn environment_build(&self, environment: &Environment) -> Result<Option<Build>, String> {
        let Some(environments) = &self.environments else {
            return Ok(None);
        };
        let report = environments.report(environment).await;
        let report = report.map_err(|error| error.to_string())?;
        Ok(report.map(|Report { layer, stage, log }| Build {
            layer,
            stage: match stage {
                Stage::Waiting => BuildStage::Waiting,
                Stage::Building(step) => BuildStage::Building {
                    step: step.to_owned(),
                },
                Stage::Ready => BuildStage::Ready,
                Stage::Failed(reason) => BuildStage::Failed { reason },
            },
            log,
        }))
    }

    async fn drive(&self, session: &SessionInfo, port: Arc<dyn Port>, recovering: bool) -> Left {
        let (state, _) = port.state();
        let mut run = Run {
            native: self,
            session,
            port: &*port,
            system: prompt::system(session),
            toolbox: Toolbox::new(&session.agent.spec, &self.tools),
            conversation: self
                .recent
                .take(session)
                .unwrap_or_else(|| Conversation::after(state.compacted_through)),
            servers: match self.mcp.open(session, self.sandbox_spec(session)) {
                Ok(servers) => servers,
                Err(invalid) => {
                    // Refused when the session was created; the agent was written by another version.
                    tracing::error!(%invalid, "an agent's MCP servers can't be read");
                    None
                }
            },
            offered: None,
            told: HashSet::new(),
            recovering,
            halved: 0,
            overflowed: false,
            compactions: 0,
            reduction: 0,
            bar_tools: false,
            unbuilt: Arc::default(),
        };
        let went = run.go().await;
        // Something in the sandbox may have written after its tool had ended.
        self.keep_memories_behind(session);
        match went {
            Ok(()) => {
                self.recent.put(session, run.conversation);
                Left::Tidy
            }
            Err(PortError::Gone(reason)) => {
                tracing::info!(%reason, "a turn was left");
                Left::Unsettled
            }
            Err(PortError::Rejected(rejection)) => {
                tracing::error!(%rejection, "a turn's next step is not legal");
                Left::Unsettled
            }
        }
    }

    async fn abort(&self, session: &SessionInfo, open: &[OpenTool]) -> Vec<(EventId, Outcome)> {
        self.end_tools(session, open).await
    }

    async fn logs(&self, session: &SessionId, tail: usize) -> Option<String> {
        let lease = self.pool.peek(session).await?;
        match lease.logs(tail).await {
            Ok(text) => Some(text),
            Err(error) => {
                tracing::warn!(%error, "a sandbox's log could not be read");
                None
            }
        }
    }

    async fn workspace(&self, session: &SessionId) -> Result<Arc<dyn Workspace>, String> {
        self.pool
            .provider()
            .workspace(session)
            .await
            .map_err(|error| error.to_string())
    }

    async fn save(
        &self,
        session: &SessionId,
        to: Box<dyn std::io::Write + Send>,
        bounds: Bounds,
    ) -> Result<Contents, oma_sandbox::Error> {
        // Connections of the turn before, which are opened again when they are needed.
        self.mcp.discard(session);
        self.pool.save(session, to, bounds).await
    }

    async fn restore(
        &self,
        session: &SessionId,
        from: Box<dyn std::io::Read + Send>,
        bounds: Bounds,
    ) -> Result<Contents, oma_sandbox::Error> {
        self.mcp.discard(session);
        self.pool.restore(session, from, bounds).await
    }

    async fn inventory(&self) -> Result<Vec<SessionId>, String> {
        self.pool
            .provider()
            .inventory()
            .await
            .map_err(|error| error.to_string())
    }

    fn sandboxes(&self) -> Counts {
        self.pool.counts()
    }

    fn max_warm(&self) -> usize {
        self.pool.max_warm()
    }

    fn warm(&self, workspace: &WorkspaceId, like: Option<&SessionId>) {
        match like {
            Some(session) => self.pool.warm(&Spec {
                session: session.clone(),
                workspace: workspace.clone(),
            }),
            None => self.pool.warm_plain(workspace),
        }
    }

    async fn retire(&self, unfinished: &HashSet<SessionId>) {
        self.pool.retire(unfinished).await;
    }

    async fn discard(&self, session: &SessionId) -> Result<(), String> {
        self.mcp.discard(session);
        self.replaced
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(session);
        self.pool
            .destroy(session)
            .await
            .map_err(|error| error.to_string())
    }
}
