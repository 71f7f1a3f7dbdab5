//! Webhook endpoints and their outbox.

use std::sync::Arc;

use oma_domain::event::{Body, StopReason, ThreadStatus};
use oma_domain::outcome::Ending;
use oma_domain::usage::Usage;
use oma_domain::vault::Sealed;
use oma_domain::webhook::{Delivery, Disabled, Endpoint, Topic};
use oma_domain::{EventId, OutcomeId, SessionId, Timestamp, WebhookId, WorkspaceId};

use super::fixtures::{NOW, agent, commit, new_session, once};
use crate::webhooks::Fate;
use crate::{Admission, Error, Store, assert_refused};

/// Later than anything here happens.
const LATER: Timestamp = Timestamp(i64::MAX);

fn endpoint(workspace: &WorkspaceId, topics: &[Topic]) -> Endpoint {
    Endpoint {
        id: WebhookId::generate(),
        workspace: workspace.clone(),
        name: "Ёлка".into(),
        description: "d".into(),
        url: "https://a.example/hook".into(),
        topics: topics.to_vec(),
        disabled: None,
        created_at: NOW,
        updated_at: NOW,
        revision: 1,
    }
}

fn sealed() -> Sealed {
    Sealed::new("1.sealed".into())
}

async fn stored(store: &Arc<dyn Store>, workspace: &WorkspaceId, topics: &[Topic]) -> Endpoint {
    let endpoint = endpoint(workspace, topics);
    store
        .create_endpoint(&endpoint, &sealed(), 10, None)
        .await
        .unwrap();
    endpoint
}

async fn waiting(store: &Arc<dyn Store>, endpoint: &Endpoint) -> Vec<Delivery> {
    let due = store.deliveries(&endpoint.workspace, &endpoint.id, LATER, 100);
    due.await.unwrap()
}

/// What was written is read back; each write builds on the one before; nobody else sees it.
pub async fn round_trip(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let mut endpoint = endpoint(&workspace, &[Topic::AgentCreated, Topic::SessionIdled]);
    assert_refused!(store.update_endpoint(&endpoint, None).await, Error::NotFound);
    let key = once("webhook.create", "k");
    store
        .create_endpoint(&endpoint, &sealed(), 1, Some(&key))
        .await
        .unwrap();
    assert_refused!(
        store.create_endpoint(&endpoint, &sealed(), 1, Some(&key)).await,
        Error::AlreadyDone(_)
    );
    assert_refused!(
        store.create_endpoint(&endpoint, &sealed(), 9, None).await,
        Error::Conflict
    );
    let another = self::endpoint(&workspace, &[]);
    assert_refused!(
        store.create_endpoint(&another, &sealed(), 1, None).await,
        Error::TooMany(1)
    );
    let found = store.endpoint(&workspace, &endpoint.id).await.unwrap();
    assert_eq!(found, Some((endpoint.clone(), sealed())));
    endpoint.revision = 2;
    endpoint.disabled = Some(Disabled::Manual);
    let renewed = Sealed::new("1.other".into());
    store.update_endpoint(&endpoint, Some(&renewed)).await.unwrap();
    assert_refused!(store.update_endpoint(&endpoint, None).await, Error::Conflict);
    let found = store.endpoint(&workspace, &endpoint.id).await.unwrap();
    assert_eq!(found, Some((endpoint.clone(), renewed)));
    assert_eq!(store.endpoints(&workspace).await.unwrap(), [endpoint.clone()]);
    let foreign = WorkspaceId::generate();
    assert_eq!(store.endpoint(&foreign, &endpoint.id).await.unwrap(), None);
    assert_eq!(store.endpoints(&foreign).await.unwrap(), []);
    assert!(!store.delete_endpoint(&foreign, &endpoint.id).await.unwrap());
    assert!(store.delete_endpoint(&workspace, &endpoint.id).await.unwrap());
    assert!(!store.delete_endpoint(&workspace, &endpoint.id).await.unwrap());
}

