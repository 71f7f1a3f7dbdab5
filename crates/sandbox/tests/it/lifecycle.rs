//! What stays and what goes when a sandbox does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oma_domain::{EventId, SessionId};
use oma_sandbox::gateway::{DNS, PROXY, Porter, Questions, WEB};
use oma_sandbox::protocol::Service;
use oma_sandbox::{Error, Incoming, Origin, Pool, PoolConfig, Provider, Spec};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Fixture, bash, config, open, sh};

fn spec() -> Spec {
    Spec {
        session: SessionId::generate(),
        workspace: oma_domain::WorkspaceId::default_workspace(),
    }
}

#[tokio::test]
async fn idle_and_evicted_sandboxes_keep_their_workspaces() {
    let fixture = Fixture::new().await;
    let provider: Arc<dyn Provider> = Arc::new(fixture.local.clone());
    let config = PoolConfig {
        max_live: 1,
        wait: Duration::from_secs(30),
        idle_timeout: Duration::ZERO,
        ..PoolConfig::default()
    };
    let pool = Pool::new(provider, config);
    let (a, b) = (spec(), spec());
    let lease = pool.acquire(&a).await.unwrap();
    assert_eq!(
        sh(&*lease, "echo kept > file; echo gone > /tmp/file; echo y")
            .await
            .0,
        "y"
    );
    drop(lease);
    let lease = pool.acquire(&b).await.unwrap();
    assert_eq!(sh(&*lease, "ls | wc -l").await.0, "0");
    drop(lease);
    let begun = Instant::now();
    loop {
        let lease = pool.acquire(&a).await.unwrap();
        if lease.origin() == Origin::Started {
            assert_eq!(
                sh(&*lease, "cat file /tmp/file 2>&1").await.0.lines().next(),
                Some("kept")
            );
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "it never stopped");
    }
    pool.destroy(&a.session).await.unwrap();
    pool.destroy(&b.session).await.unwrap();
    fixture.assert_nothing_left();
}

#[tokio::test]
async fn many_start_at_once() {
    let fixture = Fixture::new().await;
    let specs: Vec<Spec> = (0..12).map(|_| spec()).collect();
    let starts = specs.iter().map(|spec| {
        let (local, spec) = (fixture.local.clone(), spec.clone());
        tokio::spawn(async move {
            let (one, two) = tokio::join!(local.attach(&spec), local.attach(&spec));
            let (one, two) = (one.unwrap(), two.unwrap());
            assert_ne!(one.origin, two.origin, "one starts it, the other joins");
            sh(&*one.hand, "echo $((6 * 7))").await.0
        })
    });
    for start in starts.collect::<Vec<_>>() {
        assert_eq!(start.await.unwrap(), "42");
    }
    let mut inventory = fixture.local.inventory().await.unwrap();
    inventory.sort();
    let mut expected: Vec<SessionId> = specs.iter().map(|spec| spec.session.clone()).collect();
    expected.sort();
    assert_eq!(inventory, expected);
    for spec in &specs {
        fixture.local.destroy(&spec.session).await.unwrap();
    }
    assert_eq!(fixture.local.inventory().await.unwrap(), []);
    fixture.assert_nothing_left();
}

#[tokio::test]
async fn a_dropped_start_leaves_nothing_half_made() {
    let fixture = Fixture::new().await;
    let spec = spec();
    for micros in [0, 200, 1_000, 3_000, 6_000, 10_000] {
        let _ = tokio::time::timeout(Duration::from_micros(micros), fixture.local.attach(&spec)).await;
    }
    assert_eq!(
        sh(&*fixture.attach(&spec.session).await.hand, "echo a").await.0,
        "a"
    );
    fixture.local.destroy(&spec.session).await.unwrap();
    fixture.assert_nothing_left();
}

