//! Archives in a bucket, over a store that fails.

use std::io::{Read as _, Write as _};
use std::time::Instant;

use oma_domain::CheckpointId;
use tempfile::TempDir;

use super::fake::{Fake, Trouble};
use super::*;
use crate::Archives;

const KEY: &str = "canary-access-key";
const SECRET: &str = "canary-secret-key";
const LONG_DOUBT: Duration = Duration::from_secs(3600);
/// Longer than what goes in one request here.
const LONG: &[u8] = b"Nobody is in the house, and all doors are open.";

fn settings(endpoint: &str, path_style: bool, prefix: &str) -> Settings {
    Settings {
        endpoint: endpoint.parse().unwrap(),
        region: "eu-west-1".to_owned(),
        path_style,
        bucket: "saved".to_owned(),
        prefix: prefix.to_owned(),
        access_key_id: SecretString::from(KEY),
        secret_access_key: SecretString::from(SECRET),
    }
}

struct Fixture {
    fake: Fake,
    archives: Archives,
    folder: TempDir,
    id: CheckpointId,
}

impl Fixture {
    async fn new() -> Self {
        let fake = Fake::start().await;
        let folder = tempfile::tempdir().unwrap();
        let archives = Archives::in_bucket(bucket(&fake.url), folder.path(), 0).unwrap();
        Self {
            fake,
            archives,
            folder,
            id: CheckpointId::generate(),
        }
    }

    async fn save(&self, bytes: &[u8]) -> Result<Digest> {
        let (partial, mut writer) = self.archives.begin(&self.id)?;
        writer.write_all(bytes)?;
        partial.finish().await
    }

    async fn read(&self, expected: &Digest) -> Result<Vec<u8>> {
        let mut file = self.archives.read(&self.id, expected.clone()).await?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    async fn remove(&self) -> Result<()> {
        let (removed, done) = self.archives.remove(std::slice::from_ref(&self.id)).await;
        assert_eq!(removed.len(), usize::from(done.is_ok()));
        done.map_err(|kept| kept.error)
    }

    fn path(&self) -> String {
        format!("/saved/a/b/{}", self.id)
    }

    /// Files of the local disk, objects and uploads.
    fn left(&self) -> (usize, usize, usize) {
        let inner = self.fake.inner.lock().unwrap();
        let files = std::fs::read_dir(self.folder.path()).unwrap().count();
        (files, inner.objects.len(), inner.uploads.len())
    }
}

fn bucket(endpoint: &Url) -> Bucket {
    let mut bucket = Bucket::new(settings(endpoint.as_str(), true, "a/b")).unwrap();
    bucket.pause = Duration::from_millis(1);
    bucket.stall = Duration::from_millis(200);
    bucket.doubt = Duration::ZERO;
    bucket.sizes = upload::Sizes { whole: 20, part: 10 };
    bucket
}

#[tokio::test]
async fn an_archive_goes_there_and_comes_back() {
    let fixture = Fixture::new().await;
    for (bytes, requests) in [(&b""[..], 1), (b"short", 1), (LONG, 7)] {
        let before = fixture.fake.requests();
        let digest = fixture.save(bytes).await.unwrap();
        assert_eq!(fixture.fake.requests() - before, requests);
        assert_eq!(fixture.left(), (0, 1, 0));
        assert_eq!(fixture.fake.inner.lock().unwrap().objects[&fixture.path()], bytes);
        assert_eq!(fixture.read(&digest).await.unwrap(), bytes);
        assert_eq!(fixture.left(), (0, 1, 0), "what was fetched has no name");
        fixture.remove().await.unwrap();
        fixture.remove().await.unwrap();
        assert_eq!(fixture.left(), (0, 0, 0));
        assert!(matches!(fixture.read(&digest).await, Err(Error::Gone)));
    }
}

#[tokio::test]
async fn what_passes_is_tried_again() {
    let fixture = Fixture::new().await;
    let passing = [
        Trouble::Refuse(500, "InternalError"),
        Trouble::Refuse(503, "SlowDown"),
        Trouble::Refuse(429, "TooManyRequests"),
        Trouble::Refuse(400, "RequestTimeout"),
        Trouble::None,
    ];
    // For each request of an upload in parts, of a download and of a removal.
    for _ in 0..7 {
        fixture.fake.trouble(&passing);
    }
    let digest = fixture.save(LONG).await.unwrap();
    fixture
        .fake
        .trouble(&[Trouble::Cut, Trouble::Refuse(502, "BadGateway"), Trouble::Stall]);
    assert_eq!(fixture.read(&digest).await.unwrap(), LONG);
    fixture.fake.trouble(&passing);
    fixture.remove().await.unwrap();
    assert_eq!(fixture.left(), (0, 0, 0));
    assert_eq!(fixture.fake.requests(), 7 * 5 + 4 + 5);
}

#[tokio::test]
async fn an_upload_that_fails_is_aborted_when_its_archive_is_removed() {
    let fixture = Fixture::new().await;
    for ok in 0..7 {
        fixture.fake.trouble(&vec![Trouble::None; ok]);
        fixture.fake.inner.lock().unwrap().always = Some(Trouble::Refuse(503, "SlowDown"));
        let before = fixture.fake.requests();
        let error = fixture.save(LONG).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the store of checkpoints answers 503 (SlowDown)"
        );
        assert_eq!(fixture.fake.requests() - before, ok + ATTEMPTS as usize);
        let begun = usize::from(ok > 0);
        assert_eq!(fixture.left(), (begun, 0, begun));
        // Not while the store is away.
        if ok > 0 {
            fixture.remove().await.unwrap_err();
        }
        assert_eq!(fixture.left(), (begun, 0, begun));
        fixture.fake.inner.lock().unwrap().always = None;
        fixture.remove().await.unwrap();
        assert_eq!(fixture.left(), (0, 0, 0));
    }
    // After a restart, too, and where the store has forgotten the upload meanwhile.
    for forgotten in [false, true] {
        fixture
            .fake
            .trouble(&[Trouble::None, Trouble::None, Trouble::Refuse(403, "AccessDenied")]);
        fixture.save(LONG).await.unwrap_err();
        assert_eq!(fixture.left(), (1, 0, 1));
        if forgotten {
            fixture.fake.inner.lock().unwrap().uploads.clear();
        }
        let next = Archives::in_bucket(bucket(&fixture.fake.url), fixture.folder.path(), 0).unwrap();
        let (removed, done) = next.remove(std::slice::from_ref(&fixture.id)).await;
        done.unwrap();
        assert_eq!((removed.len(), fixture.left()), (1, (0, 0, 0)));
    }
}

