//! Summarising the history, so that the context fits the model again.

use std::sync::Arc;

use oma_domain::event::{FailureKind, Purpose};
use oma_domain::session::Input;
use oma_domain::usage::Spent;
use oma_domain::{ContentBlock, EventId};
use oma_models::{AssistantBlock, Completion, Error, Message, Model, ToolChoice, UserBlock};
use oma_runtime::PortError;

use crate::sampling::{answer, is_sampling};
use crate::turn::{Run, output_limit};

/// The most compactions without an answer between them: more lead nowhere.
pub(crate) const MAX_COMPACTIONS: u32 = 2;
/// How far the history is reduced at the most when even the request for a summary is too long.
const MAX_REDUCTION: u32 = 5;

/// Asks for the summary, as the user's last message. The request is otherwise the one that would have come next,
/// so that the provider finds it in its prompt cache.
const ASK: &str = "Stop here: the conversation has become too long and will be replaced by a summary that you \
write now. The work will go on from your summary alone. State: what the user wants, with all requirements and \
preferences they gave; what has been done and found out, with file names, commands, values and decisions that \
matter; what did not work; what remains to be done and the next step. Leave out pleasantries. Answer with the \
summary only. Use no tool, and do not go on with the work itself.";

impl Run<'_> {
    /// Makes one summary request and commits what came of it.
    pub(crate) async fn compact(
        &mut self,
        model: &Arc<dyn Model>,
        purpose: Purpose,
    ) -> Result<(), PortError> {
        if self.compactions >= MAX_COMPACTIONS || self.conversation.is_empty() {
            let message = "the context does not fit the model, even summarised";
            let failure = Error::fatal(FailureKind::ContextOverflow, message).failure;
            self.commit(Input::FailTurn { failure }).await?;
            return Ok(());
        }
        let thinking = self.thinking(&self.port.state().0);
        let id = EventId::generate();
        let begin = Input::BeginRequest {
            id: id.clone(),
            model: model.name().to_owned(),
            thinking_level: thinking,
            purpose: Purpose::Compaction,
            bound: self.bound(&self.port.state().0, &**model),
        };
        let state = self.commit(begin).await?;
        if !is_sampling(&state, &id) {
            return Ok(());
        }
        let mut messages = self.conversation.reduced(self.reduction);
        messages.push(Message::User(vec![UserBlock::Content(ContentBlock::text(ASK))]));
        let tool_choice = if self.bar_tools {
            ToolChoice::None
        } else {
            ToolChoice::Avoid
        };
        let max_tokens = output_limit(&state, &**model);
        let request = self.ask(messages, thinking, tool_choice, max_tokens);
        match answer(&**model, &request, drop).await {
            Ok(completion) => match summary(&completion) {
                Some(summary) => self.summarised(id, summary, completion, &**model, purpose).await,
                None => {
                    self.bar_tools = true;
                    let Completion { usage, cost, .. } = completion;
                    let error = Error {
                        spent: Box::new(Spent::All { usage, cost }),
                        ..Error::passing(FailureKind::ModelRequestFailed, "the model gave no summary")
                    };
                    self.fail(&state, id, error).await
                }
            },
            Err(error) if is_overflow(&error) && self.reduction < MAX_REDUCTION => {
                self.reduction += 1;
                self.commit(Input::FailRequest {
                    request: id,
                    failure: error.failure,
                    spent: *error.spent,
                    retry: true,
                })
                .await?;
                Ok(())
            }
            Err(error) => self.fail(&state, id, error).await,
        }
    }

    /// Commits a summary. Within a turn, the message that the turn answers is kept beside it.
    async fn summarised(
        &mut self,
        request: EventId,
        summary: String,
        completion: Completion,
        model: &dyn Model,
        purpose: Purpose,
    ) -> Result<(), PortError> {
        let kept = match purpose {
            // A second summary without an answer between them means that the first one left too much.
            Purpose::Reply => self
                .conversation
                .keep((self.room(model) / 2) >> (3 * self.compactions)),
            Purpose::Compaction | Purpose::Evaluation => None,
        };
        self.overflowed = false;
        self.reduction = 0;
        self.bar_tools = false;
        self.compactions += 1;
        let Completion { usage, cost, .. } = completion;
        self.commit(Input::FinishCompaction {
            request,
            summary,
            kept,
            usage,
            cost,
        })
        .await?;
        Ok(())
    }
}

/// Whether the provider says that the request is too long for the model.
pub(crate) fn is_overflow(error: &Error) -> bool {
    error.failure.kind == FailureKind::ContextOverflow
}

/// The summary, if the answer is one.
fn summary(completion: &Completion) -> Option<String> {
    let mut texts = Vec::new();
    for block in &completion.blocks {
        match block {
            AssistantBlock::Text { text, .. } => texts.push(text.as_str()),
            AssistantBlock::Thinking { .. } => {}
            // What it says beside a tool use is about the tool use.
            AssistantBlock::ToolUse { .. } => return None,
        }
    }
    let text = texts.join("\n");
    (!text.trim().is_empty()).then_some(text)
}
