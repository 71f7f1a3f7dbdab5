//! Sandboxes outlive the server.

use std::process::{Child, Command, Stdio};

use std::io::{BufRead as _, BufReader};
use std::path::Path;

use oma_domain::{EventId, SessionId};
use oma_sandbox::local::Local;
use oma_sandbox::{Error, Origin, Provider as _, Spec};

use crate::support::{Fixture, Folder, bash, config, exe, hand_pid, said, sh};

/// Starts a server that runs `command`, and returns once its hand has it.
fn server(data: &Path, session: &SessionId, key: &EventId, command: &str) -> Child {
    let mut server = Command::new(exe())
        .arg("serve")
        .arg(data)
        .args([session.as_str(), key.as_str(), command])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "attached\n");
    server
}

fn kill(mut server: Child) {
    server.kill().unwrap();
    server.wait().unwrap();
}

#[tokio::test]
async fn a_running_command_survives_the_server_and_is_collected_once() {
    let folder = Folder::new();
    let (session, key) = (SessionId::generate(), EventId::generate());
    let command = "echo begun >> runs; while [ ! -e go ]; do sleep 0.05; done; echo ended";
    kill(server(&folder.path(), &session, &key, command));

    let local = Local::open(config(&folder.path())).await.unwrap();
    let spec = Spec {
        session: session.clone(),
    };
    let attached = local.attach(&spec).await.unwrap();
    assert_eq!(attached.origin, Origin::Running);
    let files = local.workspace(&session).await.unwrap();
    files.write("go", bytes::Bytes::from_static(b"x")).await.unwrap();
    let first = attached.hand.run(&key, bash(command)).await.unwrap();
    assert_eq!(said(&first), ("ended".to_owned(), false));
    assert_eq!(
        attached.hand.run(&key, bash(command)).await.unwrap(),
        first,
        "the same again"
    );
    assert_eq!(sh(&*attached.hand, "cat runs").await.0, "begun", "it ran once");

    attached.hand.forget_all_but(&[]).await.unwrap();
    assert_eq!(attached.hand.cancel(&key).await.unwrap(), None, "forgotten");
    local.destroy(&session).await.unwrap();
}

#[tokio::test]
async fn a_result_waits_for_the_next_server() {
    let folder = Folder::new();
    let (session, key) = (SessionId::generate(), EventId::generate());
    let mut first = server(&folder.path(), &session, &key, "echo done; echo x >> runs");
    assert!(first.wait().unwrap().success());
    let local = Local::open(config(&folder.path())).await.unwrap();
    let attached = local
        .attach(&Spec {
            session: session.clone(),
        })
        .await
        .unwrap();
    assert_eq!(attached.origin, Origin::Running);
    assert_eq!(
        said(&attached.hand.run(&key, bash("echo again")).await.unwrap()).0,
        "done"
    );
    assert_eq!(sh(&*attached.hand, "cat runs").await.0, "x");
    local.destroy(&session).await.unwrap();
}

#[tokio::test]
async fn a_lost_sandbox_is_told_until_the_server_has_acted() {
    let folder = Folder::new();
    let (session, key) = (SessionId::generate(), EventId::generate());
    kill(server(&folder.path(), &session, &key, "sleep 1000"));
    let pid = hand_pid(&folder.path(), &session);
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();

    let spec = Spec {
        session: session.clone(),
    };
    {
        let local = Local::open(config(&folder.path())).await.unwrap();
        assert_eq!(local.attach(&spec).await.unwrap().origin, Origin::Replaced);
    }
    let local = Local::open(config(&folder.path())).await.unwrap();
    let attached = local.attach(&spec).await.unwrap();
    assert_eq!(
        attached.origin,
        Origin::Replaced,
        "nothing has been run in the new one"
    );
    assert_eq!(sh(&*attached.hand, "echo a").await, ("a".to_owned(), false));
    assert_eq!(local.attach(&spec).await.unwrap().origin, Origin::Running);
    local.stop(&session).await.unwrap();
    assert_eq!(local.attach(&spec).await.unwrap().origin, Origin::Started);
    local.destroy(&session).await.unwrap();
}

#[tokio::test]
async fn a_launch_that_was_cut_off_lost_nothing() {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let boot = boot.trim();
    for (record, origin) in [
        (
            serde_json::json!({"boot": boot, "hand": null, "cgroups": []}),
            Origin::Started,
        ),
        // The loss before that one has not been acted on.
        (
            serde_json::json!({"boot": boot, "hand": null, "cgroups": [], "replaced": true}),
            Origin::Replaced,
        ),
        // With the power, a later record may have been lost too.
        (
            serde_json::json!({"boot": "another", "hand": null, "cgroups": []}),
            Origin::Replaced,
        ),
        (serde_json::json!({"damaged": true}), Origin::Replaced),
    ] {
        let folder = Folder::new();
        let session = SessionId::generate();
        let local = Local::open(config(&folder.path())).await.unwrap();
        let sandbox = folder.path().join("sandboxes").join(session.as_str());
        std::fs::create_dir_all(sandbox.join("root")).unwrap();
        std::fs::write(sandbox.join("record.json"), record.to_string()).unwrap();
        let spec = Spec {
            session: session.clone(),
        };
        let attached = local.attach(&spec).await.unwrap();
        assert_eq!(attached.origin, origin, "{record}");
        assert_eq!(sh(&*attached.hand, "echo a").await, ("a".to_owned(), false));
        local.destroy(&session).await.unwrap();
    }
}

#[tokio::test]
async fn one_data_folder_has_one_server() {
    let fixture = Fixture::new().await;
    assert!(matches!(
        Local::open(config(&fixture.data)).await,
        Err(Error::Io { .. })
    ));
}
