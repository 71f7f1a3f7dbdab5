//! A session without an engine: its log in memory, the real state machine, the fake provider as its model.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a failure is to end the test"
)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use oma_domain::agent::{Agent, RuntimeKind, Spec};
use oma_domain::event::Body;
use oma_domain::policy::PermissionPolicy;
use oma_domain::session::{Context, Input, Queued, State};
use oma_domain::thinking::ThinkingLevel;
use oma_domain::workflow::Call;
use oma_domain::{AgentId, ContentBlock, Event, EventId, Seq, SessionId, Timestamp, WorkspaceId};
use oma_egress::Guard;
use oma_fake_provider::{FakeProvider, Recorded, Reply};
use oma_mcp::{Hub, NoTokens};
use oma_models::config::Section;
use oma_models::retry::Policy;
use oma_models::{Config, Registry};
use oma_runtime::{Answer, Committed, Delta, Port, PortError, Recipient, Runtime, SessionInfo};
use oma_runtime_native::Native;
use oma_sandbox::files::Workspace;
use oma_sandbox::{Attached, Error as SandboxError, Pool, PoolConfig, Provider};

/// One model of each protocol.
pub(crate) const MODELS: [&str; 5] = [
    "anthropic/claude-opus-4-8",
    "deepseek/deepseek-v4-pro",
    "responses/gpt-6-sol",
    "gemini/gemini-3.6-flash",
    "bedrock/anthropic.claude-opus-4-8-v1:0",
];

/// A backend that has no sandbox to give: tools that need one answer with an error.
struct NoSandbox;

#[async_trait]
impl Provider for NoSandbox {
    fn name(&self) -> &'static str {
        "none"
    }
    async fn attach_fitted(
        &self,
        _: &oma_sandbox::Spec,
        _: Arc<dyn oma_sandbox::fittings::Fit>,
    ) -> Result<Attached, SandboxError> {
        Err(SandboxError::TooWeak("there is none".to_owned()))
    }
    async fn reattach(&self, _: &SessionId) -> Result<Option<Attached>, SandboxError> {
        Ok(None)
    }
    fn survivors(&self) -> Vec<SessionId> {
        Vec::new()
    }
    async fn stop(&self, _: &SessionId) -> Result<(), SandboxError> {
        Ok(())
    }
    async fn retire(&self, _: &SessionId) -> Result<bool, SandboxError> {
        Ok(true)
    }
    async fn destroy(&self, _: &SessionId) -> Result<(), SandboxError> {
        Ok(())
    }
    async fn inventory(&self) -> Result<Vec<SessionId>, SandboxError> {
        Ok(Vec::new())
    }
    async fn workspace(&self, _: &SessionId) -> Result<Arc<dyn Workspace>, SandboxError> {
        Err(SandboxError::TooWeak("there is none".to_owned()))
    }
}

/// The log and the state folded from it.
pub(crate) struct Log {
    inner: Mutex<(Arc<State>, Vec<Event>)>,
    /// After which positions it was read.
    reads: Mutex<Vec<Seq>>,
    session: SessionId,
}

impl Log {
    pub(crate) fn feed(&self, input: Input) -> Result<Committed, PortError> {
        let mut inner = self.inner.lock().unwrap();
        let (state, log) = &mut *inner;
        let mut ctx = Context {
            now: Timestamp(0),
            created_at: Timestamp(0),
            quota: None,
            granted: Ok(u64::MAX),
            head: Seq(log.len() as u64),
            max_requests_per_turn: 50,
            confirmation_timeout_ms: None,
            new_id: &mut EventId::generate,
        };
        let transition = state.apply(input, &mut ctx)?;
        // What is stored is what is loaded.
        let stored = serde_json::to_string(&transition.events.iter().map(|it| &it.body).collect::<Vec<_>>());
        let bodies: Vec<Body> = serde_json::from_str(&stored.unwrap()).unwrap();
        let new = transition.events.into_iter().zip(bodies).enumerate();
        let events: Vec<Event> = new
            .map(|(index, (event, body))| Event {
                id: event.id,
                seq: Seq((log.len() + index + 1) as u64),
                session: self.session.clone(),
                at: Timestamp(0),
                body: Arc::new(body),
            })
            .collect();
        log.extend(events.iter().cloned());
        *state = Arc::new(transition.state);
        Ok(Committed {
            state: Arc::clone(state),
            events,
        })
    }
}

#[async_trait]
impl Port for Log {
    fn state(&self) -> (Arc<State>, Seq) {
        let inner = self.inner.lock().unwrap();
        (Arc::clone(&inner.0), Seq(inner.1.len() as u64))
    }
    async fn changed(&self) {
        std::future::pending::<()>().await;
    }
    async fn commit(&self, input: Input) -> Result<Committed, PortError> {
        self.feed(input)
    }
    async fn history(&self, after: Seq, limit: u32) -> Result<Vec<Event>, PortError> {
        self.reads.lock().unwrap().push(after);
        let inner = self.inner.lock().unwrap();
        let later = inner.1.iter().filter(|event| event.seq > after);
        Ok(later.take(limit as usize).cloned().collect())
    }
    fn delta(&self, _: Delta) {}
    async fn delegate(&self, _: &EventId, _: &str, _: &str) -> Result<Answer, PortError> {
        Err(PortError::Gone("nobody can be called here".into()))
    }
    async fn send(&self, _: &EventId, _: Recipient, _: &str) -> Result<Input, PortError> {
        unreachable!("nobody works in threads here")
    }

