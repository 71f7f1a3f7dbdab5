//! What sandboxes reach: as far as their environments allow, through the server's doors, and by no other way.

mod place;
mod servers;

use reqwest::Method;
use serde_json::{Value, json};

use crate::system::client::Chat;
use crate::system::{System, leftovers, soon};
use place::Place;
use servers::{Tls, clear, endless};

const MODEL: &str = "anthropic/claude-sonnet-4-5";

const HAND_S_VARIABLES: &str = "the hand's variables";

/// Each of these tests once in each place.
macro_rules! in_all_places {
    ($($test:ident),+ $(,)?) => {
        mod local {
            $(#[tokio::test] async fn $test() { super::$test(&super::Place::local()).await; })+
        }

        mod contained {
            $(#[tokio::test] async fn $test() {
                if let Some(place) = super::Place::contained() {
                    super::$test(&place).await;
                }
            })+
        }

        // Over a kernel of their own.
        mod apart {
            $(#[tokio::test] async fn $test() {
                if let Some(place) = super::Place::apart() {
                    super::$test(&place).await;
                }
            })+
        }
    };
}

in_all_places!(
    what_a_list_allows_works_and_nothing_else,
    programs_that_know_of_no_proxy_get_out_as_well,
    rules_that_change_hold_at_once,
    a_restart_of_the_server_leaves_the_way_out,
    there_is_no_way_round_the_doors,
    more_connections_than_there_are_places_wait,
    kills_in_the_middle_of_an_answer_leave_nothing,
    without_a_way_out_there_is_no_network,
);

fn limited() -> Value {
    json!({"type": "limited", "allowedHosts": ["good.test", "*.cdn.test"]})
}

/// A session in an environment with this networking.
async fn session(system: &System, networking: Value) -> (Chat, String) {
    let client = system.client();
    let body = json!({"name": "e", "networking": networking});
    let environment = client.post("/v1/environments", &body).await.good();
    let environment = environment["environment_id"].as_str().expect("an id").to_owned();
    let agent = client.agent(json!({"model": MODEL})).await;
    let body = json!({"agentId": agent, "environmentId": environment});
    let session = client.post("/v1/sessions", &body).await.good();
    let chat = Chat {
        client: client.clone(),
        agent,
        session: session["session_id"].as_str().expect("an id").to_owned(),
    };
    (chat, environment)
}

async fn run(chat: &Chat, command: &str) -> String {
    let result = chat.run(&format!("{{ {command} ; }} 2>&1; true")).await;
    result["content"].as_str().expect("text").to_owned()
}

async fn what_a_list_allows_works_and_nothing_else(place: &Place) {
    let clear = clear(place.web, 0).await;
    let tls = Tls::start(place.web, 0);
    let system = place.start(&[clear, tls.port, 443]).await;
    let (chat, _) = session(&system, limited()).await;
    let tls_port = tls.port;

    // Programs that know of proxies.
    let served = run(&chat, &format!("curl -sS http://good.test:{clear}/")).await;
    assert_eq!(served, "served");
    let served = run(
        &chat,
        &format!("curl -sSk https://good.test:{tls_port}/ | head -c 200"),
    )
    .await;
    assert!(served.contains("HTML") || served.contains("s_server"), "{served}");
    let refused = run(&chat, &format!("curl -sS http://evil.test:{clear}/")).await;
    assert!(
        refused.contains("evil.test") && refused.contains("does not allow"),
        "{refused}"
    );
    let refused = run(&chat, &format!("curl -sSk https://evil.test:{tls_port}/")).await;
    assert!(refused.contains("403"), "{refused}");
    // The inside of a tunnel is for the host of the tunnel.
    let fronted = format!(
        "curl -sSk --connect-to evil.test:{tls_port}:good.test:{tls_port} https://evil.test:{tls_port}/"
    );
    let refused = run(&chat, &fronted).await;
    assert!(refused.contains("curl: ("), "{refused}");

    // Names.
    let python = |host: &str| format!("python3 -c 'import socket; print(socket.gethostbyname(\"{host}\"))'");
    let address = run(&chat, &python("good.test")).await;
    assert!(address.starts_with("127."), "{address}");
    let none = run(&chat, &python("evil.test")).await;
    assert!(none.contains("not known"), "{none}");
    // Over a stream, as for long answers.
    let asked = "python3 -c 'import socket, struct\n\
         q = b\"\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\4good\\4test\\0\\0\\1\\0\\1\"\n\
         s = socket.create_connection((\"127.0.0.1\", 53), 5); s.sendall(struct.pack(\"!H\", len(q)) + q)\n\
         n = struct.unpack(\"!H\", s.recv(2))[0]; a = s.recv(n); print(a[3] & 15, a[7])'";
    assert_eq!(run(&chat, asked).await.trim(), "0 1");

    // What was decided is in the log, and the session is told.
    let log = system.data.log();
    let lines: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &Value| line["message"] == "egress")
        .collect();
    let has = |decision: &str, protocol: &str, host: &str| {
        lines.iter().any(|line| {
            line["decision"] == decision
                && line["protocol"] == protocol
                && line["host"] == host
                && line["session_id"] == json!(chat.session)
        })
    };
    for (decision, protocol, host) in [
        ("allow", "http", "good.test"),
        ("allow", "connect", "good.test"),
        ("deny", "http", "evil.test"),
        ("deny", "connect", "evil.test"),
        ("deny", "connect", "good.test"),
        ("allow", "dns", "good.test"),
        ("deny", "dns", "evil.test"),
    ] {
        assert!(
            has(decision, protocol, host),
            "{decision} {protocol} {host}: {lines:?}"
        );
    }
    let events = chat.events().await;
    let told: Vec<&str> = events
        .iter()
        .filter(|event| event["error_type"] == "host_denied_error")
        .filter_map(|event| event["content"].as_str())
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].contains("evil.test") && told[0].contains("allowed hosts"),
        "{told:?}"
    );
    assert!(system.client().metric("egress_decisions_total").await >= 7.0);
    system.stop().await;
}

