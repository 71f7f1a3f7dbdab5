//! Playing a reply.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::stream;
use oma_domain::ContentBlock;
use oma_domain::content::joined_text;
use oma_domain::event::FailureKind;
use oma_domain::outcome::{VERDICT_TOOL, Verdict};
use oma_domain::session::ReplyStop;
use oma_domain::usage::Usage;
use serde_json::{Value, json};

use super::script::{self, Script, Step};
use crate::Error;
use crate::conversation::is_blank;
use crate::request::{AssistantBlock, Chunk, Completion, Message, ModelStream, Request, UserBlock};

/// What is said when a turn goes on longer than its script.
const AT_END: &str = "(end of script)";

/// Characters of a piece of an echo.
const ECHO_CHUNK: usize = 24;

/// Where the conversation stands.
#[derive(Debug, PartialEq, Eq)]
struct Position {
    /// How often the user has spoken before the newest time.
    turn: usize,
    /// How often the model has answered since.
    reply: usize,
    /// How often the model has answered at all.
    answers: usize,
    last_user: String,
    last_tool_result: String,
    last_system: String,
}

/// Characters of what the user said in a line of a summary.
const SUMMARY_LINE: usize = 200;

enum Action {
    Say(Chunk),
    Wait(Duration),
    Fail(Error),
}

pub(super) fn echo(request: &Request) -> Result<ModelStream, Error> {
    let position = position(&request.messages);
    let text = if is_blank(&position.last_user) {
        "(no text)".to_owned()
    } else {
        position.last_user.clone()
    };
    let script = Script {
        turns: Vec::new(),
        chunk_chars: ECHO_CHUNK,
        chunk_delay: Duration::ZERO,
    };
    play(&script, &[Step::Text(text)], &position, request, false)
}

/// Lists what the user said before the newest message, which is the wish for a summary.
pub(super) fn summary(request: &Request) -> Result<ModelStream, Error> {
    let texts = request.messages.iter().filter_map(|message| match message {
        Message::User(blocks) => {
            let content = blocks.iter().filter_map(|block| match block {
                UserBlock::Content(ContentBlock::Text { text }) => Some(text.as_str()),
                _ => None,
            });
            let text: String = content.collect::<Vec<_>>().join(" ");
            (!is_blank(&text)).then_some(text)
        }
        Message::Assistant(_) => None,
    });
    let mut texts: Vec<String> = texts.collect();
    texts.pop();
    let lines = texts
        .iter()
        .map(|text| format!("\n- {}", text.chars().take(SUMMARY_LINE).collect::<String>()));
    let text = format!("The user said:{}", lines.collect::<String>());
    let script = Script {
        turns: Vec::new(),
        chunk_chars: ECHO_CHUNK,
        chunk_delay: Duration::ZERO,
    };
    play(
        &script,
        &[Step::Text(text)],
        &position(&request.messages),
        request,
        false,
    )
}

/// Plays the script in the rubric, which is the first thing that a grader reads: a turn for each iteration.
pub(super) fn grade(request: &Request) -> Result<ModelStream, Error> {
    let rubric = match request.messages.first() {
        Some(Message::User(blocks)) => match blocks.first() {
            Some(UserBlock::Content(ContentBlock::Text { text })) => text.as_str(),
            _ => "",
        },
        _ => "",
    };
    let found = script::in_fence(rubric).transpose();
    match found.map_err(|message| Error::fatal(FailureKind::ModelRequestFailed, message))? {
        Some(script) => follow(&script, request),
        None => {
            let verdict = json!({
                "result": Verdict::Satisfied.as_str(),
                "explanation": "The rubric has no script, so the scripted grader is satisfied.",
            });
            let step = Step::Tool {
                name: VERDICT_TOOL.to_owned(),
                input: verdict,
            };
            let script = Script {
                turns: vec![vec![vec![step]]],
                chunk_chars: ECHO_CHUNK,
                chunk_delay: Duration::ZERO,
            };
            follow(&script, request)
        }
    }
}

