//! The way out of sandboxes: what their processes want to reach, decided by the rules of the session's environment.
//!
//! A sandbox has doors ([`oma_sandbox::gateway`]) and nothing else. While it lives, a proxy of its own
//! ([`oma_egress::proxy`]) hears what comes to them, with the rules of its session's environment. The proxy is a process
//! ([`crate::worker`]), which is started when somebody knocks; where the doors can't be passed to one, it is in this
//! process. What was decided is logged and counted, and of a host that may not be reached the session is told once.
//!
//! Of the secrets in its vaults a session has placeholders ([`secrets`]). Only a sandbox that was started with some trusts
//! the session's authority, so only of such a one is any connection opened.
//!
//! Invariant: a sandbox whose rules are not known has no way out.
//! Invariant: no connection is opened of a sandbox that does not trust the session's authority.
//! Invariant: rules that change hold from the next connection on, in sandboxes that run too.
//! Invariant: a session has a bounded number of connections, of questions for names, and of lines in the log.

pub(crate) mod doors;
mod rules;
mod secrets;
mod witness;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use oma_domain::environment::Networking;
use oma_domain::event::Failure;
use oma_domain::{EnvironmentId, Session, SessionId, WorkspaceId};
use oma_egress::Guard;
use oma_egress::proxy::secrets::{Keeper, Upstream};
use oma_egress::proxy::{Allowed, Hosts, Link, Observe};
use oma_sandbox::fittings::Fittings;
use oma_sandbox::mounts::Furnish;
use oma_sandbox::{Attached, Error, Hand, Origin, Spec};
use oma_store::Store;
use oma_vault::Vaults;
use tokio_util::task::AbortOnDropHandle;

use doors::{Doors, passed};
use secrets::Held;
use witness::Witness;

use crate::worker::{Apart, Common, Source};

/// The ways out of all sandboxes. Cheap to clone.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    vaults: Vaults,
    common: Arc<Common>,
    /// How hosts are spoken to that secrets are for; why that can't be done, where it can't.
    upstream: Result<Upstream, String>,
    /// Where package managers get packages.
    registries: Vec<String>,
    open: Mutex<HashMap<SessionId, Way>>,
    renewing: tokio::sync::Mutex<()>,
}

/// The way out of one sandbox.
struct Way {
    workspace: WorkspaceId,
    environment: Option<EnvironmentId>,
    proxy: Proxy,
    witness: Arc<Witness>,
    work: AbortOnDropHandle<()>,
}

/// The proxy of one sandbox.
#[derive(Clone)]
enum Proxy {
    /// A process of its own, which has the sandbox's doors.
    Apart(Arc<Apart>),
    /// In this process, where the doors can't be passed and the hand carries what comes to them.
    Here(Arc<Link>),
}

impl Proxy {
    fn allow(&self, allowed: Allowed) {
        match self {
            Self::Apart(apart) => apart.allow(allowed),
            Self::Here(link) => link.allow(allowed),
        }
    }

    fn close(&self) {
        match self {
            Self::Apart(apart) => apart.close(),
            Self::Here(link) => link.close(),
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Apart(one), Self::Apart(other)) => Arc::ptr_eq(one, other),
            (Self::Here(one), Self::Here(other)) => Arc::ptr_eq(one, other),
            (Self::Apart(_), Self::Here(_)) | (Self::Here(_), Self::Apart(_)) => false,
        }
    }
}

/// The way out of a build.
pub(crate) struct Passage {
    proxy: Proxy,
    _work: AbortOnDropHandle<()>,
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.proxy.close();
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.proxy.close();
    }
}

impl Network {
    /// Ways out through this guard. `registries` are the hosts, or `*.host` for those below it, that environments
    /// mean by package managers. `program` is started as `<program> egress` for each sandbox that wants to reach something
    /// ([`crate::worker`]).
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        vaults: Vaults,
        guard: Arc<Guard>,
        registries: Vec<String>,
        program: PathBuf,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                vaults,
                common: Arc::new(Common { program, guard }),
                upstream: Upstream::system().map_err(|error| error.to_string()),
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

