//! Files: forms as SDKs send them, lists of both shapes, and what a file may have.

use serde_json::{Value, json};

use super::{Claude, fault, good, id, stable};
use crate::server::{Answer, request};

/// A form with one file, in pieces of that many bytes.
pub(super) fn form(name: &str, kind: &str, content: &[u8], more: &str) -> Vec<u8> {
    let mut form = format!(
        "{more}--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         content-type: {kind}\r\n\r\n"
    )
    .into_bytes();
    form.extend_from_slice(content);
    form.extend_from_slice(b"\r\n--b--\r\n");
    form
}

impl Claude {
    pub(super) async fn form(&self, form: Vec<u8>) -> Answer {
        let request = request("POST", "/v1/files")
            .header("anthropic-version", "2026-10-21")
            .header("content-type", "multipart/form-data; boundary=b");
        self.server.send(request.body(form.into()).unwrap()).await
    }

    pub(super) async fn upload(&self, name: &str) -> String {
        id(&good(&self.form(form(name, "text/plain", b"hello", "")).await))
    }

    async fn older(&self, query: &str) -> Value {
        let request = request("GET", &format!("/v1/files{query}"))
            .header("anthropic-version", "2023-06-01")
            .header("anthropic-beta", "other, files-api-2025-04-14");
        good(&self.server.send(request.body("".into()).unwrap()).await)
    }
}

fn ids(page: &Value) -> Vec<&str> {
    page["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["id"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn files_as_they_are_shown() {
    let claude = Claude::start().await;
    let more = "--b\r\ncontent-disposition: form-data; name=\"expires_in_seconds\"\r\n\r\n3600\r\n";
    let made = good(&claude.form(form("a/größe.csv", "text/csv", b"a,b\n", more)).await);
    let path = format!("/v1/files/{}", id(&made));
    assert_eq!(claude.get(&path).await, made);
    insta::assert_json_snapshot!("claude_file", stable(&made));
    let (status, kind, message) = fault(&claude.send("GET", &format!("{path}/content"), "").await);
    assert_eq!(
        (status, kind.as_str()),
        (400, "invalid_request_error"),
        "{message}"
    );
    let deleted = good(&claude.send("DELETE", &path, "").await);
    assert_eq!(deleted, json!({"id": id(&made), "type": "file_deleted"}));
    assert_eq!(fault(&claude.send("GET", &path, "").await).0, 404);
}

#[tokio::test]
async fn a_repeated_upload_takes_effect_once() {
    let claude = Claude::start().await;
    let sent = async |key: &str, body: Vec<u8>, boundary: &str| {
        let body = String::from_utf8(body)
            .unwrap()
            .replace("--b", &format!("--{boundary}"));
        let request = request("POST", "/v1/files")
            .header("anthropic-version", "2026-10-21")
            .header("idempotency-key", key)
            .header(
                "content-type",
                format!("multipart/form-data; boundary={boundary}"),
            );
        claude.server.send(request.body(body.into()).unwrap()).await
    };
    let expires = "--b\r\ncontent-disposition: form-data; name=\"expires_in_seconds\"\r\n\r\n3600\r\n";
    let whole = |content: &str| form("a.txt", "text/plain", content.as_bytes(), expires);
    let first = good(&sent("k", whole("one"), "first").await);
    // The boundary is another one each time.
    assert_eq!(good(&sent("k", whole("one"), "second").await), first);
    for other in [
        whole("two"),
        form("b.txt", "text/plain", b"one", expires),
        form("a.txt", "text/csv", b"one", expires),
        form("a.txt", "text/plain", b"one", ""),
    ] {
        let (status, _, said) = fault(&sent("k", other, "b").await);
        assert_eq!(status, 422, "{said}");
    }
    assert_eq!(ids(&claude.get("/v1/files").await), [id(&first)]);
    let second = good(&sent("another", whole("one"), "b").await);
    assert_ne!(id(&second), id(&first));
    // At the same time, one of them is made.
    let (left, right) = tokio::join!(sent("at-once", whole("x"), "b"), sent("at-once", whole("x"), "c"));
    assert_eq!(good(&left), good(&right));
    let (status, _, said) = fault(&sent("no key", whole("x"), "b").await);
    assert!(status == 400 && said.contains("Idempotency-Key"), "{said}");
    // As with everything else, what is gone is gone.
    claude
        .send("DELETE", &format!("/v1/files/{}", id(&first)), "")
        .await;
    assert_eq!(fault(&sent("k", whole("one"), "b").await).0, 404);
}

#[tokio::test]
async fn lists_have_two_shapes() {
    let claude = Claude::start().await;
    let mut made = Vec::new();
    for number in 0..4 {
        made.insert(0, claude.upload(&number.to_string()).await);
    }
    let page = claude.get("/v1/files?limit=3&beta=true").await;
    assert_eq!(ids(&page), made[..3]);
    let next = page["next_page"].as_str().unwrap();
    let rest = claude.get(&format!("/v1/files?page={next}")).await;
    assert_eq!(
        (ids(&rest), &rest["next_page"]),
        (vec![made[3].as_str()], &Value::Null)
    );

    let page = claude.older("?limit=3").await;
    assert_eq!(ids(&page), made[..3]);
    assert_eq!(
        (&page["has_more"], &page["first_id"], &page["last_id"]),
        (&json!(true), &json!(made[0]), &json!(made[2]))
    );
    let after = claude.older(&format!("?after_id={}", made[2])).await;
    assert_eq!(
        (ids(&after), &after["has_more"]),
        (vec![made[3].as_str()], &json!(false))
    );
    let before = claude.older(&format!("?limit=2&before_id={}", made[3])).await;
    assert_eq!(
        (ids(&before), &before["has_more"]),
        (vec![made[1].as_str(), made[2].as_str()], &json!(true))
    );
    for query in [
        "after_id=file_none".to_owned(),
        "page=page_x".to_owned(),
        "limit=0".to_owned(),
        format!("ids[]={}&limit=1", made[0]),
        format!("before_id={0}&after_id={0}", made[0]),
    ] {
        let (status, _, message) = fault(&claude.send("GET", &format!("/v1/files?{query}"), "").await);
        assert_eq!(status, 400, "{query}: {message}");
    }
    let named = claude
        .get(&format!("/v1/files?ids[]={}&ids[]=x&ids[]={}", made[1], made[3]))
        .await;
    assert_eq!(ids(&named), [made[1].as_str(), made[3].as_str()]);
    let none = claude.get("/v1/files?scope_id=ses_none").await;
    assert_eq!(none["data"], json!([]));
}

#[tokio::test]
async fn files_and_workspaces_are_bounded() {
    let claude = Claude::start().await;
    let (status, kind, _) = fault(
        &claude
            .form(form("a", "text/plain", &vec![0; (1 << 20) + 1], ""))
            .await,
    );
    assert_eq!((status, kind.as_str()), (413, "request_too_large"));
    let full = form("a", "text/plain", &vec![0; 1 << 20], "");
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(id(&good(&claude.form(full.clone()).await)));
    }
    let answer = claude.form(full.clone()).await;
    assert_eq!(
        answer.json()["error"]["details"]["error_code"],
        "storage_quota_exceeded"
    );
    assert_eq!(fault(&answer).0, 400);
    good(&claude.send("DELETE", &format!("/v1/files/{}", made[0]), "").await);
    good(&claude.form(full).await);
}

