//! One signed request, and what its answer means.

use std::fmt;
use std::io::SeekFrom;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4::SigningParams;
use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response};
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;
use url::Url;

use super::Bucket;
use crate::{Digest, hex};

/// How long the answer to a request without bytes worth mentioning may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a connection carries in a second at least, in bytes.
const PACE: u64 = 128 << 10;
/// The longest answer that is not an object, in bytes.
const MAX_ANSWER: usize = 64 << 10;
/// What is said of a store that takes too long.
const LATE: &str = "does not answer in time";
/// The longest code of an error.
const MAX_CODE: usize = 64;
/// How a file is read.
const PIECE: usize = 256 << 10;

/// How long a request with so many bytes may take.
pub(super) fn patience(bytes: u64) -> Duration {
    PATIENCE + Duration::from_secs(bytes / PACE)
}

/// A request.
pub(super) struct Call<'a> {
    method: Method,
    name: &'a str,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Body,
    /// How long all of it may take, beside what the body does.
    pub(super) patience: Duration,
}

/// What a request carries.
pub(super) enum Body {
    Bytes(Bytes),
    /// A part of a file, which is read again for each attempt.
    File {
        path: PathBuf,
        /// The first byte.
        from: u64,
        digest: Digest,
    },
}

impl Body {
    fn digest(&self) -> Digest {
        match self {
            Self::Bytes(bytes) => Digest {
                size: bytes.len() as u64,
                sha256: hex(Sha256::new_with_prefix(bytes)),
            },
            Self::File { digest, .. } => digest.clone(),
        }
    }
}

impl<'a> Call<'a> {
    pub(super) fn new(method: Method, name: &'a str) -> Self {
        Self {
            method,
            name,
            query: Vec::new(),
            body: Body::Bytes(Bytes::new()),
            patience: PATIENCE,
        }
    }
}

