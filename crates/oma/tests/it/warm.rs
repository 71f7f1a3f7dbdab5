//! Sandboxes that are started before anybody needs them.

use std::collections::HashSet;
use std::fs;

use serde_json::{Value, json};

use crate::secrets;
use crate::system::client::{Chat, Client};
use crate::system::{Data, Server, System, leftovers, soon};

const MODEL: &str = "anthropic/claude-sonnet-4-5";

async fn start(max_warm: &str) -> System {
    System::start_with(|options| options.set("OPENCLAW_MAX_WARM_CONTAINERS", max_warm)).await
}

/// Until so many are there, and can be given away: their folders are moved then.
async fn ready(client: &Client, data: &Data, count: usize) {
    let is_up = |name: &String| {
        let record = data.path().join("warm/sandboxes").join(name).join("record.json");
        let text = fs::read_to_string(record).unwrap_or_default();
        let record: Value = serde_json::from_str(&text).unwrap_or_default();
        record["hand"].is_object()
    };
    soon("sandboxes in advance", async {
        while names(data).iter().filter(|name| is_up(name)).count() != count
            || client.metric("pool_warm_containers").await != f64::from(u32::try_from(count).expect("few"))
        {
        }
    })
    .await;
}

/// The names of those that belong to nobody.
fn names(data: &Data) -> HashSet<String> {
    let entries = fs::read_dir(data.path().join("warm/sandboxes")).expect("readable");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.collect()
}

/// Where the session's sandbox came from, and how long its start took.
async fn came(client: &Client, session: &str) -> (Value, Value) {
    let view = client.get(&format!("/v1/sessions/{session}")).await.good();
    (view["pool_source"].clone(), view["boot_ms"].clone())
}

fn text(result: &Value) -> &str {
    result["content"].as_str().expect("text")
}

#[tokio::test]
async fn a_session_takes_one_and_keeps_it() {
    let system = start("2").await;
    let client = system.client();
    assert_eq!(client.get("/healthz").await.good()["max_warm"], 2);
    assert_eq!(
        client.metric("pool_warm_containers").await,
        0.0,
        "nobody has asked"
    );
    // An agent that was made is likely to be used.
    let agent = client.agent(json!({"model": MODEL})).await;
    ready(client, &system.data, 2).await;
    let before = names(&system.data);
    let chat = client.session_of(MODEL).await;
    assert_eq!(came(client, &chat.session).await, (Value::Null, Value::Null));
    let result = chat.run("pwd; echo kept > file; ls -A; id -un").await;
    assert_eq!(came(client, &chat.session).await, (json!("warm"), json!(0)));
    assert_eq!(text(&result).trim(), "/workspace\nfile\nagent");
    ready(client, &system.data, 2).await;
    let after = names(&system.data);
    assert_eq!(
        before.intersection(&after).count(),
        1,
        "one of them is the session's"
    );
    assert_eq!(client.get(&chat.file_path("file")).await.text(), "kept\n");
    // What was put into a workspace before its first command is not put aside.
    let given = client.session_of(MODEL).await;
    client.put(&given.file_path("given"), "given").await.good();
    assert_eq!(text(&given.run("cat given").await).trim(), "given");
    assert_eq!(after, names(&system.data), "it has one of its own");
    let cold = came(client, &given.session).await;
    assert_eq!(cold.0, "cold");
    assert!(cold.1.as_u64().is_some_and(|took| took > 0), "{cold:?}");
    given.run("true").await;
    assert_eq!(came(client, &given.session).await, cold, "it is the same one");
    let closed = json!({"name": "closed", "networking": {"type": "limited", "allowedHosts": ["good.test"]}});
    let closed = client.post("/v1/environments", &closed).await.good();
    let body = json!({"agentId": agent, "environmentId": closed["environment_id"]});
    let limited = client.post("/v1/sessions", &body).await.good();
    let limited = Chat {
        client: client.clone(),
        agent: agent.clone(),
        session: limited["session_id"].as_str().expect("an id").to_owned(),
    };
    client.put(&limited.file_path("given"), "given").await.good();
    limited.run("true").await;
    assert_eq!(came(client, &limited.session).await.0, "limited");

    // They end with the server, whichever way, and the next one has others, for what was used last.
    let busy = client.session_of(MODEL).await;
    let asked = client.post(&format!("/v1/agents/{agent}/warm"), &json!({})).await;
    assert_eq!(asked.status, 202);
    ready(client, &system.data, 2).await;
    busy.run("sleep 1000 >/dev/null 2>&1 & echo $! > pid").await;
    ready(client, &system.data, 2).await;
    let before = names(&system.data);
    let system = system.crash().await;
    let client = system.client();
    ready(client, &system.data, 2).await;
    assert!(before.is_disjoint(&names(&system.data)));
    let (chat, busy) = (chat.at(client), busy.at(client));
    assert_eq!(came(client, &given.session).await, cold, "over a restart");
    let listed = client.get("/v1/sessions").await.good();
    let mut listed = listed["sessions"].as_array().expect("a list").iter();
    let one = listed
        .find(|one| one["session_id"] == *given.session)
        .expect("it");
    assert_eq!((&one["pool_source"], &one["boot_ms"]), (&cold.0, &cold.1));
    assert_eq!(text(&chat.run("cat file").await).trim(), "kept");
    let alive = busy
        .run("kill -0 $(cat pid) && echo alive; kill $(cat pid); wait $(cat pid)")
        .await;
    assert!(
        text(&alive).starts_with("alive"),
        "it was its own, so it went on: {alive}"
    );
    assert_eq!(came(client, &busy.session).await, (json!("adopt"), Value::Null));
    assert_eq!(
        client.metric("pool_cold_starts_total").await,
        0.0,
        "all were there"
    );
    let System {
        server,
        provider,
        data,
        options,
    } = system;
    server.terminate().await;
    assert_eq!(leftovers::processes(&data.path()), Vec::<i32>::new());
    assert_eq!(leftovers::groups(&data.path()), Vec::<std::path::PathBuf>::new());
    assert_eq!(names(&data), HashSet::new());
    // A server that has none in advance is not troubled by those of one before.
    let server = Server::start(&data, &options).await;
    ready(&server.client, &data, 2).await;
    server.kill().await;
    let server = Server::start(&data, &options.set("OPENCLAW_MAX_WARM_CONTAINERS", "0")).await;
    assert_eq!(names(&data), HashSet::new());
    assert_eq!(server.client.get("/healthz").await.good()["max_warm"], 0);
    assert_eq!(server.client.metric("pool_active_containers").await, 0.0);
    server.terminate().await;
    provider.assert_clean();
}

