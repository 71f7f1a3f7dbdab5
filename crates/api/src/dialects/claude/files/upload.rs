//! Taking an upload: `multipart/form-data` with one part `file`, and perhaps when it expires.
//!
//! Invariant: what is held in memory of an upload is a few pieces, whatever its size and however it is cut up.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use multer::{Constraints, Field, Multipart, SizeLimit};
use oma_engine::IdempotencyKey;
use oma_engine::files::{NewFile, Upload};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, timeout_at};

use crate::AppState;
use crate::dialects::claude::body::bad;
use crate::fault::{Fault, Result};
use crate::payload::idempotency_key;

/// How long a whole upload may take.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(3_600);
/// How much may arrive without anything of it being of use, in bytes: the header of a part has an end.
const UNUSED: usize = 4 << 20;
/// The text of a field that is no file, in bytes.
const FIELD: u64 = 64;
/// What may come beside the file itself, in bytes.
const AROUND: u64 = 64 << 10;
/// How soon, and how late, a file may expire, in seconds.
const EXPIRY: std::ops::RangeInclusive<u64> = 3_600..=7_776_000;

/// What was uploaded.
pub(super) struct Received {
    pub(super) upload: Upload,
    pub(super) new: NewFile,
    pub(super) key: Option<IdempotencyKey>,
}

/// A file whose bytes have arrived, with a digest of them if that is asked for.
struct Arrived {
    upload: Upload,
    new: NewFile,
    digest: Option<Sha256>,
}

/// Takes the file and what is said about it.
pub(super) async fn receive(state: &AppState, request: Request) -> Result<Received> {
    let (parts, body) = request.into_parts();
    let bound = |digest: &[u8]| idempotency_key(&parts.method, &parts.uri, &parts.headers, digest);
    // A key that is none is refused before anything is taken.
    let hashes = bound(b"")?.is_some();
    let kind = parts
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let boundary = kind.and_then(|kind| multer::parse_boundary(kind).ok());
    let boundary = boundary.ok_or_else(|| bad("The body must be multipart/form-data with a boundary"))?;
    let most = state.engine.file_limits().max_file;
    let announced = parts.headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > most.saturating_add(AROUND)) {
        return Err(too_large(most));
    }
    let unused = Arc::new(AtomicUsize::new(0));
    let bytes = paced(body, state.config.body_idle_timeout, Arc::clone(&unused));
    let limits = SizeLimit::new()
        .whole_stream(most.saturating_add(AROUND))
        .for_field("expires_in_seconds", FIELD);
    let mut form = Multipart::with_constraints(bytes, boundary, Constraints::new().size_limit(limits));

    let mut file: Option<Arrived> = None;
    let mut expires_in = None;
    while let Some(field) = form.next_field().await.map_err(|error| refused(&error, most))? {
        unused.store(0, Ordering::Relaxed);
        match field.name() {
            Some("file") if file.is_none() => {
                file = Some(receive_file(state, field, &unused, most, hashes).await?);
            }
            Some("expires_in_seconds") if expires_in.is_none() => {
                let text = field.text().await.map_err(|error| refused(&error, most))?;
                expires_in = Some(expiry(&text)?);
            }
            Some(name @ ("file" | "expires_in_seconds")) => {
                return Err(bad(format!("{name}: may be given only once")));
            }
            Some(name) => {
                let name: String = name.chars().take(100).collect();
                return Err(bad(format!("{name}: Extra inputs are not permitted")));
            }
            None => return Err(bad("Each part must have a name")),
        }
    }
    let Arrived { upload, new, digest } = file.ok_or_else(|| bad("file: Field required"))?;
    let new = NewFile { expires_in, ..new };
    let key = match digest {
        Some(digest) => bound(&whole(&new, digest))?,
        None => None,
    };
    Ok(Received { upload, new, key })
}

/// Tells one form from another by what it says: the boundary between its parts is another one each time.
fn whole(new: &NewFile, bytes: Sha256) -> [u8; 32] {
    let mut digest = Sha256::new();
    let mime_type = new.mime_type.as_deref().unwrap_or_default();
    for text in [new.filename.as_str(), mime_type] {
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text);
    }
    digest.update(new.expires_in.unwrap_or_default().as_secs().to_be_bytes());
    digest.update(bytes.finalize());
    digest.finalize().into()
}

