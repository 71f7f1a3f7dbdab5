//! Makes a valid conversation of any sequence of messages.
//!
//! Providers refuse a whole request for one detail: two messages of the same role, a tool use without its
//! result, an empty text, a thought that another provider signed. The history of a long session contains all
//! of these at some time (an interrupted turn, a compaction, a change of model), so each adapter builds its
//! request from the turns that [`normalise`] returns.
//!
//! Invariant: turns alternate, begin and end with the user, and none is empty.
//! Invariant: each tool use has exactly one result, at the start of the turn directly after it, in order.
//! Invariant: call ids are unique in the conversation and of the form that the provider accepts. They are
//! derived from the history alone, so the same history gives the same request and prompt caches hit.

use std::borrow::Cow;
use std::collections::HashSet;

use oma_domain::ContentBlock;
use oma_domain::event::Opaque;
use serde_json::{Map, Value, json};

use crate::request::{AssistantBlock, Message, ToolSpec, UserBlock};

/// The key under which opaque data names the provider that made it.
const MAKER: &str = "provider";

/// What the model is told of a tool use whose result is not in the history.
const NO_RESULT: &str =
    "The result of this tool use is not known: it was interrupted, and may or may not have run.";

/// The user's part where the history has none in a place that needs one.
const CONTINUE: &str = "Continue.";

/// Which call ids a provider accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallIds {
    /// Letters, digits, `_` and `-`, at most 64 (Anthropic's and Bedrock's rule; it fits all others but one).
    Plain,
    /// Exactly nine letters and digits (Mistral's rule).
    Nine,
}

/// What differs between providers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules<'r> {
    /// The wire protocol, as in [`Opaque::protocol`].
    pub(crate) protocol: &'static str,
    /// The provider's name.
    pub(crate) provider: &'r str,
    /// Its call ids.
    pub(crate) call_ids: CallIds,
}

impl Rules<'_> {
    /// The opaque data, when this provider made it.
    pub(crate) fn own<'a>(&self, opaque: Option<&'a Opaque>) -> Option<&'a Value> {
        opaque
            .filter(|it| it.protocol == self.protocol && it.data[MAKER] == self.provider)
            .map(|it| &it.data)
    }

    /// Opaque data that this provider made.
    pub(crate) fn opaque(&self, mut data: Map<String, Value>) -> Opaque {
        data.insert(MAKER.to_owned(), self.provider.into());
        Opaque {
            protocol: self.protocol.to_owned(),
            data: Value::Object(data),
        }
    }
}

/// A part of a conversation that belongs to one side.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Turn<'a> {
    /// The user's: results of tools first, then content.
    User(Vec<Cow<'a, UserBlock>>),
    /// The model's.
    Assistant(Vec<Cow<'a, AssistantBlock>>),
}

/// Makes a valid conversation of the messages.
pub(crate) fn normalise<'a>(messages: &'a [Message], rules: &Rules<'_>) -> Vec<Turn<'a>> {
    let mut turns = merged(messages.iter().map(|message| cleaned(message, rules)));
    for turn in &mut turns {
        if let Turn::Assistant(blocks) = turn {
            // A message can't end with a thought: it is a rest of an answer that never came.
            while blocks
                .last()
                .is_some_and(|block| matches!(**block, AssistantBlock::Thinking { .. }))
            {
                blocks.pop();
            }
        }
    }
    let mut turns = paired(merged(turns), rules.call_ids);
    if !matches!(turns.first(), Some(Turn::User(_))) {
        turns.insert(0, Turn::User(vec![text(CONTINUE)]));
    }
    if !matches!(turns.last(), Some(Turn::User(_))) {
        turns.push(Turn::User(vec![text(CONTINUE)]));
    }
    turns
}

/// The tools of a request. Where it has none but its history uses some (a summary is asked for that way),
/// bare definitions of those: Anthropic's API and Bedrock refuse tool uses without any definition.
pub(crate) fn tools<'a>(tools: &'a [ToolSpec], turns: &[Turn<'_>]) -> Cow<'a, [ToolSpec]> {
    if !tools.is_empty() {
        return Cow::Borrowed(tools);
    }
    let mut bare: Vec<ToolSpec> = Vec::new();
    for turn in turns {
        let Turn::Assistant(blocks) = turn else { continue };
        for block in blocks {
            if let AssistantBlock::ToolUse { name, .. } = &**block
                && bare.iter().all(|tool| tool.name != *name)
            {
                let (description, input_schema) =
                    ("Not available now.".to_owned(), json!({"type": "object"}));
                bare.push(ToolSpec {
                    name: name.clone(),
                    description,
                    input_schema,
                });
            }
        }
    }
    Cow::Owned(bare)
}

/// The turns at whose end a prompt cache is marked: the user's last one, and the one before, where the mark of
/// the previous request stood.
pub(crate) fn cached_turns(turns: &[Turn<'_>]) -> Vec<usize> {
    let is_user = |at: &usize| matches!(turns[*at], Turn::User(_));
    (0..turns.len()).rev().filter(is_user).take(2).collect()
}

/// Whether providers would call this text empty.
pub(crate) fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

fn text(text: impl Into<String>) -> Cow<'static, UserBlock> {
    Cow::Owned(UserBlock::Content(ContentBlock::text(text)))
}

fn cleaned<'a>(message: &'a Message, rules: &Rules<'_>) -> Turn<'a> {
    match message {
        Message::User(blocks) => Turn::User(
            blocks
                .iter()
                .filter(|block| match block {
                    UserBlock::Content(ContentBlock::Text { text }) => !is_blank(text),
                    _ => true,
                })
                .map(Cow::Borrowed)
                .collect(),
        ),
        Message::Assistant(blocks) => Turn::Assistant(
            blocks
                .iter()
                .filter(|block| match block {
                    AssistantBlock::Text { text, .. } => !is_blank(text),
                    AssistantBlock::Thinking { opaque, .. } => rules.own(opaque.as_ref()).is_some(),
                    AssistantBlock::ToolUse { .. } => true,
                })
                .map(Cow::Borrowed)
                .collect(),
        ),
    }
}

fn merged<'a>(turns: impl IntoIterator<Item = Turn<'a>>) -> Vec<Turn<'a>> {
    let mut all: Vec<Turn<'a>> = Vec::new();
    for turn in turns {
        match (all.last_mut(), turn) {
            (_, Turn::User(blocks)) if blocks.is_empty() => {}
            (_, Turn::Assistant(blocks)) if blocks.is_empty() => {}
            (Some(Turn::User(last)), Turn::User(blocks)) => last.extend(blocks),
            (Some(Turn::Assistant(last)), Turn::Assistant(blocks)) => last.extend(blocks),
            (_, turn) => all.push(turn),
        }
    }
    all
}

