//! What the cases put into a store.

use std::collections::BTreeMap;
use std::sync::Arc;

use oma_domain::agent::{Agent, RuntimeKind, Spec};
use oma_domain::environment::{self, Environment, Networking};
use oma_domain::event::{Body, Purpose};
use oma_domain::page::Page;
use oma_domain::policy::PermissionPolicy;
use oma_domain::quota::Quota;
use oma_domain::session::{Phase, Queued, State, Step, SystemNote, Turn};
use oma_domain::thinking::ThinkingLevel;
use oma_domain::toolset::CustomTool;
use oma_domain::{
    AgentId, ContentBlock, EnvironmentId, Event, EventId, KeyId, Member, Multiagent, Seq, SessionId,
    Timestamp, WorkspaceId,
};

use crate::{Commit, NewSession, Once, Result, Store};

/// When everything happens, unless a case says otherwise: rows of the same millisecond are the hard case.
pub const NOW: Timestamp = Timestamp(1_790_000_000_000);

/// An agent at version 1.
#[must_use]
pub fn agent(workspace: &WorkspaceId) -> Agent {
    Agent {
        id: AgentId::generate(),
        workspace: workspace.clone(),
        version: 1,
        spec: Spec {
            model: "scripted/echo".into(),
            instructions: "Say \"ja\" — und 'nein'.\n".into(),
            tools: vec!["bash".into(), "read".into()],
            name: Some("Ёлка".into()),
            description: Some("grün".into()),
            metadata: [("team".to_owned(), "ü".to_owned())].into(),
            custom_tools: vec![CustomTool {
                name: "ticket".into(),
                description: "Opens a ticket".into(),
                input_schema: serde_json::json!({ "type": "object" }),
            }],
            permission_policy: PermissionPolicy::AlwaysAsk {
                tools: Some(vec!["bash".into()]),
                timeout_ms: Some(60_000),
            },
            callable_agents: vec!["agt_other".into()],
            skills: Vec::new(),
            multiagent: Some(Multiagent::Coordinator {
                advisor: None,
                agents: vec![Member::This],
            }),
            max_subagent_depth: 2,
            mcp_servers: serde_json::Map::from_iter([("docs".to_owned(), serde_json::json!({ "url": "x" }))]),
            quota: None,
            thinking_level: ThinkingLevel::Medium,
            channels: serde_json::json!({ "telegram": { "enabled": true } }),
            runtime: RuntimeKind::Native,
        },
        created_at: NOW,
        updated_at: NOW,
        archived_at: None,
    }
}

/// An environment.
#[must_use]
pub fn environment(workspace: &WorkspaceId) -> Environment {
    Environment {
        id: EnvironmentId::generate(),
        workspace: workspace.clone(),
        spec: environment::Spec {
            name: "python".into(),
            description: Some("with numpy".into()),
            packages: Some(environment::Packages {
                pip: Some(vec!["numpy".into()]),
                ..Default::default()
            }),
            networking: Networking::Limited {
                allowed_hosts: vec!["*.example.org".into()],
                allow_mcp_servers: true,
                allow_package_managers: false,
            },
            metadata: [("a".to_owned(), "b".to_owned())].into(),
            hosting: environment::Hosting::SelfHosted,
            variables: [("A".to_owned(), "b".to_owned())].into(),
            limits: Some(environment::Limits {
                memory: Some(1 << 30),
                ..Default::default()
            }),
            image: Some("python:3".to_owned()),
            setup_script: Some("true".to_owned()),
        },
        created_at: NOW,
        updated_at: NOW,
        archived_at: None,
    }
}

/// A session to create.
#[must_use]
pub fn new_session(workspace: &WorkspaceId, agent: &Arc<Agent>) -> NewSession {
    NewSession {
        id: SessionId::generate(),
        workspace: workspace.clone(),
        agent: Arc::clone(agent),
        roster: Vec::new(),
        environment: None,
        vaults: Vec::new(),
        memories: Vec::new(),
        resources: Vec::new(),
        files: Vec::new(),
        file_room: u64::MAX,
        parent: None,
        is_thread: false,
        delegation_depth: 3,
        created_by: Some(KeyId::generate()),
        share: Some(Quota {
            max_tokens: Some(1_000),
            ..Quota::default()
        }),
        budget: None,
        ephemeral: false,
        title: None,
        metadata: BTreeMap::new(),
        deployment: None,
        created_at: NOW,
    }
}