async fn programs_that_know_of_no_proxy_get_out_as_well(place: &Place) {
    let _clear = clear(place.web, 80).await;
    let _tls = Tls::start(place.web, 443);
    let system = place.start(&[80, 443]).await;
    let (chat, _) = session(&system, limited()).await;
    let bare = "unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY;";
    assert_eq!(
        run(&chat, &format!("{bare} curl -sS http://good.test/")).await,
        "served"
    );
    assert_eq!(
        run(&chat, &format!("{bare} curl -sS http://a.cdn.test/")).await,
        "served"
    );
    let served = run(
        &chat,
        &format!("{bare} curl -sSk https://good.test/ | head -c 200"),
    )
    .await;
    assert!(served.contains("HTML"), "{served}");
    for url in ["http://evil.test/", "https://evil.test/"] {
        let refused = run(&chat, &format!("{bare} curl -sSk {url}")).await;
        assert!(refused.contains("Could not resolve"), "{refused}");
    }
    // The address is for its name.
    let fronted = format!("{bare} curl -sS -H 'Host: evil.test' http://good.test/");
    let refused = run(&chat, &fronted).await;
    assert!(refused.contains("another host"), "{refused}");
    let fronted = format!("{bare} curl -sSk --connect-to evil.test:443:good.test:443 https://evil.test/");
    let refused = run(&chat, &fronted).await;
    assert!(refused.contains("curl: ("), "{refused}");
    // A hundred at once.
    let many =
        format!("{bare} for n in $(seq 100); do curl -sS --max-time 60 http://good.test/ & done; wait");
    assert_eq!(run(&chat, &many).await, "served".repeat(100));
    system.stop().await;
}

async fn rules_that_change_hold_at_once(place: &Place) {
    let clear = clear(place.web, 0).await;
    let system = place.start(&[clear]).await;
    let (chat, environment) = session(&system, limited()).await;
    let ask = format!("curl -sS http://evil.test:{clear}/");
    assert!(run(&chat, &ask).await.contains("does not allow"));
    let path = format!("/v1/environments/{environment}");
    let claude = |method, networking: Value| {
        system
            .client()
            .request(method, &path)
            .header("anthropic-version", "2023-06-01")
            .header("anthropic-beta", "managed-agents-2026-04-01")
            .json(&json!({"config": {"type": "cloud", "networking": networking}}))
    };
    let open = claude(Method::POST, json!({"type": "unrestricted"}));
    system.client().send(open).await.good();
    // The rules are read anew behind the answer: whoever asks again is let through.
    let until =
        format!("for n in $(seq 100); do {ask} | grep -q served && echo open && break; sleep 0.05; done");
    assert_eq!(run(&chat, &until).await.trim(), "open");
    let closed = claude(Method::POST, json!({"type": "limited", "allowed_hosts": []}));
    system.client().send(closed).await.good();
    let until = format!(
        "for n in $(seq 100); do {ask} | grep -q served || {{ echo closed; break; }}; sleep 0.05; done"
    );
    assert_eq!(run(&chat, &until).await.trim(), "closed");
    system.stop().await;
}

