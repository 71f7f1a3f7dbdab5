//! Posting, queueing, cancelling, confirming, deleting; bounds and idempotency.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use oma_domain::event::{Body, StopReason};
use oma_domain::quota::Quota;
use oma_domain::session::Rejection;
use oma_domain::{AgentId, Event, Seq, SessionId, WorkspaceId};
use oma_engine::{Config, CreateSession, Error, Frame, IdempotencyKey, Post};
use oma_runtime::Delta;

use crate::puppet::{Stage, is_idle, kinds, message, says, spec};

async fn stage() -> (Stage, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Stage::over(folder.path(), Config::default()).await, folder)
}

#[tokio::test]
async fn a_turn_from_post_to_idle() {
    let (stage, _folder) = stage().await;
    let session = stage.session().await;
    let posted = stage.post(&session, "hello").await;
    assert!(!posted.queued);
    let log = stage.until(&session, Seq(0), is_idle).await;
    assert_eq!(
        kinds(&log),
        [
            "session.status_running",
            "user.message",
            "span.model_request_start",
            "agent.message",
            "span.model_request_end",
            "session.status_idle"
        ]
    );
    assert_eq!(log[1].id, posted.event);
    let session = stage.engine.session(&stage.ws, &session).await.unwrap();
    assert_eq!(session.state.output.as_deref(), Some("re: hello"));
    assert_eq!(session.head, log.last().unwrap().seq);
}

#[tokio::test]
async fn messages_to_a_busy_session_wait_their_turn() {
    let (stage, _folder) = stage().await;
    let session = stage.session().await;
    stage.post(&session, "wait 1").await;
    assert!(stage.post(&session, "2").await.queued);
    assert!(stage.post(&session, "3").await.queued);
    let only_if_idle = Post {
        only_if_idle: true,
        ..message("4")
    };
    let refused = stage.engine.post(&stage.ws, &session, only_if_idle, None).await;
    assert!(
        matches!(refused, Err(Error::Rejected(Rejection::Busy))),
        "{refused:?}"
    );
    stage.puppet.gate.add_permits(1);
    let log = stage.until(&session, Seq(0), is_idle).await;
    let order: Vec<&str> = kinds(&log)
        .into_iter()
        .filter(|kind| kind.ends_with("message"))
        .collect();
    assert_eq!(order, ["user.message", "agent.message"].repeat(3));
    assert!(says(&log[log.len() - 3], "re: 3"));
}

#[tokio::test]
async fn an_interrupt_is_quick_and_keeps_what_was_said() {
    let (stage, _folder) = stage().await;
    let session = stage.session().await;
    let frames = stage.engine.follow(&stage.ws, &session, Seq(0), true).await;
    let mut frames = frames.unwrap();
    let first = stage.post(&session, "hang").await;
    stage.post(&session, "dropped").await;
    while !matches!(
        frames.next().await.unwrap().unwrap(),
        Frame::Delta(Delta::Text { .. })
    ) {}
    let began = Instant::now();
    stage
        .engine
        .interrupt(&stage.ws, &session, true, None)
        .await
        .unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let log = stage.log(&session).await;
    assert!(matches!(
        &*log.last().unwrap().body,
        Body::StatusIdle {
            stop_reason: StopReason::Interrupted,
            ..
        }
    ));
    assert!(
        log.iter().any(|event| says(event, "re: ")),
        "the partial message is gone: {:?}",
        kinds(&log)
    );
    let state = stage.engine.session(&stage.ws, &session).await.unwrap().state;
    assert!(state.unreported.tokens > 0, "budgets don't hear of what was said");
    assert!(matches!(
        stage.engine.interrupt(&stage.ws, &session, true, None).await,
        Err(Error::Rejected(Rejection::NotRunning))
    ));
    // The session works on, and somebody who meant the old turn does not hit the new one.
    stage.post(&session, "wait").await;
    let late = stage
        .engine
        .interrupt(&stage.ws, &session, true, Some(first.event))
        .await;
    assert!(matches!(late, Err(Error::Rejected(Rejection::NotRunning))));
    stage.puppet.gate.add_permits(1);
    stage.post(&session, "again").await;
    stage
        .until(&session, Seq(0), |event| says(event, "re: again"))
        .await;
}

