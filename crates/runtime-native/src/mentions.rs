//! Where an address was mentioned: an agent may be limited to fetch only what somebody named before.

use oma_domain::ContentBlock;
use oma_domain::content::Source;
use oma_domain::web::{Sources, ToolFilter, mentions};
use oma_models::{Message, UserBlock};

use crate::conversation::Conversation;

impl Conversation {
    /// Whether an address was mentioned by the user or in a tool's result, as far as these `sources` count. What a
    /// summary says is the model's own word, and counts for nothing.
    pub(crate) fn mentions(&self, url: &str, sources: &Sources, is_custom: impl Fn(&str) -> bool) -> bool {
        let counts =
            |filter: &Option<ToolFilter>, tool: &str| filter.as_ref().is_none_or(|filter| filter.has(tool));
        let names_it = |block: &ContentBlock| match block {
            ContentBlock::Document {
                source: Source::Text { data },
                ..
            } => mentions(data, url),
            ContentBlock::Document {
                source: Source::Url { url: source },
                ..
            }
            | ContentBlock::Image {
                source: Source::Url { url: source },
            } => mentions(source, url),
            block => block.as_text().is_some_and(|text| mentions(&text, url)),
        };
        self.heard().iter().any(|message| {
            let Message::User(blocks) = message else {
                return false;
            };
            blocks.iter().any(|block| match block {
                UserBlock::Content(content) => counts(&sources.user_input, "") && names_it(content),
                UserBlock::System(text) => mentions(text, url),
                UserBlock::ToolResult { name, content, .. } => {
                    let filter = if is_custom(name) {
                        &sources.client_tool_results
                    } else {
                        &sources.server_tool_results
                    };
                    counts(filter, name) && content.iter().any(names_it)
                }
            })
        })
    }
}
