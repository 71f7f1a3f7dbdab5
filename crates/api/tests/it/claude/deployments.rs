//! Deployments and their runs.

use serde_json::{Value, json};

use super::{Claude, fault, good, id, message, stable};

async fn body(claude: &Claude) -> Value {
    let agent = claude.agent(json!({})).await;
    let name = format!("env {}", agent["id"]);
    let environment = claude.post("/v1/environments", &json!({"name": name})).await;
    json!({
        "name": "Nightly",
        "agent": agent["id"],
        "environment_id": environment["id"],
        "initial_events": [message("hello")],
    })
}

fn with(body: &Value, more: Value) -> Value {
    let mut body = body.clone();
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

/// A schedule with the times that it shows taken away.
fn timeless(deployment: &Value) -> Value {
    let mut shown = stable(deployment);
    let upcoming = deployment["schedule"]["upcoming_runs_at"].as_array();
    if let Some(upcoming) = upcoming {
        shown["schedule"]["upcoming_runs_at"] = json!(format!("{} times", upcoming.len()));
    }
    shown
}

#[tokio::test]
async fn a_deployment_over_its_life() {
    let claude = Claude::start().await;
    let body = body(&claude).await;
    let created = claude
        .post(
            "/v1/deployments",
            &with(
                &body,
                json!({
                    "description": "Says hello",
                    "schedule": {"type": "cron", "expression": "0  9 * * MON-FRI", "timezone": "europe/berlin"},
                    "budget": {"type": "limit", "max_list_cost": {"amount": "2500", "currency": "USD"}},
                    "metadata": {"k": "v"}, "resources": [], "vault_ids": null,
                }),
            ),
        )
        .await;
    insta::assert_json_snapshot!("a_deployment", timeless(&created));
    let path = format!("/v1/deployments/{}", id(&created));
    assert_eq!(claude.get(&path).await, created);

    // The agent stays at its version until a client saves it again.
    let agent = body["agent"].as_str().unwrap();
    claude
        .post(&format!("/v1/agents/{agent}"), &json!({"name": "Newer"}))
        .await;
    let updated = claude
        .post(
            &path,
            &json!({"name": "Weekly", "description": null, "schedule": null, "metadata": {"k": null, "l": "w"}}),
        )
        .await;
    assert_eq!(
        [
            &updated["name"],
            &updated["description"],
            &updated["schedule"],
            &updated["metadata"],
            &updated["agent"]["version"]
        ],
        [
            &json!("Weekly"),
            &Value::Null,
            &Value::Null,
            &json!({"l": "w"}),
            &json!(1)
        ]
    );
    let repinned = claude.post(&path, &json!({"agent": agent})).await;
    assert_eq!(repinned["agent"]["version"], 2);
    let pinned = json!({"agent": {"type": "agent", "id": agent, "version": 1}});
    assert_eq!(claude.post(&path, &pinned).await["agent"]["version"], 1);
    // An equal one changes nothing.
    let same = claude.post(&path, &json!({"name": "Weekly"})).await;
    assert_eq!(same["updated_at"], claude.get(&path).await["updated_at"]);

    let paused = good(&claude.send("POST", &format!("{path}/pause"), "").await);
    assert_eq!(
        (&paused["status"], &paused["paused_reason"]),
        (&json!("paused"), &json!({"type": "manual"}))
    );
    let run = good(&claude.send("POST", &format!("{path}/run"), "").await);
    insta::assert_json_snapshot!("a_run", stable(&run));
    let unpaused = claude.post(&format!("{path}/unpause"), &json!({})).await;
    assert_eq!(
        (&unpaused["status"], &unpaused["paused_reason"]),
        (&json!("active"), &Value::Null)
    );

    // The session goes by what the run says of it.
    let session = run["session_id"].as_str().unwrap();
    let mut stream = claude.stream(session, "").await;
    let opened = claude.get(&format!("/v1/sessions/{session}")).await;
    assert_eq!(
        (&opened["deployment_id"], &opened["agent"]["version"]),
        (&created["id"], &json!(1))
    );
    if opened["status"] != "idle" {
        stream.until("session.status_idle").await;
    }
    let log = claude.get(&format!("/v1/sessions/{session}/events")).await;
    let said = log["data"].as_array().unwrap().iter();
    assert_eq!(said.filter(|event| event["type"] == "user.message").count(), 1);
    for (query, count) in [
        (format!("?deployment_id={}", id(&created)), 1),
        ("?deployment_id=depl_other".to_owned(), 0),
    ] {
        let listed = claude.get(&format!("/v1/sessions{query}")).await;
        assert_eq!(listed["data"].as_array().unwrap().len(), count, "{query}");
    }

    let archived = good(&claude.send("POST", &format!("{path}/archive"), "").await);
    assert_eq!(archived["status"], "active");
    assert!(archived["archived_at"].is_string());
    for action in ["run", "pause", "unpause"] {
        let answer = claude.send("POST", &format!("{path}/{action}"), "").await;
        assert_eq!(fault(&answer).0, 400, "{action}");
    }
    assert_eq!(claude.refused(&path, &json!({"name": "late"})).await.0, 400);
    let again = good(&claude.send("POST", &format!("{path}/archive"), "").await);
    assert_eq!(again, archived);
}

#[tokio::test]
async fn what_is_refused() {
    let claude = Claude::start().await;
    let body = body(&claude).await;
    let schedule = |expression: &str, zone: &str| json!({"schedule": {"type": "cron", "expression": expression, "timezone": zone}});
    for (more, said) in [
        (json!({"name": ""}), "name"),
        (json!({"initial_events": []}), "initial_events"),
        (
            json!({"initial_events": [{"type": "user.interrupt"}]}),
            "initial_events.0.type",
        ),
        (
            json!({"initial_events": [{"type": "system.message", "content": []}]}),
            "initial_events.0.content",
        ),
        (
            json!({"initial_events": [{"type": "system.message", "content": [{"type": "text", "text": "x"}]}]}),
            "initial_events.0: A system.message must directly follow",
        ),
        (
            json!({"initial_events": [{"type": "user.define_outcome", "description": "d"}]}),
            "initial_events.0.rubric",
        ),
        (
            schedule("* * * *", "UTC"),
            "schedule.expression: must have 5 fields",
        ),
        (schedule("0 0 L * *", "UTC"), "schedule.expression: day of month"),
        (schedule("@hourly", "UTC"), "schedule.expression"),
        (schedule("0 0 30 2 *", "UTC"), "schedule.expression"),
        (schedule("0 0 * * *", "Mars/Base"), "schedule.timezone"),
        (json!({"schedule": {"type": "interval"}}), "schedule"),
        (
            json!({"agent": {"type": "agent_with_overrides", "id": "x"}}),
            "agent",
        ),
        (json!({"resources": [{"type": "folder"}]}), "resources.0.type"),
        (json!({"resources": [{"type": "file"}]}), "resources.0.file_id"),
        (
            json!({"resources": [{"type": "github_repository", "url": "ssh://git.example/a"}]}),
            "resources.0.url",
        ),
        (
            json!({"resources": [{"type": "github_repository", "url": "http://git.example/a"}]}),
            "url: repositories are cloned over https only",
        ),
        (
            json!({"resources": [
                {"type": "github_repository", "url": "https://git.example/a/tool"},
                {"type": "github_repository", "url": "https://git.example/b/tool"},
            ]}),
            "mount_path: /workspace/tool is another resource's path",
        ),
        (
            json!({"resources": [
                {"type": "memory_store", "memory_store_id": "mem_1"},
                {"type": "memory_store", "memory_store_id": "mem_1"},
            ]}),
            "resources: The memory store mem_1 is named twice",
        ),
        (json!({"when": "now"}), "when: Extra inputs are not permitted"),
        (json!({"metadata": {"k": 1}}), "metadata"),
    ] {
        let (status, kind, message) = claude
            .refused("/v1/deployments", &with(&body, more.clone()))
            .await;
        assert_eq!(
            (status, kind.as_str()),
            (400, "invalid_request_error"),
            "{more} {message}"
        );
        assert!(message.starts_with(said), "{more}: {message}");
    }
    for missing in ["name", "agent", "environment_id", "initial_events"] {
        let mut body = body.clone();
        body.as_object_mut().unwrap().remove(missing);
        let (status, _, message) = claude.refused("/v1/deployments", &body).await;
        assert_eq!((status, message), (400, format!("{missing}: Required")));
    }
    for (more, status) in [
        (json!({"agent": "agt_none"}), 404),
        (json!({"environment_id": "env_none"}), 404),
        (json!({"vault_ids": ["vlt_none"]}), 404),
        (
            json!({"resources": [{"type": "file", "file_id": "file_none"}]}),
            404,
        ),
        (
            json!({"resources": [{"type": "memory_store", "memory_store_id": "memstore_none"}]}),
            404,
        ),
    ] {
        assert_eq!(
            claude
                .refused("/v1/deployments", &with(&body, more.clone()))
                .await
                .0,
            status,
            "{more}"
        );
    }
    for path in ["/v1/deployments/depl_none", "/v1/deployment_runs/drun_none"] {
        let (status, kind, _) = fault(&claude.send("GET", path, "").await);
        assert_eq!((status, kind.as_str()), (404, "not_found_error"), "{path}");
    }
}

async fn run(claude: &Claude, deployment: &str) -> Value {
    claude
        .post(&format!("/v1/deployments/{deployment}/run"), &json!({}))
        .await
}

/// Has a run fail, and gives the kind of its error, which is why the deployment is paused.
async fn failure(claude: &Claude, deployment: &str) -> String {
    let failed = run(claude, deployment).await;
    assert_eq!(failed["session_id"], Value::Null);
    let kind = failed["error"]["type"].as_str().unwrap().to_owned();
    let path = format!("/v1/deployments/{deployment}");
    assert_eq!(
        claude.get(&path).await["paused_reason"],
        json!({"type": "error", "error": {"type": kind}})
    );
    claude.post(&format!("{path}/unpause"), &json!({})).await;
    kind
}

#[tokio::test]
async fn sessions_are_given_what_their_deployment_has() {
    let claude = Claude::start().await;
    let body = body(&claude).await;
    let file = claude.upload("data.csv").await;
    let store = id(&claude.post("/v1/memory_stores", &json!({"name": "Notes"})).await);
    let resources = json!([
        {"type": "file", "file_id": file, "mount_path": "/data.csv"},
        {"type": "memory_store", "memory_store_id": store, "access": "read_only", "instructions": "look"},
        {"type": "github_repository", "url": "https://git.example/a/tool", "authorization_token": "canary-token",
         "checkout": {"type": "branch", "name": "main"}, "mount_path": null},
        {"type": "file", "file_id": file},
    ]);
    let created = claude
        .post("/v1/deployments", &with(&body, json!({"resources": resources})))
        .await;
    let mut shown = resources.clone();
    shown[2].as_object_mut().unwrap().remove("authorization_token");
    shown[3]["mount_path"] = Value::Null;
    assert_eq!(created["resources"], shown);
    let deployment = id(&created);
    let path = format!("/v1/deployments/{deployment}");
    assert_eq!(claude.get(&path).await["resources"], shown);

    let mut copies = Vec::new();
    for _ in 0..2 {
        let opened = run(&claude, &deployment).await;
        let session = format!("/v1/sessions/{}", opened["session_id"].as_str().unwrap());
        let given = claude.get(&session).await["resources"].clone();
        let given: Vec<&Value> = given.as_array().unwrap().iter().collect();
        let of = |kind: &str| given.iter().filter(|one| one["type"] == kind).collect::<Vec<_>>();
        assert_eq!(given.len(), 4);
        assert_eq!(of("file")[0]["mount_path"], "/mnt/session/uploads/data.csv");
        assert_eq!(
            of("file")[1]["mount_path"],
            format!("/mnt/session/uploads/{file}")
        );
        copies.push(of("file")[0]["file_id"].clone());
        assert_eq!(of("github_repository")[0]["mount_path"], "/workspace/tool");
        assert_eq!(of("github_repository")[0]["checkout"]["name"], "main");
        assert_eq!(of("memory_store")[0]["memory_store_id"], store);
        assert_eq!(of("memory_store")[0]["access"], "read_only");
        assert_eq!(of("memory_store")[0]["instructions"], "look");
    }
    assert_ne!(copies[0], copies[1], "each session has its own copy");

    // A change of something else leaves them alone; a list takes their place.
    let renamed = claude.post(&path, &json!({"name": "Weekly"})).await;
    assert_eq!(renamed["resources"], shown);
    let fewer = json!([shown[0]]);
    assert_eq!(
        claude.post(&path, &json!({"resources": fewer})).await["resources"],
        fewer
    );
    assert_eq!(
        claude.post(&path, &json!({"resources": null})).await["resources"],
        json!([])
    );
    claude.post(&path, &json!({"resources": resources})).await;

    // What is gone by the time of a run is said by the run.
    claude
        .post(&format!("/v1/memory_stores/{store}/archive"), &json!({}))
        .await;
    assert_eq!(failure(&claude, &deployment).await, "memory_store_archived_error");
    good(
        &claude
            .send("DELETE", &format!("/v1/memory_stores/{store}"), "")
            .await,
    );
    assert_eq!(
        failure(&claude, &deployment).await,
        "session_resource_not_found_error"
    );
    claude
        .post(&path, &json!({"resources": [shown[0], shown[2]]}))
        .await;
    good(&claude.send("DELETE", &format!("/v1/files/{file}"), "").await);
    assert_eq!(failure(&claude, &deployment).await, "file_not_found_error");
    // What it has already does not stand in the way of another change; what is new does.
    claude.post(&path, &json!({"name": "Monthly"})).await;
    let (status, ..) = claude
        .refused(&path, &json!({"resources": [shown[3], shown[2]]}))
        .await;
    assert_eq!(status, 404);
    claude.post(&path, &json!({"resources": [shown[2]]})).await;
    assert_eq!(run(&claude, &deployment).await["error"], Value::Null);
}

#[tokio::test]
async fn self_hosted_environments_take_memory_stores_only() {
    let claude = Claude::start().await;
    let body = body(&claude).await;
    let hosted = json!({"name": "hosted", "config": {"type": "self_hosted"}});
    let hosted = id(&claude.post("/v1/environments", &hosted).await);
    let store = id(&claude.post("/v1/memory_stores", &json!({"name": "Notes"})).await);
    let memory = json!({"type": "memory_store", "memory_store_id": store});
    let repository = json!({"type": "github_repository", "url": "https://git.example/a/tool"});
    let there = with(
        &body,
        json!({"environment_id": hosted, "resources": [memory, repository]}),
    );
    let (status, kind, message) = claude.refused("/v1/deployments", &there).await;
    assert_eq!((status, kind.as_str()), (400, "invalid_request_error"));
    assert!(message.contains("self-hosted"), "{message}");
    let there = with(&there, json!({"resources": [memory]}));
    let path = format!(
        "/v1/deployments/{}",
        id(&claude.post("/v1/deployments", &there).await)
    );
    let more = json!({"resources": [memory, repository]});
    assert_eq!(claude.refused(&path, &more).await.0, 400);
    let here = with(&body, more);
    let path = format!(
        "/v1/deployments/{}",
        id(&claude.post("/v1/deployments", &here).await)
    );
    assert_eq!(
        claude.refused(&path, &json!({"environment_id": hosted})).await.0,
        400
    );
}

#[tokio::test]
async fn lists() {
    let claude = Claude::start().await;
    let body = body(&claude).await;
    let mut ids = Vec::new();
    for number in 0..3 {
        let created = claude
            .post(
                "/v1/deployments",
                &with(&body, json!({"name": format!("d{number}")})),
            )
            .await;
        ids.push(id(&created));
    }
    claude
        .send("POST", &format!("/v1/deployments/{}/pause", ids[0]), "")
        .await;
    claude
        .send("POST", &format!("/v1/deployments/{}/archive", ids[1]), "")
        .await;
    let names = async |query: &str| -> Vec<String> {
        let listed = claude.get(&format!("/v1/deployments{query}")).await;
        listed["data"].as_array().unwrap().iter().map(id).collect()
    };
    let newest_first = vec![ids[2].clone(), ids[0].clone()];
    assert_eq!(names("").await, newest_first);
    assert_eq!(names("?include_archived=true").await.len(), 3);
    assert_eq!(names("?status=paused").await, [ids[0].clone()]);
    assert_eq!(names("?status=active").await, [ids[2].clone()]);
    let agent = body["agent"].as_str().unwrap();
    assert_eq!(names(&format!("?agent_id={agent}")).await, newest_first);
    assert_eq!(names("?agent_id=agt_other").await, [""; 0]);
    assert_eq!(names("?created_at%5Blte%5D=2020-01-01T00:00:00Z").await, [""; 0]);
    for bad in [
        "?status=paused&include_archived=true",
        "?status=done",
        "?limit=101",
    ] {
        let answer = claude.send("GET", &format!("/v1/deployments{bad}"), "").await;
        assert_eq!(fault(&answer).0, 400, "{bad}");
    }
    let first = claude.get("/v1/deployments?limit=1").await;
    let page = first["next_page"].as_str().unwrap();
    assert_eq!(names(&format!("?limit=1&page={page}")).await, [ids[0].clone()]);

    for deployment in [&ids[0], &ids[2], &ids[2]] {
        good(
            &claude
                .send("POST", &format!("/v1/deployments/{deployment}/run"), "")
                .await,
        );
    }
    let environment = body["environment_id"].as_str().unwrap();
    claude
        .send("POST", &format!("/v1/environments/{environment}/archive"), "")
        .await;
    let failed = good(
        &claude
            .send("POST", &format!("/v1/deployments/{}/run", ids[2]), "")
            .await,
    );
    assert_eq!(
        (&failed["session_id"], &failed["error"]["type"]),
        (&Value::Null, &json!("environment_archived_error"))
    );
    let paused = claude.get(&format!("/v1/deployments/{}", ids[2])).await;
    assert_eq!(
        paused["paused_reason"],
        json!({"type": "error", "error": {"type": "environment_archived_error"}})
    );
    let count = async |query: &str| {
        let listed = claude.get(&format!("/v1/deployment_runs{query}")).await;
        listed["data"].as_array().unwrap().len()
    };
    for (query, expected) in [
        (String::new(), 4),
        (format!("?deployment_id={}", ids[2]), 3),
        ("?deployment_id=depl_other".to_owned(), 0),
        ("?deployment_id=%2F".to_owned(), 0),
        ("?has_error=true".to_owned(), 1),
        ("?has_error=false".to_owned(), 3),
        ("?trigger_type=manual".to_owned(), 4),
        ("?trigger_type=schedule".to_owned(), 0),
        ("?limit=1000".to_owned(), 4),
        ("?created_at%5Bgt%5D=2020-01-01T00:00:00Z".to_owned(), 4),
    ] {
        assert_eq!(count(&query).await, expected, "{query}");
    }
    let run = format!("/v1/deployment_runs/{}", id(&failed));
    assert_eq!(claude.get(&run).await, failed);
    for bad in ["?trigger_type=cron", "?has_error=maybe", "?limit=1001"] {
        let answer = claude.send("GET", &format!("/v1/deployment_runs{bad}"), "").await;
        assert_eq!(fault(&answer).0, 400, "{bad}");
    }
}
