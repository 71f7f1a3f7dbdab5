//! Workspaces are saved and put back.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use oma_domain::SessionId;
use oma_sandbox::files::archive::{self, Bounds};
use oma_sandbox::{Error, Origin, Pool, PoolConfig, Provider as _};

use crate::support::{Fixture, config, open, sh, spec};

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Kept {
    fn reader(&self) -> Box<dyn io::Read + Send> {
        Box::new(io::Cursor::new(self.0.lock().unwrap().clone()))
    }
}

fn bounds() -> Bounds {
    Bounds {
        bytes: u64::MAX,
        entries: u64::MAX,
        deadline: Instant::now() + Duration::from_secs(60),
    }
}

#[tokio::test]
async fn what_comes_back_is_the_session_s() {
    let fixture = Fixture::new().await;
    let (one, other) = (SessionId::generate(), SessionId::generate());
    let hand = fixture.attach(&one).await.hand;
    sh(
        &*hand,
        "mkdir -m 700 d; echo a > d/f; chmod 600 d/f; ln -s / root",
    )
    .await;
    let kept = Kept::default();
    let saved = fixture
        .local
        .save(&one, Box::new(kept.clone()), bounds())
        .await
        .unwrap();
    assert_eq!((saved.bytes, saved.entries), (2, 3));
    assert_eq!(
        fixture.attach(&one).await.origin,
        Origin::Started,
        "it had ended in order"
    );
    // Into one that runs, and has another user.
    let hand = fixture.attach(&other).await.hand;
    sh(&*hand, "echo b > gone; sleep 1000 >/dev/null 2>&1 &").await;
    fixture
        .local
        .restore(&other, kept.reader(), bounds())
        .await
        .unwrap();
    let again = fixture.attach(&other).await;
    assert_eq!(again.origin, Origin::Started);
    let (text, failed) = sh(
        &*again.hand,
        "ls -A; cat d/f; stat -c '%U %a' d/f; echo more >> d/f; rm root; touch new; pgrep sleep",
    )
    .await;
    assert!(text.starts_with("d\nroot\na\nagent 600"), "{text} {failed}");
    // What can't be put back leaves what is there.
    let bytes = kept.0.lock().unwrap().clone();
    let half: Box<dyn io::Read + Send> = Box::new(io::Cursor::new(bytes[..bytes.len() / 2].to_vec()));
    let refused = fixture.local.restore(&other, half, bounds()).await;
    assert!(matches!(refused, Err(Error::Archive(archive::Error::Damaged(_)))));
    let hand = fixture.attach(&other).await.hand;
    assert_eq!(sh(&*hand, "cat d/f; ls").await.0, "a\nmore\nd\nnew");
    for session in [&one, &other] {
        fixture.local.destroy(session).await.unwrap();
    }
    fixture.assert_nothing_left();
}

#[tokio::test]
async fn who_uses_a_sandbox_keeps_it() {
    let fixture = Fixture::new().await;
    let pool = Pool::new(Arc::new(fixture.local.clone()), PoolConfig::default());
    let spec = spec(&SessionId::generate());
    let lease = pool.acquire(&spec).await.unwrap();
    let save = || pool.save(&spec.session, Box::new(Kept::default()), bounds());
    assert!(matches!(save().await, Err(Error::Busy)), "somebody has it");
    assert_eq!(sh(&*lease, "echo a > f; cat f").await.0, "a");
    sh(&*lease, "sleep 1000 >/dev/null 2>&1 & echo $! > pid").await;
    drop(lease);
    assert!(matches!(save().await, Err(Error::Busy)), "something runs");
    let lease = pool.acquire(&spec).await.unwrap();
    assert_eq!(lease.origin(), Origin::Running);
    sh(&*lease, "kill $(cat pid); wait $(cat pid)").await;
    drop(lease);
    // Whoever comes meanwhile waits, and gets another one.
    let (saved, lease) = tokio::join!(save(), async {
        tokio::task::yield_now().await;
        pool.acquire(&spec).await.unwrap()
    });
    match saved {
        Ok(contents) => assert_eq!(contents.entries, 2),
        Err(error) => assert!(matches!(error, Error::Busy), "{error}"),
    }
    assert_eq!(sh(&*lease, "cat f").await.0, "a");
    drop(lease);
    let kept = Kept::default();
    pool.save(&spec.session, Box::new(kept.clone()), bounds())
        .await
        .unwrap();
    pool.restore(&spec.session, kept.reader(), bounds())
        .await
        .unwrap();
    assert_eq!(pool.counts().leased, 0);
    let lease = pool.acquire(&spec).await.unwrap();
    assert_eq!(sh(&*lease, "cat f").await.0, "a");
    drop(lease);
    pool.destroy(&spec.session).await.unwrap();
    fixture.assert_nothing_left();
}

#[tokio::test]
async fn half_of_a_workspace_goes_with_the_next_start() {
    let fixture = Fixture::new().await;
    let Fixture { data, local, folder } = fixture;
    let session = SessionId::generate();
    let files = local.workspace(&session).await.unwrap();
    files
        .write("kept", bytes::Bytes::from_static(b"x"))
        .await
        .unwrap();
    let kept = Kept::default();
    local.save(&session, Box::new(kept), bounds()).await.unwrap();
    drop((files, local));
    let half = data.join("restoring/half/workspace");
    std::fs::create_dir_all(&half).unwrap();
    std::fs::write(half.join("file"), "x").unwrap();
    let local = open(config(&data)).await.unwrap();
    assert!(!half.exists());
    let files = local.workspace(&session).await.unwrap();
    assert_eq!(files.read("kept", 10).await.unwrap(), "x");
    local.destroy(&session).await.unwrap();
    let begun = Instant::now();
    while std::fs::read_dir(data.join("trash")).unwrap().count() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(20));
        tokio::task::yield_now().await;
    }
    Fixture { data, local, folder }.assert_nothing_left();
}
