//! What a grader or an advisor is shown of an agent's work: the newest of it, as text, read from the log's end.

use std::collections::BTreeMap;

use oma_domain::content::joined_text;
use oma_domain::event::{Body, Event};
use oma_domain::outcome::{Ending, Goal};
use oma_domain::{ContentBlock, Seq};
use oma_runtime::{Port, PortError};

use crate::shrink::{ends, without_middle};

/// How many events one read brings.
const PAGE: u64 = 500;
/// The longest arguments of a tool use that are shown whole, in bytes: those of a tool that writes a file are the work.
const ARGUMENTS: usize = 16_000;
/// The longest result of a tool that is shown whole, in bytes.
const RESULT: usize = 6_000;

/// The work towards an outcome.
pub(crate) struct Dossier {
    /// What is to be achieved.
    pub(crate) description: String,
    /// What the grader goes by.
    pub(crate) rubric: String,
    /// What was done, oldest first.
    pub(crate) work: Vec<String>,
    /// Whether there was more.
    pub(crate) cut: bool,
    /// What the grader said of earlier iterations, as far as the reading went.
    pub(crate) verdicts: BTreeMap<u32, String>,
}

impl Dossier {
    /// Reads it, with at most so many bytes of work; `None` when the log has no such outcome.
    pub(crate) async fn read(
        port: &dyn Port,
        goal: &Goal,
        head: Seq,
        bytes: usize,
    ) -> Result<Option<Self>, PortError> {
        let definition = port.history(Seq(goal.defined.0.saturating_sub(1)), 1).await?;
        let Some(Body::UserDefineOutcome {
            description, rubric, ..
        }) = definition.first().map(|event| &*event.body)
        else {
            return Ok(None);
        };
        let mut dossier = Self {
            description: description.clone(),
            rubric: rubric.clone(),
            work: Vec::new(),
            cut: false,
            verdicts: BTreeMap::new(),
        };
        let verdicts = &mut dossier.verdicts;
        let work = newest(port, goal.defined, head, bytes, |event| {
            if let Body::OutcomeEvaluationEnd {
                iteration,
                result: Ending::NeedsRevision,
                explanation,
                ..
            } = &*event.body
            {
                verdicts.insert(*iteration, explanation.clone());
            }
        });
        (dossier.work, dossier.cut) = work.await?;
        Ok(Some(dossier))
    }
}

/// What was said and done after `begin` and up to `head`, oldest first: the newest of it, with at most so many bytes, and
/// whether there was more. `look` sees each event that is read, newest first.
pub(crate) async fn newest(
    port: &dyn Port,
    begin: Seq,
    head: Seq,
    bytes: usize,
    mut look: impl FnMut(&Event) + Send,
) -> Result<(Vec<String>, bool), PortError> {
    let (mut work, mut cut) = (Vec::new(), false);
    let mut left = bytes;
    let mut until = head;
    while until > begin && !cut {
        let from = Seq(until.0.saturating_sub(PAGE).max(begin.0));
        for event in window(port, from, until).await?.iter().rev() {
            look(event);
            let Some(text) = shown(event) else { continue };
            match left.checked_sub(text.len()) {
                Some(rest) => left = rest,
                None => {
                    cut = true;
                    break;
                }
            }
            work.push(text);
        }
        until = from;
    }
    work.reverse();
    Ok((work, cut))
}

/// The events after `from` up to `until`.
async fn window(port: &dyn Port, from: Seq, until: Seq) -> Result<Vec<Event>, PortError> {
    let mut events: Vec<Event> = Vec::new();
    let mut after = from;
    while after < until {
        let limit = u32::try_from(until.0 - after.0).unwrap_or(u32::MAX);
        let page = port.history(after, limit).await?;
        let Some(last) = page.last() else {
            return Err(PortError::Gone("the log is shorter than its head".into()));
        };
        after = last.seq;
        events.extend(page);
    }
    Ok(events)
}

/// An event as graders and advisors read it, if it says something about the work.
fn shown(event: &Event) -> Option<String> {
    Some(match &*event.body {
        Body::UserMessage { content, .. } => format!("The user said:\n{}", readable(content)),
        Body::AgentMessage { content, .. } => format!("The agent said:\n{}", readable(content)),
        Body::AgentToolUse { name, input, .. } => {
            format!(
                "The agent used the tool {name}:\n{}",
                bounded(&input.to_string(), ARGUMENTS)
            )
        }
        Body::AgentToolResult {
            name,
            content,
            is_error,
            ..
        }
        | Body::UserCustomToolResult {
            name,
            content,
            is_error,
            ..
        } => {
            let failed = if *is_error { ", which failed" } else { "" };
            let text = bounded(&readable(content), RESULT);
            format!("The tool {name}{failed} gave:\n{text}")
        }
        Body::OutcomeEvaluationEnd {
            iteration,
            result: Ending::NeedsRevision,
            ..
        } => format!("(Iteration {iteration} ends here; what follows is revised work.)"),
        _ => return None,
    })
}

fn readable(content: &[ContentBlock]) -> String {
    let media = content.iter().filter(|block| block.as_text().is_none()).count();
    let mut text = joined_text(content);
    if media > 0 {
        text.push_str(&format!(
            "\n[and {media} images or documents, which are not shown here]"
        ));
    }
    text
}

pub(crate) fn bounded(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let (head, tail) = ends(text, bytes);
    joined_text(&[without_middle(text, head, tail)])
}
