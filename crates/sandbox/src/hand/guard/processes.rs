//! The watch over the number of processes, where the kernel that has them does not limit it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::until_busy;
use crate::hand::calls::Calls;
use crate::hand::process::{Table, kill_commands};

/// How often they are counted while anything runs.
const INTERVAL: Duration = Duration::from_millis(50);

/// Keeps the session within so many processes and threads, for ever.
pub(super) async fn watch(limit: u32, calls: Arc<Calls>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = 0;
    loop {
        ticks.tick().await;
        until_busy(&calls, &mut looks).await;
        let why = match Table::read() {
            Ok(table) if table.tasks() <= u64::from(limit) => continue,
            Ok(_) => format!(
                "[the sandbox is over its limit of {limit} processes and threads: running commands were killed]"
            ),
            // What can't be counted counts as too many.
            Err(_) => "[the sandbox's processes can't be counted: running commands were killed]".to_owned(),
        };
        calls.note_running(&why);
        kill_commands(true).await;
    }
}
