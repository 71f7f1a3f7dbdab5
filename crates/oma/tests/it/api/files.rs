//! The files API stays within the workspace (I12), whatever the path says and whatever the agent has put there.

use serde_json::json;

use crate::system::{System, raw};

const SECRET: &str = "outside-5d0e";

#[tokio::test]
async fn no_path_leads_out_of_a_workspace() {
    let system = System::start().await;
    let client = system.client();
    let chat = client.session_of("anthropic/claude-sonnet-4-5").await;
    let other = client.session_of("anthropic/claude-sonnet-4-5").await;
    client.put(&other.file_path("secret.txt"), SECRET).await.good();
    client.put(&chat.file_path("mine.txt"), "mine").await.good();
    let workspaces = system.data.path().join("workspaces");
    let outside = workspaces.join("outside.txt");
    std::fs::write(&outside, SECRET).expect("written");
    let host = system.data.beside("host.txt");
    std::fs::write(&host, SECRET).expect("written");
    let before = snapshot(&system.data.path());

    let depth = "../".repeat(20);
    let paths = [
        "../outside.txt".to_owned(),
        "a/../../outside.txt".to_owned(),
        "..%2foutside.txt".to_owned(),
        "%2e%2e/outside.txt".to_owned(),
        "%2e%2e%2foutside.txt".to_owned(),
        ".%2e/outside.txt".to_owned(),
        "..%5coutside.txt".to_owned(),
        "..\\outside.txt".to_owned(),
        "%252e%252e%252foutside.txt".to_owned(),
        "%c0%ae%c0%ae/outside.txt".to_owned(),
        "..%00/outside.txt".to_owned(),
        "mine.txt%00.png".to_owned(),
        format!("../{}/secret.txt", other.session),
        format!("{depth}{}", host.display()),
        host.display().to_string().replace('/', "%2f"),
        host.display().to_string(),
        format!("//{}", outside.display()),
        format!("/proc/self/root{}", host.display()),
        "x".repeat(5_000),
        format!("{}x", "y/".repeat(3_000)),
    ];
    for path in &paths {
        // An absolute path is one from the workspace's root: it may be written, and is gone again afterwards.
        for (method, allowed) in [
            ("GET", &[400, 404][..]),
            ("PUT", &[200, 400, 404, 414]),
            ("GET", &[200, 400, 404]),
            ("DELETE", &[200, 400, 404]),
        ] {
            let target = format!(
                "/v1/agents/{}/files/{path}?session_id={}",
                chat.agent, chat.session
            );
            let answer = raw::request(client.authority(), method, &target, "", "overwritten").await;
            assert!(
                allowed.contains(&answer.status),
                "{method} {path}: {} {}",
                answer.status,
                answer.text
            );
            assert!(!answer.text.contains(SECRET), "{method} {path}");
        }
        let target = format!(
            "/v1/agents/{}/files?session_id={}&path={path}",
            chat.agent, chat.session
        );
        let answer = raw::request(client.authority(), "GET", &target, "", "").await;
        assert!(
            matches!(answer.status, 200 | 400 | 404 | 414),
            "{path}: {}",
            answer.text
        );
        assert!(
            !answer.text.contains("outside.txt\"") && !answer.text.contains(SECRET),
            "{path}: {}",
            answer.text
        );
    }
    assert_eq!(snapshot(&system.data.path()), before);
    assert_eq!(std::fs::read_to_string(&host).expect("there"), SECRET);
    assert_eq!(client.get(&other.file_path("secret.txt")).await.text(), SECRET);
    system.stop().await;
}

