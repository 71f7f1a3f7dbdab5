//! Sessions: creation, lists, deletion.

use std::sync::Arc;

use oma_domain::outcome::{self, Ending, Evaluation};
use oma_domain::page::Order;
use oma_domain::session::{QueueChange, State};
use oma_domain::usage::NanoUsd;
use oma_domain::{Agent, AgentId, Member, Multiagent, OutcomeId, Seq, SessionId, Timestamp, WorkspaceId};

use super::fixtures::{
    NOW, agent, collect, commit, environment, new_session, once, queued, running, stored_session,
};
use crate::{Error, SessionFilter, Span, Standing, Store, assert_refused};

/// What was written is read back, and the key with it.
pub async fn round_trip(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let agent = Arc::new(agent(&workspace));
    let environment = Arc::new(environment(&workspace));
    store.create_environment(&environment, false, None).await.unwrap();
    let mut new = new_session(&workspace, &agent);
    new.environment = Some(Arc::clone(&environment));
    new.parent = Some(SessionId::generate());
    new.ephemeral = true;
    new.budget = Some(NanoUsd(7));
    new.title = Some("Ärger".into());
    new.metadata = [("k".to_owned(), "v".to_owned())].into();
    store
        .create_session(&new, Some(&once("session.create", "k")))
        .await
        .unwrap();
    let session = store.session(&workspace, &new.id).await.unwrap().unwrap();
    assert_eq!((&session.id, &session.workspace), (&new.id, &workspace));
    assert_eq!((&session.agent, &session.environment), (&agent, &new.environment));
    assert_eq!((&session.parent, session.ephemeral), (&new.parent, true));
    assert_eq!(
        (session.created_at, session.head, session.last_event_at),
        (NOW, Seq(0), None)
    );
    let expected = State {
        title: new.title.clone(),
        metadata: new.metadata.clone(),
        budget: new.budget,
        ..State::default()
    };
    assert_eq!(*session.state, expected);
    assert!(
        store
            .done(&workspace, "session.create", "k")
            .await
            .unwrap()
            .is_some()
    );
    assert!(
        store
            .session(&workspace, &SessionId::generate())
            .await
            .unwrap()
            .is_none()
    );
}

/// Those who may work in a session's threads stay with it, whatever becomes of them, in reads and in lists.
pub async fn rosters(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let members = [agent(&workspace), agent(&workspace)].map(Arc::new);
    let mut lead = agent(&workspace);
    let member = |agent: &Arc<Agent>| Member::Agent {
        id: agent.id.clone(),
        version: agent.version,
    };
    lead.spec.multiagent = Some(Multiagent::Coordinator {
        advisor: None,
        agents: members.iter().map(member).collect(),
    });
    let lead = Arc::new(lead);
    let mut new = new_session(&workspace, &lead);
    new.roster = members.to_vec();
    store.create_session(&new, None).await.unwrap();
    // A session that shares a member's definition, and goes.
    let mut thread = new_session(&workspace, &members[0]);
    thread.parent = Some(new.id.clone());
    thread.is_thread = true;
    store.create_session(&thread, None).await.unwrap();
    let stored = store.session(&workspace, &thread.id).await.unwrap().unwrap();
    assert_eq!((stored.is_thread, stored.sandbox()), (true, &new.id));
    assert!(store.delete_session(&workspace, &thread.id).await.unwrap());

    let session = store.session(&workspace, &new.id).await.unwrap().unwrap();
    assert_eq!((&session.roster, session.is_thread), (&new.roster, false));
    assert_eq!(session.sandbox(), &new.id);
    assert_eq!(session.member(&member(&members[1])), Some(&*members[1]));
    let filter = SessionFilter::default();
    let listed = store.sessions(&workspace, &filter, Order::Ascending, None, 10);
    assert_eq!(listed.await.unwrap().rows[0].roster, new.roster);
    assert!(store.delete_session(&workspace, &new.id).await.unwrap());
}