async fn receive_file(
    state: &AppState,
    mut field: Field<'_>,
    unused: &AtomicUsize,
    most: u64,
    hashes: bool,
) -> Result<Arrived> {
    let filename = field
        .file_name()
        .ok_or_else(|| bad("file: the part must have a filename"))?;
    let new = NewFile {
        filename: filename.to_owned(),
        mime_type: field.content_type().map(|kind| kind.essence_str().to_owned()),
        expires_in: None,
    };
    let mut upload = state.engine.begin_file().await?;
    let mut digest = hashes.then(Sha256::new);
    while let Some(piece) = field.chunk().await.map_err(|error| refused(&error, most))? {
        unused.store(0, Ordering::Relaxed);
        if let Some(digest) = &mut digest {
            digest.update(&piece);
        }
        upload.write(piece).await.map_err(oma_engine::Error::from)?;
    }
    Ok(Arrived { upload, new, digest })
}

fn expiry(text: &str) -> Result<Duration> {
    let seconds = text
        .trim()
        .parse::<u64>()
        .ok()
        .filter(|seconds| EXPIRY.contains(seconds));
    let seconds = seconds.ok_or_else(|| {
        bad(format!(
            "expires_in_seconds: must be a whole number from {} to {}",
            EXPIRY.start(),
            EXPIRY.end()
        ))
    })?;
    Ok(Duration::from_secs(seconds))
}

/// The body, one piece at a time, with a bound on every wait. Between two pieces whoever reads has to come back: the
/// reader of forms takes all that is there at once otherwise.
fn paced(
    body: Body,
    idle: Duration,
    unused: Arc<AtomicUsize>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let end = Instant::now() + UPLOAD_TIMEOUT;
    stream::unfold(Some(body.into_data_stream()), move |chunks| {
        let unused = Arc::clone(&unused);
        async move {
            let mut chunks = chunks?;
            tokio::task::yield_now().await;
            match timeout_at(end.min(Instant::now() + idle), chunks.next()).await {
                Err(_) => Some((Err(io::ErrorKind::TimedOut.into()), None)),
                Ok(None) => None,
                Ok(Some(Err(_))) => Some((Err(io::ErrorKind::UnexpectedEof.into()), None)),
                Ok(Some(Ok(bytes))) => {
                    let so_far = unused.fetch_add(bytes.len(), Ordering::Relaxed);
                    if so_far > UNUSED {
                        return Some((Err(io::ErrorKind::InvalidData.into()), None));
                    }
                    Some((Ok(bytes), Some(chunks)))
                }
            }
        }
    })
}

fn too_large(most: u64) -> Fault {
    let message = format!("A file may have {most} bytes");
    Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "file_too_large", message)
}

fn refused(error: &multer::Error, most: u64) -> Fault {
    match error {
        multer::Error::StreamSizeExceeded { .. } => too_large(most),
        multer::Error::FieldSizeExceeded { .. } => bad("expires_in_seconds: is too long"),
        multer::Error::StreamReadFailed(cause) => {
            let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
            match kind {
                Some(io::ErrorKind::TimedOut) => Fault::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "request_timeout",
                    "The body did not arrive in time",
                ),
                Some(io::ErrorKind::InvalidData) => bad("The header of a part is too long"),
                _ => Fault::new(StatusCode::BAD_REQUEST, "invalid_body", "The body broke off"),
            }
        }
        error => bad(format!("The body is no valid form: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_is_bounded() {
        for (text, is_legal) in [
            ("3600", true),
            (" 7776000 ", true),
            ("3599", false),
            ("7776001", false),
            ("-1", false),
            ("1e4", false),
            ("", false),
        ] {
            assert_eq!(expiry(text).is_ok(), is_legal, "{text:?}");
        }
    }

    #[tokio::test]
    async fn what_is_of_no_use_is_bounded() {
        let piece = Bytes::from(vec![b'x'; 1 << 20]);
        let endless = stream::repeat_with(move || Ok::<_, io::Error>(piece.clone()));
        let body = Body::from_stream(endless);
        let bytes = paced(body, Duration::from_secs(5), Arc::default());
        let mut form = Multipart::new(bytes, "b");
        let error = form.next_field().await.expect_err("no end of the header");
        assert_eq!(refused(&error, 1).message(), "The header of a part is too long");
    }
}