/// A tool use that waits for its result.
struct Call {
    /// Its id in the history.
    original: String,
    /// Its id in the request.
    id: String,
    name: String,
}

fn paired(turns: Vec<Turn<'_>>, call_ids: CallIds) -> Vec<Turn<'_>> {
    let mut all = Vec::with_capacity(turns.len() + 1);
    let mut taken = HashSet::new();
    let mut open: Vec<Call> = Vec::new();
    for turn in turns {
        match turn {
            Turn::Assistant(blocks) => {
                let blocks = blocks
                    .into_iter()
                    .map(|block| renamed(block, call_ids, &mut taken, &mut open));
                all.push(Turn::Assistant(blocks.collect()));
            }
            Turn::User(blocks) => all.push(Turn::User(answered(blocks, std::mem::take(&mut open)))),
        }
    }
    if !open.is_empty() {
        all.push(Turn::User(answered(Vec::new(), open)));
    }
    all
}

/// Gives a tool use an id that the provider accepts and notes that it is open.
fn renamed<'a>(
    mut block: Cow<'a, AssistantBlock>,
    call_ids: CallIds,
    taken: &mut HashSet<String>,
    open: &mut Vec<Call>,
) -> Cow<'a, AssistantBlock> {
    let AssistantBlock::ToolUse { call_id, name, .. } = &*block else {
        return block;
    };
    let (original, name) = (call_id.clone(), name.clone());
    let mut attempt = 0;
    let id = loop {
        let candidate = accepted_id(&original, attempt, call_ids);
        if taken.insert(candidate.clone()) {
            break candidate;
        }
        attempt += 1;
    };
    if id != original
        && let AssistantBlock::ToolUse { call_id, .. } = block.to_mut()
    {
        call_id.clone_from(&id);
    }
    open.push(Call { original, id, name });
    block
}

/// Puts one result for each open tool use first, then everything else.
fn answered(blocks: Vec<Cow<'_, UserBlock>>, open: Vec<Call>) -> Vec<Cow<'_, UserBlock>> {
    let (mut results, rest): (Vec<_>, Vec<_>) = blocks
        .into_iter()
        .partition(|block| matches!(**block, UserBlock::ToolResult { .. }));
    let mut all = Vec::with_capacity(open.len() + rest.len());
    for call in open {
        let at = results.iter().position(
            |block| matches!(&**block, UserBlock::ToolResult { call_id, .. } if *call_id == call.original),
        );
        let Some(at) = at else {
            all.push(Cow::Owned(UserBlock::ToolResult {
                call_id: call.id,
                name: call.name,
                content: vec![ContentBlock::text(NO_RESULT)],
                is_error: true,
            }));
            continue;
        };
        let mut result = results.remove(at);
        if call.id != call.original
            && let UserBlock::ToolResult { call_id, .. } = result.to_mut()
        {
            *call_id = call.id;
        }
        all.push(result);
    }
    // What answers no tool use here is kept as plain content: its text may still matter.
    for orphan in results {
        if let UserBlock::ToolResult { name, content, .. } = orphan.into_owned() {
            all.push(text(format!("Result of an earlier use of the tool {name}:")));
            let readable = content
                .into_iter()
                .filter(|it| !matches!(it, ContentBlock::Text { text } if is_blank(text)));
            all.extend(readable.map(|content| Cow::Owned(UserBlock::Content(content))));
        }
    }
    all.extend(rest);
    all
}

/// A call id as the provider accepts it; a higher attempt gives another one.
fn accepted_id(id: &str, attempt: u32, call_ids: CallIds) -> String {
    match call_ids {
        CallIds::Plain => {
            let allowed = |ch: char| ch.is_ascii_alphanumeric() || ch == '_' || ch == '-';
            let mut plain: String = id.chars().map(|ch| if allowed(ch) { ch } else { '_' }).collect();
            if plain.is_empty() {
                plain.push_str("call");
            }
            let suffix = if attempt == 0 {
                String::new()
            } else {
                format!("_{attempt}")
            };
            plain.truncate(64 - suffix.len());
            plain + &suffix
        }
        CallIds::Nine
            if attempt == 0 && id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) =>
        {
            id.to_owned()
        }
        CallIds::Nine => {
            const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
            // FNV-1a: stable over releases and platforms, which std's hasher does not promise.
            let bytes = id.bytes().chain(attempt.to_le_bytes());
            let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
            let mut short = String::with_capacity(9);
            for _ in 0..9 {
                short.push(char::from(DIGITS[usize::try_from(hash % 62).unwrap_or_default()]));
                hash /= 62;
            }
            short
        }
    }
}

#[cfg(test)]
#[path = "conversation_tests.rs"]
mod tests;
