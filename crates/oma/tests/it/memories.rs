//! Memory stores and skills in sessions of the real binary: what agents read and write there, kept through kills; and
//! workspaces against each other.

use reqwest::Method;
use serde_json::{Value, json};

use crate::system::client::{Answer, Client};
use crate::system::{System, soon};
use crate::tenants::{key, workspace};

const TOKEN: &str = "canary-api-token-9b2e";

async fn send(client: &Client, method: &str, path: &str, body: Option<&Value>) -> Answer {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let mut request = client
        .request(method, path)
        .header("anthropic-version", "2026-10-21");
    if let Some(body) = body {
        request = request.json(body);
    }
    client.send(request).await
}

async fn get(client: &Client, path: &str) -> Value {
    send(client, "GET", path, None).await.good()
}

async fn post(client: &Client, path: &str, body: Value) -> Value {
    send(client, "POST", path, Some(&body)).await.good()
}

fn id(made: &Value) -> String {
    made["id"].as_str().expect("an id").to_owned()
}

/// A skill with a program.
async fn skill(client: &Client) -> Value {
    skill_that_says(client, "open sesame").await
}

async fn skill_that_says(client: &Client, what: &str) -> Value {
    let main = format!("---\nname: pdf-tools\ndescription: Fills forms\n---\nSay {what}.\n");
    let run = "#!/bin/sh\necho the program of $(cat /mnt/skills/pdf/SKILL.md | wc -l) lines\n";
    let part = |name: &str, text: &str| {
        format!(
            "--b\r\nContent-Disposition: form-data; name=\"files[]\"; filename=\"pdf/{name}\"\r\n\r\n{text}\r\n"
        )
    };
    let body = format!(
        "{}{}--b--\r\n",
        part("SKILL.md", &main),
        part("scripts/run.sh", run)
    );
    let request = client
        .request(Method::POST, "/v1/skills")
        .header("anthropic-version", "2026-10-21")
        .header("content-type", "multipart/form-data; boundary=b")
        .body(body);
    client.send(request).await.good()
}

/// Instructions that have each turn run one command of bash and say what it printed.
fn script(commands: &[&str]) -> String {
    let turns: Vec<Value> = commands
        .iter()
        .map(|command| json!([[{"tool": "bash", "input": {"command": command}}], [{"text": "{{last_tool_result}}"}]]))
        .collect();
    json!({"turns": turns}).to_string()
}

struct Session {
    id: String,
    agent: String,
}

async fn session(client: &Client, system: &str, skills: Value, resources: Value) -> Session {
    let tools = json!([{"type": "agent_toolset_20260401"}]);
    let agent = post(
        client,
        "/v1/agents",
        json!({"name": "A", "model": "scripted/script", "system": system, "tools": tools, "skills": skills}),
    )
    .await;
    let environment = post(
        client,
        "/v1/environments",
        json!({"name": format!("e {}", agent["id"])}),
    )
    .await;
    let body = json!({"agent": agent["id"], "environment_id": environment["id"], "resources": resources});
    Session {
        id: id(&post(client, "/v1/sessions", body).await),
        agent: id(&agent),
    }
}

/// Says something and gives what the agent says once it rests.
async fn turn(client: &Client, session: &Session) -> String {
    let path = format!("/v1/sessions/{}/events", session.id);
    let posted = client.post(&path, &json!({"content": "go on"})).await.good();
    rest(client, session, &posted).await
}

/// What the agent said last, once the turn of this message is over.
async fn rest(client: &Client, session: &Session, posted: &Value) -> String {
    let mut frames = client.follow(&session.id).await;
    frames
        .until(|frame| frame["event_id"] == posted["event_id"])
        .await;
    frames.until(crate::system::client::is_end).await;
    let session = client.get(&format!("/v1/sessions/{}", session.id)).await.good();
    session["output"].as_str().unwrap_or_default().to_owned()
}

async fn memories(client: &Client, store: &str) -> Vec<(String, String)> {
    let list = get(client, &format!("/v1/memory_stores/{store}/memories?view=full")).await;
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let rows = list["data"].as_array().expect("a list").iter();
    rows.map(|row| (text(&row["path"]), text(&row["content"])))
        .collect()
}

