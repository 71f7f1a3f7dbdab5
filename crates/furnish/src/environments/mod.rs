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
mod following;
mod install;
mod job;
mod key;
mod queue;
mod run;
mod steps;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use oma_domain::environment::{Environment, Networking, Spec};
use oma_domain::{Session, SessionId};
use oma_sandbox::fittings::Fittings;
use oma_sandbox::layers::{Kept, Layers};
use oma_sandbox::limits::Limits;
use oma_sandbox::mounts::Furnish;
use oma_sandbox::{Error, Provider, Spec as SandboxSpec};
use oma_store::Store;

use crate::{Network, failed};
use builds::Builds;
pub use following::Following;
use job::Job;

/// How long a layer stays at least once it was used, so that a sandbox that is about to show it finds it.
const GRACE: Duration = Duration::from_secs(600);

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
    /// How much all layers may take, in bytes.
    pub size: u64,
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

    /// Removes layers that are too old, and the longest unused while all of them are too large.
    ///
    /// # Errors
    /// [`Error`] when they can't be listed.
    pub async fn collect(&self) -> Result<(), Error> {
        let (layers, settings) = (&self.inner.builds.layers, self.inner.builds.settings());
        for layer in surplus(
            layers.kept().await?,
            SystemTime::now(),
            settings.age,
            settings.size,
        ) {
            match layers.discard(&layer.layer).await {
                Ok(true) => {
                    self.inner.builds.forget(&layer.layer);
                    tracing::info!(
                        layer = layer.layer.as_str(),
                        bytes = layer.bytes,
                        "a layer was removed"
                    );
                    metrics::counter!("environment_layers_total", "outcome" => "removed").increment(1);
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(layer = layer.layer.as_str(), %error, "a layer could not be removed");
                }
            }
        }
        let kept = layers.kept().await?;
        #[expect(clippy::cast_precision_loss, reason = "a gauge takes no other number")]
        let bytes = kept.iter().map(|layer| layer.bytes).sum::<u64>() as f64;
        metrics::gauge!("environment_layers_bytes").set(bytes);
        Ok(())
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

/// The layers that go, the longest unused first.
fn surplus(mut all: Vec<Kept>, now: SystemTime, age: Option<Duration>, size: u64) -> Vec<Kept> {
    all.sort_by_key(|layer| layer.used);
    let mut total: u64 = all.iter().map(|layer| layer.bytes).sum();
    all.retain(|layer| {
        // One of the future was used just now.
        let unused = now.duration_since(layer.used).unwrap_or_default();
        let goes = unused >= GRACE && (age.is_some_and(|age| unused > age) || total > size);
        if goes {
            total -= layer.bytes;
        }
        goes
    });
    all
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
                Stage::Waiting | Stage::Building(_) => {
                    return Err(Error::Build("it is not built yet; try again".to_owned()));
                }
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use oma_sandbox::layers::Layer;

    #[test]
    fn old_layers_go_and_of_many_the_longest_unused() {
        let now = SystemTime::now();
        let hour = Duration::from_secs(3_600);
        let layer = |digit: char, hours: u32| Kept {
            layer: Layer::parse(&digit.to_string().repeat(64)).unwrap(),
            bytes: 10,
            used: now - hour * hours,
        };
        let all = || vec![layer('a', 1), layer('b', 30), layer('c', 3), layer('d', 0)];
        let goes = |age: Option<Duration>, size: u64| -> String {
            let gone = surplus(all(), now, age, size);
            gone.iter().map(|kept| &kept.layer.as_str()[..1]).collect()
        };
        assert_eq!(goes(None, 40), "");
        assert_eq!(goes(Some(hour * 24), 40), "b");
        assert_eq!(goes(None, 39), "b");
        assert_eq!(goes(None, 20), "bc");
        assert_eq!(goes(Some(hour * 2), 20), "bc");
        assert_eq!(goes(None, 0), "bca", "one that was used just now stays");
    }
}
