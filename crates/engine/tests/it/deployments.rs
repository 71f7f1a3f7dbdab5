//! Deployments: what their schedules do over restarts and strange clocks.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use oma_domain::cron::Cron;
use oma_domain::deployment::{ErrorKind, InitialEvent, Outcome, Pause, Run, Schedule, Spec, Trigger};
use oma_domain::environment;
use oma_domain::page::Order;
use oma_domain::{ContentBlock, Deployment, Seq, SessionId, Timestamp};
use oma_engine::{Clock, Config, Error, IdempotencyKey, RunFilter};

use crate::puppet::{Stage, is_idle, kinds, says, spec};

/// 2026-11-28T12:00:00Z.
const NOON: Timestamp = Timestamp(1_795_867_200_000);
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

fn at(millis: i64) -> Timestamp {
    Timestamp(NOON.0 + millis)
}

fn config(clock: &Clock) -> Config {
    Config {
        clock: clock.clone(),
        schedule_jitter: Duration::ZERO,
        drain_timeout: Duration::from_millis(50),
        ..Config::default()
    }
}

async fn stage(folder: &Path, clock: &Clock) -> Stage {
    Stage::over(folder, config(clock)).await
}

/// A definition of a deployment that says hello.
async fn hello(stage: &Stage, cron: Option<&str>) -> Spec {
    let agent = stage.engine.create_agent(&stage.ws, spec(), None).await.unwrap();
    let environment = environment::Spec::named("e");
    let environment = stage
        .engine
        .create_environment(&stage.ws, environment, false, None)
        .await
        .unwrap();
    Spec {
        name: "Hello".into(),
        description: None,
        agent: agent.id,
        agent_version: 1,
        environment: environment.id,
        initial_events: vec![InitialEvent::Message {
            content: vec![ContentBlock::text("hello")],
        }],
        schedule: cron.map(|cron| Schedule {
            cron: Cron::parse(cron).unwrap(),
            timezone: "UTC".into(),
        }),
        vaults: Vec::new(),
        resources: Vec::new(),
        budget: None,
        metadata: Default::default(),
    }
}

async fn deploy(stage: &Stage, cron: &str) -> Deployment {
    let spec = hello(stage, Some(cron)).await;
    let created = stage
        .engine
        .create_deployment(&stage.ws, spec, Vec::new(), None, None);
    created.await.unwrap()
}

/// All runs, oldest first.
async fn runs(stage: &Stage) -> Vec<Run> {
    let filter = RunFilter::default();
    let page = stage
        .engine
        .deployment_runs(&stage.ws, &filter, Order::Ascending, None, 1000);
    page.await.unwrap().rows
}

/// When the schedule wanted the runs, as milliseconds after noon.
async fn times(stage: &Stage) -> Vec<i64> {
    let runs = runs(stage).await;
    let scheduled = runs.iter().map(|run| match run.trigger {
        Trigger::Schedule { scheduled_at } => scheduled_at.0 - NOON.0,
        Trigger::Manual => panic!("not scheduled: {run:?}"),
    });
    scheduled.collect()
}

fn session(run: &Run) -> &SessionId {
    match &run.outcome {
        Outcome::Session(session) => session,
        Outcome::Failed { .. } => panic!("it failed: {run:?}"),
    }
}

