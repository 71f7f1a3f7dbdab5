//! The builds of a server: one for each layer at a time, however many wait for it.
//!
//! A build is a task of its own: nobody who waits for it takes it along when he goes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oma_domain::environment::build::Progress;
use oma_domain::environment::{Environment, Spec};
use oma_domain::{EnvironmentId, WorkspaceId};
use oma_sandbox::Error;
use oma_sandbox::layers::{Build, Layer, Layers, Site};
use oma_store::Store;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::collect::Room;
use super::install::{Run, unsaid, with_output};
use super::job::Job;
use super::key;
use super::queue::{Full, MAX_WAITING, Queue};
use super::{Settings, Stage};
use crate::{Network, failed};

/// The most builds that are remembered.
const REMEMBERED: usize = 1_024;

/// How often it is looked what a build has put on the disk.
const LOOK: Duration = Duration::from_secs(2);
/// How often in a row that may fail.
const MAX_FAILURES: u32 = 5;

/// How often it is looked whether a build is still wanted.
const ASK: Duration = Duration::from_secs(30);

/// What is said of a build that nobody wants any more.
const UNWANTED: &str = "no environment asks for this any more, so it was not built";

/// What is said of a build that is given up with the server.
const CLOSING: &str = "the server stops, so it was not built";

/// What is said of a build that can't be measured.
const UNMEASURED: &str = "nobody can tell what the build has put on the disk";

/// How long builds may take to be given up.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What all builds share.
pub(super) struct Builds {
    store: Arc<dyn Store>,
    pub(super) layers: Arc<dyn Layers>,
    pub(super) network: Option<Network>,
    settings: Settings,
    jobs: Mutex<HashMap<Layer, Arc<Job>>>,
    /// What was last asked for an environment, by its definition then.
    latest: Mutex<HashMap<EnvironmentId, (Spec, Arc<Job>)>>,
    queue: Mutex<Queue<(Spec, Arc<Job>)>>,
    /// Held while layers are removed to make room.
    pub(super) collecting: tokio::sync::Mutex<()>,
    /// The server stops: no build begins, and those under way are given up.
    closing: CancellationToken,
    /// Builds that are under way.
    tasks: TaskTracker,
}