/// Why there is no answer that is worth having.
#[derive(Debug)]
pub(super) struct Failure {
    /// Whether it may go away by itself.
    pub(super) passes: bool,
    code: Option<String>,
    text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Failure {
    /// Whether the store has called it that.
    pub(super) fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// The connection, or the waiting for it, has failed.
    pub(super) fn broken(error: reqwest::Error) -> Self {
        // What is said of a connection may name addresses of the operator's network: that is for the log.
        let text = if error.is_timeout() {
            LATE
        } else if error.is_connect() {
            "can't be reached"
        } else {
            "broke off the connection"
        };
        let passes = !error.is_builder();
        tracing::debug!(error = %causes(&error.without_url()), "a request to the store of checkpoints failed");
        Self {
            passes,
            code: None,
            text: text.to_owned(),
        }
    }

    /// What was waited for did not come.
    pub(super) fn late() -> Self {
        Self {
            passes: true,
            code: None,
            text: LATE.to_owned(),
        }
    }

    fn ours(text: String) -> Self {
        Self {
            passes: false,
            code: None,
            text,
        }
    }

    /// What the store says by a status and a document.
    pub(super) fn told(status: u16, body: &[u8]) -> Self {
        let code = code(body);
        let passes = matches!(status, 408 | 429 | 500..=599 if status != 501)
            || matches!(
                code.as_deref(),
                Some(
                    "SlowDown"
                        | "InternalError"
                        | "RequestTimeout"
                        | "ServiceUnavailable"
                        | "OperationAborted"
                )
            );
        let text = match &code {
            Some(code) => format!("answers {status} ({code})"),
            None => format!("answers {status}"),
        };
        Self { passes, code, text }
    }

    /// An answer that should have been another one.
    pub(super) fn unreadable() -> Self {
        Self {
            passes: true,
            code: None,
            text: "gives an answer that can't be read".to_owned(),
        }
    }
}

/// The code of an error document.
fn code(body: &[u8]) -> Option<String> {
    let code = field(body, "Error", "Code")?;
    let is_plain = code.len() <= MAX_CODE && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (is_plain && !code.is_empty()).then_some(code)
}

/// The text of an element of a document whose root has this name.
pub(super) fn field(body: &[u8], root: &str, name: &str) -> Option<String> {
    // Stores send spaces while they work, to keep the connection.
    let text = std::str::from_utf8(body).ok()?.trim_start();
    let document = roxmltree::Document::parse(text).ok()?;
    let top = document.root_element();
    if top.tag_name().name() != root {
        return None;
    }
    let found = top.children().find(|child| child.tag_name().name() == name)?;
    Some(found.text()?.to_owned())
}

/// All of an answer that is not an object.
pub(super) async fn short_body(mut response: Response) -> Result<Bytes, Failure> {
    let mut body = BytesMut::new();
    while let Some(piece) = response.chunk().await.map_err(Failure::broken)? {
        if body.len() + piece.len() > MAX_ANSWER {
            return Err(Failure::unreadable());
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

impl Bucket {
    /// Asks once.
    pub(super) async fn send_once(&self, call: &Call<'_>) -> Result<Response, Failure> {
        let digest = call.body.digest();
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.push(call.name);
        }
        for (name, value) in &call.query {
            url.query_pairs_mut().append_pair(name, value);
        }
        let headers = self.sign(&call.method, &url, &digest).map_err(Failure::ours)?;
        let body = match &call.body {
            Body::Bytes(bytes) => reqwest::Body::from(bytes.clone()),
            Body::File { path, from, .. } => {
                let opened = async {
                    let mut file = tokio::fs::File::open(path).await?;
                    file.seek(SeekFrom::Start(*from)).await?;
                    Ok::<_, std::io::Error>(file.take(digest.size))
                };
                let file = opened.await.map_err(|error| {
                    Failure::ours(format!("was to get a file that can't be read: {error}"))
                })?;
                reqwest::Body::wrap_stream(ReaderStream::with_capacity(file, PIECE))
            }
        };
        let request = self
            .client
            .request(call.method.clone(), url)
            .headers(headers)
            .timeout(call.patience + patience(digest.size))
            .body(body);
        // A body of nothing has to say so, and so has one that comes by the piece.
        let is_sending = matches!(call.method, Method::PUT | Method::POST);
        let request = if is_sending {
            request.header(CONTENT_LENGTH, digest.size)
        } else {
            request
        };
        // Of an object that is fetched the answer begins at once, however long it is.
        let response = tokio::time::timeout(PATIENCE + patience(digest.size), request.send()).await;
        let response = response.map_err(|_| Failure::late())?.map_err(Failure::broken)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        // The status alone is enough to say that it failed.
        let body = short_body(response).await.unwrap_or_default();
        Err(Failure::told(status.as_u16(), &body))
    }

    /// The headers that a signature consists of. It covers the body by its digest, so that bytes that change on the way are
    /// refused.
    fn sign(&self, method: &Method, url: &Url, digest: &Digest) -> Result<HeaderMap, String> {
        let failed = |error: &dyn fmt::Display| format!("was to get a request that can't be signed: {error}");
        let settings = &self.settings;
        let identity = Credentials::new(
            settings.access_key_id.expose_secret(),
            settings.secret_access_key.expose_secret(),
            None,
            None,
            "configuration",
        )
        .into();
        let mut signing = SigningSettings::default();
        signing.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        signing.percent_encoding_mode = PercentEncodingMode::Single;
        signing.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&settings.region)
            .name("s3")
            .time(SystemTime::now())
            .settings(signing)
            .build()
            .map_err(|error| failed(&error))?;
        let body = SignableBody::Precomputed(digest.sha256.clone());
        let request = SignableRequest::new(method.as_str(), url.as_str(), std::iter::empty(), body)
            .map_err(|error| failed(&error))?;
        let (instructions, _) = sign(request, &params.into())
            .map_err(|error| failed(&error))?
            .into_parts();
        let mut headers = HeaderMap::new();
        for (name, value) in instructions.headers() {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| failed(&error))?;
            let mut value = HeaderValue::from_str(value).map_err(|error| failed(&error))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(headers)
    }
}

/// An error with its causes in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