#[tokio::test]
async fn forms_that_are_none_are_refused() {
    let claude = Claude::start().await;
    let plain = |text: &str| text.as_bytes().to_vec();
    for (body, expected) in [
        (plain("--b--\r\n"), "file: Field required"),
        (
            plain("--b\r\ncontent-disposition: form-data\r\n\r\nx\r\n--b--\r\n"),
            "name",
        ),
        (form("a/..", "text/plain", b"x", ""), "name of 1 to"),
        (
            plain("--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nx"),
            "form",
        ),
    ] {
        let (status, _, message) = fault(&claude.form(body).await);
        assert!(status == 400 && message.contains(expected), "{status} {message}");
    }
}

#[tokio::test]
async fn resources_come_and_go() {
    let claude = Claude::start().await;
    let file = claude.upload("a.txt").await;
    let session = claude.session(json!([])).await;
    let path = format!("/v1/sessions/{session}/resources");
    let added = claude
        .post(
            &path,
            &json!({"type": "file", "file_id": file, "mount_path": "/a.txt"}),
        )
        .await;
    insta::assert_json_snapshot!("claude_resource", stable(&added));
    assert_ne!(added["file_id"], json!(file));
    assert_eq!(
        claude.get(&path).await,
        json!({"data": [added], "next_page": null})
    );
    assert_eq!(
        claude.get(&format!("/v1/sessions/{session}")).await["resources"],
        json!([added])
    );
    let copies = claude.get(&format!("/v1/files?scope_id={session}")).await;
    assert_eq!(ids(&copies), [added["file_id"].as_str().unwrap()]);
    for (body, expected) in [
        (
            json!({"type": "file", "file_id": file, "mount_path": "a.txt"}),
            "another resource's path",
        ),
        (
            json!({"type": "file", "file_id": file, "mount_path": "/../b"}),
            "plain path",
        ),
        (
            json!({"type": "file", "file_id": file, "more": 1}),
            "more: Extra inputs are not permitted",
        ),
        (json!({"type": "memory_store", "memory_store_id": "m"}), "type"),
    ] {
        let (status, _, message) = claude.refused(&path, &body).await;
        assert!(status == 400 && message.contains(expected), "{status} {message}");
    }
    let missing = claude
        .refused(&path, &json!({"type": "file", "file_id": "file_none"}))
        .await;
    assert_eq!(missing.0, 404);
    let one = format!("{path}/{}", id(&added));
    assert_eq!(claude.get(&one).await, added);
    let (status, _, _) = claude.refused(&one, &json!({"authorization_token": "t"})).await;
    assert_eq!(status, 400);
    let gone = good(&claude.send("DELETE", &one, "").await);
    assert_eq!(
        gone,
        json!({"id": id(&added), "type": "session_resource_deleted"})
    );
    assert_eq!(fault(&claude.send("GET", &one, "").await).0, 404);
    assert_eq!(
        claude.get(&format!("/v1/files?scope_id={session}")).await["data"],
        json!([])
    );
}
