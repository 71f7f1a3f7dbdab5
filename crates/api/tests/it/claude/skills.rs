//! Skills: uploads, versions, both shapes, and what agents and sessions keep of them.

use axum::body::Body;
use serde_json::{Value, json};

use super::{Claude, fault, good, id, stable};
use crate::server::{Answer, request};

const BOUNDARY: &str = "xYzZY";

fn main(description: &str) -> String {
    format!("---\nname: pdf-tools\ndescription: {description}\n---\nRead forms.md.\n")
}

/// A form with these text fields and files.
fn form(texts: &[(&str, &str)], files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, text) in texts {
        body.extend(
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n")
                .into_bytes(),
        );
    }
    for (name, bytes) in files {
        body.extend(
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"files[]\"; filename=\"{name}\"\r\n\r\n")
                .into_bytes(),
        );
        body.extend(*bytes);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{BOUNDARY}--\r\n").into_bytes());
    body
}

async fn upload(claude: &Claude, path: &str, body: Vec<u8>, headers: &[(&str, &str)]) -> Answer {
    let mut request = request("POST", path)
        .header("anthropic-version", "2026-10-21")
        .header(
            "content-type",
            format!("multipart/form-data; boundary={BOUNDARY}"),
        );
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    claude.server.send(request.body(Body::from(body)).unwrap()).await
}

async fn skill(claude: &Claude) -> Value {
    let main = main("Fills forms");
    let files: [(&str, &[u8]); 2] = [
        ("pdf/SKILL.md", main.as_bytes()),
        ("pdf/forms.md", b"How to fill them"),
    ];
    let body = form(&[("display_name", "PDF tools")], &files);
    good(&upload(claude, "/v1/skills", body, &[]).await)
}

async fn version(claude: &Claude, skill: &str, description: &str) -> Value {
    let main = main(description);
    let body = form(&[], &[("pdf/SKILL.md", main.as_bytes())]);
    good(&upload(claude, &format!("/v1/skills/{skill}/versions"), body, &[]).await)
}

#[tokio::test]
async fn a_skill_over_its_life() {
    let claude = Claude::start().await;
    let made = skill(&claude).await;
    insta::assert_json_snapshot!(stable(&made));
    let path = format!("/v1/skills/{}", id(&made));
    assert_eq!(claude.get(&path).await, made);
    let first = claude.get(&format!("{path}/versions/latest")).await;
    insta::assert_json_snapshot!("a_version", stable(&first));
    assert_eq!(first["id"], made["latest_version_id"]);

    let second = version(&claude, &id(&made), "Fills more forms").await;
    let versions = claude.get(&format!("{path}/versions?limit=1")).await;
    assert_eq!(versions["data"], json!([second]));
    let next = versions["next_page"].as_str().unwrap();
    let versions = claude.get(&format!("{path}/versions?page={next}")).await;
    assert_eq!(versions, json!({"data": [first], "next_page": null}));
    let now = claude.get(&path).await;
    assert_eq!(now["latest_version_id"], second["id"]);
    assert_eq!(claude.get("/v1/skills").await["data"], json!([now]));
    assert_eq!(claude.get("/v1/skills?source=custom").await["data"], json!([now]));
    assert_eq!(claude.get("/v1/skills?source=anthropic").await["data"], json!([]));

    let (status, kind, _) = fault(&claude.send("DELETE", &path, "").await);
    assert_eq!((status, kind.as_str()), (400, "invalid_request_error"));
    for version in [&second, &first] {
        let path = format!("{path}/versions/{}", id(version));
        let gone = good(&claude.send("DELETE", &path, "").await);
        assert_eq!(
            gone,
            json!({"id": version["id"], "type": "skill_version_deleted"})
        );
        assert_eq!(fault(&claude.send("GET", &path, "").await).0, 404);
    }
    assert_eq!(claude.get(&path).await["latest_version_id"], Value::Null);
    let gone = good(&claude.send("DELETE", &path, "").await);
    assert_eq!(gone, json!({"id": made["id"], "type": "skill_deleted"}));
    assert_eq!(fault(&claude.send("GET", &path, "").await).0, 404);
}

#[tokio::test]
async fn files_come_back_as_an_archive_that_can_be_uploaded() {
    let claude = Claude::start().await;
    let made = skill(&claude).await;
    let path = format!("/v1/skills/{}/versions/latest/content", id(&made));
    let answer = claude.send("GET", &path, "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/zip");
    let bundle = oma_skill::Bundle::from_zip(&answer.bytes).unwrap();
    assert_eq!(
        bundle.files().keys().collect::<Vec<_>>(),
        ["SKILL.md", "forms.md"]
    );
    let body = form(&[], &[("any.zip", &answer.bytes)]);
    let again = good(&upload(&claude, "/v1/skills", body, &[]).await);
    assert_eq!(
        again["display_name"], "pdf-tools",
        "the name that it gives itself"
    );
    let path = format!("/v1/skills/{}/versions/latest/content", id(&again));
    assert_eq!(claude.send("GET", &path, "").await.bytes, answer.bytes);
}

