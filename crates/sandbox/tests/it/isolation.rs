//! What a session can't see, reach or do.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use oma_domain::SessionId;
use oma_sandbox::Provider as _;

use crate::support::{Fixture, engine, exe, sh};

#[tokio::test]
async fn a_hostile_program_is_refused() {
    // The program takes more room than sessions of these tests have.
    let fixture = Fixture::with(|config| config.limits.disk = 512 << 20).await;
    let session = SessionId::generate();
    let attached = fixture.attach(&session).await;
    let name = format!("oma-test-{session}");
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();

    let program = fixture
        .data
        .join("workspaces")
        .join(session.as_str())
        .join("probe");
    std::fs::copy(exe(), &program).unwrap();
    let (text, failed) = sh(&*attached.hand, &format!("./probe probe {name}")).await;
    assert!(!failed, "{text}");
    let results: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    assert!(results.len() > 50, "{text}");
    for (name, result) in &results {
        let expected = match *name {
            "abstract-socket" => "refused",
            "x32" => "killed 31",
            "clone3" => "errno 38",
            "preallocate" | "preallocate-ioctl" | "preallocate-ioctl64" | "zero-range-ioctl" => "errno 95",
            // Let through, and without a file.
            "punch-hole" => "errno 9",
            "netlink" | "packet" | "vsock" | "bluetooth" | "alg" => "errno 97",
            name if name.starts_with("allowed-") => "ok",
            "raw-ip" | "setgroups" => "errno 1",
            // There is no such user inside; in a container there is.
            "setuid-root" if engine().is_none() => "errno 22",
            name if name.contains("init-") && !name.contains("module") => "errno 13",
            "kernel-memory" | "disk" | "shadow" => "errno 2",
            "hostname-write" | "core-pattern-write" => "errno",
            // Covered by /dev/null where there is one, and so open to writing.
            "sysrq" if *result == "errno 2" => continue,
            "sysrq" => "ok",
            _ => "errno 1",
        };
        assert!(
            result.starts_with(expected),
            "{name}: {result}, expected {expected}"
        );
    }
    fixture.local.destroy(&session).await.unwrap();
}

#[tokio::test]
async fn the_host_is_out_of_sight() {
    let fixture = Fixture::new().await;
    let session = SessionId::generate();
    let other = SessionId::generate();
    let (attached, neighbour) = (fixture.attach(&session).await, fixture.attach(&other).await);
    let marker = format!("secret-of-{other}");
    sh(
        &*neighbour.hand,
        &format!("echo {marker} > {marker}; (exec -a {marker} sleep 1000) &"),
    )
    .await;
    let data = fixture.data.display();
    // (name, command, what must be in the answer, what must not)
    let cases: &[(&str, &str, &[&str], &[&str])] = &[
        (
            "who",
            "id -un; id -gn; id -Gn; hostname; echo $HOME",
            &["agent\nagent\nagent\nsandbox\n/workspace"],
            &[],
        ),
        (
            "the root",
            "ls -A / | tr '\\n' ' '",
            &["bin dev etc lib"],
            if engine().is_none() {
                &["home", "root", "run", "sys", "work "]
            } else {
                &["home", "root", "work "]
            },
        ),
        (
            "the data folder",
            &format!("ls {data} 2>&1; ls /workspace/.. | wc -l"),
            &["No such file"],
            &[],
        ),
        (
            "processes",
            "ls /proc | grep -c '^[0-9]'; cat /proc/[0-9]*/cmdline | tr '\\0' ' '",
            &[],
            &[&marker],
        ),
        (
            "the environment",
            "env",
            &["USER=agent"],
            &["CARGO", "NEXTEST", "TMPDIR=/tmp/"],
        ),
        (
            "privileges",
            "grep -E '^(Cap|NoNew|Seccomp:|Groups)' /proc/self/status | tr -s '\\t' ' '",
            &[
                "CapInh: 0000000000000000",
                "CapPrm: 0000000000000000",
                "CapEff: 0000000000000000",
                "CapBnd: 0000000000000000",
                "CapAmb: 0000000000000000",
                "NoNewPrivs: 1",
                "Seccomp: 2",
            ],
            &[],
        ),
        (
            "writing",
            "for f in /x /usr/x /etc/x /dev/x /bin/x /proc/sys/x /var/x; do touch $f 2>/dev/null && echo $f; done; \
             for f in /tmp/x /var/tmp/x /dev/shm/x /workspace/x; do touch $f && echo fine; done",
            &["fine\nfine\nfine\nfine"],
            &["/x"],
        ),
        (
            "the network",
            "tail -n +3 /proc/net/dev | cut -d: -f1; cat /proc/net/route | wc -l",
            &["lo\n1"],
            &["eth"],
        ),
        (
            "a terminal",
            "tty; ps -o tty= -p $$ 2>/dev/null; : > /dev/tty",
            &["not a tty", "No such device"],
            &[],
        ),
        (
            "a device",
            "cp -a /dev/null d 2>&1; mknod d c 1 3 2>&1",
            &["Operation not permitted"],
            &[],
        ),
        (
            "setuid",
            "chmod 4755 x 2>&1; (unshare -U true; mount -t tmpfs t /tmp; nsenter -t 1 -m true) 2>&1",
            &["unshare:", "mount:"],
            &[],
        ),
        ("mounts", "cat /proc/self/mountinfo", &["/workspace"], &[&marker]),
        (
            "a pseudo terminal",
            "script -qc 'tty' /dev/null",
            &["/dev/pts/0"],
            &[],
        ),
        (
            "threads and tools",
            "python3 -c 'import threading; t=threading.Thread(target=print,args=(\"py\",)); t.start(); t.join()'; perl -e 'print \"perl\\n\"'; git --version",
            &["py\nperl\ngit version"],
            &[],
        ),
    ];
    for (name, command, with, without) in cases {
        let (text, _) = sh(&*attached.hand, command).await;
        for part in *with {
            assert!(text.contains(part), "{name}: no {part:?} in\n{text}");
        }
        for part in *without {
            assert!(!text.contains(part), "{name}: {part:?} in\n{text}");
        }
    }
    for session in [session, other] {
        fixture.local.destroy(&session).await.unwrap();
    }
}