#[tokio::test]
async fn what_belongs_into_a_session_s_sandbox_gets_there() {
    let system = start("1").await;
    let client = system.client();
    let claude = |method, path: &str| {
        client
            .request(method, path)
            .header("anthropic-version", "2023-06-01")
    };
    let post = async |path: &str, body: Value| {
        let request = claude(reqwest::Method::POST, path).json(&body);
        client.send(request).await.good()
    };
    let store = post("/v1/memory_stores", json!({"name": "notes"})).await;
    let id = store["id"].as_str().expect("an id").to_owned();
    let memory = json!({"path": "/a.md", "content": "remember"});
    post(&format!("/v1/memory_stores/{id}/memories"), memory).await;
    let agent = client.agent(json!({"model": MODEL})).await;
    // One without anything is begun for the new agent, and makes room for one with the store.
    ready(client, &system.data, 1).await;
    let plain = names(&system.data);
    let environment = post("/v1/environments", json!({"name": "plain"})).await;
    let open = async || {
        let session = json!({
            "agent": agent, "environment_id": environment["id"],
            "resources": [{"type": "memory_store", "memory_store_id": id, "access": "read_write"}],
        });
        post("/v1/sessions", session).await["id"]
            .as_str()
            .expect("an id")
            .to_owned()
    };
    let first = open().await;
    soon("the plain one's end", async {
        while !plain.is_disjoint(&names(&system.data)) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    ready(client, &system.data, 1).await;
    let before = names(&system.data);
    let chat = crate::system::client::Chat {
        client: client.clone(),
        agent: agent.clone(),
        session: first,
    };
    let result = chat
        .run("cat /mnt/memory/notes/a.md; echo more > /mnt/memory/notes/b.md")
        .await;
    assert_eq!(text(&result).trim(), "remember");
    assert_eq!(client.metric("pool_cold_starts_total").await, 0.0);
    assert!(
        before.is_disjoint(&names(&system.data)),
        "it took the one that has the store"
    );
    let request = claude(reqwest::Method::GET, &format!("/v1/memory_stores/{id}/memories"));
    let all = client.send(request).await.good();
    assert!(all.to_string().contains("/b.md"), "{all}");
    // Another one without a store can't have that.
    ready(client, &system.data, 1).await;
    let plain = client.session_of(MODEL).await;
    let result = plain.run("ls /mnt/memory 2>&1 | wc -l; echo x").await;
    assert!(text(&result).trim().ends_with('x'), "{result}");
    system.stop().await;
}

#[tokio::test]
async fn a_session_takes_one_also_when_its_vault_has_nothing_for_sandboxes() {
    let system = start("1").await;
    let client = system.client();
    let agent = client.agent(json!({"model": MODEL})).await;
    ready(client, &system.data, 1).await;
    let (vault, path) = secrets::vault(client).await;
    let first = secrets::open(client, &agent, &vault).await;
    first.run("true").await;
    assert_eq!(came(client, &first.session).await.0, "warm");
    ready(client, &system.data, 1).await;
    // A placeholder is one session's own.
    let variable = secrets::credential("KEY", "canary-variable-3b0e", secrets::limited());
    client.post(&path, &variable).await.good();
    let second = secrets::open(client, &agent, &vault).await;
    let shown = second.run("printf %s $KEY").await;
    assert!(text(&shown).starts_with("oma_placeholder_"), "{shown}");
    assert_eq!(came(client, &second.session).await.0, "cold");
    system.stop().await;
}