impl Builds {
    pub(super) fn new(
        store: Arc<dyn Store>,
        layers: Arc<dyn Layers>,
        network: Option<Network>,
        settings: Settings,
    ) -> Self {
        Self {
            store,
            layers,
            network,
            queue: Mutex::new(Queue::new(settings.at_once)),
            settings,
            jobs: Mutex::default(),
            latest: Mutex::default(),
            collecting: tokio::sync::Mutex::default(),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Why sandboxes can't be made of an environment's image. What an operator takes off the list counts from then on.
    ///
    /// # Errors
    /// That.
    pub(super) fn check_image(&self, spec: &Spec) -> Result<(), String> {
        let Some(image) = &spec.image else {
            return Ok(());
        };
        if !self.layers.has_images() {
            return Err("sandboxes of this server are made of no images".to_owned());
        }
        if self.settings.images.contains(image) {
            return Ok(());
        }
        let known = match self.settings.images.join(", ") {
            none if none.is_empty() => "none but its own".to_owned(),
            known => known,
        };
        Err(format!(
            "this server lets environments have other images: {known}"
        ))
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<Layer, Arc<Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn latest(&self) -> MutexGuard<'_, HashMap<EnvironmentId, (Spec, Arc<Job>)>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was last done for an environment of this definition.
    pub(super) fn last(&self, id: &EnvironmentId, spec: &Spec) -> Option<Arc<Job>> {
        let latest = self.latest();
        let (known, job) = latest.get(id)?;
        (known == spec).then(|| Arc::clone(job))
    }

    fn note(&self, environment: &Environment, job: &Arc<Job>) {
        job.asked_for(&environment.id);
        let mut latest = self.latest();
        if latest.len() >= REMEMBERED && !latest.contains_key(&environment.id) {
            latest.retain(|_, (_, job)| job.is_under_way());
        }
        latest.insert(
            environment.id.clone(),
            (environment.spec.clone(), Arc::clone(job)),
        );
    }

    /// A layer is not there, whatever was known of it.
    pub(super) fn forget(&self, layer: &Layer) {
        let is_other = |job: &Job| job.layer != *layer || job.is_under_way();
        self.jobs().retain(|_, job| is_other(job));
        self.latest().retain(|_, (_, job)| is_other(job));
    }

    /// The layer that an environment has; none where nothing has to be built.
    ///
    /// # Errors
    /// [`Error`] when it can't be told what it would lie over.
    pub(super) async fn layer(&self, workspace: &WorkspaceId, spec: &Spec) -> Result<Option<Layer>, Error> {
        if !spec.is_built() {
            return Ok(None);
        }
        let ground = self.layers.ground(spec.image.as_deref()).await?;
        let (variables, files) = (self.settings.variables.clone(), self.settings.files.clone());
        let given = tokio::task::spawn_blocking(move || key::given(&variables, &files)).await;
        let given = given
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(|error| failed("reading the files of builds", error))?;
        Ok(key::layer(workspace, &ground, &given, spec))
    }

    /// The build of an environment's layer, begun when none is under way. Must be called in a runtime.
    ///
    /// # Errors
    /// [`Error`] when it can't be told whether the layer is there.
    pub(super) async fn ensure(
        self: &Arc<Self>,
        environment: &Environment,
        layer: Layer,
    ) -> Result<Arc<Job>, Error> {
        let known = self.jobs().get(&layer).cloned();
        let is_answer = |job: &Arc<Job>| job.is_under_way() || job.failure().is_some();
        let job = if let Some(job) = known.clone().filter(is_answer) {
            job
        } else if self.layers.touch(&layer).await? {
            metrics::counter!("environment_layers_total", "outcome" => "shared").increment(1);
            // What built it may be known yet, with what it printed.
            let built = known.filter(|job| *job.stage.borrow() == Stage::Ready);
            built.unwrap_or_else(|| Job::new(environment, layer, Stage::Ready))
        } else {
            // Others may think that it is there.
            self.forget(&layer);
            let mut jobs = self.jobs();
            // Somebody may have begun meanwhile.
            match jobs.get(&layer).cloned().filter(is_answer) {
                Some(job) => job,
                None => {
                    if jobs.len() >= REMEMBERED {
                        jobs.retain(|_, job| job.is_under_way());
                    }
                    let job = Job::new(environment, layer.clone(), Stage::Waiting);
                    if self.enqueue(environment, &job) {
                        jobs.insert(layer, Arc::clone(&job));
                    }
                    job
                }
            }
        };
        self.note(environment, &job);
        self.advance();
        let waits = self.queue().any(|(_, queued)| Arc::ptr_eq(queued, &job));
        if waits {
            // Unless it has begun meanwhile, or has said so already.
            job.progress.send_if_modified(|all| {
                let is_first = all.is_empty();
                if is_first {
                    all.push(Progress::Waiting);
                }
                is_first
            });
        }
        Ok(job)
    }

    fn queue(&self) -> MutexGuard<'_, Queue<(Spec, Arc<Job>)>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a build wait for its turn; tells whether there is room.
    fn enqueue(&self, environment: &Environment, job: &Arc<Job>) -> bool {
        let waits = (environment.spec.clone(), Arc::clone(job));
        if self.closing.is_cancelled() {
            job.drop_it(CLOSING.to_owned());
            return false;
        }
        let queued = self.queue().push(&environment.workspace, waits);
        if queued == Err(Full) {
            job.drop_it(format!(
                "{MAX_WAITING} builds of this workspace wait already; try again when one of them has ended"
            ));
        }
        queued.is_ok()
    }

    /// Begins all builds whose turn it is.
    fn advance(self: &Arc<Self>) {
        while !self.closing.is_cancelled() {
            let Some((workspace, (spec, job))) = self.queue().begin() else {
                return;
            };
            let builds = Arc::clone(self);
            self.tasks.spawn(async move {
                let (work, of) = (Arc::clone(&builds), Arc::clone(&job));
                let work = tokio::spawn(async move { work.carry_out(&spec, &of).await });
                if let Err(error) = work.await {
                    tracing::error!(%error, "a build broke off");
                    job.end(Err("the build broke off".to_owned()));
                }
                builds.queue().end(&workspace);
                builds.advance();
            });
        }
    }

    /// Gives up the builds that are under way, within a bound, and begins no others.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        for (_, job) in self.queue().clear() {
            job.drop_it(CLOSING.to_owned());
        }
        self.tasks.close();
        if timeout(CLOSE_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::warn!("some builds could not be given up in time; they end by themselves");
        }
    }

    /// Whether somebody waits for a build, or an environment asks for it as that is now.
    async fn is_wanted(&self, job: &Job) -> bool {
        if job.stage.receiver_count() > 0 {
            return true;
        }
        for id in job.askers() {
            let wants = match self.store.environment(&job.workspace, &id).await {
                Ok(Some(now)) if now.archived_at.is_none() => {
                    let layer = self.layer(&now.workspace, &now.spec).await;
                    // What can't be told is no reason to end it.
                    layer.map_or(true, |layer| layer.as_ref() == Some(&job.layer))
                }
                Ok(_) => false,
                Err(error) => {
                    tracing::warn!(%error, "it can't be told whether a build is wanted");
                    true
                }
            };
            if wants {
                return true;
            }
        }
        false
    }

    /// Returns when nobody wants a build any more.
    async fn unwanted(&self, job: &Job) {
        let mut looks = interval(ASK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first one is at once, and was done.
        looks.tick().await;
        loop {
            looks.tick().await;
            if !self.is_wanted(job).await {
                return;
            }
        }
    }

    /// Waits until a build has ended.
    ///
    /// # Errors
    /// [`Error::Build`] when it has failed, or takes too long.
    pub(super) async fn wait(&self, job: &Job) -> Result<(), Error> {
        let mut stage = job.stage.subscribe();
        let ended = stage.wait_for(|stage| matches!(stage, Stage::Ready | Stage::Failed(_)));
        // It may wait for others first.
        let patience = self.settings.timeout.saturating_mul(2) + Duration::from_secs(60);
        match timeout(patience, ended)
            .await
            .map(|ended| ended.map(|stage| stage.clone()))
        {
            Ok(Ok(Stage::Failed(reason))) => Err(Error::Build(reason)),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Error::Build("the build broke off".to_owned())),
            Err(_) => Err(Error::Build("the build waits for others for too long".to_owned())),
        }
    }

    async fn carry_out(&self, spec: &Spec, job: &Job) {
        let workspace = &job.workspace;
        if !self.is_wanted(job).await {
            tracing::info!(workspace_id = %workspace, layer = job.layer.as_str(), "nobody wants a layer any more");
            job.drop_it(UNWANTED.to_owned());
            return;
        }
        job.begin();
        tracing::info!(workspace_id = %workspace, layer = job.layer.as_str(), "a layer is being built");
        let built = self.build(workspace, spec, job).await;
        let took = job.took();
        metrics::histogram!("environment_build_duration_seconds").record(took);
        let outcome = if built.is_ok() { "built" } else { "failed" };
        metrics::counter!("environment_layers_total", "outcome" => outcome).increment(1);
        match built {
            Ok(()) => {
                tracing::info!(workspace_id = %workspace, layer = job.layer.as_str(), ?took, "a layer was built");
                job.end(Ok(()));
            }
            // It was ended for that, and did not fail.
            Err(reason) if [UNWANTED, CLOSING].contains(&&*reason) => job.drop_it(reason),
            Err(reason) => {
                // What installers say is the developer's, and not for the operator's log.
                let first = reason.lines().next().unwrap_or_default();
                tracing::warn!(workspace_id = %workspace, layer = job.layer.as_str(), ?took, reason = first, "a layer could not be built");
                job.end(Err(reason));
            }
        }
        if let Err(error) = self.collect().await {
            tracing::warn!(%error, "the layers of environments can't be looked through");
        }
    }

    async fn build(&self, workspace: &WorkspaceId, spec: &Spec, job: &Job) -> Result<(), String> {
        let room = self.room(workspace).await?;
        let build = Build {
            workspace: workspace.clone(),
            image: spec.image.clone(),
            limits: self.settings.limits.clone(),
            files: self.settings.files.clone(),
        };
        let site = self.layers.begin(build).await.map_err(|error| {
            tracing::error!(%error, "a build could not begin");
            unsaid("the build could not begin")
        })?;
        let work = self.install(workspace, spec, job, (&site, room));
        let installed = timeout(self.settings.timeout, work).await;
        let installed = installed.unwrap_or_else(|_| {
            let words = format!(
                "the build took longer than {:?} and was ended",
                self.settings.timeout
            );
            Err(with_output(&words, &job.log.text()))
        });
        let installed = match installed {
            // What came since it was last looked at counts, too.
            Ok(()) => self.last_look(&site, room, job).await,
            failed => failed,
        };
        let done = match &installed {
            Ok(()) => self.layers.keep(&site, &job.layer).await,
            Err(_) => self.layers.give_up(&site).await,
        };
        match (installed, done) {
            (Err(reason), Err(error)) => {
                tracing::error!(%error, "what is left of a build could not be removed");
                Err(reason)
            }
            (Err(reason), Ok(())) => Err(reason),
            (Ok(()), Err(error)) => {
                tracing::error!(%error, "a layer could not be kept");
                Err(unsaid("what was built could not be kept"))
            }
            (Ok(()), Ok(())) => Ok(()),
        }
    }

    /// Runs all steps while nobody takes too much of the disk.
    async fn install(
        &self,
        workspace: &WorkspaceId,
        spec: &Spec,
        job: &Job,
        (site, room): (&Site, Room),
    ) -> Result<(), String> {
        let run = Run {
            builds: self,
            job,
            site,
            room,
            variables: self.settings.variables.clone(),
            is_refreshed: false,
        };
        tokio::select! {
            done = run.go(workspace, spec) => done,
            reason = self.watch(site, room) => Err(with_output(&reason, &job.log.text())),
            () = self.closing.cancelled() => Err(CLOSING.to_owned()),
            () = self.unwanted(job) => Err(UNWANTED.to_owned()),
        }
    }

    /// Returns when a build has put too much on the disk.
    async fn watch(&self, site: &Site, room: Room) -> String {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failures = 0;
        loop {
            looks.tick().await;
            match self.excess(site, room).await {
                Ok(Some(excess)) => return excess,
                Ok(None) => failures = 0,
                // It has ended, or will be looked at again; but what is never measured has no bound.
                Err(error) => {
                    failures += 1;
                    tracing::debug!(%error, failures, "a build can't be measured");
                    if failures >= MAX_FAILURES {
                        return UNMEASURED.to_owned();
                    }
                }
            }
        }
    }

    /// Whether a build that is done has no more than it may have.
    async fn last_look(&self, site: &Site, room: Room, job: &Job) -> Result<(), String> {
        match self.excess(site, room).await {
            Ok(None) => Ok(()),
            Ok(Some(excess)) => Err(with_output(&excess, &job.log.text())),
            Err(error) => {
                tracing::warn!(%error, "a build can't be measured");
                Err(UNMEASURED.to_owned())
            }
        }
    }

    /// Of what a build has too much.
    pub(super) async fn excess(&self, site: &Site, room: Room) -> Result<Option<String>, Error> {
        let most_inodes = self.settings.limits.inodes;
        let size = self.layers.size(site, most_inodes).await?;
        let excess = if size.bytes > room.bytes {
            let why = if room.is_rest {
                ", which is what is left beside what was built before"
            } else {
                ""
            };
            format!(
                "the build has put more than {} bytes on the disk{why}",
                room.bytes
            )
        } else if size.inodes > most_inodes {
            format!("the build has made more than {most_inodes} files and folders")
        } else {
            return Ok(None);
        };
        Ok(Some(excess))
    }
}