/// Endpoints of the workspace are told what they want to hear, in the transaction of what it is about.
pub async fn told_in_the_same_transaction(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let agents = stored(&store, &workspace, &[Topic::AgentCreated, Topic::AgentArchived]).await;
    let sessions = stored(
        &store,
        &workspace,
        &[Topic::SessionCreated, Topic::SessionDeleted],
    )
    .await;
    let foreign = stored(&store, &WorkspaceId::generate(), Topic::ALL).await;
    let agent = Arc::new(agent(&workspace));
    store.create_agent(&agent, None).await.unwrap();
    // What is refused is not told.
    assert_refused!(store.create_agent(&agent, None).await, Error::Conflict);
    let session = new_session(&workspace, &agent);
    store.create_session(&session, None).await.unwrap();
    store.commit(commit(&workspace, &session.id, 0, 1)).await.unwrap();
    // Those that work for others are not told of.
    let mut child = new_session(&workspace, &agent);
    child.parent = Some(session.id.clone());
    store.create_session(&child, None).await.unwrap();
    store.delete_session(&workspace, &child.id).await.unwrap();
    store.delete_session(&workspace, &session.id).await.unwrap();
    store.archive_agent(&workspace, &agent.id, NOW).await.unwrap();
    store.archive_agent(&workspace, &agent.id, NOW).await.unwrap();
    let told = |deliveries: Vec<Delivery>| -> Vec<(Topic, String)> {
        deliveries
            .into_iter()
            .map(|delivery| (delivery.topic, delivery.resource))
            .collect()
    };
    let (agent, session) = (agent.id.to_string(), session.id.to_string());
    assert_eq!(
        told(waiting(&store, &agents).await),
        [
            (Topic::AgentCreated, agent.clone()),
            (Topic::AgentArchived, agent)
        ]
    );
    assert_eq!(
        told(waiting(&store, &sessions).await),
        [
            (Topic::SessionCreated, session.clone()),
            (Topic::SessionDeleted, session)
        ]
    );
    assert_eq!(told(waiting(&store, &foreign).await), []);
}

/// Notices of threads name them; that a refresh failed is told once for each state of a credential.
pub async fn told_with_more_than_an_id(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let endpoint = stored(&store, &workspace, Topic::ALL).await;
    let agent = Arc::new(agent(&workspace));
    let session = new_session(&workspace, &agent);
    store.create_session(&session, None).await.unwrap();
    let thread = SessionId::generate();
    let bodies = [
        Body::ThreadCreated {
            thread: thread.clone(),
            agent_name: "a".into(),
            run: None,
        },
        status(&thread, ThreadStatus::Running),
        status(
            &thread,
            ThreadStatus::Idle {
                stop_reason: StopReason::EndTurn,
            },
        ),
        status(&thread, ThreadStatus::Terminated),
        Body::OutcomeEvaluationEnd {
            start: None,
            outcome: OutcomeId::of(&EventId::generate()),
            iteration: 0,
            result: Ending::Satisfied,
            explanation: String::new(),
            usage: Usage::default(),
        },
    ];
    let mut change = commit(&workspace, &session.id, 0, 5);
    for (event, body) in change.events.iter_mut().zip(bodies) {
        event.body = Arc::new(body);
    }
    store.commit(change).await.unwrap();
    let found: Vec<_> = waiting(&store, &endpoint).await;
    let told: Vec<_> = found
        .iter()
        .filter(|delivery| delivery.topic != Topic::SessionCreated)
        .map(|delivery| {
            assert_eq!(delivery.resource, session.id.as_str());
            (delivery.topic, delivery.thread.as_ref())
        })
        .collect();
    assert_eq!(
        told,
        [
            (Topic::ThreadCreated, Some(&thread)),
            (Topic::ThreadIdled, Some(&thread)),
            (Topic::ThreadTerminated, Some(&thread)),
            (Topic::OutcomeEvaluationEnded, None),
        ]
    );

    let vault = super::vaults::stored(&store, &workspace, None).await;
    let credential = super::vaults::credential(&vault);
    let id = credential.credential.id.clone();
    let few = Admission {
        most: 1,
        unique: false,
    };
    store.add_credential(&credential, "p", few, None).await.unwrap();
    let failed = async |revision| {
        let failed = store.refresh_failed(&workspace, &vault.id, &id, revision);
        failed.await.unwrap()
    };
    let notices = async || {
        let found = waiting(&store, &endpoint).await.into_iter();
        let about = found.filter(|notice| notice.topic == Topic::CredentialRefreshFailed);
        about
            .map(|notice| (notice.resource, notice.vault))
            .collect::<Vec<_>>()
    };
    // One that stands otherwise by now is somebody else's news.
    assert!(!failed(2).await && notices().await.is_empty());
    assert!(failed(1).await && !failed(1).await);
    let mut next = credential.clone();
    next.revision = 2;
    store.update_credential(&next).await.unwrap();
    assert!(failed(2).await && !failed(2).await && !failed(1).await);
    let one = (id.to_string(), Some(vault.id.to_string()));
    assert_eq!(notices().await, [one.clone(), one]);
    store
        .archive_credential(&workspace, &vault.id, &id, NOW)
        .await
        .unwrap();
    assert!(!failed(3).await);
}

