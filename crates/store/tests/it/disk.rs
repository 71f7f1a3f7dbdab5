//! Full disks: a clear error, nothing half-written, nothing lost, and on it goes when there is room again.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use oma_domain::event::Body;
use oma_domain::page::Order;
use oma_domain::{Seq, SessionId, WorkspaceId};
use oma_store::contract::fixtures::{agent, commit, new_session, once, stored_session, text};
use oma_store::sqlite::{Options, Sqlite};
use oma_store::{Commit, Error, Result, Store};
use tokio::runtime::Runtime;

use crate::again;

/// A commit of one event of `size` bytes.
fn large(workspace: &WorkspaceId, session: &SessionId, head: u64, size: usize) -> Commit {
    let mut commit = commit(workspace, session, head, 1);
    commit.events[0].body = Arc::new(Body::UserMessage {
        content: vec![text("x".repeat(size))],
        from: None,
    });
    commit.once = Some(once(&format!("session.post:{session}"), &head.to_string()));
    commit
}

/// Writes until it is refused, and returns the head and the refusal.
async fn fill(store: &dyn Store, workspace: &WorkspaceId, session: &SessionId, size: usize) -> (u64, Error) {
    let mut head = 0;
    loop {
        assert!(head < 10_000, "the disk is never full");
        match store.commit(large(workspace, session, head, size)).await {
            Ok(()) => head += 1,
            Err(error) => return (head, error),
        }
    }
}

/// Exactly what was acknowledged is there.
async fn verify(store: &dyn Store, workspace: &WorkspaceId, session: &SessionId, head: u64) {
    let stored = store.session(workspace, session).await.unwrap().unwrap();
    assert_eq!((stored.head, stored.state.turns), (Seq(head), head));
    let log = store
        .events(workspace, session, None, Order::Ascending, 1000)
        .await
        .unwrap();
    assert!(
        log.next.is_none() && log.rows.iter().map(|event| event.seq.0).eq(1..=head),
        "gapless to the head"
    );
    let scope = format!("session.post:{session}");
    assert!(
        store
            .done(workspace, &scope, &head.to_string())
            .await
            .unwrap()
            .is_none()
    );
}

fn assert_full(result: Result<()>) {
    assert!(matches!(result, Err(Error::Full)), "{result:?}");
}

#[tokio::test]
async fn a_database_at_its_bound_is_full_and_recovers() {
    let temp = tempfile::tempdir().unwrap();
    let options = Options {
        max_bytes: Some(2 << 20),
        ..Options::default()
    };
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(&temp.path().join("data"), &options).unwrap());
    let (workspace, id) = stored_session(&store).await;
    let (neighbours, neighbour) = stored_session(&store).await;
    let (head, refusal) = fill(&*store, &workspace, &id, 50_000).await;
    assert!(matches!(refusal, Error::Full), "{refusal:?}");
    assert!(head > 20, "{head}");
    verify(&*store, &workspace, &id, head).await;
    // One that is too large stops nobody for whom there is room, even when they come together.
    let mut together = tokio::task::JoinSet::new();
    for number in 0..16_u64 {
        let store = Arc::clone(&store);
        let commit = match number {
            3 => large(&workspace, &id, head, 200_000),
            number => Commit {
                state: commit(&neighbours, &neighbour, number, 0).state,
                ..commit(&neighbours, &neighbour, 0, 0)
            },
        };
        together.spawn(async move { (number, store.commit(commit).await) });
    }
    for (number, result) in together.join_all().await {
        match number {
            3 => assert_full(result),
            _ => result.unwrap(),
        }
    }
    verify(&*store, &workspace, &id, head).await;
    // Deleting makes room.
    assert!(store.delete_session(&workspace, &id).await.unwrap());
    for at in 0..10 {
        store
            .commit(large(&neighbours, &neighbour, at, 50_000))
            .await
            .unwrap();
    }
}

