//! The way out of sandboxes: what their processes want to reach, decided by the rules of the session's environment.
//!
//! A sandbox has doors ([`oma_sandbox::gateway`]) and nothing else. While it lives, this hears what comes to them and
//! hands it to a proxy of its own ([`oma_egress::proxy`]), with the rules of its session's environment. What was
//! decided is logged and counted, and of a host that may not be reached the session is told once.
//!
//! Invariant: a sandbox whose rules are not known has no way out.
//! Invariant: rules that change hold from the next connection on, in sandboxes that run too.
//! Invariant: a session has a bounded number of connections, of questions for names, and of lines in the log.

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use oma_domain::environment::Networking;
use oma_domain::event::{Failure, FailureKind};
use oma_domain::{EnvironmentId, Session, SessionId, WorkspaceId};
use oma_egress::Guard;
use oma_egress::proxy::{Allowed, Decision, Denial, Hosts, Link, MAX_QUESTION, Observe, Protocol, Verdict};
use oma_sandbox::gateway::{DNS, PROXY, WEB};
use oma_sandbox::mounts::Furnish;
use oma_sandbox::{Arrived, Attached, Datagram, Datagrams, Error, Hand, Origin, Pipe, Spec};
use oma_store::Store;
use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

/// The most connections of one sandbox.
const MAX_CONNECTIONS: usize = 96;
/// How many connections are waited for at each door, so that one that is being taken does not hold up the next.
const WAITING: usize = 2;
/// The most of them at the name server's door, beside the others.
const MAX_STREAMS: usize = 8;
/// How long it takes until a door that could not be listened at is tried again.
const PAUSE: Duration = Duration::from_millis(200);
/// The most questions for names that are looked up at once, for one sandbox.
const MAX_QUESTIONS: usize = 32;
/// How long a process may take for a question over a stream.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(30);
/// The most hosts that a session is told of.
const MAX_TOLD: usize = 32;
/// How many decisions are logged at once, and one more in each such time.
const LOG_BURST: u32 = 200;
const LOG_EVERY: Duration = Duration::from_millis(100);

/// The ways out of all sandboxes. Cheap to clone.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    guard: Arc<Guard>,
    /// Where package managers get packages.
    registries: Vec<String>,
    open: Mutex<HashMap<SessionId, Way>>,
    renewing: tokio::sync::Mutex<()>,
}

/// The way out of one sandbox.
struct Way {
    workspace: WorkspaceId,
    environment: Option<EnvironmentId>,
    link: Arc<Link>,
    witness: Arc<Witness>,
    work: AbortOnDropHandle<()>,
}

impl Drop for Way {
    fn drop(&mut self) {
        self.link.close();
    }
}

impl Network {
    /// Ways out through this guard. `registries` are the hosts, or `*.host` for those below it, that environments
    /// mean by package managers.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, guard: Arc<Guard>, registries: Vec<String>) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                guard,
                registries,
                open: Mutex::default(),
                renewing: tokio::sync::Mutex::default(),
            }),
        }
    }

    /// An environment has other rules from now on. Must be called in a runtime.
    pub fn environment_changed(&self, id: &EnvironmentId) {
        self.renew(|_, way| way.environment.as_ref() == Some(id));
    }

    /// A session has other MCP servers from now on. Must be called in a runtime.
    pub fn servers_changed(&self, id: &SessionId) {
        self.renew(|session, _| session == id);
    }

    fn renew(&self, is_affected: impl Fn(&SessionId, &Way) -> bool) {
        let affected: Vec<(WorkspaceId, SessionId)> = {
            let open = self.inner.open();
            let affected = open.iter().filter(|(session, way)| is_affected(session, way));
            affected
                .map(|(session, way)| (way.workspace.clone(), session.clone()))
                .collect()
        };
        if affected.is_empty() {
            return;
        }
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            for (workspace, session) in affected {
                inner.renew(&workspace, &session).await;
            }
        });
    }
}

