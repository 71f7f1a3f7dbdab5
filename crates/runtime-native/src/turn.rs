//! One drive of a turn: looks at the state, does the next thing, until there is nothing left to do.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use oma_domain::Seq;
use oma_domain::event::{Failure, FailureKind, Purpose};
use oma_domain::origin::Origin;
use oma_domain::outcome::{Goal, Stage};
use oma_domain::policy::Permission;
use oma_domain::quota::Bound;
use oma_domain::session::{Input, State, Step};
use oma_domain::thinking::ThinkingLevel;
use oma_domain::tokens::at_most;
use oma_models::{Message, Model, Request, ToolChoice, ToolSpec};
use oma_runtime::{Committed, Port, PortError, SessionInfo, aside};
use oma_tools::Toolbox;

use crate::Native;
use crate::conversation::Conversation;
use crate::{advice, delegation, threads, workflows};

/// What a provider adds to a request by itself, in tokens: its own words about tools, and the marks of messages.
pub(crate) const OVERHEAD_TOKENS: u64 = 500;
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

/// The outcome that a grader is to look at now.
fn evaluated(state: &State, purpose: Purpose) -> Option<&Goal> {
    let goal = state.goal.as_ref().filter(|_| purpose == Purpose::Reply)?;
    matches!(goal.stage, Stage::Evaluating { .. }).then_some(goal)
}

/// What a drive carries from step to step. Everything in it can be made again from the log.
pub(crate) struct Run<'a> {
    pub(crate) native: &'a Native,
    pub(crate) session: &'a SessionInfo,
    pub(crate) port: &'a dyn Port,
    /// The system prompt: the same in all requests of the session.
    pub(crate) system: String,
    pub(crate) toolbox: Toolbox,
    pub(crate) conversation: Conversation,
    /// The session's MCP servers, if its agent names some.
    pub(crate) servers: Option<oma_mcp::Handle>,
    /// What they offered when they were asked last.
    pub(crate) offered: Option<oma_mcp::Tools>,
    /// What the log of this turn says of them already.
    pub(crate) told: HashSet<Failure>,
    /// Tool uses open now may have run before a restart.
    pub(crate) recovering: bool,
    /// How often what a grader is shown has been halved because it did not fit.
    pub(crate) halved: u32,
    /// The provider has said that the context is too long; cleared by a compaction.
    pub(crate) overflowed: bool,
    /// Compactions since the last answer.
    pub(crate) compactions: u32,
    /// How far the history has to be reduced for a summary of it to be asked for.
    pub(crate) reduction: u32,
    /// The model has used a tool instead of writing a summary, so it gets no chance to do it again.
    pub(crate) bar_tools: bool,
    /// Why a tool of this turn had no sandbox: its environment can't be built.
    pub(crate) unbuilt: Arc<Mutex<Option<String>>>,
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
        if let Some(goal) = evaluated(state, purpose) {
            return self.grade(state, goal, head).await;
        }
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
        let unbuilt = self.unbuilt.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Nothing that needs the sandbox could work, and something does.
        if let Some(message) = unbuilt {
            let failure = Failure {
                kind: FailureKind::EnvironmentBuild,
                message,
            };
            self.commit(Input::FailTurn { failure }).await?;
            return Ok(());
        }
        for failure in self.native.pool.take_failures(&self.session.id) {
            self.commit(Input::Remark { failure }).await?;
        }
        self.ask_servers().await?;
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
            self.fixed_tokens()
        };
        let input = counted + self.conversation.most_uncounted_tokens() + OVERHEAD_TOKENS;
        Bound {
            input,
            output: model.max_output().unwrap_or_else(|| model.context_window()),
            price: model.price(input),
        }
    }

    /// The most tokens of what is part of every request: instructions and tools.
    fn fixed_tokens(&self) -> u64 {
        let tools = self.tools().into_iter().map(|tool| {
            at_most(&tool.name) + at_most(&tool.description) + at_most(&tool.input_schema.to_string())
        });
        at_most(&self.system) + tools.sum::<u64>()
    }

    /// The tools that the model is told of: the built-in ones, the call of other agents, those that the client carries
    /// out, and those of MCP servers.
    fn tools(&self) -> Vec<ToolSpec> {
        let built_in = self.toolbox.definitions().into_iter().map(|tool| ToolSpec {
            name: tool.name,
            description: tool.description,
            input_schema: tool.input_schema,
        });
        let offered = self.offered.iter().flat_map(oma_mcp::Tools::definitions);
        let of_servers = offered
            .filter(|tool| self.permission(&tool.name) != Permission::Deny)
            .map(|tool| ToolSpec {
                name: tool.name.clone(),
                description: tool.description.clone(),
                input_schema: tool.input_schema.clone(),
            });
        let custom = self.session.agent.spec.custom_tools.iter().map(|tool| ToolSpec {
            name: tool.name.clone(),
            description: tool.description.clone(),
            input_schema: tool.input_schema.clone(),
        });
        built_in
            .chain(delegation::definition(self.session))
            .chain(threads::definitions(self.session, &self.toolbox))
            .chain(advice::definition(self.session))
            .chain(workflows::definition(self.session))
            .chain(custom)
            .chain(of_servers)
            .collect()
    }

    /// What the agent's policy says of a tool.
    pub(crate) fn permission(&self, name: &str) -> Permission {
        // They are in no set of tools: who is in the list of members, and whether there is an advisor, says enough.
        if threads::is_one(self.session, name)
            || advice::is_it(self.session, name)
            || workflows::is_it(self.session, name)
        {
            return Permission::Allow;
        }
        let policy = &self.session.agent.spec.permission_policy;
        match &self.offered {
            Some(offered) => offered.permission(policy, name),
            None => policy.evaluate(name),
        }
    }

    /// Where a tool comes from, and who is to say whether it runs.
    pub(crate) fn origin(&self, name: &str) -> Origin {
        let spec = &self.session.agent.spec;
        let offered = self.offered.as_ref();
        offered
            .and_then(|offered| offered.origin(&spec.permission_policy, name))
            .unwrap_or_else(|| oma_mcp::origin(spec, name))
    }

    /// A request with these messages, within what the budgets leave for it. All requests of a session are the same
    /// but for their messages, because providers cache a request by its start.
    pub(crate) fn ask(
        &self,
        messages: Vec<Message>,
        thinking: ThinkingLevel,
        tool_choice: ToolChoice,
        max_tokens: Option<u32>,
    ) -> Request {
        Request {
            system: self.system.clone(),
            messages,
            tools: self.tools(),
            tool_choice,
            thinking,
            max_tokens,
            cache_key: self.session.id.to_string(),
        }
    }

    /// Asks the MCP servers what they offer now, within a bounded time. The log says which of them are of no use;
    /// the turn goes on without them.
    pub(crate) async fn ask_servers(&mut self) -> Result<(), PortError> {
        let Some(servers) = &self.servers else {
            return Ok(());
        };
        let ready = aside(self.port, servers.ready()).await;
        self.offered = Some(ready.tools);
        for trouble in ready.troubles {
            let failure = trouble.error.failure(&trouble.server);
            if self.told.insert(failure.clone()) {
                self.commit(Input::Remark { failure }).await?;
            }
        }
        Ok(())
    }

    /// Commits an input and folds what it appended into the conversation.
    pub(crate) async fn commit(&mut self, input: Input) -> Result<Arc<State>, PortError> {
        let Committed { state, events } = self.port.commit(input).await?;
        self.conversation.extend(&events);
        Ok(state)
    }
}