#[tokio::test]
async fn old_clients_get_the_old_shape() {
    let claude = Claude::start().await;
    let old = [("anthropic-beta", "other,skills-2025-10-02")];
    let main = main("Fills forms");
    let body = form(
        &[("display_title", "PDF tools")],
        &[("pdf/SKILL.md", main.as_bytes())],
    );
    let made = good(&upload(&claude, "/v1/skills?beta=true", body, &old).await);
    assert_eq!(
        (&made["display_title"], &made["source"]),
        (&json!("PDF tools"), &json!("custom"))
    );
    let number = made["latest_version"].as_str().unwrap();
    assert!(
        number.len() == 16 && number.bytes().all(|b| b.is_ascii_digit()),
        "{number}"
    );
    let get = async |path: String| {
        let request = request("GET", &path)
            .header("anthropic-version", "2023-06-01")
            .header("anthropic-beta", "skills-2025-10-02");
        good(&claude.server.send(request.body(Body::empty()).unwrap()).await)
    };
    let list = get("/v1/skills".into()).await;
    assert_eq!(list, json!({"data": [made], "next_page": null}));
    let version = get(format!("/v1/skills/{}/versions/{number}", id(&made))).await;
    assert_eq!(
        (&version["version"], &version["directory"], &version["name"]),
        (&json!(number), &json!("pdf"), &json!("pdf-tools"))
    );
}

#[tokio::test]
async fn a_repeated_upload_takes_effect_once() {
    let claude = Claude::start().await;
    let main = main("Fills forms");
    let key = [("idempotency-key", "k")];
    let body = form(&[], &[("pdf/SKILL.md", main.as_bytes())]);
    let first = good(&upload(&claude, "/v1/skills", body.clone(), &key).await);
    let again = good(&upload(&claude, "/v1/skills", body, &key).await);
    assert_eq!(first, again);
    let other = form(&[("display_name", "x")], &[("pdf/SKILL.md", main.as_bytes())]);
    assert_eq!(upload(&claude, "/v1/skills", other, &key).await.status, 422);
}

#[tokio::test]
async fn what_is_wrong_with_an_upload_is_named() {
    let claude = Claude::start().await;
    let main = main("Fills forms");
    let ours: (&str, &[u8]) = ("pdf/SKILL.md", main.as_bytes());
    let long = "x".repeat(256);
    for (body, message) in [
        (form(&[], &[]), "files: no files"),
        (form(&[], &[("SKILL.md", main.as_bytes())]), "files: all files"),
        (form(&[], &[ours, ("other/x", b"x")]), "files: all files"),
        (form(&[], &[("pdf/x", b"x")]), "files: SKILL.md is missing"),
        (form(&[], &[("pdf/SKILL.md", b"# Hi")]), "files: SKILL.md: "),
        (form(&[], &[ours, ("pdf/../x", b"x")]), "files: pdf/../x: "),
        (form(&[], &[ours, ours]), "files: pdf/SKILL.md: "),
        (
            form(&[], &[("x.zip", b"PK\x03\x04")]),
            "files: the zip archive can't be read",
        ),
        (form(&[("color", "red")], &[ours]), "color: Extra inputs"),
        (form(&[("display_name", "a\nb")], &[ours]), "display_name: "),
        (form(&[("display_name", &long)], &[ours]), "display_name: "),
        (b"nothing".to_vec(), "The body can't be read"),
    ] {
        let (status, kind, said) = fault(&upload(&claude, "/v1/skills", body, &[]).await);
        assert_eq!((status, kind.as_str()), (400, "invalid_request_error"), "{said}");
        assert!(said.starts_with(message), "{said}");
    }
    let (status, _, said) = claude.refused("/v1/skills", &json!({})).await;
    assert!(status == 400 && said.contains("multipart/form-data"), "{said}");
    let made = skill(&claude).await;
    let body = form(&[("display_name", "x")], &[ours]);
    let path = format!("/v1/skills/{}/versions", id(&made));
    let (status, _, said) = fault(&upload(&claude, &path, body, &[]).await);
    assert!(status == 400 && said.starts_with("display_name: "), "{said}");
}