#[tokio::test]
async fn a_sandbox_retires_when_nothing_runs_in_it() {
    let fixture = Fixture::new().await;
    let (local, session) = (&fixture.local, SessionId::generate());
    let hand = fixture.attach(&session).await.hand;
    let key = EventId::generate();
    let (reply, retired) = tokio::join!(hand.run(&key, bash("sleep 1000")), async {
        let retired = local.retire(&session).await;
        hand.cancel(&key).await.unwrap();
        retired
    });
    reply.unwrap();
    assert!(!retired.unwrap(), "a call runs");
    sh(&*hand, "echo kept > file; sleep 1000 & echo $! > pid").await;
    assert!(
        !local.retire(&session).await.unwrap(),
        "a command runs in the background"
    );
    sh(&*hand, "kill $(cat pid); wait $(cat pid)").await;
    // What a service runs ends with its connection, and its connection with the server.
    let service = Service {
        program: "sh".to_owned(),
        arguments: vec!["-c".to_owned(), "sleep 1000 & exec cat".to_owned()],
        variables: Vec::new(),
        folder: None,
    };
    let mut pipe = hand.serve(service).await.unwrap();
    pipe.write_all(b"ready\n").await.unwrap();
    let mut line = [0; 6];
    pipe.read_exact(&mut line).await.unwrap();
    let pid = crate::support::hand_pid(&fixture.data, &session);
    assert!(local.retire(&session).await.unwrap());
    crate::support::wait_for_end(pid);
    assert!(local.retire(&session).await.unwrap(), "there is none any more");
    assert!(local.reattach(&session).await.unwrap().is_none());
    let again = fixture.attach(&session).await;
    assert_eq!(again.origin, Origin::Started, "nothing was lost");
    assert_eq!(sh(&*again.hand, "cat file").await.0, "kept");
    local.destroy(&session).await.unwrap();
    fixture.assert_nothing_left();
}

/// Asks for what a process in the sandbox says to a port, and answers it.
async fn answer(incoming: Incoming) -> String {
    let mut pipe = incoming.await.unwrap().pipe;
    let mut line = [0; 6];
    pipe.read_exact(&mut line).await.unwrap();
    pipe.write_all(b"good\n").await.unwrap();
    String::from_utf8(line.to_vec()).unwrap()
}

#[tokio::test]
async fn processes_reach_the_server_through_a_port() {
    const PORT: u16 = 61_418;
    let call = |word: &str| format!("exec 3<>/dev/tcp/127.0.0.1/{PORT}; echo {word} >&3; cat <&3");
    let fixture = Fixture::new().await;
    let (local, session) = (&fixture.local, SessionId::generate());
    let hand = fixture.attach(&session).await.hand;
    let said = sh(&*hand, &call("none!")).await.0;
    assert!(said.contains("Connection refused"), "no port is open yet: {said}");

    let incoming = hand.listen(PORT).await.unwrap();
    let one = call("first");
    let (said, heard) = tokio::join!(sh(&*hand, &one), answer(incoming));
    assert_eq!((said.0.trim(), heard.as_str()), ("good", "first\n"));
    // Who connects while nobody asks waits; who asks and goes away takes nobody along.
    drop(hand.listen(PORT).await.unwrap());
    let key = EventId::generate();
    let two = call("later");
    let (reply, heard) = tokio::join!(hand.run(&key, bash(&two)), async {
        let incoming = hand.listen(PORT).await.unwrap();
        answer(incoming).await
    });
    assert!(!reply.unwrap().is_error);
    assert_eq!(heard, "later\n");

    let taken = "exec 4< <(perl -MSocket -e 'socket(S, PF_INET, SOCK_STREAM, 0); $| = 1; \
                 bind(S, sockaddr_in(61419, INADDR_LOOPBACK)) or die; print \"taken\\n\"; sleep 1000'); \
                 read line <&4; echo $line";
    assert_eq!(sh(&*hand, taken).await.0, "taken");
    let refused = hand.listen(PORT + 1).await.err();
    assert!(
        matches!(&refused, Some(Error::Refused(reason)) if reason.contains("61419")),
        "{refused:?}"
    );

    // What waits ends with the sandbox, and is no work that keeps it.
    let waiting = hand.listen(PORT).await.unwrap();
    sh(&*hand, "kill $!; wait $!").await;
    assert!(local.retire(&session).await.unwrap());
    assert!(waiting.await.is_err());
    local.destroy(&session).await.unwrap();
    fixture.assert_nothing_left();
}