#[tokio::test]
async fn a_schedule_runs_each_of_its_times_once() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOON);
    let stage = stage(folder.path(), &clock).await;
    let deployment = deploy(&stage, "*/10 * * * *").await;
    assert_eq!(
        stage.engine.upcoming_runs(&deployment)[..2],
        [at(10 * MINUTE), at(20 * MINUTE)]
    );
    assert_eq!(stage.engine.run_schedules().await.unwrap(), Some(at(10 * MINUTE)));
    assert!(runs(&stage).await.is_empty());
    for minute in 1..=30 {
        clock.set(at(minute * MINUTE));
        stage.engine.run_schedules().await.unwrap();
        stage.engine.run_schedules().await.unwrap();
    }
    assert_eq!(times(&stage).await, [10 * MINUTE, 20 * MINUTE, 30 * MINUTE]);
    for run in runs(&stage).await {
        let log = stage.until(session(&run), Seq(0), is_idle).await;
        let said = kinds(&log).into_iter().filter(|kind| *kind == "user.message");
        assert_eq!(said.count(), 1);
        assert!(log.iter().any(|event| says(event, "re: hello")));
        let opened = stage.engine.session(&stage.ws, session(&run)).await.unwrap();
        assert_eq!(opened.deployment.as_ref(), Some(&deployment.id));
    }
    // None of these turns was cut off by anything.
    assert_eq!(
        stage.puppet.recovered.load(std::sync::atomic::Ordering::SeqCst),
        0
    );
    let stored = stage.engine.deployment(&stage.ws, &deployment.id).await.unwrap();
    assert_eq!(stored.last_run_at, Some(at(30 * MINUTE)));
}

#[tokio::test]
async fn the_task_sleeps_until_the_next_time_and_hears_of_changes() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOON);
    let stage = stage(folder.path(), &clock).await;
    let engine = stage.engine.clone();
    let task = tokio::spawn(async move { engine.keep_schedules().await });
    let deployment = deploy(&stage, "* * * * *").await;
    clock.set(at(MINUTE));
    // The run opens a session, which a list finds as soon as it is there.
    let session = loop {
        let found = runs(&stage).await;
        if let Some(run) = found.first() {
            break session(run).clone();
        }
        tokio::task::yield_now().await;
    };
    stage.until(&session, Seq(0), is_idle).await;
    assert_eq!(times(&stage).await, [MINUTE]);
    stage
        .engine
        .pause_deployment(&stage.ws, &deployment.id)
        .await
        .unwrap();
    stage.engine.stop().await;
    task.await.unwrap();
}

#[tokio::test]
async fn what_was_missed_is_made_up_once_and_only_while_it_is_fresh() {
    for (cron, down, expected) in [
        // The newest one of many.
        ("* * * * *", 10 * MINUTE + 5_000, vec![10 * MINUTE]),
        ("0 * * * *", HOUR + 14 * MINUTE, vec![HOUR]),
        // Too late: the next one comes in its time.
        ("0 * * * *", HOUR + 16 * MINUTE, vec![]),
        ("0 13 * * *", 400 * 24 * HOUR + 2 * HOUR, vec![]),
        ("* * * * *", 400 * 24 * HOUR, vec![400 * 24 * HOUR]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(NOON);
        let deployment = {
            let stage = stage(folder.path(), &clock).await;
            let deployment = deploy(&stage, cron).await;
            stage.engine.stop().await;
            deployment
        };
        clock.set(at(down));
        let stage = stage(folder.path(), &clock).await;
        let next = stage.engine.run_schedules().await.unwrap();
        assert_eq!(times(&stage).await, expected, "{cron} {down}");
        assert!(next.is_some_and(|next| next > at(down)), "{cron} {down}");
        stage.engine.run_schedules().await.unwrap();
        assert_eq!(times(&stage).await.len(), expected.len(), "{cron} {down}");
        let stored = stage.engine.deployment(&stage.ws, &deployment.id).await.unwrap();
        assert_eq!(stored.next.map(|tick| tick.fires_at), next);
    }
}

#[tokio::test]
async fn a_clock_that_goes_back_runs_nothing_twice_and_leaves_nothing_out() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOON);
    let stage = stage(folder.path(), &clock).await;
    deploy(&stage, "* * * * *").await;
    clock.set(at(MINUTE));
    stage.engine.run_schedules().await.unwrap();
    // A little back, over the time that was just run.
    clock.set(at(MINUTE - 1_000));
    stage.engine.run_schedules().await.unwrap();
    clock.set(at(MINUTE));
    assert_eq!(stage.engine.run_schedules().await.unwrap(), Some(at(2 * MINUTE)));
    // For a moment it shows a far future.
    clock.set(at(1000 * 24 * HOUR));
    stage.engine.run_schedules().await.unwrap();
    clock.set(at(2 * MINUTE - 1));
    assert_eq!(stage.engine.run_schedules().await.unwrap(), Some(at(2 * MINUTE)));
    clock.set(at(2 * MINUTE));
    stage.engine.run_schedules().await.unwrap();
    assert_eq!(
        times(&stage).await,
        [MINUTE, 1000 * 24 * HOUR, 2 * MINUTE],
        "each once"
    );
}

