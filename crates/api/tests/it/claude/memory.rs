//! Memory stores, memories and their versions.

use oma_domain::memory::Sha;
use serde_json::{Value, json};

use super::{Claude, fault, good, id, stable};

async fn store(claude: &Claude, more: Value) -> String {
    let mut body = json!({"name": "User Preferences"});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    id(&claude.post("/v1/memory_stores", &body).await)
}

async fn put(claude: &Claude, store: &str, path: &str, content: &str) -> Value {
    let body = json!({"path": path, "content": content});
    claude
        .post(&format!("/v1/memory_stores/{store}/memories?view=full"), &body)
        .await
}

#[tokio::test]
async fn stores() {
    let claude = Claude::start().await;
    let made = claude
        .post(
            "/v1/memory_stores",
            &json!({"name": "User Preferences", "description": "What they like", "metadata": {"user": "u1"}}),
        )
        .await;
    insta::assert_json_snapshot!(stable(&made));
    let path = format!("/v1/memory_stores/{}", id(&made));
    assert_eq!(claude.get(&path).await, made);
    let updated = claude
        .post(
            &path,
            &json!({"name": null, "description": "", "metadata": {"user": null, "team": "t"}}),
        )
        .await;
    assert_eq!(
        (&updated["name"], &updated["description"], &updated["metadata"]),
        (&made["name"], &json!(""), &json!({"team": "t"}))
    );
    assert_eq!(
        claude.post(&path, &json!({})).await,
        updated,
        "nothing changed, so it is no change"
    );
    let archived = claude.post(&format!("{path}/archive"), &json!({})).await;
    assert!(archived["archived_at"].is_string());
    assert_eq!(
        claude.post(&format!("{path}/archive"), &json!({})).await,
        archived
    );
    let (status, kind, _) = claude.refused(&path, &json!({"name": "x"})).await;
    assert_eq!((status, kind.as_str()), (400, "invalid_request_error"));
    assert_eq!(claude.get("/v1/memory_stores").await["data"], json!([]));
    let all = claude.get("/v1/memory_stores?include_archived=true").await;
    assert_eq!(all["data"], json!([archived]));
    let before = "created_at%5Blte%5D=2020-01-01T00:00:00Z&include_archived=true";
    let none = claude.get(&format!("/v1/memory_stores?{before}")).await;
    assert_eq!(none["data"], json!([]));
    let gone = good(&claude.send("DELETE", &path, "").await);
    assert_eq!(gone, json!({"id": made["id"], "type": "memory_store_deleted"}));
    assert_eq!(fault(&claude.send("GET", &path, "").await).0, 404);
    assert_eq!(fault(&claude.send("DELETE", &path, "").await).0, 404);
}

