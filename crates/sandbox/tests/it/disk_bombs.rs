//! Sessions that do what they can to hold more of the disk than they may.

use std::time::{Duration, Instant};

use oma_domain::{EventId, SessionId};
use oma_sandbox::protocol::Call;
use oma_sandbox::{Hand, Provider as _};

use crate::support::{Fixture, has_own_kernel, sh};

const MIB: u64 = 1 << 20;

/// A sandbox that may have this much.
async fn with_quota(mebibytes: u64) -> (Fixture, SessionId) {
    let fixture = Fixture::with(|config| config.limits.disk = mebibytes * MIB).await;
    (fixture, SessionId::generate())
}

/// A Python program in which `f` is an open file of that size without a name.
fn deleted_file(mebibytes: u64, rest: &str) -> String {
    format!(
        "cat > /tmp/p.py <<'E'\n\
         import ctypes, os, socket, threading, time\n\
         C = ctypes.CDLL(None)\n\
         C.mmap.restype = ctypes.c_void_p\n\
         f = os.open(str(os.getpid()), os.O_RDWR | os.O_CREAT)\n\
         os.unlink(str(os.getpid()))\n\
         for _ in range({mebibytes}): os.write(f, b'x' * (1 << 20))\n\
         {rest}\n\
         print('survived')\n\
         E\n\
         python3 /tmp/p.py"
    )
}

/// Puts the workspace over its quota.
async fn overfill(hand: &dyn Hand) {
    let (text, failed) = sh(
        hand,
        "i=0; while head -c 1M /dev/zero > f$i; do i=$((i + 1)); done",
    )
    .await;
    assert!(failed && text.contains("over its disk quota"), "{text}");
}