fn status(thread: &SessionId, status: ThreadStatus) -> Body {
    Body::ThreadStatus {
        thread: thread.clone(),
        agent_name: "a".into(),
        status,
    }
}

/// What is settled is gone or waits; what waits is found, and forgotten when it is old.
pub async fn outbox(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let endpoint = stored(&store, &workspace, &[Topic::AgentCreated]).await;
    let outbox = store.outbox();
    for _ in 0..3 {
        store.create_agent(&agent(&workspace), None).await.unwrap();
    }
    // Whoever empties it is told.
    outbox.notified().await;
    let all = waiting(&store, &endpoint).await;
    assert_eq!(all.len(), 3);
    let again = Timestamp(all[0].created_at.0 + 1_000_000_000);
    let fates = [
        (all[0].id.clone(), Fate::Done),
        (all[1].id.clone(), Fate::Again(again)),
    ];
    store.settle_deliveries(&fates).await.unwrap();
    let due = store
        .deliveries(&workspace, &endpoint.id, Timestamp(again.0 - 1), 10)
        .await
        .unwrap();
    assert_eq!(due, [all[2].clone()]);
    let later = waiting(&store, &endpoint).await;
    assert_eq!((later.len(), later[1].attempts), (2, 1));
    let ours = async || {
        let recipients = store.recipients().await.unwrap();
        recipients.into_iter().find(|it| it.endpoint == endpoint.id)
    };
    assert_eq!(ours().await.unwrap().try_at, all[2].created_at);
    store
        .settle_deliveries(&[(all[2].id.clone(), Fate::Done)])
        .await
        .unwrap();
    assert_eq!(ours().await.unwrap().try_at, again);
    // Age counts from when it happened.
    store
        .forget_deliveries(Timestamp(all[1].created_at.0))
        .await
        .unwrap();
    assert!(ours().await.is_some());
    store
        .forget_deliveries(Timestamp(all[1].created_at.0 + 1))
        .await
        .unwrap();
    assert_eq!(ours().await, None);
}

/// An endpoint that is disabled or removed loses what waits, and hears no more.
pub async fn disabled(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let mut by_client = stored(&store, &workspace, &[Topic::AgentCreated]).await;
    let by_server = stored(&store, &workspace, &[Topic::AgentCreated]).await;
    let removed = stored(&store, &workspace, &[Topic::AgentCreated]).await;
    store.create_agent(&agent(&workspace), None).await.unwrap();
    by_client.revision = 2;
    by_client.disabled = Some(Disabled::Manual);
    store.update_endpoint(&by_client, None).await.unwrap();
    let disable =
        |url: &'static str| store.disable_endpoint(&workspace, &by_server.id, url, Disabled::Redirect, NOW);
    // It has another URL by now.
    disable("https://b.example/").await.unwrap();
    assert_eq!(waiting(&store, &by_server).await.len(), 1);
    disable("https://a.example/hook").await.unwrap();
    let (found, _) = store.endpoint(&workspace, &by_server.id).await.unwrap().unwrap();
    assert_eq!((found.disabled, found.revision), (Some(Disabled::Redirect), 2));
    store.delete_endpoint(&workspace, &removed.id).await.unwrap();
    store.create_agent(&agent(&workspace), None).await.unwrap();
    for endpoint in [&by_client, &by_server, &removed] {
        assert_eq!(waiting(&store, endpoint).await, []);
    }
}
