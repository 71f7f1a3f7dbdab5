//! Spans of model requests and tools, with the attributes of OpenTelemetry's conventions for generative AI
//! (semantic conventions 1.41, `gen-ai-spans` and `gen-ai-agent-spans`; still in development there). Contents of
//! messages, arguments and results are never among them.

use oma_domain::session::{Outcome, ReplyStop};
use oma_models::{Completion, Error};
use tracing::Span;
use tracing::field::Empty;

/// The span of a model request. `model` is `provider/model`.
pub(crate) fn chat(model: &str) -> Span {
    let (provider, name) = model.split_once('/').unwrap_or(("", model));
    tracing::info_span!(
        "chat",
        "otel.name" = format!("chat {name}"),
        "otel.kind" = "client",
        "otel.status_code" = Empty,
        "error.type" = Empty,
        "gen_ai.operation.name" = "chat",
        "gen_ai.provider.name" = provider,
        "gen_ai.request.model" = name,
        "gen_ai.usage.input_tokens" = Empty,
        "gen_ai.usage.output_tokens" = Empty,
        "gen_ai.usage.cache_read.input_tokens" = Empty,
        "gen_ai.usage.cache_creation.input_tokens" = Empty,
        "gen_ai.response.finish_reasons" = Empty,
    )
}

/// Notes how it ended.
pub(crate) fn chatted(span: &Span, outcome: &Result<Completion, Error>) {
    match outcome {
        Ok(completion) => {
            let usage = &completion.usage;
            span.record("gen_ai.usage.input_tokens", usage.total_input());
            span.record("gen_ai.usage.output_tokens", usage.output);
            span.record("gen_ai.usage.cache_read.input_tokens", usage.cache_read);
            span.record("gen_ai.usage.cache_creation.input_tokens", usage.cache_write);
            span.record("gen_ai.response.finish_reasons", finish_reason(&completion.stop));
        }
        Err(error) => {
            span.record("otel.status_code", "ERROR");
            span.record("error.type", error.failure.kind.as_str());
        }
    }
}

fn finish_reason(stop: &ReplyStop) -> &'static str {
    match stop {
        ReplyStop::Done => "stop",
        ReplyStop::MaxTokens => "length",
        ReplyStop::Refusal { .. } => "content_filter",
    }
}

/// The span of a tool use. `name` is one of ours: what a model makes up is no name of a span.
pub(crate) fn tool(name: &str, call: &oma_domain::EventId) -> Span {
    tracing::info_span!(
        "execute_tool",
        "otel.name" = format!("execute_tool {name}"),
        "otel.status_code" = Empty,
        "error.type" = Empty,
        "gen_ai.operation.name" = "execute_tool",
        "gen_ai.tool.name" = name,
        "gen_ai.tool.call.id" = %call,
        "gen_ai.tool.type" = "function",
    )
}

/// Notes how it ended.
pub(crate) fn used(span: &Span, outcome: &Outcome) {
    if outcome.is_error {
        span.record("otel.status_code", "ERROR");
        span.record("error.type", "tool_error");
    }
}
