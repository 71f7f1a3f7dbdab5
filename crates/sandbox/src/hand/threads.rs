//! The hand's own threads.
//!
//! Invariant: where signals reach the hand by the number of any of its threads, all of them are there before a command
//! starts, and there is never another one: commands are kept away from each by its number
//! ([`filter::commands`](super::launch::filter::commands)).

use std::fs;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::JoinSet;

/// Threads for what blocks: looking through files.
const BLOCKING: usize = 4;

/// Their stacks, in bytes.
const STACK: usize = 1 << 20;

/// How long they may take to be there, all of them.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many the runtime has for what blocks, and whether they stay when there is nothing to do.
pub(super) fn configure(runtime: &mut Builder, stay: bool) {
    runtime.max_blocking_threads(BLOCKING).thread_stack_size(STACK);
    if stay {
        runtime.thread_keep_alive(Duration::MAX);
    }
}

/// Starts those that the runtime has for what blocks, and says which there are now. They have to stay ([`configure`]).
///
/// # Errors
/// When there are not as many as there can be, or they can't be read.
pub(super) async fn start_all() -> io::Result<Vec<i32>> {
    let met = Arc::new((Mutex::new(0), Condvar::new()));
    let mut all = JoinSet::new();
    for _ in 0..BLOCKING {
        let met = Arc::clone(&met);
        all.spawn_blocking(move || meet(&met));
    }
    if !all.join_all().await.into_iter().all(|met| met) {
        return Err(io::Error::other("the hand can't have all of its threads"));
    }
    running()
}

/// Waits until all are here, each on a thread of its own.
fn meet((here, changed): &(Mutex<usize>, Condvar)) -> bool {
    let mut count = here.lock().unwrap_or_else(PoisonError::into_inner);
    *count += 1;
    changed.notify_all();
    let waited = changed.wait_timeout_while(count, PATIENCE, |count| *count < BLOCKING);
    let (count, _) = waited.unwrap_or_else(PoisonError::into_inner);
    *count == BLOCKING
}

/// The threads of this process.
fn running() -> io::Result<Vec<i32>> {
    let name = |entry: io::Result<fs::DirEntry>| {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.parse().ok());
        number.ok_or_else(|| io::ErrorKind::InvalidData.into())
    };
    fs::read_dir("/proc/self/task")?.map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn once_all_threads_are_there_it_is_they_who_work() {
        let mut runtime = Builder::new_current_thread();
        configure(&mut runtime, true);
        runtime.build().unwrap().block_on(async {
            let known: BTreeSet<i32> = start_all().await.unwrap().into_iter().collect();
            let mut all = JoinSet::new();
            for _ in 0..10 * BLOCKING {
                all.spawn_blocking(|| rustix::thread::gettid().as_raw_nonzero().get());
            }
            let used = all.join_all().await;
            assert!(
                used.iter().all(|thread| known.contains(thread)),
                "{used:?} {known:?}"
            );
            // Those of the test itself are known, too.
            assert!(known.len() > BLOCKING, "{known:?}");
        });
    }
}
