//! Random sequences of commits, against a model in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use oma_domain::event::StopReason;
use oma_domain::page::Order;
use oma_domain::session::{Phase, QueueChange, Queued, State};
use oma_domain::{Event, EventId, Seq, SessionId, WorkspaceId};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tokio::runtime::Handle;

use super::fixtures::{agent, event, new_session, once, queued, turn};
use crate::{Commit, Error, NewSession, Store};

const SESSIONS: usize = 2;

#[derive(Debug, Clone)]
enum Step {
    Commit {
        session: usize,
        stale: i64,
        events: u64,
        queue: Vec<Change>,
        key: Option<u8>,
        phase: u8,
    },
    Recreate {
        session: usize,
    },
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Push,
    Pop,
    PopWrong,
    Clear,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = prop_oneof![
        6 => Just(Change::Push),
        4 => Just(Change::Pop),
        1 => Just(Change::PopWrong),
        1 => Just(Change::Clear),
    ];
    let stale = prop_oneof![8 => Just(0_i64), 1 => Just(-1), 1 => Just(1)];
    let commit = (
        0..SESSIONS,
        stale,
        0..4_u64,
        prop::collection::vec(change, 0..4),
        prop::option::weighted(0.3, 0..6_u8),
        0..4_u8,
    )
        .prop_map(|(session, stale, events, queue, key, phase)| Step::Commit {
            session,
            stale,
            events,
            queue,
            key,
            phase,
        });
    prop::collection::vec(
        prop_oneof![20 => commit, 1 => (0..SESSIONS).prop_map(|session| Step::Recreate { session })],
        1..40,
    )
}

/// What a session should be.
#[derive(Default)]
struct Expected {
    log: Vec<Event>,
    queue: VecDeque<Arc<Queued>>,
    state: Arc<State>,
    keys: HashMap<u8, serde_json::Value>,
}

/// Whatever is committed in whatever order, the store and the model agree.
pub async fn random_commits(store: Arc<dyn Store>) {
    let handle = Handle::current();
    let outcome = tokio::task::spawn_blocking(move || {
        let config = Config {
            cases: 48,
            failure_persistence: None,
            ..Config::default()
        };
        TestRunner::new(config).run(&steps(), |steps| handle.block_on(play(&store, steps)))
    });
    if let Err(error) = outcome.await.unwrap() {
        assert_eq!(Some(error.to_string()), None);
    }
}

async fn play(store: &Arc<dyn Store>, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let workspace = WorkspaceId::generate();
    let agent = Arc::new(agent(&workspace));
    let sessions: Vec<NewSession> = (0..SESSIONS).map(|_| new_session(&workspace, &agent)).collect();
    let mut expected: Vec<Expected> = Vec::new();
    for session in &sessions {
        store.create_session(session, None).await.unwrap();
        expected.push(Expected::default());
    }
    for step in steps {
        match step {
            Step::Recreate { session } => {
                prop_assert!(
                    store
                        .delete_session(&workspace, &sessions[session].id)
                        .await
                        .unwrap()
                );
                store.create_session(&sessions[session], None).await.unwrap();
                expected[session] = Expected::default();
            }
            Step::Commit {
                session,
                stale,
                events,
                queue,
                key,
                phase,
            } => {
                let model = &mut expected[session];
                let (commit, after) = compose(
                    &workspace,
                    &sessions[session].id,
                    model,
                    stale,
                    events,
                    &queue,
                    key,
                    phase,
                );
                let known = key.and_then(|key| model.keys.get(&key)).cloned();
                let outcome = store.commit(commit.clone()).await;
                let head = Seq(model.log.len() as u64);
                match (known, outcome) {
                    (Some(receipt), Err(Error::AlreadyDone(record))) => {
                        prop_assert_eq!(record.receipt, receipt)
                    }
                    (None, Err(Error::Conflict)) => prop_assert_ne!(commit.expected_head, head),
                    (None, Err(Error::Internal(_))) => {
                        prop_assert!(
                            commit.expected_head == head && after.is_none(),
                            "refused: {:?}",
                            commit
                        );
                    }
                    (None, Ok(())) => {
                        prop_assert!(
                            commit.expected_head == head && after.is_some(),
                            "accepted: {:?}",
                            commit
                        );
                        model.queue = after.unwrap_or_default();
                        model.log.extend(commit.events);
                        model.state = commit.state;
                        if let Some(once) = commit.once {
                            model.keys.insert(key.unwrap_or_default(), once.receipt);
                        }
                    }
                    (known, outcome) => prop_assert!(false, "known {known:?}, outcome {outcome:?}"),
                }
            }
        }
        for (session, model) in sessions.iter().zip(&expected) {
            compare(store, &workspace, &session.id, model).await?;
        }
    }
    Ok(())
}