/// As a process that speaks to a door, and waits for what it is told.
fn through(door: u16) -> String {
    format!("exec 3<>/dev/tcp/127.0.0.1/{door}; echo word >&3; cat <&3")
}

/// What comes to a door is the server's own connection; it is answered.
async fn answer_at(porter: &Porter, door: u16) -> SocketAddr {
    let (mut stream, to) = porter.accept(door).await.unwrap();
    let mut word = [0; 5];
    stream.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"word\n");
    stream.write_all(b"good\n").await.unwrap();
    to
}

#[tokio::test]
async fn the_doors_are_passed_and_stay() {
    let fixture = Fixture::with(|config| config.gateway = true).await;
    let (local, session) = (&fixture.local, SessionId::generate());
    let hand = fixture.attach(&session).await.hand;
    let passed = hand.doors().await.unwrap();
    let mut sockets = passed.sockets.into_inner();
    let datagrams = sockets.pop().unwrap();
    let porter = Porter::new(passed.ports.into_iter().zip(sockets).collect()).unwrap();
    for door in [PROXY, DNS, WEB[0], WEB[1]] {
        let command = through(door);
        let (said, to) = tokio::join!(sh(&*hand, &command), answer_at(&porter, door));
        assert_eq!((said.0.trim(), to.port()), ("good", door));
    }
    let questions = Questions::new(datagrams).unwrap();
    let ask = "exec 3<>/dev/udp/127.0.0.1/53; printf question >&3; head -c 6 <&3";
    let (said, ()) = tokio::join!(sh(&*hand, ask), async {
        let mut question = [0; 64];
        let (length, from) = questions.next(&mut question).await.unwrap();
        assert_eq!(&question[..length], b"question");
        questions.answer(b"answer", from);
    });
    assert_eq!(said.0, "answer");

    // A server that is gone leaves them open, and what comes meanwhile is the next one's.
    drop((porter, questions, passed.life));
    let command = through(PROXY);
    let (said, ()) = tokio::join!(sh(&*hand, &command), async {
        let passed = hand.doors().await.unwrap();
        let sockets = passed.sockets.into_inner();
        let porter = Porter::new(passed.ports.into_iter().zip(sockets).collect()).unwrap();
        answer_at(&porter, PROXY).await;
    });
    assert_eq!(said.0.trim(), "good");
    // So it is for one that has them carried.
    let (said, heard) = tokio::join!(sh(&*hand, &command), async {
        let arrived = hand.listen(PROXY).await.unwrap().await.unwrap();
        let (mut pipe, mut word) = (arrived.pipe, [0; 5]);
        pipe.read_exact(&mut word).await.unwrap();
        pipe.write_all(b"good\n").await.unwrap();
        word
    });
    assert_eq!((said.0.trim(), &heard), ("good", b"word\n"));

    // They end with the sandbox, which they don't keep.
    let passed = hand.doors().await.unwrap();
    let waiting = tokio::spawn(async move { passed.life.ended().await });
    assert!(local.retire(&session).await.unwrap());
    waiting.await.unwrap();
    assert!(hand.doors().await.is_err());
    local.destroy(&session).await.unwrap();
    fixture.assert_nothing_left();
}

#[tokio::test]
async fn a_sandbox_without_doors_passes_none() {
    let fixture = Fixture::new().await;
    let session = SessionId::generate();
    let hand = fixture.attach(&session).await.hand;
    let refused = hand.doors().await.err();
    assert!(
        matches!(&refused, Some(Error::Refused(reason)) if reason.contains("no doors")),
        "{refused:?}"
    );
    fixture.local.destroy(&session).await.unwrap();
}

