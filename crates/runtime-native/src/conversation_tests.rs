//! What a model is shown of a log.

use std::sync::Arc;

use oma_domain::event::{Body, Cut, Kept, Purpose};
use oma_domain::outcome::Ending;
use oma_domain::policy::Permission;
use oma_domain::thinking::ThinkingLevel;
use oma_domain::usage::Usage;
use oma_domain::web::{Sources, ToolFilter};
use oma_domain::{ContentBlock, Event, EventId, Seq, SessionId};
use oma_models::{AssistantBlock, Message, UserBlock};

use super::Conversation;

fn id(text: &str) -> EventId {
    EventId::parse(text).unwrap()
}

fn log(bodies: Vec<(&str, Body)>) -> Vec<Event> {
    let event = |(index, (name, body)): (usize, (&str, Body))| Event {
        id: id(name),
        seq: Seq(index as u64 + 1),
        session: oma_domain::SessionId::parse("ses_test").unwrap(),
        at: oma_domain::Timestamp(0),
        body: Arc::new(body),
    };
    bodies.into_iter().enumerate().map(event).collect()
}

fn user(text: &str) -> Body {
    Body::UserMessage {
        content: vec![ContentBlock::text(text)],
        from: None,
    }
}

fn says(request: &str, text: &str) -> Body {
    Body::AgentMessage {
        request: id(request),
        content: vec![ContentBlock::text(text)],
        model: "p/m".into(),
        usage: None,
        cost: None,
        interrupted: false,
        opaque: None,
    }
}

fn uses(request: &str, call_id: &str) -> Body {
    Body::AgentToolUse {
        request: id(request),
        name: "bash".into(),
        input: serde_json::json!({}),
        call_id: call_id.into(),
        permission: Permission::Allow,
        custom: false,
        origin: None,
        opaque: None,
    }
}

fn result(tool: &str, text: &str) -> Body {
    let content = vec![ContentBlock::text(text)];
    Body::AgentToolResult {
        tool_use: id(tool),
        name: "bash".into(),
        content,
        is_error: false,
        of_server: None,
    }
}

fn end(request: &str) -> Body {
    let usage = Usage {
        input: 1,
        ..Usage::default()
    };
    Body::ModelRequestEnd {
        request: id(request),
        is_error: false,
        purpose: oma_domain::event::Purpose::Reply,
        usage,
        cost: None,
    }
}

fn begin() -> Body {
    let (model, thinking_level) = ("p/m".into(), ThinkingLevel::Off);
    Body::ModelRequestStart {
        model,
        thinking_level,
        purpose: Purpose::Reply,
    }
}

/// One line a message: the role, then its blocks.
fn shorthand(conversation: &Conversation) -> Vec<String> {
    let user = |block: &UserBlock| match block {
        UserBlock::Content(ContentBlock::Text { text }) => text.clone(),
        UserBlock::Content(_) => "media".into(),
        UserBlock::ToolResult { call_id, .. } => format!("result {call_id}"),
        UserBlock::System(text) => format!("system {text}"),
    };
    let assistant = |block: &AssistantBlock| match block {
        AssistantBlock::Text { text, .. } => text.clone(),
        AssistantBlock::Thinking { text, .. } => format!("thinks {text}"),
        AssistantBlock::ToolUse { call_id, .. } => format!("use {call_id}"),
    };
    let line = |message: &Message| match message {
        Message::User(blocks) => format!(
            "user: {}",
            blocks.iter().map(user).collect::<Vec<_>>().join(" | ")
        ),
        Message::Assistant(blocks) => {
            format!(
                "agent: {}",
                blocks.iter().map(assistant).collect::<Vec<_>>().join(" | ")
            )
        }
    };
    conversation.messages().iter().map(line).collect()
}

fn fold(events: &[Event]) -> Conversation {
    let mut conversation = Conversation::default();
    conversation.extend(events);
    conversation
}