#[tokio::test]
async fn pausing_is_not_made_up_for_and_manual_runs_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOON);
    let stage = stage(folder.path(), &clock).await;
    let id = deploy(&stage, "* * * * *").await.id;
    let paused = stage.engine.pause_deployment(&stage.ws, &id).await.unwrap();
    assert_eq!((paused.paused, paused.next), (Some(Pause::Manual), None));
    assert!(stage.engine.upcoming_runs(&paused).is_empty());
    clock.set(at(5 * MINUTE));
    assert_eq!(stage.engine.run_schedules().await.unwrap(), None);
    let manual = stage
        .engine
        .run_deployment(&stage.ws, &id, None, None)
        .await
        .unwrap();
    assert_eq!(manual.trigger, Trigger::Manual);
    stage.until(session(&manual), Seq(0), is_idle).await;

    let key = IdempotencyKey {
        key: "k".into(),
        fingerprint: "f".into(),
    };
    let run = || {
        stage
            .engine
            .run_deployment(&stage.ws, &id, None, Some(key.clone()))
    };
    let first = run().await.unwrap();
    assert_eq!(run().await.unwrap(), first);

    let unpaused = stage.engine.unpause_deployment(&stage.ws, &id).await.unwrap();
    assert_eq!(
        (unpaused.paused, unpaused.next.unwrap().scheduled_at),
        (None, at(6 * MINUTE))
    );
    stage.engine.run_schedules().await.unwrap();
    assert_eq!(runs(&stage).await.len(), 2);
}

#[tokio::test]
async fn what_does_not_go_away_pauses_a_deployment() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOON);
    let stage = stage(folder.path(), &clock).await;
    let deployment = deploy(&stage, "* * * * *").await;
    let environment = &deployment.spec.environment;
    stage
        .engine
        .archive_environment(&stage.ws, environment)
        .await
        .unwrap();
    clock.set(at(MINUTE));
    assert_eq!(stage.engine.run_schedules().await.unwrap(), None);
    let failed = runs(&stage).await;
    let kind = ErrorKind::EnvironmentArchived;
    assert!(
        matches!(&failed[0].outcome, Outcome::Failed { kind: found, .. } if *found == kind),
        "{failed:?}"
    );
    let paused = stage.engine.deployment(&stage.ws, &deployment.id).await.unwrap();
    assert_eq!((paused.paused, paused.next), (Some(Pause::Error(kind)), None));
    // Unpausing it runs into the same thing.
    stage
        .engine
        .unpause_deployment(&stage.ws, &deployment.id)
        .await
        .unwrap();
    clock.set(at(2 * MINUTE));
    stage.engine.run_schedules().await.unwrap();
    assert_eq!(runs(&stage).await.len(), 2);
}

