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
mod deployments;
mod driver;
mod expected;
mod link;
mod recorder;
mod ticks;
mod trial;

use driver::Round::{
    Allowed, CancelledAnswer, CancelledDelegation, CancelledTool, Compact, Delegated, Denied, Long,
    Overloaded, Parallel, Plain, Queued, Sequential, Slow, Unkeyed,
};
use trial::Trial;

/// How many tests share the kills.
const TESTS: u32 = 7;

/// How many kills there are in all by default.
const KILLS: u32 = 280;

fn setting(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a whole number"))
}

async fn run(trial: Trial<'_>) {
    let seed = u64::from(setting("OMA_CRASH_SEED", 1));
    let kills = setting("OMA_CRASH_KILLS", KILLS).div_ceil(TESTS);
    Trial { seed, kills, ..trial }.run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_with_tools() {
    let rounds = [Plain, Sequential, Parallel, Overloaded];
    let rlimit = Some("rlimit");
    run(Trial {
        enforcement: rlimit,
        ..Trial::new("turns", &rounds)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_commands_and_waiting_messages() {
    run(Trial::new("commands", &[Long, Queued, Parallel, Unkeyed])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_on_their_way() {
    run(Trial::new("answers", &[Slow, Compact, Slow, Queued, Plain])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confirmations_and_cancels() {
    run(Trial::new(
        "control",
        &[Allowed, CancelledTool, Denied, CancelledAnswer, Plain],
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_that_call_others() {
    run(Trial::new("calls", &[Delegated, CancelledDelegation, Plain])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stops_in_order() {
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
    run(Trial {
        stop_percent: 60,
        ..Trial::new("stops", &rounds)
    })
    .await;
}

/// The sandboxes die with the server, as when the machine does: what was running has an unknown fate, and that
/// is said, but nothing runs twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts() {
    let rounds = [Long, Sequential, Parallel, Allowed, Queued, CancelledTool, Plain];
    run(Trial {
        sandboxes_percent: 50,
        ..Trial::new("power", &rounds)
    })
    .await;
}
