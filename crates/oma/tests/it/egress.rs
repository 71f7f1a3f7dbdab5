//! The proxy of a sandbox as a process: what it has, what it can't do, and what its end means.

use std::fs;
use std::path::PathBuf;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::system::client::Chat;
use crate::system::{System, soon};

const MODEL: &str = "anthropic/claude-sonnet-4-5";

/// A server that repeats the first words of each connection, and is then silent.
async fn web() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut heard = [0; 8192];
                while let Ok(read @ 1..) = stream.read(&mut heard).await {
                    let _ = stream.write_all(&heard[..read]).await;
                }
            });
        }
    });
    port
}

async fn system(port: u16) -> System {
    System::start_with(|options| {
        options
            .set("OPENCLAW_SANDBOX_EGRESS_ALLOW", &format!("good.test:{port}"))
            .set("OPENCLAW_SANDBOX_EGRESS_HOSTS", "good.test=127.0.0.1")
    })
    .await
}

/// The proxies that a server has started.
fn proxies(server: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{server}/task")).expect("it runs");
    let children = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    let children: Vec<String> = children.collect();
    let pids = children.iter().flat_map(|text| text.split_whitespace());
    pids.filter_map(|pid| pid.parse().ok())
        .filter(|pid| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command.ends_with(b"\0egress\0")
        })
        .collect()
}

/// Has a process in the sandbox say a word through a tunnel, and gives what comes back.
async fn say(chat: &Chat, port: u16, word: &str) -> String {
    let program = format!(
        "exec 3<>/dev/tcp/127.0.0.1/61419; printf 'CONNECT good.test:{port} HTTP/1.1\\r\\n\\r\\n' >&3; \
         while read -r line <&3; do [ \"$line\" = $'\\r' ] && break; done; printf '{word}\\n' >&3; head -n 1 <&3"
    );
    let result = chat.run(&program).await;
    result["content"].as_str().expect("text").trim().to_owned()
}

/// Waits for the end of a process.
async fn ended(pid: i32) {
    let pid = Pid::from_raw(pid).expect("a pid");
    // One that is gone already has ended.
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
        return;
    };
    let waiting = tokio::task::spawn_blocking(move || {
        let mut polled = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut polled, None)
    });
    soon("its end", waiting).await.expect("waited").expect("polled");
}

fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.strip_prefix(':'))
        .unwrap_or_else(|| panic!("no {name}: {status}"))
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

#[tokio::test]
async fn a_sandbox_that_wants_out_gets_a_proxy_that_has_nothing_else() {
    let port = web().await;
    let system = system(port).await;
    let client = system.client();
    let (chat, other) = (client.session_of(MODEL).await, client.session_of(MODEL).await);
    chat.run("echo here").await;
    let server = system.server.pid();
    assert!(proxies(server).is_empty(), "nobody has knocked yet");
    assert_eq!(say(&chat, port, "word").await, "word");
    let [proxy] = proxies(server)[..] else {
        panic!("{:?}", proxies(server));
    };
    let status = fs::read_to_string(format!("/proc/{proxy}/status")).expect("it runs");
    assert_eq!(field(&status, "NoNewPrivs"), "1");
    // In all of its threads.
    for task in fs::read_dir(format!("/proc/{proxy}/task")).expect("it runs") {
        let Ok(status) = fs::read_to_string(task.expect("readable").path().join("status")) else {
            continue;
        };
        assert_eq!(field(&status, "Seccomp"), "2");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(&status, set), "0000000000000000", "{set}");
    }
    if rustix::process::geteuid().is_root() {
        assert_eq!(field(&status, "Uid"), "65534 65534 65534 65534");
        assert_eq!(field(&status, "Gid"), "65534 65534 65534 65534");
        assert_eq!(field(&status, "Groups"), "");
    }
    assert_eq!(fs::read(format!("/proc/{proxy}/environ")).expect("readable"), b"");
    assert_eq!(
        fs::read_link(format!("/proc/{proxy}/cwd")).expect("readable"),
        PathBuf::from("/")
    );
    for entry in fs::read_dir(format!("/proc/{proxy}/fd")).expect("readable") {
        let Ok(open) = fs::read_link(entry.expect("readable").path()) else {
            // It has been closed meanwhile.
            continue;
        };
        let open = open.to_string_lossy().into_owned();
        let is_fit = ["socket:", "pipe:", "anon_inode:"]
            .iter()
            .any(|kind| open.starts_with(kind));
        assert!(is_fit || open == "/dev/null", "{open}");
    }
    // Each sandbox has one of its own, and its end is that of the sandbox.
    assert_eq!(say(&other, port, "word").await, "word");
    assert_eq!(proxies(server).len(), 2);
    system.client().delete(&chat.path("")).await.good();
    ended(proxy).await;
    assert_eq!(say(&other, port, "still").await, "still");
    system.stop().await;
}

#[tokio::test]
async fn a_proxy_that_breaks_is_replaced_and_takes_nobody_along() {
    let port = web().await;
    let system = system(port).await;
    let chat = system.client().session_of(MODEL).await;
    assert_eq!(say(&chat, port, "before").await, "before");
    let hold = format!(
        "{{ exec 3<>/dev/tcp/127.0.0.1/61419; printf 'CONNECT good.test:{port} HTTP/1.1\\r\\n\\r\\n' >&3; \
         cat <&3 >/dev/null; echo ended > ended; }} & echo held"
    );
    chat.run(&hold).await;
    let server = system.server.pid();
    let proxy = proxies(server)[0];
    kill_process(Pid::from_raw(proxy).expect("a pid"), Signal::KILL).expect("it runs");
    let seen = chat
        .run("until [ -s ended ]; do sleep 0.05; done; cat ended")
        .await;
    assert_eq!(seen["content"].as_str().expect("text").trim(), "ended");
    assert_eq!(say(&chat, port, "after").await, "after");
    assert!(!proxies(server).contains(&proxy));
    assert!(system.data.log().contains("the proxy of a sandbox has ended"));
    system.stop().await;
}

#[tokio::test]
async fn a_proxy_dies_with_its_server() {
    let port = web().await;
    let system = system(port).await;
    let chat = system.client().session_of(MODEL).await;
    chat.run("sleep 600 >/dev/null & echo held").await;
    assert_eq!(say(&chat, port, "before").await, "before");
    let proxy = proxies(system.server.pid())[0];
    let system = system.crash().await;
    ended(proxy).await;
    let chat = chat.at(system.client());
    assert_eq!(say(&chat, port, "after").await, "after");
    assert!(!proxies(system.server.pid()).contains(&proxy));
    system.stop().await;
}
