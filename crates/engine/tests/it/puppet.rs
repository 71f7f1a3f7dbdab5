//! A runtime that does what the user's message says, and waits for the test where the message says so.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_util::StreamExt;
use oma_domain::agent::{self, Agent, RuntimeKind};
use oma_domain::content::joined_text;
use oma_domain::environment::Environment;
use oma_domain::event::{Body, Failure, FailureKind, Purpose};
use oma_domain::policy::{Permission, PermissionPolicy};
use oma_domain::quota::Bound;
use oma_domain::session::{Input, OpenTool, Outcome, Reply, ReplyBlock, ReplyStop, Step};
use oma_domain::thinking::ThinkingLevel;
use oma_domain::usage::{Spent, Usage};
use oma_domain::{ContentBlock, Event, EventId, Seq, SessionId, WorkspaceId};
use oma_engine::{Config, CreateSession, Deps, Engine, Frame, Post};
use oma_runtime::{Delta, Left, Port, PortError, Runtime, SessionInfo, Unsupported};
use oma_sandbox::files::Workspace;
use oma_sandbox::pool::Counts;
use oma_store::Store;
use oma_store::sqlite::Sqlite;
use tokio::sync::Semaphore;

/// More pieces than a follower may be behind.
pub(crate) const FLOOD: usize = 300;

/// What messages can ask of it: `wait` holds the answer until the gate opens, and `aside` does so without a
/// place among the turns at work; `hang` never answers, `tool` uses a tool first, `ask` uses one that asks, `fail` fails, `panic` panics, `flood` answers in two messages of
/// which the first has many pieces; anything else is echoed.
pub(crate) struct Puppet {
    pub(crate) gate: Arc<Semaphore>,
    pub(crate) at_work: AtomicUsize,
    pub(crate) most_at_work: AtomicUsize,
    pub(crate) discarded: std::sync::Mutex<Vec<SessionId>>,
    pub(crate) present: std::sync::Mutex<Vec<SessionId>>,
    pub(crate) recovered: AtomicUsize,
    /// A drive whose turn has ended or is blocked returns when the gate opens.
    pub(crate) lingers: AtomicBool,
}

impl Puppet {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            gate: Arc::new(Semaphore::new(0)),
            at_work: AtomicUsize::new(0),
            most_at_work: AtomicUsize::new(0),
            discarded: std::sync::Mutex::default(),
            present: std::sync::Mutex::default(),
            recovered: AtomicUsize::new(0),
            lingers: AtomicBool::new(false),
        })
    }

    /// Until the gate opens, once.
    async fn wait(&self) {
        // It is never closed.
        if let Ok(pass) = self.gate.acquire().await {
            pass.forget();
        }
    }

    async fn go(&self, port: &dyn Port) -> Result<(), PortError> {
        loop {
            let (state, head) = port.state();
            let Some(turn) = state.turn().filter(|_| state.is_running()) else {
                return Ok(());
            };
            match &turn.step {
                Step::Sampling { .. } => return Ok(()),
                Step::Acting { open } => {
                    for tool in open
                        .iter()
                        .filter(|tool| tool.gate == oma_domain::session::Gate::Open)
                    {
                        let input = Input::FinishTool {
                            tool_use: tool.id.clone(),
                            outcome: Outcome::text("result"),
                            sandbox: None,
                        };
                        port.commit(input).await?;
                    }
                }
                Step::Ready => {
                    let used = turn.requests > 0;
                    self.answer(port, head, turn.purpose, used).await?;
                }
            }
        }
    }

    async fn answer(
        &self,
        port: &dyn Port,
        head: Seq,
        purpose: Purpose,
        used: bool,
    ) -> Result<(), PortError> {
        let log = port.history(Seq(head.0.saturating_sub(50)), 100).await?;
        // However much of it is asked for: the end of the log is the same.
        for at in log.len().saturating_sub(6)..log.len() {
            let after = Seq(log[at].seq.0 - 1);
            assert_eq!(port.history(after, 100).await?, log[at..]);
            assert_eq!(port.history(after, 1).await?, log[at..=at]);
        }
        assert_eq!(port.history(head, 100).await?, []);
        let last = log.iter().rev().find_map(|event| match &*event.body {
            Body::UserMessage { content, .. } => Some(joined_text(content)),
            _ => None,
        });
        let text = last.unwrap_or_default();
        let request = EventId::generate();
        let begin = Input::BeginRequest {
            id: request.clone(),
            model: "test/puppet".into(),
            thinking_level: ThinkingLevel::Off,
            purpose,
            bound: Bound::default(),
        };
        port.commit(begin).await?;
        if purpose == Purpose::Compaction {
            let (usage, summary) = (Usage::default(), "summary".to_owned());
            port.commit(Input::FinishCompaction {
                request,
                summary,
                kept: None,
                usage,
                cost: None,
            })
            .await?;
            return Ok(());
        }
        let mut blocks = Vec::new();
        if text.contains("flood") {
            let first = EventId::generate();
            port.delta(Delta::MessageStart { event: first.clone() });
            for number in 0..FLOOD {
                let (event, text) = (first.clone(), ".".into());
                port.delta(Delta::Text { event, text });
                if number % 50 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            let (text, opaque) = (".".repeat(FLOOD), None);
            blocks.push(ReplyBlock::Text {
                id: first,
                text,
                opaque,
            });
        }
        let message = EventId::generate();
        port.delta(Delta::MessageStart {
            event: message.clone(),
        });
        port.delta(Delta::Text {
            event: message.clone(),
            text: "re: ".into(),
        });
        if text.contains("wait") {
            self.wait().await;
        }
        let aside = async |times: usize| {
            let waits = (0..times).map(|_| oma_runtime::aside(port, self.gate.acquire()));
            for pass in futures_util::future::join_all(waits).await.into_iter().flatten() {
                pass.forget();
            }
        };
        if text.contains("aside") {
            aside(1 + usize::from(text.contains("twice"))).await;
        }
        if text.contains("hang") {
            std::future::pending::<()>().await;
        }
        if text.contains("panic") {
            panic!("the puppet was told to");
        }
        if text.contains("fail") {
            let failure = Failure {
                kind: FailureKind::ModelRequestFailed,
                message: "no".into(),
            };
            port.commit(Input::FailRequest {
                request,
                failure,
                spent: Spent::Nothing,
                retry: false,
            })
            .await?;
            return Ok(());
        }
        port.delta(Delta::Text {
            event: message.clone(),
            text: text.clone(),
        });
        blocks.push(ReplyBlock::Text {
            id: message,
            text: format!("re: {text}"),
            opaque: None,
        });
        let permission = if text.contains("ask") {
            Permission::Ask
        } else {
            Permission::Allow
        };
        if !used && (text.contains("tool") || text.contains("ask")) {
            blocks.push(ReplyBlock::ToolUse {
                custom: false,
                remote: false,
                id: EventId::generate(),
                name: "bash".into(),
                input: serde_json::json!({}),
                call_id: "call".into(),
                permission,
                origin: oma_domain::origin::Origin::default(),
                opaque: None,
            });
        }
        let usage = Usage {
            input: 3,
            output: 2,
            ..Usage::default()
        };
        let reply = Reply {
            blocks,
            model: "test/puppet".into(),
            usage,
            cost: None,
            stop: ReplyStop::Done,
        };
        port.commit(Input::FinishRequest { request, reply }).await?;
        Ok(())
    }
}

