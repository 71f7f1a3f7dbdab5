//! Every type of event as this dialect shows it.

use std::sync::Arc;

use oma_api::dialects::openclaw::events::projection::project;
use oma_domain::content::{ContentBlock, Source};
use oma_domain::environment::Manager;
use oma_domain::environment::build::{Progress, Step};
use oma_domain::event::{Body, Cut, Failure, FailureKind, Kept, Purpose, StopReason};
use oma_domain::policy::Permission;
use oma_domain::quota::Exceeded;
use oma_domain::thinking::ThinkingLevel;
use oma_domain::usage::{Cost, NanoUsd, Usage};
use oma_domain::{Event, EventId, Seq, SessionId, Timestamp};
use serde_json::{Map, Value, json};

fn id(text: &str) -> EventId {
    EventId::parse(text).unwrap()
}

fn text(text: &str) -> Vec<ContentBlock> {
    vec![ContentBlock::text(text)]
}

fn idle(stop_reason: StopReason) -> Body {
    Body::StatusIdle {
        stop_reason,
        totals: None,
        budget: None,
    }
}

fn failure() -> Failure {
    Failure {
        kind: FailureKind::ModelOverloaded,
        message: "The provider is busy.".into(),
    }
}

fn message(usage: Option<Usage>, cost: Option<u64>, interrupted: bool) -> Body {
    Body::AgentMessage {
        request: id("evt_request"),
        content: text("Hello!"),
        model: "test/model".into(),
        usage,
        cost: cost.map(|nano| Cost {
            amount: NanoUsd(nano),
            source: "provider".into(),
        }),
        interrupted,
        opaque: None,
    }
}

fn tool_use(permission: Permission) -> Body {
    Body::AgentToolUse {
        request: id("evt_request"),
        name: "bash".into(),
        input: json!({"command": "ls"}),
        call_id: "toolu_1".into(),
        permission,
        custom: false,
        origin: None,
        opaque: None,
    }
}

fn result(content: Vec<ContentBlock>, is_error: bool) -> Body {
    Body::AgentToolResult {
        tool_use: id("evt_use"),
        name: "bash".into(),
        content,
        is_error,
        of_server: None,
    }
}

fn build(progress: Progress) -> Body {
    Body::EnvironmentBuild {
        layer: "0".repeat(64),
        progress,
    }
}

