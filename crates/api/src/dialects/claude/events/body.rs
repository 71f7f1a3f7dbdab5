//! What clients post to a session.

use oma_domain::outcome::{DEFAULT_ITERATIONS, MAX_ITERATIONS};
use oma_domain::session::Outcome;
use oma_domain::{ContentBlock, EventId, Session, SessionId};
use oma_engine::{Post, Submission};
use serde_json::{Value, json};

use super::content;
use crate::dialects::claude::body::{bad, nullable, object, only, parse};
use crate::fault::Result;
use crate::limits;
use crate::validate::checks::{boolean, discriminator, integer, list, one_of, text};
use crate::validate::{Object, Tree};

/// The most events of one request.
const EVENTS: usize = 100;
/// The most texts of a system message.
const SYSTEM_BLOCKS: usize = 1_000;
/// The longest rubric, in characters.
pub(super) const RUBRIC: usize = 262_144;
/// The longest description of an outcome, in characters: sessions show it.
const DESCRIPTION: usize = 16_384;

const TYPES: &[&str] = &[
    "user.message",
    "user.interrupt",
    "user.tool_confirmation",
    "user.custom_tool_result",
    "user.tool_result",
    "user.define_outcome",
    "system.message",
];

/// An event that a client posts: what it does, and how it is repeated to the client.
#[derive(Debug)]
pub(super) struct Posted {
    pub(super) submission: Submission,
    pub(super) echo: Value,
}

/// Whether an event is for a thread by its name, so that it takes the session to read it.
pub(super) fn names_threads(value: &Value) -> bool {
    let mut events = value["events"].as_array().into_iter().flatten();
    events.any(|event| event["session_thread_id"].is_string())
}

/// Reads the events of a request to a session, which has to be there if they name threads.
pub(super) fn events(value: &Value, session: Option<&Session>) -> Result<Vec<Posted>> {
    let event = |value: &Value, issues: &mut Tree| event(value, issues, session);
    let posted = parse(value, &["events"], |object| {
        object.required("events", list(1, EVENTS, event))
    })?;
    check_system(&posted)?;
    Ok(posted)
}

/// A system message is the last event, behind what it accompanies.
fn check_system(posted: &[Posted]) -> Result<()> {
    let is_system = |posted: &Posted| matches!(posted.submission, Submission::System(_));
    let Some(at) = posted.iter().position(is_system) else {
        return Ok(());
    };
    let problem = if posted[at + 1..].iter().any(is_system) {
        "there may be at most one system.message in a request"
    } else if at + 1 != posted.len() {
        "a system.message must be the last event of a request"
    } else {
        let before = at.checked_sub(1).and_then(|before| posted.get(before));
        match before.map(|before| &before.submission) {
            Some(Submission::Message(_) | Submission::Answer { .. }) => return Ok(()),
            _ => {
                "a system.message must directly follow the user.message or the tool result that it accompanies"
            }
        }
    };
    Err(bad(format!(
        "Invalid system.message event at events[{at}]: {problem}"
    )))
}

fn event(value: &Value, issues: &mut Tree, session: Option<&Session>) -> Option<Posted> {
    let mut object = Object::of(value, issues)?;
    match discriminator(&mut object, TYPES)? {
        "user.message" => {
            let post = message(&mut object)?;
            let echo = json!({"type": "user.message", "content": content::view(&post.content)});
            Some(Posted {
                submission: Submission::Message(post),
                echo,
            })
        }
        "user.interrupt" => {
            only(&mut object, &["type", "session_thread_id"]);
            let named = nullable(&mut object, "session_thread_id", text(1, limits::NAME))?;
            let submission = match named {
                None => Submission::Interrupt,
                Some(name) => match named_thread(&name, session) {
                    Ok(submission) => submission,
                    Err(problem) => {
                        object.issues().at("session_thread_id").push(problem);
                        return None;
                    }
                },
            };
            Some(Posted {
                submission,
                echo: json!({"type": "user.interrupt"}),
            })
        }
        "user.tool_confirmation" => confirmation(&mut object),
        "user.custom_tool_result" => tool_result(&mut object, false),
        "user.tool_result" => tool_result(&mut object, true),
        "user.define_outcome" => {
            let submission = define_outcome(&mut object)?;
            let echo = match &submission {
                Submission::DefineOutcome {
                    description,
                    rubric,
                    max_iterations,
                    ..
                } => content::outcome(description, rubric, *max_iterations),
                _ => Value::Null,
            };
            Some(Posted { submission, echo })
        }
        "system.message" => {
            let content = system_message(&mut object)?;
            let echo = json!({"type": "system.message", "content": content::view(&content)});
            Some(Posted {
                submission: Submission::System(content),
                echo,
            })
        }
        kind => {
            let problem = format!("This server does not support {kind} yet");
            object.issues().at("type").push(problem);
            None
        }
    }
}