/// Plays the reply that the conversation asks for. Beyond the last turn, the last turn repeats.
pub(super) fn follow(script: &Script, request: &Request) -> Result<ModelStream, Error> {
    let position = position(&request.messages);
    let turn = script.turns.get(position.turn).or(script.turns.last());
    let at_end = [Step::Text(AT_END.to_owned())];
    let steps = turn
        .and_then(|turn| turn.get(position.reply))
        .map_or(at_end.as_slice(), Vec::as_slice);
    play(script, steps, &position, request, true)
}

fn position(messages: &[Message]) -> Position {
    let mut position = Position {
        turn: 0,
        reply: 0,
        answers: 0,
        last_user: String::new(),
        last_tool_result: String::new(),
        last_system: String::new(),
    };
    let mut spoken = 0_usize;
    let mut in_answer = false;
    for message in messages {
        match message {
            // The parts of one answer may be messages of their own.
            Message::Assistant(_) if in_answer => {}
            Message::Assistant(_) => {
                in_answer = true;
                position.reply += 1;
                position.answers += 1;
            }
            Message::User(blocks) => {
                in_answer = false;
                let mut content: Vec<ContentBlock> = Vec::new();
                for block in blocks {
                    match block {
                        UserBlock::Content(block) => content.push(block.clone()),
                        UserBlock::System(text) => position.last_system.clone_from(text),
                        UserBlock::ToolResult { content, .. } => {
                            position.last_tool_result = joined_text(content)
                        }
                    }
                }
                if !content.is_empty() {
                    spoken += 1;
                    position.reply = 0;
                    position.last_user = joined_text(&content);
                }
            }
        }
    }
    position.turn = spoken.saturating_sub(1);
    position
}

fn play(
    script: &Script,
    steps: &[Step],
    position: &Position,
    request: &Request,
    templates: bool,
) -> Result<ModelStream, Error> {
    let mut actions = VecDeque::new();
    let mut blocks: Vec<AssistantBlock> = Vec::new();
    let mut usage = None;
    let mut stop = ReplyStop::Done;
    let filled = |text: &str| {
        if templates {
            fill(text, position)
        } else {
            text.to_owned()
        }
    };
    for (at, step) in steps.iter().enumerate() {
        let index = blocks.len();
        match step {
            Step::Text(text) => {
                let text = filled(text);
                if text.is_empty() {
                    continue;
                }
                for piece in pieces(&text, script.chunk_chars) {
                    actions.push_back(Action::Say(Chunk::Text { index, text: piece }));
                    pause(script, &mut actions);
                }
                blocks.push(AssistantBlock::Text { text, opaque: None });
            }
            Step::Thinking(text) => {
                let text = filled(text);
                for piece in pieces(&text, script.chunk_chars) {
                    actions.push_back(Action::Say(Chunk::Thinking { index, text: piece }));
                    pause(script, &mut actions);
                }
                blocks.push(AssistantBlock::Thinking { text, opaque: None });
            }
            Step::Tool { name, input } => {
                actions.push_back(Action::Say(Chunk::ToolUse {
                    index,
                    name: name.clone(),
                }));
                blocks.push(AssistantBlock::ToolUse {
                    call_id: format!("call_{}_{at}", position.answers),
                    name: name.clone(),
                    input: fill_value(input, position),
                    opaque: None,
                });
            }
            Step::Delay(delay) => actions.push_back(Action::Wait(*delay)),
            Step::Error {
                kind,
                message,
                retry_after,
            } => {
                let passing = matches!(kind, FailureKind::ModelOverloaded | FailureKind::ModelRateLimited);
                let message = filled(message);
                let error = if passing {
                    Error::passing(*kind, message)
                } else {
                    Error::fatal(*kind, message)
                };
                let error = Error {
                    retry_after: *retry_after,
                    ..error
                };
                if actions.is_empty() {
                    return Err(error);
                }
                actions.push_back(Action::Fail(error.unaccounted()));
                return Ok(run(actions));
            }
            Step::Usage(stated) => usage = Some(*stated),
            Step::MaxTokens => stop = ReplyStop::MaxTokens,
            Step::Refusal(explanation) => {
                stop = ReplyStop::Refusal {
                    explanation: explanation.clone(),
                }
            }
        }
    }
    let usage = usage.unwrap_or_else(|| estimate(request, &blocks));
    let completion = Completion {
        blocks,
        usage,
        cost: None,
        stop,
    };
    actions.push_back(Action::Say(Chunk::Done(Box::new(completion))));
    Ok(run(actions))
}