/// A session in a store, in a workspace of its own.
pub async fn stored_session(store: &Arc<dyn Store>) -> (WorkspaceId, SessionId) {
    let workspace = WorkspaceId::generate();
    let agent = Arc::new(agent(&workspace));
    let session = new_session(&workspace, &agent);
    store.create_session(&session, None).await.unwrap();
    (workspace, session.id)
}

/// A text block.
#[must_use]
pub fn text(text: impl Into<String>) -> ContentBlock {
    ContentBlock::Text { text: text.into() }
}

/// A user message that names its position.
#[must_use]
pub fn event(session: &SessionId, seq: u64) -> Event {
    Event {
        id: EventId::generate(),
        seq: Seq(seq),
        session: session.clone(),
        at: Timestamp(NOW.0 + i64::try_from(seq).unwrap_or(i64::MAX)),
        body: Arc::new(Body::UserMessage {
            content: vec![text(format!("message {seq}"))],
            from: None,
        }),
    }
}

/// A commit of `count` events on top of `head`.
#[must_use]
pub fn commit(workspace: &WorkspaceId, session: &SessionId, head: u64, count: u64) -> Commit {
    Commit {
        workspace: workspace.clone(),
        session: session.clone(),
        expected_head: Seq(head),
        events: (head + 1..=head + count).map(|seq| event(session, seq)).collect(),
        queue: Vec::new(),
        state: Arc::new(State {
            turns: head + count,
            ..State::default()
        }),
        output: None,
        evaluations: None,
        agent: None,
        needs_agent: None,
        once: None,
        used: None,
        audit: None,
    }
}

/// An idempotency key.
#[must_use]
pub fn once(scope: &str, key: &str) -> Once {
    Once {
        scope: scope.into(),
        key: key.into(),
        fingerprint: format!("print of {key}"),
        receipt: serde_json::json!({ "key": key, "list": [1, null] }),
        at: NOW,
    }
}

/// A message that waits.
#[must_use]
pub fn queued(content: &str) -> Arc<Queued> {
    Arc::new(Queued {
        id: EventId::generate(),
        content: vec![text(content)],
        model: Some("scripted/other".into()),
        thinking_level: Some(ThinkingLevel::High),
        trace: None,
        charged: Some(KeyId::generate()),
        system: Some(SystemNote {
            id: EventId::generate(),
            content: vec![text("between us")],
        }),
        from: None,
    })
}

/// A turn that is due to make a model request.
#[must_use]
pub fn turn() -> Turn {
    Turn {
        id: EventId::generate(),
        purpose: Purpose::Reply,
        step: Step::Ready,
        requests: 1,
        failed_attempts: 0,
        started_at: NOW,
        trace: None,
        charged: None,
        answers: None,
        said: false,
    }
}

/// A state in which a turn goes on.
#[must_use]
pub fn running() -> State {
    State {
        phase: Phase::Running { turn: turn() },
        turns: 1,
        output: Some("so far".into()),
        ..State::default()
    }
}

/// Follows a list from its beginning to its end.
pub async fn collect<T, C, F>(mut next: impl FnMut(Option<C>) -> F) -> Vec<T>
where
    F: Future<Output = Result<Page<T, C>>>,
{
    let mut all = Vec::new();
    let mut cursor = None;
    loop {
        let page = next(cursor.take()).await.unwrap();
        assert!(
            page.next.is_none() || !page.rows.is_empty(),
            "an empty page with a successor never ends"
        );
        all.extend(page.rows);
        cursor = page.next;
        if cursor.is_none() {
            return all;
        }
    }
}

/// Asserts that a call failed in the given way, and shows what came instead.
#[macro_export]
#[doc(hidden)]
macro_rules! assert_refused {
    ($result:expr, $pattern:pat) => {{
        let result = $result;
        assert!(
            matches!(&result, Err($pattern)),
            "expected {}, got {result:?}",
            stringify!($pattern)
        );
    }};
}