/// The thread that is to be interrupted. With the primary one all are, because it waits for whatever they do.
fn named_thread(name: &str, session: Option<&Session>) -> std::result::Result<Submission, &'static str> {
    for id in SessionId::of_thread(name) {
        if session.is_some_and(|session| id == session.id) {
            return Ok(Submission::Interrupt);
        }
        let thread = session.and_then(|session| session.state.threads.get(&id));
        if thread.is_some_and(|thread| !thread.is_over) {
            return Ok(Submission::InterruptThread(id));
        }
    }
    Err("There is no such thread in this session that could still work")
}

/// A message, its type looked at already. Who is charged for it is the caller's to add.
pub(crate) fn message(object: &mut Object<'_>) -> Option<Post> {
    only(object, &["type", "content"]);
    let content = object.required("content", content::of_message)?;
    Some(Post {
        content,
        model: None,
        thinking_level: None,
        only_if_idle: false,
        charged: None,
        audit: None,
    })
}

/// A system message, its type looked at already.
pub(crate) fn system_message(object: &mut Object<'_>) -> Option<Vec<ContentBlock>> {
    only(object, &["type", "content"]);
    object.required("content", list(1, SYSTEM_BLOCKS, content::of_system))
}

/// An outcome, its type looked at already. Who is charged for it is the caller's to add.
pub(crate) fn define_outcome(object: &mut Object<'_>) -> Option<Submission> {
    only(object, &["type", "description", "rubric", "max_iterations"]);
    let description = object.required("description", text(1, DESCRIPTION));
    let rubric = object.required("rubric", rubric);
    let most = integer(1, u64::from(MAX_ITERATIONS));
    let max_iterations = nullable(object, "max_iterations", most)?;
    let max_iterations = max_iterations.and_then(|most| u32::try_from(most).ok());
    Some(Submission::DefineOutcome {
        description: description?,
        rubric: rubric?,
        max_iterations: max_iterations.unwrap_or(DEFAULT_ITERATIONS),
        charged: None,
    })
}

/// The text of a rubric. What a file says has taken its place already.
fn rubric(value: &Value, issues: &mut Tree) -> Option<String> {
    object(&["type", "content"], |object| {
        let kind = object.required("type", one_of(&["text", "file"]));
        let content = object.required("content", text(1, RUBRIC));
        kind?;
        content
    })(value, issues)
}

/// The id of a tool use's event.
fn tool_use(value: &Value, issues: &mut Tree) -> Option<EventId> {
    let id = text(1, limits::NAME)(value, issues)?;
    let event = EventId::parse(&id).ok();
    if event.is_none() {
        issues.push("does not match any tool use event in this session");
    }
    event
}

fn confirmation(object: &mut Object<'_>) -> Option<Posted> {
    only(object, &["type", "tool_use_id", "result", "deny_message"]);
    let tool_use = object.required("tool_use_id", tool_use);
    let result = object.required("result", one_of(&["allow", "deny"]));
    let deny_message = nullable(object, "deny_message", text(0, limits::DENY_MESSAGE));
    let (tool_use, result, deny_message) = (tool_use?, result?, deny_message?);
    if result == "allow" && deny_message.is_some() {
        let problem = "May only be there when the result is deny";
        object.issues().at("deny_message").push(problem);
        return None;
    }
    let echo = json!({
        "type": "user.tool_confirmation",
        "tool_use_id": tool_use.as_str(),
        "result": result,
        "deny_message": deny_message,
    });
    Some(Posted {
        submission: Submission::Confirm {
            tool_use,
            allow: result == "allow",
            deny_message,
        },
        echo,
    })
}

/// The result of a custom tool, or of a built-in one that a worker carries out.
fn tool_result(object: &mut Object<'_>, remote: bool) -> Option<Posted> {
    let (kind, field) = match remote {
        true => ("user.tool_result", "tool_use_id"),
        false => ("user.custom_tool_result", "custom_tool_use_id"),
    };
    only(object, &["type", field, "content", "is_error"]);
    let tool_use = object.required(field, tool_use);
    let blocks = nullable(object, "content", content::of_result);
    let is_error = nullable(object, "is_error", boolean);
    let tool_use = tool_use?;
    let outcome = Outcome {
        content: blocks?.unwrap_or_default(),
        is_error: is_error?.unwrap_or_default(),
    };
    let mut echo = json!({"type": kind});
    echo[field] = json!(tool_use.as_str());
    echo["content"] = content::view(&outcome.content);
    echo["is_error"] = json!(outcome.is_error);
    Some(Posted {
        submission: Submission::Answer {
            tool_use,
            outcome,
            remote,
        },
        echo,
    })
}
