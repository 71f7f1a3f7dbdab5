//! What was acknowledged survives `kill -9`, whole and without gaps.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use oma_domain::page::Order;
use oma_domain::session::QueueChange;
use oma_domain::{Seq, SessionId, WorkspaceId};
use oma_store::contract::fixtures::{agent, commit, new_session, once, queued};
use oma_store::sqlite::{Options, Sqlite};
use oma_store::{Commit, Store};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::again;

const SESSIONS: usize = 4;
const KILLS: u64 = 15;
/// How many messages wait once a session has been written to for a while.
const WAITING: usize = 3;

fn workspace() -> WorkspaceId {
    WorkspaceId::default_workspace()
}

fn session_id(number: usize) -> SessionId {
    SessionId::parse(&format!("ses_{number}")).unwrap()
}

fn scope(session: &SessionId) -> String {
    format!("session.post:{session}")
}

/// The next commit of a session: everything in it can be told from the head alone.
async fn next(store: &Sqlite, id: &SessionId) -> Commit {
    let session = store.load(&workspace(), id).await.unwrap().unwrap();
    let count = session.head.0 % 3 + 1;
    let mut commit = commit(&workspace(), id, session.head.0, count);
    commit.queue.push(QueueChange::Push(queued("waits")));
    if session.state.queue.len() == WAITING {
        commit
            .queue
            .push(QueueChange::Pop(session.state.queue[0].id.clone()));
    }
    commit.once = Some(once(&scope(id), &(session.head.0 + count).to_string()));
    commit
}

/// The child: writes until it is killed and reports each acknowledged head.
fn write_for_ever(folder: &Path) {
    let store = Arc::new(Sqlite::open(folder, &Options::default()).unwrap());
    Runtime::new().unwrap().block_on(async {
        let agent = Arc::new(agent(&workspace()));
        let mut writers = JoinSet::new();
        for number in 0..SESSIONS {
            let (store, agent) = (Arc::clone(&store), Arc::clone(&agent));
            writers.spawn(async move {
                let id = session_id(number);
                if store.session(&workspace(), &id).await.unwrap().is_none() {
                    let mut new = new_session(&workspace(), &agent);
                    new.id = id.clone();
                    store.create_session(&new, None).await.unwrap();
                }
                loop {
                    let commit = next(&store, &id).await;
                    let head = commit.expected_head.0 + commit.events.len() as u64;
                    store.commit(commit).await.unwrap();
                    // One write, so that lines of different sessions do not mix.
                    std::io::stdout()
                        .lock()
                        .write_all(format!("ack {number} {head}\n").as_bytes())
                        .unwrap();
                }
            });
        }
        writers.join_all().await;
    });
}

/// The log is whole, and everything that was committed with its head is there and nothing else.
async fn verify(store: &Sqlite, id: &SessionId) -> u64 {
    let Some(session) = store.load(&workspace(), id).await.unwrap() else {
        return 0;
    };
    let head = session.head.0;
    let mut seq = 0;
    let mut from = None;
    loop {
        let page = store
            .events(&workspace(), id, from, Order::Ascending, 1000)
            .await
            .unwrap();
        for event in &page.rows {
            seq += 1;
            assert_eq!(event.seq, Seq(seq), "a gap in {id}");
        }
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(seq, head, "the log of {id} ends elsewhere than at its head");
    assert_eq!(
        session.state.turns, head,
        "the state of {id} is of another commit"
    );
    let (mut at, mut commits) = (0, 0);
    while at < head {
        at += at % 3 + 1;
        commits += 1;
        let known = store
            .done(&workspace(), &scope(id), &at.to_string())
            .await
            .unwrap();
        assert!(
            known.is_some(),
            "the key of the commit of {id} at {at} is missing"
        );
    }
    assert_eq!(at, head, "part of a commit of {id} is there");
    assert_eq!(
        session.state.queue.len(),
        WAITING.min(commits),
        "the queue of {id} is of another commit"
    );
    head
}

#[test]
fn acknowledged_commits_survive_sigkill() {
    if let Some(folder) = again::child_folder() {
        return write_for_ever(&folder);
    }
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("data");
    let runtime = Runtime::new().unwrap();
    let mut acknowledged: HashMap<usize, u64> = HashMap::new();
    for round in 0..KILLS {
        let mut child = again::command("crash::acknowledged_commits_survive_sigkill", &folder, None)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Early and late, at every point of a commit; the multiplier only scatters the numbers.
        let last = 1 + round * 7919 % 120;
        let mut acks = 0;
        let mut killed = false;
        // What was acknowledged before the kill is still in the pipe after it.
        while let Some(line) = lines.next().transpose().unwrap() {
            let Some(ack) = line.strip_prefix("ack ") else {
                continue;
            };
            let (number, head) = ack.split_once(' ').unwrap();
            acknowledged.insert(number.parse().unwrap(), head.parse().unwrap());
            acks += 1;
            if acks >= last && !killed {
                child.kill().unwrap();
                killed = true;
            }
        }
        assert!(killed, "the child ended by itself: {:?}", child.wait());
        child.wait().unwrap();

        let store = Sqlite::open(&folder, &Options::default()).unwrap();
        runtime.block_on(async {
            for number in 0..SESSIONS {
                let head = verify(&store, &session_id(number)).await;
                let acknowledged = acknowledged.get(&number).copied().unwrap_or(0);
                // The commit that was under way may have become durable without an answer.
                assert!(
                    (acknowledged..=acknowledged + 3).contains(&head),
                    "round {round}: head {head} of session {number}, {acknowledged} acknowledged"
                );
            }
            store.close().await;
        });
    }
}

/// A crash of the machine may leave a write-ahead log that breaks off anywhere: what is left is whole.
#[test]
fn a_torn_write_ahead_log_leaves_whole_commits() {
    let temp = tempfile::tempdir().unwrap();
    let (folder, copy) = (temp.path().join("data"), temp.path().join("copy"));
    let runtime = Runtime::new().unwrap();
    let store = Sqlite::open(&folder, &Options::default()).unwrap();
    let id = session_id(0);
    runtime.block_on(async {
        let mut new = new_session(&workspace(), &Arc::new(agent(&workspace())));
        new.id = id.clone();
        store.create_session(&new, None).await.unwrap();
        for _ in 0..40 {
            store.commit(next(&store, &id).await).await.unwrap();
        }
    });
    let log = std::fs::read(folder.join("store.db-wal")).unwrap();
    let mut heads = Vec::new();
    for part in 0..=32 {
        std::fs::create_dir(&copy).unwrap();
        std::fs::copy(folder.join("store.db"), copy.join("store.db")).unwrap();
        // Not only at page boundaries.
        let cut = (log.len() * part / 32).saturating_sub(part * 13);
        std::fs::write(copy.join("store.db-wal"), &log[..cut]).unwrap();
        let torn = Sqlite::open(&copy, &Options::default()).unwrap();
        heads.push(runtime.block_on(verify(&torn, &id)));
        drop(torn);
        std::fs::remove_dir_all(&copy).unwrap();
    }
    assert!(heads.is_sorted() && heads.last() > heads.first(), "{heads:?}");
}
