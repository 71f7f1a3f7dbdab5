//! What the agent is told of an outcome.

use oma_domain::ContentBlock;
use oma_domain::outcome::Ending;

/// What stands before the rubric of an outcome.
const BEFORE_RUBRIC: &str = "Work until it is achieved, then say what you have done. Files that belong to the result go \
below /mnt/session/outputs. A grader, who sees your work but \
not your thoughts, judges it by this rubric:";

/// An outcome as the agent is told of it.
pub(super) fn task(description: &str, rubric: &str) -> Vec<ContentBlock> {
    vec![
        ContentBlock::text(format!("Achieve this outcome:\n\n{description}")),
        ContentBlock::text(format!("{BEFORE_RUBRIC}\n\n{rubric}")),
    ]
}

/// What the agent is told of a verdict, if it is to do something about it.
pub(super) fn feedback(result: Ending, explanation: &str) -> Option<String> {
    let ask = match result {
        Ending::NeedsRevision => "Revise your work accordingly, then say again what you have done.",
        Ending::MaxIterationsReached => {
            "There are no more revisions. Say briefly what you have achieved and what remains open."
        }
        Ending::Satisfied | Ending::Failed | Ending::Interrupted => return None,
    };
    Some(format!(
        "A grader has looked at your work and is not satisfied yet:\n\n{explanation}\n\n{ask}"
    ))
}
