//! Sandboxes outlive the server.

use std::process::{Child, Command, Stdio};

use std::io::{BufRead as _, BufReader};
use std::path::Path;

use oma_domain::{EventId, SessionId};
use oma_sandbox::{Error, Origin, Pool, PoolConfig, Provider as _};

use crate::support::{
    Fixture, Folder, bash, cgroups, config, exe, hand_pid, is_alive, last_hand_pid, open, said, sh, spec,
    wait_for_end,
};

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

    let local = open(config(&folder.path())).await.unwrap();
    let spec = spec(&session);
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
    let local = open(config(&folder.path())).await.unwrap();
    let attached = local.attach(&spec(&session)).await.unwrap();
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

    let spec = spec(&session);
    {
        let local = open(config(&folder.path())).await.unwrap();
        assert_eq!(local.attach(&spec).await.unwrap().origin, Origin::Replaced);
    }
    let local = open(config(&folder.path())).await.unwrap();
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
async fn what_is_looked_for_is_not_started() {
    let fixture = Fixture::new().await;
    let session = SessionId::generate();
    let local = &fixture.local;
    assert!(local.reattach(&session).await.unwrap().is_none(), "it has none");
    let attached = fixture.attach(&session).await;
    let found = local.reattach(&session).await.unwrap().unwrap();
    assert_eq!(sh(&*found.hand, "echo a").await.0, "a");
    let pid = hand_pid(&fixture.data, &session);
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    wait_for_end(pid);
    // Until the server has heard of it.
    while attached.hand.logs(0).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(local.reattach(&session).await.unwrap().is_none(), "it is gone");
    let last = last_hand_pid(&fixture.data, &session);
    assert!(last.is_none_or(|last| last == pid), "and no other one is there");
    // It was not stopped in an orderly way, so that it is cleared away now is no reason to forget it.
    local.stop(&session).await.unwrap();
    local.stop(&session).await.unwrap();
    assert!(local.reattach(&session).await.unwrap().is_none());
    assert_eq!(fixture.attach(&session).await.origin, Origin::Replaced);
    local.destroy(&session).await.unwrap();
    fixture.assert_nothing_left();
}

#[tokio::test]
async fn what_outlived_the_server_takes_a_place() {
    // One that is under way, and one whose result nobody has said that it keeps.
    for command in ["sleep 1000", "true"] {
        let folder = Folder::new();
        let (old, new) = (SessionId::generate(), SessionId::generate());
        kill(server(&folder.path(), &old, &EventId::generate(), command));
        let pid = hand_pid(&folder.path(), &old);
        let local = open(config(&folder.path())).await.unwrap();
        assert_eq!(local.survivors(), std::slice::from_ref(&old));
        let pool = Pool::new(
            std::sync::Arc::new(local.clone()),
            PoolConfig {
                max_live: 1,
                ..PoolConfig::default()
            },
        );
        assert_eq!(pool.counts().live, 1);
        assert!(pool.peek(&old).await.is_some(), "it is there at once");
        let (old, new) = (spec(&old), spec(&new));
        let lease = pool.acquire(&new).await.unwrap();
        assert_eq!((pool.counts().live, pool.counts().evicted), (1, 1));
        wait_for_end(pid);
        drop(lease);
        let lease = pool.acquire(&old).await.unwrap();
        assert_eq!(
            lease.origin(),
            Origin::Replaced,
            "what was under way is not forgotten: {command}"
        );
        drop(lease);
        for spec in [old, new] {
            pool.destroy(&spec.session).await.unwrap();
        }
        let local = pool.provider();
        assert_eq!(local.inventory().await.unwrap(), []);
    }

    // With nothing under way, nothing is lost.
    let fixture = Fixture::new().await;
    let session = SessionId::generate();
    let attached = fixture.attach(&session).await;
    sh(&*attached.hand, "true").await;
    attached.hand.forget_all_but(&[]).await.unwrap();
    let Fixture {
        data,
        local,
        folder: _folder,
    } = fixture;
    drop((attached, local));
    let local = open(config(&data)).await.unwrap();
    assert_eq!(local.survivors(), std::slice::from_ref(&session));
    local.stop(&session).await.unwrap();
    let spec = spec(&session);
    assert_eq!(local.attach(&spec).await.unwrap().origin, Origin::Started);
    local.destroy(&session).await.unwrap();
}

#[tokio::test]
async fn a_killed_server_leaves_no_hand_behind_for_long() {
    for command in ["sleep 1000", "trap '' TERM HUP; setsid sleep 1000 & sleep 1000"] {
        let folder = Folder::new();
        let session = SessionId::generate();
        let server = server(&folder.path(), &session, &EventId::generate(), command);
        let pid = hand_pid(&folder.path(), &session);
        kill(server);
        assert!(is_alive(pid), "a server may come back");
        let groups = cgroups(&folder.path(), &session);
        let label = folder.label();
        // As the end of a test does, after its server.
        std::fs::remove_dir_all(folder.path()).unwrap();
        let begun = std::time::Instant::now();
        tokio::task::spawn_blocking(move || wait_for_end(pid))
            .await
            .unwrap();
        assert!(
            begun.elapsed() < std::time::Duration::from_secs(15),
            "{:?}",
            begun.elapsed()
        );
        for group in groups {
            std::fs::remove_dir(group).unwrap();
        }
        // A container has ended with its hand; that it is there still only its engine knows.
        if let Some(engine) = crate::support::engine() {
            let [container] = &*engine.containers(&label) else {
                panic!("one container");
            };
            let ended = engine.ask("POST", &format!("/containers/{container}/wait"), &[]);
            assert_eq!(ended.unwrap().0, 200, "it has ended");
            crate::support::remove_containers(&label);
        }
    }
}

#[tokio::test]
async fn the_files_beside_the_sandboxes_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::new().await;
    let session = SessionId::generate();
    fixture.attach(&session).await;
    for (name, mode) in [
        ("sandboxes.lock", 0o600),
        ("sandboxes.instance", 0o600),
        ("sandboxes", 0o700),
        ("workspaces", 0o700),
        ("trash", 0o700),
    ] {
        let found = std::fs::metadata(fixture.data.join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(found & 0o777, mode, "{name}");
    }
    fixture.local.destroy(&session).await.unwrap();
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
        let local = open(config(&folder.path())).await.unwrap();
        let sandbox = folder.path().join("sandboxes").join(session.as_str());
        std::fs::create_dir_all(sandbox.join("root")).unwrap();
        std::fs::write(sandbox.join("record.json"), record.to_string()).unwrap();
        let spec = spec(&session);
        let attached = local.attach(&spec).await.unwrap();
        assert_eq!(attached.origin, origin, "{record}");
        assert_eq!(sh(&*attached.hand, "echo a").await, ("a".to_owned(), false));
        local.destroy(&session).await.unwrap();
    }
}

#[tokio::test]
async fn one_data_folder_has_one_server() {
    let fixture = Fixture::new().await;
    assert!(matches!(open(config(&fixture.data)).await, Err(Error::Io { .. })));
}
