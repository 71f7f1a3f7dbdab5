//! Summaries in the midst of a turn.

use oma_domain::content::Source;
use oma_domain::event::{Body, Kept};
use oma_domain::session::Input;
use oma_domain::{ContentBlock, Seq};
use oma_fake_provider::{Gate, Reply};
use oma_runtime::Port;
use serde_json::{Value, json};

use crate::bench::{Bench, MODELS};

const WORDS: &str = "Name the file \u{201c}Straße-7.txt\u{201d}, exactly so.";
const PICTURE: &str = "UE5HIGRhdGE=";

fn image(data: &str) -> ContentBlock {
    ContentBlock::Image {
        source: Source::Base64 {
            media_type: "image/png".to_owned(),
            data: data.to_owned(),
        },
    }
}

fn tool() -> Reply {
    Reply::new().tool("bash", json!({"command": "true"}))
}

/// A request's body without its conversation, and what says whether tools may be used.
fn frame(body: &Value) -> Value {
    let mut body = body.clone();
    if let Some(fields) = body.as_object_mut() {
        for key in ["messages", "input", "contents", "tool_choice"] {
            fields.remove(key);
        }
    }
    body
}

#[tokio::test]
async fn the_turns_own_message_is_kept_word_for_word() {
    for model in MODELS {
        let bench = Bench::start(model, 200_000).await;
        let provider = &bench.provider;
        bench.post(vec![ContentBlock::text(WORDS), image(PICTURE)]);
        provider.push(tool());
        bench.push_overflow();
        provider.push(Reply::new().text("The first summary."));
        provider.push(Reply::new().gate(&Gate::new()).text("never"));
        bench.crash_at_request(4).await;
        provider.push(tool());
        bench.push_overflow();
        provider.push(Reply::new().text("The second summary."));
        provider.push(Reply::new().text("Done."));
        bench.drive().await;
        assert!(!bench.state().is_running(), "{model}");

        let shown = |number: usize, text: &str| bench.request(number).body.to_string().contains(text);
        for number in 1..=8 {
            assert!(
                shown(number, WORDS) && shown(number, PICTURE),
                "{model}, request {number}"
            );
        }
        for number in [4, 5, 6, 7] {
            assert!(shown(number, "The first summary."), "{model}, request {number}");
        }
        assert!(
            shown(8, "The second summary.") && !shown(8, "The first summary."),
            "{model}"
        );
        assert_eq!(
            bench.request(4).body,
            bench.request(5).body,
            "{model}: a restart changes nothing"
        );
        for (before, summary) in [(2, 3), (6, 7)] {
            let (before, summary) = (bench.request(before).body, bench.request(summary).body);
            assert_eq!(
                frame(&before),
                frame(&summary),
                "{model}: the prompt cache holds both"
            );
        }

        // The next turn still sees the message where it stood, and its own after it.
        bench.post(vec![ContentBlock::text("And now?")]);
        provider.push(Reply::new().text("Nothing."));
        bench.drive().await;
        let body = bench.request(9).body.to_string();
        let places: Vec<Option<usize>> = [WORDS, "The second summary.", "Done.", "And now?"]
            .iter()
            .map(|text| body.find(text))
            .collect();
        assert!(
            places.is_sorted() && places.iter().all(Option::is_some),
            "{model}: {places:?}"
        );
        provider.assert_clean();
    }
}

#[tokio::test]
async fn a_message_of_pictures_alone_is_kept() {
    let bench = Bench::start(MODELS[0], 200_000).await;
    bench.post(vec![image(PICTURE)]);
    bench.push_overflow();
    bench.provider.push(Reply::new().text("A summary."));
    bench.provider.push(Reply::new().text("Done."));
    bench.drive().await;
    assert!(bench.request(3).body.to_string().contains(PICTURE));
}

