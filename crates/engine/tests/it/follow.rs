//! Streams: the same as the list, from any cursor, with deltas that are prefixes.

use std::collections::HashMap;

use futures_util::StreamExt;
use oma_domain::content::joined_text;
use oma_domain::event::Body;
use oma_domain::{EventId, Seq};
use oma_engine::{Config, Delta, Frame};

use crate::puppet::{FLOOD, Stage, is_idle, says};

#[tokio::test]
async fn every_cursor_gives_the_same_suffix() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::over(folder.path(), Config::default()).await;
    let session = stage.session().await;
    for n in 0..5 {
        stage.post(&session, &format!("tool {n}")).await;
    }
    let live = stage
        .until(&session, Seq(0), |event| says(event, "re: tool 4"))
        .await;
    let whole = stage.until(&session, live.last().unwrap().seq, is_idle).await;
    let log = stage.log(&session).await;
    assert_eq!([live, whole].concat(), log);
    for cut in 0..log.len() {
        let last = log.last().unwrap().seq;
        let suffix = stage
            .until(&session, Seq(cut as u64), |event| event.seq == last)
            .await;
        assert_eq!(suffix, log[cut..]);
    }
}

#[tokio::test]
async fn followers_that_come_and_go_miss_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::over(folder.path(), Config::default()).await;
    let session = stage.session().await;
    let turns = 40;
    let posting = async {
        for n in 0..turns {
            stage.post(&session, &format!("tool {n}")).await;
        }
    };
    // Reads a few events, leaves, and comes back with its cursor, while the session works.
    let last = format!("re: tool {}", turns - 1);
    let following = async {
        let mut seen = Vec::new();
        let mut cursor = Seq(0);
        loop {
            let mut frames = stage
                .engine
                .follow(&stage.ws, &session, cursor, true)
                .await
                .unwrap();
            for _ in 0..7 {
                if let Frame::Event(event) = frames.next().await.unwrap().unwrap() {
                    cursor = event.seq;
                    let done = says(&event, &last) && seen.iter().filter(|e| says(e, &last)).count() == 1;
                    seen.push(event);
                    if done {
                        return seen;
                    }
                }
            }
        }
    };
    let (seen, ()) = tokio::join!(following, posting);
    let log = stage.log(&session).await;
    assert_eq!(seen, log[..seen.len()]);
}

#[tokio::test]
async fn a_reader_that_falls_behind_catches_up() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::over(folder.path(), Config::default()).await;
    let session = stage.session().await;
    let mut frames = stage
        .engine
        .follow(&stage.ws, &session, Seq(0), true)
        .await
        .unwrap();
    // Far more than a follower's channel holds, and nobody reads.
    for n in 0..60 {
        stage.post(&session, &format!("tool {n}")).await;
    }
    stage.until(&session, Seq(0), is_idle).await;
    let log = stage.log(&session).await;
    let mut seen = Vec::new();
    while seen.len() < log.len() {
        if let Frame::Event(event) = frames.next().await.unwrap().unwrap() {
            seen.push(event);
        }
    }
    assert_eq!(seen, log);
}

#[tokio::test]
async fn deltas_are_prefixes_of_their_messages() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::over(folder.path(), Config::default()).await;
    let session = stage.session().await;
    let mut frames = stage
        .engine
        .follow(&stage.ws, &session, Seq(0), true)
        .await
        .unwrap();
    stage.post(&session, "hello").await;
    let mut texts: HashMap<EventId, String> = HashMap::new();
    let mut pieces = 0;
    loop {
        match frames.next().await.unwrap().unwrap() {
            Frame::Delta(Delta::MessageStart { event }) => {
                assert_eq!(texts.insert(event, String::new()), None)
            }
            Frame::Delta(Delta::Text { event, text }) => {
                pieces += 1;
                texts
                    .get_mut(&event)
                    .expect("a start comes first")
                    .push_str(&text);
            }
            Frame::Event(event) => match &*event.body {
                Body::AgentMessage { content, .. } => assert_eq!(texts[&event.id], joined_text(content)),
                Body::StatusIdle { .. } => break,
                _ => {}
            },
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(pieces, 2);
}

#[tokio::test]
async fn a_reader_that_missed_pieces_of_an_answer_gets_none_of_its_later_ones() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::over(folder.path(), Config::default()).await;
    let session = stage.session().await;
    let follow = || stage.engine.follow(&stage.ws, &session, Seq(0), true);
    let (mut quick, mut slow) = (follow().await.unwrap(), follow().await.unwrap());
    stage.post(&session, "flood and wait").await;
    let mut pieces = 0;
    while pieces < FLOOD + 1 {
        let frame = quick.next().await.unwrap().unwrap();
        pieces += usize::from(matches!(frame, Frame::Delta(Delta::Text { .. })));
    }
    // Of the first message pieces are lost to it; the second one's would stand before the rest of the first.
    let deltas = async {
        let mut deltas = Vec::new();
        loop {
            match slow.next().await.unwrap().unwrap() {
                Frame::Delta(delta) => deltas.push(delta),
                Frame::Event(event) if matches!(&*event.body, Body::ModelRequestStart { .. }) => {
                    stage.puppet.gate.add_permits(1);
                }
                Frame::Event(event) if is_idle(&event) => return deltas,
                Frame::Event(_) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(deltas.await, []);
    // The next answer's come again.
    stage.post(&session, "hello").await;
    let frame = loop {
        match slow.next().await.unwrap().unwrap() {
            Frame::Delta(delta) => break delta,
            Frame::Event(event) => assert!(!is_idle(&event), "no pieces came"),
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(frame, Delta::MessageStart { .. }), "{frame:?}");
}

#[tokio::test]
async fn a_follower_is_told_of_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::over(folder.path(), Config::default()).await;
    let session = stage.session().await;
    let mut frames = stage
        .engine
        .follow(&stage.ws, &session, Seq(0), false)
        .await
        .unwrap();
    stage.engine.delete_session(&stage.ws, &session).await.unwrap();
    assert_eq!(frames.next().await.unwrap().unwrap(), Frame::Deleted);
    assert!(frames.next().await.is_none());
    let other = stage.session().await;
    let mut frames = stage
        .engine
        .follow(&stage.ws, &other, Seq(0), false)
        .await
        .unwrap();
    stage.engine.stop().await;
    assert!(frames.next().await.is_none());
}
