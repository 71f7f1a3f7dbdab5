//! What can't be seen from outside: groups, settings, query plans, the schema's history.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use oma_domain::AgentId;
use oma_domain::page::Order;
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::failure::Failure;
use super::{Options, Sqlite, deployments, runs, sessions};
use crate::{DeploymentFilter, Error, Result, RunFilter, SessionFilter, Store};

fn open(options: &Options) -> (Arc<Sqlite>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&folder.path().join("data"), options).unwrap();
    (Arc::new(store), folder)
}

/// Occupies the writer until the sender is dropped.
async fn occupy(store: &Arc<Sqlite>) -> (mpsc::Sender<()>, tokio::task::JoinHandle<Result<()>>) {
    let (release, released) = mpsc::channel::<()>();
    let (begun, begin) = oneshot::channel();
    let mut begun = Some(begun);
    let store = Arc::clone(store);
    let task = tokio::spawn(async move {
        let work = move |_: &Connection| {
            if let Some(begun) = begun.take() {
                let _ = begun.send(());
            }
            // An error is the release: nothing is ever sent.
            let _ = released.recv();
            Ok(())
        };
        store.writer.run(work).await
    });
    begin.await.unwrap();
    (release, task)
}

/// How many pieces of work wait in the writer's queue.
fn waiting(store: &Sqlite) -> usize {
    let sender = store.writer.sender.as_ref().unwrap();
    sender.max_capacity() - sender.capacity()
}

/// Lets other tasks run until `count` pieces of work wait.
async fn until_waiting(store: &Sqlite, count: usize) {
    while waiting(store) < count {
        tokio::task::yield_now().await;
    }
}

fn insert(conn: &Connection, name: &str) -> Result<(), Failure> {
    conn.execute("INSERT INTO kept (name, value) VALUES (?, x'00')", [name])?;
    Ok(())
}

#[tokio::test]
async fn what_waits_is_committed_as_one_group_and_failures_stay_alone() {
    let (store, _folder) = open(&Options::default());
    let frames = |conn: &Connection| -> Result<i64, Failure> {
        Ok(conn.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get(1))?)
    };
    let before = store.readers.run(frames).await.unwrap();
    let (release, occupied) = occupy(&store).await;
    let mut calls = JoinSet::new();
    for number in 0..60_u32 {
        let writer = Arc::clone(&store);
        calls.spawn(async move {
            let outcome = writer
                .writer
                .run(move |conn| {
                    insert(conn, &format!("piece {number}"))?;
                    match number % 6 {
                        1 => Err(Error::Conflict.into()),
                        2 => insert(conn, &format!("piece {number}")),
                        3 => panic!("as a fault of ours would"),
                        _ => Ok(()),
                    }
                })
                .await;
            (number, outcome)
        });
    }
    until_waiting(&store, 60).await;
    drop(release);
    occupied.await.unwrap().unwrap();
    for (number, outcome) in calls.join_all().await {
        match number % 6 {
            1 => assert!(matches!(outcome, Err(Error::Conflict)), "{number}: {outcome:?}"),
            2 | 3 => assert!(
                matches!(outcome, Err(Error::Internal(_))),
                "{number}: {outcome:?}"
            ),
            _ => outcome.unwrap(),
        }
        let kept = store.kept(&format!("piece {number}")).await.unwrap().is_some();
        assert_eq!(kept, !(1..=3).contains(&(number % 6)), "{number}");
    }
    // Sixty transactions would have written at least as many pages.
    let written = store.readers.run(frames).await.unwrap() - before;
    assert!((1..10).contains(&written), "{written} pages");
}

