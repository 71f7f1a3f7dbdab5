//! What an agent's commands can't reach, and where the server's secrets never show (I9, I10), with everything in
//! place: server, sandbox, provider, clients.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use oma_fake_provider::Reply;
use serde_json::{Value, json};

use crate::system::client::{Chat, is_end};
use crate::system::{MODEL_KEY, System, leftovers};

const MODEL: &str = "anthropic/claude-sonnet-4-5";
const TOKEN: &str = "canary-api-token-2c77";
const SEARCH_KEY: &str = "canary-search-key-aa10";
const NEIGHBOUR: &str = "neighbour-e613";

/// What must not show anywhere.
const SECRETS: [&str; 3] = [MODEL_KEY, TOKEN, SEARCH_KEY];

async fn start() -> System {
    System::start_with(|options| {
        options
            .token(TOKEN)
            .set("OPENCLAW_SEARCH_PROVIDER", "brave")
            .set("OPENCLAW_SEARCH_API_KEY", SEARCH_KEY)
            .set("OPENCLAW_LOG_LEVEL", "trace")
    })
    .await
}

/// Runs a command in the sandbox; what it printed.
async fn run(chat: &Chat, command: &str) -> String {
    let result = chat.run(command).await;
    result["content"].as_str().expect("text").to_owned()
}

#[tokio::test]
async fn commands_see_nothing_of_the_server() {
    let system = start().await;
    let chat = system.client().session_of(MODEL).await;
    let other = system.client().session_of(MODEL).await;
    system
        .client()
        .put(&other.file_path("secret.txt"), NEIGHBOUR)
        .await
        .good();
    run(&other, "sleep 600 & echo started").await;
    let data = system.data.path();
    let folder = data.display();
    let pid = system.server.pid();
    // The server runs as the user who runs the tests.
    let home = std::env::var("HOME").expect("a home");
    let looks = [
        "env; export -p; set".to_owned(),
        "cat /proc/*/environ /proc/*/cmdline /proc/self/environ /proc/1/environ | tr '\\0' '\\n'".to_owned(),
        format!(
            "cat /proc/{pid}/environ /proc/{pid}/cmdline; ls -l /proc/{pid} /proc/{pid}/fd /proc/{pid}/root/"
        ),
        format!("ls -la {folder} {folder}/workspaces {folder}/sandboxes /tmp; cat {folder}/store.db*"),
        format!(
            "cat {folder}/workspaces/{}/secret.txt ../{}/secret.txt",
            other.session, other.session
        ),
        format!(
            "ls -la / /home /var /run /mnt /media /srv /opt /boot; ls -la '{home}'; cat '{home}'/.* /home/*/.*"
        ),
        "find / -xdev \\( -name 'store.db*' -o -name '*.sock' -o -name 'secret.txt' \\) 2>/dev/null"
            .to_owned(),
        "cat /proc/self/mounts; cat /proc/1/mountinfo | cut -d' ' -f5".to_owned(),
        "ps aux 2>/dev/null; for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; done".to_owned(),
        "ls -l /proc/*/fd /proc/*/map_files /proc/*/ns".to_owned(),
        "dd if=/proc/1/mem bs=4096 count=1; dd if=/dev/mem bs=4096 count=1; dd if=/dev/kmsg count=1; dmesg"
            .to_owned(),
        "cat /etc/shadow /etc/gshadow /etc/ssh/*key /etc/sudoers".to_owned(),
        "ls -la /sys /sys/fs/cgroup; cat /proc/keys /proc/kcore /proc/sched_debug".to_owned(),
    ];
    let mut seen = String::new();
    for look in &looks {
        seen.push_str(&run(&chat, &format!("{{ {look} ; }} 2>&1; true")).await);
    }
    for secret in SECRETS.iter().chain(&[NEIGHBOUR]) {
        assert!(!seen.contains(secret), "{secret} is seen: {seen}");
    }
    assert!(
        !seen.contains("sleep 600"),
        "another session's processes are seen: {seen}"
    );
    assert!(!seen.contains("root:$") && !seen.contains("root:*"), "{seen}");
    // The workspace itself is a mount of a folder of that name; besides that nobody gets to know the others.
    assert!(
        !seen.contains(&other.session.clone()) || !seen.contains("secret.txt\n"),
        "{seen}"
    );
    assert!(!run(&chat, "ls -A /workspace").await.contains("secret"));

    // What it may not do to the machine.
    let tries = [
        "touch /usr/x",
        "touch /etc/x",
        "touch /x",
        "mkdir /workspace/../y",
        "mount -t tmpfs none /mnt",
        "mount --bind / /tmp",
        "unshare -Ur true",
        "unshare -m true",
        "chroot / true",
        "mknod d b 254 0",
        "su -c true",
        "sudo -n true",
        "chown 0 .",
        "hostname evil",
        "date -s 2001-01-01",
        "echo 1 > /proc/sys/kernel/sysrq",
        "nsenter -t 1 -m true",
        "python3 -c 'import os; os.setuid(0)'",
        "renice -n -5 $$",
        "kill -0 1000000",
        "echo c > /proc/sysrq-trigger",
        "ip link add x type dummy",
    ];
    for attempt in tries {
        let said = run(
            &chat,
            &format!("{{ {attempt} ; }} >/dev/null 2>&1 && echo IT-WORKED; true"),
        )
        .await;
        assert!(!said.contains("IT-WORKED"), "{attempt}");
    }
    let status = run(&chat, "cat /proc/self/status").await;
    for line in [
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(status.contains(line), "{line} in {status}");
    }
    system.stop().await;
}

