//! A request in the Messages form.
//!
//! Cache marks: one at the end of the system prompt (which covers the tools before it), one at the end of the
//! last message, one at the end of the user message before that. The last two move along with the
//! conversation; the older one is where the previous request's mark stood, so its entry is found even when a
//! turn has added more blocks than the API looks back over.

use oma_domain::ContentBlock;
use oma_domain::content::Source;
use oma_domain::thinking::ThinkingLevel;
use serde_json::{Map, Value, json};

use crate::capability::{self, ClaudeOff, ClaudeThinking};
use crate::conversation::{self, Rules, Turn, is_blank};
use crate::media;
use crate::registry::Target;
use crate::request::{AssistantBlock, Request, ToolChoice, ToolSpec, UserBlock};

/// The least budget that the API takes, and what is left for the answer itself.
const LEAST_BUDGET: u32 = 1_024;

pub(super) struct Built {
    pub(super) body: Value,
    /// Whether the beta header for thoughts between tool uses is needed.
    pub(super) interleaved: bool,
}

pub(super) fn build(target: &Target, request: &Request) -> Built {
    let rules = target.rules();
    let turns = conversation::normalise(&request.messages, &rules);
    let default_max = capability::claude(&target.model).max_output;
    let max_tokens = request
        .max_tokens
        .or(target.max_output_tokens)
        .unwrap_or(default_max);

    let mut body = Map::new();
    body.insert("model".to_owned(), target.model.clone().into());
    body.insert("max_tokens".to_owned(), max_tokens.into());
    body.insert("stream".to_owned(), true.into());
    let specs = conversation::tools(&request.tools, &turns);
    let mut tools: Vec<Value> = specs.iter().map(tool).collect();
    if !is_blank(&request.system) {
        body.insert(
            "system".to_owned(),
            json!([marked(json!({"type": "text", "text": request.system}))]),
        );
    } else if let Some(last) = tools.pop() {
        tools.push(marked(last));
    }
    if !tools.is_empty() {
        body.insert("tools".to_owned(), tools.into());
        // Without tools of its own, the request has them only because the history uses them. Otherwise this is
        // the last resort: the API caches messages by this parameter, too.
        if request.tools.is_empty() || request.tool_choice == ToolChoice::None {
            body.insert("tool_choice".to_owned(), json!({"type": "none"}));
        }
    }
    body.insert("messages".to_owned(), messages(&turns, &rules).into());

    let (fields, interleaved) = thinking(&target.model, request, max_tokens, &turns);
    body.extend(fields);
    Built {
        body: body.into(),
        interleaved,
    }
}

