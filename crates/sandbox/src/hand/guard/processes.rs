//! The watch over the number of processes, where the kernel that has them does not limit it.

use std::io;

use super::{Ends, TooMuch};
use crate::hand::process::Table;

/// Whether the session has more than so many processes and threads.
pub(super) fn look(limit: u32, table: &io::Result<Table>) -> Option<TooMuch> {
    let why = match table {
        Ok(table) if table.tasks() <= u64::from(limit) => return None,
        Ok(_) => format!(
            "[the sandbox is over its limit of {limit} processes and threads: running commands were killed]"
        ),
        // What can't be counted counts as too many.
        Err(_) => "[the sandbox's processes can't be counted: running commands were killed]".to_owned(),
    };
    Some(TooMuch {
        why,
        ends: Ends::AllCommands,
    })
}