impl Inner {
    fn open(&self) -> MutexGuard<'_, HashMap<SessionId, Way>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_open(&self, session: &SessionId) -> bool {
        let open = self.open();
        open.get(session).is_some_and(|way| !way.work.is_finished())
    }

    /// Puts the rules of now in the place of those that a way was opened with.
    async fn renew(&self, workspace: &WorkspaceId, session: &SessionId) {
        // One at a time: rules that were read earlier must not come later.
        let _turn = self.renewing.lock().await;
        let rules = self
            .session(workspace, session)
            .await
            .map(|session| self.rules(&session));
        let mut open = self.open();
        match rules {
            Ok(rules) => {
                if let Some(way) = open.get(session) {
                    way.link.allow(rules);
                }
            }
            Err(error) => {
                tracing::error!(session_id = %session, %error, "a sandbox's rules can't be read; it is cut off");
                // Whoever uses the sandbox next opens another one.
                if let Some(way) = open.remove(session) {
                    way.link.allow(Allowed::Listed(Hosts::default()));
                }
            }
        }
    }

    async fn session(&self, workspace: &WorkspaceId, session: &SessionId) -> Result<Session, String> {
        match self.store.session(workspace, session).await {
            Ok(Some(session)) => Ok(session),
            Ok(None) => Err("there is no such session".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn rules(&self, session: &Session) -> Allowed {
        let agents = std::iter::once(&session.agent).chain(&session.roster);
        let environment = session.environment.as_ref();
        let networking = environment.map(|environment| &environment.spec.networking);
        allowed(
            networking,
            agents.map(|agent| &agent.spec.mcp_servers),
            &self.registries,
        )
    }

    async fn open_way(self: &Arc<Self>, spec: &Spec, hand: Arc<dyn Hand>) -> Result<(), String> {
        let session = self.session(&spec.workspace, &spec.session).await?;
        let rules = self.rules(&session);
        let datagrams = match hand.datagrams().await {
            Ok(datagrams) => datagrams,
            // Hands of an older server hang up.
            Err(error @ (Error::Refused(_) | Error::Lost(_))) => {
                tracing::debug!(session_id = %spec.session, %error, "a sandbox has no doors");
                return Ok(());
            }
            Err(error) => return Err(error.to_string()),
        };
        let witness = Arc::new(Witness::new(spec));
        let observer: Arc<dyn Observe> = Arc::clone(&witness) as _;
        let link = Link::new(Arc::clone(&self.guard), rules, observer);
        let work = Doors {
            link: Arc::clone(&link),
            hand,
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            questions: Arc::new(Semaphore::new(MAX_STREAMS)),
        };
        let (inner, id, own) = (Arc::downgrade(self), spec.session.clone(), Arc::clone(&link));
        let work = tokio::spawn(async move {
            work.run(datagrams).await;
            forget(&inner, &id, &own);
        });
        let way = Way {
            workspace: spec.workspace.clone(),
            environment: session
                .environment
                .as_ref()
                .map(|environment| environment.id.clone()),
            link: Arc::clone(&link),
            witness,
            work: AbortOnDropHandle::new(work),
        };
        let is_over = way.work.is_finished();
        self.open().insert(spec.session.clone(), way);
        if is_over {
            forget(&Arc::downgrade(self), &spec.session, &link);
        }
        // They may have changed meanwhile.
        self.renew(&spec.workspace, &spec.session).await;
        Ok(())
    }
}

/// Takes away a way whose sandbox has ended, unless another one has taken its place already.
fn forget(inner: &Weak<Inner>, session: &SessionId, own: &Arc<Link>) {
    if let Some(inner) = inner.upgrade() {
        let mut open = inner.open();
        if open.get(session).is_some_and(|way| Arc::ptr_eq(&way.link, own)) {
            open.remove(session);
        }
    }
}

/// What a session whose agents have these MCP servers may reach.
fn allowed<'a>(
    networking: Option<&Networking>,
    servers: impl Iterator<Item = &'a Map<String, Value>>,
    registries: &[String],
) -> Allowed {
    let Some(Networking::Limited {
        allowed_hosts,
        allow_mcp_servers,
        allow_package_managers,
    }) = networking
    else {
        return Allowed::Public;
    };
    let mut hosts = Hosts::default();
    let mut add = |host: &str| {
        if !hosts.add(host) {
            tracing::warn!(host, "a host of an environment is none, and is left out");
        }
    };
    allowed_hosts.iter().for_each(|host| add(host));
    if *allow_package_managers {
        registries.iter().for_each(|host| add(host));
    }
    if *allow_mcp_servers {
        for server in servers.flat_map(Map::values) {
            let url = server.get("url").and_then(|url| url.as_str());
            // One in the sandbox has none, and an address is on no list.
            let target = url.and_then(|url| oma_egress::target::Target::parse(url).ok());
            if let Some(oma_egress::target::Host::Name(name)) = target.map(|target| target.host) {
                add(&name);
            }
        }
    }
    Allowed::Listed(hosts)
}

#[async_trait]
impl Furnish for Network {
    async fn furnish(&self, _: &Spec) -> Result<(), Error> {
        Ok(())
    }

    async fn settle(&self, spec: &Spec, attached: &Attached) -> Vec<Failure> {
        let is_new = attached.origin != Origin::Running;
        if (is_new || !self.inner.is_open(&spec.session))
            && let Err(reason) = self.inner.open_way(spec, Arc::clone(&attached.hand)).await
        {
            tracing::error!(session_id = %spec.session, %reason, "a sandbox has no way out");
        }
        Vec::new()
    }

    fn take_failures(&self, session: &SessionId) -> Vec<Failure> {
        let witness = self.inner.open().get(session).map(|way| Arc::clone(&way.witness));
        witness.map(|witness| witness.take()).unwrap_or_default()
    }
}

/// Who stands at the doors of one sandbox.
struct Doors {
    link: Arc<Link>,
    hand: Arc<dyn Hand>,
    places: Arc<Semaphore>,
    /// Those of questions over streams, which must not wait for what lasts.
    questions: Arc<Semaphore>,
}

impl Doors {
    /// Until the sandbox ends.
    async fn run(self, datagrams: Datagrams) {
        let doors = Arc::new(self);
        let mut takers = JoinSet::new();
        for port in [PROXY, DNS]
            .into_iter()
            .chain(WEB)
            .flat_map(|port| [port; WAITING])
        {
            takers.spawn(Arc::clone(&doors).take(port));
        }
        // This connection is the sign of life; the takers end with it.
        doors.answer(datagrams).await;
    }

    /// Takes the connections that are made to a port.
    async fn take(self: Arc<Self>, port: u16) {
        let mut connections = JoinSet::new();
        let places = if port == DNS {
            &self.questions
        } else {
            &self.places
        };
        loop {
            let Ok(place) = Arc::clone(places).acquire_owned().await else {
                return;
            };
            let arrived = async {
                let incoming = self.hand.listen(port).await?;
                incoming.await
            };
            let arrived = tokio::select! {
                arrived = arrived => arrived,
                // Those that have ended are taken off meanwhile.
                () = drain(&mut connections) => return,
            };
            let arrived = match arrived {
                Ok(arrived) => arrived,
                Err(error) => {
                    // The sandbox has ended, and so will this; or the hand had no connection to spare.
                    tracing::debug!(port, %error, "a door could not be listened at");
                    drop(place);
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let doors = Arc::clone(&self);
            connections.spawn(async move { doors.serve(port, arrived, place).await });
        }
    }

    async fn serve(&self, port: u16, Arrived { pipe, to }: Arrived, place: OwnedSemaphorePermit) {
        // A tunnel goes on when whoever asked for it has been answered, so the place is its bytes'.
        let mut pipe = Held { pipe, _place: place };
        match (port, to) {
            (PROXY, _) => Arc::clone(&self.link).serve_proxy(pipe).await,
            (DNS, _) => {
                let questions = async {
                    while let Ok(length) = pipe.read_u16().await {
                        let length = usize::from(length);
                        if length > MAX_QUESTION {
                            break;
                        }
                        let mut question = vec![0; length];
                        pipe.read_exact(&mut question).await?;
                        let Some(answer) = self.link.answer_dns(&question).await else {
                            break;
                        };
                        pipe.write_u16(u16::try_from(answer.len()).unwrap_or_default())
                            .await?;
                        pipe.write_all(&answer).await?;
                    }
                    io::Result::Ok(())
                };
                // Whoever takes longer asks again.
                let _ended = timeout(QUESTION_TIMEOUT, questions).await;
            }
            (_, Some(to)) => Arc::clone(&self.link).serve_direct(pipe, to).await,
            (_, None) => {}
        }
    }

    /// Answers the questions that come as datagrams.
    async fn answer(self: Arc<Self>, datagrams: Datagrams) {
        let Datagrams { mut from, mut to } = datagrams;
        let mut answers = JoinSet::new();
        loop {
            tokio::select! {
                question = from.next(), if answers.len() < MAX_QUESTIONS => {
                    let Ok(Datagram { peer, bytes }) = question else { return };
                    let link = Arc::clone(&self.link);
                    answers.spawn(async move {
                        let answer = link.answer_dns(&bytes).await?;
                        Some(Datagram { peer, bytes: answer.into() })
                    });
                }
                Some(answer) = answers.join_next() => {
                    if let Ok(Some(answer)) = answer
                        && to.send(&answer).await.is_err()
                    {
                        return;
                    }
                }
            }
        }
    }
}

/// A connection with its place, which is free when the connection is gone.
struct Held {
    pipe: Box<dyn Pipe>,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Held {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// Takes off what has ended; never returns.
async fn drain(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
    pending().await
}

/// Writes down what was decided for one session.
struct Witness {
    session: SessionId,
    workspace: WorkspaceId,
    told: Mutex<Told>,
}

struct Told {
    hosts: HashSet<String>,
    untold: Vec<Failure>,
    /// Lines that may be logged now, and when that was reckoned.
    lines: u32,
    reckoned: Instant,
    left_out: u64,
}

impl Witness {
    fn new(spec: &Spec) -> Self {
        Self {
            session: spec.session.clone(),
            workspace: spec.workspace.clone(),
            told: Mutex::new(Told {
                hosts: HashSet::new(),
                untold: Vec::new(),
                lines: LOG_BURST,
                reckoned: Instant::now(),
                left_out: 0,
            }),
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<Failure> {
        std::mem::take(&mut self.told().untold)
    }
}

impl Told {
    /// Whether another line may be logged, and how many were left out before it.
    fn line(&mut self, now: Instant) -> Option<u64> {
        let earned = (now - self.reckoned).as_millis() / LOG_EVERY.as_millis();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(LOG_BURST);
            self.lines = self.lines.saturating_add(earned).min(LOG_BURST);
            self.reckoned = now;
        }
        if self.lines == 0 {
            self.left_out += 1;
            return None;
        }
        self.lines -= 1;
        Some(std::mem::take(&mut self.left_out))
    }

    /// What the session is told of a host that it may not reach, the first time.
    fn first(&mut self, host: &str, port: u16, denial: Denial) {
        if host.is_empty() || self.hosts.len() >= MAX_TOLD || !self.hosts.insert(host.to_owned()) {
            return;
        }
        let place = if port == 0 {
            host.to_owned()
        } else {
            format!("{host}:{port}")
        };
        let advice = match denial {
            Denial::NotListed => ". To allow it, add the host to the allowed hosts of the environment",
            Denial::NotPublic | Denial::NoHost | Denial::OtherHost | Denial::Malformed => "",
        };
        self.untold.push(Failure {
            kind: FailureKind::HostDenied,
            message: format!("The sandbox may not reach {place}: {denial}{advice}."),
        });
    }
}

impl Observe for Witness {
    fn decided(&self, decision: &Decision<'_>) {
        let Decision {
            protocol,
            host,
            port,
            verdict,
        } = decision;
        let (word, reason) = match verdict {
            Verdict::Allowed => ("allow", ""),
            Verdict::Denied(denial) => ("deny", denial.as_str()),
            Verdict::Failed(_) => ("error", "failed"),
        };
        metrics::counter!("egress_decisions_total", "decision" => word, "protocol" => protocol.as_str())
            .increment(1);
        let mut told = self.told();
        if let Verdict::Denied(denial) = verdict {
            // What looks for a name tries it with endings too, which nobody has asked for.
            let is_word = *protocol == Protocol::Dns && !host.contains('.');
            // What is no host is the sandbox's own words, and an address of its own is nobody else's.
            let is_host = !matches!(denial, Denial::NoHost | Denial::Malformed);
            if is_host && !is_word {
                told.first(host, *port, *denial);
            }
        }
        let line = told.line(Instant::now());
        drop(told);
        if let Some(left_out) = line {
            tracing::info!(
                session_id = %self.session,
                workspace_id = %self.workspace,
                decision = word,
                protocol = protocol.as_str(),
                host,
                port,
                reason,
                left_out,
                "egress"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_session_is_told_once_of_each_host() {
        let spec = Spec {
            session: SessionId::generate(),
            workspace: WorkspaceId::default_workspace(),
        };
        let witness = Witness::new(&spec);
        let decide = |protocol, host: &str, port, verdict: &Verdict| {
            witness.decided(&Decision {
                protocol,
                host,
                port,
                verdict,
            });
        };
        let denied = Verdict::Denied(Denial::NotListed);
        decide(Protocol::Dns, "one.example", 0, &denied);
        decide(Protocol::Connect, "one.example", 443, &denied);
        decide(Protocol::Dns, "word", 0, &denied);
        decide(Protocol::Connect, "good.example", 443, &Verdict::Allowed);
        let failures = witness.take();
        assert_eq!(failures.len(), 1);
        let message = &failures[0].message;
        assert!(
            message.contains("one.example") && message.contains("allowed hosts"),
            "{message}"
        );
        for number in 0..2 * MAX_TOLD {
            let host = format!("{number}.example");
            decide(Protocol::Connect, host.as_str(), 443, &denied);
        }
        assert_eq!(witness.take().len(), MAX_TOLD - 1);
        assert!(witness.take().is_empty());
    }

    #[test]
    fn environments_say_what_may_be_reached() {
        let registries = ["registry.example".to_owned(), "*.mirror.example".to_owned()];
        let servers = json!({
            "one": {"url": "https://mcp.example/mcp"},
            "two": {"url": "http://10.0.0.1:8080/"},
            "three": {"command": "npx"},
        });
        let reaches = |networking: Option<Networking>| {
            let allowed = allowed(networking.as_ref(), servers.as_object().into_iter(), &registries);
            let all = [
                "good.example",
                "mcp.example",
                "registry.example",
                "a.mirror.example",
                "10.0.0.1",
            ];
            all.map(|host| allowed.admits(&oma_egress::target::host(host).unwrap()))
        };
        let limited = |allow_mcp_servers, allow_package_managers| {
            reaches(Some(Networking::Limited {
                allowed_hosts: vec!["good.example".to_owned(), "not a host".to_owned()],
                allow_mcp_servers,
                allow_package_managers,
            }))
        };
        assert_eq!(reaches(None), [true; 5]);
        assert_eq!(reaches(Some(Networking::Unrestricted)), [true; 5]);
        assert_eq!(limited(false, false), [true, false, false, false, false]);
        assert_eq!(limited(true, false), [true, true, false, false, false]);
        assert_eq!(limited(false, true), [true, false, true, true, false]);
    }

    #[test]
    fn a_flood_leaves_the_log_legible() {
        let start = Instant::now();
        let mut told = Told {
            hosts: HashSet::new(),
            untold: Vec::new(),
            lines: LOG_BURST,
            reckoned: start,
            left_out: 0,
        };
        let logged = (0..1_000).filter(|_| told.line(start).is_some()).count();
        assert_eq!(logged, LOG_BURST as usize);
        assert_eq!(told.line(start + LOG_EVERY), Some(1_000 - u64::from(LOG_BURST)));
        assert_eq!(told.line(start + LOG_EVERY), None);
    }
}
