//! The watch over memory, where there is no control group.

use std::io;

use super::{Ends, TooMuch};
use crate::hand::process::Table;

/// Whether the session has more than `limit` bytes.
pub(super) fn look(limit: u64, table: &io::Result<Table>) -> Option<TooMuch> {
    let Ok(table) = table else {
        return Some(TooMuch {
            why: "[the sandbox's memory can't be measured, because its processes can't be read: running commands were killed]"
                .to_owned(),
            ends: Ends::AllCommands,
        });
    };
    let private = tmpfs_bytes("/tmp") + tmpfs_bytes("/dev/shm");
    let resident = table.resident_bytes() + private;
    // The quick sum counts a shared page for each process that has it; only when it says too much is the
    // exact one worth its price.
    if resident <= limit || table.proportional_bytes() + private <= limit {
        return None;
    }
    // Without anybody to kill, the private file systems hold it, and those have limits of their own.
    table.biggest().map(|biggest| TooMuch {
        why: format!(
            "[the sandbox is over its memory limit of {limit} bytes: its largest command was killed]"
        ),
        ends: Ends::CommandOf(biggest),
    })
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
