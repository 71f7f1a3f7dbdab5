//! A bucket of an S3-compatible store: sending, fetching and removing archives.
//!
//! Of the protocol only what every such store has is used: `PUT`, `GET`, `HEAD` and `DELETE` of objects and uploads in parts
//! ([`upload`]). Objects are not listed, so several servers may share a bucket, and a prefix.
//!
//! The address is the operator's, never a user's, and may well be in the operator's own network, so requests don't go
//! through the dial guard. Redirects are not followed: a store that wants another address or region is configured wrongly.
//!
//! Invariant: keys and signatures are in no address, error or log.
//! Invariant: every wait has a bound, and so have repetitions; what a store refuses for good is not repeated.

mod notes;
mod request;
mod upload;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::time::Duration;

use bytes::Bytes;
use oma_staging::Folder;
use reqwest::{Client, Method};
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::{Digest, Error, Result, blocking, digest, hex};
use notes::Note;
use request::{Body, Call, Failure};

/// How long it may take to connect, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the store may send nothing of an object that it has begun to send.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How often something is tried.
const ATTEMPTS: u32 = 5;
/// The pause before the second attempt; the ones after it are longer.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// How long the store may take over a request that was cut off: what it was to write may be there until then.
const DOUBT: Duration = Duration::from_secs(300);
/// Pieces of an archive that have come from the store and wait for the disk.
const WAITING_PIECES: usize = 16;

/// Where a bucket is, and with what right it is used.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The store's address, of which scheme, host, port and path count.
    pub endpoint: Url,
    /// The region that requests are signed for.
    pub region: String,
    /// Whether the bucket's name is in the path, and not in the host.
    pub path_style: bool,
    /// The bucket.
    pub bucket: String,
    /// What stands before the names of objects, without slashes around it; may be empty.
    pub prefix: String,
    /// The id of the access key.
    pub access_key_id: SecretString,
    /// Its secret.
    pub secret_access_key: SecretString,
}

/// Why a bucket can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The store's address is none.
    #[error(
        "the endpoint must be an http or https URL with a host, and without a user, a query or a fragment"
    )]
    Endpoint,
    /// The bucket's name can't be part of that host.
    #[error("the bucket's name can't be part of the endpoint's host; set path_style")]
    Host,
    /// There can be no HTTP client.
    #[error("no HTTP client: {0}")]
    Client(String),
}

/// A bucket, or what of it has the configured prefix.
pub struct Bucket {
    client: Client,
    /// Without a slash at its end.
    base: Url,
    settings: Settings,
    sizes: upload::Sizes,
    pause: Duration,
    stall: Duration,
    doubt: Duration,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("base", &self.base.as_str())
            .finish_non_exhaustive()
    }
}

