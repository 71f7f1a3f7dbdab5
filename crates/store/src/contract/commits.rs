//! Commits.

use std::sync::Arc;

use oma_domain::page::Order;
use oma_domain::session::{QueueChange, State};
use oma_domain::{AgentId, Event, Seq, SessionId, WorkspaceId};

use super::fixtures::{NOW, commit, event, once, queued, running, stored_session};
use crate::{Commit, Error, Store, assert_refused};

async fn log(store: &Arc<dyn Store>, workspace: &WorkspaceId, session: &SessionId) -> Vec<Event> {
    store
        .events(workspace, session, None, Order::Ascending, 1000)
        .await
        .unwrap()
        .rows
}

/// Events, queue and state are there together.
pub async fn appends(store: Arc<dyn Store>) {
    let (workspace, id) = stored_session(&store).await;
    let mut first = commit(&workspace, &id, 0, 3);
    first.state = Arc::new(running());
    first.output = first.state.output.clone();
    first.queue = vec![QueueChange::Push(queued("waits"))];
    let second = commit(&workspace, &id, 3, 1);
    let all: Vec<_> = first.events.iter().chain(&second.events).cloned().collect();
    let at_first = first.state.clone();
    store.commit(first).await.unwrap();
    let session = store.session(&workspace, &id).await.unwrap().unwrap();
    assert_eq!((session.head, session.last_event_at), (Seq(3), Some(all[2].at)));
    assert_eq!(session.state, at_first, "without its queue");
    let loaded = store.load(&workspace, &id).await.unwrap().unwrap();
    assert_eq!(loaded.state.queue.len(), 1);
    let mut rest = State::clone(&loaded.state);
    rest.queue.clear();
    assert_eq!(rest, *at_first);
    store.commit(second).await.unwrap();
    let session = store.session(&workspace, &id).await.unwrap().unwrap();
    assert_eq!((session.head, session.last_event_at), (Seq(4), Some(all[3].at)));
    assert_eq!(log(&store, &workspace, &id).await, all);
}

/// A commit without events changes the state and leaves the head.
pub async fn state_only(store: Arc<dyn Store>) {
    let (workspace, id) = stored_session(&store).await;
    store.commit(commit(&workspace, &id, 0, 2)).await.unwrap();
    let last = store
        .session(&workspace, &id)
        .await
        .unwrap()
        .unwrap()
        .last_event_at;
    let mut change = commit(&workspace, &id, 2, 0);
    Arc::make_mut(&mut change.state).model = Some("scripted/other".into());
    store.commit(change.clone()).await.unwrap();
    let session = store.session(&workspace, &id).await.unwrap().unwrap();
    assert_eq!((session.head, session.last_event_at), (Seq(2), last));
    assert_eq!(session.state, change.state);
    change.expected_head = Seq(1);
    assert_refused!(store.commit(change).await, Error::Conflict);
}

/// A commit that does not build on the head is refused and changes nothing.
pub async fn stale_head(store: Arc<dyn Store>) {
    let (workspace, id) = stored_session(&store).await;
    store.commit(commit(&workspace, &id, 0, 2)).await.unwrap();
    let before = log(&store, &workspace, &id).await;
    for head in [0, 1, 3, 1000] {
        assert_refused!(
            store.commit(commit(&workspace, &id, head, 1)).await,
            Error::Conflict
        );
    }
    assert_eq!(log(&store, &workspace, &id).await, before);
}

/// There is no log without a session.
pub async fn missing_session(store: Arc<dyn Store>) {
    let (workspace, id) = (WorkspaceId::generate(), SessionId::generate());
    assert_refused!(store.commit(commit(&workspace, &id, 0, 1)).await, Error::NotFound);
    assert!(log(&store, &workspace, &id).await.is_empty());
}

/// Events must follow the head without gaps and belong to the session.
pub async fn wrong_positions(store: Arc<dyn Store>) {
    let (workspace, id) = stored_session(&store).await;
    let stranger = SessionId::generate();
    let lists: [(&str, Vec<Event>); 5] = [
        ("from 0", vec![event(&id, 0)]),
        ("beginning with a gap", vec![event(&id, 2)]),
        ("with a gap", vec![event(&id, 1), event(&id, 3)]),
        ("twice the same", vec![event(&id, 1), event(&id, 1)]),
        ("of another session", vec![event(&id, 1), event(&stranger, 2)]),
    ];
    for (what, events) in lists {
        let result = store
            .commit(Commit {
                events,
                ..commit(&workspace, &id, 0, 0)
            })
            .await;
        assert!(matches!(result, Err(Error::Internal(_))), "{what}: {result:?}");
    }
    assert!(log(&store, &workspace, &id).await.is_empty());
}

