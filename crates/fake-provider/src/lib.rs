//! A fake model provider for tests: it speaks each provider's wire protocol and checks every request.
//!
//! [`FakeProvider::start`] listens on a free loopback port and answers
//!
//! | path | protocol |
//! |---|---|
//! | `POST /v1/messages` | Anthropic Messages |
//! | `POST /v1/chat/completions` | OpenAI Chat Completions |
//! | `POST /v1/responses` | OpenAI Responses |
//! | `POST /v1beta/models/{model}:streamGenerateContent` | Gemini |
//! | `POST /model/{model}/converse-stream` | Bedrock ConverseStream (binary event stream) |
//!
//! Answers come from a queue ([`FakeProvider::push`]), from a function ([`FakeProvider::respond_with`]), or, when
//! there is neither, from the conversation itself: a user text that begins with `script:` holds a JSON list of
//! replies ([`script`]), any other is echoed. Being driven by the conversation alone makes crash tests
//! deterministic: the same request gets the same answer after any restart.
//!
//! Whatever real providers refuse is recorded as a violation; [`FakeProvider`] panics when it is dropped with
//! violations that nobody took.
//!
//! Where it sits: beside everything; only tests and benches use it.

mod event_stream;
mod protocol;
mod reply;
pub mod script;
mod server;
mod view;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::serve::ListenerExt as _;
use serde::Serialize;
use serde_json::Value;

pub use protocol::Protocol;
pub use reply::{Gate, Reply, Step, Stop, Usage};

/// The most requests and violations that are kept; older requests make room.
const MAX_RECORDED: usize = 1_000;

/// A request as it came.
#[derive(Debug, Clone, Serialize)]
pub struct Recorded {
    /// The protocol.
    pub protocol: Protocol,
    /// The path and query.
    pub path: String,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Value,
    /// What a real provider would refuse about it.
    pub violations: Vec<String>,
}

impl Recorded {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(it, _)| it == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Makes a reply to a request.
pub type Respond = Box<dyn Fn(&Recorded) -> Reply + Send + Sync>;

#[derive(Default)]
struct State {
    queue: VecDeque<Reply>,
    respond: Option<Arc<Respond>>,
    requests: VecDeque<Recorded>,
    violations: Vec<String>,
    served: u64,
    failures: script::Failures,
}

/// The state that the server and its owner share.
#[derive(Clone)]
pub(crate) struct Shared {
    state: Arc<Mutex<State>>,
    served: Arc<tokio::sync::watch::Sender<u64>>,
}

impl Shared {
    fn new() -> Self {
        Self {
            state: Arc::default(),
            served: Arc::new(tokio::sync::watch::Sender::new(0)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request and finds the reply to it.
    pub(crate) fn reply(&self, recorded: Recorded, view: &view::View) -> Reply {
        let mut state = self.lock();
        if state.violations.len() < MAX_RECORDED {
            let place = format!("request {} ({}): ", state.served + 1, recorded.path);
            let found: Vec<String> = recorded
                .violations
                .iter()
                .map(|what| format!("{place}{what}"))
                .collect();
            state.violations.extend(found);
        }
        if state.requests.len() >= MAX_RECORDED {
            state.requests.pop_front();
        }
        let queued = state.queue.pop_front();
        let respond = state.respond.clone().filter(|_| queued.is_none());
        let shown = respond.as_ref().map(|_| recorded.clone());
        state.requests.push_back(recorded);
        state.served += 1;
        self.served.send_replace(state.served);
        match (queued, respond, shown) {
            (Some(reply), _, _) => reply,
            (None, Some(respond), Some(recorded)) => {
                drop(state);
                respond(&recorded)
            }
            (None, _, _) => script::from_conversation(view, &mut state.failures),
        }
    }

    /// Notes a violation that belongs to no readable request.
    pub(crate) fn violation(&self, what: String) {
        let mut state = self.lock();
        if state.violations.len() < MAX_RECORDED {
            state.violations.push(what);
        }
    }

    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.lock().requests.iter().cloned().collect()
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }
}

/// A running fake provider. It ends when it is dropped.
pub struct FakeProvider {
    shared: Shared,
    address: SocketAddr,
    server: tokio::task::JoinHandle<()>,
}

impl FakeProvider {
    /// Starts on a free loopback port.
    ///
    /// # Errors
    /// When there is no port to be had.
    pub async fn start() -> std::io::Result<Self> {
        Self::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Starts on an address.
    ///
    /// # Errors
    /// When the address is taken.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let shared = Shared::new();
        let listener = tokio::net::TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        // Frames are small and many; without this each would wait for the one before to be acknowledged.
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        let router = server::router(shared.clone());
        let server = tokio::spawn(async move {
            // Serving ends only when the task is aborted.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            shared,
            address,
            server,
        })
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL, without a path: what `ANTHROPIC_BASE_URL` takes.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its base URL with `/v1`: what `OPENAI_BASE_URL` takes.
    #[must_use]
    pub fn openai_url(&self) -> String {
        format!("{}/v1", self.url())
    }

    /// Adds a reply to the queue.
    pub fn push(&self, reply: Reply) {
        self.shared.lock().queue.push_back(reply);
    }

    /// Answers with a function once the queue is empty. It must not call this provider.
    pub fn respond_with(&self, respond: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) {
        self.shared.lock().respond = Some(Arc::new(Box::new(respond)));
    }

    /// The requests so far, oldest first; at most the last thousand.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.requests()
    }

    /// How many requests have arrived so far.
    #[must_use]
    pub fn served(&self) -> u64 {
        *self.shared.served.borrow()
    }

    /// Waits until so many requests have arrived.
    pub async fn wait_for_requests(&self, count: u64) {
        // The sender lives as long as `self`, so waiting can't fail.
        let _ = self
            .shared
            .served
            .subscribe()
            .wait_for(|served| *served >= count)
            .await;
    }

    /// What real providers would have refused so far.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.shared.violations()
    }

    /// Takes the violations, so that dropping the provider doesn't panic over them.
    #[must_use]
    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.lock().violations)
    }

    /// Checks that no request broke a rule.
    ///
    /// # Panics
    /// When one did.
    #[expect(clippy::panic, reason = "this is an assertion of tests")]
    pub fn assert_clean(&self) {
        let violations = self.take_violations();
        if !violations.is_empty() {
            panic!("requests that real providers refuse:\n{}", violations.join("\n"));
        }
    }

    /// Serves until the process ends.
    pub async fn run(mut self) {
        // The server task ends only with an abort, which can't come while this waits for it.
        let _ = (&mut self.server).await;
    }
}

impl Drop for FakeProvider {
    fn drop(&mut self) {
        self.server.abort();
        if !std::thread::panicking() {
            self.assert_clean();
        }
    }
}