async fn size(fixture: &Fixture, session: &SessionId, name: &str) -> u64 {
    let path = fixture.data.join("workspaces").join(session.as_str()).join(name);
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

#[tokio::test]
async fn deleted_files_count_as_long_as_they_are_held() {
    for hold in [
        "time.sleep(20)",
        // In a thread's own table of descriptors.
        "done = threading.Event()\n\
         def hold():\n C.unshare(0x400)\n done.set()\n time.sleep(20)\n\
         threading.Thread(target=hold).start()\n\
         done.wait()\nos.close(f)\ntime.sleep(20)",
        // Mapped only.
        "C.mmap(None, 32 << 20, 1, 1, f, 0)\nos.close(f)\ntime.sleep(20)",
    ] {
        // A container's own filter does not let a thread have a table of its own.
        if crate::support::engine().is_some() && hold.contains("unshare") {
            continue;
        }
        let (fixture, session) = with_quota(16).await;
        let attached = fixture.attach(&session).await;
        let (text, failed) = sh(&*attached.hand, &deleted_file(32, hold)).await;
        assert!(failed && text.contains("over its disk quota"), "{hold}: {text}");
        assert!(!text.contains("survived"), "{hold}: {text}");
        // With its process, what it held is gone.
        let (text, failed) = sh(&*attached.hand, "echo x > y; cat y").await;
        assert!(!failed && text.starts_with('x'), "{hold}: {text}");
        fixture.local.destroy(&session).await.unwrap();
        fixture.assert_nothing_left();
    }
}

#[tokio::test]
async fn a_shell_that_holds_a_deleted_file_is_told() {
    let (fixture, session) = with_quota(8).await;
    let attached = fixture.attach(&session).await;
    let fill = "exec 9> f; rm f; while head -c 1M /dev/zero >&9; do sleep 0.02; done";
    let (text, failed) = sh(&*attached.hand, fill).await;
    assert!(
        failed && text.contains("deleted files that processes still use"),
        "{text}"
    );
    let (text, _) = sh(&*attached.hand, "echo x > y").await;
    assert!(
        text.contains("File too large") && text.contains("over its disk quota"),
        "{text}"
    );
    let (text, _) = sh(&*attached.hand, "exec 9>&-; echo closed").await;
    assert!(
        text.starts_with("closed") && text.contains("room on the disk again"),
        "{text}"
    );
    let (text, failed) = sh(&*attached.hand, "echo x > y; cat y").await;
    assert!(!failed && text.starts_with('x'), "{text}");
    fixture.local.destroy(&session).await.unwrap();
}

#[tokio::test]
async fn what_is_small_or_elsewhere_is_let_be() {
    // (quota, commands): what can't be measured is suspected when the disk loses as much as the quota, and the
    // tests beside this one fill the disk as well.
    let harmless = [
        (
            16,
            vec![
                deleted_file(4, "time.sleep(1)"),
                deleted_file(
                    0,
                    "os.chdir('/tmp')\ng = os.open('.', os.O_RDWR | os.O_TMPFILE)\n\
                     os.write(g, b'x' * (20 << 20))\ntime.sleep(1)",
                ),
                deleted_file(
                    0,
                    "m = os.memfd_create('m')\nos.write(m, b'x' * (20 << 20))\ntime.sleep(1)",
                ),
            ],
        ),
        (
            64 << 10,
            vec![
                deleted_file(4, "C.mmap(None, 4096, 1, 1, f, 0)\nos.close(f)\ntime.sleep(1)"),
                deleted_file(
                    4,
                    "a, b = socket.socketpair()\nsocket.send_fds(a, [b'x'], [f])\nos.close(f)\ntime.sleep(1)",
                ),
                // A program that may not be read can't be looked at.
                "cp /bin/sleep s; chmod 111 s; ./s 1; rm -f s; echo survived".to_owned(),
            ],
        ),
    ];
    for (quota, commands) in harmless {
        let (fixture, session) = with_quota(quota).await;
        let attached = fixture.attach(&session).await;
        for command in commands {
            // gVisor makes no file without a name, and runs no program that may not be read.
            if has_own_kernel()
                && ["O_TMPFILE", "chmod 111"]
                    .iter()
                    .any(|part| command.contains(part))
            {
                continue;
            }
            assert_eq!(
                sh(&*attached.hand, &command).await,
                ("survived".to_owned(), false),
                "{command}"
            );
        }
        fixture.local.destroy(&session).await.unwrap();
    }
}

#[tokio::test]
async fn over_the_quota_no_limit_can_be_raised() {
    let (fixture, session) = with_quota(4).await;
    let attached = fixture.attach(&session).await;
    overfill(&*attached.hand).await;
    let attempts = [
        "ulimit -S -f unlimited; head -c 100k /dev/zero > y",
        "ulimit -S -f 100000; echo x > y",
        "prlimit --fsize=1000000: head -c 100k /dev/zero > y",
        "python3 -c 'import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (1 << 20, r.getrlimit(r.RLIMIT_FSIZE)[1]))'; \
         head -c 100k /dev/zero > y",
        "fallocate -n -l 1M y; fallocate -l 1M y",
    ];
    for is_fresh in [false, true] {
        for attempt in attempts {
            if is_fresh {
                sh(&*attached.hand, "exit").await;
            }
            let (text, _) = sh(
                &*attached.hand,
                &format!("{attempt}; find y -printf 'has %b blocks'"),
            )
            .await;
            assert!(text.contains("has 0 blocks"), "{is_fresh} {attempt}: {text}");
            assert!(text.contains("over its disk quota"), "{attempt}: {text}");
        }
        let limit = "python3 -c 'import resource as r; print(*r.getrlimit(r.RLIMIT_FSIZE))'";
        let (text, _) = sh(&*attached.hand, limit).await;
        assert!(text.starts_with("0 0\n"), "{text}");
    }
    // Output does not go through files, and what is no file can be written to.
    let (text, failed) = sh(
        &*attached.hand,
        "seq 100000 | tail -n 1 | tee /dev/null; cat <<< here",
    )
    .await;
    assert!(!failed && text.starts_with("100000\nhere\n"), "{text}");
    let (long, _) = sh(&*attached.hand, "seq 100000").await;
    assert!(
        long.contains("could not be kept") && long.contains("99999"),
        "{long}"
    );
    for (tool, input) in [
        ("write", serde_json::json!({"file_path": "y", "content": "x"})),
        (
            "write",
            serde_json::json!({"file_path": "/tmp/y", "content": "x"}),
        ),
        (
            "edit",
            serde_json::json!({"file_path": "/etc/passwd", "old_string": "root", "new_string": "x"}),
        ),
    ] {
        let call = Call {
            tool: tool.to_owned(),
            input,
        };
        let reply = attached.hand.run(&EventId::generate(), call).await.unwrap();
        let (text, failed) = crate::support::said(&reply);
        assert!(failed && text.contains("over its disk quota"), "{tool}: {text}");
    }
    assert_eq!(size(&fixture, &session, "y").await, 0);
    fixture.local.destroy(&session).await.unwrap();
}

#[tokio::test]
async fn over_the_quota_nobody_creeps_up() {
    let (fixture, session) = with_quota(4).await;
    let attached = fixture.attach(&session).await;
    overfill(&*attached.hand).await;
    // Files without content are all that can be made.
    let make =
        |count: u32| format!("for i in $(seq {count}); do : > e{count}-$i; done; sleep 3 && echo survived");
    for count in [200, 10] {
        let (text, failed) = sh(&*attached.hand, &make(count)).await;
        assert!(
            failed && text.contains("were killed") && !text.contains("survived"),
            "{count}: {text}"
        );
    }
    // However much there is, what makes room is let be.
    let remove = "python3 -c 'import glob, os, time\nfor f in glob.glob(\"e*\"): os.remove(f), time.sleep(0.005)'; \
                  sleep 0.3; echo done";
    let (text, failed) = sh(&*attached.hand, remove).await;
    assert!(!failed && text.starts_with("done\n"), "{text}");
    let (text, failed) = sh(&*attached.hand, "rm f*; echo done").await;
    assert!(!failed && text.contains("room on the disk again"), "{text}");
    fixture.local.destroy(&session).await.unwrap();
}

#[tokio::test]
async fn space_is_reserved_by_writing_only() {
    let (fixture, session) = with_quota(16).await;
    let attached = fixture.attach(&session).await;
    let (text, _) = sh(
        &*attached.hand,
        "fallocate -l 1M a; fallocate -n -l 1M a; find a -printf %b",
    )
    .await;
    assert!(text.contains("not supported") && text.ends_with("\n0"), "{text}");
    let fall_back = "python3 -c 'import os; f = os.open(\"b\", os.O_RDWR | os.O_CREAT); \
                     os.posix_fallocate(f, 0, 1 << 20); print(os.fstat(f).st_blocks >= 2048)'";
    assert_eq!(sh(&*attached.hand, fall_back).await, ("True".to_owned(), false));
    // gVisor has nothing given back.
    if !has_own_kernel() {
        let give_back = "fallocate -p -o 0 -l 512K b && find b -printf %b";
        let (text, failed) = sh(&*attached.hand, give_back).await;
        assert!(
            !failed && text.parse::<u32>().is_ok_and(|blocks| blocks < 2_048),
            "{text}"
        );
    }
    fixture.local.destroy(&session).await.unwrap();
}

/// Where nobody else writes while the lock is held, so that the free space tells something.
const ALONE: &str = "/dev/shm";

fn lock() -> std::fs::File {
    let lock = std::fs::File::open(ALONE).unwrap();
    lock.lock().unwrap();
    lock
}

/// A data folder there. It lies in memory, so sessions need some.
async fn alone(adjust: impl FnOnce(&mut oma_sandbox::local::Config)) -> Fixture {
    Fixture::in_folder(crate::support::Folder::below(ALONE), |config| {
        config.limits.memory = 1 << 30;
        adjust(config);
    })
    .await
}

#[tokio::test]
async fn a_bomb_that_hides_what_it_holds() {
    let _lock = lock();
    for hide in [
        "C.mmap(None, 4096, 1, 1, f, 0)\nos.close(f)",
        "a, b = socket.socketpair()\nsocket.send_fds(a, [b'x'], [f])\nos.close(f)",
    ] {
        // gVisor does not tell of a socket whether descriptors wait in it.
        if has_own_kernel() && hide.contains("send_fds") {
            continue;
        }
        let fixture = alone(|config| config.limits.disk = 64 * MIB).await;
        let session = SessionId::generate();
        let attached = fixture.attach(&session).await;
        // Each file is small enough for the time that it can be seen.
        let rest = format!("{hide}\ntime.sleep(20)");
        let command = deleted_file(40, &rest);
        let parts = format!(
            "{}\npython3 /tmp/p.py & python3 /tmp/p.py & wait; echo survived",
            command.replace("python3 /tmp/p.py", ": ")
        );
        let begun = Instant::now();
        let (text, failed) = sh(&*attached.hand, &parts).await;
        assert!(failed && text.contains("over its disk quota"), "{hide}: {text}");
        assert!(
            begun.elapsed() < Duration::from_secs(15),
            "{hide}: {:?}",
            begun.elapsed()
        );
        let (text, _) = sh(&*attached.hand, "cat /proc/[0-9]*/comm").await;
        assert!(
            !text.lines().any(|line| line.starts_with("python")),
            "{hide}: {text}"
        );
        fixture.local.destroy(&session).await.unwrap();
        fixture.assert_nothing_left();
    }
}

#[tokio::test]
async fn a_bomb_that_fills_the_disk_unseen() {
    let _lock = lock();
    let free = {
        let stat = rustix::fs::statvfs(ALONE).unwrap();
        stat.f_bavail * stat.f_frsize
    };
    let fixture = alone(|config| {
        config.limits.disk = 8 << 30;
        config.limits.disk_floor = free - 64 * MIB;
    })
    .await;
    let (session, other) = (SessionId::generate(), SessionId::generate());
    let attached = fixture.attach(&session).await;
    let neighbour = fixture.attach(&other).await;
    let waiting = tokio::spawn(async move { sh(&*neighbour.hand, "sleep 10; echo fine").await });
    // Its length is known before the disk is full, and the rest is written through memory, which no limit on
    // files stops.
    let rest = "os.ftruncate(f, 400 << 20)\n\
                m = C.mmap(None, 400 << 20, 3, 1, f, 0)\n\
                os.close(f)\n\
                time.sleep(6)\n\
                for i in range(400):\n ctypes.memset(m + (i << 20), 1, 1 << 20)\n time.sleep(0.02)";
    let (text, failed) = sh(&*attached.hand, &deleted_file(0, rest)).await;
    assert!(
        failed && text.contains("almost full") && text.contains("were killed"),
        "{text}"
    );
    assert!(!text.contains("survived"), "{text}");
    let (text, failed) = waiting.await.unwrap();
    assert!(
        !failed && text.starts_with("fine"),
        "who does nothing is let be: {text}"
    );
    for session in [session, other] {
        fixture.local.destroy(&session).await.unwrap();
    }
    fixture.assert_nothing_left();
}
