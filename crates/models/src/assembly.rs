//! Puts an answer together from its pieces.
//!
//! Every adapter feeds the pieces that its protocol brings into an [`Assembly`], which gives them the indexes
//! of [`Chunk`] and bounds the answer's size.
//!
//! Arguments of a tool use that are not a JSON object are not thrown away with the whole answer: the tool use
//! keeps them as `{"invalid_json": "…"}`, so that the tool refuses them and the model sees why. Only a tool
//! use that the output limit cut off is left out, because it is not what the model meant to do.

use oma_domain::event::FailureKind;
use oma_domain::event::Opaque;
use oma_domain::session::ReplyStop;
use serde_json::{Value, json};

use crate::request::{AssistantBlock, Chunk};
use crate::sse::malformed;
use crate::{Error, conversation};

/// The largest answer, in bytes of text, thoughts and arguments together.
const MAX_ANSWER: usize = 32 * 1024 * 1024;

/// The most blocks of an answer.
const MAX_BLOCKS: usize = 4096;

enum Part {
    Text {
        text: String,
        opaque: Option<Opaque>,
    },
    Thinking {
        text: String,
        opaque: Option<Opaque>,
    },
    ToolUse {
        call_id: String,
        name: String,
        arguments: String,
        opaque: Option<Opaque>,
    },
}

/// An answer in the making.
#[derive(Default)]
pub(crate) struct Assembly {
    parts: Vec<Part>,
    bytes: usize,
    /// The next text belongs to a new block even if the last block is text.
    broken: bool,
}

impl Assembly {
    /// The next text or thought begins a new block.
    pub(crate) fn break_block(&mut self) {
        self.broken = true;
    }

    /// More text; a new block when the last one is of another kind. An empty piece begins none.
    pub(crate) fn text(&mut self, piece: &str, out: &mut Vec<Chunk>) -> Result<(), Error> {
        self.piece(piece, false, out)
    }

    /// More of a thought; a new block when the last one is of another kind.
    pub(crate) fn thinking(&mut self, piece: &str, out: &mut Vec<Chunk>) -> Result<(), Error> {
        self.piece(piece, true, out)
    }

    fn piece(&mut self, piece: &str, is_thought: bool, out: &mut Vec<Chunk>) -> Result<(), Error> {
        if piece.is_empty() {
            return Ok(());
        }
        self.count(piece.len())?;
        let (piece, opaque) = (piece.to_owned(), None);
        match self.parts.last_mut().filter(|_| !self.broken) {
            Some(Part::Text { text, .. }) if !is_thought => text.push_str(&piece),
            Some(Part::Thinking { text, .. }) if is_thought => text.push_str(&piece),
            _ => {
                let text = piece.clone();
                self.push(if is_thought {
                    Part::Thinking { text, opaque }
                } else {
                    Part::Text { text, opaque }
                })?;
            }
        }
        let (index, text) = (self.parts.len() - 1, piece);
        out.push(if is_thought {
            Chunk::Thinking { index, text }
        } else {
            Chunk::Text { index, text }
        });
        Ok(())
    }

    /// Begins a thought that may stay without text, because it only carries opaque data.
    pub(crate) fn begin_thinking(&mut self) -> Result<usize, Error> {
        self.push(Part::Thinking {
            text: String::new(),
            opaque: None,
        })?;
        Ok(self.parts.len() - 1)
    }

    /// Begins a tool use. A missing id gets one that is unique in the answer; the conversation's
    /// normalisation makes it unique in the history.
    pub(crate) fn begin_tool(
        &mut self,
        call_id: &str,
        name: &str,
        out: &mut Vec<Chunk>,
    ) -> Result<usize, Error> {
        if conversation::is_blank(name) {
            return Err(malformed("a tool use without a name"));
        }
        let index = self.parts.len();
        let call_id = if call_id.is_empty() {
            format!("call_{index}")
        } else {
            call_id.to_owned()
        };
        self.push(Part::ToolUse {
            call_id,
            name: name.to_owned(),
            arguments: String::new(),
            opaque: None,
        })?;
        out.push(Chunk::ToolUse {
            index,
            name: name.to_owned(),
        });
        Ok(index)
    }

    /// More of a tool use's arguments.
    pub(crate) fn arguments(&mut self, index: usize, piece: &str) -> Result<(), Error> {
        self.count(piece.len())?;
        match self.parts.get_mut(index) {
            Some(Part::ToolUse { arguments, .. }) => {
                arguments.push_str(piece);
                Ok(())
            }
            _ => Err(malformed("arguments without a tool use")),
        }
    }

    /// Whether a tool use's arguments are whole already.
    pub(crate) fn has_arguments(&self, index: usize) -> bool {
        matches!(self.parts.get(index), Some(Part::ToolUse { arguments, .. }) if !arguments.is_empty())
    }

    /// The block that was added last.
    pub(crate) fn last(&self) -> Option<usize> {
        self.parts.len().checked_sub(1)
    }

    /// The last block, when it is text.
    pub(crate) fn last_text(&self) -> Option<usize> {
        self.last()
            .filter(|at| matches!(self.parts[*at], Part::Text { .. }))
    }

