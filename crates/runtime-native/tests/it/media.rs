//! Images and documents that a provider does not take.

use oma_domain::content::Source;
use oma_domain::event::{Body, FailureKind, StopReason};
use oma_domain::session::Phase;
use oma_domain::{ContentBlock, Timestamp};
use oma_fake_provider::Reply;

use crate::bench::{Bench, MODELS};

const BROKEN: &str = "AAAA";

fn image() -> ContentBlock {
    ContentBlock::Image {
        source: Source::Base64 {
            media_type: "image/png".to_owned(),
            data: BROKEN.to_owned(),
        },
    }
}

fn refusal() -> Reply {
    Reply::failure(400, "invalid_request_error", "could not process the image")
}

#[tokio::test]
async fn a_refused_image_does_not_wedge_the_session() {
    for model in MODELS {
        let mut bench = Bench::start(model, 200_000).await;
        bench.post(vec![ContentBlock::text("look"), image()]);
        bench.provider.push(refusal());
        bench.provider.push(Reply::new().text("I can't see it."));
        bench.drive().await;
        let ended = |bench: &Bench| {
            matches!(
                bench.state().phase,
                Phase::Idle {
                    stop: Some(StopReason::EndTurn)
                }
            )
        };
        assert!(ended(&bench), "{model}: {:?}", bench.state().phase);
        let refused = bench.events().iter().any(|event| {
            matches!(&*event.body, Body::Error { failure, retrying: true } if failure.kind == FailureKind::MediaRefused)
        });
        assert!(refused, "{model}");
        bench.post(vec![ContentBlock::text("and now?")]);
        bench.provider.push(Reply::new().text("Fine."));
        bench.drive().await;
        assert!(ended(&bench), "{model}");
        let has_image =
            |bench: &Bench, number: usize| bench.request(number).body.to_string().contains(BROKEN);
        assert_eq!(
            [1, 2, 3].map(|number| has_image(&bench, number)),
            [true, false, false],
            "{model}: only the first request has it"
        );
        // What the log says is what a restarted server reads out of it.
        bench.info.created_at = Timestamp(1);
        bench.post(vec![ContentBlock::text("still there?")]);
        bench.provider.push(Reply::new().text("Yes."));
        bench.drive().await;
        assert!(!has_image(&bench, 4), "{model}");
    }
}

#[tokio::test]
async fn a_refusal_of_something_else_ends_the_turn_at_once() {
    let bench = Bench::start(MODELS[0], 200_000).await;
    bench.post(vec![ContentBlock::text("look"), image()]);
    bench.provider.push(Reply::new().text("Nice."));
    bench.drive().await;
    bench.post(vec![ContentBlock::text("more")]);
    bench.provider.push(refusal());
    bench.drive().await;
    let stop = bench.state().phase.clone();
    assert!(
        matches!(
            stop,
            Phase::Idle {
                stop: Some(StopReason::Failed { .. })
            }
        ),
        "{stop:?}"
    );
}
