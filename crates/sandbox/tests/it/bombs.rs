//! Sessions that eat whatever they can: they hurt nobody, and leave nothing.

use std::time::{Duration, Instant};

use oma_domain::{EventId, SessionId};
use oma_sandbox::limits::Enforcement;
use oma_sandbox::protocol::Call;
use oma_sandbox::{Error, Origin, Provider as _};

use crate::support::{Fixture, bash, has_own_kernel, said, sh};

/// What a bomb may cost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cost {
    Command,
    /// The sandbox as well: the session gets another one, with its workspace.
    Sandbox,
}

impl Cost {
    /// What it costs to be faster than the hand counts: then the limit of the whole sandbox is met, which a kernel of its
    /// own does not outlive.
    fn when_outrun() -> Self {
        match has_own_kernel() {
            true => Self::Sandbox,
            false => Self::Command,
        }
    }
}

/// The ways of enforcement that make a difference here: beside a kernel of the sandbox's own the hand counts with all.
fn enforcements() -> Vec<Enforcement> {
    let mut ways = crate::support::enforcements();
    if has_own_kernel() {
        ways.truncate(1);
    }
    ways
}

/// After whatever a session did: its sandbox still answers, the neighbour was served meanwhile, and after the
/// end nothing is left.
async fn survives(command: &str, check: impl Fn(&str, bool)) {
    goes_off(command, Cost::Command, check).await;
}

async fn goes_off(command: &str, most: Cost, check: impl Fn(&str, bool)) {
    for enforcement in enforcements() {
        let fixture = Fixture::with(|config| {
            config.enforcement = Some(enforcement);
            config.limits.inodes = 1_000;
        })
        .await;
        let (session, other) = (SessionId::generate(), SessionId::generate());
        let (attached, neighbour) = (fixture.attach(&session).await, fixture.attach(&other).await);
        sh(&*attached.hand, "echo kept > kept").await;
        let key = EventId::generate();
        let bomb = tokio::spawn({
            let (hand, key, call) = (attached.hand.clone(), key.clone(), bash(command));
            async move { hand.run(&key, call).await }
        });
        let begun = Instant::now();
        for _ in 0..5 {
            assert_eq!(
                sh(&*neighbour.hand, "echo fine").await,
                ("fine".to_owned(), false)
            );
        }
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "the neighbour waited {:?}",
            begun.elapsed()
        );
        let ran = tokio::time::timeout(Duration::from_secs(100), bomb)
            .await
            .unwrap()
            .unwrap();
        let attached = match ran {
            Err(Error::Lost(_)) if most == Cost::Sandbox => {
                let again = fixture.attach(&session).await;
                assert_eq!(again.origin, Origin::Replaced, "{enforcement:?}");
                again
            }
            ran => {
                let (text, failed) = said(&ran.unwrap());
                check(&text, failed);
                attached
            }
        };
        let restart = Call {
            tool: "bash".to_owned(),
            input: serde_json::json!({ "restart": true }),
        };
        attached.hand.run(&EventId::generate(), restart).await.unwrap();
        // On a busy machine it takes a moment until a hundred dead processes have been reaped.
        // Counted by the shell, as no program of the host is sure to know every kernel (`ls`).
        let count = "cat /workspace/kept; rm -rf /workspace/*; for i in $(seq 100); do set -- /proc/[0-9]*; n=$#; \
                     [ $n -lt 8 ] && break; sleep 0.1; done; echo $n";
        let after = sh(&*attached.hand, count).await.0;
        let mut lines = after.lines();
        assert_eq!(lines.next(), Some("kept"), "{enforcement:?}: {after}");
        let count = lines.next().and_then(|count| count.parse::<u32>().ok());
        assert!(count.is_some_and(|count| count < 8), "{enforcement:?}: {after}");
        assert_eq!(
            fixture.attach(&session).await.origin,
            Origin::Running,
            "{enforcement:?}"
        );
        for session in [session, other] {
            fixture.local.destroy(&session).await.unwrap();
        }
        fixture.assert_nothing_left();
    }
}

#[tokio::test]
async fn a_fork_bomb() {
    let bomb = "bomb() { bomb | bomb & }; bomb; for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.1; done 2>/dev/null; kill -9 $$";
    goes_off(bomb, Cost::when_outrun(), |_, _| {}).await;
}