/// The child's part: the disk fills up under a running store.
fn on_a_small_disk(folder: &Path) {
    let data = folder.join("data");
    // What takes the room of a real disk: other people's files.
    let ballast = folder.join("ballast");
    std::fs::write(&ballast, vec![0; 2 << 20]).unwrap();
    let runtime = Runtime::new().unwrap();
    let (workspace, id) = (WorkspaceId::generate(), SessionId::generate());
    let mut new = new_session(&workspace, &Arc::new(agent(&workspace)));
    new.id = id.clone();

    let store = Sqlite::open(&data, &Options::default()).unwrap();
    let head = runtime.block_on(async {
        store.create_session(&new, None).await.unwrap();
        let (head, refusal) = fill(&store, &workspace, &id, 100_000).await;
        assert!(matches!(refusal, Error::Full), "{refusal:?}");
        assert!(head > 5, "{head}");
        assert_full(store.commit(large(&workspace, &id, head, 100_000)).await);
        verify(&store, &workspace, &id, head).await;
        head
    });
    // A server that stops and starts meanwhile finds everything.
    drop(store);
    let store = Sqlite::open(&data, &Options::default()).unwrap();
    runtime.block_on(async {
        verify(&store, &workspace, &id, head).await;
        let (more, refusal) = fill_from(&store, &workspace, &id, head).await;
        assert!(matches!(refusal, Error::Full), "{refusal:?}");
        verify(&store, &workspace, &id, more).await;
        // Somebody makes room: the running store goes on by itself.
        std::fs::remove_file(&ballast).unwrap();
        if std::env::var_os("OMA_STORE_TEST_LIMITED_FILES").is_none() {
            store.commit(large(&workspace, &id, more, 100_000)).await.unwrap();
            store.ready().await.unwrap();
            verify(&store, &workspace, &id, more + 1).await;
        }
    });
}

async fn fill_from(
    store: &dyn Store,
    workspace: &WorkspaceId,
    session: &SessionId,
    head: u64,
) -> (u64, Error) {
    let mut head = head;
    loop {
        assert!(head < 10_000, "the disk is never full");
        match store.commit(large(workspace, session, head, 100_000)).await {
            Ok(()) => head += 1,
            Err(error) => return (head, error),
        }
    }
}

/// A bound on the size of files is what an ordinary user can set everywhere. Its error is another one than a
/// full disk's, and means the same to the client.
#[test]
fn a_file_size_limit_is_a_full_disk() {
    if let Some(folder) = again::child_folder() {
        return on_a_small_disk(&folder);
    }
    let temp = tempfile::tempdir().unwrap();
    // In units of 512 bytes; the signal that comes with the error would end the process.
    let mut child = again::command(
        "disk::a_file_size_limit_is_a_full_disk",
        temp.path(),
        Some("trap '' XFSZ && ulimit -f 8192"),
    );
    child.env("OMA_STORE_TEST_LIMITED_FILES", "1");
    again::run(child);
}

/// A real full disk needs a mount of our own. Where the kernel refuses one, the test above stands for it.
#[test]
#[expect(clippy::print_stderr, reason = "says in the test's output what was not tried")]
fn a_full_disk_loses_nothing() {
    if let Some(folder) = again::child_folder() {
        return on_a_small_disk(&folder);
    }
    let private = ["--user", "--map-root-user", "--mount"];
    let probe = Command::new("unshare")
        .args(private)
        .args(["mount", "-t", "tmpfs", "tmpfs", "/mnt"])
        .output();
    if !probe.as_ref().is_ok_and(|output| output.status.success()) {
        return eprintln!(
            "no mount of our own is allowed here, so the file size limit stands for it: {probe:?}"
        );
    }
    let temp = tempfile::tempdir().unwrap();
    let inner = again::command(
        "disk::a_full_disk_loses_nothing",
        temp.path(),
        Some(&format!(
            "mount -t tmpfs -o size=8m tmpfs '{}'",
            temp.path().display()
        )),
    );
    let mut child = Command::new("unshare");
    child
        .args(private)
        .arg(inner.get_program())
        .args(inner.get_args());
    for (name, value) in inner.get_envs() {
        child.env(name, value.unwrap_or_default());
    }
    again::run(child);
}