#[tokio::test]
async fn an_agent_remembers_over_sessions() {
    let system = System::start().await;
    let client = system.client();
    let store = id(&post(client, "/v1/memory_stores", json!({"name": "My Notes!"})).await);
    let path = format!("/v1/memory_stores/{store}/memories");
    let old = post(client, &path, json!({"path": "/old.md", "content": "known"})).await;
    let attached = json!([{"type": "memory_store", "memory_store_id": store, "instructions": "look first"}]);
    let first = session(
        client,
        &script(&[
            "cat /mnt/memory/my-notes/old.md; mkdir /mnt/memory/my-notes/deep; echo -n new > /mnt/memory/my-notes/deep/a.md; rm /mnt/memory/my-notes/old.md",
            "cat /mnt/memory/my-notes/theirs.md; head -c 200000 /dev/zero > /mnt/memory/my-notes/large",
        ]),
        json!([]),
        attached.clone(),
    )
    .await;
    let shown = get(client, &format!("/v1/sessions/{}", first.id)).await;
    assert_eq!(
        (
            &shown["resources"][0]["mount_path"],
            &shown["resources"][0]["instructions"]
        ),
        (&json!("/mnt/memory/my-notes"), &json!("look first"))
    );
    assert!(turn(client, &first).await.contains("known"));
    assert_eq!(
        memories(client, &store).await,
        [("/deep/a.md".to_owned(), "new".to_owned())]
    );
    let versions = get(
        client,
        &format!(
            "/v1/memory_stores/{store}/memory_versions?session_id={}",
            first.id
        ),
    )
    .await;
    let operations: Vec<&Value> = versions["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|version| &version["operation"])
        .collect();
    assert_eq!(operations.len(), 2, "{versions}");
    assert!(operations.contains(&&json!("created")) && operations.contains(&&json!("deleted")));
    assert_eq!(versions["data"][0]["created_by"]["session_id"], first.id.as_str());
    assert_eq!(
        send(client, "GET", &format!("{path}/{}", id(&old)), None)
            .await
            .status,
        404
    );

    // What others write is there at the next turn, and what can't be kept is said.
    post(
        client,
        &path,
        json!({"path": "/theirs.md", "content": "from outside"}),
    )
    .await;
    let said = turn(client, &first).await;
    assert!(said.contains("from outside"), "{said}");
    assert!(said.contains("/mnt/memory/my-notes/large was not kept"), "{said}");

    // Another session has it all, and one that may only read changes nothing.
    let mut reading = attached.clone();
    reading[0]["access"] = json!("read_only");
    let second = session(
        client,
        &script(&[
            "cat /mnt/memory/my-notes/deep/a.md; echo x > /mnt/memory/my-notes/deep/a.md || echo refused",
        ]),
        json!([]),
        reading,
    )
    .await;
    let said = turn(client, &second).await;
    assert!(said.contains("new") && said.contains("refused"), "{said}");
    assert_eq!(memories(client, &store).await.len(), 2);
    system.stop().await;
}

#[tokio::test]
async fn two_sessions_over_one_store() {
    let system = System::start().await;
    let client = system.client();
    let store = id(&post(client, "/v1/memory_stores", json!({"name": "shared"})).await);
    let attached = json!([{"type": "memory_store", "memory_store_id": store}]);
    let file = "/mnt/memory/shared/a";
    let one = script(&[&format!("echo -n 1 > {file}"), &format!("cat {file}; rm {file}")]);
    let one = session(client, &one, json!([]), attached.clone()).await;
    let two = script(&[
        &format!("cat {file}; echo -n 2 > {file}"),
        &format!("ls {file} || echo none"),
    ]);
    let two = session(client, &two, json!([]), attached).await;
    turn(client, &one).await;
    assert!(turn(client, &two).await.contains('1'));
    assert!(turn(client, &one).await.contains('2'));
    assert!(turn(client, &two).await.contains("none"));
    assert!(memories(client, &store).await.is_empty());
    // A store that is gone, and one that is archived, end no session.
    send(client, "DELETE", &format!("/v1/memory_stores/{store}"), None)
        .await
        .good();
    assert!(turn(client, &two).await.contains("none"));
    system.stop().await;
}

/// A kill while a tool runs that has written already: its result is collected by the next server, and with it what it
/// wrote and removed.
#[tokio::test]
async fn a_kill_loses_nothing_that_was_written() {
    let mut system = System::start().await;
    let client = system.client();
    let store = id(&post(client, "/v1/memory_stores", json!({"name": "notes"})).await);
    let path = format!("/v1/memory_stores/{store}/memories");
    post(client, &path, json!({"path": "/gone", "content": "x"})).await;
    let command = "echo -n kept > /mnt/memory/notes/a; rm /mnt/memory/notes/gone; touch flag; until test -e go; do read -t 0.05 < <(:) || true; done; echo over";
    let attached = json!([{"type": "memory_store", "memory_store_id": store}]);
    let working = session(client, &script(&[command]), json!([]), attached).await;
    let events = format!("/v1/sessions/{}/events", working.id);
    let posted = client.post(&events, &json!({"content": "go on"})).await.good();
    let file = |name: &str| {
        format!(
            "/v1/agents/{}/files/{name}?session_id={}",
            working.agent, working.id
        )
    };
    soon("the command to have written", async {
        while client.get(&file("flag")).await.status != 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(memories(client, &store).await.len(), 1, "the tool has not ended");
    system = system.crash().await;
    let client = system.client();
    client.put(&file("go"), "now").await.good();
    assert!(rest(client, &working, &posted).await.contains("over"));
    assert_eq!(
        memories(client, &store).await,
        [("/a".to_owned(), "kept".to_owned())]
    );
    let versions = get(
        client,
        &format!(
            "/v1/memory_stores/{store}/memory_versions?session_id={}",
            working.id
        ),
    )
    .await;
    assert_eq!(versions["data"].as_array().map(Vec::len), Some(2), "{versions}");
    system.stop().await;
}

#[tokio::test]
async fn skills_are_read_where_the_prompt_says() {
    let system = System::start().await;
    let client = system.client();
    let made = skill(client).await;
    let skills = json!([{"type": "custom", "skill_id": made["id"]}]);
    let commands = script(&[
        "cat /mnt/skills/pdf/SKILL.md; touch /mnt/skills/pdf/x || echo refused",
        "/mnt/skills/pdf/scripts/run.sh; /mnt/skills/pdf/SKILL.md || echo no program",
    ]);
    let reading = session(client, &commands, skills, json!([])).await;
    let said = turn(client, &reading).await;
    assert!(said.contains("open sesame") && said.contains("refused"), "{said}");
    let ran = turn(client, &reading).await;
    assert!(
        ran.contains("the program of 5 lines") && ran.contains("no program"),
        "{ran}"
    );
    system.stop().await;
}

#[tokio::test]
async fn strangers_and_readers_get_nowhere() {
    let system = System::start_with(|options| options.token(TOKEN)).await;
    let operator = system.client();
    let (our, their) = (
        workspace(operator, "ours").await,
        workspace(operator, "theirs").await,
    );
    let body = |name: &str, scope: &str, workspace: &str| json!({"name": name, "scope": scope, "workspaceId": workspace});
    let (_, us) = key(operator, &body("us", "admin", &our)).await;
    let (_, reader) = key(operator, &body("reader", "read", &our)).await;
    let (_, stranger) = key(operator, &body("stranger", "admin", &their)).await;
    let store = id(&post(&us, "/v1/memory_stores", json!({"name": "notes"})).await);
    let store_path = format!("/v1/memory_stores/{store}");
    let memory = post(
        &us,
        &format!("{store_path}/memories"),
        json!({"path": "/a", "content": "x"}),
    )
    .await;
    let memory_path = format!("{store_path}/memories/{}", id(&memory));
    let version_path = format!(
        "{store_path}/memory_versions/{}",
        memory["memory_version_id"].as_str().expect("an id")
    );
    let skill_path = format!("/v1/skills/{}", id(&skill(&us).await));
    let new = json!({"path": "/b", "content": ""});
    let calls = [
        ("GET", store_path.clone(), None),
        ("POST", store_path.clone(), Some(json!({"name": "stolen"}))),
        ("DELETE", store_path.clone(), None),
        ("POST", format!("{store_path}/archive"), None),
        ("GET", format!("{store_path}/memories"), None),
        ("POST", format!("{store_path}/memories"), Some(new)),
        ("GET", memory_path.clone(), None),
        ("POST", memory_path.clone(), Some(json!({"content": "stolen"}))),
        ("DELETE", memory_path.clone(), None),
        ("GET", format!("{store_path}/memory_versions"), None),
        ("GET", version_path.clone(), None),
        ("POST", format!("{version_path}/redact"), None),
        ("GET", skill_path.clone(), None),
        ("DELETE", skill_path.clone(), None),
        ("GET", format!("{skill_path}/versions"), None),
        ("GET", format!("{skill_path}/versions/latest"), None),
        ("GET", format!("{skill_path}/versions/latest/content"), None),
        ("DELETE", format!("{skill_path}/versions/latest"), None),
    ];
    for (method, path, body) in &calls {
        let answer = send(&stranger, method, path, body.as_ref()).await;
        assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text());
        let status = if *method == "GET" { 200 } else { 403 };
        let answer = send(&reader, method, path, body.as_ref()).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
    }
    for path in ["/v1/memory_stores", "/v1/skills"] {
        assert_eq!(get(&stranger, path).await["data"], json!([]), "{path}");
    }
    // Nor by what they make of their own.
    let agent = json!({"name": "A", "model": "scripted/echo", "tools": [{"type": "agent_toolset_20260401"}]});
    let made = post(&stranger, "/v1/agents", agent.clone()).await;
    let environment = post(&stranger, "/v1/environments", json!({"name": "e"})).await;
    let opening = json!({
        "agent": made["id"],
        "environment_id": environment["id"],
        "resources": [{"type": "memory_store", "memory_store_id": store}],
    });
    let answer = send(&stranger, "POST", "/v1/sessions", Some(&opening)).await;
    assert_eq!(answer.status, 404, "{}", answer.text());
    let mut with = agent;
    with["skills"] = json!([{"type": "custom", "skill_id": skill_path.trim_start_matches("/v1/skills/")}]);
    let answer = send(&stranger, "POST", "/v1/agents", Some(&with)).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert_eq!(get(&us, &memory_path).await["content"], "x");
    // What we did is in our trail.
    let trail = us.get("/v1/audit").await.good();
    let actions: Vec<&str> = trail["events"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|row| row["outcome"] == "ok")
        .filter_map(|row| row["action"].as_str())
        .collect();
    for action in ["memory_store.create", "memory.create", "skill.create"] {
        assert!(actions.contains(&action), "{action}: {actions:?}");
    }
    system.stop().await;
}
