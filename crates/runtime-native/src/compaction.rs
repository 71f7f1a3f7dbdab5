//! Summarising the history, so that the context fits the model again.

use std::sync::Arc;

use futures_util::StreamExt;
use oma_domain::event::{FailureKind, Purpose};
use oma_domain::session::Input;
use oma_domain::thinking::ThinkingLevel;
use oma_domain::{ContentBlock, EventId};
use oma_models::{AssistantBlock, Chunk, Completion, Error, Message, Model, Request, UserBlock};
use oma_runtime::PortError;

use crate::sampling::is_sampling;
use crate::turn::Run;

/// The most compactions without an answer between them: more lead nowhere.
pub(crate) const MAX_COMPACTIONS: u32 = 2;
/// How far the history is reduced at the most when even the request for a summary is too long.
const MAX_REDUCTION: u32 = 5;

const SYSTEM: &str = "You summarise conversations between a user and an agent that works with tools. \
Whoever reads your summary has to go on with the work from it alone.";

const ASK: &str = "Summarise the conversation above so that the work can go on from your summary alone. State: \
what the user wants, with all requirements and preferences they gave; what has been done and found out, with \
file names, commands, values and decisions that matter; what did not work; what remains to be done and the \
next step. Leave out pleasantries. Answer with the summary only, and use no tool.";

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
        let id = EventId::generate();
        let begin = Input::BeginRequest {
            id: id.clone(),
            model: model.name().to_owned(),
            thinking_level: ThinkingLevel::Off,
            purpose: Purpose::Compaction,
        };
        let state = self.commit(begin).await?;
        if !is_sampling(&state, &id) {
            return Ok(());
        }
        let messages = self.conversation.reduced(self.reduction);
        match summary(&**model, messages, self.session.id.to_string()).await {
            Ok((mut summary, completion)) => {
                if purpose == Purpose::Reply
                    && let Some(request) = self.conversation.last_user_text()
                {
                    summary.push_str("\n\nThe user's latest message, word for word; go on answering it:\n\n");
                    summary.push_str(&request);
                }
                let Completion { usage, cost, .. } = completion;
                self.overflowed = false;
                self.reduction = 0;
                self.compactions += 1;
                self.commit(Input::FinishCompaction {
                    request: id,
                    summary,
                    kept: None,
                    usage,
                    cost,
                })
                .await?;
                Ok(())
            }
            Err(error) if is_overflow(&error) && self.reduction < MAX_REDUCTION => {
                self.reduction += 1;
                self.commit(Input::FailRequest {
                    request: id,
                    failure: error.failure,
                    spent: oma_domain::usage::Spent::Nothing,
                    retry: true,
                })
                .await?;
                Ok(())
            }
            Err(error) => self.fail(&state, id, error).await,
        }
    }
}

/// Whether the provider says that the request is too long for the model.
pub(crate) fn is_overflow(error: &Error) -> bool {
    error.failure.kind == FailureKind::ContextOverflow
}

async fn summary(
    model: &dyn Model,
    mut messages: Vec<Message>,
    cache_key: String,
) -> Result<(String, Completion), Error> {
    messages.push(Message::User(vec![UserBlock::Content(ContentBlock::text(ASK))]));
    let request = Request {
        system: SYSTEM.to_owned(),
        messages,
        tools: Vec::new(),
        thinking: ThinkingLevel::Off,
        max_tokens: None,
        cache_key,
    };
    let mut pieces = model.stream(&request).await?;
    while let Some(piece) = pieces.next().await {
        let Chunk::Done(completion) = piece? else { continue };
        let text: Vec<&str> = completion
            .blocks
            .iter()
            .filter_map(|block| match block {
                AssistantBlock::Text { text, .. } => Some(text.as_str()),
                AssistantBlock::Thinking { .. } | AssistantBlock::ToolUse { .. } => None,
            })
            .collect();
        if text.is_empty() {
            return Err(Error::passing(
                FailureKind::ModelRequestFailed,
                "the model gave no summary",
            ));
        }
        return Ok((text.join("\n"), *completion));
    }
    Err(Error::passing(
        FailureKind::ModelOverloaded,
        "the provider's answer ended before it was complete",
    ))
}