/// An id that a client chose is given once; the refused creation leaves no key behind.
pub async fn creation_conflict(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let agent = Arc::new(agent(&workspace));
    let mut new = new_session(&workspace, &agent);
    new.id = SessionId::parse(&format!("Chat-of_{}", workspace.as_str())).unwrap();
    store.create_session(&new, None).await.unwrap();
    store.commit(commit(&workspace, &new.id, 0, 1)).await.unwrap();
    assert_refused!(
        store
            .create_session(&new, Some(&once("session.create", "k")))
            .await,
        Error::Conflict
    );
    assert_eq!(store.done(&workspace, "session.create", "k").await.unwrap(), None);
    assert_eq!(
        store.session(&workspace, &new.id).await.unwrap().unwrap().head,
        Seq(1)
    );
}

/// An environment that was deleted meanwhile is noticed.
pub async fn missing_environment(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let mut new = new_session(&workspace, &Arc::new(agent(&workspace)));
    new.environment = Some(Arc::new(environment(&workspace)));
    assert_refused!(store.create_session(&new, None).await, Error::NotFound);
    assert!(store.session(&workspace, &new.id).await.unwrap().is_none());
}

/// A session keeps the agent that it was created with, whatever becomes of the agent.
pub async fn pinned_agent(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let first = Arc::new(agent(&workspace));
    store.create_agent(&first, None).await.unwrap();
    let mut second = (*first).clone();
    second.version = 2;
    second.spec.instructions = "changed".into();
    second.updated_at = Timestamp(NOW.0 + 1);
    let (one, two) = (
        new_session(&workspace, &first),
        new_session(&workspace, &Arc::new(second.clone())),
    );
    let other = new_session(&workspace, &first);
    store.create_session(&one, None).await.unwrap();
    store.update_agent(&second).await.unwrap();
    store.create_session(&two, None).await.unwrap();
    store.create_session(&other, None).await.unwrap();
    // The deletion of one of two that pinned the same version leaves the other whole.
    store.delete_session(&workspace, &other.id).await.unwrap();
    for new in [one, two] {
        assert_eq!(
            store.session(&workspace, &new.id).await.unwrap().unwrap().agent,
            new.agent
        );
    }
}

/// An agent that was defined on the fly is kept with its session alone, also where two are defined alike.
pub async fn inline_agents(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let mut defined = agent(&workspace);
    defined.id = AgentId::of_inline();
    let defined = Arc::new(defined);
    let alike = [
        new_session(&workspace, &defined),
        new_session(&workspace, &defined),
    ];
    let mut other = (*defined).clone();
    other.spec.instructions = "Something else.".into();
    let other = new_session(&workspace, &Arc::new(other));
    for new in alike.iter().chain([&other]) {
        store.create_session(new, None).await.unwrap();
    }
    assert!(store.delete_session(&workspace, &alike[0].id).await.unwrap());
    for new in [&alike[1], &other] {
        let found = store.session(&workspace, &new.id).await.unwrap().unwrap();
        assert_eq!(found.agent, new.agent);
    }
    // There is no agent of this id.
    assert!(store.agent(&workspace, &defined.id).await.unwrap().is_none());
}