/// A commit, and the queue after it unless its changes are illegal.
#[expect(clippy::too_many_arguments, reason = "the parts of one step")]
fn compose(
    workspace: &WorkspaceId,
    session: &SessionId,
    model: &Expected,
    stale: i64,
    events: u64,
    changes: &[Change],
    key: Option<u8>,
    phase: u8,
) -> (Commit, Option<VecDeque<Arc<Queued>>>) {
    let head = (model.log.len() as u64).saturating_add_signed(stale);
    let mut queue = Some(model.queue.clone());
    let mut queue_changes = Vec::new();
    for change in changes {
        queue_changes.push(match change {
            Change::Push => {
                let message = queued("waits");
                if let Some(queue) = &mut queue {
                    queue.push_back(Arc::clone(&message));
                }
                QueueChange::Push(message)
            }
            Change::Pop => match queue.as_mut().and_then(VecDeque::pop_front) {
                Some(message) => QueueChange::Pop(message.id.clone()),
                None => {
                    queue = None;
                    QueueChange::Pop(EventId::generate())
                }
            },
            Change::PopWrong => {
                queue = None;
                QueueChange::Pop(EventId::generate())
            }
            Change::Clear => {
                if let Some(queue) = &mut queue {
                    queue.clear();
                }
                QueueChange::Clear
            }
        });
    }
    let phase = match phase {
        0 => Phase::Idle { stop: None },
        1 => Phase::Idle {
            stop: Some(StopReason::EndTurn),
        },
        2 => Phase::Running { turn: turn() },
        _ => Phase::Blocked { turn: turn() },
    };
    // What was said last stays until something else is said.
    let says = (events > 0).then(|| Arc::from(format!("at {head}")));
    let output = says.clone().or_else(|| model.state.output.clone());
    let commit = Commit {
        workspace: workspace.clone(),
        session: session.clone(),
        expected_head: Seq(head),
        events: (head + 1..=head + events)
            .map(|seq| event(session, seq))
            .collect(),
        queue: queue_changes,
        output: says,
        evaluations: None,
        agent: None,
        needs_agent: None,
        used: None,
        audit: None,
        state: Arc::new(State {
            phase,
            turns: head,
            output,
            ..State::default()
        }),
        once: key.map(|key| once(&format!("session.post:{session}"), &key.to_string())),
    };
    (commit, queue)
}

async fn compare(
    store: &Arc<dyn Store>,
    workspace: &WorkspaceId,
    id: &SessionId,
    model: &Expected,
) -> Result<(), TestCaseError> {
    let session = store.load(workspace, id).await.unwrap().unwrap();
    prop_assert_eq!(session.head, Seq(model.log.len() as u64));
    prop_assert_eq!(session.last_event_at, model.log.last().map(|event| event.at));
    prop_assert_eq!(&session.state.queue, &model.queue);
    let mut stored = State::clone(&session.state);
    stored.queue.clear();
    prop_assert_eq!(&stored, &*model.state);
    let log = store
        .events(workspace, id, None, Order::Ascending, 1000)
        .await
        .unwrap();
    prop_assert_eq!(&log.rows, &model.log);
    let unfinished = match model.state.phase {
        Phase::Running { .. } => true,
        Phase::Blocked { .. } => false,
        Phase::Idle { .. } => !model.queue.is_empty(),
    };
    let found = store.unfinished(None, 1000).await.unwrap().rows;
    prop_assert_eq!(found.contains(&(workspace.clone(), id.clone())), unfinished);
    Ok(())
}