#[tokio::test]
async fn work_of_a_caller_that_has_gone_is_not_begun() {
    let (store, _folder) = open(&Options::default());
    let (release, occupied) = occupy(&store).await;
    let mut calls = JoinSet::new();
    let runs = Arc::new(AtomicU32::new(0));
    for _ in 0..5 {
        let (store, runs) = (Arc::clone(&store), Arc::clone(&runs));
        calls.spawn(async move {
            let work = move |_: &Connection| {
                runs.fetch_add(1, Ordering::SeqCst);
                Ok(())
            };
            store.writer.run(work).await
        });
    }
    until_waiting(&store, 5).await;
    calls.shutdown().await;
    drop(release);
    occupied.await.unwrap().unwrap();
    store.ready().await.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn waiting_is_bounded_in_time_and_nothing_has_changed_then() {
    let options = Options {
        patience: Duration::from_millis(30),
        readers: 1,
        ..Options::default()
    };
    let (store, _folder) = open(&options);
    let (release, occupied) = occupy(&store).await;
    let result = store.keep("late", b"x").await;
    assert!(
        matches!(&result, Err(Error::Unavailable(reason)) if reason.contains("not begun")),
        "{result:?}"
    );
    // The one that has begun waits for its true outcome, however long that takes.
    assert!(!occupied.is_finished());
    drop(release);
    occupied.await.unwrap().unwrap();
    assert_eq!(store.kept("late").await.unwrap(), None);

    // The same for reads.
    let (release, released) = mpsc::channel::<()>();
    let (begun, begin) = oneshot::channel();
    let reading = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let read = move |_: &Connection| {
                let _ = begun.send(());
                let _ = released.recv();
                Ok(())
            };
            store.readers.run(read).await
        })
    };
    begin.await.unwrap();
    let result = store.kept("late").await;
    assert!(
        matches!(&result, Err(Error::Unavailable(reason)) if reason.contains("reads")),
        "{result:?}"
    );
    drop(release);
    reading.await.unwrap().unwrap();
    assert_eq!(store.kept("late").await.unwrap(), None);
}

/// Whose turn has come while its caller looks after something else keeps nobody from reading.
#[tokio::test]
async fn a_read_that_nobody_looks_after_holds_no_connection() {
    let (store, _folder) = open(&Options {
        readers: 1,
        ..Options::default()
    });
    let (release, released) = mpsc::channel::<()>();
    let occupied = store.readers.run(move |_| {
        let _ = released.recv();
        Ok(())
    });
    let mut occupied = std::pin::pin!(occupied);
    tokio::select! {
        biased;
        _ = &mut occupied => panic!("it is occupied"),
        () = std::future::ready(()) => {}
    }
    let mut forgotten = std::pin::pin!(store.kept("forgotten"));
    tokio::select! {
        biased;
        _ = &mut forgotten => panic!("it is occupied"),
        () = std::future::ready(()) => {}
    }
    drop(release);
    occupied.await.unwrap();
    assert_eq!(store.kept("another").await.unwrap(), None);
    assert_eq!(forgotten.await.unwrap(), None);
}

#[tokio::test]
async fn closing_and_dropping_carry_out_what_was_accepted() {
    for close in [true, false] {
        let (store, folder) = open(&Options::default());
        let (release, occupied) = occupy(&store).await;
        let mut calls = JoinSet::new();
        for number in 0..10 {
            let store = Arc::clone(&store);
            calls.spawn(async move { store.keep(&format!("piece {number}"), b"x").await.map(drop) });
        }
        until_waiting(&store, 10).await;
        if close {
            let closing = {
                let store = Arc::clone(&store);
                tokio::spawn(async move { store.close().await })
            };
            until_waiting(&store, 11).await;
            drop(release);
            closing.await.unwrap();
        } else {
            drop(release);
        }
        for result in calls.join_all().await {
            result.unwrap();
        }
        occupied.await.unwrap().unwrap();
        let data = folder.path().join("data");
        if close {
            // Still there, but no longer in the way.
            assert!(!data.join("store.db-wal").exists());
            assert!(matches!(store.ready().await, Err(Error::Unavailable(_))));
        } else {
            drop(store);
        }
        let store = Sqlite::open(&data, &Options::default()).unwrap();
        for number in 0..10 {
            assert!(store.kept(&format!("piece {number}")).await.unwrap().is_some());
        }
    }
}

