//! What must hold of a session that has come to rest, whatever happened to the server meanwhile.

use std::collections::{BTreeMap, HashSet};

use oma_domain::content::joined_text;
use oma_domain::event::{Body, StopReason};
use oma_domain::{Event, EventId};
use serde_json::Value;

use super::expected::{Ends, Expected, Fate, UNKNOWN, printed};

/// Everything that is known of a session.
pub(super) struct Evidence<'a> {
    /// What was posted, in order.
    pub(super) expected: &'a [Expected],
    /// The log, as it is stored.
    pub(super) log: &'a [Event],
    /// The log, as it is listed.
    pub(super) listed: &'a [Value],
    /// What a follower got, over all restarts.
    pub(super) streamed: &'a [Value],
    /// What it got of answers on their way.
    pub(super) pieces: &'a BTreeMap<String, String>,
    /// The lines that commands left behind.
    pub(super) marks: &'a str,
}

impl Evidence<'_> {
    /// Checks everything; gives the number of commands whose fate nobody knows.
    pub(super) fn check(&self) -> usize {
        check_log(self.log);
        self.check_views();
        self.check_turns()
    }

    /// I3: list and stream are both the projection of the log.
    fn check_views(&self) {
        use oma_api::dialects::openclaw::events::projection::project;
        let projected: Vec<Value> = self
            .log
            .iter()
            .flat_map(|event| {
                project(event)
                    .into_iter()
                    .map(|view| serde_json::to_value(view).expect("JSON"))
            })
            .collect();
        same(&projected, self.listed, "the list");
        same(&projected, self.streamed, "what was streamed");
        for (id, text) in self.pieces {
            // An answer that was cut off by a kill is made again under another id.
            let found = self.listed.iter().find(|event| event["event_id"] == id.as_str());
            let whole = found.and_then(|event| event["content"].as_str());
            assert!(
                whole.is_none_or(|whole| whole.contains(text.as_str())),
                "{text:?} is not in {whole:?}"
            );
        }
    }

    /// I1, I5, I6: every message has its turn, in order; what it says came of it, once.
    fn check_turns(&self) -> usize {
        let mut turns = turns(self.log).into_iter().peekable();
        let mut lost = 0;
        let mut lines: Vec<&str> = self.marks.lines().collect();
        for expected in self.expected {
            let turn = turns.next_if(|turn| turn.content == expected.content);
            let Some(turn) = turn else {
                assert!(
                    !expected.is_accepted,
                    "lost or out of order: {}",
                    expected.content
                );
                for mark in &expected.marks {
                    assert!(
                        !lines.contains(&mark.line.as_str()),
                        "{} without its message",
                        mark.line
                    );
                }
                continue;
            };
            lost += turn.check(expected, &mut lines);
        }
        let further: Vec<&str> = turns.map(|turn| turn.content).collect();
        assert!(
            further.is_empty(),
            "messages that nobody posted, or twice: {further:?}"
        );
        assert!(lines.is_empty(), "commands ran too often: {lines:?}");
        lost
    }
}

/// A message that was accepted has its entry in the audit trail, whether its sender got to know that or not.
pub(super) fn check_trail(listed: &[Value], trail: &Value) {
    let messages = listed.iter().filter(|event| event["type"] == "user.message");
    let entries = trail["events"].as_array().into_iter().flatten();
    let accepted = entries.filter(|entry| entry["outcome"] == "ok").count();
    assert!(
        trail["has_more"] == true || accepted >= messages.count(),
        "{accepted} entries: {trail}"
    );
}

/// What holds of every log of a session at rest.
pub(super) fn check_log(log: &[Event]) {
    check_order(log);
    check_frame(log);
    check_requests(log);
    check_tools(log);
}

/// Positions have no gaps and ids are unique.
fn check_order(log: &[Event]) {
    let mut ids = HashSet::new();
    for (index, event) in log.iter().enumerate() {
        assert_eq!(event.seq.0, index as u64 + 1, "{event:?}");
        assert!(ids.insert(&event.id), "{event:?} is there twice");
    }
}

fn same(left: &[Value], right: &[Value], what: &str) {
    for (index, (left, right)) in left.iter().zip(right).enumerate() {
        assert_eq!(left, right, "{what}: event {index}");
    }
    assert_eq!(left.len(), right.len(), "{what} has another length than the log");
}

/// I2: work lies between a running and an idle status, and the session has come to rest.
fn check_frame(log: &[Event]) {
    #[derive(Debug, PartialEq)]
    enum At {
        Rest,
        Work,
        Question,
    }
    let mut at = At::Rest;
    for event in log {
        at = match (at, &*event.body) {
            (At::Rest | At::Question, Body::StatusRunning) => At::Work,
            (
                At::Work | At::Question,
                Body::StatusIdle {
                    stop_reason: StopReason::RequiresAction { .. },
                    ..
                },
            ) => At::Question,
            (At::Work | At::Question, Body::StatusIdle { .. }) => At::Rest,
            (At::Work, Body::StatusRunning) => panic!("running twice: {event:?}"),
            (At::Work, _) => At::Work,
            (
                At::Question,
                Body::UserToolConfirmation { .. } | Body::AgentToolResult { .. } | Body::UserInterrupt { .. },
            ) => At::Question,
            (at, _) => panic!("{at:?} and {event:?}"),
        };
    }
    assert_eq!(at, At::Rest);
}