    /// Lets a build out, as far as this allows, as long as the passage is held. What it may not reach is told to
    /// nobody but the server's log: the installer says that it failed.
    pub(crate) async fn open_passage(
        &self,
        spec: &Spec,
        hand: Arc<dyn Hand>,
        networking: &Networking,
    ) -> Result<Passage, String> {
        let rules = rules::allowed(Some(networking), std::iter::empty(), &self.inner.registries);
        let observer: Arc<dyn Observe> = Arc::new(Witness::new(spec)) as _;
        let opened = self.inner.proxy(hand, rules, observer, None).await;
        let (proxy, work) = opened.map_err(|error| error.to_string())?;
        Ok(Passage {
            proxy,
            _work: AbortOnDropHandle::new(tokio::spawn(work)),
        })
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
                    way.proxy.allow(rules);
                }
            }
            Err(error) => {
                tracing::error!(session_id = %session, %error, "a sandbox's rules can't be read; it is cut off");
                // Whoever uses the sandbox next opens another one.
                if let Some(way) = open.remove(session) {
                    way.proxy.allow(Allowed::Listed(Hosts::default()));
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
        rules::allowed(
            networking,
            agents.map(|agent| &agent.spec.mcp_servers),
            &self.registries,
        )
    }

    /// The secrets of a session that has vaults.
    fn held(&self, session: &Session, witness: Option<Arc<Witness>>) -> Option<Held> {
        (!session.vaults.is_empty()).then(|| {
            let (workspace, id) = (session.workspace.clone(), session.id.clone());
            Held::new(
                self.vaults.clone(),
                (workspace, id),
                session.vaults.clone(),
                witness,
            )
        })
    }

    async fn keeper(&self, held: Arc<Held>) -> Result<Keeper, String> {
        Ok(Keeper {
            authority: Arc::new(held.authority().await?),
            secrets: held,
            upstream: self.upstream.clone()?,
        })
    }

    /// The proxy of a sandbox, and what it does as long as the sandbox is there.
    async fn proxy(
        &self,
        hand: Arc<dyn Hand>,
        rules: Allowed,
        observer: Arc<dyn Observe>,
        held: Option<Arc<Held>>,
    ) -> Result<(Proxy, BoxFuture<'static, ()>), Error> {
        if let Some(passed) = passed(&*hand).await? {
            let secrets = held.map(|held| held as Arc<dyn Source>);
            let apart = Apart::new(Arc::clone(&self.common), rules, observer, secrets);
            let own = Arc::clone(&apart);
            let work = async move { own.run(passed, hand).await };
            return Ok((Proxy::Apart(apart), Box::pin(work)));
        }
        let datagrams = hand.datagrams().await?;
        let keeper = match held {
            Some(held) => {
                let keeper = self.keeper(held).await;
                Some(keeper.map_err(|reason| crate::failed("reading the secrets of a session", reason))?)
            }
            None => None,
        };
        let guard = Arc::clone(&self.common.guard);
        let link = Link::new(guard, rules, observer, keeper);
        let work = Doors::new(Arc::clone(&link)).have_carried(hand, datagrams);
        Ok((Proxy::Here(link), Box::pin(work)))
    }

    /// What a session's sandbox has of its secrets: placeholders, and whom to trust.
    async fn fit(&self, spec: &Spec, fittings: &mut Fittings) -> Result<(), String> {
        let session = self.session(&spec.workspace, &spec.session).await?;
        let Some(held) = self.held(&session, None) else {
            return Ok(());
        };
        let variables = held.variables().await.map_err(|error| error.to_string())?;
        // Nobody is trusted for nothing. A secret that is added later has no placeholder in this sandbox, so no connection
        // of it need be opened.
        if variables.is_empty() {
            return Ok(());
        }
        self.upstream.as_ref().map_err(Clone::clone)?;
        let variables = variables.into_iter();
        fittings
            .variables
            .extend(variables.map(|(name, placeholder)| (name, placeholder.as_str().to_owned())));
        fittings.trust = Some(held.authority().await?.pem());
        Ok(())
    }

    async fn open_way(self: &Arc<Self>, spec: &Spec, attached: &Attached) -> Result<(), String> {
        let session = self.session(&spec.workspace, &spec.session).await?;
        let rules = self.rules(&session);
        let witness = Arc::new(Witness::new(spec));
        let observer: Arc<dyn Observe> = Arc::clone(&witness) as _;
        // What trusts nobody but the machine's authorities has no placeholder either, whatever is in the vaults now.
        let held = attached
            .trusts
            .then(|| self.held(&session, Some(Arc::clone(&witness))));
        let held = held.flatten().map(Arc::new);
        if let Some(held) = &held {
            held.look().await;
        }
        let hand = Arc::clone(&attached.hand);
        let (proxy, work) = match self.proxy(hand, rules, observer, held).await {
            Ok(opened) => opened,
            // Hands of an older server hang up.
            Err(error @ (Error::Refused(_) | Error::Lost(_))) => {
                tracing::info!(session_id = %spec.session, %error, "a sandbox has no doors, so no way out");
                return Ok(());
            }
            Err(error) => return Err(error.to_string()),
        };
        let (inner, id, own) = (Arc::downgrade(self), spec.session.clone(), proxy.clone());
        let work = tokio::spawn(async move {
            work.await;
            forget(&inner, &id, &own);
        });
        let way = Way {
            workspace: spec.workspace.clone(),
            environment: session
                .environment
                .as_ref()
                .map(|environment| environment.id.clone()),
            proxy: proxy.clone(),
            witness,
            work: AbortOnDropHandle::new(work),
        };
        let is_over = way.work.is_finished();
        self.open().insert(spec.session.clone(), way);
        if is_over {
            forget(&Arc::downgrade(self), &spec.session, &proxy);
        }
        // They may have changed meanwhile.
        self.renew(&spec.workspace, &spec.session).await;
        Ok(())
    }
}

/// Takes away a way whose sandbox has ended, unless another one has taken its place already.
fn forget(inner: &Weak<Inner>, session: &SessionId, own: &Proxy) {
    if let Some(inner) = inner.upgrade() {
        let mut open = inner.open();
        if open.get(session).is_some_and(|way| way.proxy.is(own)) {
            open.remove(session);
        }
    }
}

#[async_trait]
impl Furnish for Network {
    async fn furnish(&self, _: &Spec) -> Result<(), Error> {
        Ok(())
    }

    async fn fit(&self, spec: &Spec, fittings: &mut Fittings) -> Result<(), Error> {
        let fitted = self.inner.fit(spec, fittings).await;
        fitted.map_err(|reason| crate::failed("putting placeholders of secrets into a sandbox", reason))
    }

    async fn settle(&self, spec: &Spec, attached: &Attached) -> Vec<Failure> {
        let is_new = attached.origin != Origin::Running;
        if (is_new || !self.inner.is_open(&spec.session))
            && let Err(reason) = self.inner.open_way(spec, attached).await
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