#[tokio::test]
async fn a_blocked_turn_goes_on_when_confirmed() {
    let (stage, _folder) = stage().await;
    let session = stage.session().await;
    stage.post(&session, "ask").await;
    let log = stage.until(&session, Seq(0), is_idle).await;
    let tool = log
        .iter()
        .find(|event| event.body.kind() == "agent.tool_use")
        .unwrap()
        .id
        .clone();
    let confirm = |tool| stage.engine.confirm(&stage.ws, &session, tool, true, None, None);
    let stranger = oma_domain::EventId::generate();
    assert!(matches!(
        confirm(stranger).await,
        Err(Error::Rejected(Rejection::NotAsking))
    ));
    confirm(tool.clone()).await.unwrap();
    assert!(matches!(
        confirm(tool).await,
        Err(Error::Rejected(Rejection::NotAsking))
    ));
    let rest = stage.until(&session, log.last().unwrap().seq, is_idle).await;
    assert_eq!(
        kinds(&rest)[..3],
        [
            "user.tool_confirmation",
            "session.status_running",
            "agent.tool_result"
        ],
        "{:?}",
        kinds(&rest)
    );
}

#[tokio::test]
async fn what_is_confirmed_as_a_drive_ends_has_not_run_before() {
    let (stage, _folder) = stage().await;
    let session = stage.session().await;
    stage.puppet.lingers.store(true, Ordering::SeqCst);
    stage.post(&session, "ask").await;
    let log = stage.until(&session, Seq(0), is_idle).await;
    let asking = |event: &&Event| event.body.kind() == "agent.tool_use";
    let tool = log.iter().find(asking).unwrap().id.clone();
    // The drive that asked has left its turn, and the session's actor does not know it yet.
    stage
        .engine
        .confirm(&stage.ws, &session, tool, true, None, None)
        .await
        .unwrap();
    stage.puppet.gate.add_permits(2);
    stage.until(&session, log.last().unwrap().seq, is_idle).await;
    assert_eq!(stage.puppet.recovered.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_idempotency_key_takes_effect_once() {
    let (stage, _folder) = stage().await;
    let session = stage.session().await;
    let key = |fingerprint: &str| {
        Some(IdempotencyKey {
            key: "k".into(),
            fingerprint: fingerprint.into(),
        })
    };
    let posts = (0..8).map(|_| stage.engine.post(&stage.ws, &session, message("once"), key("a")));
    let posted: Vec<_> = futures_util::future::join_all(posts)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert!(posted.iter().all(|one| one.event == posted[0].event));
    assert_eq!(posted.iter().filter(|one| !one.replayed).count(), 1);
    let other = stage
        .engine
        .post(&stage.ws, &session, message("other"), key("b"))
        .await;
    assert!(matches!(other, Err(Error::KeyReused)));
    let log = stage.until(&session, Seq(0), is_idle).await;
    assert_eq!(
        kinds(&log).iter().filter(|kind| **kind == "user.message").count(),
        1
    );

    let made = |key| stage.engine.create_agent(&stage.ws, spec(), key);
    let (first, second) = (made(key("c")).await.unwrap(), made(key("c")).await.unwrap());
    assert_eq!(first, second);
}

#[tokio::test]
async fn failures_and_panics_end_the_turn_and_not_the_session() {
    let (stage, _folder) = stage().await;
    let session = stage.session().await;
    for text in ["fail", "panic"] {
        let head = stage.engine.session(&stage.ws, &session).await.unwrap().head;
        stage.post(&session, text).await;
        let log = stage.until(&session, head, is_idle).await;
        let last = &*log.last().unwrap().body;
        assert!(
            matches!(
                last,
                Body::StatusIdle {
                    stop_reason: StopReason::Failed { .. },
                    ..
                }
            ),
            "{text}: {last:?}"
        );
    }
    stage.post(&session, "fine").await;
    stage
        .until(&session, Seq(0), |event| says(event, "re: fine"))
        .await;
}

#[tokio::test]
async fn turns_at_work_are_bounded_and_nobody_starves() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::over(
        folder.path(),
        Config {
            max_turns: 2,
            ..Config::default()
        },
    )
    .await;
    let mut sessions = Vec::new();
    for _ in 0..6 {
        let session = stage.session().await;
        stage.post(&session, "wait").await;
        sessions.push(session);
    }
    stage.puppet.gate.add_permits(6);
    for session in &sessions {
        stage.until(session, Seq(0), is_idle).await;
    }
    assert_eq!(stage.puppet.most_at_work.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_turn_that_only_waits_leaves_its_place_to_others() {
    waits_aside("aside", 1).await;
}

#[tokio::test]
async fn a_turn_that_waits_for_two_things_wants_one_place() {
    waits_aside("aside twice", 2).await;
}

async fn waits_aside(message: &str, passes: usize) {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        max_turns: 1,
        ..Config::default()
    };
    let stage = Stage::over(folder.path(), config).await;
    let waiting = stage.session().await;
    stage.post(&waiting, message).await;
    let working = stage.session().await;
    stage.post(&working, "hello").await;
    stage.until(&working, Seq(0), is_idle).await;
    assert!(stage.engine.stats().active_turns <= 1);
    // It needs a place again to go on, and another turn has the only one.
    let holding = stage.session().await;
    stage.post(&holding, "hang").await;
    let began = |event: &Event| matches!(&*event.body, Body::ModelRequestStart { .. });
    stage.until(&holding, Seq(0), began).await;
    stage.puppet.gate.add_permits(passes);
    while stage.engine.stats().waiting_turns == 0 {
        tokio::task::yield_now().await;
    }
    stage
        .engine
        .interrupt(&stage.ws, &holding, false, None)
        .await
        .unwrap();
    stage.until(&waiting, Seq(0), is_idle).await;
    // The place is free a moment after the log has the turn's end.
    while stage.engine.stats().active_turns > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn budgets_refuse_new_messages() {
    let (stage, _folder) = stage().await;
    let quota = Some(Quota {
        max_tokens: Some(5),
        ..Quota::default()
    });
    let session = stage
        .session_of(oma_domain::agent::Spec { quota, ..spec() })
        .await;
    stage.post(&session, "spend").await;
    stage.until(&session, Seq(0), is_idle).await;
    let refused = stage
        .engine
        .post(&stage.ws, &session, message("more"), None)
        .await;
    assert!(
        matches!(refused, Err(Error::Rejected(Rejection::QuotaExceeded(_)))),
        "{refused:?}"
    );
    // Raised, it goes on.
    let agent = stage.engine.session(&stage.ws, &session).await.unwrap().agent;
    let quota = Some(Quota {
        max_tokens: Some(100),
        ..Quota::default()
    });
    let raised = oma_domain::agent::Spec { quota, ..spec() };
    stage
        .engine
        .update_agent(&stage.ws, &agent.id, 1, raised)
        .await
        .unwrap();
    stage.post(&session, "more").await;
    stage
        .until(&session, Seq(0), |event| says(event, "re: more"))
        .await;
}

#[tokio::test]
async fn compaction_on_request() {
    let (stage, _folder) = stage().await;
    let session = stage.session().await;
    let refused = stage.engine.compact(&stage.ws, &session, None).await;
    assert!(matches!(
        refused,
        Err(Error::Rejected(Rejection::NothingToCompact))
    ));
    stage.post(&session, "hello").await;
    stage.until(&session, Seq(0), is_idle).await;
    stage.engine.compact(&stage.ws, &session, None).await.unwrap();
    assert!(kinds(&stage.log(&session).await).contains(&"session.compaction"));
}

#[tokio::test]
async fn deletion_ends_everything() {
    let (stage, _folder) = stage().await;
    let session = stage.session().await;
    stage.post(&session, "hang").await;
    stage.engine.delete_session(&stage.ws, &session).await.unwrap();
    assert_eq!(
        *stage.puppet.discarded.lock().unwrap(),
        std::slice::from_ref(&session)
    );
    let gone = stage.engine.post(&stage.ws, &session, message("x"), None).await;
    assert!(matches!(gone, Err(Error::SessionNotFound)));
    assert!(matches!(
        stage.engine.delete_session(&stage.ws, &session).await,
        Err(Error::SessionNotFound)
    ));
}

#[tokio::test]
async fn what_a_deleted_or_archived_agent_still_does() {
    let (stage, _folder) = stage().await;
    let session = stage.session().await;
    let agent = stage
        .engine
        .session(&stage.ws, &session)
        .await
        .unwrap()
        .agent
        .id
        .clone();
    stage.engine.archive_agent(&stage.ws, &agent).await.unwrap();
    let create = CreateSession::of(agent.clone());
    let refused = stage.engine.create_session(&stage.ws, create, None).await;
    assert!(matches!(refused, Err(Error::AgentArchived)));
    // Its sessions go on with the version that they are pinned to.
    stage.post(&session, "still here").await;
    stage
        .until(&session, Seq(0), |event| says(event, "re: still here"))
        .await;
    stage.engine.delete_agent(&stage.ws, &agent).await.unwrap();
    let gone = stage.engine.post(&stage.ws, &session, message("x"), None).await;
    assert!(matches!(gone, Err(Error::AgentNotFound)), "{gone:?}");
}

#[tokio::test]
async fn agents_are_versioned() {
    let (stage, _folder) = stage().await;
    let agent = stage.engine.create_agent(&stage.ws, spec(), None).await.unwrap();
    let update = |version, spec| stage.engine.update_agent(&stage.ws, &agent.id, version, spec);
    assert_eq!(
        update(1, spec()).await.unwrap(),
        agent,
        "an equal definition changes nothing"
    );
    let changed = oma_domain::agent::Spec {
        instructions: "new".into(),
        ..spec()
    };
    assert_eq!(update(1, changed.clone()).await.unwrap().version, 2);
    let conflict = update(1, spec()).await;
    assert!(
        matches!(
            conflict,
            Err(Error::VersionConflict {
                expected: 1,
                actual: 2
            })
        ),
        "{conflict:?}"
    );
    let bad = oma_domain::agent::Spec {
        tools: vec!["no-such-tool".into()],
        ..spec()
    };
    assert!(matches!(
        update(2, bad).await,
        Err(Error::Unsupported { field: "tools", .. })
    ));
    let versions = stage
        .engine
        .agent_versions(&stage.ws, &agent.id, Default::default(), None, 10)
        .await
        .unwrap();
    assert_eq!(versions.rows.len(), 2);
}

#[tokio::test]
async fn another_workspace_sees_nothing() {
    let (stage, _folder) = stage().await;
    let session = stage.session().await;
    stage.post(&session, "hang").await;
    let foreign = WorkspaceId::generate();
    let agent = stage
        .engine
        .session(&stage.ws, &session)
        .await
        .unwrap()
        .agent
        .id
        .clone();
    let engine = &stage.engine;
    assert!(matches!(
        engine.session(&foreign, &session).await,
        Err(Error::SessionNotFound)
    ));
    assert!(matches!(
        engine.agent(&foreign, &agent).await,
        Err(Error::AgentNotFound)
    ));
    let posted = engine.post(&foreign, &session, message("x"), None).await;
    assert!(matches!(posted, Err(Error::SessionNotFound)));
    assert!(matches!(
        engine.interrupt(&foreign, &session, true, None).await,
        Err(Error::SessionNotFound)
    ));
    assert!(matches!(
        engine.delete_session(&foreign, &session).await,
        Err(Error::SessionNotFound)
    ));
    let listed = engine
        .events(&foreign, &session, None, oma_domain::page::Order::Ascending, 10)
        .await;
    assert!(matches!(listed, Err(Error::SessionNotFound)));
    assert!(engine.follow(&foreign, &session, Seq(0), false).await.is_err());
    let sessions = engine
        .sessions(&foreign, &Default::default(), Default::default(), None, 10)
        .await
        .unwrap();
    assert!(sessions.rows.is_empty());
    stage
        .engine
        .interrupt(&stage.ws, &session, true, None)
        .await
        .unwrap();
}

#[tokio::test]
async fn unknown_things_are_not_found() {
    let (stage, _folder) = stage().await;
    let nobody = SessionId::parse("ses_nobody").unwrap();
    let posted = stage.engine.post(&stage.ws, &nobody, message("x"), None).await;
    assert!(matches!(posted, Err(Error::SessionNotFound)));
    let agent = AgentId::parse("agt_nobody").unwrap();
    let create = CreateSession::of(agent);
    assert!(matches!(
        stage.engine.create_session(&stage.ws, create, None).await,
        Err(Error::AgentNotFound)
    ));
    assert_eq!(stage.engine.stats().live_sessions, 0);
}
