//! Asking the model for the next answer, and showing it as it comes.

use std::sync::Arc;

use futures_util::StreamExt;
use oma_domain::EventId;
use oma_domain::event::{Failure, FailureKind, Purpose};
use oma_domain::policy::Permission;
use oma_domain::session::{Input, Reply, ReplyBlock, State, Step};
use oma_domain::usage::Spent;
use oma_models::{AssistantBlock, Chunk, Completion, Error, Model, Request, ToolChoice};
use oma_runtime::{Delta, PortError, aside};
use oma_tools::Place;

use tracing::Instrument as _;

use crate::compaction::{MAX_COMPACTIONS, is_overflow};
use crate::meter::Meter;
use crate::spans;
use crate::turn::{Run, output_limit};

/// The ids that the blocks of an arriving answer were announced under.
#[derive(Default)]
struct Announced(Vec<Option<EventId>>);

impl Announced {
    /// The block's id, and whether it is new.
    fn id(&mut self, index: usize) -> (EventId, bool) {
        if self.0.len() <= index {
            self.0.resize(index + 1, None);
        }
        let known = self.0[index].clone();
        let is_new = known.is_none();
        let id = known.unwrap_or_else(EventId::generate);
        self.0[index] = Some(id.clone());
        (id, is_new)
    }
}

