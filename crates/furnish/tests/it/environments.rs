//! Builds of environments over layers that only pretend: who waits, who is told what, and what is given up.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use oma_domain::environment::build::Progress;
use oma_domain::environment::{Environment, Packages, Spec};
use oma_domain::{EnvironmentId, EventId, SessionId, WorkspaceId};
use oma_furnish::Environments;
use oma_furnish::environments::{Settings, Share, Stage};
use oma_sandbox::fittings::Fittings;
use oma_sandbox::layers::{Build, Kept, Layer, Layers, Site, Size};
use oma_sandbox::limits::Limits;
use oma_sandbox::mounts::Furnish as _;
use oma_sandbox::protocol::{Call, Reply, Service};
use oma_sandbox::{Error, Hand, Pipe, Spec as SandboxSpec};
use oma_store::Store;
use oma_store::contract::fixtures::{NOW, agent, new_session};
use oma_store::sqlite::{Options, Sqlite};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;

use crate::memories::{Backend, Folder};

/// Layers that are names only. Commands of builds wait until they are let go on; those with `fails` in them fail.
struct Pretended {
    kept: Mutex<Vec<Kept>>,
    size: Mutex<Option<Size>>,
    log: Mutex<Vec<String>>,
    begun: watch::Sender<usize>,
    gate: watch::Sender<bool>,
}

impl Pretended {
    fn note(&self, word: impl Into<String>) {
        self.log.lock().unwrap().push(word.into());
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().join(" ")
    }

    /// Until so many builds have begun.
    async fn has_begun(&self, count: usize) {
        let mut begun = self.begun.subscribe();
        let wait = begun.wait_for(|all| *all >= count);
        tokio::time::timeout(Duration::from_secs(60), wait)
            .await
            .unwrap()
            .unwrap();
    }
}

/// A hand that runs nothing, and says how it ended.
struct Pretender(watch::Receiver<bool>);

#[async_trait]
impl Hand for Pretender {
    async fn run(&self, _: &EventId, _: Call) -> Result<Reply, Error> {
        Err(Error::Lost("it only pretends".to_owned()))
    }
    async fn cancel(&self, _: &EventId) -> Result<Option<Reply>, Error> {
        Ok(None)
    }
    async fn forget_all_but(&self, _: &[EventId]) -> Result<(), Error> {
        Ok(())
    }
    async fn logs(&self, _: usize) -> Result<String, Error> {
        Ok(String::new())
    }
    async fn serve(&self, service: Service) -> Result<Box<dyn Pipe>, Error> {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let mut gate = self.0.clone();
        tokio::spawn(async move {
            if gate.wait_for(|is_open| *is_open).await.is_err() {
                return;
            }
            let fails = service.arguments.iter().any(|word| word.contains("fails"));
            let said = format!(
                "{}\n{} {}\n",
                if fails { "it fails" } else { "it works" },
                service.arguments[2],
                u8::from(fails)
            );
            let _ = theirs.write_all(said.as_bytes()).await;
        });
        Ok(Box::new(ours))
    }
}

#[async_trait]
impl Layers for Pretended {
    fn backend(&self) -> &'static str {
        "pretended"
    }
    fn lacks(&self) -> Option<String> {
        None
    }
    fn has_images(&self) -> bool {
        true
    }
    async fn ground(&self, image: Option<&str>) -> Result<String, Error> {
        Ok(image.unwrap_or("ground").to_owned())
    }
    async fn begin(&self, build: Build) -> Result<Site, Error> {
        self.note("begin");
        self.begun.send_modify(|count| *count += 1);
        Ok(Site {
            id: SessionId::generate(),
            workspace: build.workspace,
            hand: Arc::new(Pretender(self.gate.subscribe())),
        })
    }
    async fn size(&self, _: &Site, _: u64) -> Result<Size, Error> {
        let size = *self.size.lock().unwrap();
        size.ok_or_else(|| Error::Lost("nobody can tell".to_owned()))
    }
    async fn keep(&self, site: &Site, layer: &Layer) -> Result<(), Error> {
        self.note("keep");
        self.kept.lock().unwrap().push(Kept {
            layer: layer.clone(),
            workspace: Some(site.workspace.clone()),
            bytes: 10,
            used: SystemTime::now(),
        });
        Ok(())
    }
    async fn give_up(&self, _: &Site) -> Result<(), Error> {
        self.note("give-up");
        Ok(())
    }
    async fn touch(&self, layer: &Layer) -> Result<bool, Error> {
        let kept = self.kept.lock().unwrap();
        Ok(kept.iter().any(|kept| kept.layer == *layer))
    }
    async fn kept(&self) -> Result<Vec<Kept>, Error> {
        Ok(self.kept.lock().unwrap().clone())
    }
    async fn discard(&self, layer: &Layer) -> Result<bool, Error> {
        self.note("discard");
        self.kept.lock().unwrap().retain(|kept| kept.layer != *layer);
        Ok(true)
    }
}