#[test]
fn blocks_of_one_request_are_one_message() {
    let events = log(vec![
        ("run", Body::StatusRunning),
        ("m1", user("hi")),
        ("r1", begin()),
        ("t1", says("r1", "let me look")),
        ("a", uses("r1", "call_a")),
        ("b", uses("r1", "call_b")),
        ("e1", end("r1")),
        ("rb", result("b", "second")),
        ("ra", result("a", "first")),
        ("r2", begin()),
        ("t2", says("r2", "done")),
        ("e2", end("r2")),
        ("m2", user("thanks")),
    ]);
    assert_eq!(
        shorthand(&fold(&events)),
        [
            "user: hi",
            "agent: let me look | use call_a | use call_b",
            "user: result call_b | result call_a",
            "agent: done",
            "user: thanks"
        ]
    );
}

#[test]
fn answers_of_different_requests_and_unanswered_messages_stay_apart() {
    let events = log(vec![
        ("m1", user("one")),
        ("r1", begin()),
        ("m2", user("two")),
        ("t1", says("r1", "a")),
        ("t2", says("r2", "b")),
    ]);
    assert_eq!(
        shorthand(&fold(&events)),
        ["user: one", "user: two", "agent: a", "agent: b"]
    );
}

#[test]
fn a_summary_replaces_what_it_covers() {
    let events = log(vec![
        ("m1", user("build it")),
        ("a", uses("r1", "call_a")),
        ("ra", result("a", "out")),
        (
            "c",
            Body::Compaction {
                request: id("r2"),
                summary: "the story".into(),
                through: Seq(3),
                kept: None,
            },
        ),
        ("m2", user("go on")),
    ]);
    let whole = fold(&events);
    assert_eq!(
        shorthand(&whole),
        ["user: This is a summary of the conversation so far:\n\nthe story | go on"]
    );
    // Reading only what follows the summary gives the same.
    let mut later = Conversation::after(Seq(3));
    later.extend(&events[3..]);
    assert_eq!(later.messages(), whole.messages());
}

#[test]
fn a_message_that_is_kept_counts_although_the_summary_was_counted() {
    let kept = Kept {
        message: Seq(1),
        whole: vec![0],
        cut: Vec::new(),
    };
    let compaction = Body::Compaction {
        request: id("r2"),
        summary: "the story".into(),
        through: Seq(2),
        kept: Some(kept.clone()),
    };
    let events = log(vec![
        ("m1", user(&"x".repeat(4_000))),
        ("r2", begin()),
        ("c", compaction),
        ("e2", end("r2")),
    ]);
    let mut conversation = fold(&events[..2]);
    assert_eq!(conversation.keep(1_000), Some(kept));
    let too_long = Kept {
        message: Seq(1),
        whole: Vec::new(),
        cut: vec![Cut {
            block: 0,
            head: 1_998,
            tail: 1_998,
        }],
    };
    assert_eq!(conversation.keep(999), Some(too_long));
    conversation.extend(&events[2..]);
    let [message] = &shorthand(&conversation)[..] else {
        panic!("one message")
    };
    assert!(message.contains(&"x".repeat(4_000)) && message.ends_with("the story"));
    assert!(conversation.uncounted_tokens() > 1_000);
    // Who has not read the message yet reads the log for it first.
    let mut later = Conversation::after(Seq(2));
    later.extend(&events[2..]);
    assert!(later.messages().is_empty());
}

#[test]
fn events_are_folded_in_once_and_in_order() {
    let events = log(vec![
        ("m1", user("one")),
        ("m2", user("two")),
        ("m3", user("three")),
    ]);
    let mut conversation = fold(&events[..1]);
    conversation.extend(&events[2..]);
    assert_eq!(
        shorthand(&conversation),
        ["user: one"],
        "a gap is left to be read from the store"
    );
    conversation.extend(&events);
    conversation.extend(&events);
    assert_eq!(
        shorthand(&conversation),
        ["user: one", "user: two", "user: three"]
    );
}

#[test]
fn what_was_added_since_the_last_count_is_weighed() {
    let mut conversation = fold(&log(vec![("m1", user(&"x".repeat(400)))]));
    assert_eq!(conversation.uncounted_tokens(), 100);
    let mut more = log(vec![("m1", user("")), ("e", end("r1"))]);
    more.remove(0);
    conversation.extend(&more);
    assert_eq!(conversation.uncounted_tokens(), 0);
}

