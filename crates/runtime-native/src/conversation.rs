//! The model's view of a session, folded from its log.

mod kept;
mod outcome;

use std::collections::HashMap;

use oma_domain::content::joined_text;
use oma_domain::event::{Body, FailureKind, Purpose};
use oma_domain::tokens::at_most;
use oma_domain::{ContentBlock, Event, EventId, Seq};
use oma_models::{AssistantBlock, Message, UserBlock};
use oma_runtime::{Port, PortError};

use crate::shrink::{short_text, shrunk};
use crate::weight::{
    BLOCK_BYTES, CHARS_PER_TOKEN, assistant_bytes, content_bytes, is_media, most_tokens, user_bytes, weight,
};
use outcome::{feedback, task};

/// How many events one read brings.
const PAGE: u32 = 500;

/// What the model reads instead of an image or a document that its provider did not take.
const REFUSED_MEDIA: &str = "[An image or a document was here. The model's provider refused the request with it, so it \
was left out.]";

/// A message of the user, as the log has it.
struct Spoken {
    at: Seq,
    content: Vec<ContentBlock>,
}

/// The messages that the next request carries.
#[derive(Default)]
pub(crate) struct Conversation {
    messages: Vec<Message>,
    /// The last event that is folded in.
    seen: Seq,
    /// The request that the last assistant message came from.
    request: Option<EventId>,
    /// Whether the last message is one of the user's that nothing has answered, as after a turn that failed.
    unanswered: bool,
    /// The provider's ids of the tool uses, which their results go by.
    calls: HashMap<EventId, String>,
    /// The newest user message, or the outcome that is to be achieved, which is kept word for word over a compaction in
    /// mid-turn.
    spoken: Option<Spoken>,
    /// An outcome that was defined in mid-turn. The model is told of it when the work towards it begins.
    defined: Option<Spoken>,
    /// The request that the newest summary came from.
    summarised_by: Option<EventId>,
    /// The messages before this one went with a request that was answered.
    proven: usize,
    /// The position of that answer.
    proven_at: Seq,
    /// Characters and media added since the model last counted the tokens.
    uncounted: u64,
    /// The most tokens that these are reckoned to have.
    most_uncounted: u64,
    /// Whether the model has counted the tokens since the newest summary.
    counted: bool,
    /// About how much memory all this takes, in bytes.
    bytes: u64,
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

    /// Whether a tool's result has this text as a block of its own.
    pub(crate) fn has_note(&self, note: &str) -> bool {
        let is_it = |block: &ContentBlock| matches!(block, ContentBlock::Text { text } if **text == *note);
        self.messages.iter().any(|message| {
            let Message::User(blocks) = message else {
                return false;
            };
            blocks.iter().any(|block| match block {
                UserBlock::ToolResult { content, .. } => content.iter().any(is_it),
                UserBlock::Content(_) | UserBlock::System(_) => false,
            })
        })
    }

    /// Reads what has been committed up to `head` and is not folded in yet.
    pub(crate) async fn catch_up(&mut self, port: &dyn Port, head: Seq) -> Result<(), PortError> {
        while self.seen < head {
            let events = port.history(self.seen, PAGE).await?;
            if events.is_empty() {
                return Err(PortError::Gone("the log is shorter than its head".into()));
            }
            for event in &events {
                self.recall(port, event).await?;
                self.absorb(event);
            }
        }
        Ok(())
    }

    /// Folds events in that a commit has just returned; a gap before them, and what needs more of the log, is
    /// left to [`Self::catch_up`].
    pub(crate) fn extend(&mut self, events: &[Event]) {
        for event in events {
            if event.seq == self.seen.next() && self.missing(event).is_none() {
                self.absorb(event);
            }
        }
    }

    /// Where the message stands that this event keeps, if it has not been read yet.
    fn missing(&self, event: &Event) -> Option<Seq> {
        let (known, at) = match &*event.body {
            Body::Compaction { kept: Some(kept), .. } => (&self.spoken, kept.message),
            Body::OutcomeBegun { defined, .. } => (&self.defined, *defined),
            _ => return None,
        };
        let is_known = known.as_ref().is_some_and(|it| it.at == at);
        (!is_known).then_some(at)
    }