struct AtWork<'a>(&'a Puppet);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.at_work.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Runtime for Puppet {
    fn check(&self, agent: &Agent, _: Option<&Environment>) -> Result<(), Unsupported> {
        if agent.spec.tools.iter().any(|tool| tool == "no-such-tool") {
            return Err(Unsupported {
                field: "tools",
                message: "no such tool".into(),
            });
        }
        Ok(())
    }

    fn check_model(&self, model: &str) -> Result<(), String> {
        match model.split_once('/') {
            Some(("nobody", _)) => Err("there is no provider `nobody`; there are test".into()),
            _ => Ok(()),
        }
    }

    async fn drive(&self, _: &SessionInfo, port: Arc<dyn Port>, recovering: bool) -> Left {
        let now = self.at_work.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_work.fetch_max(now, Ordering::SeqCst);
        let _leaving = AtWork(self);
        self.recovered
            .fetch_add(usize::from(recovering), Ordering::SeqCst);
        let went = self.go(&*port).await;
        if self.lingers.load(Ordering::SeqCst) {
            self.wait().await;
        }
        match went {
            Ok(()) => Left::Tidy,
            Err(_) => Left::Unsettled,
        }
    }

    async fn abort(&self, _: &SessionInfo, open: &[OpenTool]) -> Vec<(EventId, Outcome)> {
        open.iter()
            .map(|tool| (tool.id.clone(), Outcome::error("cut off")))
            .collect()
    }

    async fn logs(&self, _: &SessionId, _: usize) -> Option<String> {
        None
    }

    async fn workspace(&self, _: &SessionId) -> Result<Arc<dyn Workspace>, String> {
        Err("the puppet has none".into())
    }

    async fn inventory(&self) -> Result<Vec<SessionId>, String> {
        Ok(self.present.lock().unwrap().clone())
    }

    fn sandboxes(&self) -> Counts {
        Counts::default()
    }

    async fn retire(&self, _: &HashSet<SessionId>) {}

    async fn discard(&self, session: &SessionId) -> Result<(), String> {
        self.discarded.lock().unwrap().push(session.clone());
        Ok(())
    }
}

/// An engine over a data folder that outlives it.
pub(crate) struct Stage {
    pub(crate) engine: Engine,
    pub(crate) puppet: Arc<Puppet>,
    pub(crate) ws: WorkspaceId,
}

