//! Workspace files over HTTP.

use serde_json::json;

use crate::server::Server;

#[tokio::test]
async fn files() {
    let server = Server::with(|config| config.max_file = 10).await;
    let (agent, other) = (server.agent(json!({})).await, server.agent(json!({})).await);
    let session = server.session(&agent).await;
    let path = |file: &str| format!("/v1/agents/{agent}/files/{file}?session_id={session}");
    let written = server.raw("PUT", &path("a/b%20c.bin"), vec![0_u8, 255, 1]).await;
    assert_eq!(
        written.json(),
        json!({"agent_id": agent, "size": 3, "path": "a/b c.bin"})
    );
    let read = server.get(&path("a//./b%20c.bin")).await;
    assert_eq!(
        (&read.bytes[..], read.headers["content-type"].to_str().unwrap()),
        (&[0_u8, 255, 1][..], "application/octet-stream")
    );
    assert_eq!(read.headers["x-content-type-options"], "nosniff");
    let list = server
        .get(&format!("/v1/agents/{agent}/files?session_id={session}&path=/"))
        .await
        .json();
    assert_eq!(list["path"], "/");
    assert_eq!(
        list["entries"],
        json!([{"name": "a/b c.bin", "path": "a/b c.bin", "type": "file", "size": 3, "mtime": 12.5}])
    );
    for (method, url, code) in [
        ("GET", path("none"), (404, "file_not_found")),
        ("GET", path("folder"), (404, "file_not_found")),
        ("GET", path(""), (404, "file_not_found")),
        ("GET", path("a%2F..%2Fb"), (400, "invalid_path")),
        ("GET", path("a%00b"), (400, "invalid_path")),
        ("PUT", path(""), (400, "invalid_path")),
        ("PUT", path("."), (400, "invalid_path")),
        ("PUT", path("%2e%2e/x"), (400, "invalid_path")),
        ("PUT", path("full"), (507, "workspace_full")),
        ("DELETE", path("folder"), (400, "invalid_path")),
        ("DELETE", path("none"), (404, "file_not_found")),
        (
            "GET",
            format!("/v1/agents/{agent}/files"),
            (400, "missing_session_id"),
        ),
        (
            "GET",
            format!("/v1/agents/{agent}/files?session_id=ses_none"),
            (404, "session_not_found"),
        ),
        (
            "GET",
            format!("/v1/agents/{agent}/files?session_id=.."),
            (404, "session_not_found"),
        ),
        (
            "GET",
            format!("/v1/agents/{other}/files?session_id={session}"),
            (404, "session_not_found"),
        ),
        (
            "GET",
            format!("/v1/agents/agt_none/files?session_id={session}"),
            (404, "agent_not_found"),
        ),
        (
            "GET",
            format!("/v1/agents/{agent}/files?session_id={session}&path=missing"),
            (404, "file_not_found"),
        ),
    ] {
        assert_eq!(
            server.raw(method, &url, "x").await.code(),
            (code.0, code.1.to_owned()),
            "{method} {url}"
        );
    }
    assert_eq!(
        server.raw("PUT", &path("big"), vec![0_u8; 11]).await.code(),
        (413, "body_too_large".into())
    );
    let deleted = server.delete(&path("a/b%20c.bin")).await;
    assert_eq!(
        deleted.json(),
        json!({"agent_id": agent, "path": "a/b c.bin", "deleted": true})
    );
}