#[tokio::test]
async fn the_end_of_an_upload_is_not_taken_for_another_one() {
    let fixture = Fixture::new().await;
    let before_end = [Trouble::None; 6];
    // A failure after the status, and an answer that gets lost.
    for trouble in [
        Trouble::Late("InternalError"),
        Trouble::Lose(500),
        Trouble::Lose(504),
    ] {
        fixture.fake.trouble(&before_end);
        fixture.fake.trouble(&[trouble]);
        let digest = fixture.save(LONG).await.unwrap();
        assert_eq!(fixture.read(&digest).await.unwrap(), LONG);
        fixture.remove().await.unwrap();
        assert_eq!(fixture.left(), (0, 0, 0));
    }
    // One that somebody else has aborted.
    fixture.fake.trouble(&before_end);
    fixture.fake.trouble(&[
        Trouble::Refuse(500, "InternalError"),
        Trouble::Refuse(404, "NoSuchUpload"),
    ]);
    let error = fixture.save(LONG).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the store of checkpoints answers 404 (NoSuchUpload)"
    );
    // One that will not be.
    fixture.fake.trouble(&before_end);
    fixture.fake.trouble(&[Trouble::Late("InvalidPart")]);
    let error = fixture.save(LONG).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the store of checkpoints answers 200 (InvalidPart)"
    );
}

#[tokio::test]
async fn other_bytes_are_not_given_out() {
    let fixture = Fixture::new().await;
    let digest = fixture.save(LONG).await.unwrap();
    let mut flipped = LONG.to_vec();
    flipped[30] ^= 1;
    for forged in [flipped, LONG[1..].to_vec(), [LONG, b"!"].concat(), Vec::new()] {
        let before = fixture.fake.requests();
        let object = forged.into();
        let path = fixture.path();
        fixture.fake.inner.lock().unwrap().objects.insert(path, object);
        assert!(matches!(fixture.read(&digest).await, Err(Error::Damaged)));
        assert_eq!(fixture.fake.requests() - before, 1, "no second look helps");
        assert_eq!(fixture.left(), (0, 1, 0));
    }
}