#[tokio::test]
async fn odd_workspaces_can_be_removed() {
    let fixture = Fixture::new().await;
    let session = SessionId::generate();
    let attached = fixture.attach(&session).await;
    let make = "mkdir -p a/b/c; touch a/b/c/f; chmod 0 a/b/c a/b a; mkfifo p; ln -s / root; \
                touch \"$(printf 'new\\nline \\377')\"; \
                perl -e 'for (1..600) { mkdir \"x\" x 200 or die; chdir \"x\" x 200 or die }'; chmod 0 .";
    // Whether the quota's watch sees the depth before the end, and ends it, is a matter of luck.
    sh(&*attached.hand, make).await;
    fixture.local.destroy(&session).await.unwrap();
    assert_eq!(fixture.local.inventory().await.unwrap(), []);
    fixture.assert_nothing_left();
}

#[tokio::test]
async fn an_orphan_ends_by_itself() {
    let fixture = Fixture::with(|config| config.orphan_timeout = Duration::from_millis(400)).await;
    let spec = spec();
    let attached = fixture.attach(&spec.session).await;
    let key = EventId::generate();
    attached
        .hand
        .run(&key, bash("echo connected for longer than that; sleep 0.6"))
        .await
        .unwrap();
    let data = fixture.data.clone();
    let pid = crate::support::hand_pid(&data, &spec.session);
    drop(attached);
    let Fixture {
        local,
        folder: _folder,
        ..
    } = fixture;
    drop(local);
    tokio::task::spawn_blocking(move || crate::support::wait_for_end(pid))
        .await
        .unwrap();
    let local = open(config(&data)).await.unwrap();
    assert_eq!(local.attach(&spec).await.unwrap().origin, Origin::Replaced);
    local.destroy(&spec.session).await.unwrap();
}

#[tokio::test]
async fn what_can_not_be_made_as_configured_is_not_made() {
    let fixture = Fixture::with(|config| config.readable = vec!["/nonexistent/folder".into()]).await;
    let spec = spec();
    match fixture.local.attach(&spec).await {
        Err(Error::TooWeak(reason)) => assert!(reason.contains("/nonexistent/folder"), "{reason}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was made"),
    }
    fixture.local.destroy(&spec.session).await.unwrap();
    fixture.assert_nothing_left();
}

#[tokio::test]
async fn two_data_folders_do_not_disturb_each_other() {
    let (one, two) = (Fixture::new().await, Fixture::new().await);
    let spec = spec();
    let (first, second) = (one.attach(&spec.session).await, two.attach(&spec.session).await);
    sh(&*first.hand, "echo one > file").await;
    sh(&*second.hand, "echo two > file").await;
    // A new server in one of them clears away what it finds of its own.
    let Fixture {
        data,
        local,
        folder: _folder,
    } = one;
    drop((first, local));
    let again = open(config(&data)).await.unwrap();
    assert_eq!(sh(&*second.hand, "cat file").await.0, "two");
    let attached = again.attach(&spec).await.unwrap();
    assert_eq!(attached.origin, Origin::Running);
    assert_eq!(sh(&*attached.hand, "cat file").await.0, "one");
    again.destroy(&spec.session).await.unwrap();
    two.local.destroy(&spec.session).await.unwrap();
    two.assert_nothing_left();
}

#[tokio::test]
async fn a_sandbox_without_a_server_and_a_workspace_ends() {
    let fixture = Fixture::new().await;
    let spec = spec();
    let attached = fixture.attach(&spec.session).await;
    let pid = crate::support::hand_pid(&fixture.data, &spec.session);
    std::fs::remove_dir_all(fixture.data.join("workspaces")).unwrap();
    assert_eq!(
        sh(&*attached.hand, "true; echo $?").await.0,
        "0",
        "as long as it has a server"
    );
    drop(attached);
    let Fixture {
        local,
        folder: _folder,
        ..
    } = fixture;
    drop(local);
    tokio::task::spawn_blocking(move || crate::support::wait_for_end(pid))
        .await
        .unwrap();
}
