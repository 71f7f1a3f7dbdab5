//! Sandboxes: one isolated place per session where its commands run and its files live.
//!
//! Every backend starts the same small server in the sandbox, the *hand* ([`hand`]), and talks to it with the
//! same protocol ([`protocol`]); [`Provider`] is what a backend implements, [`Pool`] bounds how many live at
//! once and stops idle ones. [`files`] is the host's own access to a workspace.
//!
//! Invariant: a command belongs to a tool-use id; asking for the same id twice never runs it twice, and its
//! result waits in the hand, over any restart of the server, until it is acknowledged.
//! Invariant: nothing that a hand says is trusted: frames are bounded, and every wait has a time limit.
//! Invariant: a sandbox that can't be made as strong as configured is not made at all.
//! Invariant: host-side file access never leaves the workspace (I12).
//!
//! Where it sits: above `domain`; the tools and the native runtime use it.

mod client;
pub mod confine;
pub mod descriptors;
#[cfg(feature = "docker")]
pub mod docker;
pub mod doctor;
pub mod error;
pub mod files;
pub mod fittings;
pub mod gateway;
pub mod hand;
pub mod host;
pub mod input;
pub mod layers;
pub mod limits;
pub mod local;
pub mod mounts;
mod pidfd;
pub mod pool;
pub mod protocol;
mod service;
pub mod spill;
mod trust;
mod wire;

pub use client::Client;
pub use error::Error;
pub use pool::{Lease, Pool, PoolConfig};
pub use service::{Arrived, Datagrams, From, Incoming, Pipe, To};
pub use wire::Datagram;

use std::time::Duration;

use async_trait::async_trait;
use oma_domain::{EventId, SessionId, WorkspaceId};

/// What a session's sandbox must be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The session that it belongs to.
    pub session: SessionId,
    /// Whose session that is.
    pub workspace: WorkspaceId,
}

/// The name of a sandbox that was started in advance and belongs to no session yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WarmId(SessionId);

impl WarmId {
    /// A name that no other one has, and no session.
    #[must_use]
    pub fn generate() -> Self {
        let fresh = SessionId::generate();
        let unique = fresh.as_str().trim_start_matches("ses_");
        Self(SessionId::parse(&format!("wrm_{unique}")).unwrap_or(fresh))
    }
}

impl std::fmt::Display for WarmId {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{}", self.0)
    }
}

/// How a sandbox came to be at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It was running, perhaps since before a restart of the server: everything it knows still holds.
    Running,
    /// It was started now, and none had been running: no command of the session is under way anywhere.
    Started,
    /// It was started now, because the one before is gone without a proper stop: commands that had been
    /// running in that one may or may not have finished.
    Replaced,
}

/// A running sandbox, as a backend hands it out. Cheap to clone.
#[async_trait]
pub trait Hand: Send + Sync {
    /// Runs a tool in the sandbox and waits for its reply. `key` names it: if that key is known already, the
    /// call joins it instead. Dropping the future leaves the command running; [`Hand::cancel`] ends it.
    ///
    /// # Errors
    /// [`Error`] when the sandbox is lost or does not answer.
    async fn run(&self, key: &EventId, call: protocol::Call) -> Result<protocol::Reply, Error>;

    /// Ends the call and its whole process tree; returns what it had given, or `None` for an unknown key.
    ///
    /// # Errors
    /// [`Error`] when the sandbox is lost or does not answer.
    async fn cancel(&self, key: &EventId) -> Result<Option<protocol::Reply>, Error>;

    /// Lets the hand forget every reply but those of `keep`.
    ///
    /// # Errors
    /// [`Error`] when the sandbox is lost or does not answer.
    async fn forget_all_but(&self, keep: &[EventId]) -> Result<(), Error>;

    /// The newest `tail` lines that commands printed.
    ///
    /// # Errors
    /// [`Error`] when the sandbox is lost or does not answer.
    async fn logs(&self, tail: usize) -> Result<String, Error>;