/// The texts of the files beside and in other workspaces that requests must leave alone.
fn snapshot(data: &std::path::Path) -> Vec<(std::path::PathBuf, Option<String>)> {
    let mut found = Vec::new();
    for folder in [data.to_owned(), data.join("workspaces"), data.join("trash")] {
        for entry in std::fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            let is_text = path.extension().is_some_and(|extension| extension == "txt");
            let text = is_text.then(|| std::fs::read_to_string(&path).expect("readable"));
            // The database's files come and go.
            if !path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("store.db"))
            {
                found.push((path, text));
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn what_the_agent_puts_there_leads_nowhere_either() {
    let system = System::start().await;
    let client = system.client();
    let chat = client.session_of("anthropic/claude-sonnet-4-5").await;
    let other = client.session_of("anthropic/claude-sonnet-4-5").await;
    client.put(&other.file_path("secret.txt"), SECRET).await.good();
    let host = system.data.beside("host.txt");
    std::fs::write(&host, SECRET).expect("written");
    let result = chat
        .run(&format!(
            "set -e; ln -s {host} link; ln -s {folder} folder; ln -s .. up; ln -s / root; ln -s loop loop; \
             ln -s ../{session}/secret.txt peek; mkdir deep; ln -s ../../.. deep/out; mkfifo pipe; \
             echo mine > mine.txt; ln -s mine.txt alias; ln -s /workspace/mine.txt absolute; chmod 000 mine.txt; \
             python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'",
            host = host.display(),
            folder = system.data.beside("").display(),
            session = other.session,
        ))
        .await;
    assert_eq!(result["is_error"], false, "{result}");
    for path in [
        "link",
        "folder/host.txt",
        "up/outside.txt",
        "up",
        "root/etc/hostname",
        "loop",
        "peek",
        "deep/out/x",
        "alias",
        "absolute",
        "pipe",
        "sock",
    ] {
        let read = client.get(&chat.file_path(path)).await;
        assert!(
            matches!(read.status, 400 | 404),
            "{path}: {} {}",
            read.status,
            read.text()
        );
        let listed = client
            .get(&format!(
                "{}&path={path}",
                chat.file_path("").replace("files/", "files")
            ))
            .await;
        assert!(
            matches!(listed.status, 400 | 404),
            "{path}: {} {}",
            listed.status,
            listed.text()
        );
        let written = client.put(&chat.file_path(path), "overwritten").await;
        assert!(
            matches!(written.status, 200 | 400 | 404),
            "{path}: {} {}",
            written.status,
            written.text()
        );
        assert_eq!(
            std::fs::read_to_string(&host).expect("there"),
            SECRET,
            "{path} was written through"
        );
    }
    // A file that its owner may not read is still the client's.
    assert_eq!(client.get(&chat.file_path("mine.txt")).await.text(), "mine\n");
    assert!(!system.data.beside("overwritten").exists());
    let list = client
        .get(&chat.file_path("").replace("files/", "files"))
        .await
        .good();
    let names: Vec<&str> = list["entries"]
        .as_array()
        .expect("entries")
        .iter()
        .map(|entry| entry["name"].as_str().expect("a name"))
        .collect();
    assert!(
        names.contains(&"mine.txt") && names.contains(&"deep"),
        "{names:?}"
    );
    for hidden in ["up", "root", "loop", "folder"] {
        assert!(!names.contains(&hidden), "{names:?}");
    }
    // What is deleted is the link, not what it points to.
    for path in ["up", "root", "folder"] {
        let deleted = client.delete(&chat.file_path(path)).await;
        assert!(
            matches!(deleted.status, 200 | 400 | 404),
            "{path}: {}",
            deleted.text()
        );
    }
    assert_eq!(client.get(&other.file_path("secret.txt")).await.text(), SECRET);
    assert!(host.exists());
    system.stop().await;
}

#[tokio::test]
async fn files_come_back_as_they_were_written_also_after_a_crash() {
    let system = System::start_with(|options| options.set("OPENCLAW_MAX_FILE", "64KiB")).await;
    let chat = system.client().session_of("anthropic/claude-sonnet-4-5").await;
    let names = [
        "a.txt",
        "deep/er/b.bin",
        "sp%20ace",
        "%C3%BC.txt",
        "%23hash%3F",
        "-dash",
        "...",
        "%25",
    ];
    let bytes: Vec<u8> = (0..=255).cycle().take(64 << 10).collect();
    for name in names {
        let put = system
            .client()
            .put(&chat.file_path(name), bytes.clone())
            .await
            .good();
        assert_eq!(put["size"], bytes.len(), "{name}");
    }
    let too_large = system
        .client()
        .put(&chat.file_path("c"), vec![0; (64 << 10) + 1])
        .await;
    assert_eq!(
        (too_large.status, too_large.code().as_str()),
        (413, "body_too_large")
    );
    assert_eq!(system.client().get(&chat.file_path("c")).await.status, 404);
    let system = system.crash().await;
    let chat = chat.at(system.client());
    for name in names {
        let read = system.client().get(&chat.file_path(name)).await;
        assert!(read.status == 200 && read.body == bytes, "{name}");
        assert_eq!(read.header("x-content-type-options"), Some("nosniff"));
    }
    // The agent sees them, and the client what the agent made of them.
    let seen = chat
        .run("sha256sum < 'sp ace' > sum; stat -c %s ü.txt; rm a.txt; mv deep/er deep/est")
        .await;
    assert_eq!(seen["content"].as_str().map(str::trim), Some("65536"), "{seen}");
    assert!(system.client().get(&chat.file_path("sum")).await.text().len() > 64);
    assert_eq!(system.client().get(&chat.file_path("a.txt")).await.status, 404);
    assert_eq!(
        system.client().get(&chat.file_path("deep/est/b.bin")).await.body,
        bytes
    );
    assert_eq!(
        system
            .client()
            .delete(&chat.file_path("deep/est/b.bin"))
            .await
            .good()["deleted"],
        true
    );
    assert_eq!(
        system
            .client()
            .delete(&chat.file_path("deep/est/b.bin"))
            .await
            .status,
        404
    );
    assert_eq!(
        system.client().delete(&chat.path("")).await.good(),
        json!({"deleted": true})
    );
    assert_eq!(
        system.client().get(&chat.file_path("sum")).await.code(),
        "session_not_found"
    );
    system.stop().await;
}

/// For a sandbox a backslash is a character like any other, and so it is here: what is listed can be read as listed.
#[tokio::test]
async fn a_backslash_is_part_of_a_name() {
    let system = System::start().await;
    let client = system.client();
    let chat = client.session_of("scripted/echo").await;
    for (escaped, name) in [("a%5Cb.txt", "a\\b.txt"), ("..%5C..%5Cc.txt", "..\\..\\c.txt")] {
        let written = client.put(&chat.file_path(escaped), "back").await.good();
        assert_eq!(written["path"], name);
        let list = client
            .get(&chat.file_path("").replace("files/", "files"))
            .await
            .good();
        let entries = list["entries"].as_array().expect("entries");
        assert!(
            entries
                .iter()
                .any(|entry| entry["path"] == name && entry["type"] == "file"),
            "{list}"
        );
        assert_eq!(client.get(&chat.file_path(escaped)).await.text(), "back");
        assert_eq!(client.delete(&chat.file_path(escaped)).await.good()["path"], name);
    }
    system.stop().await;
}
