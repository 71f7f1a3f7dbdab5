//! What environments are made of: packages and setup scripts, built once into a layer that all their sessions share, and
//! the variables, limits and image that their sandboxes have.
//!
//! A build begins when an environment is created or changed, or when a session of it is; whoever needs the sandbox
//! before it is done waits. A failure is told to the developer in the installer's words, and holds for a minute; then
//! the next one who asks has it tried again. Layers that nobody has used for long, and the longest unused where they
//! take too much room, are removed ([`Environments::collect`]).
//!
//! Invariant: a layer is built by one at a time, whoever waits for it or has ceased to.
//! Invariant: no secret of a session or a vault is in a build, and what the operator gives builds is in no layer.

mod builds;
mod collect;
mod following;
mod install;
mod job;
mod key;
mod queue;
mod run;
mod steps;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use oma_domain::environment::{Environment, Networking, Spec};
use oma_domain::{Session, SessionId};
use oma_sandbox::fittings::Fittings;
use oma_sandbox::layers::Layers;
use oma_sandbox::limits::Limits;
use oma_sandbox::mounts::Furnish;
use oma_sandbox::{Error, Provider, Spec as SandboxSpec};
use oma_store::Store;

use crate::{Network, failed};
use builds::Builds;
pub use collect::Share;
pub use following::Following;
use job::Job;

/// How often layers are looked through.
const COLLECT: Duration = Duration::from_secs(600);

/// Where Node looks for packages that were installed for everybody.
const NODE_PATH: (&str, &str) = ("NODE_PATH", "/usr/local/lib/node_modules");

/// How environments are built and kept.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a build may take.
    pub timeout: Duration,
    /// How many builds are under way at once.
    pub at_once: usize,
    /// What a build may have.
    pub limits: Limits,
    /// Variables of builds, such as those that name mirrors.
    pub variables: Vec<(String, String)>,
    /// Files of the host that builds see, and where.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// How long a layer that nobody uses is kept; for ever, if not said.
    pub age: Option<Duration>,
    /// How much of the disk layers may take.
    pub share: Share,
    /// The images that environments may name.
    pub images: Vec<String>,
}

/// Where a build stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Others are before it.
    Waiting,
    /// It installs by this manager, or runs the setup script.
    Building(&'static str),
    /// The layer is there.
    Ready,
    /// It failed, for this reason.
    Failed(String),
}

/// What is known of the build of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The layer's name.
    pub layer: String,
    /// Where it stands.
    pub stage: Stage,
    /// The newest that it has printed.
    pub log: String,
}

/// What environments are made of. Cheap to clone.
#[derive(Clone)]
pub struct Environments {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    provider: Arc<dyn Provider>,
    builds: Arc<Builds>,
    has_network: bool,
}

