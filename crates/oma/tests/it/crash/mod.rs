//! Kills the server again and again while sessions are at work, and checks that nothing shows of it.
//!
//! A [trial](trial) is one data folder, one fake provider, several sessions that each [drive](driver) rounds of
//! turns, a [recorder](recorder) per session that follows its stream over all restarts, and a killer that ends
//! the server at chosen moments: when the k-th event of a turn becomes visible, when the provider gets a
//! request, in the middle of an answer; give or take three milliseconds; now and then twice in a row or during
//! recovery, and sometimes by SIGTERM. When the killing is over, the sessions come to rest by themselves, and
//! [the checks](checks) read everything that was recorded, listed and stored.
//!
//! `OMA_CRASH_SEED` chooses the moments, `OMA_CRASH_KILLS` how many there are in all tests together.

mod checks;
mod driver;
mod expected;
mod link;
mod recorder;
mod trial;

use driver::Round;
use trial::Trial;

/// How many tests share the kills.
const TESTS: u32 = 5;

/// How many kills there are in all by default.
const KILLS: u32 = 200;

fn setting(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a whole number"))
}

async fn run(name: &str, rounds: &[Round], terminate_percent: u32) {
    let trial = Trial {
        name,
        rounds: rounds.to_vec(),
        terminate_percent,
        seed: u64::from(setting("OMA_CRASH_SEED", 1)),
        kills: setting("OMA_CRASH_KILLS", KILLS).div_ceil(TESTS),
    };
    trial.run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_with_tools() {
    use Round::{Overloaded, Parallel, Plain, Sequential};
    run("turns", &[Plain, Sequential, Parallel, Overloaded], 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_commands_and_waiting_messages() {
    use Round::{Long, Parallel, Queued, Unkeyed};
    run("commands", &[Long, Queued, Parallel, Unkeyed], 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_on_their_way() {
    use Round::{Compact, Plain, Queued, Slow};
    run("answers", &[Slow, Compact, Slow, Queued, Plain], 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confirmations_and_cancels() {
    use Round::{Allowed, CancelledAnswer, CancelledTool, Denied, Plain};
    run(
        "control",
        &[Allowed, CancelledTool, Denied, CancelledAnswer, Plain],
        5,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stops_in_order() {
    use Round::{Allowed, CancelledTool, Compact, Long, Parallel, Queued, Sequential, Slow};
    let rounds = [
        Sequential,
        Slow,
        Long,
        Allowed,
        Queued,
        CancelledTool,
        Parallel,
        Compact,
    ];
    run("stops", &rounds, 60).await;
}