    async fn call(&self, _: &Call, _: &Arc<Agent>, _: &str) -> Result<Input, PortError> {
        unreachable!("nobody has workflow runs here")
    }

    fn leave_place(&self) {}
    async fn take_place(&self) {}
}

pub(crate) struct Bench {
    pub(crate) provider: FakeProvider,
    pub(crate) log: Arc<Log>,
    native: Arc<Native>,
    pub(crate) info: SessionInfo,
}

impl Bench {
    /// A session of an agent with this model, whose context is said to be so large.
    pub(crate) async fn start(model: &str, window: u64) -> Self {
        let provider = FakeProvider::start().await.expect("a port");
        let (url, openai) = (provider.url(), provider.openai_url());
        let lookup = |name: &str| match name {
            "ANTHROPIC_BASE_URL" | "GEMINI_BASE_URL" | "AWS_ENDPOINT_URL_BEDROCK_RUNTIME" => {
                Some(url.clone())
            }
            "AWS_REGION" => Some("eu-west-1".to_owned()),
            "AWS_BEARER_TOKEN_BEDROCK" => Some("a-test-key".to_owned()),
            _ if name.ends_with("_API_KEY") => Some("a-test-key".to_owned()),
            _ if name.ends_with("_BASE_URL") => Some(openai.clone()),
            _ => None,
        };
        let mut config = Config::from_env(lookup).expect("a valid environment");
        let section: Section = toml::from_str(&format!(
            "[prices.\"{model}\"]\ninput = 1000.0\noutput = 1000.0\n\
             [providers.responses]\nprotocol = \"openai_responses\"\nbase_url = \"{openai}\"\napi_key = \"key\"\n\
             [providers.small]\nprotocol = \"anthropic\"\nbase_url = \"{url}\"\napi_key = \"key\"\n\
             context_window = {window}\n"
        ))
        .expect("a valid section");
        config.apply(section, lookup).expect("a valid configuration");
        let registry = Registry::from_config(config).expect("a registry");
        let policy = Policy {
            base: Duration::from_millis(1),
            ..Policy::default()
        };
        let pool = Pool::new(Arc::new(NoSandbox), PoolConfig::default());
        let native = Native::new(
            Arc::new(registry),
            policy,
            Arc::new(oma_tools::Config::default()),
            pool.clone(),
            Hub::new(
                Arc::new(Guard::new(oma_egress::Policy::default())),
                Arc::new(NoTokens),
                pool,
                oma_mcp::Config::default(),
            ),
            oma_runtime_native::Config::default(),
        );
        let session = SessionId::generate();
        let log = Log {
            inner: Mutex::default(),
            reads: Mutex::default(),
            session: session.clone(),
        };
        let agent = Agent {
            id: AgentId::generate(),
            workspace: WorkspaceId::default_workspace(),
            version: 1,
            spec: Spec {
                model: model.to_owned(),
                instructions: "Be brief.".to_owned(),
                tools: Vec::new(),
                description: None,
                metadata: Default::default(),
                custom_tools: Vec::new(),
                name: None,
                permission_policy: PermissionPolicy::AlwaysAllow,
                callable_agents: Vec::new(),
                skills: Vec::new(),
                multiagent: None,
                max_subagent_depth: 0,
                mcp_servers: serde_json::Map::new(),
                quota: None,
                thinking_level: ThinkingLevel::Medium,
                channels: serde_json::Value::Null,
                runtime: RuntimeKind::Native,
            },
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            archived_at: None,
        };
        Self {
            provider,
            log: Arc::new(log),
            native: Arc::new(native),
            info: SessionInfo {
                id: session.clone(),
                workspace: WorkspaceId::default_workspace(),
                agent: Arc::new(agent),
                roster: Vec::new(),
                sandbox: session,
                environment: None,
                vaults: Vec::new(),
                memories: Vec::new(),
                created_by: None,
                delegation_depth: 0,
                created_at: Timestamp(0),
            },
        }
    }

    pub(crate) fn post(&self, content: Vec<ContentBlock>) {
        let message = Queued {
            id: EventId::generate(),
            content,
            model: None,
            thinking_level: None,
            trace: None,
            charged: None,
            system: None,
            from: None,
        };
        self.log
            .feed(Input::Post(Arc::new(message)))
            .expect("a message is accepted");
    }

    /// After which positions the log was read since the last time that this was asked.
    pub(crate) fn reads(&self) -> Vec<u64> {
        let reads = std::mem::take(&mut *self.log.reads.lock().unwrap());
        reads.into_iter().map(|at| at.0).collect()
    }

    /// Drives the turn until it has ended.
    pub(crate) async fn drive(&self) {
        self.native
            .drive(&self.info, Arc::clone(&self.log) as Arc<dyn Port>, false)
            .await;
    }

    /// Drives the turn until so many requests have arrived, then stops as a crash does, and wakes the session.
    pub(crate) async fn crash_at_request(&self, count: u64) {
        tokio::select! {
            () = self.drive() => panic!("the turn has ended"),
            () = self.provider.wait_for_requests(count) => {}
        }
        self.log.feed(Input::Wake).expect("a session can always be woken");
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.log.inner.lock().unwrap().1.clone()
    }

    pub(crate) fn state(&self) -> Arc<State> {
        self.log.state().0
    }

    /// The provider refuses the next request because it is too long.
    pub(crate) fn push_overflow(&self) {
        let refusal = Reply::failure(400, "invalid_request_error", "prompt is too long: 2 > 1");
        self.provider.push(refusal);
    }

    pub(crate) fn request(&self, number: usize) -> Recorded {
        self.provider.requests()[number - 1].clone()
    }
}
