//! Stops and starts over the same data folder.

use std::sync::atomic::Ordering;
use std::time::Duration;

use oma_domain::content::joined_text;
use oma_domain::event::{Body, StopReason};
use oma_domain::policy::PermissionPolicy;
use oma_domain::{Event, Seq, SessionId};
use oma_engine::{Config, Error};

use crate::puppet::{Stage, is_idle, kinds, message, says, spec};

/// Whether a turn has ended plainly.
fn ends(event: &Event) -> bool {
    let end = StopReason::EndTurn;
    matches!(&*event.body, Body::StatusIdle { stop_reason, .. } if *stop_reason == end)
}

fn impatient() -> Config {
    Config {
        drain_timeout: Duration::from_millis(50),
        ..Config::default()
    }
}

#[tokio::test]
async fn a_turn_that_a_stop_cut_off_goes_on_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let session;
    {
        let stage = Stage::over(folder.path(), impatient()).await;
        session = stage.session().await;
        stage.post(&session, "wait for it").await;
        stage.post(&session, "and this").await;
        stage
            .until(&session, Seq(0), |event| {
                event.body.kind() == "span.model_request_start"
            })
            .await;
        stage.engine.stop().await;
        let refused = stage.engine.post(&stage.ws, &session, message("x"), None).await;
        assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    }
    let stage = Stage::over(folder.path(), Config::default()).await;
    stage.puppet.gate.add_permits(1);
    assert_eq!(stage.engine.recover().await.unwrap(), 1);
    let log = stage.until(&session, Seq(0), is_idle).await;
    assert_eq!(stage.puppet.recovered.load(Ordering::SeqCst), 1);
    assert!(log.iter().any(|event| says(event, "re: wait for it")));
    assert!(log.iter().any(|event| says(event, "re: and this")));
    let spans = |kind| kinds(&log).into_iter().filter(|k| *k == kind).count();
    assert_eq!(spans("span.model_request_start"), spans("span.model_request_end"));
    assert_eq!(spans("user.message"), 2);
}

#[tokio::test]
async fn a_post_before_the_recovery_wakes_the_session_first() {
    let folder = tempfile::tempdir().unwrap();
    let session;
    {
        let stage = Stage::over(folder.path(), impatient()).await;
        session = stage.session().await;
        stage.post(&session, "wait").await;
        stage
            .until(&session, Seq(0), |event| {
                event.body.kind() == "span.model_request_start"
            })
            .await;
        stage.engine.stop().await;
    }
    let stage = Stage::over(folder.path(), Config::default()).await;
    stage.puppet.gate.add_permits(1);
    assert!(stage.post(&session, "next").await.queued);
    let log = stage
        .until(&session, Seq(0), |event| says(event, "re: next"))
        .await;
    assert!(log.iter().any(|event| says(event, "re: wait")));
}

#[tokio::test]
async fn a_drain_lets_turns_end() {
    let folder = tempfile::tempdir().unwrap();
    let session;
    {
        let stage = Stage::over(folder.path(), Config::default()).await;
        session = stage.session().await;
        stage.post(&session, "wait").await;
        stage
            .until(&session, Seq(0), |event| {
                event.body.kind() == "span.model_request_start"
            })
            .await;
        stage.puppet.gate.add_permits(1);
        stage.engine.stop().await;
    }
    let stage = Stage::over(folder.path(), Config::default()).await;
    assert_eq!(stage.engine.recover().await.unwrap(), 0);
    assert!(is_idle(stage.log(&session).await.last().unwrap()));
}

#[tokio::test]
async fn a_blocked_session_waits_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (session, tool);
    {
        let stage = Stage::over(folder.path(), impatient()).await;
        session = stage.session().await;
        stage.post(&session, "ask").await;
        let log = stage.until(&session, Seq(0), is_idle).await;
        tool = log
            .iter()
            .find(|event| event.body.kind() == "agent.tool_use")
            .unwrap()
            .id
            .clone();
        stage.engine.stop().await;
    }
    let stage = Stage::over(folder.path(), Config::default()).await;
    assert_eq!(stage.engine.recover().await.unwrap(), 0);
    let head = stage.engine.session(&stage.ws, &session).await.unwrap().head;
    stage
        .engine
        .confirm(&stage.ws, &session, tool, true, None, None)
        .await
        .unwrap();
    stage.until(&session, head, is_idle).await;
}

/// An agent whose tool uses wait so long for a confirmation.
fn asking(timeout_ms: u64) -> oma_domain::agent::Spec {
    oma_domain::agent::Spec {
        permission_policy: PermissionPolicy::AlwaysAsk {
            tools: None,
            timeout_ms: Some(timeout_ms),
        },
        ..spec()
    }
}

#[tokio::test]
async fn a_confirmation_that_does_not_come_in_time_is_denied() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::over(folder.path(), Config::default()).await;
    let engine = stage.engine.clone();
    tokio::spawn(async move { engine.keep_deadlines().await });
    let patient = stage.session_of(asking(3_600_000)).await;
    stage.post(&patient, "ask").await;
    stage.until(&patient, Seq(0), is_idle).await;
    // The later one has the earlier deadline.
    let session = stage.session_of(asking(50)).await;
    stage.post(&session, "ask").await;
    let log = stage
        .until(&session, Seq(0), |event| says(event, "re: ask"))
        .await;
    let head = log.last().unwrap().seq;
    let log = stage.until(&session, head, ends).await;
    let denied = log.iter().any(|event| {
        matches!(&*event.body, Body::AgentToolResult { content, is_error: true, .. }
            if joined_text(content).contains("Nobody confirmed"))
    });
    assert!(denied, "{:?}", kinds(&log));
    let waits = stage.engine.session(&stage.ws, &patient).await.unwrap();
    assert!(waits.state.deadline().is_some());
}

#[tokio::test]
async fn a_time_out_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let session;
    {
        let stage = Stage::over(folder.path(), impatient()).await;
        session = stage.session_of(asking(1)).await;
        stage.post(&session, "ask").await;
        stage.until(&session, Seq(0), is_idle).await;
        stage.engine.stop().await;
    }
    let stage = Stage::over(folder.path(), Config::default()).await;
    assert_eq!(stage.engine.recover().await.unwrap(), 0);
    let engine = stage.engine.clone();
    tokio::spawn(async move { engine.keep_deadlines().await });
    stage.until(&session, Seq(0), ends).await;
}

#[tokio::test]
async fn what_deleted_sessions_left_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::over(folder.path(), Config::default()).await;
    let kept = stage.session().await;
    let orphan = SessionId::parse("ses_orphan").unwrap();
    *stage.puppet.present.lock().unwrap() = vec![kept, orphan.clone()];
    stage.engine.recover().await.unwrap();
    assert_eq!(*stage.puppet.discarded.lock().unwrap(), [orphan]);
}