async fn a_restart_of_the_server_leaves_the_way_out(place: &Place) {
    let clear = clear(place.web, 0).await;
    let system = place.start(&[clear]).await;
    let (chat, _) = session(&system, limited()).await;
    let ask = format!("curl -sS http://good.test:{clear}/");
    run(&chat, "sleep 600 >/dev/null & echo started").await;
    assert_eq!(run(&chat, &ask).await, "served");
    let system = system.crash().await;
    let chat = chat.at(system.client());
    assert!(
        run(&chat, "jobs; pgrep sleep || true")
            .await
            .contains(char::is_numeric)
    );
    assert_eq!(run(&chat, &ask).await, "served");
    system.stop().await;
}

async fn there_is_no_way_round_the_doors(place: &Place) {
    let clear = clear(place.web, 0).await;
    let system = place.start(&[clear]).await;
    let (chat, _) = session(&system, limited()).await;
    let (other, _) = session(&system, json!({"type": "unrestricted"})).await;
    assert_eq!(
        run(&other, &format!("curl -sS http://evil.test:{clear}/")).await,
        "served"
    );
    let web = place.web;
    let tries = [
        ("a socket to the world", "exec 3<>/dev/tcp/1.1.1.1/80 && echo REACHED".to_owned()),
        ("a socket to the metadata service", "exec 3<>/dev/tcp/169.254.169.254/80 && echo REACHED".to_owned()),
        ("the metadata service through the proxy", "curl -sSf http://169.254.169.254/latest/ && echo REACHED".to_owned()),
        ("the metadata service past the proxy", "curl -sSf --noproxy '*' --max-time 5 http://169.254.169.254/ && echo REACHED".to_owned()),
        ("the machine's loopback address", format!("exec 3<>/dev/tcp/{web}/{clear} && echo REACHED")),
        ("that through the proxy", format!("NO_PROXY= no_proxy= curl -sSf http://{web}:{clear}/ && echo REACHED")),
        ("another name server", "python3 -c 'import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect((\"1.1.1.1\", 53)); s.send(b\"x\"); print(\"REACHED\")'".to_owned()),
        ("version 6", "python3 -c 'import socket\ns = socket.create_connection((\"2606:4700:4700::1111\", 443), 3); print(\"REACHED\")'".to_owned()),
        ("a raw socket", "python3 -c 'import socket\nsocket.socket(socket.AF_INET, socket.SOCK_RAW, 1); print(\"REACHED\")'".to_owned()),
        ("a packet socket", "python3 -c 'import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3); print(\"REACHED\")'".to_owned()),
        ("a route", "ip route add default dev lo && echo REACHED; ip link add dummy0 type dummy && echo REACHED".to_owned()),
        ("another network namespace", "unshare -rn true && echo REACHED; nsenter -n -t 1 true && echo REACHED".to_owned()),
        ("the proxy's port", "python3 -c 'import socket\ns = socket.socket(); s.bind((\"127.0.0.1\", 61419)); print(\"REACHED\")'".to_owned()),
        ("the name server's port", "python3 -c 'import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((\"127.0.0.1\", 53)); print(\"REACHED\")'".to_owned()),
        ("the port of TLS", "python3 -c 'import socket\ns = socket.socket(); s.setsockopt(1, 2, 1); s.setsockopt(1, 15, 1); s.bind((\"127.0.0.1\", 443)); print(\"REACHED\")'".to_owned()),
        ("the hand's sockets", "ls -l /proc/1/fd && echo REACHED".to_owned()),
        (HAND_S_VARIABLES, "cat /proc/1/environ && echo REACHED".to_owned()),
        ("a name server of its own", "echo nameserver 1.1.1.1 > /etc/resolv.conf && echo REACHED".to_owned()),
        ("names of its own", "echo 127.64.0.1 evil.test >> /etc/hosts && echo REACHED".to_owned()),
        ("a name in the environment", format!("LOCALDOMAIN=good.test HOSTALIASES=/tmp/h curl -sSf http://evil.test:{clear}/ && echo REACHED")),
        ("an address that stands for nothing", "python3 -c 'import socket\ns = socket.create_connection((\"127.64.1.2\", 443), 5); s.sendall(b\"x\"); s.settimeout(5); print(\"REACHED\" if s.recv(1) else \"closed\")'".to_owned()),
        ("git by ssh", "GIT_SSH_COMMAND='ssh -o ConnectTimeout=3' git ls-remote ssh://git@1.1.1.1/x && echo REACHED".to_owned()),
    ];
    // The same means where they lead somewhere: what fails below does not fail for want of a program.
    let controls = [
        "exec 3<>/dev/tcp/127.0.0.1/61419 && echo REACHED".to_owned(),
        format!("curl -sSf http://good.test:{clear}/ && echo REACHED"),
        "python3 -c 'import socket\ns = socket.create_connection((\"127.0.0.1\", 443), 5); print(\"REACHED\")'".to_owned(),
        "python3 -c 'import socket\ns = socket.socket(); s.bind((\"127.0.0.1\", 8080)); print(\"REACHED\")'".to_owned(),
    ];
    for control in &controls {
        let said = run(&chat, control).await;
        assert!(said.contains("REACHED"), "{control}: {said}");
    }
    for (name, attempt) in &tries {
        // gVisor shows them, and there is nothing in them but what every command has.
        if place.runtime.is_some() && *name == HAND_S_VARIABLES {
            continue;
        }
        let said = run(&chat, attempt).await;
        assert!(!said.contains("REACHED"), "{name}: {said}");
    }
    system.stop().await;
}

