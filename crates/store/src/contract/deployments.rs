//! Deployments and their runs.

use std::sync::Arc;

use oma_domain::cron::Cron;
use oma_domain::deployment::{ErrorKind, InitialEvent, Outcome, Pause, Run, Schedule, Spec, Tick, Trigger};
use oma_domain::page::Order;
use oma_domain::{
    Agent, Deployment, DeploymentId, EnvironmentId, KeyId, RunId, Seq, Timestamp, VaultId, WorkspaceId,
};

use super::fixtures::{NOW, agent, collect, commit, new_session, once, text};
use crate::{DeploymentFilter, Error, NewRun, RunFilter, SessionFilter, Span, Store, assert_refused};

/// A deployment of an agent.
fn deployment(agent: &Agent) -> Deployment {
    Deployment {
        id: DeploymentId::generate(),
        workspace: agent.workspace.clone(),
        spec: Spec {
            name: "Täglich".into(),
            description: Some("grün".into()),
            agent: agent.id.clone(),
            agent_version: 1,
            environment: EnvironmentId::generate(),
            initial_events: vec![InitialEvent::Message {
                content: vec![text("go")],
            }],
            schedule: Some(Schedule {
                cron: Cron::parse("0 9 * * MON").unwrap(),
                timezone: "Europe/Berlin".into(),
            }),
            vaults: vec![VaultId::generate()],
            resources: Vec::new(),
            budget: None,
            metadata: [("k".to_owned(), "v".to_owned())].into(),
        },
        created_by: Some(KeyId::generate()),
        created_at: NOW,
        updated_at: NOW,
        archived_at: None,
        paused: None,
        next: None,
        last_run_at: None,
        revision: 1,
    }
}

async fn stored_agent(store: &Arc<dyn Store>) -> Arc<Agent> {
    let agent = Arc::new(agent(&WorkspaceId::generate()));
    store.create_agent(&agent, None).await.unwrap();
    agent
}

async fn stored(store: &Arc<dyn Store>) -> (Arc<Agent>, Deployment) {
    let agent = stored_agent(store).await;
    let deployment = deployment(&agent);
    store.create_deployment(&deployment, 10, None).await.unwrap();
    (agent, deployment)
}

fn tick(millis: i64) -> Option<Tick> {
    Some(Tick {
        scheduled_at: Timestamp(NOW.0 + millis),
        fires_at: Timestamp(NOW.0 + millis + 1),
    })
}

/// What was written is read back; an id is given once; each write builds on the one before.
pub async fn round_trip(store: Arc<dyn Store>) {
    let agent = stored_agent(&store).await;
    let mut deployment = deployment(&agent);
    let workspace = &agent.workspace;
    assert_refused!(store.update_deployment(&deployment).await, Error::NotFound);
    let key = once("deployment.create", "k");
    store
        .create_deployment(&deployment, 10, Some(&key))
        .await
        .unwrap();
    assert_refused!(
        store.create_deployment(&deployment, 10, Some(&key)).await,
        Error::AlreadyDone(_)
    );
    assert_refused!(
        store.create_deployment(&deployment, 10, None).await,
        Error::Conflict
    );
    let read = store.deployment(workspace, &deployment.id).await.unwrap();
    assert_eq!(read.as_ref(), Some(&deployment));

    assert_refused!(store.update_deployment(&deployment).await, Error::Conflict);
    deployment.revision = 2;
    deployment.paused = Some(Pause::Error(ErrorKind::VaultNotFound));
    deployment.next = tick(5);
    deployment.last_run_at = Some(NOW);
    deployment.spec.name = "other".into();
    store.update_deployment(&deployment).await.unwrap();
    assert_refused!(store.update_deployment(&deployment).await, Error::Conflict);
    let read = store.deployment(workspace, &deployment.id).await.unwrap();
    assert_eq!(read, Some(deployment));
}