#[tokio::test]
async fn memories_and_their_versions() {
    let claude = Claude::start().await;
    let store = store(&claude, json!({})).await;
    let made = put(&claude, &store, "/notes/a.md", "eins").await;
    insta::assert_json_snapshot!("a_memory", stable(&made));
    let path = format!("/v1/memory_stores/{store}/memories/{}", id(&made));
    assert_eq!(claude.get(&path).await, made);
    assert_eq!(
        claude.get(&format!("{path}?view=basic")).await["content"],
        Value::Null
    );

    let stale = json!({"content": "zwei", "precondition": {"type": "content_sha256", "content_sha256": Sha::of(b"x").to_string()}});
    let answer = claude.send("POST", &path, stale.to_string()).await;
    assert_eq!(answer.headers["x-should-retry"], "false");
    let (status, kind, _) = fault(&answer);
    assert_eq!((status, kind.as_str()), (409, "memory_precondition_failed_error"));
    let fresh = json!({"content": "zwei", "path": "/b.md", "precondition": {"type": "content_sha256", "content_sha256": made["content_sha256"]}});
    let updated = claude.post(&path, &fresh).await;
    assert_eq!(
        (&updated["id"], &updated["path"], &updated["content"]),
        (&made["id"], &json!("/b.md"), &Value::Null)
    );
    // Whoever did not get the answer may ask again.
    assert_eq!(claude.post(&path, &fresh).await, updated);

    let taken = json!({"path": "/b.md/c", "content": ""});
    let memories = format!("/v1/memory_stores/{store}/memories");
    let answer = claude.send("POST", &memories, taken.to_string()).await;
    assert_eq!(answer.status, 409);
    assert_eq!(answer.headers["x-should-retry"], "false");
    let error = &answer.json()["error"];
    assert_eq!(
        (
            &error["type"],
            &error["conflicting_memory_id"],
            &error["conflicting_path"]
        ),
        (&json!("memory_path_conflict_error"), &made["id"], &json!("/b.md"))
    );

    let expects = format!("{path}?expected_content_sha256={}", Sha::of(b"eins"));
    assert_eq!(
        fault(&claude.send("DELETE", &expects, "").await).1,
        "memory_precondition_failed_error"
    );
    let expects = format!("{path}?expected_content_sha256={}", Sha::of(b"zwei"));
    assert_eq!(
        good(&claude.send("DELETE", &expects, "").await),
        json!({"id": made["id"], "type": "memory_deleted"})
    );
    assert_eq!(fault(&claude.send("GET", &path, "").await).0, 404);

    let versions = format!("/v1/memory_stores/{store}/memory_versions");
    let list = claude.get(&format!("{versions}?view=full")).await;
    insta::assert_json_snapshot!("versions", stable(&list));
    let first = id(&list["data"][2]);
    let redacted = claude
        .post(&format!("{versions}/{first}/redact"), &json!({}))
        .await;
    insta::assert_json_snapshot!("a_redacted_version", stable(&redacted));
    assert_eq!(claude.get(&format!("{versions}/{first}")).await, redacted);
    for (query, count) in [
        ("operation=modified", 1),
        (&format!("memory_id={}", id(&made)), 3),
        ("memory_id=mem_none", 0),
        ("api_key_id=local", 3),
        ("api_key_id=key_other", 0),
        ("session_id=ses_none", 0),
        ("service_account_id=svac_none", 0),
    ] {
        let found = claude.get(&format!("{versions}?{query}")).await;
        assert_eq!(found["data"].as_array().map(Vec::len), Some(count), "{query}");
    }
}

#[tokio::test]
async fn a_live_version_is_not_redacted() {
    let claude = Claude::start().await;
    let store = store(&claude, json!({})).await;
    let made = put(&claude, &store, "/a", "secret").await;
    let version = made["memory_version_id"].as_str().unwrap();
    let path = format!("/v1/memory_stores/{store}/memory_versions/{version}/redact");
    let (status, kind, _) = claude.refused(&path, &json!({})).await;
    assert_eq!((status, kind.as_str()), (400, "invalid_request_error"));
}

#[tokio::test]
async fn lists_go_by_folder() {
    let claude = Claude::start().await;
    let store = store(&claude, json!({})).await;
    for path in ["/a/b", "/a/c/d", "/a/c/e", "/f"] {
        put(&claude, &store, path, "x").await;
    }
    let memories = format!("/v1/memory_stores/{store}/memories");
    let list = async |query: &str| {
        let mut found = Vec::new();
        let mut page = String::new();
        loop {
            let answer = claude.get(&format!("{memories}?{query}{page}")).await;
            for item in answer["data"].as_array().unwrap() {
                found.push(format!(
                    "{} {}",
                    item["type"].as_str().unwrap(),
                    item["path"].as_str().unwrap()
                ));
            }
            match answer["next_page"].as_str() {
                Some(next) => page = format!("&page={next}"),
                None => return found,
            }
        }
    };
    for limit in ["1", "2", "100"] {
        assert_eq!(
            list(&format!("depth=1&limit={limit}")).await,
            ["memory_prefix /a/", "memory /f"]
        );
        assert_eq!(
            list(&format!("depth=1&path_prefix=/a/&limit={limit}")).await,
            ["memory /a/b", "memory_prefix /a/c/"]
        );
        assert_eq!(
            list(&format!("depth=0&path_prefix=/a/c/&limit={limit}")).await,
            ["memory /a/c/d", "memory /a/c/e"]
        );
        assert_eq!(list(&format!("limit={limit}")).await.len(), 4);
    }
    for query in [
        "depth=2",
        "depth=-1",
        "path_prefix=/a",
        "path_prefix=a/",
        "view=all",
        "limit=101",
        "page=x",
    ] {
        let answer = claude.send("GET", &format!("{memories}?{query}"), "").await;
        let (status, _, message) = fault(&answer);
        let name = query.split('=').next().unwrap();
        assert!(status == 400 && message.starts_with(name), "{query}: {message}");
    }
}

