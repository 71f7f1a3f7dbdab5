//! From the log's events to this dialect's: a pure function, used by the list and by the stream alike (I3).
//!
//! An event becomes one frame under its own id, with these exceptions. `span.*` events are none: they belong to
//! no client of this dialect. A tool use that asks becomes two: the tool use, and the request for its
//! confirmation under a derived id. The idle status of a turn that waits for confirmations is none, because for
//! this dialect such a session is still running.

use std::borrow::Cow;

use oma_domain::content::{ContentBlock, Source};
use oma_domain::environment::build::{Progress, Step};
use oma_domain::event::{Body, Cut, Kept, StopReason};
use oma_domain::policy::Permission;
use oma_domain::usage::{Cost, Usage};
use oma_domain::{Event, EventId};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::cursor::Cursor;
use crate::dialects::openclaw::sessions::view::{Tokens, stop_name};

/// An event of a session.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct EventView<'a> {
    /// Its id; a valid cursor.
    #[schema(value_type = String)]
    pub event_id: String,
    /// The session.
    #[schema(value_type = String)]
    pub session_id: Cow<'a, str>,
    /// `user.message`, `user.interrupt`, `user.tool_confirmation`, `agent.message`, `agent.thinking`,
    /// `agent.tool_use`, `agent.tool_confirmation_request`, `agent.tool_result`, `agent.error`,
    /// `session.status_running`, `session.status_idle`, `session.status_failed`, `session.model_change`,
    /// `session.thinking_level_change`, `session.compaction`, `session.updated`, `session.status_terminated`,
    /// `session.environment_build`, `user.custom_tool_result`, `system.message`, `user.define_outcome` or
    /// `span.outcome_evaluation_end`.
    pub r#type: &'static str,
    /// Its text.
    #[schema(value_type = String)]
    pub content: Cow<'a, str>,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    /// What the model request consumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub tokens: Option<Tokens>,
    /// What the model request cost in US dollars; null when the price is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub cost_usd: Option<Option<f64>>,
    /// The model, `provider/model`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    pub model: Option<Cow<'a, str>>,
    /// The tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    pub tool_name: Option<Cow<'a, str>>,
    /// The tool use: the `event_id` of its `agent.tool_use`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    pub tool_call_id: Option<Cow<'a, str>>,
    /// The tool's arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, nullable = false)]
    pub tool_arguments: Option<&'a Value>,
    /// Whether the tool failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub is_error: Option<bool>,
    /// What to send back as `toolUseId` to confirm.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    pub approval_id: Option<Cow<'a, str>>,
    /// The status that a status event announces.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub status: Option<&'static str>,
    /// Why the session stopped working.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub stop_reason: Option<&'static str>,
    /// The kind of an `agent.error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub error_type: Option<&'static str>,
    /// Whether the server tries again by itself after an `agent.error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub retrying: Option<bool>,
    /// Whether a cancel cut the message off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub interrupted: Option<bool>,
    /// Why a tool use was denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    pub deny_message: Option<Cow<'a, str>>,
    /// The waiting messages that an interrupt dropped, by the ids that they were accepted under.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub dropped_event_ids: Option<Vec<String>>,
    /// What of the user's newest message the model still reads beside the summary of a compaction, when its turn goes
    /// on: whatever it does not name is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub kept: Option<KeptView>,
    /// What has become of the build that the session waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub build: Option<BuildView<'a>>,
}

/// What has become of a build.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct BuildView<'a> {
    /// Names what is built: the same for all that is alike.
    #[schema(value_type = String)]
    pub layer: &'a str,
    /// `waiting` (for other builds), `started`, `step_started`, `step_ended`, `ready` or `failed`.
    pub status: &'static str,
    /// Whose step it is: the name of an installer, or `setup_script`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub step: Option<&'static str>,
    /// The packages of the step, the first 32 of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>, nullable = false)]
    pub packages: Option<&'a [String]>,
    /// How many further packages it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub further_packages: Option<usize>,
    /// How long the step took, or the build without the wait for others, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub duration_ms: Option<u64>,
}

impl<'a> BuildView<'a> {
    fn of(layer: &'a str, progress: &'a Progress) -> Self {
        let named = progress.step().map(Step::named);
        Self {
            layer,
            status: progress.as_str(),
            step: progress.step().map(Step::as_str),
            packages: named.map(|(packages, _)| packages).filter(|all| !all.is_empty()),
            further_packages: named.map(|(_, further)| further).filter(|count| *count > 0),
            duration_ms: progress.took_ms(),
        }
    }
}

/// What of a message is kept beside a summary. Blocks are counted from 0.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct KeptView {
    /// The content blocks that are kept word for word.
    pub whole: Vec<usize>,
    /// The texts that are kept without their middle.
    pub cut: Vec<CutView>,
}

/// A text that is kept without its middle.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct CutView {
    /// The content block.
    pub block: usize,
    /// How many bytes of its start are kept.
    pub head: usize,
    /// How many bytes of its end are kept.
    pub tail: usize,
}