#[tokio::test]
async fn commands_reach_no_port_of_the_machine() {
    let system =
        System::start_with(|options| options.token(TOKEN).set("OPENCLAW_SANDBOX_EGRESS", "false")).await;
    let chat = system.client().session_of(MODEL).await;
    let server: u16 = system
        .client()
        .authority()
        .rsplit(':')
        .next()
        .expect("a port")
        .parse()
        .expect("a number");
    let provider = system.provider.address().port();
    // Here without the doors of sandboxes, which would listen at some of these ports; see `network` for those.
    // All addresses of this machine, its name servers, what clouds have, and the world.
    let mut hosts: Vec<String> = [
        "127.0.0.1",
        "::1",
        "localhost",
        "0.0.0.0",
        "169.254.169.254",
        "1.1.1.1",
        "example.com",
    ]
    .map(str::to_owned)
    .to_vec();
    let addresses = std::process::Command::new("hostname")
        .arg("-I")
        .output()
        .expect("runs")
        .stdout;
    hosts.extend(
        String::from_utf8_lossy(&addresses)
            .split_whitespace()
            .map(str::to_owned),
    );
    let program = format!(
        "import socket, glob\n\
         for host in {hosts:?}:\n  for port in [{server}, {provider}, 22, 53, 80, 443, 2375]:\n    try:\n      \
         socket.create_connection((host, port), 1).close(); print('REACHED', host, port)\n    \
         except OSError as error: print(host, port, error)\n\
         for line in open('/proc/net/unix'): print('unix', line.strip())\n\
         for host in {hosts:?}:\n  try:\n    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(0.2)\n    \
         s.sendto(b'x', (host, 53)); s.recv(1); print('REACHED', host)\n  except OSError as error: print(host, error)\n\
         print('finished')\n"
    );
    let written = system.client().put(&chat.file_path("reach.py"), program).await;
    written.good();
    let said = run(&chat, "python3 reach.py 2>&1; cat /proc/net/tcp /proc/net/route").await;
    assert!(said.contains("finished") && !said.contains("REACHED"), "{said}");
    let served = system.provider.served();
    let shell = format!(
        "for p in {server} {provider}; do timeout 2 bash -c \"exec 3<>/dev/tcp/127.0.0.1/$p\" && echo REACHED; done 2>&1; true"
    );
    assert!(!run(&chat, &shell).await.contains("REACHED"));
    // The two model requests of the turn itself.
    assert_eq!(system.provider.served(), served + 2);

    // The server's own tools don't fetch it for the agent either.
    for url in [
        format!("http://127.0.0.1:{server}/healthz"),
        format!("http://localhost:{provider}/requests"),
        format!("http://[::ffff:127.0.0.1]:{server}/v1/agents"),
        format!("http://0.0.0.0:{server}/healthz"),
        format!("http://2130706433:{server}/healthz"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "file:///etc/passwd".to_owned(),
    ] {
        let events = chat
            .turn(&json!([{"tool": "web_fetch", "input": {"url": url}}, {"text": "done"}]))
            .await;
        let result = events
            .iter()
            .find(|event| event["type"] == "agent.tool_result")
            .expect("one");
        assert_eq!(result["is_error"], true, "{url}: {result}");
        let text = result["content"].as_str().expect("text");
        assert!(
            !text.contains("uptime") && !text.contains("root:"),
            "{url}: {text}"
        );
    }
    system.stop().await;
}

#[tokio::test]
async fn secrets_show_nowhere() {
    let system = start().await;
    let client = system.client();
    let chat = client.session_of(MODEL).await;
    chat.turn(&json!([[{"thinking": "hm"}, {"tool": "bash", "input": {"command": "env > env.txt; sleep 600 &"}}], {"text": "done"}])).await;
    // Providers repeat keys in their refusals; a model may be asked for them; clients send them by mistake.
    for failure in [
        Reply::failure(
            401,
            "authentication_error",
            &format!("Incorrect API key provided: {MODEL_KEY}"),
        ),
        Reply::failure(
            400,
            "invalid_request_error",
            &format!("bad header x-api-key: {MODEL_KEY}"),
        ),
        Reply::new().error("api_error", &format!("upstream refused Bearer {MODEL_KEY}")),
    ] {
        system.provider.push(failure);
        chat.turn(&json!([{"text": "unreachable"}])).await;
    }
    let openai = client.session_of("openai/gpt-5").await;
    openai.post("hello").await;
    openai.follow().await.until(is_end).await;
    for path in [
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/docs",
        "/v1/models",
        "/v1/agents",
        "/v1/sessions",
        &chat.path(""),
        &chat.path("/events"),
        &chat.path("/logs"),
        &openai.path("/events"),
        &format!("/v1/agents/{}", chat.agent),
        "/no/such/path",
        "/v1/sessions/nobody",
    ] {
        client.get(path).await;
    }
    // The server does present the key to the provider, so it was there to be leaked.
    let requests = system.provider.requests();
    assert!(requests.iter().all(|request| {
        let bearer = format!("Bearer {MODEL_KEY}");
        request.header("x-api-key") == Some(MODEL_KEY) || request.header("authorization") == Some(&bearer)
    }));
    assert!(
        !requests
            .iter()
            .any(|request| request.body.to_string().contains(MODEL_KEY))
    );
    let processes: Vec<i32> = leftovers::processes(&system.data.path())
        .into_iter()
        .filter(|pid| *pid != system.server.pid())
        .collect();
    assert!(processes.len() >= 2, "a hand and its command: {processes:?}");
    let mut sandboxed = String::new();
    for pid in &processes {
        sandboxed.push_str(&about(*pid));
    }
    for secret in SECRETS {
        assert!(!sandboxed.contains(secret), "{secret} is in a sandboxed process");
    }
    system.stop().await;
}

/// What a process shows of itself; as root, its memory too.
fn about(pid: i32) -> String {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let mut all = String::new();
    for name in ["environ", "cmdline", "status", "mountinfo"] {
        all.push_str(&String::from_utf8_lossy(
            &fs::read(folder.join(name)).unwrap_or_default(),
        ));
    }
    if !rustix::process::geteuid().is_root() {
        return all;
    }
    let maps = fs::read_to_string(folder.join("maps")).expect("readable");
    let mut memory = fs::File::open(folder.join("mem")).expect("readable");
    for line in maps.lines().filter(|line| line.contains("rw-p")) {
        let (from, to) = line
            .split(' ')
            .next()
            .and_then(|range| range.split_once('-'))
            .expect("a range");
        let number = |text: &str| u64::from_str_radix(text, 16).expect("hexadecimal");
        let (from, to) = (number(from), number(to));
        // Pages that were never touched can't always be read, and have nothing in them.
        if memory.seek(SeekFrom::Start(from)).is_ok() {
            let mut bytes = Vec::new();
            let _ = (&mut memory).take(to - from).read_to_end(&mut bytes);
            all.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    all
}

#[tokio::test]
async fn sessions_are_apart_in_what_they_leave_behind_too() {
    let system = start().await;
    let (one, two) = (
        system.client().session_of(MODEL).await,
        system.client().session_of(MODEL).await,
    );
    run(&one, "echo mine > /tmp/shared; echo mine > /workspace/shared; echo mine > /dev/shm/shared; umask 0; mkfifo /tmp/p").await;
    let seen = run(
        &two,
        "cat /tmp/shared /workspace/shared /dev/shm/shared 2>&1; ls -A /tmp /dev/shm",
    )
    .await;
    assert!(!seen.contains("mine"), "{seen}");
    // A deleted session's key, when it is used again, starts empty.
    let ask = |text: &str, key: &str| {
        let body = json!({"messages": [{"role": "user", "content": format!("script:{}", json!([
            {"tool": "bash", "input": {"command": text}}, {"text": "{{last_tool_result}}"},
        ]))}]});
        let request = system
            .client()
            .request(reqwest::Method::POST, "/v1/chat/completions")
            .header("x-openclaw-agent-id", &one.agent)
            .header("x-openclaw-session-key", key)
            .json(&body);
        let client = system.client().clone();
        async move { client.send(request).await.good() }
    };
    let said = |answer: &Value| {
        answer["choices"][0]["message"]["content"]
            .as_str()
            .expect("text")
            .to_owned()
    };
    assert!(said(&ask("echo was here > note; cat note", "sticky").await).contains("was here"));
    assert!(said(&ask("cat note", "sticky").await).contains("was here"));
    system.client().delete("/v1/sessions/sticky").await.good();
    assert!(!said(&ask("cat note; ls -A", "sticky").await).contains("was here"));
    system.stop().await;
}