#[tokio::test]
async fn a_memory_bomb_of_one_process() {
    goes_off(
        "python3 -c 'x = bytearray(1 << 30)' || tail /dev/zero",
        Cost::when_outrun(),
        |text, _| {
            assert!(
                text.contains("Killed") || text.contains("MemoryError") || text.contains("memory limit"),
                "{text}"
            );
        },
    )
    .await;
}

#[tokio::test]
async fn a_memory_bomb_of_many_processes() {
    let bomb = "for i in 1 2 3 4 5 6; do \
                python3 -c 'import time; x = bytearray(b\"x\" * (80 << 20)); time.sleep(1000)' & done; wait -n; wait -n; wait -n; kill %1 %2 %3 %4 %5 %6; true";
    goes_off(bomb, Cost::when_outrun(), |_, _| {}).await;
}

#[tokio::test]
async fn a_disk_filler() {
    survives(
        "for i in $(seq 1000); do head -c 4M /dev/zero > f$i || exit 1; done; exit 0",
        |text, failed| {
            assert!(failed && text.contains("quota"), "{text}");
        },
    )
    .await;
}

#[tokio::test]
async fn a_disk_filler_within_the_shell() {
    let filler = "x=$(head -c 100000 /dev/zero | tr '\\0' x); i=0; while :; do echo $x$x$x$x$x >> g$((i++ / 100)); done 2>/dev/null";
    survives(filler, |_, failed| assert!(failed)).await;
}

#[tokio::test]
async fn an_inode_filler() {
    survives("i=0; while :; do : > f$((i++)); done", |text, failed| {
        assert!(failed && text.contains("quota"), "{text}");
    })
    .await;
}

#[tokio::test]
async fn an_output_flood() {
    survives("timeout 2 yes 'a rather long line of output'", |text, _| {
        assert!(text.len() < 100_000, "{}", text.len());
    })
    .await;
}

#[tokio::test]
async fn an_escapee() {
    let marker = format!("1000{}", std::process::id());
    let escape = format!(
        "setsid sh -c 'setsid sleep {marker} & exec sleep {marker}' & (nohup sleep {marker} &) ; echo out"
    );
    survives(&escape, |text, failed| {
        assert!(!failed && text.contains("out"), "{text}")
    })
    .await;
    crate::support::assert_no_process(&marker);
}

#[tokio::test]
async fn cancel_takes_the_escapee_too_and_keeps_the_output() {
    for enforcement in enforcements() {
        let fixture = Fixture::with(|config| config.enforcement = Some(enforcement)).await;
        let session = SessionId::generate();
        let attached = fixture.attach(&session).await;
        let marker = format!("2000{}", std::process::id());
        let command = format!(
            "setsid sleep {marker} & (setsid sleep {marker} &); echo out; touch begun; sleep {marker}"
        );
        let key = EventId::generate();
        let run = tokio::spawn({
            let (hand, key) = (attached.hand.clone(), key.clone());
            async move { hand.run(&key, bash(&command)).await }
        });
        sh(&*attached.hand, "true").await;
        let files = fixture.local.workspace(&session).await.unwrap();
        while files.read("begun", 1).await.is_err() {
            tokio::task::yield_now().await;
        }
        let begun = Instant::now();
        let reply = attached.hand.cancel(&key).await.unwrap().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert!(said(&reply).0.contains("out"), "{reply:?}");
        assert_eq!(run.await.unwrap().unwrap(), reply);
        crate::support::assert_no_process(&marker);
        assert_eq!(sh(&*attached.hand, "echo on").await.0, "on");
        fixture.local.destroy(&session).await.unwrap();
    }
}

#[tokio::test]
async fn over_the_quota_one_can_delete_but_not_write() {
    let fixture = Fixture::with(|config| config.limits.disk = 4 << 20).await;
    let session = SessionId::generate();
    let attached = fixture.attach(&session).await;
    let (text, failed) = sh(
        &*attached.hand,
        "i=0; while head -c 1M /dev/zero > f$i; do i=$((i + 1)); done",
    )
    .await;
    assert!(failed, "{text}");
    let (text, _) = sh(&*attached.hand, "echo x > y").await;
    assert!(text.contains("File too large"), "{text}");
    let files = fixture.local.workspace(&session).await.unwrap();
    let written = files.write("z", bytes::Bytes::from_static(b"x")).await;
    assert!(
        matches!(written, Err(oma_sandbox::files::Error::Full)),
        "{written:?}"
    );
    assert!(text.contains("over its disk quota"), "{text}");
    let (text, failed) = sh(&*attached.hand, "rm f*; echo ok; echo x > y").await;
    let room = "There is room on the disk again";
    assert!(!failed && text.starts_with("ok") && text.contains(room), "{text}");
    let (text, failed) = sh(&*attached.hand, "cd /; echo x > ~/y; cat ~/y; pwd").await;
    assert!(!failed && text.starts_with("x\n/\n"), "{text}");
    assert!(text.contains("ran in a new one"), "{text}");
    assert_eq!(sh(&*attached.hand, "pwd").await, ("/".to_owned(), false));
    files.write("z", bytes::Bytes::from_static(b"x")).await.unwrap();
    fixture.local.destroy(&session).await.unwrap();
}

