//! A conversation without its protocol, and the rules that hold in all of them.

use std::collections::HashSet;

/// Whose part it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    User,
    Model,
}

/// A tool's result.
#[derive(Debug, Clone)]
pub(crate) struct ToolResult {
    pub(crate) id: String,
    pub(crate) text: String,
}

/// One side's part.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    pub(crate) role: Role,
    pub(crate) texts: Vec<String>,
    /// Images, documents.
    pub(crate) media: usize,
    /// Ids of tool uses, in order.
    pub(crate) calls: Vec<String>,
    pub(crate) results: Vec<ToolResult>,
    /// Signatures of the thoughts that stand before everything else.
    pub(crate) first_signatures: Vec<String>,
    /// Whether a result follows something that is none.
    pub(crate) late_result: bool,
}

impl Turn {
    pub(crate) fn new(role: Role) -> Self {
        Self {
            role,
            texts: Vec::new(),
            media: 0,
            calls: Vec::new(),
            results: Vec::new(),
            first_signatures: Vec::new(),
            late_result: false,
        }
    }

    pub(crate) fn result(&mut self, id: &str, text: String) {
        self.late_result |= !self.texts.is_empty() || self.media > 0;
        self.results.push(ToolResult {
            id: id.to_owned(),
            text,
        });
    }

    pub(crate) fn signature(&mut self, signature: &str) {
        if self.texts.is_empty() && self.calls.is_empty() {
            self.first_signatures.push(signature.to_owned());
        }
    }
}

/// A whole conversation.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    pub(crate) turns: Vec<Turn>,
}

/// Where a conversation stands.
#[derive(Debug)]
pub(crate) struct Position {
    pub(crate) last_user: String,
    pub(crate) last_tool_result: String,
    /// How often the model has answered since the user's last text.
    pub(crate) reply: usize,
    /// How often it has answered at all.
    pub(crate) answers: usize,
}

impl View {
    /// The turn to add to: the last one when it is of this role.
    pub(crate) fn turn(&mut self, role: Role) -> &mut Turn {
        if self.turns.last().is_none_or(|turn| turn.role != role) {
            self.turns.push(Turn::new(role));
        }
        let last = self.turns.len() - 1;
        &mut self.turns[last]
    }

    pub(crate) fn position(&self) -> Position {
        let mut position = Position {
            last_user: String::new(),
            last_tool_result: String::new(),
            reply: 0,
            answers: 0,
        };
        for turn in &self.turns {
            match turn.role {
                Role::Model => {
                    position.reply += 1;
                    position.answers += 1;
                }
                Role::User => {
                    if let Some(result) = turn.results.last() {
                        position.last_tool_result.clone_from(&result.text);
                    }
                    if let Some(text) = turn.texts.last() {
                        position.reply = 0;
                        position.last_user.clone_from(text);
                    }
                }
            }
        }
        position
    }

    /// Checks what holds in every protocol. `signed`: whether thoughts of the tool loop that is under way have
    /// to come back with their signatures.
    pub(crate) fn check(&self, signed: bool, violations: &mut Vec<String>) {
        if self.turns.first().is_none_or(|turn| turn.role != Role::User) {
            violations.push("the first message is not the user's".to_owned());
        }
        if self.turns.last().is_some_and(|turn| turn.role != Role::User) {
            violations.push("the last message is not the user's".to_owned());
        }
        let mut seen = HashSet::new();
        let mut open: Vec<&str> = Vec::new();
        let loop_start = self
            .turns
            .iter()
            .rposition(|turn| turn.role == Role::User && !turn.texts.is_empty());
        for (at, turn) in self.turns.iter().enumerate() {
            if turn.texts.iter().any(|text| text.trim().is_empty()) {
                violations.push(format!("message {at} has an empty text"));
            }
            if turn.texts.is_empty() && turn.media == 0 && turn.calls.is_empty() && turn.results.is_empty() {
                violations.push(format!("message {at} is empty"));
            }
            match turn.role {
                Role::User => {
                    let given: Vec<&str> = turn.results.iter().map(|result| result.id.as_str()).collect();
                    let once: HashSet<&str> = given.iter().copied().collect();
                    let wanted: HashSet<&str> = open.drain(..).collect();
                    if once.len() != given.len() || once != wanted {
                        violations.push(format!(
                            "message {at} has results {given:?} for the tool uses {wanted:?}"
                        ));
                    }
                    if turn.late_result {
                        violations.push(format!("message {at} has a tool result after other content"));
                    }
                }
                Role::Model => {
                    for call in &turn.calls {
                        if !seen.insert(call.as_str()) {
                            violations.push(format!("the tool use id {call} appears twice"));
                        }
                    }
                    open = turn.calls.iter().map(String::as_str).collect();
                    let in_loop = loop_start.is_none_or(|start| at > start);
                    if signed && in_loop {
                        check_thoughts(at, turn, violations);
                    }
                }
            }
        }
        if !open.is_empty() {
            violations.push(format!("the tool uses {open:?} have no results"));
        }
    }
}

/// A tool use that followed thoughts says so in its id, so that they can be missed without any memory.
fn check_thoughts(at: usize, turn: &Turn, violations: &mut Vec<String>) {
    let Some(mark) = turn
        .calls
        .iter()
        .find_map(|id| id.strip_prefix("toolu_")?.split('_').nth(2))
    else {
        return;
    };
    if mark != NO_THOUGHTS && mark != fingerprint(&turn.first_signatures.join(" ")) {
        violations.push(format!(
            "message {at} does not begin with the thoughts that its tool uses followed"
        ));
    }
}

/// The mark of tool uses without thoughts before them.
const NO_THOUGHTS: &str = "0";

/// A tool use's id: unique in the conversation, the same each time, and marked with the thoughts before it.
pub(crate) fn call_id(answers: usize, step: usize, signatures: &[String]) -> String {
    let mark = if signatures.is_empty() {
        NO_THOUGHTS.to_owned()
    } else {
        fingerprint(&signatures.join(" "))
    };
    format!("toolu_{answers}_{step}_{mark}")
}

/// A thought's signature. It depends on the text alone, so it can be checked without any memory.
pub(crate) fn signature(text: &str) -> String {
    format!("sig-{}", fingerprint(text))
}

/// Eight hexadecimal digits of a text (CRC-32).
pub(crate) fn fingerprint(text: &str) -> String {
    format!("{:08x}", crc32fast::hash(text.as_bytes()))
}
