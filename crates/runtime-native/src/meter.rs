//! Metrics of model requests. The provider is the only label that names something: there are as many as are
//! configured, while models have no end.

use std::time::Instant;

use oma_domain::usage::{Cost, Spent, Usage};
use oma_models::{Completion, Error};

/// Measures one request. One that is dropped before it has ended counts as cancelled.
pub(crate) struct Meter {
    provider: String,
    begun: Instant,
    has_begun: bool,
    has_ended: bool,
}

impl Meter {
    /// A request to a model begins; `model` is `provider/model`.
    pub(crate) fn start(model: &str) -> Self {
        let (provider, _) = model.split_once('/').unwrap_or((model, ""));
        Self {
            provider: provider.to_owned(),
            begun: Instant::now(),
            has_begun: false,
            has_ended: false,
        }
    }

    fn provider(&self) -> String {
        self.provider.clone()
    }

    /// A piece of its answer has come.
    pub(crate) fn piece(&mut self) {
        if !std::mem::replace(&mut self.has_begun, true) {
            metrics::histogram!("model_first_token_seconds", "provider" => self.provider())
                .record(self.begun.elapsed());
        }
    }

    /// It has ended.
    pub(crate) fn end(mut self, outcome: &Result<Completion, Error>) {
        self.has_ended = true;
        match outcome {
            Ok(completion) => {
                self.count("ok");
                metrics::histogram!("model_request_duration_seconds", "provider" => self.provider())
                    .record(self.begun.elapsed());
                self.spend(
                    &completion.usage,
                    completion.cost.as_ref(),
                    completion.cost.is_some(),
                );
            }
            Err(error) => {
                self.count(error.failure.kind.as_str());
                match &*error.spent {
                    Spent::Nothing => {}
                    Spent::All { usage, cost } => self.spend(usage, cost.as_ref(), cost.is_some()),
                    Spent::AtLeast { usage, cost, .. } => self.spend(usage, cost.as_ref(), false),
                }
            }
        }
    }

    fn count(&self, outcome: &'static str) {
        metrics::counter!("model_requests_total", "provider" => self.provider(), "outcome" => outcome)
            .increment(1);
    }

    fn spend(&self, usage: &Usage, cost: Option<&Cost>, is_known: bool) {
        let Usage {
            input,
            output,
            cache_read,
            cache_write,
        } = *usage;
        for (kind, tokens) in [
            ("input", input),
            ("output", output),
            ("cache_read", cache_read),
            ("cache_write", cache_write),
        ] {
            metrics::counter!("model_tokens_total", "provider" => self.provider(), "kind" => kind)
                .increment(tokens);
        }
        let cost = cost.map_or(0, |cost| cost.amount.0);
        metrics::counter!("model_cost_nanousd_total", "provider" => self.provider()).increment(cost);
        metrics::counter!("model_requests_unpriced_total", "provider" => self.provider())
            .increment(u64::from(!is_known));
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if !self.has_ended {
            self.count("cancelled");
            self.spend(&Usage::default(), None, false);
        }
    }
}
