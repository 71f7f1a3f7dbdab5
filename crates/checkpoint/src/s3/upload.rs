//! Uploads in parts, for archives that are too long for one request.
//!
//! Invariant: an upload that was begun is known on the disk before any part is sent, until it has ended. So one that a
//! failure or a crash cuts off is ended when its archive is removed, and costs nothing from then on.

use std::io;

use bytes::Bytes;
use oma_staging::{Folder, Partial};
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, ETAG};

use super::notes::Note;
use super::request::{Body, Call, Failure, field, short_body};
use super::{Bucket, told};
use crate::Result;

/// The longest id of an upload that is believed, in bytes.
const MAX_ID: usize = 4096;
/// How many parts an upload may have.
const MAX_PARTS: u64 = 10_000;

/// What is sent at once, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// The longest archive that goes in one request.
    pub(super) whole: u64,
    /// Parts of longer ones, as long as there are not too many of them. Stores want 5 MiB at least.
    pub(super) part: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            whole: 64 << 20,
            part: 16 << 20,
        }
    }
}

impl Sizes {
    /// The parts of an archive of so many bytes.
    fn part_of(self, size: u64) -> u64 {
        self.part.max(size.div_ceil(MAX_PARTS))
    }
}

impl Bucket {
    /// Sends a file in parts.
    pub(super) async fn send_parts(
        &self,
        name: &str,
        file: Partial,
        size: u64,
        folder: &Folder,
    ) -> Result<()> {
        let upload = self.begin(name).await?;
        Note::Upload.keep(name, &upload, folder).await?;
        let mut tags = Vec::new();
        let step = self.sizes.part_of(size);
        let mut from = 0;
        while from < size {
            let digest = super::part(file.path().to_owned(), from, step).await?;
            if digest.size == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            from += digest.size;
            let mut call = Call::new(Method::PUT, name);
            call.query = vec![
                ("partNumber", (tags.len() + 1).to_string()),
                ("uploadId", upload.clone()),
            ];
            call.body = Body::File {
                path: file.path().to_owned(),
                from: from - digest.size,
                digest,
            };
            let response = self.ask("writing a part of an object", &call).await?;
            let tag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok());
            tags.push(
                tag.ok_or_else(|| told("writing a part of an object", &Failure::unreadable()))?
                    .to_owned(),
            );
        }
        self.complete(name, &upload, &tags, size).await?;
        Note::Upload.forget(name, folder).await
    }

    pub(super) async fn begin(&self, name: &str) -> Result<String> {
        let what = "beginning an upload";
        let mut call = Call::new(Method::POST, name);
        call.query = vec![("uploads", String::new())];
        let response = self.ask(what, &call).await?;
        let body = short_body(response)
            .await
            .map_err(|failure| told(what, &failure))?;
        field(&body, "InitiateMultipartUploadResult", "UploadId")
            .filter(|id| !id.is_empty() && id.len() <= MAX_ID && !id.contains(char::is_control))
            .ok_or_else(|| told(what, &Failure::unreadable()))
    }

    /// Makes an object of the parts.
    async fn complete(&self, name: &str, upload: &str, tags: &[String], size: u64) -> Result<()> {
        let what = "completing an upload";
        let mut call = Call::new(Method::POST, name);
        call.query = vec![("uploadId", upload.to_owned())];
        call.body = Body::Bytes(Bytes::from(parts(tags)));
        let mut attempt = 1;
        loop {
            let failure = match self.send_once(&call).await {
                Ok(response) => match short_body(response).await {
                    // A failure may come after the status was sent.
                    Ok(body) if field(&body, "CompleteMultipartUploadResult", "ETag").is_some() => {
                        return Ok(());
                    }
                    Ok(body) if field(&body, "Error", "Code").is_some() => Failure::told(200, &body),
                    Ok(_) => Failure::unreadable(),
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            // An attempt whose answer was lost may have succeeded, and its upload is none any more.
            if failure.is("NoSuchUpload") && attempt > 1 && self.has(name, size).await? {
                return Ok(());
            }
            self.rest(what, failure, &mut attempt).await?;
        }
    }

    /// Whether there is an object of this name and size.
    async fn has(&self, name: &str, size: u64) -> Result<bool> {
        let found = self
            .try_ask("looking for an object", &Call::new(Method::HEAD, name))
            .await?;
        // The answer to `HEAD` has no body, whose length would be the object's.
        let length = found.ok().and_then(|response| {
            let length = response.headers().get(CONTENT_LENGTH)?;
            length.to_str().ok()?.parse::<u64>().ok()
        });
        Ok(length == Some(size))
    }

    /// Ends an upload that was begun and has not ended.
    pub(super) async fn abort(&self, name: &str, folder: &Folder) -> Result<()> {
        let Some(upload) = Note::Upload.kept(name, folder).await? else {
            return Ok(());
        };
        self.end(name, &upload).await?;
        Note::Upload.forget(name, folder).await
    }

    /// Ends an upload, if there is one.
    pub(super) async fn end(&self, name: &str, upload: &str) -> Result<()> {
        let what = "aborting an upload";
        let mut call = Call::new(Method::DELETE, name);
        call.query = vec![("uploadId", upload.to_owned())];
        match self.try_ask(what, &call).await? {
            Ok(_) => Ok(()),
            Err(failure) if failure.is("NoSuchUpload") => Ok(()),
            Err(failure) => Err(told(what, &failure)),
        }
    }
}

/// The document that lists the parts.
fn parts(tags: &[String]) -> String {
    let mut text = "<CompleteMultipartUpload>".to_owned();
    for (index, tag) in tags.iter().enumerate() {
        let tag = tag.replace('&', "&amp;").replace('<', "&lt;");
        text.push_str(&format!(
            "<Part><PartNumber>{}</PartNumber><ETag>{tag}</ETag></Part>",
            index + 1
        ));
    }
    text.push_str("</CompleteMultipartUpload>");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_archive_has_too_many_parts() {
        let sizes = Sizes::default();
        assert_eq!(sizes.part_of(65 << 20), 16 << 20);
        for size in [(160_u64 << 30) + 1, 5 << 40] {
            assert!(size.div_ceil(sizes.part_of(size)) <= MAX_PARTS, "{size}");
        }
    }

    #[test]
    fn the_list_of_parts_is_a_document() {
        let text = parts(&["\"a\"".to_owned(), "b&<c".to_owned()]);
        let document = roxmltree::Document::parse(&text).unwrap();
        let tags: Vec<_> = document
            .descendants()
            .filter(|node| node.has_tag_name("ETag"))
            .filter_map(|node| node.text())
            .collect();
        assert_eq!(tags, ["\"a\"", "b&<c"]);
    }
}
