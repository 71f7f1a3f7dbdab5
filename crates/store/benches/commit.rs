//! How fast the store is, next to the same disk driven by SQLite directly: one connection, one row per
//! transaction, no threads in between. The peer is what a simple server does; the store must not lose to it
//! alone, and must beat it when many write at once.
//!
//! `cargo bench -p oma-store`

#![expect(clippy::unwrap_used, reason = "a failure is to end the benchmark")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use oma_domain::page::Order;
use oma_domain::{Seq, SessionId, WorkspaceId};
use oma_store::Store;
use oma_store::contract::fixtures::{commit, event, stored_session};
use oma_store::sqlite::{Options, Sqlite};
use rusqlite::{Connection, params};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// How deep the log is that pages are read from.
const DEPTH: u64 = 50_000;

struct Bench {
    runtime: Runtime,
    store: Arc<dyn Store>,
    _folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        // Beside the build, because /tmp may be a disk that is none.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let store = Sqlite::open(folder.path(), &Options::default()).unwrap();
        let runtime = Runtime::new().unwrap();
        Self {
            runtime,
            store: Arc::new(store),
            _folder: folder,
        }
    }

    fn session(&self) -> (WorkspaceId, SessionId) {
        self.runtime.block_on(stored_session(&self.store))
    }
}

/// The peer: the same row, written with `synchronous=FULL`, one transaction each.
struct Plain {
    conn: Connection,
    _folder: TempDir,
}

impl Plain {
    fn new() -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let conn = Connection::open(folder.path().join("plain.db")).unwrap();
        conn.execute_batch(
            "PRAGMA journal_mode = wal; PRAGMA synchronous = full;
             CREATE TABLE events (session TEXT, seq INTEGER, id TEXT UNIQUE, at INTEGER, body TEXT, PRIMARY KEY (session, seq));",
        )
        .unwrap();
        Self {
            conn,
            _folder: folder,
        }
    }

    fn write(&self, session: &SessionId, seq: u64) {
        let event = event(session, seq);
        let body = serde_json::to_string(&*event.body).unwrap();
        self.conn
            .prepare_cached("INSERT INTO events VALUES (?, ?, ?, ?, ?)")
            .unwrap()
            .execute(params![
                session.as_str(),
                i64::try_from(seq).unwrap(),
                event.id.as_str(),
                event.at.as_millis(),
                body
            ])
            .unwrap();
    }
}

fn single_commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one event, one writer");
    group.measurement_time(Duration::from_secs(8));
    let plain = Plain::new();
    let session = SessionId::generate();
    let mut seq = 0;
    group.bench_function("plain SQLite, one row per transaction", |bencher| {
        bencher.iter(|| {
            seq += 1;
            plain.write(&session, seq);
        });
    });
    let bench = Bench::new();
    let (workspace, session) = bench.session();
    let mut head = 0;
    group.bench_function("commit", |bencher| {
        bencher.iter(|| {
            bench
                .runtime
                .block_on(bench.store.commit(commit(&workspace, &session, head, 1)))
                .unwrap();
            head += 1;
        });
    });
    group.finish();
}

fn many_writers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one event each, many writers");
    group
        .measurement_time(Duration::from_secs(8))
        .throughput(Throughput::Elements(1));
    let plain = Plain::new();
    let session = SessionId::generate();
    let mut seq = 0;
    group.bench_function("plain SQLite, one row per transaction", |bencher| {
        bencher.iter(|| {
            seq += 1;
            plain.write(&session, seq);
        });
    });
    for writers in [8_u64, 64, 256] {
        let bench = Bench::new();
        let mut sessions: Vec<_> = (0..writers).map(|_| (bench.session(), 0_u64)).collect();
        group.bench_function(BenchmarkId::new("commit", writers), |bencher| {
            bencher.iter_custom(|iterations| {
                let each = iterations.div_ceil(writers);
                let begin = Instant::now();
                bench.runtime.block_on(async {
                    let mut tasks = JoinSet::new();
                    for ((workspace, session), head) in &mut sessions {
                        let (store, workspace, session, from) = (
                            Arc::clone(&bench.store),
                            workspace.clone(),
                            session.clone(),
                            *head,
                        );
                        *head += each;
                        tasks.spawn(async move {
                            for head in from..from + each {
                                store.commit(commit(&workspace, &session, head, 1)).await.unwrap();
                            }
                        });
                    }
                    tasks.join_all().await;
                });
                // Rounded up above, so rounded back here.
                begin
                    .elapsed()
                    .mul_f64(iterations as f64 / (each * writers) as f64)
            });
        });
    }
    group.finish();
}

fn pages(criterion: &mut Criterion) {
    let bench = Bench::new();
    let (workspace, session) = bench.session();
    bench.runtime.block_on(async {
        for head in (0..DEPTH).step_by(500) {
            bench
                .store
                .commit(commit(&workspace, &session, head, 500))
                .await
                .unwrap();
        }
    });
    let mut group = criterion.benchmark_group("a page of 100 events");
    for from in [0, DEPTH / 2, DEPTH - 100] {
        group.bench_function(BenchmarkId::new("from", from), |bencher| {
            bencher.iter(|| {
                let read = bench
                    .store
                    .events(&workspace, &session, Some(Seq(from)), Order::Ascending, 100);
                assert_eq!(bench.runtime.block_on(read).unwrap().rows.len(), 100);
            });
        });
    }
    group.bench_function("the newest", |bencher| {
        bencher.iter(|| {
            let read = bench
                .store
                .events(&workspace, &session, None, Order::Descending, 100);
            assert_eq!(bench.runtime.block_on(read).unwrap().rows.len(), 100);
        });
    });
    group.finish();
}

fn sessions(criterion: &mut Criterion) {
    let bench = Bench::new();
    let (workspace, session) = bench.session();
    criterion.bench_function("one session", |bencher| {
        bencher.iter(|| {
            bench
                .runtime
                .block_on(bench.store.session(&workspace, &session))
                .unwrap()
                .unwrap();
        });
    });
}

criterion_group!(benches, single_commit, many_writers, pages, sessions);
criterion_main!(benches);