/// What a sandbox with a kernel of its own has had of processors, by the machine's count: its own kernel has a process run
/// on while it is held up itself.
fn used_outside(session: &SessionId) -> Option<Duration> {
    let engine = crate::support::engine().filter(|_| has_own_kernel())?;
    let id = &engine.containers(&format!("oma.session={session}"))[0];
    let stats = engine.get(&format!("/containers/{id}/stats?stream=false&one-shot=true"));
    let used = stats.unwrap()["cpu_stats"]["cpu_usage"]["total_usage"].as_u64();
    Some(Duration::from_nanos(used.unwrap()))
}

#[tokio::test]
async fn processors_are_shared_out() {
    if !crate::support::enforcements().contains(&Enforcement::Cgroup) {
        return;
    }
    let fixture = Fixture::with(|config| config.limits.cpus = 0.25).await;
    let session = SessionId::generate();
    let attached = fixture.attach(&session).await;
    let burn = "import os, time; end = time.monotonic() + 2\nwhile time.monotonic() < end: pass\nprint(time.process_time())";
    let (began, before) = (Instant::now(), used_outside(&session));
    let (text, failed) = sh(&*attached.hand, &format!("python3 -c '{burn}'")).await;
    assert!(!failed, "{text}");
    if let (Some(before), Some(after)) = (before, used_outside(&session)) {
        let (used, time) = (after - before, began.elapsed());
        assert!(used > time / 20 && used < time / 2, "{used:?} of {time:?}");
    } else {
        let used: f64 = text.parse().unwrap();
        assert!(used < 1.0, "{used} of 2 seconds");
    }
    fixture.local.destroy(&session).await.unwrap();
}

#[tokio::test]
async fn what_can_not_be_listed_counts_too() {
    let fixture = Fixture::with(|config| config.limits.disk = 4 << 20).await;
    let session = SessionId::generate();
    let attached = fixture.attach(&session).await;
    let hide =
        "mkdir h; cd h; chmod 300 .; for i in $(seq 100); do head -c 1M /dev/zero > f$i; done; sleep 20";
    let (text, failed) = sh(&*attached.hand, hide).await;
    assert!(failed && text.contains("quota"), "{text}");
    fixture.local.destroy(&session).await.unwrap();
    fixture.assert_nothing_left();
}

#[tokio::test]
async fn a_full_disk_stops_who_writes_and_nobody_else() {
    let free = {
        let stat = rustix::fs::statvfs(std::env::temp_dir()).unwrap();
        stat.f_bavail * stat.f_frsize
    };
    // As if the disk were almost full: the floor is above what is free.
    let fixture = Fixture::with(|config| config.limits.disk_floor = free + (64 << 30)).await;
    let (writer, other) = (SessionId::generate(), SessionId::generate());
    let (attached, neighbour) = (fixture.attach(&writer).await, fixture.attach(&other).await);
    let reading = tokio::spawn(async move { sh(&*neighbour.hand, "sleep 1; echo fine").await });
    let fill = "for i in $(seq 200); do head -c 1M /dev/zero > f$i || exit 3; sleep 0.01; done";
    let (text, _) = sh(&*attached.hand, fill).await;
    assert!(
        text.contains("File too large") || text.contains("almost full"),
        "{text}"
    );
    let (text, failed) = reading.await.unwrap();
    assert!(
        !failed && text.starts_with("fine") && text.contains("almost full"),
        "{text}"
    );
    let files = fixture.local.workspace(&writer).await.unwrap();
    let written = files.write("z", bytes::Bytes::from_static(b"x")).await;
    assert!(
        matches!(written, Err(oma_sandbox::files::Error::Full)),
        "{written:?}"
    );
    for session in [writer, other] {
        fixture.local.destroy(&session).await.unwrap();
    }
    fixture.assert_nothing_left();
}