/// The store of a folder. What is left of the tasks of an engine before this one may keep it open for a moment.
async fn opened(folder: &std::path::Path) -> Sqlite {
    let open = async {
        loop {
            match Sqlite::open(folder, &Default::default()) {
                Err(oma_store::Error::Unavailable(_)) => tokio::task::yield_now().await,
                opened => return opened.unwrap(),
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), open)
        .await
        .unwrap()
}

impl Stage {
    pub(crate) async fn over(folder: &std::path::Path, config: Config) -> Self {
        let guard = oma_egress::Guard::new(oma_egress::Policy::default());
        Self::dialling(folder, config, Arc::new(guard)).await
    }

    pub(crate) async fn dialling(
        folder: &std::path::Path,
        config: Config,
        guard: Arc<oma_egress::Guard>,
    ) -> Self {
        let store: Arc<dyn Store> = Arc::new(opened(folder).await);
        let puppet = Puppet::new();
        let vaults = vaults(&store).await;
        let files =
            oma_engine::files::Files::open(folder, Default::default(), Arc::clone(&store), None, None);
        let deps = Deps {
            vaults,
            files: files.unwrap(),
            archives: oma_engine::Archives::open(&folder.join("checkpoints"), 0).unwrap(),
            store: Arc::clone(&store),
            runtime: puppet.clone(),
            models: Vec::new(),
            guard,
        };
        Self {
            engine: Engine::new(deps, config),
            puppet,
            ws: WorkspaceId::default_workspace(),
        }
    }

    pub(crate) async fn session(&self) -> SessionId {
        self.session_of(spec()).await
    }

    pub(crate) async fn session_of(&self, spec: agent::Spec) -> SessionId {
        let agent = self.engine.create_agent(&self.ws, spec, None).await.unwrap();
        let create = CreateSession::of(agent.id);
        self.engine
            .create_session(&self.ws, create, None)
            .await
            .unwrap()
            .id
    }

    pub(crate) async fn post(&self, session: &SessionId, text: &str) -> oma_engine::Posted {
        self.engine
            .post(&self.ws, session, message(text), None)
            .await
            .unwrap()
    }

    /// The whole log.
    pub(crate) async fn log(&self, session: &SessionId) -> Vec<Event> {
        let order = oma_domain::page::Order::Ascending;
        self.engine
            .events(&self.ws, session, None, order, 1000)
            .await
            .unwrap()
            .rows
    }

    /// Follows the session until an event satisfies the test; returns everything seen.
    pub(crate) async fn until(
        &self,
        session: &SessionId,
        after: Seq,
        done: impl Fn(&Event) -> bool,
    ) -> Vec<Event> {
        let mut frames = self.engine.follow(&self.ws, session, after, false).await.unwrap();
        let mut seen = Vec::new();
        while let Some(frame) = frames.next().await {
            if let Frame::Event(event) = frame.unwrap() {
                let last = done(&event);
                seen.push(event);
                if last {
                    return seen;
                }
            }
        }
        panic!("the stream ended: {:?}", kinds(&seen));
    }
}

pub(crate) fn spec() -> agent::Spec {
    agent::Spec {
        model: "test/puppet".into(),
        instructions: String::new(),
        tools: vec![],
        description: None,
        metadata: Default::default(),
        custom_tools: Vec::new(),
        name: None,
        permission_policy: PermissionPolicy::default(),
        callable_agents: vec![],
        skills: Vec::new(),
        multiagent: None,
        max_subagent_depth: 0,
        mcp_servers: serde_json::Map::new(),
        quota: None,
        thinking_level: ThinkingLevel::Off,
        channels: serde_json::json!({}),
        runtime: RuntimeKind::Native,
    }
}

pub(crate) fn message(text: &str) -> Post {
    Post {
        content: vec![ContentBlock::text(text)],
        model: None,
        thinking_level: None,
        only_if_idle: false,
        charged: None,
        audit: None,
    }
}

pub(crate) fn kinds(log: &[Event]) -> Vec<&'static str> {
    log.iter().map(|event| event.body.kind()).collect()
}

pub(crate) fn says(event: &Event, wanted: &str) -> bool {
    matches!(&*event.body, Body::AgentMessage { content, .. } if joined_text(content) == wanted)
}

pub(crate) fn is_idle(event: &Event) -> bool {
    matches!(&*event.body, Body::StatusIdle { .. })
}

/// Vaults under one key, which stages over the same folder share.
async fn vaults(store: &Arc<dyn Store>) -> oma_vault::Vaults {
    let key = "5a".repeat(32).into();
    let unlocked = oma_vault::key_file::unlock(&**store, &oma_vault::key_file::Source::Given(key)).await;
    let guard = oma_egress::Guard::new(oma_egress::Policy::default());
    oma_vault::Vaults::new(Arc::clone(store), unlocked.unwrap().master, Arc::new(guard))
}