    /// Reads the message that a summary keeps: it stands before what the summary covers.
    async fn recall(&mut self, port: &dyn Port, event: &Event) -> Result<(), PortError> {
        let Some(at) = self.missing(event) else {
            return Ok(());
        };
        let found = port.history(Seq(at.0.saturating_sub(1)), 1).await?;
        let content = match found.first().map(|event| (event.seq, &*event.body)) {
            Some((seq, Body::UserMessage { content, .. })) if seq == at => content.clone(),
            Some((
                seq,
                Body::UserDefineOutcome {
                    description, rubric, ..
                },
            )) if seq == at => task(description, rubric),
            _ => {
                // The summary alone is enough to go on.
                tracing::error!(at = at.0, "a message that a summary keeps is not in the log");
                return Ok(());
            }
        };
        let spoken = Some(Spoken { at, content });
        match &*event.body {
            Body::OutcomeBegun { .. } => self.defined = spoken,
            _ => self.spoken = spoken,
        }
        Ok(())
    }

    fn absorb(&mut self, event: &Event) {
        self.seen = event.seq;
        match &*event.body {
            Body::UserMessage { content, .. } => self.hear(event.seq, content.clone()),
            // One that is meant for a thread is read there.
            Body::SystemMessage { thread: Some(_), .. } => {}
            Body::SystemMessage {
                content,
                thread: None,
            } => {
                self.weigh(content);
                let unanswered = self.unanswered;
                self.user([UserBlock::System(joined_text(content))]);
                self.unanswered = unanswered;
            }
            Body::UserDefineOutcome {
                description,
                rubric,
                waits,
                ..
            } => {
                let (at, content) = (event.seq, task(description, rubric));
                if *waits {
                    self.defined = Some(Spoken { at, content });
                } else {
                    self.hear(at, content);
                }
            }
            Body::OutcomeBegun { defined, .. } => {
                if let Some(Spoken { at, content }) = self.defined.take_if(|it| it.at == *defined) {
                    self.hear(at, content);
                }
            }
            Body::OutcomeEvaluationEnd {
                result, explanation, ..
            } => {
                if let Some(text) = feedback(*result, explanation) {
                    let content = [ContentBlock::text(text)];
                    self.weigh(&content);
                    self.user(content.into_iter().map(UserBlock::Content));
                    self.unanswered = true;
                }
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
                let arguments = input.to_string();
                self.uncounted += arguments.len() as u64;
                self.most_uncounted += at_most(&arguments);
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
                ..
            }
            | Body::UserCustomToolResult {
                tool_use,
                name,
                content,
                is_error,
                thread: None,
                ..
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
            Body::Compaction {
                request,
                summary,
                kept,
                ..
            } => {
                self.messages.clear();
                self.proven = 0;
                self.bytes = 0;
                self.calls.clear();
                self.summarised_by = Some(request.clone());
                self.uncounted = 0;
                self.most_uncounted = 0;
                self.counted = false;
                let blocks = self.summarised(summary, kept.as_ref());
                self.weigh(&blocks);
                self.user(blocks.into_iter().map(UserBlock::Content));
                self.unanswered = kept.is_some();
            }
            Body::ModelRequestEnd {
                is_error: false,
                purpose: Purpose::Reply | Purpose::Compaction,
                usage,
                request,
                ..
            } if self.summarised_by.as_ref() != Some(request) => {
                self.proven = self.messages.len();
                self.proven_at = event.seq;
                // The provider has counted everything up to its answer, if it counts at all. What it counted for a
                // summary is what the summary replaces.
                if usage.total() > 0 {
                    self.uncounted = 0;
                    self.most_uncounted = 0;
                    self.counted = true;
                }
            }
            Body::Error { failure, .. } if failure.kind == FailureKind::MediaRefused => {
                self.leave_media_out()
            }
            // What threads do, their model reads; here it is told what they answer, as the results of its tool uses.
            Body::ThreadCreated { .. }
            | Body::ThreadStatus { .. }
            | Body::ThreadToolUse { .. }
            | Body::ThreadMessageSent { .. }
            | Body::ThreadMessageReceived { .. }
            | Body::WorkflowRunCreated { .. }
            | Body::WorkflowRunStatus { .. }
            | Body::WorkflowRunError { .. }
            | Body::WorkflowPhaseStarted { .. }
            | Body::WorkflowPhaseEnded { .. }
            | Body::WorkflowRunAnswer { .. }
            | Body::UserCustomToolResult { thread: Some(_), .. }
            | Body::UserInterrupt { .. }
            | Body::UserToolConfirmation { .. }
            | Body::StatusRunning
            | Body::StatusIdle { .. }
            | Body::StatusTerminated
            | Body::SessionUpdated { .. }
            | Body::Error { .. }
            | Body::EnvironmentBuild { .. }
            | Body::ModelChange { .. }
            | Body::ThinkingLevelChange { .. }
            | Body::ModelRequestStart { .. }
            | Body::OutcomeEvaluationStart { .. }
            | Body::OutcomeEvaluationOngoing { .. }
            | Body::ModelRequestEnd { .. } => {}
        }
    }

    /// The user says something, at this place of the log.
    fn hear(&mut self, at: Seq, content: Vec<ContentBlock>) {
        self.weigh(&content);
        if self.unanswered {
            // Two things that the user said stay two messages; providers that want one get them merged.
            self.messages.push(Message::User(Vec::new()));
        }
        self.user(content.iter().cloned().map(UserBlock::Content));
        self.unanswered = true;
        self.spoken = Some(Spoken { at, content });
    }

    fn user(&mut self, blocks: impl IntoIterator<Item = UserBlock>) {
        self.request = None;
        self.unanswered = false;
        if !matches!(self.messages.last(), Some(Message::User(_))) {
            self.messages.push(Message::User(Vec::new()));
        }
        let Some(Message::User(last)) = self.messages.last_mut() else {
            return;
        };
        for block in blocks {
            self.bytes += user_bytes(&block);
            last.push(block);
        }
    }

    fn assistant(&mut self, request: &EventId, block: AssistantBlock) {
        self.bytes += assistant_bytes(&block);
        self.unanswered = false;
        if self.request.as_ref() == Some(request)
            && let Some(Message::Assistant(last)) = self.messages.last_mut()
        {
            last.push(block);
            return;
        }
        self.request = Some(request.clone());
        self.messages.push(Message::Assistant(vec![block]));
    }

    fn unproven(&mut self) -> impl Iterator<Item = &mut ContentBlock> {
        let spoken = self.spoken.as_mut().filter(|spoken| spoken.at > self.proven_at);
        let spoken = spoken.into_iter().flat_map(|spoken| &mut spoken.content);
        let start = self.proven.min(self.messages.len());
        let blocks = self.messages[start..]
            .iter_mut()
            .flat_map(|message| match message {
                Message::User(blocks) => blocks.as_mut_slice(),
                Message::Assistant(_) => &mut [],
            });
        let content = blocks.flat_map(|block| match block {
            UserBlock::System(_) => &mut [],
            UserBlock::Content(content) => std::slice::from_mut(content),
            UserBlock::ToolResult { content, .. } => content.as_mut_slice(),
        });
        spoken.chain(content)
    }

    /// Whether there are images or documents that went with no request that was answered.
    pub(crate) fn has_unproven_media(&mut self) -> bool {
        self.unproven().any(|block| is_media(block))
    }

    /// Puts a word in the place of each of those.
    fn leave_media_out(&mut self) {
        for block in self.unproven().filter(|block| is_media(block)) {
            *block = ContentBlock::text(REFUSED_MEDIA);
        }
    }

    fn weigh(&mut self, content: &[ContentBlock]) {
        self.uncounted += content.iter().map(weight).sum::<u64>();
        self.most_uncounted += content.iter().map(most_tokens).sum::<u64>();
    }

    /// The messages without the summary that they may begin with.
    pub(crate) fn heard(&self) -> &[Message] {
        let summary = usize::from(self.summarised_by.is_some()).min(self.messages.len());
        &self.messages[summary..]
    }

    /// About how much memory it takes, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        let spoken = self.spoken.iter().flat_map(|spoken| &spoken.content);
        self.bytes + spoken.map(content_bytes).sum::<u64>() + BLOCK_BYTES
    }

    /// About how many tokens were added since the model last counted them.
    pub(crate) fn uncounted_tokens(&self) -> u64 {
        self.uncounted / CHARS_PER_TOKEN
    }

    /// The most tokens that may have been added since the model last counted them.
    pub(crate) fn most_uncounted_tokens(&self) -> u64 {
        self.most_uncounted
    }

    /// Whether the model has counted what came before.
    pub(crate) fn is_counted(&self) -> bool {
        self.counted
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
            Message::User(blocks) => blocks
                .iter()
                .all(|block| !matches!(block, UserBlock::ToolResult { .. })),
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
                let spoken = self.spoken.as_ref().map(|it| it.content.as_slice());
                let text = joined_text(spoken.unwrap_or_default());
                vec![Message::User(vec![UserBlock::Content(short_text(&text))])]
            }
        }
    }

    /// Whether there is anything to summarise.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

#[cfg(test)]
#[path = "conversation_tests.rs"]
mod tests;