#[test]
fn shrinking_leaves_out_what_is_long() {
    let image = ContentBlock::Image {
        source: oma_domain::content::Source::Url {
            url: "https://example.com/a.png".into(),
        },
    };
    let events = log(vec![
        (
            "m1",
            Body::UserMessage {
                content: vec![ContentBlock::text("short"), image],
                from: None,
            },
        ),
        ("a", uses("r1", "call_a")),
        ("ra", result("a", &"é".repeat(5_000))),
    ]);
    let conversation = fold(&events);
    let Message::User(blocks) = &conversation.reduced(1)[0] else {
        panic!("a user message")
    };
    assert_eq!(blocks.len(), 2);
    assert_eq!(
        blocks[1],
        UserBlock::Content(ContentBlock::text("[an image was left out]"))
    );
    let Message::User(blocks) = &conversation.reduced(1)[2] else {
        panic!("a user message")
    };
    let UserBlock::ToolResult { content, .. } = &blocks[0] else {
        panic!("a result")
    };
    assert!(oma_domain::content::joined_text(content).chars().count() < 1_100);
}

#[test]
fn reducing_further_drops_the_older_half_and_never_a_use_without_its_result() {
    let mut bodies = Vec::new();
    let names: Vec<[String; 4]> = (0..6)
        .map(|n| [format!("m{n}"), format!("u{n}"), format!("x{n}"), format!("t{n}")])
        .collect();
    for (n, [message, tool, result_of, text]) in names.iter().enumerate() {
        let (first, second) = (format!("r{n}"), format!("s{n}"));
        bodies.push((message.as_str(), user(message)));
        bodies.push((tool.as_str(), uses(&first, tool)));
        bodies.push((result_of.as_str(), result(tool, "out")));
        bodies.push((text.as_str(), says(&second, text)));
    }
    let conversation = fold(&log(bodies));
    let mut last = usize::MAX;
    for step in 0..7 {
        let messages = conversation.reduced(step);
        assert!(!messages.is_empty() && messages.len() <= last, "step {step}");
        last = messages.len();
        assert!(matches!(messages[0], Message::User(_)));
        let mut open = std::collections::HashSet::new();
        for message in &messages {
            match message {
                Message::Assistant(blocks) => blocks.iter().for_each(|block| {
                    if let AssistantBlock::ToolUse { call_id, .. } = block {
                        open.insert(call_id.clone());
                    }
                }),
                Message::User(blocks) => blocks.iter().for_each(|block| {
                    if let UserBlock::ToolResult { call_id, .. } = block {
                        assert!(open.remove(call_id), "step {step}: a result without its use");
                    }
                }),
            }
        }
        assert!(open.is_empty());
    }
    assert_eq!(last, 1);
}

/// Which of the user's messages is which stays visible after turns that failed: a scripted model counts them.
#[test]
fn what_was_never_answered_stays_a_message_of_its_own() {
    let mut conversation = Conversation::default();
    let failed = log(vec![
        ("evt_1", user("one")),
        ("evt_2", user("two")),
        ("evt_3", uses("evt_r", "call")),
        ("evt_4", result("evt_3", "done")),
        ("evt_5", user("three")),
    ]);
    conversation.extend(&failed);
    let shape: Vec<usize> = conversation
        .messages()
        .iter()
        .map(|message| match message {
            Message::User(blocks) => blocks.len(),
            Message::Assistant(_) => 0,
        })
        .collect();
    assert_eq!(shape, [1, 1, 0, 2]);
}

fn defines(waits: bool) -> Body {
    Body::UserDefineOutcome {
        outcome: oma_domain::OutcomeId::parse("outc_1").unwrap(),
        description: "A haiku".into(),
        rubric: "Three lines.".into(),
        max_iterations: 3,
        waits,
    }
}

fn ends(result: Ending) -> Body {
    Body::OutcomeEvaluationEnd {
        start: None,
        outcome: oma_domain::OutcomeId::parse("outc_1").unwrap(),
        iteration: 0,
        result,
        explanation: "One line only.".into(),
        usage: Usage::default(),
    }
}

