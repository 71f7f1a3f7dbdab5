//! What a restarted server asks for. These calls reach over all workspaces, so the cases look for their own
//! rows among those of others.

use std::sync::Arc;

use oma_domain::event::{Failure, FailureKind, StopReason};
use oma_domain::quota::Exceeded;
use oma_domain::session::{Gate, OpenTool, Phase, QueueChange, Run, State, Step};
use oma_domain::{AgentId, EventId, Seq, SessionId, Timestamp, WorkflowRunId, WorkspaceId};

use super::fixtures::{NOW, agent, collect, commit, new_session, queued, stored_session, turn};
use crate::Store;

fn idle(stop: Option<StopReason>) -> Phase {
    Phase::Idle { stop }
}

async fn all_unfinished(store: &Arc<dyn Store>, limit: u32) -> Vec<(WorkspaceId, SessionId)> {
    collect(|after: Option<SessionId>| async move { store.unfinished(after.as_ref(), limit).await }).await
}

/// A session is to be taken up again when its turn goes on or a message waits that nothing holds back.
pub async fn unfinished(store: Arc<dyn Store>) {
    let failed = StopReason::Failed {
        failure: Failure {
            kind: FailureKind::Internal,
            message: "x".into(),
        },
    };
    let budget = StopReason::BudgetReached { cap: Exceeded::Cost };
    let table = [
        ("new", idle(None), false, false),
        ("new with a message", idle(None), true, true),
        ("ended", idle(Some(StopReason::EndTurn)), false, false),
        (
            "ended with a message",
            idle(Some(StopReason::EndTurn)),
            true,
            true,
        ),
        (
            "interrupted with a message",
            idle(Some(StopReason::Interrupted)),
            true,
            true,
        ),
        ("failed with a message", idle(Some(failed)), true, true),
        ("out of budget", idle(Some(budget.clone())), false, false),
        ("out of budget with a message", idle(Some(budget)), true, false),
        ("running", Phase::Running { turn: turn() }, false, true),
        (
            "running with a message",
            Phase::Running { turn: turn() },
            true,
            true,
        ),
        ("blocked", Phase::Blocked { turn: turn() }, false, false),
        (
            "blocked with a message",
            Phase::Blocked { turn: turn() },
            true,
            false,
        ),
    ];
    let mut sessions = Vec::new();
    for (what, phase, message, expected) in table {
        let (workspace, id) = stored_session(&store).await;
        let mut change = commit(&workspace, &id, 0, 1);
        change.state = Arc::new(State {
            phase,
            ..State::default()
        });
        if message {
            change.queue = vec![QueueChange::Push(queued("waits"))];
        }
        store.commit(change).await.unwrap();
        sessions.push((what, workspace, id, expected));
    }
    for limit in [1, 1000] {
        let found = all_unfinished(&store, limit).await;
        for (what, workspace, id, expected) in &sessions {
            let times = found.iter().filter(|(w, i)| (w, i) == (workspace, id)).count();
            assert_eq!(times, usize::from(*expected), "{what}");
        }
        assert!(found.iter().map(|(_, id)| id).is_sorted(), "by id");
    }
    // Once they have ended, none is left.
    for (what, workspace, id, _) in &sessions {
        let mut end = commit(workspace, id, 1, 1);
        end.queue = vec![QueueChange::Clear];
        Arc::make_mut(&mut end.state).phase = idle(Some(StopReason::EndTurn));
        store.commit(end).await.unwrap();
        let found = all_unfinished(&store, 1000).await;
        assert!(!found.iter().any(|(_, found)| found == id), "{what}");
    }
}

