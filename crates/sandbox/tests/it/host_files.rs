//! The host's access to a workspace that the session does its worst to.

use bytes::Bytes;
use oma_domain::{EventId, SessionId};
use oma_sandbox::Provider as _;
use oma_sandbox::files::Error;

use crate::support::{Fixture, bash, sh};

#[tokio::test]
async fn files_come_and_go() {
    let fixture = Fixture::new().await;
    let session = SessionId::generate();
    let files = fixture.local.workspace(&session).await.unwrap();
    files
        .write("a/b/c.txt", Bytes::from_static(b"hello"))
        .await
        .unwrap();
    let attached = fixture.attach(&session).await;
    let seen =
        "stat -c '%U %a %s' a a/b a/b/c.txt; echo more >> a/b/c.txt; echo new > a/d; chmod 751 a/b/c.txt";
    let (text, failed) = sh(&*attached.hand, seen).await;
    assert!(
        !failed && text.starts_with("agent 755") && text.ends_with("agent 644 5"),
        "{text}"
    );
    assert_eq!(files.read("a/b/c.txt", 100).await.unwrap(), "hellomore\n");
    assert!(matches!(
        files.read("a/b/c.txt", 3).await,
        Err(Error::TooLarge(3))
    ));

    let listed = files.list("a", 10).await.unwrap();
    let names: Vec<(&str, &str, bool, u64)> = listed
        .iter()
        .map(|e| (e.name.as_str(), e.path.as_str(), e.is_dir, e.size))
        .collect();
    assert_eq!(names, [("b", "a/b", true, 0), ("d", "a/d", false, 4)]);
    assert_eq!(files.list("a", 1).await.unwrap().len(), 1);
    assert!(listed[0].mtime_ms > 1.6e12);

    files
        .write("a/b/c.txt", Bytes::from_static(b"replaced"))
        .await
        .unwrap();
    assert_eq!(
        sh(
            &*attached.hand,
            "cat a/b/c.txt; stat -c ' %a %U' a/b/c.txt; ls -A a/b"
        )
        .await
        .0,
        "replaced 751 agent\nc.txt"
    );
    files.remove("a/b/c.txt").await.unwrap();
    assert!(matches!(files.read("a/b/c.txt", 9).await, Err(Error::NotFound)));
    assert!(matches!(files.remove("a/b/c.txt").await, Err(Error::NotFound)));
    assert!(matches!(files.list("nowhere", 9).await, Err(Error::NotFound)));
    fixture.local.destroy(&session).await.unwrap();
}

#[tokio::test]
async fn no_path_leads_out_and_nothing_hangs() {
    let fixture = Fixture::new().await;
    let session = SessionId::generate();
    let attached = fixture.attach(&session).await;
    let secret = fixture.data.join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let data = fixture.data.display();
    let make = format!(
        "ln -s {data}/secret file; ln -s {data} folder; ln -s / root; ln -s .. up; ln -s loop loop; mkfifo pipe; \
         mkdir d; ln -s ../../secret d/far; perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local=>\"sock\",Listen=>1)'; \
         ln -s nowhere dangling; echo ok > plain"
    );
    sh(&*attached.hand, &make).await;
    let files = fixture.local.workspace(&session).await.unwrap();
    let hostile = [
        "file",
        "folder/secret",
        "root/etc/passwd",
        "up/secret",
        "loop",
        "loop/x",
        "pipe",
        "sock",
        "d/far",
        "dangling",
        "../secret",
        "d/../../secret",
        "..",
        "/etc/passwd",
        "",
        ".",
        "plain/x",
        "plain/",
        "a\0b",
        "/proc/self/environ",
    ];
    let long = "x/".repeat(4_096);
    for path in hostile.into_iter().chain([long.as_str()]) {
        assert!(files.read(path, 1_000).await.is_err(), "read {path:?}");
        assert!(
            files.write(path, Bytes::from_static(b"pwned")).await.is_err(),
            "write {path:?}"
        );
    }
    for path in [
        "file", "folder", "root", "up", "loop", "pipe", "..", "/", "/etc", "d/far", "plain",
    ] {
        assert!(files.list(path, 10).await.is_err(), "list {path:?}");
    }
    for path in [
        "folder/secret",
        "up/secret",
        "root/etc/passwd",
        "../secret",
        "d",
        "",
        "..",
    ] {
        assert!(files.remove(path).await.is_err(), "remove {path:?}");
    }
    let listed: Vec<String> = files
        .list("", 100)
        .await
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(listed, ["d", "plain"], "links and special files are not listed");
    for path in ["file", "folder", "pipe", "sock"] {
        files.remove(path).await.unwrap();
    }
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
    fixture.local.destroy(&session).await.unwrap();
    assert_eq!(
        std::fs::read_to_string(&secret).unwrap(),
        "secret",
        "removing the workspace follows no link"
    );
}

#[tokio::test]
async fn swapping_a_folder_for_a_link_meanwhile_gains_nothing() {
    let fixture = Fixture::new().await;
    let session = SessionId::generate();
    let attached = fixture.attach(&session).await;
    let outside = fixture.data.join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("x"), "secret").unwrap();
    std::fs::set_permissions(&outside, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let swap = format!(
        "mkdir d; ln -s {} l; touch begun; perl -e 'while (1) {{ rename \"d\", \"t\"; rename \"l\", \"d\"; rename \"d\", \"l\"; rename \"t\", \"d\" }}'",
        outside.display()
    );
    let key = EventId::generate();
    let run = tokio::spawn({
        let (hand, key) = (attached.hand.clone(), key.clone());
        async move { hand.run(&key, bash(&swap)).await }
    });
    let files = fixture.local.workspace(&session).await.unwrap();
    while files.read("begun", 1).await.is_err() {
        tokio::task::yield_now().await;
    }
    let mut written = 0;
    for _ in 0..500 {
        written += u32::from(files.write("d/x", Bytes::from_static(b"mine")).await.is_ok());
        if let Ok(bytes) = files.read("d/x", 100).await {
            assert_eq!(bytes, "mine");
        }
    }
    assert!(written > 0, "some got through to the real folder");
    assert_eq!(std::fs::read_to_string(outside.join("x")).unwrap(), "secret");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    attached.hand.cancel(&key).await.unwrap();
    run.await.unwrap().unwrap();
    fixture.local.destroy(&session).await.unwrap();
}