#[tokio::test]
async fn what_does_not_fit_is_left_out_and_said_so() {
    let bench = Bench::start("small/model", 20_000).await;
    let long = format!("The order is: {} Answer in French.", "é long ".repeat(8_000));
    bench.post(vec![
        ContentBlock::text(&long),
        ContentBlock::text(WORDS),
        image(PICTURE),
    ]);
    bench.push_overflow();
    bench.provider.push(Reply::new().text("A summary."));
    // Even that is too much, so less is kept the next time.
    bench.push_overflow();
    bench.provider.push(Reply::new().text("Another summary."));
    bench.provider.push(Reply::new().text("Done."));
    bench.drive().await;
    let shown = |number: usize, text: &str| bench.request(number).body.to_string().contains(text);
    let log = bench.log.history(Seq(0), 100).await.expect("a log");
    let kept: Vec<Kept> = log
        .iter()
        .filter_map(|event| match &*event.body {
            Body::Compaction { kept, .. } => kept.clone(),
            _ => None,
        })
        .collect();
    for (number, kept) in [(3, &kept[0]), (5, &kept[1])] {
        let [cut] = &kept.cut[..] else {
            panic!("one text is cut: {kept:?}")
        };
        let left_out = long.len() - cut.head - cut.tail;
        assert_eq!(cut.block, 0);
        assert!(
            shown(number, "The order is: ")
                && shown(number, "Answer in French.")
                && shown(
                    number,
                    &format!("[{left_out} bytes of this text are left out here]")
                )
                && shown(number, "it is too long to be kept whole")
                && !shown(number, "word for word")
                && !shown(number, &long),
            "request {number}"
        );
        // All the room that there is, but for what a character takes.
        let room: usize = if number == 3 { 32_000 - 6_400 } else { 4_000 };
        let used = cut.head + cut.tail + WORDS.len();
        assert!((room - 4..=room).contains(&used), "{used} of {room}");
    }
    assert!(shown(3, WORDS) && shown(3, PICTURE));
    assert!(shown(5, WORDS) && shown(5, "[an image was left out]") && !shown(5, PICTURE));
    let kept: Vec<Vec<usize>> = kept.into_iter().map(|kept| kept.whole).collect();
    assert_eq!(kept, [vec![1, 2], vec![1]]);
    assert!(!bench.state().is_running());
}

#[tokio::test]
async fn a_summary_that_a_client_asks_for_keeps_no_message() {
    let bench = Bench::start(MODELS[0], 200_000).await;
    bench.post(vec![ContentBlock::text(WORDS)]);
    bench.provider.push(Reply::new().text("Done."));
    bench.drive().await;
    bench.log.feed(Input::Compact { charged: None }).expect("legal");
    bench.provider.push(Reply::new().text("A summary."));
    bench.drive().await;
    bench.post(vec![ContentBlock::text("And now?")]);
    bench.provider.push(Reply::new().text("Nothing."));
    bench.drive().await;
    let body = bench.request(3).body.to_string();
    assert!(body.contains("A summary.") && body.contains("And now?") && !body.contains(WORDS));
    assert_eq!(
        frame(&bench.request(1).body),
        frame(&bench.request(2).body),
        "the prompt cache holds both"
    );
}

#[tokio::test]
async fn a_model_that_uses_tools_instead_is_asked_again_without() {
    for (model, barred) in [
        (MODELS[0], json!({"type": "none"})),
        (MODELS[1], json!("none")),
        (MODELS[4], Value::Null),
    ] {
        let bench = Bench::start(model, 200_000).await;
        bench.post(vec![ContentBlock::text(WORDS)]);
        bench.provider.push(Reply::new().text("Done."));
        bench.drive().await;
        bench.log.feed(Input::Compact { charged: None }).expect("legal");
        bench.provider.push(tool().text("Let me look."));
        bench.provider.push(Reply::new().text("A summary."));
        bench.drive().await;
        assert_eq!(bench.request(2).body["tool_choice"], Value::Null, "{model}");
        assert_eq!(bench.request(3).body["tool_choice"], barred, "{model}");
        // 120 tokens a request, each a thousandth of a dollar: what was no summary has its price, too.
        assert_eq!(bench.state().usage.total(), 360, "{model}");
        let total = bench.state().cost.total().map(|cost| cost.0 / 1_000_000);
        assert_eq!(total, Some(360), "{model}");
    }
}