async fn more_connections_than_there_are_places_wait(place: &Place) {
    let clear = clear(place.web, 0).await;
    let system = place.start(&[clear, 443]).await;
    let (chat, _) = session(&system, json!({"type": "unrestricted"})).await;
    // Each is open until its process says something, and so are the first all at once.
    let program = format!(
        "import socket\n\
         def tunnel():\n    s = socket.create_connection((\"127.0.0.1\", 61419), 30)\n    \
         s.sendall(b\"CONNECT good.test:{clear} HTTP/1.1\\r\\n\\r\\n\"); return s\n\
         def is_answered(s, patience):\n    s.settimeout(patience)\n    try: return s.recv(12) == b\"HTTP/1.1 200\"\n    \
         except TimeoutError: return False\n\
         held = []\n\
         while len(held) < 300:\n    s = tunnel()\n    if not is_answered(s, 6): break\n    held.append(s)\n\
         print(len(held)); held.pop().close(); print(is_answered(s, 20))\n\
         print(socket.gethostbyname(\"good.test\"))\n"
    );
    system
        .client()
        .put(&chat.file_path("tunnels.py"), program)
        .await
        .good();
    let said = run(&chat, "python3 tunnels.py").await;
    let lines: Vec<&str> = said.lines().collect();
    let held: usize = lines[0].parse().unwrap_or_else(|_| panic!("{said}"));
    assert!((80..=96).contains(&held), "{said}");
    assert_eq!(lines[1], "True", "a place that is free is the next one's: {said}");
    assert!(lines[2].starts_with("127."), "names are still answered: {said}");
    system.stop().await;
}

async fn kills_in_the_middle_of_an_answer_leave_nothing(place: &Place) {
    let (port, mut under_way) = endless(place.web).await;
    let system = place.start(&[port]).await;
    let (chat, _) = session(&system, json!({"type": "unrestricted"})).await;
    let bare = "unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY;";
    let download = format!(
        "{{ curl -sSp -x 127.0.0.1:61419 -o /dev/null http://good.test:{port}/; echo $? > ended; }} & echo begun"
    );
    assert_eq!(run(&chat, &format!("{bare} {download}")).await.trim(), "begun");
    soon("the download", under_way.wait_for(|count| *count == 1))
        .await
        .expect("a server");
    // The server's end is that of what it carried: the process hears of it, and can connect anew.
    let system = system.crash().await;
    let chat = chat.at(system.client());
    soon("its end", under_way.wait_for(|count| *count == 0))
        .await
        .expect("a server");
    let ended = run(
        &chat,
        "until [ -s ended ]; do sleep 0.05; done; cat ended; rm ended",
    )
    .await;
    assert_ne!(ended.trim(), "0", "it was cut off, and curl says so");
    assert_eq!(run(&chat, &download).await.trim(), "begun");
    soon("the download", under_way.wait_for(|count| *count == 1))
        .await
        .expect("a server");
    // So is that of the sandbox.
    place.kill(&system, &chat.session);
    soon("its end", under_way.wait_for(|count| *count == 0))
        .await
        .expect("a server");
    let again = format!("curl -sS --max-time 1 -o /dev/null http://good.test:{port}/; echo $?");
    let said = run(&chat, &again).await;
    assert!(said.trim().ends_with("28"), "it lasts as long as it may: {said}");
    system.client().delete(&chat.path("")).await.good();
    let data = system.stop().await;
    assert_eq!(leftovers::find(&data.path()), []);
}

async fn without_a_way_out_there_is_no_network(place: &Place) {
    let system =
        System::start_with(|options| place.adjust(options).set("OPENCLAW_SANDBOX_EGRESS", "false")).await;
    let client = system.client();
    let chat = client.session_of(MODEL).await;
    let said = run(
        &chat,
        "env | grep -i proxy; cat /etc/resolv.conf; exec 3<>/dev/tcp/127.0.0.1/61419",
    )
    .await;
    assert!(!said.contains("http://") && said.contains("refused"), "{said}");
    let body = json!({"name": "e", "networking": limited()});
    let refused = client.post("/v1/environments", &body).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(refused.text().contains("networking"), "{}", refused.text());
    system.stop().await;
}