#[tokio::test]
async fn a_refusal_is_told_once_and_without_secrets() {
    let fixture = Fixture::new().await;
    let digest = fixture.save(b"short").await.unwrap();
    for code in ["SignatureDoesNotMatch", "NoSuchBucket", "AccessDenied"] {
        let status = if code == "NoSuchBucket" { 404 } else { 403 };
        fixture.fake.inner.lock().unwrap().always = Some(Trouble::Refuse(status, code));
        let before = fixture.fake.requests();
        for error in [
            fixture.save(b"short").await.unwrap_err(),
            fixture.read(&digest).await.unwrap_err(),
            fixture.remove().await.unwrap_err(),
            bucket(&fixture.fake.url).probe().await.unwrap_err(),
        ] {
            let text = format!("the store of checkpoints answers {status} ({code})");
            assert_eq!(error.to_string(), text);
        }
        assert_eq!(fixture.fake.requests() - before, 4);
    }
    // What is no code is not repeated.
    fixture.fake.inner.lock().unwrap().always = Some(Trouble::Refuse(403, "see http://intern/"));
    let error = fixture.save(b"short").await.unwrap_err();
    assert_eq!(error.to_string(), "the store of checkpoints answers 403");
    let shown = format!("{:?} {:?}", fixture.archives, settings("http://h", true, "p"));
    for secret in [KEY, SECRET] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let seen = fixture.fake.inner.lock().unwrap().seen.join("\n");
    assert!(!seen.contains("canary"), "{seen}");
}

#[tokio::test]
async fn a_store_that_is_away_is_waited_for_a_bounded_time() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = bucket(&url.parse().unwrap()).probe().await.unwrap_err();
    assert_eq!(error.to_string(), "the store of checkpoints can't be reached");
}

#[tokio::test]
async fn a_disk_without_room_is_told_from_a_store_that_fails() {
    let fixture = Fixture::new().await;
    let digest = fixture.save(b"short").await.unwrap();
    let floor = u64::MAX / 2;
    let full = Archives::in_bucket(bucket(&fixture.fake.url), fixture.folder.path(), floor).unwrap();
    let error = full.read(&fixture.id, digest).await.unwrap_err();
    assert!(matches!(error, Error::Full), "{error}");
}

#[tokio::test]
async fn the_probe_leaves_nothing() {
    let fixture = Fixture::new().await;
    bucket(&fixture.fake.url).probe().await.unwrap();
    assert_eq!((fixture.fake.requests(), fixture.left()), (5, (0, 0, 0)));
    // What can't be read back is removed as well.
    fixture
        .fake
        .trouble(&[Trouble::None, Trouble::Refuse(403, "AccessDenied")]);
    bucket(&fixture.fake.url).probe().await.unwrap_err();
    assert_eq!(fixture.left(), (0, 0, 0));
    // A key may have the right to write objects, and none to abort uploads.
    fixture.fake.trouble(&[Trouble::None; 4]);
    fixture.fake.trouble(&[Trouble::Refuse(403, "AccessDenied")]);
    let error = bucket(&fixture.fake.url).probe().await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error}");
}

#[tokio::test]
async fn what_may_still_come_is_not_removed_before_it() {
    let fixture = Fixture::new().await;
    let mut slow = bucket(&fixture.fake.url);
    slow.doubt = LONG_DOUBT;
    let archives = Archives::in_bucket(slow, fixture.folder.path(), 0).unwrap();
    let save = async |troubles: &[Trouble], bytes: &[u8]| {
        fixture.fake.trouble(troubles);
        let (partial, mut writer) = archives.begin(&fixture.id).unwrap();
        writer.write_all(bytes).unwrap();
        partial.finish().await
    };
    let remove = async || {
        let (removed, done) = archives.remove(std::slice::from_ref(&fixture.id)).await;
        done.unwrap();
        removed.len()
    };
    // What was refused, or done, is known.
    save(&[Trouble::Refuse(403, "AccessDenied")], b"short")
        .await
        .unwrap_err();
    assert_eq!(remove().await, 1);
    save(&[], b"short").await.unwrap();
    assert_eq!(remove().await, 1);
    // The store has it, and its answers are lost.
    save(&[Trouble::Lose(500); ATTEMPTS as usize], b"short")
        .await
        .unwrap_err();
    assert_eq!((remove().await, fixture.left()), (0, (1, 1, 0)));
    assert!(archives.is_busy(&fixture.id, Instant::now()));
    assert!(!archives.is_busy(&fixture.id, Instant::now() + Duration::from_secs(3601)));
    assert_eq!((remove().await, fixture.left()), (1, (0, 0, 0)));
}