/// The fields that say how hard to think, and whether the beta for thoughts between tool uses is needed.
pub(crate) fn thinking(
    model: &str,
    request: &Request,
    max_tokens: u32,
    turns: &[Turn<'_>],
) -> (Map<String, Value>, bool) {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| {
        fields.insert(name.to_owned(), value);
    };
    let mut interleaved = false;
    match (capability::claude(model).thinking, request.thinking) {
        (ClaudeThinking::None, _) | (ClaudeThinking::Budget { .. }, ThinkingLevel::Off) => {}
        (
            ClaudeThinking::Budget {
                interleaved: knows_interleaved,
            },
            level,
        ) => {
            let budget = budget(level).min(max_tokens.saturating_sub(LEAST_BUDGET));
            if budget >= LEAST_BUDGET && may_think(turns) {
                set("thinking", json!({"type": "enabled", "budget_tokens": budget}));
                interleaved = knows_interleaved && !request.tools.is_empty();
            }
        }
        (ClaudeThinking::Adaptive { off, .. }, ThinkingLevel::Off) => match off {
            ClaudeOff::Omit => {}
            ClaudeOff::Disabled => set("thinking", json!({"type": "disabled"})),
            ClaudeOff::Never => set("output_config", json!({"effort": "low"})),
        },
        (ClaudeThinking::Adaptive { xhigh, .. }, level) => {
            // The newer models show nothing of their thoughts unless they are told to.
            set("thinking", json!({"type": "adaptive", "display": "summarized"}));
            let effort = match level {
                ThinkingLevel::Xhigh if !xhigh => "max",
                other => other.as_str(),
            };
            set("output_config", json!({"effort": effort}));
        }
    }
    (fields, interleaved)
}

/// The tokens that a level may spend on thoughts, for models that take a budget.
pub(crate) fn budget(level: ThinkingLevel) -> u32 {
    match level {
        ThinkingLevel::Off => 0,
        ThinkingLevel::Low => 4_096,
        ThinkingLevel::Medium => 10_240,
        ThinkingLevel::High => 20_480,
        ThinkingLevel::Xhigh => 32_000,
    }
}

/// With a budget, the API wants the message of a tool loop that is under way to begin with a thought. One that
/// began without (thinking was off then, or another model wrote it) has to be finished without.
fn may_think(turns: &[Turn<'_>]) -> bool {
    let last = turns.iter().rev().find_map(|turn| match turn {
        Turn::Assistant(blocks) => Some(blocks),
        Turn::User(_) => None,
    });
    last.is_none_or(|blocks| {
        let uses_tools = blocks
            .iter()
            .any(|block| matches!(**block, AssistantBlock::ToolUse { .. }));
        !uses_tools
            || blocks
                .first()
                .is_some_and(|block| matches!(**block, AssistantBlock::Thinking { .. }))
    })
}

fn tool(tool: &ToolSpec) -> Value {
    let mut value = json!({"name": tool.name, "input_schema": media::object_schema(&tool.input_schema)});
    if !is_blank(&tool.description) {
        value["description"] = tool.description.clone().into();
    }
    value
}

fn marked(mut block: Value) -> Value {
    block["cache_control"] = json!({"type": "ephemeral"});
    block
}

fn messages(turns: &[Turn<'_>], rules: &Rules<'_>) -> Vec<Value> {
    let marks = conversation::cached_turns(turns);
    let message = |(at, turn): (usize, &Turn<'_>)| {
        let (role, mut content): (_, Vec<Value>) = match turn {
            Turn::User(blocks) => ("user", blocks.iter().map(|block| user_block(block)).collect()),
            Turn::Assistant(blocks) => (
                "assistant",
                blocks
                    .iter()
                    .filter_map(|block| assistant_block(block, rules))
                    .collect(),
            ),
        };
        if marks.contains(&at)
            && let Some(last) = content.pop()
        {
            content.push(marked(last));
        }
        json!({"role": role, "content": content})
    };
    turns.iter().enumerate().map(message).collect()
}

fn user_block(block: &UserBlock) -> Value {
    match block {
        UserBlock::Content(content) => content_block(content),
        UserBlock::System(text) => json!({"type": "text", "text": media::system_text(text)}),
        UserBlock::ToolResult {
            call_id,
            content,
            is_error,
            ..
        } => {
            let content: Vec<Value> = media::readable(content).map(content_block).collect();
            let mut value = json!({"type": "tool_result", "tool_use_id": call_id});
            if !content.is_empty() {
                value["content"] = content.into();
            }
            if *is_error {
                value["is_error"] = true.into();
            }
            value
        }
    }
}

fn content_block(block: &ContentBlock) -> Value {
    match block {
        ContentBlock::Text { text } => json!({"type": "text", "text": text}),
        ContentBlock::SearchResult {
            source,
            title,
            content,
            citations,
        } => {
            let mut texts = content.iter().chain([source, title]);
            if content.is_empty() || texts.any(|text| is_blank(text)) {
                return json!({"type": "text", "text": media::as_text(block)});
            }
            let content: Vec<Value> = content
                .iter()
                .map(|text| json!({"type": "text", "text": text}))
                .collect();
            json!({
                "type": "search_result",
                "source": source,
                "title": title,
                "content": content,
                "citations": {"enabled": citations},
            })
        }
        ContentBlock::Image {
            source: Source::Base64 { media_type, data },
        } => {
            json!({"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}})
        }
        ContentBlock::Image {
            source: Source::Url { url },
        } => {
            json!({"type": "image", "source": {"type": "url", "url": url}})
        }
        ContentBlock::Image {
            source: Source::Text { data },
        } => json!({"type": "text", "text": data}),
        ContentBlock::Document {
            source,
            title,
            context,
        } => {
            let source = match (media::document_text(source), source) {
                (Some(text), _) => json!({"type": "text", "media_type": "text/plain", "data": text}),
                (None, Source::Url { url }) => json!({"type": "url", "url": url}),
                (None, Source::Base64 { media_type, data }) => {
                    json!({"type": "base64", "media_type": media_type, "data": data})
                }
                (None, Source::Text { data }) => {
                    json!({"type": "text", "media_type": "text/plain", "data": data})
                }
            };
            let mut value = json!({"type": "document", "source": source});
            for (key, text) in [("title", title), ("context", context)] {
                if let Some(text) = text.as_deref().filter(|text| !is_blank(text)) {
                    value[key] = text.into();
                }
            }
            value
        }
    }
}

fn assistant_block(block: &AssistantBlock, rules: &Rules<'_>) -> Option<Value> {
    match block {
        AssistantBlock::Text { text, .. } => Some(json!({"type": "text", "text": text})),
        AssistantBlock::ToolUse {
            call_id, name, input, ..
        } => Some(json!({"type": "tool_use", "id": call_id, "name": name, "input": input})),
        AssistantBlock::Thinking { text, opaque } => {
            let own = rules.own(opaque.as_ref())?;
            match own["redacted"].as_str() {
                Some(data) => Some(json!({"type": "redacted_thinking", "data": data})),
                None => {
                    let signature = own["signature"].as_str()?;
                    Some(json!({"type": "thinking", "thinking": text, "signature": signature}))
                }
            }
        }
    }
}