fn bodies() -> Vec<(&'static str, Body)> {
    let usage = Usage {
        input: 100,
        output: 20,
        cache_read: 50,
        cache_write: 7,
    };
    let picture = Source::Base64 {
        media_type: "image/png".into(),
        data: "aGk=".into(),
    };
    let page = Source::Url {
        url: "https://example.com/a.pdf".into(),
    };
    let mixed = vec![
        ContentBlock::text("look"),
        ContentBlock::Image { source: picture },
        ContentBlock::Document {
            source: page,
            title: None,
            context: None,
        },
    ];
    vec![
        (
            "user message",
            Body::UserMessage {
                content: text("Hi"),
                from: None,
            },
        ),
        (
            "user message with attachments",
            Body::UserMessage {
                content: mixed,
                from: None,
            },
        ),
        (
            "interrupt",
            Body::UserInterrupt {
                dropped: vec![],
                thread: None,
            },
        ),
        (
            "interrupt that drops",
            Body::UserInterrupt {
                dropped: vec![id("evt_a"), id("evt_b")],
                thread: None,
            },
        ),
        (
            "allowed",
            Body::UserToolConfirmation {
                tool_use: id("evt_use"),
                allow: true,
                deny_message: None,
                thread: None,
            },
        ),
        (
            "denied",
            Body::UserToolConfirmation {
                tool_use: id("evt_use"),
                allow: false,
                deny_message: Some("no".into()),
                thread: None,
            },
        ),
        ("message", message(Some(usage), Some(2_500_000), false)),
        ("message of unknown price", message(Some(usage), None, false)),
        ("message that was cut off", message(None, None, true)),
        (
            "thinking",
            Body::AgentThinking {
                request: id("evt_request"),
                text: "Hm.".into(),
                opaque: None,
            },
        ),
        ("tool use", tool_use(Permission::Allow)),
        ("tool use that asks", tool_use(Permission::Ask)),
        ("tool use that is denied", tool_use(Permission::Deny)),
        ("tool result", result(text("a\nb"), false)),
        ("tool result without output", result(vec![], true)),
        ("running", Body::StatusRunning),
        ("end of turn", idle(StopReason::EndTurn)),
        ("output limit", idle(StopReason::MaxTokens)),
        ("refusal", idle(StopReason::Refusal { explanation: None })),
        (
            "refusal with words",
            idle(StopReason::Refusal {
                explanation: Some("I can't.".into()),
            }),
        ),
        ("interrupted", idle(StopReason::Interrupted)),
        (
            "waits for confirmation",
            idle(StopReason::RequiresAction {
                tool_uses: vec![id("evt_use")],
            }),
        ),
        ("budget", idle(StopReason::BudgetReached { cap: Exceeded::Cost })),
        ("failed", idle(StopReason::Failed { failure: failure() })),
        (
            "error with retry",
            Body::Error {
                failure: failure(),
                retrying: true,
            },
        ),
        (
            "last error",
            Body::Error {
                failure: failure(),
                retrying: false,
            },
        ),
        (
            "model change",
            Body::ModelChange {
                model: "other/model".into(),
            },
        ),
        (
            "thinking level change",
            Body::ThinkingLevelChange {
                thinking_level: ThinkingLevel::High,
            },
        ),
        (
            "compaction",
            Body::Compaction {
                request: id("evt_request"),
                summary: "So far.".into(),
                through: Seq(9),
                kept: None,
            },
        ),
        (
            "compaction in a turn",
            Body::Compaction {
                request: id("evt_request"),
                summary: "So far.".into(),
                through: Seq(9),
                kept: Some(Kept {
                    message: Seq(8),
                    whole: vec![1],
                    cut: vec![Cut {
                        block: 0,
                        head: 4_000,
                        tail: 3_999,
                    }],
                }),
            },
        ),
        ("build begins", build(Progress::Started)),
        (
            "build begins a step",
            build(Progress::StepStarted {
                step: Step::packages(Manager::Pip, &["six".into(), "numpy".into()]),
            }),
        ),
        (
            "build ends a step",
            build(Progress::StepEnded {
                step: Step::SetupScript,
                took_ms: 1_500,
                is_error: false,
            }),
        ),
        ("build is ready", build(Progress::Ready { took_ms: 61_000 })),
        (
            "build failed",
            build(Progress::Failed {
                took_ms: 2_000,
                reason: "pip could not install six (exit status 1):\nERROR: no".into(),
            }),
        ),
        (
            "model request",
            Body::ModelRequestStart {
                model: "test/model".into(),
                thinking_level: ThinkingLevel::Off,
                purpose: Purpose::Reply,
            },
        ),
        (
            "end of model request",
            Body::ModelRequestEnd {
                request: id("evt_request"),
                is_error: false,
                purpose: oma_domain::event::Purpose::Reply,
                usage,
                cost: None,
            },
        ),
    ]
}

#[test]
fn every_event_type() {
    let mut shown = Map::new();
    let mut kinds = std::collections::BTreeSet::new();
    for (name, body) in bodies() {
        kinds.insert(body.kind());
        let event = Event {
            id: id("evt_1"),
            seq: Seq(1),
            session: SessionId::parse("ses_1").unwrap(),
            at: Timestamp(1_700_000_000_000),
            body: Arc::new(body),
        };
        let frames: Vec<Value> = project(&event).iter().map(|frame| json!(frame)).collect();
        for frame in &frames {
            // The published clients read these from every frame.
            for field in ["event_id", "session_id", "type", "content"] {
                assert!(frame[field].is_string(), "{name}: {field}");
            }
        }
        shown.insert(name.to_owned(), frames.into());
    }
    assert_eq!(kinds.len(), 16, "a type of event is missing here: {kinds:?}");
    insta::assert_json_snapshot!(shown);
}
