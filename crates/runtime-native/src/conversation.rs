//! The model's view of a session, folded from its log.

use std::collections::HashMap;

use oma_domain::content::joined_text;
use oma_domain::event::Body;
use oma_domain::{ContentBlock, Event, EventId, Seq};
use oma_models::{AssistantBlock, Message, UserBlock};
use oma_runtime::{Port, PortError};

/// How many events one read brings.
const PAGE: u32 = 500;
/// Texts longer than this are cut when the context has to shrink, in bytes.
const SHRUNK_TEXT: usize = 2_000;
/// Roughly how many characters make a token.
const CHARS_PER_TOKEN: u64 = 4;
/// What an image or a document is taken to weigh, in tokens.
const MEDIA_TOKENS: u64 = 1_600;

/// The messages that the next request carries.
#[derive(Default)]
pub(crate) struct Conversation {
    messages: Vec<Message>,
    /// The last event that is folded in.
    seen: Seq,
    /// The request that the last assistant message came from.
    request: Option<EventId>,
    /// The provider's ids of the tool uses, which their results go by.
    calls: HashMap<EventId, String>,
    /// The newest user message, kept word for word over a compaction in mid-turn.
    last_user: Option<Vec<ContentBlock>>,
    /// Characters and media added since the model last counted the tokens.
    uncounted: u64,
}

impl Conversation {
    /// An empty conversation that begins after the newest summary's coverage.
    pub(crate) fn after(compacted_through: Seq) -> Self {
        Self {
            seen: compacted_through,
            ..Self::default()
        }
    }

    pub(crate) fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Reads what has been committed up to `head` and is not folded in yet.
    pub(crate) async fn catch_up(&mut self, port: &dyn Port, head: Seq) -> Result<(), PortError> {
        while self.seen < head {
            let events = port.history(self.seen, PAGE).await?;
            if events.is_empty() {
                return Err(PortError::Gone("the log is shorter than its head".into()));
            }
            events.iter().for_each(|event| self.absorb(event));
        }
        Ok(())
    }

    /// Folds events in that a commit has just returned; a gap before them is left to [`Self::catch_up`].
    pub(crate) fn extend(&mut self, events: &[Event]) {
        for event in events {
            if event.seq == self.seen.next() {
                self.absorb(event);
            }
        }
    }

    fn absorb(&mut self, event: &Event) {
        self.seen = event.seq;
        match &*event.body {
            Body::UserMessage { content } => {
                self.weigh(content);
                self.last_user = Some(content.clone());
                self.user(content.iter().cloned().map(UserBlock::Content));
            }
            Body::AgentMessage {
                request,
                content,
                opaque,
                ..
            } => {
                let text = joined_text(content);
                self.assistant(
                    request,
                    AssistantBlock::Text {
                        text,
                        opaque: opaque.clone(),
                    },
                );
            }
            Body::AgentThinking {
                request,
                text,
                opaque,
            } => {
                let (text, opaque) = (text.clone(), opaque.clone());
                self.assistant(request, AssistantBlock::Thinking { text, opaque });
            }
            Body::AgentToolUse {
                request,
                name,
                input,
                call_id,
                opaque,
                ..
            } => {
                self.calls.insert(event.id.clone(), call_id.clone());
                self.uncounted += input.to_string().len() as u64;
                let block = AssistantBlock::ToolUse {
                    call_id: call_id.clone(),
                    name: name.clone(),
                    input: input.clone(),
                    opaque: opaque.clone(),
                };
                self.assistant(request, block);
            }
            Body::AgentToolResult {
                tool_use,
                name,
                content,
                is_error,
            } => {
                self.weigh(content);
                let Some(call_id) = self.calls.remove(tool_use) else {
                    // Its use is covered by a summary, and so is this.
                    return;
                };
                let (name, content, is_error) = (name.clone(), content.clone(), *is_error);
                self.user([UserBlock::ToolResult {
                    call_id,
                    name,
                    content,
                    is_error,
                }]);
            }
            Body::Compaction { summary, .. } => {
                self.messages.clear();
                self.calls.clear();
                self.request = None;
                self.uncounted = summary.len() as u64;
                let text = format!("This is a summary of the conversation so far:\n\n{summary}");
                self.user([UserBlock::Content(ContentBlock::text(text))]);
            }
            // The provider has counted everything up to its answer, if it counts at all.
            Body::ModelRequestEnd {
                is_error: false,
                usage,
                ..
            } if usage.total() > 0 => self.uncounted = 0,
            Body::UserInterrupt { .. }
            | Body::UserToolConfirmation { .. }
            | Body::StatusRunning
            | Body::StatusIdle { .. }
            | Body::Error { .. }
            | Body::ModelChange { .. }
            | Body::ThinkingLevelChange { .. }
            | Body::ModelRequestStart { .. }
            | Body::ModelRequestEnd { .. } => {}
        }
    }

