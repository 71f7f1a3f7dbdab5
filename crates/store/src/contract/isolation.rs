//! Workspaces: nothing of one is visible from, or can be changed from, another.

use std::sync::Arc;

use oma_domain::page::Order;
use oma_domain::{Seq, SessionId, WorkspaceId};

use super::fixtures::{NOW, agent, commit, environment, new_session, once};
use crate::{Error, ListFilter, NewSession, SessionFilter, Store, assert_refused};

struct Belongings {
    workspace: WorkspaceId,
    agent: Arc<oma_domain::Agent>,
    environment: oma_domain::Environment,
    session: NewSession,
    events: Vec<oma_domain::Event>,
}

async fn furnish(store: &Arc<dyn Store>) -> Belongings {
    let workspace = WorkspaceId::generate();
    let agent = Arc::new(agent(&workspace));
    let environment = environment(&workspace);
    let session = new_session(&workspace, &agent);
    store
        .create_agent(&agent, Some(&once("agent.create", "k")))
        .await
        .unwrap();
    store.create_environment(&environment, false, None).await.unwrap();
    store.create_session(&session, None).await.unwrap();
    let log = commit(&workspace, &session.id, 0, 3);
    let events = log.events.clone();
    store.commit(log).await.unwrap();
    Belongings {
        workspace,
        agent,
        environment,
        session,
        events,
    }
}

/// Reads from a foreign workspace find nothing, by id or by list.
pub async fn nothing_is_visible(store: Arc<dyn Store>) {
    let theirs = furnish(&store).await;
    let ours = WorkspaceId::generate();
    let (agent, session) = (&theirs.agent.id, &theirs.session.id);
    assert_eq!(store.agent(&ours, agent).await.unwrap(), None);
    assert!(
        store
            .agents(&ours, &ListFilter::default(), Order::Ascending, None, 10)
            .await
            .unwrap()
            .rows
            .is_empty()
    );
    assert!(
        store
            .agent_versions(&ours, agent, Order::Ascending, None, 10)
            .await
            .unwrap()
            .rows
            .is_empty()
    );
    assert_eq!(
        store.environment(&ours, &theirs.environment.id).await.unwrap(),
        None
    );
    assert!(
        store
            .environments(&ours, &ListFilter::default(), Order::Ascending, None, 10)
            .await
            .unwrap()
            .rows
            .is_empty()
    );
    assert!(store.session(&ours, session).await.unwrap().is_none());
    for filter in [
        SessionFilter::default(),
        SessionFilter {
            agent: Some(agent.clone()),
            ephemeral: None,
            ..SessionFilter::default()
        },
        SessionFilter {
            agent: Some(agent.clone()),
            ephemeral: Some(false),
            ..SessionFilter::default()
        },
    ] {
        for order in [Order::Ascending, Order::Descending] {
            assert!(
                store
                    .sessions(&ours, &filter, order, None, 10)
                    .await
                    .unwrap()
                    .rows
                    .is_empty()
            );
            assert!(
                store
                    .events(&ours, session, None, order, 10)
                    .await
                    .unwrap()
                    .rows
                    .is_empty()
            );
        }
    }
    assert_eq!(
        store.locate(&ours, session, &theirs.events[0].id).await.unwrap(),
        None
    );
    assert_eq!(store.done(&ours, "agent.create", "k").await.unwrap(), None);
    // Even a foreign cursor is unknown.
    let all = SessionFilter::default();
    assert_refused!(
        store
            .agents(&ours, &ListFilter::default(), Order::Ascending, Some(agent), 10)
            .await,
        Error::NotFound
    );
    assert_refused!(
        store
            .environments(
                &ours,
                &ListFilter::default(),
                Order::Ascending,
                Some(&theirs.environment.id),
                10
            )
            .await,
        Error::NotFound
    );
    assert_refused!(
        store
            .sessions(&ours, &all, Order::Ascending, Some(session), 10)
            .await,
        Error::NotFound
    );
}

/// Writes from a foreign workspace change nothing.
pub async fn nothing_is_touched(store: Arc<dyn Store>) {
    let theirs = furnish(&store).await;
    let ours = furnish(&store).await;
    let (agent, session) = (&theirs.agent.id, &theirs.session.id);

    let mut forged = (*theirs.agent).clone();
    forged.workspace = ours.workspace.clone();
    forged.version = 2;
    assert_refused!(store.update_agent(&forged).await, Error::NotFound);
    assert_refused!(
        store.archive_agent(&ours.workspace, agent, NOW).await,
        Error::NotFound
    );
    assert!(!store.delete_agent(&ours.workspace, agent, NOW).await.unwrap());
    assert!(
        !store
            .delete_environment(&ours.workspace, &theirs.environment.id)
            .await
            .unwrap()
    );
    assert!(!store.delete_session(&ours.workspace, session).await.unwrap());
    assert_refused!(
        store.commit(commit(&ours.workspace, session, 3, 1)).await,
        Error::NotFound
    );
    let mut guest = new_session(&ours.workspace, &ours.agent);
    guest.environment = Some(Arc::new(theirs.environment.clone()));
    assert_refused!(store.create_session(&guest, None).await, Error::NotFound);
    // Sandboxes go by the session's id alone, so an id is never given to a second workspace.
    let mut double = new_session(&ours.workspace, &ours.agent);
    double.id = session.clone();
    assert_refused!(store.create_session(&double, None).await, Error::Conflict);
    assert!(
        store
            .session(&ours.workspace, &double.id)
            .await
            .unwrap()
            .is_none()
    );

    // The same key, scope and even session id in a deletion of ours leaves theirs alone.
    assert!(
        !store
            .delete_session(&ours.workspace, &SessionId::generate())
            .await
            .unwrap()
    );
    assert!(
        store
            .delete_session(&ours.workspace, &ours.session.id)
            .await
            .unwrap()
    );
    let workspace = &theirs.workspace;
    assert_eq!(
        store.agent(workspace, agent).await.unwrap().as_ref(),
        Some(&*theirs.agent)
    );
    assert!(
        store
            .environment(workspace, &theirs.environment.id)
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(
        store.session(workspace, session).await.unwrap().unwrap().head,
        Seq(3)
    );
    assert_eq!(
        store
            .events(workspace, session, None, Order::Ascending, 10)
            .await
            .unwrap()
            .rows,
        theirs.events
    );
    assert!(
        store
            .done(workspace, "agent.create", "k")
            .await
            .unwrap()
            .is_some()
    );
}
