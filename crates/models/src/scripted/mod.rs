//! Built-in models that need no key: for people who test an application against the service.
//!
//! - `scripted/echo` answers with the last text that the user sent.
//! - `scripted/script` follows a script in JSON, which is the agent's instructions or a fenced block marked
//!   `script` inside them. `docs/scripted-model.md` describes it for users.
//!
//! Where a script stands is read from the conversation alone: how many times the user spoke, and how often the
//! model answered since. So an answer depends on nothing but the request, and a turn that is made again after
//! a restart goes the same way. Nothing is random and nothing is kept between requests.
//!
//! A request that wants no tools used is the runtime's wish for a summary. It gets one that lists what the user
//! said. One whose only tool gives a verdict is the runtime's question to a grader: it is answered by the script in the
//! rubric, or with satisfaction where the rubric has none.
//!
//! Invariant: any script and any conversation give an answer or an error that says what is wrong.

mod play;
mod script;

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use oma_domain::event::FailureKind;
use oma_domain::outcome::VERDICT_TOOL;
use oma_domain::quota::Price;

use crate::price::Prices;
use crate::registry::ModelInfo;
use crate::request::{Chunk, Completion, ModelStream, Request, ToolChoice};
use crate::{Error, Model};

/// The provider's name.
pub const PROVIDER: &str = "scripted";

/// What the models say their context window is, in tokens.
const CONTEXT_WINDOW: u64 = 200_000;

/// A built-in model.
struct Builtin {
    /// `provider/model`.
    name: &'static str,
    /// What it answers when nothing special is asked of it.
    answer: fn(&Request) -> Result<ModelStream, Error>,
    prices: Prices,
}

#[async_trait]
impl Model for Builtin {
    fn name(&self) -> &str {
        self.name
    }

    fn context_window(&self) -> u64 {
        CONTEXT_WINDOW
    }

    fn max_output(&self) -> Option<u64> {
        Some(CONTEXT_WINDOW)
    }

    fn price(&self, input: u64) -> Option<Price> {
        self.prices.most(input)
    }

    async fn stream(&self, request: &Request) -> Result<ModelStream, Error> {
        let answer = special(request).unwrap_or_else(|| (self.answer)(request));
        answer.map(|answer| priced(answer, &self.prices))
    }
}

/// Follows the script in the system prompt.
fn follow(request: &Request) -> Result<ModelStream, Error> {
    match script::find(&request.system) {
        Ok(Some(script)) => play::follow(&script, request),
        Ok(None) => Err(Error::fatal(FailureKind::ModelRequestFailed, script::MISSING)),
        Err(message) => Err(Error::fatal(FailureKind::ModelRequestFailed, message)),
    }
}

/// The answer to what is asked of both models alike: a grader's verdict, a summary.
fn special(request: &Request) -> Option<Result<ModelStream, Error>> {
    if matches!(request.tools.as_slice(), [tool] if tool.name == VERDICT_TOOL) {
        return Some(play::grade(request));
    }
    (request.tool_choice != ToolChoice::Auto).then(|| play::summary(request))
}

/// The answer with what it costs, should the operator have given the model a price.
fn priced(answer: ModelStream, prices: &Prices) -> ModelStream {
    let prices = prices.clone();
    Box::pin(answer.map(move |piece| match piece {
        Ok(Chunk::Done(completion)) => {
            let cost = prices.cost(&completion.usage);
            Ok(Chunk::Done(Box::new(Completion { cost, ..*completion })))
        }
        piece => piece,
    }))
}

/// Whether a system prompt has a script that can be read.
#[cfg(any(test, fuzzing))]
pub(crate) fn has_script(system: &str) -> Result<bool, String> {
    script::find(system).map(|script| script.is_some())
}

/// A built-in model by the part of its name after `scripted/`.
pub(crate) fn resolve(model: &str, prices: Prices) -> Result<Arc<dyn Model>, Error> {
    let (name, answer): (_, fn(&Request) -> _) = match model {
        "echo" => ("scripted/echo", play::echo),
        "script" => ("scripted/script", follow),
        _ => {
            let message = "the built-in models are scripted/echo and scripted/script";
            return Err(Error::fatal(FailureKind::ModelUnavailable, message));
        }
    };
    Ok(Arc::new(Builtin { name, answer, prices }))
}

/// The built-in models as the list shows them.
pub(crate) fn models() -> Vec<ModelInfo> {
    [
        ("echo", "Built-in: echo"),
        ("script", "Built-in: follows a script in the instructions"),
    ]
    .map(|(model, name)| ModelInfo {
        id: format!("{PROVIDER}/{model}"),
        provider: PROVIDER.to_owned(),
        name: Some(name.to_owned()),
        context_window: Some(CONTEXT_WINDOW),
        input_modalities: vec!["text".to_owned(), "image".to_owned(), "document".to_owned()],
        configured: true,
    })
    .into()
}

#[cfg(test)]
mod tests;