#[tokio::test]
async fn a_doubt_outlives_every_restart_and_ends_with_the_removal() {
    let fixture = Fixture::new().await;
    let start = |doubt| {
        let mut bucket = bucket(&fixture.fake.url);
        bucket.doubt = doubt;
        Archives::in_bucket(bucket, fixture.folder.path(), 0).unwrap()
    };
    let save = async |id: &CheckpointId, troubles: &[Trouble], bytes: &[u8]| {
        fixture.fake.trouble(troubles);
        let archives = start(LONG_DOUBT);
        let (partial, mut writer) = archives.begin(id).unwrap();
        writer.write_all(bytes).unwrap();
        partial.finish().await
    };
    let [unanswered, cut_off, refused, parts, late] = [(); 5].map(|()| CheckpointId::generate());
    save(&unanswered, &[Trouble::Lose(500); ATTEMPTS as usize], b"short")
        .await
        .unwrap_err();
    // Nobody waits for the answer any more when the store has it.
    {
        let saving = save(&cut_off, &[Trouble::Stall], b"short");
        let heard = async {
            while fixture.fake.requests() <= ATTEMPTS as usize {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            saved = saving => panic!("{saved:?}"),
            () = heard => {}
        }
    }
    save(&refused, &[Trouble::Refuse(403, "AccessDenied")], b"short")
        .await
        .unwrap_err();
    save(
        &parts,
        &[Trouble::None, Trouble::Refuse(403, "AccessDenied")],
        LONG,
    )
    .await
    .unwrap_err();
    // What was refused then does not tell what became of the attempt before.
    save(
        &late,
        &[Trouble::Lose(500), Trouble::Refuse(403, "AccessDenied")],
        b"short",
    )
    .await
    .unwrap_err();
    let all = [&unanswered, &cut_off, &refused, &parts, &late].map(Clone::clone);
    let removed = async |archives: &Archives| {
        let (mut removed, done) = archives.remove(&all).await;
        done.unwrap();
        removed.sort();
        removed
    };
    let mut known = vec![refused.clone(), parts.clone()];
    known.sort();
    // What was refused is not there, and an upload in parts is aborted.
    for _ in 0..3 {
        assert_eq!(removed(&start(LONG_DOUBT)).await, known);
        assert_eq!(fixture.left().0, 3, "three notes");
    }
    let last = start(Duration::ZERO);
    assert_eq!(removed(&last).await.len(), all.len());
    assert_eq!(fixture.left(), (0, 0, 0));
    assert_eq!(
        removed(&start(LONG_DOUBT)).await.len(),
        all.len(),
        "no doubt is left"
    );
    // What is not ours is nobody's doubt.
    std::fs::write(fixture.folder.path().join("sent-by-somebody"), "").unwrap();
    start(LONG_DOUBT);
}

#[tokio::test]
async fn what_keeps_an_archive_is_told_with_its_id() {
    let fixture = Fixture::new().await;
    fixture.fake.trouble(&[Trouble::Refuse(403, "AccessDenied")]);
    let (removed, done) = fixture.archives.remove(std::slice::from_ref(&fixture.id)).await;
    let kept = done.unwrap_err();
    assert!(matches!(kept.error, Error::Refused(_)), "{kept:?}");
    assert_eq!((removed, kept.id), (Vec::new(), fixture.id));
}

#[test]
fn a_bucket_is_part_of_the_path_or_the_host() {
    let address = |endpoint: &str, path_style, prefix: &str| {
        Bucket::new(settings(endpoint, path_style, prefix)).map(|bucket| bucket.address().to_owned())
    };
    for (endpoint, path_style, prefix, expected) in [
        (
            "https://s3.eu-west-1.amazonaws.com",
            false,
            "",
            "https://saved.s3.eu-west-1.amazonaws.com/",
        ),
        ("https://h:9000/", false, "a/b", "https://saved.h:9000/a/b"),
        ("http://127.0.0.1:9000", true, "", "http://127.0.0.1:9000/saved"),
        ("http://h/store/", true, "a", "http://h/store/saved/a"),
    ] {
        assert_eq!(address(endpoint, path_style, prefix).unwrap(), expected);
    }
    for (endpoint, path_style, unusable) in [
        ("http://127.0.0.1:9000", false, Unusable::Host),
        ("http://[::1]:9000", false, Unusable::Host),
        ("ftp://h", true, Unusable::Endpoint),
        ("https://user:word@h", true, Unusable::Endpoint),
        ("https://h/?a", true, Unusable::Endpoint),
    ] {
        assert_eq!(
            address(endpoint, path_style, "").unwrap_err(),
            unusable,
            "{endpoint}"
        );
    }
}
