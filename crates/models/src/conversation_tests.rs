//! Histories of every kind give valid conversations.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const RULES: Rules<'static> = Rules {
    protocol: "anthropic",
    provider: "anthropic",
    call_ids: CallIds::Plain,
};

fn say(text: &str) -> Message {
    Message::User(vec![UserBlock::Content(ContentBlock::text(text))])
}

fn answer(blocks: Vec<AssistantBlock>) -> Message {
    Message::Assistant(blocks)
}

fn words(text: &str) -> AssistantBlock {
    AssistantBlock::Text {
        text: text.to_owned(),
        opaque: None,
    }
}

fn thought(maker: &str) -> AssistantBlock {
    let rules = Rules {
        provider: maker,
        ..RULES
    };
    AssistantBlock::Thinking {
        text: "hm".to_owned(),
        opaque: Some(rules.opaque(Map::new())),
    }
}

fn tool(id: &str) -> AssistantBlock {
    AssistantBlock::ToolUse {
        call_id: id.to_owned(),
        name: "bash".to_owned(),
        input: json!({}),
        opaque: None,
    }
}

fn result(id: &str, text: &str) -> UserBlock {
    let content = vec![ContentBlock::text(text)];
    UserBlock::ToolResult {
        call_id: id.to_owned(),
        name: "bash".to_owned(),
        content,
        is_error: false,
    }
}

/// A conversation in one line a turn.
fn sketch(turns: &[Turn<'_>]) -> Vec<String> {
    let line = |turn: &Turn<'_>| match turn {
        Turn::User(blocks) => blocks
            .iter()
            .fold("user".to_owned(), |line, block| match &**block {
                UserBlock::System(text) => format!("{line} system:{text}"),
                UserBlock::Content(ContentBlock::Text { text }) => format!("{line} {text}"),
                UserBlock::Content(_) => format!("{line} (media)"),
                UserBlock::ToolResult {
                    call_id,
                    content,
                    is_error,
                    ..
                } => {
                    let text = oma_domain::content::joined_text(content);
                    let text = if *is_error && text == NO_RESULT {
                        "unknown"
                    } else {
                        &text
                    };
                    format!("{line} {call_id}={text}")
                }
            }),
        Turn::Assistant(blocks) => blocks
            .iter()
            .fold("model".to_owned(), |line, block| match &**block {
                AssistantBlock::Text { text, .. } => format!("{line} {text}"),
                AssistantBlock::Thinking { .. } => format!("{line} (thought)"),
                AssistantBlock::ToolUse { call_id, .. } => format!("{line} {call_id}()"),
            }),
    };
    turns.iter().map(line).collect()
}

#[test]
fn each_irregularity_is_mended() {
    let cases: Vec<(&str, Vec<Message>, Vec<&str>)> = vec![
        ("nothing at all", vec![], vec!["user Continue."]),
        (
            "neighbours",
            vec![say("a"), say("b"), answer(vec![words("c")]), say("d")],
            vec!["user a b", "model c", "user d"],
        ),
        (
            "model first",
            vec![answer(vec![words("a")]), say("b")],
            vec!["user Continue.", "model a", "user b"],
        ),
        (
            "model last",
            vec![say("a"), answer(vec![words("b")])],
            vec!["user a", "model b", "user Continue."],
        ),
        (
            "empty texts",
            vec![say("a"), answer(vec![words(" \n")]), say(""), say("b")],
            vec!["user a b"],
        ),
        (
            "a foreign thought",
            vec![say("a"), answer(vec![thought("other"), words("b")]), say("c")],
            vec!["user a", "model b", "user c"],
        ),
        (
            "an own thought",
            vec![say("a"), answer(vec![thought("anthropic"), words("b")]), say("c")],
            vec!["user a", "model (thought) b", "user c"],
        ),
        (
            "a thought that nothing follows",
            vec![say("a"), answer(vec![thought("anthropic")]), say("b")],
            vec!["user a b"],
        ),
        (
            "results out of order, after text",
            vec![
                say("a"),
                answer(vec![tool("x"), tool("y")]),
                Message::User(vec![
                    UserBlock::Content(ContentBlock::text("hi")),
                    result("y", "2"),
                    result("x", "1"),
                ]),
            ],
            vec!["user a", "model x() y()", "user x=1 y=2 hi"],
        ),
        (
            "a missing result",
            vec![
                say("a"),
                answer(vec![tool("x"), tool("y")]),
                Message::User(vec![result("y", "2")]),
            ],
            vec!["user a", "model x() y()", "user x=unknown y=2"],
        ),
        (
            "no results at all",
            vec![say("a"), answer(vec![tool("x")])],
            vec!["user a", "model x()", "user x=unknown"],
        ),
        (
            "a result too many",
            vec![
                say("a"),
                answer(vec![tool("x")]),
                Message::User(vec![result("x", "1"), result("x", "2")]),
            ],
            vec![
                "user a",
                "model x()",
                "user x=1 Result of an earlier use of the tool bash: 2",
            ],
        ),
        (
            "a result whose tool use was compacted away",
            vec![Message::User(vec![result("x", "1")]), say("b")],
            vec!["user Result of an earlier use of the tool bash: 1 b"],
        ),
        (
            "an id twice",
            vec![
                say("a"),
                answer(vec![tool("x")]),
                Message::User(vec![result("x", "1")]),
                answer(vec![tool("x")]),
                Message::User(vec![result("x", "2")]),
            ],
            vec!["user a", "model x()", "user x=1", "model x_1()", "user x_1=2"],
        ),
        (
            "an id of another provider's form",
            vec![
                say("a"),
                answer(vec![tool("functions.bash:0")]),
                Message::User(vec![result("functions.bash:0", "1")]),
            ],
            vec!["user a", "model functions_bash_0()", "user functions_bash_0=1"],
        ),
    ];
    for (name, messages, expected) in cases {
        assert_eq!(sketch(&normalise(&messages, &RULES)), expected, "{name}");
    }
}

