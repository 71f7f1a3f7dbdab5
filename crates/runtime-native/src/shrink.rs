//! Making messages smaller, where the whole history does not fit any more.

use oma_domain::ContentBlock;
use oma_models::{AssistantBlock, Message, UserBlock};

/// Texts longer than this are cut, in bytes.
const SHRUNK_TEXT: usize = 2_000;

/// A message without media, thoughts and long texts.
pub(crate) fn shrunk(message: &Message) -> Message {
    let user = |block: &UserBlock| match block {
        UserBlock::Content(content) => UserBlock::Content(short(content)),
        UserBlock::System(text) => UserBlock::System(text.clone()),
        UserBlock::ToolResult {
            call_id,
            name,
            content,
            is_error,
        } => UserBlock::ToolResult {
            call_id: call_id.clone(),
            name: name.clone(),
            content: content.iter().map(short).collect(),
            is_error: *is_error,
        },
    };
    let assistant = |block: &AssistantBlock| match block {
        AssistantBlock::Thinking { .. } => None,
        AssistantBlock::Text { text, .. } => match short_text(text) {
            ContentBlock::Text { text } => Some(AssistantBlock::Text { text, opaque: None }),
            ContentBlock::Image { .. }
            | ContentBlock::Document { .. }
            | ContentBlock::SearchResult { .. } => None,
        },
        AssistantBlock::ToolUse {
            call_id,
            name,
            input,
            opaque,
        } => {
            let whole = input.to_string();
            let input = if whole.len() > SHRUNK_TEXT {
                let kept: String = whole.chars().take(SHRUNK_TEXT / 2).collect();
                serde_json::json!({ "shortened": kept })
            } else {
                input.clone()
            };
            let (call_id, name, opaque) = (call_id.clone(), name.clone(), opaque.clone());
            Some(AssistantBlock::ToolUse {
                call_id,
                name,
                input,
                opaque,
            })
        }
    };
    match message {
        Message::User(blocks) => Message::User(blocks.iter().map(user).collect()),
        Message::Assistant(blocks) => Message::Assistant(blocks.iter().filter_map(assistant).collect()),
    }
}

/// Where a text is to be cut so that its start and its end have so many bytes together, and no character is cut in
/// two.
pub(crate) fn ends(text: &str, bytes: usize) -> (usize, usize) {
    let half = bytes.min(text.len()) / 2;
    let head = text.floor_char_boundary(half);
    let tail = text.len() - text.ceil_char_boundary(text.len() - half);
    (head, tail)
}

/// A text without its middle, and a word in its place. Parts that are not there are shown as nothing.
pub(crate) fn without_middle(text: &str, head: usize, tail: usize) -> ContentBlock {
    let start = text.get(..head).unwrap_or_default();
    let end = text.len().checked_sub(tail).and_then(|from| text.get(from..));
    let end = end.unwrap_or_default();
    let left_out = text.len().saturating_sub(start.len() + end.len());
    ContentBlock::text(format!(
        "{start}\n[{left_out} bytes of this text are left out here]\n{end}"
    ))
}

/// The start of a long text; a word for what is no text.
pub(crate) fn short(block: &ContentBlock) -> ContentBlock {
    match block {
        ContentBlock::Text { text } => short_text(text),
        ContentBlock::Image { .. } => ContentBlock::text("[an image was left out]"),
        ContentBlock::Document { .. } => ContentBlock::text("[a document was left out]"),
        ContentBlock::SearchResult { .. } => short_text(&block.as_text().unwrap_or_default()),
    }
}

/// The start of a long text.
pub(crate) fn short_text(text: &str) -> ContentBlock {
    if text.len() <= SHRUNK_TEXT {
        return ContentBlock::text(text);
    }
    let kept: String = text.chars().take(SHRUNK_TEXT / 2).collect();
    ContentBlock::text(format!("{kept}\n[the rest was left out]"))
}