/// An event's id occurs once in a log.
pub async fn repeated_event_id(store: Arc<dyn Store>) {
    let (workspace, id) = stored_session(&store).await;
    let first = commit(&workspace, &id, 0, 1);
    let mut second = commit(&workspace, &id, 1, 2);
    second.events[1].id = first.events[0].id.clone();
    store.commit(first.clone()).await.unwrap();
    assert_refused!(store.commit(second).await, Error::Internal(_));
    assert_eq!(log(&store, &workspace, &id).await, first.events);
    assert_eq!(
        store.session(&workspace, &id).await.unwrap().unwrap().head,
        Seq(1)
    );
}

/// A refused commit leaves no part of itself: no event, no message, no state, no key.
pub async fn atomicity(store: Arc<dyn Store>) {
    let (workspace, id) = stored_session(&store).await;
    let scope = format!("session.post:{id}");
    let mut first = commit(&workspace, &id, 0, 1);
    first.once = Some(once(&scope, "taken"));
    store.commit(first).await.unwrap();
    let before = store.session(&workspace, &id).await.unwrap().unwrap();

    let attempt = |head, key: &str| {
        let mut attempt = commit(&workspace, &id, head, 2);
        attempt.queue = vec![QueueChange::Push(queued("never"))];
        attempt.state = Arc::new(running());
        attempt.once = Some(once(&scope, key));
        attempt
    };
    assert_refused!(store.commit(attempt(0, "fresh")).await, Error::Conflict);
    assert_refused!(store.commit(attempt(1, "taken")).await, Error::AlreadyDone(_));
    // A repeated call learns that it was done even though the log has gone on.
    assert_refused!(store.commit(attempt(0, "taken")).await, Error::AlreadyDone(_));
    // This one fails at its last queue change, with everything else written.
    let mut late = attempt(1, "fresh");
    late.queue.push(QueueChange::Pop(queued("absent").id.clone()));
    assert_refused!(store.commit(late).await, Error::Internal(_));

    let after = store.session(&workspace, &id).await.unwrap().unwrap();
    assert_eq!(
        (after.head, after.last_event_at, after.state),
        (before.head, before.last_event_at, before.state)
    );
    assert_eq!(log(&store, &workspace, &id).await.len(), 1);
    assert_eq!(store.done(&workspace, &scope, "fresh").await.unwrap(), None);
}

/// A commit that needs an agent is refused once that agent is gone, and so is one that needs another
/// workspace's; a repeated one is told apart from those.
pub async fn needed_agent(store: Arc<dyn Store>) {
    let (workspace, id) = stored_session(&store).await;
    let agent = store.session(&workspace, &id).await.unwrap().unwrap().agent;
    store.create_agent(&agent, None).await.unwrap();
    let needing = |head: u64, agent: &AgentId| Commit {
        needs_agent: Some(agent.clone()),
        ..commit(&workspace, &id, head, 1)
    };
    store.commit(needing(0, &agent.id)).await.unwrap();
    let (theirs, other) = stored_session(&store).await;
    let foreign = store.session(&theirs, &other).await.unwrap().unwrap().agent;
    store.create_agent(&foreign, None).await.unwrap();
    assert_refused!(store.commit(needing(1, &foreign.id)).await, Error::AgentGone);
    let mut known = needing(1, &agent.id);
    known.once = Some(once(&format!("session.post:{id}"), "k"));
    store.commit(known.clone()).await.unwrap();
    assert!(store.delete_agent(&workspace, &agent.id, NOW).await.unwrap());
    assert_refused!(store.commit(needing(2, &agent.id)).await, Error::AgentGone);
    assert_refused!(store.commit(known).await, Error::AlreadyDone(_));
    assert_eq!(log(&store, &workspace, &id).await.len(), 2);
}