/// Ephemeral sessions are given up some time after they became idle, and no others.
pub async fn expired(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let agent = Arc::new(agent(&workspace));
    // Far before the time of the other cases, which may run at the same time.
    let at = |offset: i64| Timestamp(2_000_000 + offset);
    let table = [
        ("new", true, None, 0),
        (
            "ended",
            true,
            Some((10, idle(Some(StopReason::EndTurn)), false)),
            10,
        ),
        (
            "out of budget with a message",
            true,
            Some((
                10,
                idle(Some(StopReason::BudgetReached { cap: Exceeded::Cost })),
                true,
            )),
            10,
        ),
        (
            "running",
            true,
            Some((10, Phase::Running { turn: turn() }, false)),
            i64::MAX,
        ),
        (
            "blocked",
            true,
            Some((10, Phase::Blocked { turn: turn() }, false)),
            i64::MAX,
        ),
        (
            "ended with a message",
            true,
            Some((10, idle(Some(StopReason::EndTurn)), true)),
            i64::MAX,
        ),
        (
            "a lasting one",
            false,
            Some((10, idle(Some(StopReason::EndTurn)), false)),
            i64::MAX,
        ),
        ("a new lasting one", false, None, i64::MAX),
    ];
    let mut sessions = Vec::new();
    for (what, ephemeral, change, since) in table {
        let mut new = new_session(&workspace, &agent);
        new.ephemeral = ephemeral;
        new.created_at = at(0);
        store.create_session(&new, None).await.unwrap();
        if let Some((offset, phase, message)) = change {
            let mut change = commit(&workspace, &new.id, 0, 1);
            change.events[0].at = at(offset);
            change.state = Arc::new(State {
                phase,
                ..State::default()
            });
            if message {
                change.queue = vec![QueueChange::Push(queued("waits"))];
            }
            store.commit(change).await.unwrap();
        }
        sessions.push((what, new.id, since));
    }
    for before in [0, 1, 10, 11] {
        let found = store.expired(at(before), 1000).await.unwrap();
        for (what, id, since) in &sessions {
            let listed = found.contains(&(workspace.clone(), id.clone()));
            assert_eq!(listed, *since < before, "{what} before {before}");
        }
    }
    assert_eq!(store.expired(at(11), 2).await.unwrap().len(), 2);
    // A commit that only changes the state does not make it look younger or older.
    let (_, ended, _) = &sessions[1];
    store.commit(commit(&workspace, ended, 1, 0)).await.unwrap();
    assert!(
        !store
            .expired(at(10), 1000)
            .await
            .unwrap()
            .contains(&(workspace.clone(), ended.clone()))
    );
    assert!(
        store
            .expired(at(11), 1000)
            .await
            .unwrap()
            .contains(&(workspace.clone(), ended.clone()))
    );
    // New work takes it off the list.
    let mut work = commit(&workspace, ended, 1, 1);
    work.events[0].at = NOW;
    store.commit(work).await.unwrap();
    assert!(
        !store
            .expired(at(11), 1000)
            .await
            .unwrap()
            .contains(&(workspace, ended.clone()))
    );
}

/// Those that exist are found, in any workspace.
pub async fn existing(store: Arc<dyn Store>) {
    let (_, one) = stored_session(&store).await;
    let (workspace, gone) = stored_session(&store).await;
    let (_, two) = stored_session(&store).await;
    store.delete_session(&workspace, &gone).await.unwrap();
    let asked = [two.clone(), SessionId::generate(), gone, one.clone()];
    let mut found = store.existing(&asked).await.unwrap();
    found.sort();
    let mut expected = vec![one, two];
    expected.sort();
    assert_eq!(found, expected);
    assert!(store.existing(&[]).await.unwrap().is_empty());
}

/// A session is found by its deadline until that is gone, the earliest first.
pub async fn deadlines(store: Arc<dyn Store>) {
    let mut sessions = Vec::new();
    for offset in [30, 10, 20] {
        let (workspace, id) = stored_session(&store).await;
        let asks_until = Timestamp(NOW.0 + offset);
        let mut waiting = turn();
        waiting.step = Step::Acting {
            open: vec![OpenTool {
                id: EventId::generate(),
                name: "bash".into(),
                input: serde_json::json!({}),
                gate: Gate::Asking,
                asks_until: Some(asks_until),
                remote: false,
                of_server: None,
            }],
        };
        let mut change = commit(&workspace, &id, 0, 1);
        Arc::make_mut(&mut change.state).phase = Phase::Blocked { turn: waiting };
        store.commit(change).await.unwrap();
        sessions.push((workspace, id, asks_until));
    }
    sessions.sort_by_key(|(.., asks_until)| *asks_until);
    let mut found = store.deadlines(1000).await.unwrap();
    found.retain(|row| sessions.contains(row));
    assert_eq!(found, sessions);
    let (workspace, id, _) = &sessions[0];
    let mut end = commit(workspace, id, 1, 1);
    Arc::make_mut(&mut end.state).phase = idle(Some(StopReason::EndTurn));
    store.commit(end).await.unwrap();
    let found = store.deadlines(1000).await.unwrap();
    assert!(!found.contains(&sessions[0]));
    assert!(found.contains(&sessions[1]));
}

/// An agent is known to have open runs as long as one of its sessions has one.
pub async fn open_runs(store: Arc<dyn Store>) {
    let (workspace, id) = stored_session(&store).await;
    let agent = store
        .session(&workspace, &id)
        .await
        .unwrap()
        .unwrap()
        .agent
        .id
        .clone();
    assert!(!store.has_open_run(&workspace, &agent).await.unwrap());
    let tool_use = EventId::generate();
    let mut begin = commit(&workspace, &id, 0, 1);
    let run = Run {
        tool_use: tool_use.clone(),
        since: Seq(0),
        started_at: NOW,
        phases: 0,
        phase: None,
        marks: 0,
        asked: 0,
        begun: 0,
    };
    Arc::make_mut(&mut begin.state)
        .runs
        .insert(WorkflowRunId::of(&tool_use), run);
    store.commit(begin).await.unwrap();
    assert!(store.has_open_run(&workspace, &agent).await.unwrap());
    // Neither somebody else's, nor another agent's.
    let (other, _) = stored_session(&store).await;
    assert_eq!(
        store.has_open_run(&other, &agent).await.unwrap(),
        other == workspace
    );
    assert!(
        !store
            .has_open_run(&workspace, &AgentId::generate())
            .await
            .unwrap()
    );
    store.commit(commit(&workspace, &id, 1, 1)).await.unwrap();
    assert!(!store.has_open_run(&workspace, &agent).await.unwrap());
}
