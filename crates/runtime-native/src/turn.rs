//! One drive of a turn: looks at the state, does the next thing, until there is nothing left to do.

use std::sync::Arc;

use oma_domain::Seq;
use oma_domain::event::Purpose;
use oma_domain::quota::Bound;
use oma_domain::session::{Input, State, Step};
use oma_domain::thinking::ThinkingLevel;
use oma_models::{Message, Model, Request, ToolChoice, ToolSpec};
use oma_runtime::{Committed, Port, PortError, SessionInfo};
use oma_tools::Toolbox;

use crate::Native;
use crate::conversation::Conversation;
use crate::delegation;

/// How few bytes of text make a token in the worst case that is reckoned with.
pub(crate) const LEAST_BYTES_PER_TOKEN: u64 = 2;
/// What a provider adds to a request by itself, in tokens: its own words about tools, and the marks of messages.
const OVERHEAD_TOKENS: u64 = 500;
/// The output that a request is limited to when it has to be limited and the model's own limit is unknown:
/// providers refuse a request for more than that.
const CAUTIOUS_OUTPUT: u64 = 8_192;

/// The output tokens that a request is limited to, given what the budgets leave.
pub(crate) fn output_limit(state: &State, model: &dyn Model) -> Option<u32> {
    let Some(Step::Sampling { max_output, .. }) = state.turn().map(|turn| &turn.step) else {
        return None;
    };
    let most = if model.max_output().is_none() {
        CAUTIOUS_OUTPUT
    } else {
        u64::MAX
    };
    max_output.map(|tokens| u32::try_from(tokens.min(most)).unwrap_or(u32::MAX))
}

/// What a drive carries from step to step. Everything in it can be made again from the log.
pub(crate) struct Run<'a> {
    pub(crate) native: &'a Native,
    pub(crate) session: &'a SessionInfo,
    pub(crate) port: &'a dyn Port,
    pub(crate) toolbox: Toolbox,
    pub(crate) conversation: Conversation,
    /// Tool uses open now may have run before a restart.
    pub(crate) recovering: bool,
    /// The provider has said that the context is too long; cleared by a compaction.
    pub(crate) overflowed: bool,
    /// Compactions since the last answer.
    pub(crate) compactions: u32,
    /// How far the history has to be reduced for a summary of it to be asked for.
    pub(crate) reduction: u32,
    /// The model has used a tool instead of writing a summary, so it gets no chance to do it again.
    pub(crate) bar_tools: bool,
}

impl Run<'_> {
    /// Does the turn's work. Returns when the turn is over or blocked, or the port is gone. A turn that follows
    /// directly is left to the next drive: it has its own place in the line, and its own trace.
    pub(crate) async fn go(&mut self) -> Result<(), PortError> {
        // Only tool uses that are open now can have been started before.
        self.recovering &= !self.port.state().0.open_tools().is_empty();
        let first = self.port.state().0.turn().map(|turn| turn.id.clone());
        loop {
            let (state, head) = self.port.state();
            let Some(turn) = state.turn().filter(|_| state.is_running()) else {
                return Ok(());
            };
            if Some(&turn.id) != first.as_ref() {
                return Ok(());
            }
            let step = match &turn.step {
                Step::Ready => self.request(&state, head, turn.purpose).await,
                Step::Acting { .. } => self.act().await,
                // Another drive's request: the engine closes it before it lets a new drive begin.
                Step::Sampling { .. } => return Ok(()),
            };
            match step {
                Ok(()) => {}
                // Something came between, for example a confirmation: look again.
                Err(PortError::Rejected(rejection)) => {
                    tracing::debug!(%rejection, "a step was overtaken");
                    let (now, _) = self.port.state();
                    if *now == *state {
                        return Err(PortError::Rejected(rejection));
                    }
                }
                Err(gone @ PortError::Gone(_)) => return Err(gone),
            }
        }
    }

    async fn request(&mut self, state: &State, head: Seq, purpose: Purpose) -> Result<(), PortError> {
        let name = state.model.as_deref().unwrap_or(&self.session.agent.spec.model);
        let model = match self.native.models.resolve(name) {
            Ok(model) => model,
            Err(error) => {
                self.commit(Input::FailTurn {
                    failure: error.failure,
                })
                .await?;
                return Ok(());
            }
        };
        self.conversation.catch_up(self.port, head).await?;
        if purpose == Purpose::Compaction || self.is_full(state, &*model) {
            self.compact(&model, purpose).await
        } else {
            self.sample(state, &model).await
        }
    }

    /// Whether the context has to be summarised before the next request.
    fn is_full(&self, state: &State, model: &dyn Model) -> bool {
        let tokens = state.context_tokens + self.conversation.uncounted_tokens();
        self.overflowed || (self.compactions == 0 && tokens >= self.room(model))
    }

    /// How many tokens the context may have.
    pub(crate) fn room(&self, model: &dyn Model) -> u64 {
        model.context_window() / 100 * self.native.config.compact_at_percent
    }

    /// How hard the session thinks now.
    pub(crate) fn thinking(&self, state: &State) -> ThinkingLevel {
        state
            .thinking_level
            .unwrap_or(self.session.agent.spec.thinking_level)
    }

    /// What a request over the conversation can consume and cost at the most. What the provider has counted
    /// counts as it said; what came since, and a conversation that it never counted, is reckoned so that it is
    /// hardly ever too little.
    pub(crate) fn bound(&self, state: &State, model: &dyn Model) -> Bound {
        let counted = if self.conversation.is_counted() {
            state.context_tokens
        } else {
            self.fixed_bytes() / LEAST_BYTES_PER_TOKEN
        };
        let input = counted + self.conversation.most_uncounted_tokens() + OVERHEAD_TOKENS;
        Bound {
            input,
            output: model.max_output().unwrap_or_else(|| model.context_window()),
            price: model.price(input),
        }
    }

    /// What is part of every request, in bytes: instructions and tools.
    fn fixed_bytes(&self) -> u64 {
        let tools = self.toolbox.definitions();
        let tools = tools
            .iter()
            .map(|tool| tool.name.len() + tool.description.len() + tool.input_schema.to_string().len());
        let call = delegation::definition(self.session);
        let call = call.map_or(0, |tool| {
            tool.description.len() + tool.input_schema.to_string().len()
        });
        (self.session.agent.spec.instructions.len() + tools.sum::<usize>() + call) as u64
    }

    /// A request with these messages, within what the budgets leave for it. All requests of a session are the same but for their messages, because
    /// providers cache a request by its start.
    pub(crate) fn ask(
        &self,
        messages: Vec<Message>,
        thinking: ThinkingLevel,
        tool_choice: ToolChoice,
        max_tokens: Option<u32>,
    ) -> Request {
        let tools = self.toolbox.definitions().into_iter().map(|tool| ToolSpec {
            name: tool.name,
            description: tool.description,
            input_schema: tool.input_schema,
        });
        let tools = tools.chain(delegation::definition(self.session));
        Request {
            system: self.session.agent.spec.instructions.clone(),
            messages,
            tools: tools.collect(),
            tool_choice,
            thinking,
            max_tokens,
            cache_key: self.session.id.to_string(),
        }
    }

    /// Commits an input and folds what it appended into the conversation.
    pub(crate) async fn commit(&mut self, input: Input) -> Result<Arc<State>, PortError> {
        let Committed { state, events } = self.port.commit(input).await?;
        self.conversation.extend(&events);
        Ok(state)
    }
}
