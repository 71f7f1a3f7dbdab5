//! Files and sessions' resources against another workspace: nothing of them is seen, taken or changed.

use reqwest::Method;
use serde_json::{Value, json};

use crate::system::System;
use crate::system::client::{Answer, Client};
use crate::tenants::{key, workspace};

const TOKEN: &str = "canary-api-token-5f2e";

async fn call(client: &Client, method: Method, path: &str, body: Option<Value>) -> Answer {
    let mut request = client
        .request(method, path)
        .header("anthropic-version", "2026-10-21");
    if let Some(body) = body {
        request = request.json(&body);
    }
    client.send(request).await
}

async fn upload(client: &Client) -> Value {
    let body = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"ours.txt\"\r\n\r\nours\r\n--b--\r\n";
    let request = client
        .request(Method::POST, "/v1/files")
        .header("anthropic-version", "2026-10-21")
        .header("content-type", "multipart/form-data; boundary=b")
        .body(body);
    client.send(request).await.good()
}

async fn session(client: &Client, resources: Value) -> Answer {
    let made = |value: Value| value["id"].as_str().expect("an id").to_owned();
    let agent = json!({"name": "a", "model": "scripted/echo"});
    let agent = made(call(client, Method::POST, "/v1/agents", Some(agent)).await.good());
    let environment = json!({"name": format!("e {agent}")});
    let environment = made(
        call(client, Method::POST, "/v1/environments", Some(environment))
            .await
            .good(),
    );
    let body = json!({"agent": agent, "environment_id": environment, "resources": resources});
    call(client, Method::POST, "/v1/sessions", Some(body)).await
}

#[tokio::test]
async fn files_of_another_workspace_are_not_there() {
    let system = System::start_with(|options| options.token(TOKEN)).await;
    let operator = system.client();
    let mut clients = Vec::new();
    for name in ["ours", "theirs"] {
        let id = workspace(operator, name).await;
        clients.push(
            key(
                operator,
                &json!({"name": name, "scope": "admin", "workspaceId": id}),
            )
            .await
            .1,
        );
    }
    let [ours, theirs] = &clients[..] else {
        unreachable!("there are two")
    };
    let file = upload(ours).await["id"].as_str().expect("an id").to_owned();
    let given = json!([{"type": "file", "file_id": file}]);
    let session = session(ours, given.clone()).await.good();
    let resource = session["resources"][0]["id"].as_str().expect("an id");
    let session = session["id"].as_str().expect("an id");

    let resources = format!("/v1/sessions/{session}/resources");
    for (method, path, body) in [
        (Method::GET, format!("/v1/files/{file}"), None),
        (Method::GET, format!("/v1/files/{file}/content"), None),
        (Method::DELETE, format!("/v1/files/{file}"), None),
        (Method::GET, resources.clone(), None),
        (Method::POST, resources.clone(), Some(given[0].clone())),
        (Method::GET, format!("{resources}/{resource}"), None),
        (
            Method::POST,
            format!("{resources}/{resource}"),
            Some(json!({"authorization_token": "t"})),
        ),
        (Method::DELETE, format!("{resources}/{resource}"), None),
    ] {
        let answer = call(theirs, method.clone(), &path, body).await;
        assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text());
    }
    for path in [
        "/v1/files".to_owned(),
        format!("/v1/files?ids[]={file}"),
        format!("/v1/files?scope_id={session}"),
    ] {
        let listed = call(theirs, Method::GET, &path, None).await.good();
        assert_eq!(listed["data"], json!([]), "{path}");
    }
    assert_eq!(self::session(theirs, given).await.status, 404, "a copy of ours");
    let page = call(theirs, Method::GET, &format!("/v1/files?after_id={file}"), None).await;
    assert_eq!(page.status, 400);

    let listed = call(ours, Method::GET, "/v1/files", None).await.good();
    assert_eq!(
        listed["data"].as_array().map(Vec::len),
        Some(2),
        "all is there: {listed}"
    );
}
