//! The shell where it is at home: below pid 1, which inherits whatever a dead shell leaves behind.

use oma_domain::{EventId, SessionId};
use oma_sandbox::Hand;
use oma_sandbox::protocol::Call;

use crate::support::{Fixture, said, sh};

/// Which of the sleepers, each with a number of its own, are alive.
async fn sleepers(hand: &dyn Hand) -> String {
    let look = "for f in /proc/[0-9]*; do tr '\\0' ' ' <$f/cmdline 2>/dev/null; echo; done \
                | sed -n 's/^sleep \\(90[0-9][0-9]\\) $/\\1/p' | sort | xargs";
    sh(hand, look).await.0
}

async fn call(hand: &dyn Hand, input: serde_json::Value) -> (String, bool) {
    let call = Call {
        tool: "bash".to_owned(),
        input,
    };
    said(&hand.run(&EventId::generate(), call).await.unwrap())
}

#[tokio::test]
async fn what_ends_with_a_command_and_what_does_not() {
    let fixture = Fixture::new().await;
    let session = SessionId::generate();
    let attached = fixture.attach(&session).await;
    let hand = &*attached.hand;

    // On a busy machine it takes a moment until a process is the program that it will be.
    let begun = "until [ $(grep -lx sleep /proc/[0-9]*/comm | wc -l) = 2 ]; do :; done";
    sh(hand, &format!("sleep 9001 & (setsid sleep 9002 &) ; {begun}")).await;
    assert_eq!(sleepers(hand).await, "9001 9002");

    // A command that is out of time goes with all its escapees; what earlier ones left goes on, twice.
    for _ in 0..2 {
        let command = "cd /tmp; echo begun; sleep 9003 & (setsid sh -c 'trap \"\" TERM; sleep 9004; :' &); \
                       sh -c '(sleep 9005 &)'; while :; do /bin/true; done";
        let input = serde_json::json!({"command": command, "timeout_ms": 700});
        let (text, is_error) = call(hand, input).await;
        assert!(
            is_error && text.starts_with("begun\n[The command took longer than 700 ms"),
            "{text}"
        );
        assert_eq!(sleepers(hand).await, "9001 9002");
        assert_eq!(sh(hand, "pwd").await.0, "/tmp");
    }

    // A shell that ends by itself leaves its background commands alone.
    let begun = begun.replace("= 2", "= 3");
    let (text, is_error) = sh(hand, &format!("sleep 9006 & {begun}; exit 3")).await;
    assert!(
        !is_error && text.contains("ended the shell (exit status 3)"),
        "{text}"
    );
    assert_eq!(sleepers(hand).await, "9001 9002 9006");
    let input = serde_json::json!({"command": "sleep 9007", "timeout_ms": 200});
    assert!(call(hand, input).await.1);
    assert_eq!(
        sleepers(hand).await,
        "9001 9002 9006",
        "strays of an earlier shell are not this command's"
    );

    // Only a restart ends all of it, whichever shell it came from.
    assert!(!call(hand, serde_json::json!({"restart": true})).await.1);
    assert_eq!(sleepers(hand).await, "");
    assert_eq!(
        sh(hand, "ps -e -o stat= 2>/dev/null | grep -c Z; pwd").await.0,
        "0\n/workspace"
    );

    // Also where that shell has ended by itself, and there is none when the restart comes.
    sh(hand, "sleep 9007 & exit 3").await;
    assert!(!call(hand, serde_json::json!({"restart": true})).await.1);
    assert_eq!(sleepers(hand).await, "");
}

#[tokio::test]
async fn a_command_cannot_blind_the_hand() {
    let fixture = Fixture::new().await;
    let session = SessionId::generate();
    let attached = fixture.attach(&session).await;
    let hand = &*attached.hand;

    for attack in [
        "prlimit --pid 1 --nofile=0:4096",
        "sh -c 'prlimit --pid 1 --fsize=0'",
        "renice -n 19 -p 1",
        "renice -n 19 -u $(id -u)",
        "ionice -c 3 -p 1",
        "taskset -p 1 1",
        "chrt --idle -p 0 1",
        // The threads of its guards.
        "(for t in $(ls /proc/1/task); do renice -n 19 -p $t && echo done; done; false)",
        "(for t in $(ls /proc/1/task); do taskset -p 1 $t && echo done; done; false)",
        "(for t in $(ls /proc/1/task); do chrt --idle -p 0 $t && echo done; done; false)",
        "(for t in $(ls /proc/1/task); do ionice -c 3 -p $t && echo done; done; false)",
    ] {
        let (text, _) = sh(hand, &format!("{attack} 2>&1 || echo refused")).await;
        assert!(
            text.contains("not permitted") && text.ends_with("refused") && !text.contains("done"),
            "{attack}: {text}"
        );
    }
    let (threads, _) = sh(hand, "ls /proc/1/task | wc -l").await;
    assert_ne!(threads, "1", "its guard has one of its own");
    // One's own limits and priority are one's own business.
    let own =
        "ulimit -n 100 && prlimit --nofile=50 true && nice -n 5 ionice -c 3 taskset 1 true || echo refused";
    let (text, is_error) = sh(hand, &format!("({own})")).await;
    assert!(!is_error && !text.contains("refused"), "{text}");

    let started = std::time::Instant::now();
    let input = serde_json::json!({"command": "sleep 9008", "timeout_ms": 300});
    let (text, is_error) = call(hand, input).await;
    assert!(is_error && text.contains("took longer than 300 ms"), "{text}");
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
    assert_eq!(sleepers(hand).await, "");
}

#[tokio::test]
async fn a_process_without_its_first_thread_is_no_dead_one() {
    let fixture = Fixture::new().await;
    let session = SessionId::generate();
    let attached = fixture.attach(&session).await;
    let hand = &*attached.hand;
    let program = "import ctypes, platform, threading, time\n\
                   threading.Thread(target=time.sleep, args=(1000,)).start()\n\
                   number = {'x86_64': 60}.get(platform.machine(), 93)\n\
                   ctypes.CDLL(None).syscall(number, 0)";
    let command = format!("python3 -c \"{program}\"");
    let input = serde_json::json!({"command": command, "timeout_ms": 1000});
    let (text, is_error) = call(hand, input).await;
    assert!(is_error && text.contains("took longer than 1000 ms"), "{text}");
    let (text, _) = sh(hand, "cat /proc/[0-9]*/comm").await;
    assert!(!text.contains("python"), "{text}");
}
