//! Files as clients read them, in today's shape and in the one before, for clients that ask for it.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use oma_domain::{File, SessionId};
use serde_json::{Value, json};

use crate::dialects::claude::time;

/// What the older shape goes by, in the header of betas.
const OLDER: &str = "files-api-2025-04-14";

/// In which shape a client reads files and lists of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Current,
    Older,
}

impl<S: Send + Sync> FromRequestParts<S> for Shape {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let betas = parts.headers.get_all("anthropic-beta").iter();
        let betas = betas.filter_map(|value| value.to_str().ok());
        let is_older = betas
            .flat_map(|value| value.split(','))
            .any(|beta| beta.trim() == OLDER);
        Ok(if is_older { Self::Older } else { Self::Current })
    }
}

impl Shape {
    /// A file.
    pub(super) fn file(self, file: &File) -> Value {
        let File {
            id,
            workspace: _,
            filename,
            mime_type,
            size,
            downloadable,
            created_at,
            expires_at,
            session,
        } = file;
        let scope = |session: &SessionId| json!({"type": "session", "id": session.as_str()});
        let mut view = json!({
            "type": "file",
            "id": id.as_str(),
            "filename": filename,
            "mime_type": mime_type,
            "size_bytes": size,
            "created_at": time::value(*created_at),
            "downloadable": downloadable,
            "scope": session.as_ref().map(scope),
        });
        if self == Self::Current {
            view["expires_at"] = time::optional(*expires_at);
        }
        view
    }

    /// Files that no others follow.
    pub(super) fn all(self, files: &[File]) -> Value {
        match self {
            Self::Current => self.page(files, None),
            Self::Older => self.part(files, false),
        }
    }

    /// A page of today's shape.
    pub(super) fn page(self, files: &[File], next: Option<String>) -> Value {
        json!({"data": self.files(files), "next_page": next})
    }

    /// A page of the older shape.
    pub(super) fn part(self, files: &[File], has_more: bool) -> Value {
        let id = |file: Option<&File>| file.map(|file| file.id.as_str().to_owned());
        json!({
            "data": self.files(files),
            "has_more": has_more,
            "first_id": id(files.first()),
            "last_id": id(files.last()),
        })
    }

    fn files(self, files: &[File]) -> Vec<Value> {
        files.iter().map(|file| self.file(file)).collect()
    }
}
