//! One build: where it stands, what it has printed, and what sessions have been told of it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use oma_domain::environment::Environment;
use oma_domain::environment::build::{Progress, Step};
use oma_domain::{EnvironmentId, SessionId, WorkspaceId};
use oma_sandbox::layers::Layer;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Stage;
use super::run::Log;

/// How long a failure is the answer before the same is tried again.
const FAILURE_AGE: Duration = Duration::from_secs(60);

/// The most environments that a build remembers to be for.
const MAX_ASKERS: usize = 256;

/// The most sessions of which a build remembers what they were told.
const MAX_TOLD: usize = 4_096;

/// How long something took, in milliseconds.
fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

/// A build, or what became of it.
pub(super) struct Job {
    pub(super) layer: Layer,
    pub(super) workspace: WorkspaceId,
    /// The environments that it is for.
    askers: Mutex<BTreeSet<EnvironmentId>>,
    pub(super) stage: watch::Sender<Stage>,
    pub(super) log: Log,
    /// What has become of it, in order: a few things for each installer.
    pub(super) progress: watch::Sender<Vec<Progress>>,
    /// How much of that sessions have been told.
    told: Mutex<HashMap<SessionId, usize>>,
    begun: OnceLock<Instant>,
    /// What is being done, and since when.
    step: Mutex<Option<(Step, Instant)>>,
    ended: Mutex<Option<Instant>>,
}

impl Job {
    pub(super) fn new(environment: &Environment, layer: Layer, stage: Stage) -> Arc<Self> {
        Arc::new(Self {
            layer,
            workspace: environment.workspace.clone(),
            askers: Mutex::new([environment.id.clone()].into()),
            stage: watch::Sender::new(stage),
            log: Log::default(),
            progress: watch::Sender::default(),
            told: Mutex::default(),
            begun: OnceLock::new(),
            step: Mutex::default(),
            ended: Mutex::default(),
        })
    }

    pub(super) fn asked_for(&self, by: &EnvironmentId) {
        let mut askers = self.askers.lock().unwrap_or_else(PoisonError::into_inner);
        if askers.len() < MAX_ASKERS {
            askers.insert(by.clone());
        }
    }

    /// The environments that it is for.
    pub(super) fn askers(&self) -> BTreeSet<EnvironmentId> {
        self.askers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It begins.
    pub(super) fn begin(&self) {
        self.begun.get_or_init(Instant::now);
        self.note(Progress::Started);
    }

    /// It is not built, and whoever asks next has it tried again.
    pub(super) fn drop_it(&self, reason: String) {
        self.settle(Stage::Failed(reason));
    }

    /// Nothing more becomes of it. Those who follow it see that there is no more to come.
    fn settle(&self, stage: Stage) {
        self.stage.send_replace(stage);
        self.progress.send_modify(|_| {});
    }

    /// Returns when it is not under way any more. Whoever waits here does not keep a build going that nobody else wants.
    pub(super) async fn ended(&self) {
        let mut progress = self.progress.subscribe();
        // The sender is this one's own.
        while self.is_under_way() && progress.changed().await.is_ok() {}
    }

    /// Something has become of it.
    pub(super) fn note(&self, progress: Progress) {
        self.progress.send_modify(|all| all.push(progress));
    }

    /// A step of it begins.
    pub(super) fn begin_step(&self, step: Step) {
        self.note(Progress::StepStarted { step: step.clone() });
        self.stage.send_replace(Stage::Building(step.as_str()));
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = Some((step, Instant::now()));
    }

    /// The step that has begun has ended.
    pub(super) fn end_step(&self, is_error: bool) {
        let step = self.step.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((step, begun)) = step {
            self.note(Progress::StepEnded {
                step,
                took_ms: millis(begun.elapsed()),
                is_error,
            });
        }
    }

    /// How long it has been under way.
    pub(super) fn took(&self) -> Duration {
        self.begun.get().map_or(Duration::ZERO, Instant::elapsed)
    }

    /// How much of what has become of it a session has been told.
    pub(super) fn told(&self, session: &SessionId) -> usize {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.get(session).copied().unwrap_or_default()
    }

    /// A session has been told so much more.
    pub(super) fn said(&self, session: &SessionId, count: usize) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        // One more than that may be told again what it was told already.
        if told.len() < MAX_TOLD || told.contains_key(session) {
            *told.entry(session.clone()).or_default() += count;
        }
    }

    /// It has ended.
    pub(super) fn end(&self, built: Result<(), String>) {
        // Perhaps in the middle of a step.
        self.end_step(true);
        let took_ms = millis(self.took());
        let (progress, stage) = match built {
            Ok(()) => (Progress::Ready { took_ms }, Stage::Ready),
            Err(reason) => {
                let failed = Stage::Failed(reason.clone());
                (Progress::Failed { took_ms, reason }, failed)
            }
        };
        // First what sessions are told: who waits for the end goes on with it.
        self.note(progress);
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.settle(stage);
    }

    /// Why it failed, as long as that is the answer.
    pub(super) fn failure(&self) -> Option<String> {
        let ended = *self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = ended.is_some_and(|ended| ended.elapsed() < FAILURE_AGE);
        match &*self.stage.borrow() {
            Stage::Failed(reason) if is_fresh => Some(reason.clone()),
            _ => None,
        }
    }

    pub(super) fn is_under_way(&self) -> bool {
        matches!(*self.stage.borrow(), Stage::Waiting | Stage::Building(_))
    }
}