impl Run<'_> {
    /// Makes one model request and commits what came of it.
    pub(crate) async fn sample(&mut self, state: &State, model: &Arc<dyn Model>) -> Result<(), PortError> {
        let thinking = self.thinking(state);
        let id = EventId::generate();
        let begin = Input::BeginRequest {
            id: id.clone(),
            model: model.name().to_owned(),
            thinking_level: thinking,
            purpose: Purpose::Reply,
            bound: self.bound(state, &**model),
        };
        let state = self.commit(begin).await?;
        if !is_sampling(&state, &id) {
            // A budget or the turn's limit ended it.
            return Ok(());
        }
        let messages = self.conversation.messages().to_vec();
        let max_tokens = output_limit(&state, &**model);
        let request = self.ask(messages, thinking, ToolChoice::Auto, max_tokens);
        let mut announced = Announced::default();
        let answered = answer(&**model, &request, |chunk| self.show(chunk, &mut announced)).await;
        match answered {
            Ok(completion) => {
                self.compactions = 0;
                let reply = self.reply(completion, model.name(), &mut announced);
                self.commit(Input::FinishRequest { request: id, reply }).await?;
                Ok(())
            }
            Err(error) => self.fail(&state, id, error).await,
        }
    }

    /// Shows a piece of an answer to whoever follows the session.
    fn show(&self, chunk: Chunk, announced: &mut Announced) {
        match chunk {
            Chunk::Text { index, text } => {
                let (event, is_new) = announced.id(index);
                if is_new {
                    self.port.delta(Delta::MessageStart { event: event.clone() });
                }
                self.port.delta(Delta::Text { event, text });
            }
            Chunk::Thinking { index, text } => {
                let (event, is_new) = announced.id(index);
                if is_new {
                    self.port.delta(Delta::ThinkingStart { event: event.clone() });
                }
                self.port.delta(Delta::Thinking { event, text });
            }
            Chunk::ToolUse { name, .. } => self.warm_sandbox(&name),
            Chunk::Done(_) => {}
        }
    }

    fn reply(&self, completion: Completion, model: &str, announced: &mut Announced) -> Reply {
        let Completion {
            blocks,
            usage,
            cost,
            stop,
        } = completion;
        let spec = &self.session.agent.spec;
        let blocks = blocks.into_iter().enumerate().map(|(index, block)| {
            let (id, _) = announced.id(index);
            match block {
                AssistantBlock::Text { text, opaque } => ReplyBlock::Text { id, text, opaque },
                AssistantBlock::Thinking { text, opaque } => ReplyBlock::Thinking { id, text, opaque },
                AssistantBlock::ToolUse {
                    call_id,
                    name,
                    input,
                    opaque,
                } => {
                    let custom = spec.is_custom_tool(&name);
                    let remote = !custom && self.is_remote(&name);
                    let permission = match custom {
                        true => Permission::Allow,
                        false => self.permission(&name),
                    };
                    ReplyBlock::ToolUse {
                        id,
                        origin: self.origin(&name),
                        name,
                        input,
                        call_id,
                        permission,
                        custom,
                        remote,
                        opaque,
                    }
                }
            }
        });
        Reply {
            blocks: blocks.collect(),
            model: model.to_owned(),
            usage,
            cost,
            stop,
        }
    }

    /// Records a failed request; waits and leaves the next attempt to the loop, or ends the turn.
    pub(crate) async fn fail(
        &mut self,
        state: &State,
        request: EventId,
        error: Error,
    ) -> Result<(), PortError> {
        if is_overflow(&error) && self.compactions < MAX_COMPACTIONS && !self.overflowed {
            self.overflowed = true;
            self.commit(Input::FailRequest {
                request,
                failure: error.failure,
                spent: *error.spent,
                retry: true,
            })
            .await?;
            return Ok(());
        }
        let refused = error.failure.kind == FailureKind::ModelRequestFailed && !error.retryable;
        if refused && self.conversation.has_unproven_media() {
            tracing::warn!(%error, "a model request with new media was refused; it is made again without them");
            let failure = Failure {
                kind: FailureKind::MediaRefused,
                ..error.failure
            };
            self.commit(Input::FailRequest {
                request,
                failure,
                spent: *error.spent,
                retry: true,
            })
            .await?;
            return Ok(());
        }
        self.retry_or_give_up(state, request, error).await
    }

    /// Records a failed request; waits and leaves the next attempt to the loop as long as there may be one, or ends the
    /// turn.
    pub(crate) async fn retry_or_give_up(
        &mut self,
        state: &State,
        request: EventId,
        error: Error,
    ) -> Result<(), PortError> {
        let attempts = 1 + state.turn().map_or(0, |turn| turn.failed_attempts);
        let delay = self.native.retry.next_delay(attempts, &error);
        let retry = delay.is_some();
        tracing::warn!(%error, attempts, retry, "a model request failed");
        self.commit(Input::FailRequest {
            request,
            failure: error.failure,
            spent: *error.spent,
            retry,
        })
        .await?;
        if let Some(delay) = delay {
            aside(self.port, tokio::time::sleep(delay)).await;
        }
        Ok(())
    }

    /// Whether a worker of the developer's carries a tool out, rather than a sandbox of ours.
    fn is_remote(&self, tool: &str) -> bool {
        let environment = self.session.environment.as_deref();
        environment.is_some_and(|environment| !environment.spec.hosting.is_cloud())
            && self.toolbox.place(tool) == Place::Sandbox
    }

    /// Starts the session's sandbox while the model still writes what the tool is to do, if there is room for it:
    /// a sandbox starts sooner than arguments are written, and a session that only talks never has one.
    fn warm_sandbox(&self, tool: &str) {
        let policy = &self.session.agent.spec.permission_policy;
        if self.toolbox.place(tool) == Place::Sandbox
            && !self.is_remote(tool)
            && policy.evaluate(tool) == Permission::Allow
            && self.native.is_built(self.session)
        {
            self.native.pool.try_warm(&self.native.sandbox_spec(self.session));
        }
    }
}

/// Makes a request and passes the pieces of its answer on.
pub(crate) async fn answer(
    model: &dyn Model,
    request: &Request,
    mut show: impl FnMut(Chunk),
) -> Result<Completion, Error> {
    let mut meter = Meter::start(model.name());
    let answering = async {
        let mut pieces = model.stream(request).await?;
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            meter.piece();
            match piece {
                Chunk::Done(completion) => return Ok(*completion),
                chunk => show(chunk),
            }
        }
        let broken_off = "the provider's answer ended before it was complete";
        Err(Error {
            spent: Box::new(Spent::unknown()),
            ..Error::passing(FailureKind::ModelOverloaded, broken_off)
        })
    };
    let span = spans::chat(model.name());
    let outcome = answering.instrument(span.clone()).await;
    spans::chatted(&span, &outcome);
    meter.end(&outcome);
    outcome
}

/// Whether the turn waits for just this request.
pub(crate) fn is_sampling(state: &State, id: &EventId) -> bool {
    state
        .turn()
        .is_some_and(|turn| matches!(&turn.step, Step::Sampling { request, .. } if request == id))
}