    /// Starts a process that lives as long as the pipe to it, and at most as long as the sandbox. What it prints
    /// as errors goes to the sandbox's log.
    ///
    /// # Errors
    /// [`Error::Refused`] when it can't be started, also where a backend has no services.
    async fn serve(&self, service: protocol::Service) -> Result<Box<dyn Pipe>, Error> {
        let _ = service;
        Err(Error::Refused(
            "sandboxes of this kind run no services".to_owned(),
        ))
    }

    /// Opens a port of the sandbox's loopback address, if it is not open yet, and gives the next connection that a
    /// process in the sandbox makes to it. Until somebody asks, connections wait.
    ///
    /// # Errors
    /// [`Error::Refused`] when it can't be opened, also where a backend has no such ports.
    async fn listen(&self, port: u16) -> Result<Incoming, Error> {
        let _ = port;
        Err(Error::Refused("sandboxes of this kind open no ports".to_owned()))
    }

    /// The datagrams that processes in the sandbox send to the port of names ([`gateway::DNS`]).
    ///
    /// # Errors
    /// [`Error::Refused`] where the sandbox was made without one.
    async fn datagrams(&self) -> Result<Datagrams, Error> {
        Err(Error::Refused(
            "sandboxes of this kind have no such port".to_owned(),
        ))
    }

    /// The doors themselves ([`gateway`]), until the sandbox ends. Nobody should ask for connections to their ports, or
    /// for datagrams, beside: each comes to one of them.
    ///
    /// # Errors
    /// [`Error::Refused`] where the sandbox was made without doors, or they can't be passed; [`Error::Lost`] also when the
    /// hand is too old to know of this.
    async fn doors(&self) -> Result<gateway::Passed, Error> {
        Err(Error::Refused("sandboxes of this kind pass no doors".to_owned()))
    }
}

/// A sandbox at hand.
#[derive(Clone)]
pub struct Attached {
    /// The way to its hand.
    pub hand: std::sync::Arc<dyn Hand>,
    /// How it came to be.
    pub origin: Origin,
    /// How long it took.
    pub boot: Duration,
    /// Whether its programs trust the authority that it was made with ([`fittings::Fittings::trust`]). Of one that an older
    /// server has started that is not known, and then they may.
    pub trusts: bool,
}

