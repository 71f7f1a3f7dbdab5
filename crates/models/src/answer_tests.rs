//! Frames in any order and number: no decoder panics, and what it says holds together.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::config::Config;
use crate::registry::Registry;

/// Frames of each protocol, good ones and odd ones.
const ANTHROPIC: &[&str] = &[
    r#"{"type":"message_start","message":{"usage":{"input_tokens":5}}}"#,
    r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":"a"}}"#,
    r#"{"type":"content_block_start","index":1,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
    r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"","name":"bash","input":{}}}"#,
    r#"{"type":"content_block_start","index":1,"content_block":{"type":"redacted_thinking","data":"x"}}"#,
    r#"{"type":"content_block_start","index":0,"content_block":{"type":"server_tool_use"}}"#,
    r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"bc"}}"#,
    r#"{"type":"content_block_delta","index":1,"delta":{"type":"thinking_delta","thinking":"hm"}}"#,
    r#"{"type":"content_block_delta","index":1,"delta":{"type":"signature_delta","signature":"s"}}"#,
    r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{}"}}"#,
    r#"{"type":"content_block_stop","index":0}"#,
    r#"{"type":"content_block_stop","index":1}"#,
    r#"{"type":"content_block_stop","index":2}"#,
    r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":3}}"#,
    r#"{"type":"message_stop"}"#,
    "{}",
];

const CHAT: &[&str] = &[
    r#"{"choices":[{"delta":{"content":"a"}}]}"#,
    r#"{"choices":[{"delta":{"content":[{"type":"text","text":"b"},{"type":"thinking","thinking":[{"text":"x"}]},7]}}]}"#,
    r#"{"choices":[{"delta":{"reasoning_content":"hm"}}]}"#,
    r#"{"choices":[{"delta":{"reasoning_details":[{"type":"t","index":0,"text":"y"},null,5]}}]}"#,
    r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"x","function":{"name":"bash","arguments":"{"}}]}}]}"#,
    r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"id":"y","function":{"name":"bash"}}]}}]}"#,
    r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"}"}}]}}]}"#,
    r#"{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"}"}}]}}]}"#,
    r#"{"choices":[{"delta":{"tool_calls":[{"index":18446744073709551615,"id":"z"}]}}]}"#,
    r#"{"choices":[{"delta":{"tool_calls":[{"function":{"name":"ls"}}]}}]}"#,
    r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
    r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"cached_tokens":9}}"#,
    r#"{"usage":{"prompt_tokens":18446744073709551615,"completion_tokens":18446744073709551615,"completion_tokens_details":{"reasoning_tokens":18446744073709551615}}}"#,
    "[DONE]",
];

const RESPONSES: &[&str] = &[
    r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"reasoning"}}"#,
    r#"{"type":"response.output_item.added","output_index":1,"item":{"type":"message"}}"#,
    r#"{"type":"response.output_item.added","output_index":2,"item":{"type":"function_call","call_id":"x","name":"bash"}}"#,
    r#"{"type":"response.reasoning_summary_text.delta","output_index":0,"summary_index":0,"delta":"hm"}"#,
    r#"{"type":"response.reasoning_summary_text.delta","output_index":0,"summary_index":1,"delta":"so"}"#,
    r#"{"type":"response.output_text.delta","output_index":1,"delta":"a"}"#,
    r#"{"type":"response.function_call_arguments.delta","output_index":2,"delta":"{}"}"#,
    r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"reasoning","encrypted_content":"e"}}"#,
    r#"{"type":"response.output_item.done","output_index":1,"item":{"content":[{"text":"a"}],"phase":"final_answer"}}"#,
    r#"{"type":"response.output_item.done","output_index":2,"item":{"arguments":"{}"}}"#,
    r#"{"type":"response.completed","response":{"usage":{"input_tokens":1}}}"#,
    r#"{"type":"response.incomplete","response":{"incomplete_details":{"reason":"max_output_tokens"}}}"#,
];

const GEMINI: &[&str] = &[
    r#"{"candidates":[{"content":{"parts":[{"text":"a"}]}}]}"#,
    r#"{"candidates":[{"content":{"parts":[{"text":"hm","thought":true}]}}]}"#,
    r#"{"candidates":[{"content":{"parts":[{"text":"","thoughtSignature":"s"}]}}]}"#,
    r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"bash"},"thoughtSignature":"s"}]}}]}"#,
    r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"","args":[1]}}]}}]}"#,
    r#"{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":1,"cachedContentTokenCount":5}}"#,
    r#"{"usageMetadata":{"promptTokenCount":18446744073709551615,"toolUsePromptTokenCount":9,"candidatesTokenCount":18446744073709551615,"thoughtsTokenCount":1}}"#,
    r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#,
];

/// One target for all cases: making its HTTP client is slow.
static TARGET: LazyLock<Arc<Target>> = LazyLock::new(|| {
    let registry = Registry::from_config(Config::default()).expect("a registry");
    Arc::new(registry.local_target("ollama/x").expect("a target"))
});

fn target() -> Arc<Target> {
    Arc::clone(&TARGET)
}

/// Feeds frames until the decoder has enough, and checks what came out.
fn run<D: Decoder<Frame = String>>(mut decoder: D, frames: &[&str]) -> Result<(), TestCaseError> {
    let mut chunks = Vec::new();
    let mut is_complete = false;
    for frame in frames {
        match decoder.frame((*frame).to_owned(), &mut chunks) {
            Ok(Progress::Open) => {}
            Ok(Progress::Complete) => {
                is_complete = true;
                break;
            }
            Err(_) => return Ok(()),
        }
    }
    let mut joined: Vec<String> = Vec::new();
    let mut newest = 0;
    for chunk in chunks {
        let (index, text) = match chunk {
            Chunk::Text { index, text } | Chunk::Thinking { index, text } => (index, text),
            Chunk::ToolUse { index, name } => (index, name),
            Chunk::Done(_) => return Err(TestCaseError::fail("a decoder does not say when it is done")),
        };
        prop_assert!(index >= newest, "indexes never go back");
        newest = index;
        joined.resize(joined.len().max(index + 1), String::new());
        joined[index].push_str(&text);
    }
    if !is_complete && !decoder.complete_at_end() {
        return Ok(());
    }
    if let Ok(answer) = decoder.finish() {
        for (at, block) in answer.blocks.iter().enumerate() {
            let (AssistantBlock::Text { text, .. }
            | AssistantBlock::Thinking { text, .. }
            | AssistantBlock::ToolUse { name: text, .. }) = block;
            let have = joined.get(at).map(String::as_str).unwrap_or_default();
            prop_assert_eq!(have, text, "pieces joined are the block");
        }
    }
    Ok(())
}

fn any_frames(frames: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(prop::sample::select(frames), 0..24)
}

proptest! {
    #[test]
    fn anthropic_frames_in_any_order(frames in any_frames(ANTHROPIC)) {
        run(crate::anthropic::decoder(target()), &frames)?;
    }

    #[test]
    fn chat_frames_in_any_order(frames in any_frames(CHAT)) {
        run(crate::openai_chat::decoder(target()), &frames)?;
    }

    #[test]
    fn responses_frames_in_any_order(frames in any_frames(RESPONSES)) {
        run(crate::openai_responses::decoder(target()), &frames)?;
    }

    #[test]
    fn gemini_frames_in_any_order(frames in any_frames(GEMINI)) {
        run(crate::gemini::decoder(target()), &frames)?;
    }
}
