//! What failed requests cost.

use oma_domain::ContentBlock;
use oma_fake_provider::{Reply, Step};

use crate::bench::{Bench, MODELS};

#[tokio::test]
async fn an_answer_that_is_cut_off_makes_the_cost_unknown_and_counts_what_was_reported() {
    for (model, reported) in MODELS.into_iter().zip([101, 0, 0, 1, 0]) {
        let bench = Bench::start(model, 200_000).await;
        bench.post(vec![ContentBlock::text("hi")]);
        bench.provider.push(Reply::new().text("some").step(Step::Cut));
        bench.provider.push(Reply::new().text("whole"));
        bench.drive().await;
        let state = bench.state();
        assert_eq!(state.cost.total(), None, "{model}");
        assert_eq!(state.usage.total(), 120 + reported, "{model}");
        // A budget still counts what is known: a thousandth of a dollar a token.
        assert_eq!(state.cost.known.0 / 1_000_000, 120 + reported, "{model}");
    }
}

#[tokio::test]
async fn a_request_that_is_refused_leaves_the_cost_known() {
    for model in MODELS {
        let bench = Bench::start(model, 200_000).await;
        bench.post(vec![ContentBlock::text("hi")]);
        bench
            .provider
            .push(Reply::failure(529, "overloaded_error", "Overloaded"));
        bench.provider.push(Reply::new().text("whole"));
        bench.drive().await;
        let total = bench.state().cost.total().map(|cost| cost.0 / 1_000_000);
        assert_eq!(total, Some(120), "{model}");
    }
}