impl Environments {
    /// Environments of this store, for the sandboxes of this provider, which shows these layers.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        provider: Arc<dyn Provider>,
        layers: Arc<dyn Layers>,
        network: Option<Network>,
        settings: Settings,
    ) -> Self {
        let has_network = network.is_some();
        Self {
            inner: Arc::new(Inner {
                builds: Arc::new(Builds::new(Arc::clone(&store), layers, network, settings)),
                store,
                provider,
                has_network,
            }),
        }
    }

    /// Why this server can't have such an environment: the field, and what is wrong with it.
    ///
    /// # Errors
    /// That.
    pub fn check(&self, spec: &Spec) -> Result<(), (&'static str, String)> {
        let layers = &self.inner.builds.layers;
        self.inner
            .builds
            .check_image(spec)
            .map_err(|lack| ("image", lack))?;
        if !spec.is_built() {
            return Ok(());
        }
        let has_packages = spec
            .packages
            .as_ref()
            .is_some_and(|packages| !packages.is_empty());
        let field = if has_packages { "packages" } else { "setupScript" };
        if let Some(lack) = layers.lacks() {
            return Err((field, lack));
        }
        if has_packages && !self.inner.has_network {
            let message = "sandboxes of this server have no network, so nothing can be installed";
            return Err((field, message.to_owned()));
        }
        match &spec.networking {
            Networking::Limited {
                allow_package_managers: false,
                ..
            } if has_packages => Err((
                "networking",
                "packages need allow_package_managers where networking is limited".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// Begins to build what an environment needs, if that is not there. Must be called in a runtime.
    pub fn prepare(&self, environment: &Environment) {
        if !environment.spec.is_built() {
            return;
        }
        let (environments, environment) = (self.clone(), environment.clone());
        tokio::spawn(async move {
            if let Err(error) = environments.inner.job(&environment).await {
                // Whoever needs it will try again, and be told.
                tracing::warn!(environment_id = %environment.id, %error, "an environment could not be prepared");
            }
        });
    }

    /// Waits until what an environment needs is there.
    ///
    /// # Errors
    /// [`Error::Build`] when it can't be built, in the installer's words.
    pub async fn ready(&self, environment: &Environment) -> Result<(), Error> {
        match self.inner.job(environment).await? {
            Some(job) => self.inner.builds.wait(&job).await,
            None => Ok(()),
        }
    }

    /// What becomes of an environment's build from now on, for a session that waits for it; none where none is under way
    /// that the session would have to be told of.
    ///
    /// # Errors
    /// [`Error`] when it can't be told whether the layer is there.
    pub async fn follow(
        &self,
        environment: &Environment,
        session: &SessionId,
    ) -> Result<Option<Following>, Error> {
        let job = self.inner.job(environment).await?;
        let job = job.filter(|job| job.is_under_way() || job.told(session) > 0);
        Ok(job.map(|job| Following::new(job, session)))
    }

    /// Whether what an environment needs is there, as far as this process knows without looking.
    #[must_use]
    pub fn is_ready(&self, environment: &Environment) -> bool {
        let last = || self.inner.builds.last(&environment.id, &environment.spec);
        !environment.spec.is_built() || last().is_some_and(|job| *job.stage.borrow() == Stage::Ready)
    }

    /// Why an environment could not be built just now.
    #[must_use]
    pub fn failure(&self, environment: &Environment) -> Option<String> {
        self.inner
            .builds
            .last(&environment.id, &environment.spec)?
            .failure()
    }

    /// What is known of an environment's build; none where nothing has to be built. Begins it where nothing is known.
    ///
    /// # Errors
    /// [`Error`] when that can't be told.
    pub async fn report(&self, environment: &Environment) -> Result<Option<Report>, Error> {
        if !environment.spec.is_built() {
            return Ok(None);
        }
        let job = match self.inner.builds.last(&environment.id, &environment.spec) {
            Some(job) => Some(job),
            None => self.inner.job(environment).await?,
        };
        Ok(job.map(|job| Report {
            layer: job.layer.to_string(),
            stage: job.stage.borrow().clone(),
            log: job.log.text(),
        }))
    }

    /// Removes layers that are too old, and the longest unused while those of a workspace, or all of them, are too large.
    ///
    /// # Errors
    /// [`Error`] when they can't be listed.
    pub async fn collect(&self) -> Result<(), Error> {
        self.inner.builds.collect().await
    }

    /// The server stops: gives up the builds that are under way, within a bound, and begins no others.
    pub async fn close(&self) {
        self.inner.builds.close().await;
    }

    /// Looks through the layers now and then; never returns.
    pub async fn keep_collecting(&self) {
        loop {
            if let Err(error) = self.collect().await {
                tracing::warn!(%error, "the layers of environments can't be looked through");
            }
            tokio::time::sleep(COLLECT).await;
        }
    }
}

impl Inner {
    /// The build of an environment, begun if need be; none where nothing has to be built.
    async fn job(&self, environment: &Environment) -> Result<Option<Arc<Job>>, Error> {
        let (workspace, spec) = (&environment.workspace, &environment.spec);
        self.builds.check_image(spec).map_err(Error::Build)?;
        let Some(layer) = self.builds.layer(workspace, spec).await? else {
            return Ok(None);
        };
        self.builds.ensure(environment, layer).await.map(Some)
    }

    async fn environment(&self, spec: &SandboxSpec) -> Result<Option<Arc<Environment>>, Error> {
        let session: Option<Session> = self
            .store
            .session(&spec.workspace, &spec.session)
            .await
            .map_err(|error| failed("reading the session of a sandbox", error))?;
        Ok(session.and_then(|session| session.environment))
    }
}

#[async_trait]
impl Furnish for Environments {
    async fn furnish(&self, spec: &SandboxSpec) -> Result<(), Error> {
        let Some(environment) = self.inner.environment(spec).await? else {
            return Ok(());
        };
        // What runs has what it began with.
        if !environment.spec.is_built() || self.inner.provider.reattach(&spec.session).await?.is_some() {
            return Ok(());
        }
        self.ready(&environment).await
    }

    async fn fit(&self, spec: &SandboxSpec, fittings: &mut Fittings) -> Result<(), Error> {
        let Some(environment) = self.inner.environment(spec).await? else {
            return Ok(());
        };
        let of = &environment.spec;
        // Whoever needs the sandbox has waited for this; whoever wants one in advance does not.
        if let Some(job) = self.inner.job(&environment).await? {
            let stage = job.stage.borrow().clone();
            match stage {
                Stage::Ready => fittings.layer = Some(job.layer.clone()),
                Stage::Failed(reason) => return Err(Error::Build(reason)),
                Stage::Waiting | Stage::Building(_) => return Err(Error::Unbuilt),
            }
        }
        if of
            .packages
            .as_ref()
            .is_some_and(|packages| packages.npm.is_some())
        {
            let (name, value) = NODE_PATH;
            fittings.variables.insert(name.to_owned(), value.to_owned());
        }
        fittings.variables.extend(of.variables.clone());
        fittings.image.clone_from(&of.image);
        fittings.limits = of.limits.unwrap_or_default();
        Ok(())
    }

    async fn fits(&self, spec: &SandboxSpec) {
        let job = match self.inner.environment(spec).await {
            Ok(Some(environment)) => self.inner.job(&environment).await,
            Ok(None) => return,
            Err(error) => Err(error),
        };
        match job {
            Ok(Some(job)) => job.ended().await,
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(session_id = %spec.session, %error, "nobody can tell what a sandbox waits for")
            }
        }
    }
}