/// There are no more than there may be, archived ones not counted.
pub async fn bound(store: Arc<dyn Store>) {
    let agent = stored_agent(&store).await;
    let (mut first, second) = (deployment(&agent), deployment(&agent));
    store.create_deployment(&first, 1, None).await.unwrap();
    assert_refused!(store.create_deployment(&second, 1, None).await, Error::TooMany(1));
    first.revision = 2;
    first.archived_at = Some(NOW);
    store.update_deployment(&first).await.unwrap();
    store.create_deployment(&second, 1, None).await.unwrap();
}

/// An agent that is archived or goes takes its deployments with it, and gets no more.
pub async fn goes_with_its_agent(store: Arc<dyn Store>) {
    let later = Timestamp(NOW.0 + 7);
    for delete in [false, true] {
        let (agent, mut live) = stored(&store).await;
        let workspace = &agent.workspace;
        live.revision = 2;
        live.next = tick(0);
        store.update_deployment(&live).await.unwrap();
        if delete {
            assert!(store.delete_agent(workspace, &agent.id, later).await.unwrap());
        } else {
            store.archive_agent(workspace, &agent.id, later).await.unwrap();
        }
        let archived = store.deployment(workspace, &live.id).await.unwrap().unwrap();
        assert_eq!(
            (archived.archived_at, archived.next, archived.revision),
            (Some(later), None, 3)
        );
        assert_refused!(
            store.create_deployment(&deployment(&agent), 10, None).await,
            Error::AgentGone
        );
        live.revision = 4;
        assert_refused!(store.update_deployment(&live).await, Error::AgentGone);
    }
}

/// Lists by every filter, in both directions.
pub async fn lists(store: Arc<dyn Store>) {
    let agent = stored_agent(&store).await;
    let mut other = (*agent).clone();
    other.id = oma_domain::AgentId::generate();
    store.create_agent(&other, None).await.unwrap();
    let workspace = &agent.workspace;
    let mut all = Vec::new();
    for number in 0..8_i64 {
        let mut made = deployment(if number % 2 == 0 { &agent } else { &other });
        made.created_at = Timestamp(NOW.0 + number);
        made.paused = (number % 3 == 0).then_some(Pause::Manual);
        made.archived_at = (number == 4).then_some(NOW);
        store.create_deployment(&made, 10, None).await.unwrap();
        all.push(made);
    }
    let span = Span {
        from: Some(Timestamp(NOW.0 + 2)),
        until: Some(Timestamp(NOW.0 + 6)),
    };
    type Test = fn(&Deployment, &Agent) -> bool;
    let cases: [(DeploymentFilter, Test); 4] = [
        (DeploymentFilter::default(), |_, _| true),
        (
            DeploymentFilter {
                agent: Some(agent.id.clone()),
                ..Default::default()
            },
            |deployment, agent| deployment.spec.agent == agent.id,
        ),
        (
            DeploymentFilter {
                paused: Some(false),
                only_active: true,
                ..Default::default()
            },
            |deployment, _| deployment.paused.is_none() && deployment.archived_at.is_none(),
        ),
        (
            DeploymentFilter {
                created: span,
                paused: Some(true),
                ..Default::default()
            },
            |deployment, _| {
                deployment.paused.is_some() && (2..=6).contains(&(deployment.created_at.0 - NOW.0))
            },
        ),
    ];
    for (filter, fits) in cases {
        let mut expected: Vec<Deployment> = all
            .iter()
            .filter(|deployment| fits(deployment, &agent))
            .cloned()
            .collect();
        for order in [Order::Ascending, Order::Descending] {
            for limit in [1, 3, 100] {
                let (store, filter) = (&store, &filter);
                let listed = collect(|after: Option<DeploymentId>| async move {
                    store
                        .deployments(workspace, filter, order, after.as_ref(), limit)
                        .await
                })
                .await;
                assert_eq!(listed, expected, "{filter:?} {order:?} by {limit}");
            }
            expected.reverse();
        }
    }
    let foreign = store
        .deployments(
            &WorkspaceId::generate(),
            &DeploymentFilter::default(),
            Order::Ascending,
            None,
            10,
        )
        .await
        .unwrap();
    assert!(foreign.rows.is_empty());
    assert_refused!(
        store
            .deployments(
                &WorkspaceId::generate(),
                &DeploymentFilter::default(),
                Order::Ascending,
                Some(&all[0].id),
                10
            )
            .await,
        Error::NotFound
    );
}

