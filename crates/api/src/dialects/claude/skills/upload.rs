//! Uploads of skills: `multipart/form-data` with the files of a folder, or with a zip archive.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use bytes::Bytes;
use futures_util::stream;
use multer::Multipart;
use oma_engine::{IdempotencyKey, NewSkill};
use oma_skill::{Bundle, MAX_BYTES, MAX_FILES, Part};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::AppState;
use crate::dialects::claude::body::bad;
use crate::fault::{Fault, Result};
use crate::limits::read_body;
use crate::payload::idempotency_key;

/// The longest body, in bytes: the files and what is said about them.
const BODY: usize = MAX_BYTES + (2 << 20);
/// The longest name for people, in characters.
const DISPLAY_NAME: usize = 255;
/// How many uploads are unpacked and packed at the same time: each takes as much memory as its files.
static PACKING: Semaphore = Semaphore::const_new(2);

/// What was uploaded.
pub(super) struct Upload {
    pub(super) display_name: Option<String>,
    pub(super) skill: NewSkill,
    pub(super) key: Option<IdempotencyKey>,
}

impl Upload {
    /// A version has no name of its own.
    pub(super) fn refuse_display_name(&self) -> Result<()> {
        match self.display_name {
            Some(_) => Err(bad("display_name: Extra inputs are not permitted")),
            None => Ok(()),
        }
    }
}

impl FromRequest<AppState> for Upload {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &AppState) -> Result<Self> {
        let (head, body) = request.into_parts();
        let kind = head.headers.get(header::CONTENT_TYPE);
        let boundary = kind
            .and_then(|kind| multer::parse_boundary(kind.to_str().ok()?).ok())
            .ok_or_else(|| bad("The body must be multipart/form-data with a boundary"))?;
        let config = &state.config;
        let (idle, total) = (config.body_idle_timeout, config.body_timeout);
        let bytes = read_body(&head.headers, body, BODY, idle, total).await?;
        let form = Form::read(bytes, boundary).await?;
        // The boundary is another one each time, so the body itself can't tell whether a request is repeated.
        let digest = form.digest();
        let key = idempotency_key(&head.method, &head.uri, &head.headers, &digest)?;
        let permit = PACKING.acquire().await;
        let packed = tokio::task::spawn_blocking(move || pack(form.files)).await;
        drop(permit);
        let skill = packed.map_err(|error| Fault::internal(format!("an upload was lost: {error}")))??;
        Ok(Self {
            display_name: form.display_name,
            skill,
            key,
        })
    }
}

fn pack(files: Vec<Part>) -> Result<NewSkill> {
    let bundle = Bundle::of(files).map_err(|error| match error {
        oma_skill::Error::TooLarge => Fault::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("files: {error}"),
        ),
        error => bad(format!("files: {error}")),
    })?;
    let content = bundle
        .to_zip()
        .map_err(|error| Fault::internal(format!("a skill can't be packed: {error}")))?;
    let said = bundle.frontmatter();
    Ok(NewSkill {
        name: said.name.clone(),
        description: said.description.clone(),
        directory: bundle.directory().to_owned(),
        content: Arc::from(content),
    })
}

/// The fields of a form.
struct Form {
    display_name: Option<String>,
    files: Vec<Part>,
}

impl Form {
    async fn read(bytes: Bytes, boundary: String) -> Result<Self> {
        let unreadable =
            |error: multer::Error| bad(format!("The body can't be read as multipart/form-data: {error}"));
        let body = stream::once(async move { Ok::<_, Infallible>(bytes) });
        let mut fields = Multipart::new(body, boundary);
        let mut form = Self {
            display_name: None,
            files: Vec::new(),
        };
        while let Some(field) = fields.next_field().await.map_err(unreadable)? {
            let name = field.name().unwrap_or_default().to_owned();
            match name.as_str() {
                "files" | "files[]" => {
                    if form.files.len() >= MAX_FILES {
                        return Err(bad(format!("files: {}", oma_skill::Error::TooMany)));
                    }
                    let name = field.file_name().unwrap_or_default().to_owned();
                    let bytes = field.bytes().await.map_err(unreadable)?;
                    form.files.push(Part { name, bytes });
                }
                "display_name" | "display_title" => {
                    let text = field.text().await.map_err(unreadable)?;
                    form.display_name = display_name(&name, text)?;
                }
                other => {
                    let shown: String = other.chars().filter(|c| !c.is_control()).take(64).collect();
                    return Err(bad(format!("{shown}: Extra inputs are not permitted")));
                }
            }
        }
        Ok(form)
    }

    /// Tells one form from another, whatever stands between their fields.
    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        let mut add = |bytes: &[u8]| {
            digest.update((bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        };
        add(self.display_name.as_deref().unwrap_or_default().as_bytes());
        for Part { name, bytes } in &self.files {
            add(name.as_bytes());
            add(bytes);
        }
        digest.finalize().into()
    }
}

/// Checks a name for people; an empty one is none.
fn display_name(field: &str, text: String) -> Result<Option<String>> {
    if text.chars().count() > DISPLAY_NAME || text.chars().any(char::is_control) {
        return Err(bad(format!(
            "{field}: must have at most {DISPLAY_NAME} characters, all in one line"
        )));
    }
    Ok(Some(text).filter(|text| !text.is_empty()))
}