fn pause(script: &Script, actions: &mut VecDeque<Action>) {
    if !script.chunk_delay.is_zero() {
        actions.push_back(Action::Wait(script.chunk_delay));
    }
}

fn run(actions: VecDeque<Action>) -> ModelStream {
    Box::pin(stream::unfold(actions, |mut actions| async move {
        loop {
            match actions.pop_front()? {
                Action::Say(chunk) => return Some((Ok(chunk), actions)),
                Action::Wait(delay) => tokio::time::sleep(delay).await,
                Action::Fail(error) => return Some((Err(error), VecDeque::new())),
            }
        }
    }))
}

/// A text in pieces of so many characters.
fn pieces(text: &str, chars: usize) -> Vec<String> {
    let mut rest = text.chars().peekable();
    let mut pieces = Vec::new();
    while rest.peek().is_some() {
        pieces.push(rest.by_ref().take(chars).collect());
    }
    pieces
}

fn fill(text: &str, position: &Position) -> String {
    // One pass, so that what a user writes is never taken for a template itself.
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let (before, at) = rest.split_at(start);
        filled.push_str(before);
        if let Some(after) = at.strip_prefix("{{last_user}}") {
            filled.push_str(&position.last_user);
            rest = after;
        } else if let Some(after) = at.strip_prefix("{{last_tool_result}}") {
            filled.push_str(&position.last_tool_result);
            rest = after;
        } else if let Some(after) = at.strip_prefix("{{last_system}}") {
            filled.push_str(&position.last_system);
            rest = after;
        } else {
            filled.push_str("{{");
            rest = &at[2..];
        }
    }
    filled.push_str(rest);
    filled
}

fn fill_value(value: &Value, position: &Position) -> Value {
    match value {
        Value::String(text) => fill(text, position).into(),
        Value::Array(items) => items.iter().map(|item| fill_value(item, position)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), fill_value(value, position)))
            .collect(),
        other => other.clone(),
    }
}

/// Four characters a token: near enough to what real models count for quotas and displays to be tried out.
fn estimate(request: &Request, blocks: &[AssistantBlock]) -> Usage {
    let of_content = |block: &ContentBlock| match block {
        ContentBlock::Text { text } => text.chars().count(),
        // A picture costs about as much as this with most providers.
        ContentBlock::SearchResult { .. } => block.as_text().map_or(0, |text| text.chars().count()),
        ContentBlock::Image { .. } | ContentBlock::Document { .. } => 4 * 1_500,
    };
    let of_answer = |block: &AssistantBlock| match block {
        AssistantBlock::Text { text, .. } | AssistantBlock::Thinking { text, .. } => text.chars().count(),
        AssistantBlock::ToolUse { name, input, .. } => name.len() + input.to_string().len(),
    };
    let of_message = |message: &Message| -> usize {
        match message {
            Message::User(blocks) => blocks
                .iter()
                .map(|block| match block {
                    UserBlock::Content(content) => of_content(content),
                    UserBlock::System(text) => text.chars().count(),
                    UserBlock::ToolResult { content, .. } => content.iter().map(of_content).sum(),
                })
                .sum(),
            Message::Assistant(blocks) => blocks.iter().map(of_answer).sum(),
        }
    };
    let tools = request
        .tools
        .iter()
        .map(|tool| tool.description.len() + tool.input_schema.to_string().len());
    let input = request.system.chars().count()
        + request.messages.iter().map(of_message).sum::<usize>()
        + tools.sum::<usize>();
    let output: usize = blocks.iter().map(of_answer).sum();
    let tokens = |chars: usize| u64::try_from(chars.div_ceil(4)).unwrap_or(u64::MAX);
    Usage {
        input: tokens(input),
        output: tokens(output),
        cache_read: 0,
        cache_write: 0,
    }
}