impl KeptView {
    fn of(kept: &Kept) -> Self {
        let cut = kept
            .cut
            .iter()
            .map(|&Cut { block, head, tail }| CutView { block, head, tail });
        Self {
            whole: kept.whole.clone(),
            cut: cut.collect(),
        }
    }
}

impl<'a> EventView<'a> {
    /// A frame that has only what every frame has.
    pub(crate) fn plain(event: &'a Event, kind: &'static str, content: impl Into<Cow<'a, str>>) -> Self {
        Self {
            event_id: event.id.to_string(),
            session_id: Cow::Borrowed(event.session.as_str()),
            r#type: kind,
            content: content.into(),
            created_at: event.at.as_millis(),
            tokens: None,
            cost_usd: None,
            model: None,
            tool_name: None,
            tool_call_id: None,
            tool_arguments: None,
            is_error: None,
            approval_id: None,
            status: None,
            stop_reason: None,
            error_type: None,
            retrying: None,
            interrupted: None,
            deny_message: None,
            dropped_event_ids: None,
            kept: None,
            build: None,
        }
    }
}

/// The frames of an event, in order; the index of each is its place in the list.
#[must_use]
pub fn project(event: &Event) -> Vec<EventView<'_>> {
    let kind = event.body.kind();
    let plain = |content: Cow<'static, str>| EventView::plain(event, kind, content);
    let one = match &*event.body {
        // Threads are sessions here, with events of their own.
        Body::ModelRequestStart { .. }
        | Body::ModelRequestEnd { .. }
        | Body::OutcomeBegun { .. }
        | Body::OutcomeEvaluationStart { .. }
        | Body::OutcomeEvaluationOngoing { .. }
        | Body::ThreadCreated { .. }
        | Body::ThreadStatus { .. }
        | Body::ThreadToolUse { .. }
        | Body::ThreadMessageSent { .. }
        | Body::ThreadMessageReceived { .. }
        | Body::WorkflowRunCreated { .. }
        | Body::WorkflowRunStatus { .. }
        | Body::WorkflowRunError { .. }
        | Body::WorkflowPhaseStarted { .. }
        | Body::WorkflowPhaseEnded { .. }
        | Body::WorkflowRunAnswer { .. } => return Vec::new(),
        Body::StatusIdle {
            stop_reason: StopReason::RequiresAction { .. },
            ..
        } => return Vec::new(),
        Body::AgentToolUse {
            name,
            input,
            permission,
            ..
        } => return tool_use(event, name, input, *permission),
        Body::UserMessage { content, .. } => EventView::plain(event, kind, text_of(content)),
        Body::SystemMessage { content, .. } => EventView::plain(event, kind, text_of(content)),
        Body::UserDefineOutcome { description, .. } => EventView::plain(event, kind, description.as_str()),
        Body::OutcomeEvaluationEnd {
            result, explanation, ..
        } => plain(format!("{}: {explanation}", result.as_str()).into()),
        Body::UserInterrupt { dropped, .. } => EventView {
            dropped_event_ids: (!dropped.is_empty())
                .then(|| dropped.iter().map(EventId::to_string).collect()),
            ..plain(match dropped.len() {
                0 => "".into(),
                1 => "1 waiting message was dropped".into(),
                count => format!("{count} waiting messages were dropped").into(),
            })
        },
        Body::UserToolConfirmation {
            tool_use,
            allow,
            deny_message,
            ..
        } => EventView {
            tool_call_id: Some(tool_use.as_str().into()),
            approval_id: Some(tool_use.as_str().into()),
            deny_message: deny_message.as_deref().map(Cow::Borrowed),
            ..plain(if *allow { "allow" } else { "deny" }.into())
        },
        Body::AgentMessage {
            content,
            model,
            usage,
            cost,
            interrupted,
            ..
        } => EventView {
            tokens: usage.as_ref().map(Tokens::of),
            cost_usd: cost_of(usage.as_ref(), cost.as_ref()),
            model: Some(model.as_str().into()),
            interrupted: interrupted.then_some(true),
            ..EventView::plain(event, kind, text_of(content))
        },
        Body::AgentThinking { text, .. } => EventView::plain(event, kind, text.as_str()),
        Body::AgentToolResult {
            tool_use,
            name,
            content,
            is_error,
            ..
        } => {
            let text = text_of(content);
            EventView {
                tool_name: Some(name.as_str().into()),
                tool_call_id: Some(tool_use.as_str().into()),
                is_error: Some(*is_error),
                ..EventView::plain(
                    event,
                    kind,
                    if text.is_empty() {
                        "(no output)".into()
                    } else {
                        text
                    },
                )
            }
        }
        Body::UserCustomToolResult {
            tool_use,
            name,
            content,
            is_error,
            remote,
            ..
        } => EventView {
            tool_name: Some(name.as_str().into()),
            tool_call_id: Some(tool_use.as_str().into()),
            is_error: Some(*is_error),
            // Who carries a built-in tool out is no matter here.
            ..EventView::plain(
                event,
                if *remote { "agent.tool_result" } else { kind },
                text_of(content),
            )
        },
        Body::StatusTerminated => plain("The session was archived.".into()),
        Body::SessionUpdated { title, .. } => {
            EventView::plain(event, kind, title.as_deref().unwrap_or_default())
        }
        Body::StatusRunning => EventView {
            status: Some("running"),
            ..plain("".into())
        },
        Body::StatusIdle { stop_reason, .. } => idle(event, stop_reason),
        Body::Error { failure, retrying } => EventView {
            is_error: Some(true),
            error_type: Some(failure.kind.as_str()),
            retrying: Some(*retrying),
            ..EventView::plain(event, "agent.error", failure.message.as_str())
        },
        Body::EnvironmentBuild { layer, progress } => EventView {
            is_error: progress.is_error().then_some(true),
            build: Some(BuildView::of(layer, progress)),
            ..plain(progress.to_string().into())
        },
        Body::ModelChange { model } => EventView {
            model: Some(model.as_str().into()),
            ..EventView::plain(event, kind, model.as_str())
        },
        Body::ThinkingLevelChange { thinking_level } => plain(thinking_level.as_str().into()),
        Body::Compaction { summary, kept, .. } => {
            let summary = if summary.is_empty() {
                "(compacted)"
            } else {
                summary.as_str()
            };
            EventView {
                kept: kept.as_ref().map(KeptView::of),
                ..EventView::plain(event, kind, summary)
            }
        }
    };
    vec![one]
}