/// A backend: local namespaces, Docker, Kubernetes.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// The backend's name, for logs and `doctor`.
    fn name(&self) -> &'static str;

    /// Gives the session's sandbox, starting it when there is none, with nothing special.
    ///
    /// # Errors
    /// As [`Provider::attach_fitted`].
    async fn attach(&self, spec: &Spec) -> Result<Attached, Error> {
        self.attach_fitted(spec, std::sync::Arc::new(fittings::Plain))
            .await
    }

    /// Gives the session's sandbox, starting it when there is none; `fit` is asked then what it is made with.
    ///
    /// # Errors
    /// [`Error::TooWeak`] when it could not be as strong as configured, what `fit` gives, and what else can go wrong.
    async fn attach_fitted(
        &self,
        spec: &Spec,
        fit: std::sync::Arc<dyn fittings::Fit>,
    ) -> Result<Attached, Error>;

    /// Gives the session's sandbox if it runs, and starts none. Whoever asks does not act on how it came to be:
    /// that is left for [`Provider::attach`] to tell.
    ///
    /// # Errors
    /// [`Error`] when that can't be told.
    async fn reattach(&self, session: &SessionId) -> Result<Option<Attached>, Error>;

    /// The sessions whose sandboxes have outlived the server before this one, as of the start of this one.
    fn survivors(&self) -> Vec<SessionId>;

    /// Ends the sandbox in an orderly way; the workspace stays. What a server before this one had left under way
    /// in it, and nobody has asked for since, counts as lost: the next [`Provider::attach`] tells of it.
    ///
    /// # Errors
    /// [`Error`] when something could not be removed.
    async fn stop(&self, session: &SessionId) -> Result<(), Error>;

    /// Ends the sandbox like [`Provider::stop`], unless something runs in it; tells whether it is gone.
    ///
    /// # Errors
    /// [`Error`] when that can't be told, or something could not be removed.
    async fn retire(&self, session: &SessionId) -> Result<bool, Error>;

    /// Ends the sandbox and removes the workspace.
    ///
    /// # Errors
    /// [`Error`] when something could not be removed.
    async fn destroy(&self, session: &SessionId) -> Result<(), Error>;

    /// The sessions that have a sandbox or a workspace now, for recovery.
    ///
    /// # Errors
    /// [`Error`] when they can't be listed.
    async fn inventory(&self) -> Result<Vec<SessionId>, Error>;

    /// Packs the session's workspace ([`files::archive`]), after its sandbox has ended. None is started meanwhile.
    ///
    /// # Errors
    /// [`Error::Busy`] when something runs in that; [`Error::Archive`].
    async fn save(
        &self,
        session: &SessionId,
        to: Box<dyn std::io::Write + Send>,
        bounds: files::archive::Bounds,
    ) -> Result<files::archive::Contents, Error> {
        let _ = (session, to, bounds);
        Err(Error::Refused(
            "workspaces of this kind can't be saved".to_owned(),
        ))
    }

    /// Puts what is in the archive in the place of the session's workspace, after its sandbox has ended with whatever
    /// ran in it. None is started meanwhile, and the workspace is as it was when this fails.
    ///
    /// # Errors
    /// [`Error::Archive`], and what else can go wrong.
    async fn restore(
        &self,
        session: &SessionId,
        from: Box<dyn std::io::Read + Send>,
        bounds: files::archive::Bounds,
    ) -> Result<files::archive::Contents, Error> {
        let _ = (session, from, bounds);
        Err(Error::Refused(
            "workspaces of this kind can't be restored".to_owned(),
        ))
    }

    /// Starts a sandbox that belongs to no session yet, but to this workspace. It ends with the server.
    ///
    /// # Errors
    /// As [`Provider::attach_fitted`]; also where a backend has none in advance.
    async fn start_warm(
        &self,
        workspace: &WorkspaceId,
        fittings: fittings::Fittings,
    ) -> Result<WarmId, Error> {
        let _ = (workspace, fittings);
        Err(Error::Refused(
            "sandboxes of this kind are not started in advance".to_owned(),
        ))
    }

    /// Ends a sandbox that belongs to no session, and removes what was made for it. That there is none is no failure.
    ///
    /// # Errors
    /// [`Error`] when something could not be removed.
    async fn stop_warm(&self, id: &WarmId) -> Result<(), Error> {
        let _ = id;
        Ok(())
    }

    /// Whether the session has neither a sandbox nor a workspace, and never had any, so that it may be given one that
    /// was started in advance.
    ///
    /// # Errors
    /// [`Error`] when that can't be told.
    async fn is_untouched(&self, session: &SessionId) -> Result<bool, Error> {
        let _ = session;
        Ok(false)
    }

    /// Gives the session a sandbox that belonged to none, as one that has been started for it. `None` when it can't
    /// have it: it is not untouched, or that sandbox is gone; what is left of that is to be stopped then.
    ///
    /// # Errors
    /// [`Error`] when the sandbox could not be handed over; the session has none then.
    async fn claim(&self, id: &WarmId, spec: &Spec) -> Result<Option<Attached>, Error> {
        let _ = (id, spec);
        Ok(None)
    }

    /// The host's access to a session's workspace, made when it does not exist.
    ///
    /// # Errors
    /// [`Error`] when it can't be opened.
    async fn workspace(&self, session: &SessionId) -> Result<std::sync::Arc<dyn files::Workspace>, Error>;

    /// Whether the session has such places: it has had a sandbox, or somebody has put something there.
    ///
    /// # Errors
    /// [`Error`] when that can't be told.
    async fn has_mounts(&self, session: &SessionId) -> Result<bool, Error> {
        let _ = session;
        Ok(false)
    }

    /// The host's access to a place below `/mnt`, made when it does not exist. A sandbox that runs already shows
    /// what is put there, except in a memory store's folder that this has just made.
    ///
    /// # Errors
    /// [`Error`] when it can't be opened, also where a backend has no such places.
    async fn mount(
        &self,
        session: &SessionId,
        place: &mounts::Place,
    ) -> Result<std::sync::Arc<dyn files::Workspace>, Error> {
        let _ = (session, place);
        Err(Error::Refused(
            "sandboxes of this kind have nothing beside their workspace".to_owned(),
        ))
    }
}