impl Bucket {
    /// Makes ready for a bucket, without asking for it.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn new(settings: Settings) -> std::result::Result<Self, Unusable> {
        let base = base(&settings)?;
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT_TIMEOUT)
            // The bytes are what was saved, whatever they look like.
            .no_gzip()
            .user_agent(concat!("openclaw-managed-agents/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Unusable::Client(error.to_string()))?;
        Ok(Self {
            client,
            base,
            settings,
            sizes: upload::Sizes::default(),
            pause: PAUSE,
            stall: STALL_TIMEOUT,
            doubt: DOUBT,
        })
    }

    /// Where its objects are, for people.
    #[must_use]
    pub fn address(&self) -> &str {
        self.base.as_str()
    }

    /// How long what was sent may come to be there after nobody waits for it any more.
    pub(crate) fn doubt(&self) -> Duration {
        self.doubt
    }

    /// Says whether objects can be written, read and removed, by doing that with a small one of a name of its own, and whether
    /// uploads can be begun and aborted.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Refused`], [`Error::Damaged`].
    pub async fn probe(&self) -> Result<()> {
        let name = format!("probe-{}", ulid::Ulid::generate());
        let bytes = Bytes::from_static(b"Written to see whether it can be.\n");
        let mut call = Call::new(Method::PUT, &name);
        call.body = Body::Bytes(bytes.clone());
        self.ask("writing an object", &call).await?;
        let read = async {
            let response = self
                .ask("reading an object", &Call::new(Method::GET, &name))
                .await?;
            match request::short_body(response).await {
                Ok(found) if found == bytes => Ok(()),
                Ok(_) => Err(Error::Damaged),
                Err(failure) => Err(told("reading an object", &failure)),
            }
        };
        let read = read.await;
        self.ask("removing an object", &Call::new(Method::DELETE, &name))
            .await?;
        read?;
        let upload = self.begin(&name).await?;
        self.end(&name, &upload).await
    }

    /// Sends a file under this name. What a failure leaves goes when the archive is removed. Also says whether it is known
    /// what the store has: an attempt that was not answered may still arrive, whatever became of the next one.
    pub(crate) async fn send(
        &self,
        name: &str,
        file: oma_staging::Partial,
        digest: &Digest,
        folder: &Folder,
    ) -> (Result<()>, bool) {
        if digest.size > self.sizes.whole {
            let sent = self.send_parts(name, file, digest.size, folder).await;
            let is_known = !matches!(sent, Err(Error::Store(_)));
            return (sent, is_known);
        }
        if let Err(error) = Note::Sent.keep(name, "", folder).await {
            return (Err(error), true);
        }
        let mut call = Call::new(Method::PUT, name);
        call.body = Body::File {
            path: file.path().to_owned(),
            from: 0,
            digest: digest.clone(),
        };
        let (what, mut attempt) = ("writing an object", 1);
        let sent = match self.attempt(what, &call, &mut attempt).await {
            Ok(answer) => answer.map(drop).map_err(|failure| told(what, &failure)),
            Err(error) => Err(error),
        };
        let is_known = attempt == 1 && !matches!(sent, Err(Error::Store(_)));
        if is_known && let Err(error) = Note::Sent.forget(name, folder).await {
            // It goes with the archive, whose removal the next start puts off for nothing.
            tracing::debug!(%error, "a note of what was sent stays");
        }
        (sent, is_known)
    }

    /// The names of what was sent, by whichever server had the folder, and was not answered.
    pub(crate) fn unanswered(folder: &Folder) -> io::Result<Vec<String>> {
        Note::Sent.all(folder)
    }

    /// Fetches what has this name into a file without one.
    pub(crate) async fn fetch(&self, name: &str, expected: &Digest, folder: &Folder) -> Result<File> {
        let mut attempt = 1;
        loop {
            let failure = match self.fetch_once(name, expected, folder).await? {
                Ok(file) => return Ok(file),
                Err(failure) => failure,
            };
            if failure.is("NoSuchKey") {
                return Err(Error::Gone);
            }
            self.rest("reading an object", failure, &mut attempt).await?;
        }
    }

    async fn fetch_once(
        &self,
        name: &str,
        expected: &Digest,
        folder: &Folder,
    ) -> Result<std::result::Result<File, Failure>> {
        let mut call = Call::new(Method::GET, name);
        call.patience = request::patience(expected.size);
        let mut response = match self.send_once(&call).await {
            Ok(response) => response,
            Err(failure) => return Ok(Err(failure)),
        };
        if response
            .content_length()
            .is_some_and(|length| length != expected.size)
        {
            return Err(Error::Damaged);
        }
        let (to_disk, mut pieces) = tokio::sync::mpsc::channel::<Bytes>(WAITING_PIECES);
        let folder = folder.clone();
        let writer = blocking(move || {
            let mut file = folder.begin()?;
            let mut hash = Sha256::new();
            while let Some(piece) = pieces.blocking_recv() {
                hash.update(&piece);
                file.write_all(&piece)?;
            }
            let found = Digest {
                size: file.size(),
                sha256: hex(hash),
            };
            let mut file = file.into_nameless()?;
            file.rewind()?;
            Ok((file, found))
        });
        let reader = async {
            // Dropped at the end, which tells the writer.
            let to_disk = to_disk;
            let mut left = expected.size;
            loop {
                let Ok(piece) = tokio::time::timeout(self.stall, response.chunk()).await else {
                    return Err(Failure::late());
                };
                match piece {
                    Ok(Some(piece)) => {
                        left = match left.checked_sub(piece.len() as u64) {
                            Some(left) => left,
                            None => return Ok(true),
                        };
                        if to_disk.send(piece).await.is_err() {
                            // The disk has failed, and the writer says how.
                            return Ok(false);
                        }
                    }
                    Ok(None) => return Ok(false),
                    Err(error) => return Err(Failure::broken(error)),
                }
            }
        };
        let (read, written) = tokio::join!(reader, writer);
        let (file, found) = written?;
        match read {
            Err(failure) => Ok(Err(failure)),
            Ok(false) if found == *expected => Ok(Ok(file)),
            Ok(_) => Err(Error::Damaged),
        }
    }

    /// Removes what has this name, and an upload to it that has not ended.
    pub(crate) async fn remove(&self, name: &str, folder: &Folder) -> Result<()> {
        self.abort(name, folder).await?;
        let call = Call::new(Method::DELETE, name);
        match self.try_ask("removing an object", &call).await? {
            Ok(_) => {}
            Err(failure) if failure.is("NoSuchKey") => {}
            Err(failure) => return Err(told("removing an object", &failure)),
        }
        Note::Sent.forget(name, folder).await
    }

    /// Asks until there is an answer that is worth having.
    async fn ask(&self, what: &'static str, call: &Call<'_>) -> Result<reqwest::Response> {
        self.try_ask(what, call)
            .await?
            .map_err(|failure| told(what, &failure))
    }

    /// The same, where some of what the store refuses is no failure.
    async fn try_ask(
        &self,
        what: &'static str,
        call: &Call<'_>,
    ) -> Result<std::result::Result<reqwest::Response, Failure>> {
        self.attempt(what, call, &mut 1).await
    }

    /// The same, with the number of the attempt, which is that of the last one then.
    async fn attempt(
        &self,
        what: &'static str,
        call: &Call<'_>,
        attempt: &mut u32,
    ) -> Result<std::result::Result<reqwest::Response, Failure>> {
        loop {
            match self.send_once(call).await {
                Ok(response) => return Ok(Ok(response)),
                Err(failure) if !failure.passes => return Ok(Err(failure)),
                Err(failure) => self.rest(what, failure, attempt).await?,
            }
        }
    }

    /// Waits before the next attempt, if there is one.
    async fn rest(&self, what: &'static str, failure: Failure, attempt: &mut u32) -> Result<()> {
        if !failure.passes || *attempt >= ATTEMPTS {
            return Err(told(what, &failure));
        }
        let longest = self.pause.saturating_mul(1 << *attempt).min(MAX_PAUSE);
        // All that wait for the store should not come back to it together.
        let pause = longest.mul_f64(rand::random_range(0.5..=1.0));
        tracing::debug!(what, %failure, attempt, "the store of checkpoints is asked again");
        *attempt += 1;
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// What a caller is told; the log is told what was tried.
fn told(what: &'static str, failure: &Failure) -> Error {
    tracing::warn!(what, %failure, "the store of checkpoints failed");
    match failure.passes {
        true => Error::Store(failure.to_string()),
        false => Error::Refused(failure.to_string()),
    }
}

/// What a part of a file is, from this byte on.
async fn part(path: std::path::PathBuf, from: u64, size: u64) -> io::Result<Digest> {
    blocking(move || {
        let mut file = File::open(path)?;
        file.seek(io::SeekFrom::Start(from))?;
        digest(&mut io::Read::take(file, size))
    })
    .await
}

fn base(settings: &Settings) -> std::result::Result<Url, Unusable> {
    let mut url = settings.endpoint.clone();
    let is_plain = matches!(url.scheme(), "http" | "https")
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    let host = url.host_str().filter(|_| is_plain).ok_or(Unusable::Endpoint)?;
    let bucket = &settings.bucket;
    if !settings.path_style {
        let host = format!("{bucket}.{host}");
        url.set_host(Some(&host)).map_err(|_| Unusable::Host)?;
        // What is not a name, or another one than it was, leads elsewhere.
        if url.domain() != Some(host.as_str()) {
            return Err(Unusable::Host);
        }
    }
    let mut path = url.path_segments_mut().map_err(|()| Unusable::Endpoint)?;
    path.pop_if_empty();
    if settings.path_style {
        path.push(bucket);
    }
    path.extend(settings.prefix.split('/').filter(|part| !part.is_empty()));
    drop(path);
    Ok(url)
}
