//! The stream of each provider's protocol, from bytes in pieces of any size to the pieces of an answer.
//!
//! The first byte chooses the protocol, the second the size of the pieces.

#![no_main]

use futures_util::StreamExt;
use libfuzzer_sys::fuzz_target;
use oma_models::{AssistantBlock, Chunk, ModelStream, Protocol, fuzzing};
use serde_json::Value;

/// The longest message of an error: what a provider says is cut, what we say is short.
const MAX_MESSAGE: usize = 8_000;

fuzz_target!(|data: &[u8]| {
    let [choice, size, bytes @ ..] = data else {
        return;
    };
    let protocol = match choice % 6 {
        0 => Protocol::Anthropic,
        1 => Protocol::OpenaiChat,
        2 => Protocol::OpenaiResponses,
        3 => Protocol::Gemini,
        4 => Protocol::Bedrock,
        // Whole frames of Bedrock's, one a line: the kind, a space, the payload.
        _ => {
            let events = bytes.split(|byte| *byte == b'\n').filter_map(|line| {
                let line = std::str::from_utf8(line).ok()?;
                let (kind, payload) = line.split_once(' ')?;
                let payload = serde_json::from_str::<Value>(payload).ok()?;
                Some((kind.to_owned(), payload))
            });
            read(fuzzing::bedrock_answer(events.collect()).expect("a target"));
            return;
        }
    };
    let pieces = bytes.chunks(usize::from(*size) + 1).map(<[u8]>::to_vec);
    read(fuzzing::answer(protocol, pieces.collect()).expect("a target"));
});

/// Reads an answer to its end and checks what holds of every answer.
fn read(answer: ModelStream) {
    let chunks: Vec<_> = futures_util::FutureExt::now_or_never(answer.collect::<Vec<_>>())
        .expect("an answer whose bytes are all there does not wait");
    let mut joined: Vec<String> = Vec::new();
    let mut newest = 0;
    let count = chunks.len();
    for (at, chunk) in chunks.into_iter().enumerate() {
        let is_last = at + 1 == count;
        let (index, text) = match chunk {
            Ok(Chunk::Text { index, text } | Chunk::Thinking { index, text }) => (index, text),
            Ok(Chunk::ToolUse { index, name }) => (index, name),
            Ok(Chunk::Done(completion)) => {
                assert!(is_last, "the end is the last item");
                for (at, block) in completion.blocks.iter().enumerate() {
                    let (AssistantBlock::Text { text, .. }
                    | AssistantBlock::Thinking { text, .. }
                    | AssistantBlock::ToolUse { name: text, .. }) = block;
                    let have = joined.get(at).map(String::as_str).unwrap_or_default();
                    assert_eq!(have, text, "the pieces joined are the block");
                }
                return;
            }
            Err(error) => {
                assert!(is_last, "an error is the last item");
                assert!(error.failure.message.len() <= MAX_MESSAGE, "{}", error.failure.message.len());
                return;
            }
        };
        assert!(index >= newest, "indexes never go back");
        newest = index;
        joined.resize(joined.len().max(index + 1), String::new());
        joined[index].push_str(&text);
    }
    panic!("an answer ends with its end or an error");
}