#[tokio::test]
async fn an_agent_takes_its_deployments_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOON);
    let stage = stage(folder.path(), &clock).await;
    let deployment = deploy(&stage, "* * * * *").await;
    let (engine, ws, id) = (&stage.engine, &stage.ws, &deployment.id);
    engine.archive_agent(ws, &deployment.spec.agent).await.unwrap();
    let archived = engine.deployment(ws, id).await.unwrap();
    assert!(archived.archived_at.is_some() && archived.next.is_none());
    assert!(matches!(
        engine.run_deployment(ws, id, None, None).await,
        Err(Error::DeploymentArchived)
    ));
    assert!(matches!(
        engine.unpause_deployment(ws, id).await,
        Err(Error::DeploymentArchived)
    ));
    let again = engine
        .create_deployment(ws, deployment.spec, Vec::new(), None, None)
        .await;
    assert!(matches!(again, Err(Error::AgentArchived)), "{again:?}");
    let deleted = deploy(&stage, "* * * * *").await;
    engine.delete_agent(ws, &deleted.spec.agent).await.unwrap();
    assert!(
        engine
            .deployment(ws, &deleted.id)
            .await
            .unwrap()
            .archived_at
            .is_some()
    );
    clock.set(at(MINUTE));
    assert_eq!(engine.run_schedules().await.unwrap(), None);
}

#[tokio::test]
async fn runs_are_spread_by_a_fixed_share() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOON);
    let config = Config {
        schedule_jitter: Duration::from_secs(540),
        ..config(&clock)
    };
    let stage = Stage::over(folder.path(), config).await;
    let mut delays = HashSet::new();
    for _ in 0..20 {
        let created = deploy(&stage, "* * * * *").await;
        let tick = created.next.unwrap();
        let delay = tick.fires_at.millis_since(tick.scheduled_at);
        assert!(delay < 9_000, "15 % of a minute: {delay}");
        delays.insert(delay);
    }
    assert!(delays.len() > 10, "{delays:?}");
    // Whatever the delay, the run says what it was scheduled for.
    clock.set(at(MINUTE + 9_000));
    stage.engine.run_schedules().await.unwrap();
    assert_eq!(times(&stage).await, [MINUTE; 20]);
}

#[tokio::test]
async fn a_time_that_waits_for_its_share_is_not_left_out_after_missed_ones() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOON);
    let config = Config {
        schedule_jitter: Duration::from_secs(540),
        ..config(&clock)
    };
    let stage = Stage::over(folder.path(), config).await;
    let tick = deploy(&stage, "0 * * * *").await.next.unwrap();
    let delay = tick.fires_at.0 - tick.scheduled_at.0;
    // One o'clock is missed; two o'clock has come, and its run is due in a moment.
    clock.set(at(2 * HOUR + delay - 1));
    assert_eq!(
        stage.engine.run_schedules().await.unwrap(),
        Some(at(2 * HOUR + delay))
    );
    assert!(runs(&stage).await.is_empty());
    clock.set(at(2 * HOUR + delay));
    stage.engine.run_schedules().await.unwrap();
    assert_eq!(times(&stage).await, [2 * HOUR]);
}

/// A stop at the moment of a run leaves the whole run or nothing of it.
#[tokio::test]
async fn a_run_that_a_stop_cut_off_goes_on_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOON);
    {
        let stage = stage(folder.path(), &clock).await;
        let mut spec = hello(&stage, Some("* * * * *")).await;
        spec.initial_events = vec![InitialEvent::Message {
            content: vec![ContentBlock::text("wait")],
        }];
        let created = stage
            .engine
            .create_deployment(&stage.ws, spec, Vec::new(), None, None);
        created.await.unwrap();
        clock.set(at(MINUTE));
        stage.engine.run_schedules().await.unwrap();
        stage.engine.stop().await;
    }
    let stage = stage(folder.path(), &clock).await;
    stage.puppet.gate.add_permits(1);
    assert_eq!(stage.engine.recover().await.unwrap(), 1);
    stage.engine.run_schedules().await.unwrap();
    let made = runs(&stage).await;
    assert_eq!(made.len(), 1);
    let log = stage.until(session(&made[0]), Seq(0), is_idle).await;
    assert!(log.iter().any(|event| says(event, "re: wait")));
}