struct Test {
    store: Arc<dyn Store>,
    layers: Arc<Pretended>,
    environments: Environments,
    workspace: WorkspaceId,
    _data: TempDir,
}

fn settings() -> Settings {
    Settings {
        timeout: Duration::from_secs(600),
        at_once: 2,
        limits: Limits {
            disk: 100,
            inodes: 100,
            ..Limits::default()
        },
        variables: Vec::new(),
        files: Vec::<(PathBuf, PathBuf)>::new(),
        age: None,
        share: Share {
            all: 1_000,
            workspace: 1_000,
        },
        images: vec!["listed:1".to_owned()],
    }
}

fn environments(store: &Arc<dyn Store>, layers: &Arc<Pretended>, settings: Settings) -> Environments {
    let provider = Arc::new(Backend(Arc::new(Folder::default())));
    let layers = Arc::<Pretended>::clone(layers);
    Environments::new(Arc::clone(store), provider, layers, None, settings)
}

impl Test {
    fn with(settings: Settings) -> Self {
        let data = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(Sqlite::open(data.path(), &Options::default()).unwrap());
        let layers = Arc::new(Pretended {
            kept: Mutex::default(),
            size: Mutex::new(Some(Size::default())),
            log: Mutex::default(),
            begun: watch::Sender::new(0),
            gate: watch::Sender::new(false),
        });
        Self {
            environments: environments(&store, &layers, settings),
            store,
            layers,
            workspace: WorkspaceId::generate(),
            _data: data,
        }
    }

    fn new() -> Self {
        Self::with(settings())
    }

    /// An environment whose setup script is this.
    async fn environment(&self, script: &str) -> Environment {
        self.made(|spec| spec.setup_script = Some(script.to_owned()))
            .await
    }

    async fn made(&self, change: impl FnOnce(&mut Spec)) -> Environment {
        let mut spec = Spec::named("e");
        change(&mut spec);
        let environment = Environment {
            id: EnvironmentId::generate(),
            workspace: self.workspace.clone(),
            spec,
            created_at: NOW,
            updated_at: NOW,
            archived_at: None,
        };
        self.store
            .create_environment(&environment, false, None)
            .await
            .unwrap();
        environment
    }

    async fn session(&self, environment: &Environment) -> SandboxSpec {
        let mut session = new_session(&self.workspace, &Arc::new(agent(&self.workspace)));
        session.environment = Some(Arc::new(environment.clone()));
        self.store.create_session(&session, None).await.unwrap();
        SandboxSpec {
            session: session.id,
            workspace: self.workspace.clone(),
        }
    }

    fn go_on(&self) {
        self.layers.gate.send_replace(true);
    }

    /// Waits in the background.
    fn ready(&self, environment: &Environment) -> tokio::task::JoinHandle<Result<(), Error>> {
        let (environments, environment) = (self.environments.clone(), environment.clone());
        tokio::spawn(async move { environments.ready(&environment).await })
    }

    async fn stage(&self, environment: &Environment) -> Stage {
        self.environments
            .report(environment)
            .await
            .unwrap()
            .unwrap()
            .stage
    }