    /// Whether nothing has arrived that a reader could see.
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Sets what the provider wants back with a block.
    pub(crate) fn set_opaque(&mut self, index: usize, value: Opaque) {
        if let Some(part) = self.parts.get_mut(index) {
            let (Part::Text { opaque, .. } | Part::Thinking { opaque, .. } | Part::ToolUse { opaque, .. }) =
                part;
            *opaque = Some(value);
        }
    }

    /// The thought at an index, for adapters that store it with its signature.
    pub(crate) fn thinking_indexes(&self) -> Vec<usize> {
        let is_thinking = |at: &usize| matches!(self.parts[*at], Part::Thinking { .. });
        (0..self.parts.len()).filter(is_thinking).collect()
    }

    /// The blocks of the whole answer.
    pub(crate) fn finish(self, stop: &ReplyStop) -> Vec<AssistantBlock> {
        let last = self.parts.len().saturating_sub(1);
        let mut blocks = Vec::with_capacity(self.parts.len());
        for (at, part) in self.parts.into_iter().enumerate() {
            blocks.push(match part {
                Part::Text { text, opaque } => AssistantBlock::Text { text, opaque },
                Part::Thinking { text, opaque } => AssistantBlock::Thinking { text, opaque },
                Part::ToolUse {
                    call_id,
                    name,
                    arguments,
                    opaque,
                } => {
                    let input = parsed(&arguments);
                    if input.is_none() && *stop == ReplyStop::MaxTokens && at == last {
                        continue;
                    }
                    let input = input.unwrap_or_else(|| json!({ "invalid_json": arguments }));
                    AssistantBlock::ToolUse {
                        call_id,
                        name,
                        input,
                        opaque,
                    }
                }
            });
        }
        blocks
    }

    fn push(&mut self, part: Part) -> Result<(), Error> {
        if self.parts.len() >= MAX_BLOCKS {
            let message = format!("the model's answer has more than {MAX_BLOCKS} blocks");
            return Err(Error::fatal(FailureKind::ModelRequestFailed, message));
        }
        self.broken = false;
        self.parts.push(part);
        Ok(())
    }

    fn count(&mut self, bytes: usize) -> Result<(), Error> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MAX_ANSWER {
            let message = format!("the model's answer is larger than {MAX_ANSWER} bytes");
            return Err(Error::fatal(FailureKind::ModelRequestFailed, message));
        }
        Ok(())
    }
}

fn parsed(arguments: &str) -> Option<Value> {
    if conversation::is_blank(arguments) {
        return Some(json!({}));
    }
    serde_json::from_str::<Value>(arguments)
        .ok()
        .filter(Value::is_object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_that_alternate_make_new_blocks() {
        let mut assembly = Assembly::default();
        let mut out = Vec::new();
        assembly.text("", &mut out).expect("room");
        assembly.thinking("a", &mut out).expect("room");
        assembly.thinking("b", &mut out).expect("room");
        assembly.text("c", &mut out).expect("room");
        assembly.break_block();
        assembly.text("d", &mut out).expect("room");
        let tool = assembly.begin_tool("", "bash", &mut out).expect("room");
        assembly.arguments(tool, "{\"a\":").expect("a tool");
        assembly.text("e", &mut out).expect("room");
        assembly.arguments(tool, "1}").expect("a tool");
        assert!(assembly.arguments(1, "{}").is_err(), "not a tool use");
        let indexes: Vec<usize> = out
            .iter()
            .map(|chunk| match chunk {
                Chunk::Text { index, .. } | Chunk::Thinking { index, .. } | Chunk::ToolUse { index, .. } => {
                    *index
                }
                Chunk::Done(_) => panic!("not done"),
            })
            .collect();
        assert_eq!(indexes, [0, 0, 1, 2, 3, 4]);
        let blocks = assembly.finish(&ReplyStop::Done);
        assert_eq!(
            blocks[3],
            AssistantBlock::ToolUse {
                call_id: "call_3".to_owned(),
                name: "bash".to_owned(),
                input: json!({"a": 1}),
                opaque: None
            }
        );
        assert_eq!(blocks.len(), 5);
    }

    #[test]
    fn arguments_that_are_no_object_reach_the_tool_as_they_are() {
        for (arguments, stop, expected) in [
            ("", ReplyStop::Done, Some(json!({}))),
            ("{\"a\":1}", ReplyStop::MaxTokens, Some(json!({"a": 1}))),
            (
                "{\"a\":",
                ReplyStop::Done,
                Some(json!({"invalid_json": "{\"a\":"})),
            ),
            ("[1]", ReplyStop::Done, Some(json!({"invalid_json": "[1]"}))),
            ("{\"a\":", ReplyStop::MaxTokens, None),
        ] {
            let mut assembly = Assembly::default();
            let tool = assembly.begin_tool("x", "bash", &mut Vec::new()).expect("room");
            assembly.arguments(tool, arguments).expect("a tool");
            let input = assembly
                .finish(&stop)
                .into_iter()
                .next()
                .map(|block| match block {
                    AssistantBlock::ToolUse { input, .. } => input,
                    other => panic!("{other:?}"),
                });
            assert_eq!(input, expected, "{arguments} {stop:?}");
        }
    }
}