/// Filters combine, in both orders, at every page size.
pub async fn filters(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let agents = [Arc::new(agent(&workspace)), Arc::new(agent(&workspace))];
    let mut all = Vec::new();
    for number in 0..12 {
        let mut new = new_session(&workspace, &agents[number % 2]);
        new.ephemeral = number % 3 == 0;
        // Ids that clients choose do not sort by time.
        new.id = SessionId::parse(&format!("{}-{}", 99 - number, workspace.as_str())).unwrap();
        store.create_session(&new, None).await.unwrap();
        all.push(new);
    }
    let wanted_agents = [
        None,
        Some(agents[0].id.clone()),
        Some(agents[1].id.clone()),
        Some(AgentId::generate()),
    ];
    for agent in wanted_agents {
        for ephemeral in [None, Some(true), Some(false)] {
            for order in [Order::Ascending, Order::Descending] {
                let filter = SessionFilter {
                    agent: agent.clone(),
                    ephemeral,
                    ..SessionFilter::default()
                };
                let mut expected: Vec<_> = all
                    .iter()
                    .filter(|new| agent.as_ref().is_none_or(|agent| new.agent.id == *agent))
                    .filter(|new| ephemeral.is_none_or(|ephemeral| new.ephemeral == ephemeral))
                    .map(|new| new.id.clone())
                    .collect();
                if order == Order::Descending {
                    expected.reverse();
                }
                for limit in [1, 5, 1000] {
                    let listed = collect(|after: Option<SessionId>| {
                        let (store, workspace, filter) = (&store, &workspace, &filter);
                        async move {
                            store
                                .sessions(workspace, filter, order, after.as_ref(), limit)
                                .await
                        }
                    })
                    .await;
                    let listed: Vec<_> = listed.into_iter().map(|session| session.id).collect();
                    assert_eq!(listed, expected, "{filter:?} {order:?} {limit}");
                }
            }
        }
    }
}

/// A deleted session takes everything with it: another one under the same id starts afresh.
pub async fn deletion(store: Arc<dyn Store>) {
    let (workspace, id) = stored_session(&store).await;
    let mut first = commit(&workspace, &id, 0, 3);
    first.queue = vec![QueueChange::Push(queued("waits"))];
    first.once = Some(once(&format!("session.post:{id}"), "k"));
    let event = first.events[0].id.clone();
    store.commit(first).await.unwrap();
    assert!(store.delete_session(&workspace, &id).await.unwrap());
    assert!(!store.delete_session(&workspace, &id).await.unwrap());
    assert!(store.session(&workspace, &id).await.unwrap().is_none());
    assert_refused!(store.commit(commit(&workspace, &id, 3, 1)).await, Error::NotFound);

    let mut again = new_session(&workspace, &Arc::new(agent(&workspace)));
    again.id = id.clone();
    store.create_session(&again, None).await.unwrap();
    let session = store.session(&workspace, &id).await.unwrap().unwrap();
    assert_eq!((session.head, &*session.state), (Seq(0), &State::default()));
    assert!(
        store
            .events(&workspace, &id, None, Order::Ascending, 10)
            .await
            .unwrap()
            .rows
            .is_empty()
    );
    assert_eq!(store.locate(&workspace, &id, &event).await.unwrap(), None);
    assert_eq!(
        store
            .done(&workspace, &format!("session.post:{id}"), "k")
            .await
            .unwrap(),
        None
    );
}