/// Model requests begin and end in pairs, one at a time, and answers belong to the one under way.
fn check_requests(log: &[Event]) {
    let mut open: Option<&EventId> = None;
    for event in log {
        match &*event.body {
            Body::ModelRequestStart { .. } => {
                assert_eq!(open, None, "{event:?}");
                open = Some(&event.id);
            }
            Body::ModelRequestEnd { request, .. } => {
                assert_eq!(open, Some(request), "{event:?}");
                open = None;
            }
            Body::AgentMessage { request, .. }
            | Body::AgentThinking { request, .. }
            | Body::AgentToolUse { request, .. }
            | Body::Compaction { request, .. } => assert_eq!(open, Some(request), "{event:?}"),
            Body::UserMessage { .. }
            | Body::AgentToolResult { .. }
            | Body::StatusRunning
            | Body::StatusIdle { .. } => {
                assert_eq!(open, None, "during a model request: {event:?}");
            }
            _ => {}
        }
    }
    assert_eq!(open, None);
}

/// I4: each tool use gets one result, before the model is asked again.
fn check_tools(log: &[Event]) {
    let mut open = HashSet::new();
    for event in log {
        match &*event.body {
            Body::AgentToolUse { .. } => {
                open.insert(&event.id);
            }
            Body::AgentToolResult { tool_use, .. } => {
                assert!(
                    open.remove(tool_use),
                    "a result without its tool use, or a second one: {event:?}"
                );
            }
            Body::ModelRequestStart { .. } | Body::UserMessage { .. } => {
                assert!(open.is_empty(), "{event:?} before the results of {open:?}");
            }
            _ => {}
        }
    }
    assert!(open.is_empty(), "without results: {open:?}");
}

/// A message and what follows up to the next one.
struct Turn<'a> {
    content: &'a str,
    events: Vec<&'a Event>,
}

fn turns(log: &[Event]) -> Vec<Turn<'_>> {
    let mut turns: Vec<Turn<'_>> = Vec::new();
    for event in log {
        if let Body::UserMessage { content, .. } = &*event.body {
            let [oma_domain::ContentBlock::Text { text }] = content.as_slice() else {
                panic!("not a text: {event:?}");
            };
            turns.push(Turn {
                content: text,
                events: Vec::new(),
            });
        } else if let Some(turn) = turns.last_mut() {
            turn.events.push(event);
        }
    }
    turns
}

impl Turn<'_> {
    fn check(&self, expected: &Expected, lines: &mut Vec<&str>) -> usize {
        let told = || format!("{}: {:#?}", self.content, self.events);
        let mut stops = self.events.iter().filter_map(|event| match &*event.body {
            Body::StatusIdle { stop_reason, .. } => Some(stop_reason),
            _ => None,
        });
        let cancelled = stops.any(|stop| *stop == StopReason::Interrupted);
        for event in &self.events {
            if let Body::Error { failure, retrying } = &*event.body {
                assert!(*retrying && failure.message.contains("busy"), "{}", told());
            }
        }
        let answer = self.answer();
        let lost = expected
            .marks
            .iter()
            .filter(|mark| self.check_mark(&mark.line, mark.fate, lines))
            .count();
        match &expected.ends {
            Ends::With(text) => {
                assert!(!cancelled, "cancelled: {}", told());
                assert_eq!(answer, Some((text.clone(), false)), "{}", told());
            }
            // Nothing was left to cancel when the command had been lost with its sandbox.
            Ends::Cancelled { said: text, again } if !cancelled => {
                assert!(lost > 0 || *again, "not cancelled: {}", told());
                assert_eq!(answer, Some((text.clone(), false)), "{}", told());
            }
            Ends::Cancelled { said: text, .. } => {
                if let Some((said, interrupted)) = answer {
                    assert!(
                        interrupted && text.starts_with(&said),
                        "{said:?} of {}",
                        self.content
                    );
                }
            }
        }
        lost
    }

    /// What the last model request that said something said, and whether it was cut off.
    fn answer(&self) -> Option<(String, bool)> {
        let said: Vec<_> = self
            .events
            .iter()
            .filter_map(|event| match &*event.body {
                Body::AgentMessage {
                    request,
                    content,
                    interrupted,
                    ..
                } => Some((request, joined_text(content), *interrupted)),
                _ => None,
            })
            .collect();
        let (last, _, interrupted) = said.last()?;
        let texts = said
            .iter()
            .filter(|(request, ..)| request == last)
            .map(|(_, text, _)| text.as_str());
        Some((texts.collect(), *interrupted))
    }

    /// Checks a command's result against what it left behind; whether its fate is unknown.
    fn check_mark(&self, line: &str, fate: Fate, lines: &mut Vec<&str>) -> bool {
        let left = lines.len();
        lines.retain(|found| *found != line);
        let times = left - lines.len();
        let uses: Vec<&EventId> = self
            .events
            .iter()
            .filter_map(|event| match &*event.body {
                Body::AgentToolUse { input, .. } if input.to_string().contains(&printed(line)) => {
                    Some(&event.id)
                }
                _ => None,
            })
            .collect();
        let [tool] = uses.as_slice() else {
            // The cancel came before the model had asked for it.
            assert!(
                fate == Fate::CutOff && uses.is_empty() && times == 0,
                "{line} was used {uses:?}"
            );
            return false;
        };
        let result = self.events.iter().find_map(|event| match &*event.body {
            Body::AgentToolResult {
                tool_use,
                content,
                is_error,
                ..
            } if tool_use == *tool => Some((joined_text(content), *is_error)),
            _ => None,
        });
        let (said, is_error) = result.expect("checked before");
        let unknown = is_error && said.contains(UNKNOWN);
        match fate {
            Fate::Runs if unknown => assert!(times <= 1, "{line} ran {times} times"),
            Fate::Runs => {
                assert!(!is_error && said.contains(&printed(line)), "{line}: {said}");
                assert_eq!(times, 1, "{line} ran {times} times");
            }
            Fate::CutOff => assert!(is_error && times <= 1, "{line} ran {times} times: {said}"),
        }
        unknown
    }
}