#[tokio::test]
async fn pages_with_contents_are_short() {
    let claude = Claude::start().await;
    let store = store(&claude, json!({})).await;
    for number in 0..21 {
        put(&claude, &store, &format!("/{number}"), "x").await;
    }
    let memories = format!("/v1/memory_stores/{store}/memories");
    for (query, count) in [
        ("limit=100", 21),
        ("limit=100&view=full", 20),
        ("view=full&limit=3", 3),
    ] {
        let page = claude.get(&format!("{memories}?{query}")).await;
        let data = page["data"].as_array().unwrap();
        assert_eq!(data.len(), count, "{query}");
        assert_eq!(page["next_page"].is_string(), count < 21);
        assert_eq!(data[0]["content"].is_string(), query.contains("full"));
    }
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let claude = Claude::start().await;
    let store = store(&claude, json!({})).await;
    let memories = format!("/v1/memory_stores/{store}/memories");
    let memory = put(&claude, &store, "/here", "x").await;
    let memory = format!("{memories}/{}", id(&memory));
    let long = "x".repeat(102_401);
    for (path, body, message) in [
        ("/v1/memory_stores", json!({}), "name: "),
        ("/v1/memory_stores", json!({"name": ""}), "name: "),
        ("/v1/memory_stores", json!({"name": "a\nb"}), "name: "),
        ("/v1/memory_stores", json!({"name": "x".repeat(256)}), "name: "),
        (
            "/v1/memory_stores",
            json!({"name": "a", "description": "x".repeat(1025)}),
            "description: ",
        ),
        (
            "/v1/memory_stores",
            json!({"name": "a", "metadata": {"a": 1}}),
            "metadata.a: ",
        ),
        (
            "/v1/memory_stores",
            json!({"name": "a", "color": "red"}),
            "color: Extra inputs are not permitted",
        ),
        (&memories, json!({"content": "x"}), "path: "),
        (&memories, json!({"path": "/a"}), "content: "),
        (
            &memories,
            json!({"path": "a", "content": ""}),
            "path: must start with '/'",
        ),
        (&memories, json!({"path": "/a/../b", "content": ""}), "path: "),
        (&memories, json!({"path": "/e\u{301}", "content": ""}), "path: "),
        (&memories, json!({"path": "/a", "content": long}), "content: "),
        (&memory, json!({"content": "a\0"}), "content: "),
        (
            &memory,
            json!({"precondition": {"type": "content_sha256"}}),
            "precondition.content_sha256: ",
        ),
        (
            &memory,
            json!({"precondition": {"type": "version"}}),
            "precondition.type: ",
        ),
    ] {
        let (status, _, said) = claude.refused(path, &body).await;
        assert!(status == 400 && said.starts_with(message), "{body}: {said}");
    }
    // The SDKs' type allows null for nothing.
    let empty = claude
        .post(&memories, &json!({"path": "/empty", "content": null}))
        .await;
    assert_eq!(empty["content_size_bytes"], 0);
    for path in [
        "/v1/memory_stores/memstore_none",
        "/v1/memory_stores/memstore_none/memories",
        "/v1/memory_stores/memstore_none/memory_versions",
        "/v1/memory_stores/no%20id/memories/mem_none",
        &format!("{memories}/mem_none"),
        &format!("/v1/memory_stores/{store}/memory_versions/memver_none"),
    ] {
        let (status, kind, _) = fault(&claude.send("GET", path, "").await);
        assert_eq!((status, kind.as_str()), (404, "not_found_error"), "{path}");
    }
}