fn tool_use<'a>(
    event: &'a Event,
    name: &'a str,
    input: &'a Value,
    permission: Permission,
) -> Vec<EventView<'a>> {
    let used = EventView {
        tool_name: Some(name.into()),
        tool_call_id: Some(event.id.as_str().into()),
        tool_arguments: Some(input),
        ..EventView::plain(event, event.body.kind(), name)
    };
    if permission != Permission::Ask {
        return vec![used];
    }
    // The request comes with the tool use, where name and arguments are known, and not with the idle status,
    // which comes again after each partial answer.
    let asks = EventView {
        event_id: Cursor {
            event: event.id.clone(),
            index: 1,
        }
        .to_string(),
        r#type: "agent.tool_confirmation_request",
        content: format!("The agent asks to use the tool {name}.").into(),
        approval_id: Some(event.id.as_str().into()),
        ..used.clone()
    };
    vec![used, asks]
}

fn idle<'a>(event: &'a Event, stop: &'a StopReason) -> EventView<'a> {
    let content: Cow<'a, str> = match stop {
        StopReason::EndTurn | StopReason::RequiresAction { .. } => "".into(),
        StopReason::MaxTokens => "The model reached its output limit.".into(),
        StopReason::Refusal {
            explanation: Some(text),
        } => text.as_str().into(),
        StopReason::Refusal { explanation: None } => "The model declined.".into(),
        StopReason::Interrupted => "The turn was cancelled.".into(),
        StopReason::BudgetReached { cap } => {
            format!("The session's {} budget is used up.", cap.as_str()).into()
        }
        StopReason::Failed { failure } => failure.message.as_str().into(),
    };
    let failed = matches!(stop, StopReason::Failed { .. });
    let (kind, status) = if failed {
        ("session.status_failed", "failed")
    } else {
        ("session.status_idle", "idle")
    };
    EventView {
        status: Some(status),
        stop_reason: Some(stop_name(stop)),
        ..EventView::plain(event, kind, content)
    }
}

fn cost_of(usage: Option<&Usage>, cost: Option<&Cost>) -> Option<Option<f64>> {
    match (usage, cost) {
        (_, Some(cost)) => Some(Some(cost.amount.as_usd())),
        (Some(_), None) => Some(None),
        (None, None) => None,
    }
}

/// The text of blocks; what is no text is named, so that a reader sees that something was there.
fn text_of(blocks: &[ContentBlock]) -> Cow<'_, str> {
    if let [ContentBlock::Text { text }] = blocks {
        return text.as_str().into();
    }
    let lines: Vec<Cow<'_, str>> = blocks.iter().map(line_of).collect();
    lines.join("\n").into()
}

fn line_of(block: &ContentBlock) -> Cow<'_, str> {
    match block {
        ContentBlock::Text { text } => text.as_str().into(),
        ContentBlock::SearchResult { .. } => block.as_text().unwrap_or_default(),
        ContentBlock::Image { source } => format!("[image: {}]", origin(source)).into(),
        ContentBlock::Document {
            title: Some(title), ..
        } => format!("[document: {title}]").into(),
        ContentBlock::Document {
            source, title: None, ..
        } => format!("[document: {}]", origin(source)).into(),
    }
}

fn origin(source: &Source) -> &str {
    match source {
        Source::Base64 { media_type, .. } => media_type,
        Source::Text { .. } => "text/plain",
        Source::Url { url } => url,
    }
}