fn tools() -> Value {
    json!([{"type": "agent_toolset_20260401"}])
}

#[tokio::test]
async fn agents_pin_versions() {
    let claude = Claude::start().await;
    let made = skill(&claude).await;
    let chosen = json!([{"type": "custom", "skill_id": made["id"]}]);
    let agent = claude.agent(json!({"tools": tools(), "skills": chosen})).await;
    let first = json!([{"type": "custom", "skill_id": made["id"], "version": made["latest_version_id"]}]);
    assert_eq!(agent["skills"], first);
    let path = format!("/v1/agents/{}", id(&agent));
    let second = version(&claude, &id(&made), "Fills more forms").await;
    assert_eq!(claude.get(&path).await["skills"], first, "it is pinned");
    // Named again, it is the newest one.
    let updated = claude.post(&path, &json!({"skills": chosen})).await;
    assert_eq!(
        (&updated["version"], &updated["skills"][0]["version"]),
        (&json!(2), &second["id"])
    );
    let same = claude.post(&path, &json!({"skills": chosen})).await;
    assert_eq!(same["version"], 2);
    let renamed = claude.post(&path, &json!({"name": "Other"})).await;
    assert_eq!(renamed["skills"], updated["skills"]);

    let environment = claude.post("/v1/environments", &json!({"name": "e"})).await;
    let open = |agent: Value| {
        let environment = environment["id"].clone();
        json!({"agent": agent, "environment_id": environment})
    };
    let session = claude.post("/v1/sessions", &open(agent["id"].clone())).await;
    assert_eq!(session["agent"]["skills"], updated["skills"]);
    let overridden =
        |skills: Value| json!({"type": "agent_with_overrides", "id": agent["id"], "skills": skills});
    let without = claude.post("/v1/sessions", &open(overridden(Value::Null))).await;
    assert_eq!(without["agent"]["skills"], json!([]));
    let other = claude
        .post("/v1/sessions", &open(overridden(first.clone())))
        .await;
    assert_eq!(other["agent"]["skills"], first);

    // A version that is gone is in no new session; those that have it keep it.
    let gone = format!("/v1/skills/{}/versions/{}", id(&made), id(&second));
    good(&claude.send("DELETE", &gone, "").await);
    let (status, _, said) = claude.refused("/v1/sessions", &open(agent["id"].clone())).await;
    assert!(status == 400 && said.starts_with("agent.skills: "), "{said}");
    let session = claude.get(&format!("/v1/sessions/{}", id(&session))).await;
    assert_eq!(session["agent"]["skills"], updated["skills"]);

    let cleared = claude.post(&path, &json!({"skills": null})).await;
    assert_eq!(cleared["skills"], json!([]));
}

#[tokio::test]
async fn skills_that_can_not_be_had_are_refused() {
    let claude = Claude::start().await;
    let made = skill(&claude).await;
    let custom = json!({"type": "custom", "skill_id": made["id"]});
    let with = |field: &str, value: Value| {
        let mut one = custom.clone();
        one[field] = value;
        json!([one])
    };
    for (tools, skills, message) in [
        (
            tools(),
            json!([{"type": "anthropic", "skill_id": "pdf"}]),
            "skills.0.skill_id: This server has none",
        ),
        (
            tools(),
            with("skill_id", json!("skill_none")),
            "skills.0.skill_id: No skill",
        ),
        (
            tools(),
            with("version", json!("skver_none")),
            "skills.0.version: ",
        ),
        (tools(), with("version", json!("1")), "skills.0.version: "),
        (
            tools(),
            with("color", json!("red")),
            "skills.0.color: Extra inputs",
        ),
        (tools(), with("type", json!("other")), "skills.0.type: "),
        (tools(), json!([custom, custom]), "skills.1.skill_id: "),
        (tools(), json!(vec![custom.clone(); 21]), "skills: "),
        (json!([]), json!([custom]), "skills: Skills need the read tool"),
        (
            json!([{"type": "agent_toolset_20260401", "configs": [{"name": "read", "enabled": false}]}]),
            json!([custom]),
            "skills: Skills need the read tool",
        ),
    ] {
        let body = json!({"name": "A", "model": "test/puppet", "tools": tools, "skills": skills});
        let (status, _, said) = claude.refused("/v1/agents", &body).await;
        assert!(status == 400 && said.starts_with(message), "{said}");
    }
    let agent = claude.agent(json!({"tools": tools(), "skills": [custom]})).await;
    let path = format!("/v1/agents/{}", id(&agent));
    let (status, _, said) = claude.refused(&path, &json!({"tools": null})).await;
    assert!(status == 400 && said.starts_with("skills: "), "{said}");
}