/// A machine that has no threads left for the runtime.
#[test]
fn reads_need_no_thread_of_the_runtimes() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (store, _folder) = open(&Options::default());
        let (release, released) = mpsc::channel::<()>();
        let occupied = tokio::task::spawn_blocking(move || released.recv());
        assert_eq!(store.kept("x").await.unwrap(), None);
        store.close().await;
        drop(release);
        assert!(occupied.await.unwrap().is_err());
    });
}

#[tokio::test]
async fn a_panicking_read_gives_its_connection_back() {
    let (store, _folder) = open(&Options {
        readers: 1,
        ..Options::default()
    });
    let result = store
        .readers
        .run(|_| -> Result<(), Failure> { panic!("as a fault of ours would") })
        .await;
    assert!(matches!(result, Err(Error::Internal(_))), "{result:?}");
    assert_eq!(store.kept("x").await.unwrap(), None);
}

/// Writes 600 values of 64 KiB and returns the greatest length of the write-ahead log, in MiB.
async fn longest_log(store: &Sqlite, folder: &TempDir, prefix: &str) -> u64 {
    let value = vec![7; 64 << 10];
    let mut longest = 0;
    for number in 0..600 {
        store.keep(&format!("{prefix} {number}"), &value).await.unwrap();
        let log = std::fs::metadata(folder.path().join("data/store.db-wal"))
            .unwrap()
            .len();
        longest = longest.max(log);
    }
    longest >> 20
}

#[tokio::test]
async fn the_write_ahead_log_stays_short_and_a_reader_that_keeps_it_stops_nobody() {
    let (store, folder) = open(&Options::default());
    let longest = longest_log(&store, &folder, "alone").await;
    // 38 MiB went through it.
    assert!(longest < 20, "{longest} MiB");

    // A read that does not end keeps the log from beginning anew; commits go on all the same.
    let (release, released) = mpsc::channel::<()>();
    let (begun, begin) = oneshot::channel();
    let reading = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let read = move |conn: &Connection| {
                conn.query_row("SELECT count(*) FROM kept", [], |_| Ok(()))?;
                let _ = begun.send(());
                let _ = released.recv();
                Ok(())
            };
            store.readers.run(read).await
        })
    };
    begin.await.unwrap();
    let longest = longest_log(&store, &folder, "beside a reader").await;
    assert!((20..64).contains(&longest), "{longest} MiB");
    drop(release);
    reading.await.unwrap().unwrap();
    // Once it has ended, the log begins anew and is not written to its former end again.
    store.keep("one more", b"x").await.unwrap();
    store.keep("begins anew", b"x").await.unwrap();
    let frames = |conn: &Connection| -> Result<i64, Failure> {
        Ok(conn.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get(1))?)
    };
    let written = store.readers.run(frames).await.unwrap();
    assert!(written < 100, "{written} pages");
}

#[tokio::test]
async fn the_settings_are_what_durability_needs() {
    let (store, _folder) = open(&Options::default());
    let setting = |conn: &Connection, name: &str| -> Result<String, Failure> {
        let value = conn.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))?;
        Ok(format!("{value:?}"))
    };
    for (name, expected) in [
        ("journal_mode", "Text(\"wal\")"),
        ("synchronous", "Integer(2)"),
        ("foreign_keys", "Integer(1)"),
        ("wal_autocheckpoint", "Integer(0)"),
    ] {
        let value = store.writer.run(move |conn| setting(conn, name)).await.unwrap();
        assert_eq!(value, expected, "{name}");
    }
    let refused = store.readers.run(|conn| insert(conn, "x")).await;
    assert!(matches!(refused, Err(Error::ReadOnly(_))), "{refused:?}");
}