    fn user(&mut self, blocks: impl IntoIterator<Item = UserBlock>) {
        self.request = None;
        match self.messages.last_mut() {
            Some(Message::User(last)) => last.extend(blocks),
            _ => self.messages.push(Message::User(blocks.into_iter().collect())),
        }
    }

    fn assistant(&mut self, request: &EventId, block: AssistantBlock) {
        if self.request.as_ref() == Some(request)
            && let Some(Message::Assistant(last)) = self.messages.last_mut()
        {
            last.push(block);
            return;
        }
        self.request = Some(request.clone());
        self.messages.push(Message::Assistant(vec![block]));
    }

    fn weigh(&mut self, content: &[ContentBlock]) {
        for block in content {
            self.uncounted += match block {
                ContentBlock::Text { text } => text.len() as u64,
                ContentBlock::Image { .. } | ContentBlock::Document { .. } => MEDIA_TOKENS * CHARS_PER_TOKEN,
            };
        }
    }

    /// About how many tokens were added since the model last counted them.
    pub(crate) fn uncounted_tokens(&self) -> u64 {
        self.uncounted / CHARS_PER_TOKEN
    }

    /// The newest user message's text, to be kept through a compaction.
    pub(crate) fn last_user_text(&self) -> Option<String> {
        self.last_user
            .as_ref()
            .map(|content| joined_text(content))
            .filter(|text| !text.is_empty())
    }

    /// The messages, made smaller step by step for when the request for a summary is too long itself: first
    /// without media, thoughts and long texts, then without the older half, and so on.
    pub(crate) fn reduced(&self, step: u32) -> Vec<Message> {
        if step == 0 {
            return self.messages.clone();
        }
        let kept = self.messages.len() >> (step - 1).min(31);
        let recent = &self.messages[self.messages.len() - kept.max(1)..];
        // A result whose use is left out means nothing to a provider.
        let begins = |message: &Message| match message {
            Message::User(blocks) => blocks.iter().all(|block| matches!(block, UserBlock::Content(_))),
            Message::Assistant(_) => false,
        };
        let start = if step == 1 {
            Some(0)
        } else {
            recent.iter().position(begins)
        };
        match start {
            Some(start) => recent[start..].iter().map(shrunk).collect(),
            None => {
                let text = self.last_user_text().unwrap_or_default();
                vec![Message::User(vec![UserBlock::Content(short_text(&text))])]
            }
        }
    }

    /// Whether there is anything to summarise.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

/// A message without media, thoughts and long texts.
fn shrunk(message: &Message) -> Message {
    let user = |block: &UserBlock| match block {
        UserBlock::Content(content) => UserBlock::Content(short(content)),
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
            ContentBlock::Image { .. } | ContentBlock::Document { .. } => None,
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

fn short(block: &ContentBlock) -> ContentBlock {
    match block {
        ContentBlock::Text { text } => short_text(text),
        ContentBlock::Image { .. } => ContentBlock::text("[an image was left out]"),
        ContentBlock::Document { .. } => ContentBlock::text("[a document was left out]"),
    }
}

fn short_text(text: &str) -> ContentBlock {
    if text.len() <= SHRUNK_TEXT {
        return ContentBlock::text(text);
    }
    let kept: String = text.chars().take(SHRUNK_TEXT / 2).collect();
    ContentBlock::text(format!("{kept}\n[the rest was left out]"))
}

#[cfg(test)]
#[path = "conversation_tests.rs"]
mod tests;
