//! What of a message stays beside the summary that covers it.

use serde::{Deserialize, Serialize};

use super::Seq;

/// A user's message that goes on being shown to the model beside a summary that covers it, because the turn
/// that answers it is not over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Where it stands in the log.
    pub message: Seq,
    /// Which of its content blocks are shown word for word.
    pub whole: Vec<usize>,
    /// Which of its texts are shown without their middle. Of what is in neither list, the model is told that it is
    /// left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cut: Vec<Cut>,
}

/// A text that is shown without its middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The content block.
    pub block: usize,
    /// How much of its start is shown, in bytes.
    pub head: usize,
    /// How much of its end is shown, in bytes.
    pub tail: usize,
}