#[tokio::test]
async fn sessions_have_stores() {
    let claude = Claude::start().await;
    let notes = store(&claude, json!({"description": "What they like"})).await;
    let same = store(&claude, json!({})).await;
    let agent = claude.agent(json!({})).await;
    let environment = claude.post("/v1/environments", &json!({"name": "e"})).await;
    let open = |resources: Value| json!({"agent": agent["id"], "environment_id": environment["id"], "resources": resources});
    let attached = |id: &str| json!({"type": "memory_store", "memory_store_id": id});
    let mut reading = attached(&same);
    reading["access"] = json!("read_only");
    reading["instructions"] = json!("Look first");
    let made = claude
        .post("/v1/sessions", &open(json!([attached(&notes), reading])))
        .await;
    insta::assert_json_snapshot!("the_stores_of_a_session", stable(&made["resources"]));
    // It keeps what was said of the store when it was created.
    claude
        .post(&format!("/v1/memory_stores/{notes}"), &json!({"name": "Other"}))
        .await;
    let path = format!("/v1/sessions/{}", id(&made));
    assert_eq!(claude.get(&path).await["resources"], made["resources"]);
    for (query, count) in [(notes.as_str(), 1), ("memstore_none", 0), ("no%20id", 0)] {
        let list = claude.get(&format!("/v1/sessions?memory_store_id={query}")).await;
        assert_eq!(list["data"].as_array().map(Vec::len), Some(count), "{query}");
    }

    let listed = claude.get(&format!("{path}/resources?limit=1")).await;
    assert_eq!(listed["data"], json!([made["resources"][0]]));
    let next = listed["next_page"].as_str().unwrap();
    let listed = claude.get(&format!("{path}/resources?page={next}")).await;
    assert_eq!(listed, json!({"data": [made["resources"][1]], "next_page": null}));
    let (status, _, said) = claude
        .refused(&format!("{path}/resources"), &attached(&notes))
        .await;
    assert!(status == 400 && said.starts_with("type: Memory stores"), "{said}");

    let mut nine = Vec::new();
    for _ in 0..9 {
        nine.push(attached(&store(&claude, json!({})).await));
    }
    let with = |field: &str, value: Value| {
        let mut one = attached(&notes);
        one[field] = value;
        json!([one])
    };
    for (resources, message) in [
        (json!(nine), "resources: There may be at most 8"),
        (json!([attached(&notes), attached(&notes)]), "resources: "),
        (with("access", json!("write")), "resources.0.access: "),
        (
            with("instructions", json!("x".repeat(4097))),
            "resources.0.instructions: ",
        ),
        (
            with("mount_path", json!("/x")),
            "resources.0.mount_path: Extra inputs",
        ),
        (
            with("memory_store_id", json!("no id")),
            "resources.0.memory_store_id: ",
        ),
        (json!([{"type": "memory_store"}]), "resources.0.memory_store_id: "),
        (json!([{"type": "disk"}]), "resources.0.type: "),
    ] {
        let (status, _, said) = claude.refused("/v1/sessions", &open(resources)).await;
        assert!(status == 400 && said.starts_with(message), "{said}");
    }
    let (status, kind, _) = claude
        .refused("/v1/sessions", &open(json!([attached("memstore_none")])))
        .await;
    assert_eq!((status, kind.as_str()), (404, "not_found_error"));
    claude
        .post(&format!("/v1/memory_stores/{notes}/archive"), &json!({}))
        .await;
    let (status, kind, _) = claude
        .refused("/v1/sessions", &open(json!([attached(&notes)])))
        .await;
    assert_eq!((status, kind.as_str()), (400, "invalid_request_error"));
}