#[tokio::test]
async fn the_network_is_out_of_reach() {
    let fixture = Fixture::new().await;
    let session = SessionId::generate();
    let attached = fixture.attach(&session).await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let own = "python3 -m http.server 8765 --bind 127.0.0.1 >/dev/null 2>&1 & \
               until (exec 3<>/dev/tcp/127.0.0.1/8765) 2>/dev/null; do :; done; echo reached";
    let targets = [
        format!("127.0.0.1/{port}"),
        "169.254.169.254/80".into(),
        "1.1.1.1/53".into(),
        "192.0.2.2/80".into(),
    ];
    for target in targets {
        let (text, _) = sh(&*attached.hand, &format!("exec 3<>/dev/tcp/{target}")).await;
        let refused = text.contains("refused") || text.contains("unreachable");
        assert!(refused, "{target}: {text}");
    }
    assert!(
        sh(&*attached.hand, own).await.0.contains("reached"),
        "a server of its own"
    );
    let (text, _) = sh(&*attached.hand, "getent ahosts example.com || echo unknown").await;
    assert_eq!(text, "unknown");
    fixture.local.destroy(&session).await.unwrap();
}

/// Tries all that there is to signal the hand with.
pub(crate) const SIGNALS: &str = include_str!("signals.py");

#[tokio::test]
async fn the_hand_can_not_be_killed_from_inside_by_any_way_there_is() {
    let fixture = Fixture::new().await;
    let session = SessionId::generate();
    let attached = fixture.attach(&session).await;
    let files = fixture.local.workspace(&session).await.unwrap();
    files.write("signals.py", SIGNALS.into()).await.unwrap();
    // What is let through, Linux keeps from a first process.
    let (text, failed) = sh(&*attached.hand, "/usr/bin/python3 signals.py").await;
    assert!(!failed && text.ends_with("tried True"), "{text}");
    assert_eq!(sh(&*attached.hand, "echo alive").await.0, "alive");
    fixture.local.destroy(&session).await.unwrap();
}

#[tokio::test]
async fn the_hand_can_not_be_killed_from_inside() {
    let fixture = Fixture::new().await;
    let session = SessionId::generate();
    let attached = fixture.attach(&session).await;
    for signal in ["KILL", "TERM", "STOP", "SEGV", "INT", "HUP"] {
        sh(&*attached.hand, &format!("kill -{signal} 1")).await;
    }
    sh(&*attached.hand, "kill -9 -1").await;
    sh(&*attached.hand, "pkill -9 . ; sleep 0").await;
    assert_eq!(
        sh(&*attached.hand, "echo alive").await,
        ("alive".to_owned(), false)
    );
    fixture.local.destroy(&session).await.unwrap();
}