fn run(deployment: &Deployment, outcome: Outcome) -> Run {
    Run {
        id: RunId::of_tick(&deployment.id, NOW),
        workspace: deployment.workspace.clone(),
        deployment: deployment.id.clone(),
        agent: deployment.spec.agent.clone(),
        agent_version: deployment.spec.agent_version,
        trigger: Trigger::Schedule { scheduled_at: NOW },
        outcome,
        created_at: NOW,
    }
}

/// A run is there with its session and that one's beginning, or not at all, and once.
pub async fn runs_are_whole(store: Arc<dyn Store>) {
    let (agent, deployment) = stored(&store).await;
    let workspace = &agent.workspace;
    let mut session = new_session(workspace, &agent);
    session.deployment = Some(deployment.id.clone());
    let mut new = NewRun {
        run: run(&deployment, Outcome::Session(session.id.clone())),
        deployment: Deployment {
            revision: 2,
            next: tick(60_000),
            last_run_at: Some(NOW),
            ..deployment.clone()
        },
        opened: Some((session.clone(), commit(workspace, &session.id, 0, 2))),
    };
    let untouched = async || {
        assert!(store.session(workspace, &session.id).await.unwrap().is_none());
        let found = store.deployment_run(workspace, &new.run.id).await.unwrap();
        assert_eq!(found, None);
        let stored = store.deployment(workspace, &deployment.id).await.unwrap();
        assert_eq!(stored.as_ref(), Some(&deployment));
    };
    // A beginning that does not fit, a vault that is gone, a deployment that was changed: nothing is left of the run.
    let mut bad = new.clone();
    bad.opened = Some((session.clone(), commit(workspace, &session.id, 1, 2)));
    assert_refused!(store.record_run(&bad, None).await, Error::Conflict);
    untouched().await;
    let mut bad = new.clone();
    let mut vaulted = session.clone();
    vaulted.vaults = vec![VaultId::generate()];
    bad.opened = Some((vaulted, commit(workspace, &session.id, 0, 2)));
    assert_refused!(store.record_run(&bad, None).await, Error::VaultGone);
    untouched().await;
    let mut bad = new.clone();
    bad.deployment.revision = 3;
    assert_refused!(store.record_run(&bad, None).await, Error::Conflict);
    untouched().await;

    let key = once("deployment.run", "k");
    store.record_run(&new, Some(&key)).await.unwrap();
    assert_refused!(store.record_run(&new, Some(&key)).await, Error::AlreadyDone(_));
    new.deployment.revision = 3;
    // The same time of the schedule again.
    assert_refused!(store.record_run(&new, None).await, Error::Conflict);
    let found = store.deployment_run(workspace, &new.run.id).await.unwrap();
    assert_eq!(found.as_ref(), Some(&new.run));
    let opened = store.session(workspace, &session.id).await.unwrap().unwrap();
    assert_eq!(
        (opened.head, opened.deployment.as_ref()),
        (Seq(2), Some(&deployment.id))
    );
    for (filter, count) in [
        (Some(deployment.id.clone()), 1),
        (Some(DeploymentId::generate()), 0),
    ] {
        let filter = SessionFilter {
            deployment: filter,
            ..SessionFilter::default()
        };
        let page = store.sessions(workspace, &filter, Order::Ascending, None, 10);
        assert_eq!(page.await.unwrap().rows.len(), count);
    }
    let stored = store
        .deployment(workspace, &deployment.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((stored.next, stored.last_run_at), (tick(60_000), Some(NOW)));
    let foreign = WorkspaceId::generate();
    assert_eq!(store.deployment_run(&foreign, &new.run.id).await.unwrap(), None);
    assert_eq!(store.deployment(&foreign, &deployment.id).await.unwrap(), None);
}

/// Lists of runs by every filter.
pub async fn lists_of_runs(store: Arc<dyn Store>) {
    let (agent, mut deployment) = stored(&store).await;
    let workspace = &agent.workspace;
    let mut all = Vec::new();
    for number in 0..6_i64 {
        deployment.revision += 1;
        let mut made = run(
            &deployment,
            Outcome::Failed {
                kind: ErrorKind::SessionRateLimited,
                message: "später".into(),
            },
        );
        made.id = RunId::generate();
        made.created_at = Timestamp(NOW.0 + number);
        if number % 2 == 0 {
            made.trigger = Trigger::Manual;
        }
        let mut opened = None;
        if number % 3 == 0 {
            let session = new_session(workspace, &agent);
            made.outcome = Outcome::Session(session.id.clone());
            opened = Some((session.clone(), commit(workspace, &session.id, 0, 1)));
        }
        let new = NewRun {
            run: made.clone(),
            deployment: deployment.clone(),
            opened,
        };
        store.record_run(&new, None).await.unwrap();
        all.push(made);
    }
    type Test = fn(&Run) -> bool;
    let cases: [(RunFilter, Test); 4] = [
        (RunFilter::default(), |_| true),
        (
            RunFilter {
                deployment: Some(deployment.id.clone()),
                failed: Some(true),
                ..Default::default()
            },
            |run| matches!(run.outcome, Outcome::Failed { .. }),
        ),
        (
            RunFilter {
                scheduled: Some(false),
                failed: Some(false),
                ..Default::default()
            },
            |run| run.trigger == Trigger::Manual && matches!(run.outcome, Outcome::Session(_)),
        ),
        (
            RunFilter {
                scheduled: Some(true),
                created: Span {
                    from: Some(Timestamp(NOW.0 + 2)),
                    until: None,
                },
                ..Default::default()
            },
            |run| run.trigger != Trigger::Manual && run.created_at.0 >= NOW.0 + 2,
        ),
    ];
    for (filter, fits) in cases {
        let mut expected: Vec<Run> = all.iter().filter(|run| fits(run)).cloned().collect();
        for order in [Order::Ascending, Order::Descending] {
            for limit in [1, 2, 100] {
                let (store, filter) = (&store, &filter);
                let listed = collect(|after: Option<RunId>| async move {
                    store
                        .deployment_runs(workspace, filter, order, after.as_ref(), limit)
                        .await
                })
                .await;
                assert_eq!(listed, expected, "{filter:?} {order:?} by {limit}");
            }
            expected.reverse();
        }
    }
    let none = RunFilter {
        deployment: Some(DeploymentId::generate()),
        ..Default::default()
    };
    let page = store.deployment_runs(workspace, &none, Order::Ascending, None, 10);
    assert!(page.await.unwrap().rows.is_empty());
}

/// Whoever runs by itself is found, the earliest first, in whichever workspace.
pub async fn due(store: Arc<dyn Store>) {
    let mut expected = Vec::new();
    for millis in [30, 10, 20] {
        let (_, mut deployment) = stored(&store).await;
        deployment.revision = 2;
        deployment.next = tick(millis);
        store.update_deployment(&deployment).await.unwrap();
        expected.push((millis, deployment));
    }
    let (_, resting) = stored(&store).await;
    expected.sort_by_key(|(millis, _)| *millis);
    let ours = |id: &DeploymentId| expected.iter().any(|(_, deployment)| deployment.id == *id);
    // Other cases may have some in the same store.
    let mut found = store.due_deployments(1000).await.unwrap();
    assert!(found.iter().all(|due| due.deployment != resting.id));
    found.retain(|due| ours(&due.deployment));
    let ids: Vec<_> = found.iter().map(|due| due.deployment.clone()).collect();
    let wanted: Vec<_> = expected
        .iter()
        .map(|(_, deployment)| deployment.id.clone())
        .collect();
    assert_eq!(ids, wanted);
    assert_eq!(found[0].fires_at, Timestamp(NOW.0 + 11));
    let store = &store;
    let mut paged =
        collect(
            |after: Option<DeploymentId>| async move { store.scheduled_deployments(after.as_ref(), 1).await },
        )
        .await;
    paged.retain(|due| ours(&due.deployment));
    paged.sort_by_key(|due| due.fires_at);
    assert_eq!(paged, found);
}
