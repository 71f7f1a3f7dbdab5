//! From what a server's tool gave to what the model is shown.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oma_domain::ContentBlock;
use oma_domain::content::Source;
use oma_domain::session::Outcome;
use rmcp::model::{CallToolResult, ContentBlock as Block, ResourceContents};

use crate::secrets::Secrets;

/// The most images and documents of one result.
const MAX_FILES: usize = 16;

/// The most base64 of one result's images and documents, in bytes.
const MAX_FILE_BYTES: usize = 8 << 20;

/// Gathers the blocks of one result.
struct Gathered<'a> {
    secrets: &'a Secrets,
    blocks: Vec<ContentBlock>,
    files: usize,
    file_bytes: usize,
}

/// The outcome of a call that was answered.
pub(crate) fn outcome(result: CallToolResult, secrets: &Secrets) -> Outcome {
    let mut gathered = Gathered {
        secrets,
        blocks: Vec::new(),
        files: 0,
        file_bytes: 0,
    };
    for block in result.content {
        gathered.block(block);
    }
    let has_text = |block: &ContentBlock| matches!(block, ContentBlock::Text { .. });
    // Servers are asked to send what is structured as text as well, so it is shown only where they did not.
    if let Some(structured) = result.structured_content
        && !gathered.blocks.iter().any(has_text)
    {
        gathered.text(secrets.scrub_json(structured).to_string());
    }
    if gathered.blocks.is_empty() {
        gathered.text("The tool gave no content.".to_owned());
    }
    Outcome {
        content: gathered.blocks,
        is_error: result.is_error.unwrap_or(false),
    }
}

impl Gathered<'_> {
    /// Adds text, to the text before it if there is some.
    fn text(&mut self, text: String) {
        let text = self.secrets.scrub(text);
        match self.blocks.last_mut() {
            Some(ContentBlock::Text { text: before }) => {
                before.push('\n');
                before.push_str(&text);
            }
            _ => self.blocks.push(ContentBlock::Text { text }),
        }
    }

    fn block(&mut self, block: Block) {
        match block {
            Block::Text(text) => self.text(text.text),
            Block::Image(image) => self.file(image.data, "An image"),
            Block::Audio(audio) => self.text(format!("[Audio ({}) can't be shown.]", audio.mime_type)),
            Block::Resource(resource) => match resource.resource {
                ResourceContents::TextResourceContents { uri, text, .. } => {
                    self.text(format!("Resource {uri}:\n{text}"));
                }
                ResourceContents::BlobResourceContents { uri, blob, .. } => {
                    self.file(blob, &format!("The resource {uri}"));
                }
                _ => self.text("[A resource of an unknown kind can't be shown.]".to_owned()),
            },
            Block::ResourceLink(link) => {
                let mut line = format!("Resource {} ({})", link.uri, link.name);
                if let Some(description) = link.description {
                    line.push_str(": ");
                    line.push_str(&description);
                }
                self.text(line);
            }
            _ => self.text("[Content of an unknown kind can't be shown.]".to_owned()),
        }
    }

    /// Adds an image or a document. What it is is told by its bytes: a provider that is sent something else
    /// under that name refuses the whole conversation, and does so for ever.
    fn file(&mut self, data: String, what: &str) {
        if self.files >= MAX_FILES || self.file_bytes + data.len() > MAX_FILE_BYTES {
            return self.text(format!("[{what} is left out: the result is too large.]"));
        }
        let kind = STANDARD.decode(&data).ok().and_then(|bytes| kind(&bytes));
        let Some(media_type) = kind else {
            return self.text(format!("[{what} is of a kind that can't be shown.]"));
        };
        self.files += 1;
        self.file_bytes += data.len();
        let source = Source::Base64 {
            media_type: media_type.to_owned(),
            data,
        };
        self.blocks.push(if media_type == "application/pdf" {
            ContentBlock::Document {
                source,
                title: None,
                context: None,
            }
        } else {
            ContentBlock::Image { source }
        });
    }
}

/// The media type of what models can be shown.
fn kind(bytes: &[u8]) -> Option<&'static str> {
    Some(match bytes {
        [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => "image/png",
        [0xff, 0xd8, 0xff, ..] => "image/jpeg",
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => "image/gif",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "image/webp",
        [b'%', b'P', b'D', b'F', b'-', ..] => "application/pdf",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn shown(result: Value) -> Outcome {
        outcome(serde_json::from_value(result).unwrap(), &Secrets::default())
    }

    #[test]
    fn every_kind_of_content() {
        let png = STANDARD.encode(b"\x89PNG\r\n\x1a\nrest");
        let pdf = STANDARD.encode(b"%PDF-1.7");
        let outcome = shown(json!({"content": [
            {"type": "text", "text": "one"},
            {"type": "text", "text": "two"},
            {"type": "image", "data": png, "mimeType": "image/jpeg"},
            {"type": "image", "data": "!", "mimeType": "image/png"},
            {"type": "audio", "data": "AA==", "mimeType": "audio/wav"},
            {"type": "resource", "resource": {"uri": "file:///a", "text": "inside"}},
            {"type": "resource", "resource": {"uri": "file:///b", "blob": pdf}},
            {"type": "resource", "resource": {"uri": "file:///c", "blob": "AAAA"}},
            {"type": "resource_link", "uri": "file:///d", "name": "d", "description": "more"},
        ], "structuredContent": {"not": "shown"}, "isError": true}));
        assert!(outcome.is_error);
        let [
            ContentBlock::Text { text: first },
            ContentBlock::Image {
                source: Source::Base64 { media_type, data },
            },
            ContentBlock::Text { text: second },
            ContentBlock::Document { .. },
            ContentBlock::Text { text: third },
        ] = outcome.content.as_slice()
        else {
            panic!("{:?}", outcome.content)
        };
        assert_eq!(
            (first.as_str(), media_type.as_str(), data),
            ("one\ntwo", "image/png", &png)
        );
        assert_eq!(
            second,
            "[An image is of a kind that can't be shown.]\n[Audio (audio/wav) can't be shown.]\n\
             Resource file:///a:\ninside"
        );
        assert_eq!(
            third,
            "[The resource file:///c is of a kind that can't be shown.]\nResource file:///d (d): more"
        );
    }

    #[test]
    fn structured_content_and_nothing_at_all() {
        let structured = shown(json!({"content": [], "structuredContent": {"a": 1}}));
        assert_eq!(structured, Outcome::text(r#"{"a":1}"#));
        assert_eq!(
            shown(json!({"content": []})),
            Outcome::text("The tool gave no content.")
        );
    }

    #[test]
    fn files_are_bounded() {
        let png = STANDARD.encode(b"\x89PNG\r\n\x1a\nrest");
        let image = json!({"type": "image", "data": png, "mimeType": "image/png"});
        let many = shown(json!({"content": vec![image; MAX_FILES + 1]}));
        assert_eq!(many.content.len(), MAX_FILES + 1);
        assert!(
            matches!(many.content.last(), Some(ContentBlock::Text { text }) if text.contains("too large"))
        );
    }
}