    /// How a build ended that it is no use to wait for.
    async fn failure(&self, environment: &Environment) -> String {
        match self.environments.ready(environment).await {
            Err(Error::Build(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }
}

/// What became of a build, in short.
fn words(progress: &[Progress]) -> String {
    let word = |one: &Progress| match one.step() {
        Some(step) => format!("{}:{}", one.as_str(), step.as_str()),
        None => one.as_str().to_owned(),
    };
    progress.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_session_is_told_once_what_becomes_of_a_build() {
    let test = Test::new();
    let environment = test
        .made(|spec| {
            spec.packages = Some(Packages {
                pip: Some(vec!["six".to_owned()]),
                ..Packages::default()
            });
            spec.setup_script = Some("fails".to_owned());
        })
        .await;
    let session = SessionId::generate();
    let waiting = test.ready(&environment);
    test.layers.has_begun(1).await;
    let follow = async || {
        test.environments
            .follow(&environment, &session)
            .await
            .unwrap()
            .unwrap()
    };
    let mut following = follow().await;
    let first = following.news().await;
    assert_eq!(words(&first), "started", "nothing has been let go on");
    following.said(first.len());
    // Whoever comes again is told no more than what is new.
    let mut following = follow().await;
    test.go_on();
    let reason = match waiting.await.unwrap() {
        Err(Error::Build(reason)) => reason,
        other => panic!("{other:?}"),
    };
    let rest = following.unsaid();
    assert_eq!(
        words(&rest),
        "step_started:pip step_ended:pip step_started:setup_script step_ended:setup_script failed"
    );
    assert!(!rest[1].is_error() && rest[3].is_error() && rest[4].is_error());
    assert!(matches!(rest.last(), Some(Progress::Failed { reason: told, .. }) if *told == reason));
    assert!(
        reason.starts_with("the setup script failed") && reason.ends_with("it fails"),
        "{reason}"
    );
    // One that comes when all is over waits for nothing.
    let late = SessionId::generate();
    assert!(
        test.environments
            .follow(&environment, &late)
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn a_build_that_waits_for_others_says_so() {
    let test = Test::new();
    let (first, second) = (test.environment("one").await, test.environment("two").await);
    test.environments.prepare(&first);
    test.layers.has_begun(1).await;
    let session = SessionId::generate();
    let mut following = test
        .environments
        .follow(&second, &session)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(words(&following.news().await), "waiting");
    test.go_on();
    test.environments.ready(&second).await.unwrap();
    assert_eq!(
        words(&following.unsaid()),
        "waiting started step_started:setup_script step_ended:setup_script ready"
    );
}

#[tokio::test]
async fn what_is_gone_is_ready_for_nobody() {
    let mut few = settings();
    few.share.all = 25;
    let test = Test::with(few);
    test.go_on();
    let (one, same) = (test.environment("one").await, test.environment("one").await);
    for environment in [&one, &same] {
        test.environments.ready(environment).await.unwrap();
        assert!(test.environments.is_ready(environment));
    }
    assert_eq!(test.layers.log(), "begin keep", "once for both");
    // Somebody else has removed it, and one of them comes upon that.
    let kept = std::mem::take(&mut *test.layers.kept.lock().unwrap());
    test.layers.gate.send_replace(false);
    let waiting = test.ready(&one);
    test.layers.has_begun(2).await;
    assert!(!test.environments.is_ready(&one) && !test.environments.is_ready(&same));
    test.go_on();
    waiting.await.unwrap().unwrap();
    test.environments.ready(&same).await.unwrap();
    assert!(test.environments.is_ready(&same));
    // What is removed to make room is forgotten, too.
    {
        let mut all = test.layers.kept.lock().unwrap();
        all[0].bytes = 30;
        all[0].used -= Duration::from_secs(3_600);
        assert_eq!(all[0].layer, kept[0].layer);
    }
    test.environments.collect().await.unwrap();
    assert!(!test.environments.is_ready(&one) && !test.environments.is_ready(&same));
}

#[tokio::test]
async fn an_image_that_is_taken_off_the_list_is_in_no_sandbox() {
    let test = Test::new();
    let listed = |spec: &mut Spec| {
        spec.image = Some("listed:1".to_owned());
        spec.setup_script = Some("one".to_owned());
    };
    let plain = |spec: &mut Spec| spec.image = Some("listed:1".to_owned());
    let (built, plain) = (test.made(listed).await, test.made(plain).await);
    test.go_on();
    test.environments.ready(&built).await.unwrap();
    let specs = [test.session(&built).await, test.session(&plain).await];
    for spec in &specs {
        let mut fittings = Fittings::default();
        test.environments.fit(spec, &mut fittings).await.unwrap();
        assert_eq!(fittings.image.as_deref(), Some("listed:1"));
    }
    let revoked = Settings {
        images: Vec::new(),
        ..settings()
    };
    let after = environments(&test.store, &test.layers, revoked);
    for (spec, environment) in specs.iter().zip([&built, &plain]) {
        for failed in [
            after.fit(spec, &mut Fittings::default()).await,
            after.ready(environment).await,
        ] {
            let words = failed.unwrap_err().to_string();
            assert!(words.contains("none but its own"), "{words}");
        }
    }
}

#[tokio::test]
async fn whoever_wants_a_sandbox_in_advance_waits_for_no_build() {
    let test = Test::new();
    let environment = test.environment("one").await;
    let spec = test.session(&environment).await;
    let fit = async || {
        let mut fittings = Fittings::default();
        let fitted = test.environments.fit(&spec, &mut fittings).await;
        fitted.map(|()| fittings.layer)
    };
    assert!(matches!(fit().await, Err(Error::Unbuilt)), "and it has begun");
    test.layers.has_begun(1).await;
    let (environments, of) = (test.environments.clone(), spec.clone());
    let fits = tokio::spawn(async move { environments.fits(&of).await });
    assert!(matches!(fit().await, Err(Error::Unbuilt)));
    assert!(!fits.is_finished());
    test.go_on();
    fits.await.unwrap();
    assert!(fit().await.unwrap().is_some());
}

#[tokio::test]
async fn what_no_environment_asks_for_any_more_is_not_built() {
    let test = Test::new();
    let (first, second) = (test.environment("one").await, test.environment("two").await);
    test.environments.prepare(&first);
    test.layers.has_begun(1).await;
    assert!(
        matches!(test.stage(&second).await, Stage::Waiting),
        "one at a time"
    );
    for environment in [&first, &second] {
        let gone = test
            .store
            .delete_environment(&test.workspace, &environment.id)
            .await;
        assert!(gone.unwrap());
    }
    // The one that is under way is looked after now and then.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(31)).await;
    tokio::time::resume();
    let ended = async {
        for environment in [&first, &second] {
            // By what is known, without asking for it again.
            while matches!(test.stage(environment).await, Stage::Waiting | Stage::Building(_)) {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended)
        .await
        .unwrap();
    for environment in [&first, &second] {
        let Stage::Failed(reason) = test.stage(environment).await else {
            panic!("it was built for nobody");
        };
        assert!(reason.contains("no environment asks for this"), "{reason}");
    }
    assert_eq!(test.layers.log(), "begin give-up", "the other one never began");
}

#[tokio::test]
async fn a_workspace_has_its_share_of_the_disk() {
    let mut few = settings();
    few.share.workspace = 15;
    let mut test = Test::with(few);
    test.go_on();
    let others = [test.environment("one").await, test.environment("two").await];
    for environment in &others {
        test.environments.ready(environment).await.unwrap();
    }
    let third = test.environment("three").await;
    let reason = test.failure(&third).await;
    assert!(
        reason.starts_with("what was built for this workspace takes 20 bytes of the disk, and may take 15"),
        "{reason}"
    );
    assert_eq!(test.layers.log(), "begin keep begin keep");
    // Another one is not concerned.
    test.workspace = WorkspaceId::generate();
    let theirs = test.environment("three").await;
    test.environments.ready(&theirs).await.unwrap();
}

#[tokio::test]
async fn layers_that_nobody_uses_make_room_for_a_build() {
    let mut few = settings();
    few.share.all = 15;
    let test = Test::with(few);
    test.go_on();
    let first = test.environment("one").await;
    test.environments.ready(&first).await.unwrap();
    test.layers.kept.lock().unwrap()[0].used -= Duration::from_secs(3_600);
    let second = test.environment("two").await;
    test.environments.ready(&second).await.unwrap();
    let collected = async {
        while test.layers.log() != "begin keep discard begin keep" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), collected)
        .await
        .unwrap();
    assert!(!test.environments.is_ready(&first) && test.environments.is_ready(&second));
}

#[tokio::test]
async fn a_build_that_takes_too_much_is_not_kept() {
    let test = Test::new();
    test.go_on();
    for (size, words) in [
        (Some((101, 1)), "more than 100 bytes"),
        (Some((1, 101)), "more than 100 files and folders"),
        // Too deep to be looked into.
        (Some((u64::MAX, 1)), "more than 100 bytes"),
        (None, "nobody can tell"),
    ] {
        *test.layers.size.lock().unwrap() = size.map(|(bytes, inodes)| Size { bytes, inodes });
        let environment = test.environment(words).await;
        let reason = test.failure(&environment).await;
        assert!(reason.contains(words), "{reason}");
    }
    assert!(!test.layers.log().contains("keep"), "{}", test.layers.log());
    assert!(test.layers.kept.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_build_that_can_t_be_measured_is_ended() {
    let test = Test::new();
    *test.layers.size.lock().unwrap() = None;
    let environment = test.environment("one").await;
    let waiting = test.ready(&environment);
    test.layers.has_begun(1).await;
    tokio::time::pause();
    let Err(Error::Build(reason)) = waiting.await.unwrap() else {
        panic!("it went on");
    };
    assert!(reason.starts_with("nobody can tell"), "{reason}");
    assert_eq!(test.layers.log(), "begin give-up");
}

#[tokio::test]
async fn a_server_that_stops_gives_its_builds_up() {
    let test = Test::new();
    let (first, second) = (test.environment("one").await, test.environment("two").await);
    let waiting = [test.ready(&first), test.ready(&second)];
    test.layers.has_begun(1).await;
    test.environments.close().await;
    assert_eq!(
        test.layers.log(),
        "begin give-up",
        "at once, and no other one begins"
    );
    for waiting in waiting {
        let Err(Error::Build(reason)) = waiting.await.unwrap() else {
            panic!("it was built");
        };
        assert!(reason.contains("server stops"), "{reason}");
    }
    let third = test.environment("three").await;
    assert!(test.environments.ready(&third).await.is_err());
}