/// Lists by the agent's version, by the time of creation and by where the sessions stand.
pub async fn finer_filters(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let mut first = agent(&workspace);
    // The first one has no parent, and is that of the others.
    let mut family = None;
    let mut created = |version: u32, at: i64| {
        first.version = version;
        let mut new = new_session(&workspace, &Arc::new(first.clone()));
        new.created_at = Timestamp(NOW.0 + at);
        new.parent = family.clone();
        family.get_or_insert_with(|| new.id.clone());
        new
    };
    let mut ids = Vec::new();
    for (version, at) in [(1, 0), (2, 10), (1, 20)] {
        let new = created(version, at);
        store.create_session(&new, None).await.unwrap();
        ids.push(new.id);
    }
    let put = async |id: &SessionId, state: State| {
        let mut commit = commit(&workspace, id, 0, 1);
        commit.state = Arc::new(state);
        store.commit(commit).await.unwrap();
    };
    put(&ids[0], running()).await;
    put(
        &ids[1],
        State {
            archived_at: Some(NOW),
            ..State::default()
        },
    )
    .await;
    let span = |from: Option<i64>, until: Option<i64>| Span {
        from: from.map(|at| Timestamp(NOW.0 + at)),
        until: until.map(|at| Timestamp(NOW.0 + at)),
    };
    let any = SessionFilter::default;
    let standing = |standing: &[Standing]| SessionFilter {
        standing: standing.to_vec(),
        ..any()
    };
    let within = |from, until| SessionFilter {
        created: span(from, until),
        ..any()
    };
    for (filter, expected) in [
        (any(), &[0, 1, 2][..]),
        (
            SessionFilter {
                agent_version: Some(1),
                ..any()
            },
            &[0, 2],
        ),
        (
            SessionFilter {
                parent: Some(None),
                ..any()
            },
            &[0],
        ),
        (
            SessionFilter {
                parent: Some(Some(ids[0].clone())),
                ..any()
            },
            &[1, 2],
        ),
        (within(Some(10), None), &[1, 2]),
        (within(None, Some(10)), &[0, 1]),
        (within(Some(1), Some(19)), &[1]),
        (standing(&[Standing::Working]), &[0]),
        (standing(&[Standing::Resting]), &[2]),
        (standing(&[Standing::Archived]), &[1]),
        (standing(&[Standing::Resting, Standing::Working]), &[0, 2]),
        (
            SessionFilter {
                agent_version: Some(1),
                created: span(Some(1), None),
                standing: vec![Standing::Resting],
                ..any()
            },
            &[2],
        ),
    ] {
        let page = store
            .sessions(&workspace, &filter, Order::Ascending, None, 10)
            .await;
        let found: Vec<_> = page.unwrap().rows.into_iter().map(|session| session.id).collect();
        let expected: Vec<_> = expected.iter().map(|index: &usize| ids[*index].clone()).collect();
        assert_eq!(found, expected, "{filter:?}");
    }
}

/// A session is given another agent, for itself alone; the one that nothing refers to any more goes.
pub async fn changed_agent(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let before = Arc::new(agent(&workspace));
    let (changed, other) = (new_session(&workspace, &before), new_session(&workspace, &before));
    for new in [&changed, &other] {
        store.create_session(new, None).await.unwrap();
    }
    let mut after = (*before).clone();
    after.spec.tools = vec!["read".into()];
    let after = Arc::new(after);
    let mut change = commit(&workspace, &changed.id, 0, 1);
    change.agent = Some(Arc::clone(&after));
    store.commit(change).await.unwrap();
    for (new, agent) in [(&changed, &after), (&other, &before)] {
        let session = store.session(&workspace, &new.id).await.unwrap().unwrap();
        assert_eq!(&session.agent, agent);
    }
    // Back again: whatever is shared is found again.
    let mut change = commit(&workspace, &changed.id, 1, 1);
    change.agent = Some(Arc::clone(&before));
    store.commit(change).await.unwrap();
    let session = store.load(&workspace, &changed.id).await.unwrap().unwrap();
    assert_eq!(session.agent, before);
}

/// Evaluations stay as they are until a commit brings others.
pub async fn evaluations(store: Arc<dyn Store>) {
    let (workspace, id) = stored_session(&store).await;
    let found = async || {
        let session = store.session(&workspace, &id).await.unwrap().unwrap();
        Arc::clone(&session.state.evaluations)
    };
    assert!(found().await.is_empty());
    let one = |standing| {
        Arc::new(vec![Evaluation {
            outcome: OutcomeId::generate(),
            description: "A report".into(),
            iteration: 1,
            standing,
            explanation: Some("No title".into()),
            completed_at: Some(NOW),
        }])
    };
    for (head, standing) in [
        (0, outcome::Standing::Running),
        (2, outcome::Standing::Ended(Ending::Failed)),
    ] {
        let kept = one(standing);
        let mut change = commit(&workspace, &id, head, 1);
        change.evaluations = Some(Arc::clone(&kept));
        store.commit(change).await.unwrap();
        store.commit(commit(&workspace, &id, head + 1, 1)).await.unwrap();
        assert_eq!(found().await, kept);
    }
}