#[test]
fn mistrals_ids_have_nine_characters_and_stay_the_same() {
    let id = accepted_id("toolu_01ABCDEFG", 0, CallIds::Nine);
    assert_eq!(
        id,
        "sB6P7RBa7".to_owned(),
        "a changed id would break prompt caches"
    );
    assert_ne!(accepted_id("toolu_01ABCDEFG", 1, CallIds::Nine), id);
    assert_eq!(accepted_id("abcDEF123", 0, CallIds::Nine), "abcDEF123");
}

fn any_message() -> impl Strategy<Value = Message> {
    let id = prop::sample::select(vec!["a", "b", "c", "call.1", "call:1", ""]);
    let text = prop::sample::select(vec!["", " ", "hi", "there"]);
    let user = prop_oneof![
        text.clone()
            .prop_map(|text| UserBlock::Content(ContentBlock::text(text))),
        (id.clone(), text.clone()).prop_map(|(id, text)| result(id, text)),
    ];
    let assistant = prop_oneof![
        text.prop_map(words),
        id.prop_map(tool),
        prop::sample::select(vec!["anthropic", "other"]).prop_map(thought),
    ];
    prop_oneof![
        prop::collection::vec(user, 0..5).prop_map(Message::User),
        prop::collection::vec(assistant, 0..5).prop_map(Message::Assistant),
    ]
}

proptest! {
    #[test]
    fn any_history_gives_a_valid_conversation(
        messages in prop::collection::vec(any_message(), 0..12),
        call_ids in prop::sample::select(vec![CallIds::Plain, CallIds::Nine]),
    ) {
        let turns = normalise(&messages, &Rules { call_ids, ..RULES });
        prop_assert!(turns.len() % 2 == 1, "begins and ends with the user");
        let mut taken = HashSet::new();
        let mut open: Vec<String> = Vec::new();
        for (at, turn) in turns.iter().enumerate() {
            match turn {
                Turn::User(blocks) => {
                    prop_assert!(at % 2 == 0 && !blocks.is_empty());
                    let (results, rest) = blocks.split_at(open.len());
                    for (block, call) in results.iter().zip(open.drain(..)) {
                        let answers = matches!(&**block, UserBlock::ToolResult { call_id, .. } if *call_id == call);
                        prop_assert!(answers, "the result of {}", call);
                    }
                    for block in rest {
                        let is_result = matches!(&**block, UserBlock::ToolResult { .. });
                        prop_assert!(!is_result, "results come first");
                        if let UserBlock::Content(ContentBlock::Text { text }) = &**block {
                            prop_assert!(!is_blank(text));
                        }
                    }
                }
                Turn::Assistant(blocks) => {
                    prop_assert!(at % 2 == 1);
                    let thought_last = blocks.last().is_none_or(|it| matches!(**it, AssistantBlock::Thinking { .. }));
                    prop_assert!(!thought_last, "ends with more than a thought");
                    for block in blocks {
                        match &**block {
                            AssistantBlock::Text { text, .. } => prop_assert!(!is_blank(text)),
                            AssistantBlock::Thinking { opaque, .. } => prop_assert!(RULES.own(opaque.as_ref()).is_some()),
                            AssistantBlock::ToolUse { call_id, .. } => {
                                prop_assert!(call_ids == CallIds::Plain || call_id.len() == 9);
                                prop_assert!(call_id.chars().all(|ch| ch.is_ascii_alphanumeric() || "_-".contains(ch)));
                                prop_assert!(taken.insert(call_id.clone()), "unique");
                                open.push(call_id.clone());
                            }
                        }
                    }
                }
            }
        }
        prop_assert!(open.is_empty());
    }
}