/// Every way of listing walks an index or a key range; none sorts or scans.
#[tokio::test]
async fn lists_scan_nothing() {
    let (store, _folder) = open(&Options::default());
    let plan = |sql: String| {
        let store = Arc::clone(&store);
        async move {
            let explain = move |conn: &Connection| -> Result<Vec<String>, Failure> {
                let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                let bound = vec![rusqlite::types::Value::Integer(1); statement.parameter_count()];
                let lines =
                    statement.query_map(rusqlite::params_from_iter(bound), |row| row.get("detail"))?;
                Ok(lines.collect::<rusqlite::Result<_>>()?)
            };
            store.readers.run(explain).await.unwrap()
        }
    };
    for agent in [None, Some(AgentId::generate())] {
        for ephemeral in [None, Some(true)] {
            for order in [Order::Ascending, Order::Descending] {
                for continued in [false, true] {
                    for parent in [None, Some(None), Some(Some(oma_domain::SessionId::generate()))] {
                        let filter = SessionFilter {
                            agent: agent.clone(),
                            ephemeral,
                            parent,
                            ..SessionFilter::default()
                        };
                        let lines = plan(sessions::list_sql(&filter, order, continued)).await;
                        let bad = lines
                            .iter()
                            .any(|line| line.starts_with("SCAN") || line.contains("TEMP B-TREE"));
                        assert!(!bad, "{filter:?} {order:?} {continued}: {lines:?}");
                    }
                }
            }
        }
    }
    for order in [Order::Ascending, Order::Descending] {
        for of_one in [false, true] {
            let deployments = DeploymentFilter {
                agent: of_one.then(AgentId::generate),
                paused: Some(true),
                only_active: true,
                ..DeploymentFilter::default()
            };
            let runs = RunFilter {
                deployment: of_one.then(oma_domain::DeploymentId::generate),
                failed: Some(true),
                scheduled: Some(true),
                ..RunFilter::default()
            };
            for sql in [
                deployments::list_sql(&deployments, order),
                runs::list_sql(&runs, order),
            ] {
                let lines = plan(sql.clone()).await;
                let bad = lines
                    .iter()
                    .any(|line| line.starts_with("SCAN") || line.contains("TEMP B-TREE"));
                assert!(!bad, "{sql}: {lines:?}");
            }
        }
    }
    // The check can fail.
    let scan = plan("SELECT body FROM events WHERE type = ? ORDER BY at".into()).await;
    assert!(scan.iter().any(|line| line.starts_with("SCAN")), "{scan:?}");
}

fn refusal(folder: &Path) -> String {
    match Sqlite::open(folder, &Options::default()) {
        Err(Error::Internal(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_database_of_a_newer_server_or_another_program_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let newer = temp.path().join("newer");
    drop(Sqlite::open(&newer, &Options::default()).unwrap());
    let conn = Connection::open(newer.join("store.db")).unwrap();
    conn.execute(
        "INSERT INTO refinery_schema_history SELECT 4711, 'later', applied_on, checksum FROM refinery_schema_history
         WHERE version = 1",
        [],
    )
    .unwrap();
    drop(conn);
    assert!(
        refusal(&newer).contains("schema version 4711"),
        "{}",
        refusal(&newer)
    );

    let foreign = temp.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    let conn = Connection::open(foreign.join("store.db")).unwrap();
    conn.execute_batch("CREATE TABLE notes (text)").unwrap();
    drop(conn);
    assert!(
        refusal(&foreign).contains("another program"),
        "{}",
        refusal(&foreign)
    );

    let noise = temp.path().join("noise");
    std::fs::create_dir(&noise).unwrap();
    std::fs::write(noise.join("store.db"), "not a database at all".repeat(100)).unwrap();
    assert!(refusal(&noise).contains("not a database"), "{}", refusal(&noise));
    // And it was not touched.
    assert!(
        std::fs::read_to_string(noise.join("store.db"))
            .unwrap()
            .starts_with("not a database")
    );
}