#[test]
fn an_outcome_is_a_task_and_its_verdicts_are_answered() {
    let events = log(vec![
        ("o", defines(false)),
        ("r1", begin()),
        ("t1", says("r1", "done")),
        ("e1", end("r1")),
        ("v1", ends(Ending::NeedsRevision)),
        ("r2", begin()),
        ("t2", says("r2", "done again")),
        ("e2", end("r2")),
        ("v2", ends(Ending::Satisfied)),
        ("m1", user("thanks")),
    ]);
    let lines = shorthand(&fold(&events));
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert!(
        lines[0].contains("A haiku") && lines[0].contains("Three lines."),
        "{lines:?}"
    );
    assert!(
        lines[2].contains("One line only.") && lines[2].contains("Revise"),
        "{lines:?}"
    );
    assert_eq!(
        lines[4], "user: thanks",
        "a satisfied grader says nothing to the agent"
    );
    let last = shorthand(&fold(&log(vec![("v1", ends(Ending::MaxIterationsReached))])));
    assert!(last[0].contains("no more revisions"), "{last:?}");
}

#[test]
fn what_is_defined_in_mid_turn_is_told_when_the_work_begins() {
    let events = log(vec![
        ("m1", user("hi")),
        ("r1", begin()),
        ("o", defines(true)),
        ("t1", says("r1", "hello")),
        ("e1", end("r1")),
        (
            "b",
            Body::OutcomeBegun {
                outcome: oma_domain::OutcomeId::parse("outc_1").unwrap(),
                defined: Seq(3),
            },
        ),
    ]);
    let lines = shorthand(&fold(&events));
    assert_eq!(&lines[..2], ["user: hi", "agent: hello"]);
    assert!(lines.len() == 3 && lines[2].contains("A haiku"), "{lines:?}");
    // What a summary covers is read again.
    let late = Conversation::after(Seq(5));
    assert_eq!(late.missing(&events[5]), Some(Seq(3)));
}

#[test]
fn system_messages_stand_with_what_they_accompany() {
    let note = |text: &str| Body::SystemMessage {
        content: vec![ContentBlock::text(text)],
        thread: None,
    };
    let aside = Body::SystemMessage {
        content: vec![ContentBlock::text("for somebody else")],
        thread: Some(SessionId::parse("ses_thread").unwrap()),
    };
    let events = log(vec![
        ("m1", user("hi")),
        ("s1", note("be kind")),
        ("r1", begin()),
        ("u1", uses("r1", "c1")),
        ("e1", end("r1")),
        ("x1", result("u1", "ok")),
        ("s0", aside),
        ("s2", note("be brief")),
    ]);
    assert_eq!(
        shorthand(&fold(&events)),
        [
            "user: hi | system be kind",
            "agent: use c1",
            "user: result c1 | system be brief"
        ]
    );
    // The user has still to be answered.
    let again = log(vec![
        ("m1", user("hi")),
        ("s1", note("be kind")),
        ("m2", user("there?")),
    ]);
    assert_eq!(
        shorthand(&fold(&again)),
        ["user: hi | system be kind", "user: there?"]
    );
}

#[test]
fn addresses_count_where_they_may_come_from() {
    let url = "https://a.org/page";
    let said = |by: &str| match by {
        "user" => log(vec![("m1", user(&format!("Read {url}.")))]),
        "summary" => log(vec![(
            "c",
            Body::Compaction {
                request: id("r"),
                summary: url.into(),
                through: Seq(0),
                kept: None,
            },
        )]),
        _ => log(vec![
            ("r1", begin()),
            ("u1", uses("r1", "c1")),
            ("x1", result("u1", url)),
        ]),
    };
    let all = Some(ToolFilter::All);
    let none = Some(ToolFilter::None);
    let only = Some(ToolFilter::Only(vec!["bash".into()]));
    let except = Some(ToolFilter::Except(vec!["bash".into()]));
    for (by, user_input, client, server, custom, heard) in [
        ("user", &all, &none, &none, false, true),
        ("user", &None, &none, &none, false, true),
        ("user", &none, &all, &all, false, false),
        ("tool", &none, &none, &all, false, true),
        ("tool", &none, &none, &only, false, true),
        ("tool", &none, &none, &except, false, false),
        ("tool", &none, &all, &none, true, true),
        ("tool", &none, &none, &all, true, false),
        ("summary", &all, &all, &all, false, false),
    ] {
        let sources = Sources {
            user_input: user_input.clone(),
            client_tool_results: client.clone(),
            server_tool_results: server.clone(),
        };
        let conversation = fold(&said(by));
        let mentioned = conversation.mentions(url, &sources, |_| custom);
        assert_eq!(mentioned, heard, "{by} {sources:?}");
    }
}
