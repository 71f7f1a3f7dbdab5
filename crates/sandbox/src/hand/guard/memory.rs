//! The watch over memory, where there is no control group.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::until_busy;
use crate::hand::calls::Calls;
use crate::hand::process::{Table, kill_command_of, kill_commands};

/// How often memory is summed up while anything runs.
const INTERVAL: Duration = Duration::from_millis(50);

/// Keeps the session within `limit` bytes, for ever.
pub(super) async fn watch(limit: u64, calls: Arc<Calls>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = 0;
    loop {
        ticks.tick().await;
        until_busy(&calls, &mut looks).await;
        let Ok(table) = Table::read() else {
            // What can't be measured counts as too much.
            calls.note_running(
                "[the sandbox's memory can't be measured, because its processes can't be read: running commands \
                 were killed]",
            );
            kill_commands(true).await;
            continue;
        };
        let private = tmpfs_bytes("/tmp") + tmpfs_bytes("/dev/shm");
        let resident = table.resident_bytes() + private;
        // The quick sum counts a shared page for each process that has it; only when it says too much is the
        // exact one worth its price.
        if resident <= limit || table.proportional_bytes() + private <= limit {
            continue;
        }
        if let Some(biggest) = table.biggest() {
            calls.note_running(&format!(
                "[the sandbox is over its memory limit of {limit} bytes: its largest command was killed]"
            ));
            kill_command_of(biggest).await;
        } else {
            // Nobody to kill: the private file systems hold it, and those have limits of their own.
            continue;
        }
    }
}

/// What a private file system in memory holds. In a build `/tmp` is on the disk, which is none.
fn tmpfs_bytes(path: &str) -> u64 {
    let is_in_memory = |stat: &rustix::fs::StatFs| stat.f_type == libc::TMPFS_MAGIC;
    let stat = rustix::fs::statfs(path).ok().filter(is_in_memory);
    stat.map_or(0, |stat| {
        (stat.f_blocks - stat.f_bfree) * u64::try_from(stat.f_bsize).unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_what_is_in_memory_counts() {
        assert_eq!(super::tmpfs_bytes("/proc"), 0);
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts
            .lines()
            .find(|line| line.split(' ').nth(1) == Some("/"))
            .unwrap();
        assert_eq!(super::tmpfs_bytes("/") > 0, root.contains(" tmpfs "), "{root}");
    }
}
