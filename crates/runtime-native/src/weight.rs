//! What the blocks of a conversation weigh: in tokens, before a model has counted them, and in memory.

use oma_domain::ContentBlock;
use oma_domain::content::Source;
use oma_domain::tokens::at_most;
use oma_models::{AssistantBlock, UserBlock};

/// Roughly how many characters make a token.
pub(crate) const CHARS_PER_TOKEN: u64 = 4;
/// What an image, or a page of a document, is taken to weigh, in tokens.
const MEDIA_TOKENS: u64 = 1_600;
/// Roughly how many bytes of a document, encoded, make a token.
const DOCUMENT_BYTES_PER_TOKEN: u64 = 16;
/// What a block takes besides its text, in bytes.
pub(crate) const BLOCK_BYTES: u64 = 200;

/// Whether it is an image or a document.
pub(crate) fn is_media(block: &ContentBlock) -> bool {
    matches!(block, ContentBlock::Image { .. } | ContentBlock::Document { .. })
}

/// About how many characters of text a block weighs as much as.
pub(crate) fn weight(block: &ContentBlock) -> u64 {
    let tokens = match block {
        ContentBlock::Text { text }
        | ContentBlock::Document {
            source: Source::Text { data: text },
            ..
        } => return text.len() as u64,
        ContentBlock::Document {
            source: Source::Base64 { data, .. },
            ..
        } => MEDIA_TOKENS.max(data.len() as u64 / DOCUMENT_BYTES_PER_TOKEN),
        ContentBlock::SearchResult { .. } => return block.bytes() as u64,
        ContentBlock::Image { .. } | ContentBlock::Document { .. } => MEDIA_TOKENS,
    };
    tokens * CHARS_PER_TOKEN
}

/// The most tokens that a block is reckoned to have.
pub(crate) fn most_tokens(block: &ContentBlock) -> u64 {
    match block {
        ContentBlock::Text { text }
        | ContentBlock::Document {
            source: Source::Text { data: text },
            ..
        } => at_most(text),
        ContentBlock::SearchResult { .. } => block.as_text().map_or(0, |text| at_most(&text)),
        // Providers reckon media by rates of their own.
        ContentBlock::Image { .. } | ContentBlock::Document { .. } => 2 * (weight(block) / CHARS_PER_TOKEN),
    }
}

/// About how much memory a block of the user takes, in bytes.
pub(crate) fn user_bytes(block: &UserBlock) -> u64 {
    match block {
        UserBlock::Content(content) => content_bytes(content),
        UserBlock::System(text) => BLOCK_BYTES + text.len() as u64,
        UserBlock::ToolResult { content, .. } => BLOCK_BYTES + content.iter().map(content_bytes).sum::<u64>(),
    }
}

/// The same for what a message says.
pub(crate) fn content_bytes(block: &ContentBlock) -> u64 {
    BLOCK_BYTES + block.bytes() as u64
}

/// The same for a block of the assistant.
pub(crate) fn assistant_bytes(block: &AssistantBlock) -> u64 {
    let (data, opaque) = match block {
        AssistantBlock::Text { text, opaque } | AssistantBlock::Thinking { text, opaque } => {
            (text.len(), opaque)
        }
        AssistantBlock::ToolUse { input, opaque, .. } => (input.to_string().len(), opaque),
    };
    let opaque = opaque.as_ref().map_or(0, |opaque| opaque.data.to_string().len());
    BLOCK_BYTES + (data + opaque) as u64
}
