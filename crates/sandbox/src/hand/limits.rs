//! What tools may use. The launcher hands these to the hand as JSON, so they never come from the sandbox.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bounds on one call of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ToolLimits {
    /// How long a command runs when its call names no time.
    pub default_wall: Duration,
    /// The longest time that a call may ask for.
    pub max_wall: Duration,
    /// Bytes of one command's output that are kept; the rest is read and thrown away, so that a flood
    /// neither fills a disk nor blocks the command.
    pub max_output: usize,
    /// Characters of a result that the model is shown at once; a longer one goes to a file of the workspace.
    pub inline_result_chars: usize,
    /// The largest file that `read`, `edit` and `write` take, in bytes.
    pub max_file: u64,
    /// The largest picture that `read` gives, in bytes before base64.
    pub max_image: u64,
    /// Entries that `glob` and matches that `grep` give at most.
    pub max_matches: usize,
}

impl Default for ToolLimits {
    fn default() -> Self {
        Self {
            default_wall: Duration::from_secs(120),
            max_wall: Duration::from_secs(30 * 60),
            max_output: 8 << 20,
            inline_result_chars: 30_000,
            max_file: 64 << 20,
            max_image: 5 << 20,
            max_matches: 1_000,
        }
    }
}
