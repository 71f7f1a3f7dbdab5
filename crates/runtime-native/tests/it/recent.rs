//! Turns that follow each other.

use oma_domain::{ContentBlock, Seq, Timestamp};
use oma_fake_provider::Reply;
use oma_runtime::Port;

use crate::bench::Bench;

#[tokio::test]
async fn a_later_turn_reads_only_what_is_new() {
    let mut bench = Bench::start("anthropic/claude-sonnet-4-5", 200_000).await;
    let say = async |bench: &Bench, text: &str| {
        bench.provider.push(Reply::new().text(&format!("re: {text}")));
        let (_, head) = bench.log.state();
        bench.post(vec![ContentBlock::text(text)]);
        bench.drive().await;
        assert!(!bench.state().is_running());
        head
    };
    say(&bench, "one").await;
    assert_eq!(bench.reads(), [0]);
    let Seq(head) = say(&bench, "two").await;
    assert_eq!(bench.reads(), [head]);
    // What it was made of makes no difference to the model.
    let warm = bench.request(2).body["messages"].clone();
    let words = warm.to_string();
    for word in ["one", "re: one", "two"] {
        assert!(words.contains(&format!("\"{word}\"")), "{words}");
    }
    // A session that came later under the same id has another past.
    bench.info.created_at = Timestamp(1);
    say(&bench, "three").await;
    assert_eq!(bench.reads(), [0]);
}

#[tokio::test]
async fn a_turn_that_was_cut_off_leaves_nothing_behind() {
    let bench = Bench::start("anthropic/claude-sonnet-4-5", 200_000).await;
    bench.post(vec![ContentBlock::text("one")]);
    bench
        .provider
        .push(Reply::new().gate(&oma_fake_provider::Gate::new()).text("never"));
    bench.crash_at_request(1).await;
    assert_eq!(bench.reads(), [0]);
    bench.drive().await;
    assert_eq!(bench.reads(), [0]);
    assert!(!bench.state().is_running());
}
