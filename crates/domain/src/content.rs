//! Content blocks of messages and tool results.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// A piece of a message or of a tool result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ContentBlock {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// A picture.
    Image {
        /// Where it comes from.
        source: Source,
    },
    /// A document, for example a PDF.
    Document {
        /// Where it comes from.
        source: Source,
        /// A title for the model.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        title: Option<String>,
        /// What the model should know about it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        context: Option<String>,
    },
    /// What a search found (results of tools only).
    SearchResult {
        /// Where it was found.
        source: String,
        /// Its title.
        title: String,
        /// Its texts.
        content: Vec<String>,
        /// Whether the model may cite it.
        #[serde(default)]
        citations: bool,
    },
}

/// Where an image's or a document's bytes come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Source {
    /// The bytes themselves.
    Base64 {
        /// MIME type.
        media_type: String,
        /// Standard base64.
        data: String,
    },
    /// Plain text (documents only).
    Text {
        /// The text.
        data: String,
    },
    /// An address that the provider fetches.
    Url {
        /// The address.
        url: String,
    },
}

impl ContentBlock {
    /// What it says, if it is nothing but text.
    #[must_use]
    pub fn as_text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text { text } => Some(Cow::Borrowed(text)),
            Self::SearchResult {
                source,
                title,
                content,
                ..
            } => Some(Cow::Owned(format!("{title}\n{source}\n{}", content.join("\n")))),
            Self::Image { .. } | Self::Document { .. } => None,
        }
    }

    /// About how many bytes it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text { text } => text.len(),
            Self::SearchResult {
                source,
                title,
                content,
                ..
            } => source.len() + title.len() + content.iter().map(String::len).sum::<usize>(),
            Self::Image { source } | Self::Document { source, .. } => match source {
                Source::Base64 { data, .. } | Source::Text { data } => data.len(),
                Source::Url { url } => url.len(),
            },
        }
    }

    /// A text block.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }
}

/// The text of all text blocks, joined by line breaks.
#[must_use]
pub fn joined_text(blocks: &[ContentBlock]) -> String {
    let mut all = String::new();
    for block in blocks {
        if let Some(text) = block.as_text() {
            if !all.is_empty() {
                all.push('\n');
            }
            all.push_str(&text);
        }
    }
    all
}
