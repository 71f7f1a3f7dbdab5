//! The requests that the adapters write, for a conversation with everything in it.

use oma_domain::ContentBlock;
use oma_domain::content::Source;
use oma_domain::event::Opaque;
use oma_domain::thinking::ThinkingLevel;
use oma_fake_provider::Reply;
use oma_models::{AssistantBlock, Message, Request, ToolChoice, UserBlock};
use serde_json::{Value, json};

use crate::harness::{Harness, MODELS, bash, request, say};

/// A long session's history: media, a foreign thought, parallel tools with an image and a failure, an
/// interrupted tool, an empty answer, neighbours of one role.
fn rich() -> Vec<Message> {
    let image = |data: &str| ContentBlock::Image {
        source: Source::Base64 {
            media_type: "image/png".to_owned(),
            data: data.to_owned(),
        },
    };
    let tool = |id: &str, command: &str| AssistantBlock::ToolUse {
        call_id: id.to_owned(),
        name: "bash".to_owned(),
        input: json!({"command": command}),
        opaque: None,
    };
    let result = |id: &str, content: Vec<ContentBlock>, is_error: bool| UserBlock::ToolResult {
        call_id: id.to_owned(),
        name: "bash".to_owned(),
        content,
        is_error,
    };
    vec![
        Message::User(vec![
            UserBlock::Content(ContentBlock::text("Look at these.")),
            UserBlock::Content(image("AAAA")),
            UserBlock::Content(ContentBlock::Image {
                source: Source::Url {
                    url: "https://example.com/cat.webp".to_owned(),
                },
            }),
            UserBlock::Content(ContentBlock::Document {
                source: Source::Text {
                    data: "plain words".to_owned(),
                },
                title: Some("Notes".to_owned()),
                context: Some("written yesterday".to_owned()),
            }),
            UserBlock::Content(ContentBlock::Document {
                source: Source::Base64 {
                    media_type: "application/pdf".to_owned(),
                    data: "BBBB".to_owned(),
                },
                title: Some("Report.pdf".to_owned()),
                context: None,
            }),
        ]),
        Message::Assistant(vec![
            AssistantBlock::Thinking {
                text: "somebody else's thought".to_owned(),
                opaque: Some(Opaque {
                    protocol: "elsewhere".to_owned(),
                    data: json!({"signature": "x"}),
                }),
            },
            AssistantBlock::Text {
                text: "I'll run two commands.".to_owned(),
                opaque: None,
            },
            tool("functions.bash:0", "screenshot"),
            tool("functions.bash:1", "false"),
        ]),
        Message::User(vec![
            result("functions.bash:1", vec![ContentBlock::text("exit 1")], true),
            result(
                "functions.bash:0",
                vec![ContentBlock::text("taken"), image("CCCC")],
                false,
            ),
        ]),
        Message::Assistant(vec![tool("functions.bash:0", "sleep 100")]),
        say("stop that"),
        Message::Assistant(vec![AssistantBlock::Text {
            text: "  ".to_owned(),
            opaque: None,
        }]),
        say("and go on"),
    ]
}

#[tokio::test]
async fn each_protocol_writes_a_rich_conversation() {
    let harness = Harness::start().await;
    let all = MODELS.iter().chain(&[
        "mistral/mistral-large-latest",
        "openrouter/openai/gpt-6-sol",
        "moonshot/kimi-k2.6",
    ]);
    for model in all {
        harness.provider.push(Reply::new().text("ok"));
        let request = Request {
            max_tokens: Some(9_000),
            ..request(rich())
        };
        harness.ask(model, &request).await.expect(model);
        let recorded = harness.provider.requests().pop().expect("a request");
        assert_eq!(recorded.violations, [] as [String; 0], "{model}");
        let name = model.replace(['/', ':', '.'], "-");
        insta::assert_json_snapshot!(name, recorded.body);
    }
    harness.provider.assert_clean();
}

#[tokio::test]
async fn thinking_levels_are_said_in_each_models_way() {
    let harness = Harness::start().await;
    let mut table = Vec::new();
    let models = [
        "anthropic/claude-sonnet-4-5",
        "anthropic/claude-opus-4-6",
        "anthropic/claude-sonnet-5",
        "anthropic/claude-fable-5",
        "deepseek/deepseek-v4-pro",
        "moonshot/kimi-k2.6",
        "qwen/qwen3.6-plus",
        "openrouter/x/y",
        "groq/openai/gpt-oss-120b",
        "openai/gpt-5.2",
        "responses/gpt-6-sol",
        "gemini/gemini-2.5-flash",
        "gemini/gemini-3.6-flash",
    ];
    for model in models {
        for thinking in [
            ThinkingLevel::Off,
            ThinkingLevel::Low,
            ThinkingLevel::High,
            ThinkingLevel::Xhigh,
        ] {
            harness.provider.push(Reply::new().text("ok"));
            harness
                .ask(
                    model,
                    &Request {
                        thinking,
                        ..request(vec![say("hi")])
                    },
                )
                .await
                .expect(model);
            let body = harness.provider.requests().pop().expect("a request").body;
            let keys = [
                "thinking",
                "output_config",
                "reasoning_effort",
                "reasoning",
                "enable_thinking",
                "thinking_budget",
                "generationConfig",
            ];
            let said = keys
                .iter()
                .filter_map(|key| body.get(*key).map(|value| format!("{key}={value}")));
            table.push(format!(
                "{model} {}: {}",
                thinking.as_str(),
                said.collect::<Vec<_>>().join(" ")
            ));
        }
    }
    insta::assert_snapshot!(table.join("\n"));
}

#[tokio::test]
async fn a_summary_request_may_leave_the_tools_out() {
    let harness = Harness::start().await;
    for model in MODELS {
        let request = Request {
            tools: Vec::new(),
            thinking: ThinkingLevel::Off,
            ..request(rich())
        };
        harness.provider.push(Reply::new().text("a summary"));
        harness.ask(model, &request).await.expect(model);
    }
    harness.provider.assert_clean();
}

/// The parts of a request's conversation in order, without the marks for the prompt cache.
fn parts(body: &Value) -> Vec<(Value, Value)> {
    let lists = ["messages", "input", "contents"];
    let messages = lists.iter().find_map(|key| body[*key].as_array());
    let mut parts = Vec::new();
    for message in messages.into_iter().flatten() {
        let content = ["content", "parts"]
            .iter()
            .find_map(|key| message[*key].as_array().cloned());
        let content = content.unwrap_or_else(|| vec![message.clone()]);
        for mut part in content {
            if let Some(fields) = part.as_object_mut() {
                fields.remove("cache_control");
            }
            if part["cachePoint"].is_null() {
                parts.push((message["role"].clone(), part));
            }
        }
    }
    parts
}

#[tokio::test]
async fn a_summary_request_begins_as_the_request_before_it() {
    let harness = Harness::start().await;
    let models = MODELS.iter().chain(&["openrouter/anthropic/claude-opus-4.8"]);
    let mut table = Vec::new();
    for model in models {
        let mut last = Value::Null;
        for tool_choice in [ToolChoice::Auto, ToolChoice::Avoid, ToolChoice::None] {
            let mut messages = rich();
            // The tool loop is under way: its results are the last that the model was shown.
            messages.truncate(3);
            if tool_choice != ToolChoice::Auto {
                messages.push(say("Summarise."));
            }
            harness.provider.push(Reply::new().text("ok"));
            let request = Request {
                tool_choice,
                ..request(messages)
            };
            harness.ask(model, &request).await.expect(model);
            let body = harness.provider.requests().pop().expect("a request").body;
            let choice = ["tool_choice", "toolConfig"]
                .iter()
                .find_map(|key| body.get(*key).filter(|it| it["tools"].is_null()))
                .cloned();
            table.push(format!("{model} {tool_choice:?}: {}", choice.unwrap_or_default()));
            if tool_choice == ToolChoice::Auto {
                last = body;
                continue;
            }
            let (before, now) = (parts(&last), parts(&body));
            assert_eq!(now[..before.len()], before, "{model}");
            assert_eq!(now.len(), before.len() + 1, "{model}");
            assert!(now[before.len()].1.to_string().contains("Summarise."), "{model}");
            let rest = |body: &Value| {
                let mut body = body.clone();
                let fields = body.as_object_mut().expect("an object");
                let changed = ["messages", "input", "contents", "tool_choice"];
                fields.retain(|key, value| {
                    !changed.contains(&key.as_str()) && (key != "toolConfig" || !value["tools"].is_null())
                });
                body
            };
            assert_eq!(rest(&body), rest(&last), "{model}: all else is the same");
        }
    }
    harness.provider.assert_clean();
    insta::assert_snapshot!(table.join("\n"));
}

#[tokio::test]
async fn a_tool_loop_that_began_without_thoughts_ends_without() {
    let harness = Harness::start().await;
    let messages = vec![
        say("hi"),
        Message::Assistant(vec![AssistantBlock::ToolUse {
            call_id: "x".to_owned(),
            name: "bash".to_owned(),
            input: json!({}),
            opaque: None,
        }]),
        Message::User(vec![UserBlock::ToolResult {
            call_id: "x".to_owned(),
            name: "bash".to_owned(),
            content: vec![],
            is_error: false,
        }]),
    ];
    for (messages, thinks) in [(messages, false), (vec![say("hi")], true)] {
        harness.provider.push(Reply::new().text("ok"));
        harness
            .ask("anthropic/claude-sonnet-4-5", &request(messages))
            .await
            .expect("ok");
        let recorded = harness.provider.requests().pop().expect("a request");
        assert_eq!(recorded.body.get("thinking").is_some(), thinks);
        let beta = recorded.header("anthropic-beta");
        assert_eq!(beta, thinks.then_some("interleaved-thinking-2025-05-14"));
    }
}

#[tokio::test]
async fn keys_are_sent_in_each_protocols_place() {
    let harness = Harness::start().await;
    let mut seen = Vec::new();
    for model in MODELS {
        harness.provider.push(Reply::new().text("ok"));
        harness
            .ask(
                model,
                &Request {
                    tools: vec![bash()],
                    ..request(vec![say("hi")])
                },
            )
            .await
            .expect(model);
        let recorded = harness.provider.requests().pop().expect("a request");
        let names = ["x-api-key", "x-goog-api-key", "authorization"];
        let header = names
            .into_iter()
            .find(|name| recorded.header(name).is_some())
            .unwrap_or("none");
        seen.push(format!("{model}: {header} {}", recorded.path));
    }
    let expected = [
        "anthropic/claude-opus-4-8: x-api-key /v1/messages",
        "deepseek/deepseek-v4-pro: authorization /v1/chat/completions",
        "responses/gpt-6-sol: authorization /v1/responses",
        "gemini/gemini-3.6-flash: x-goog-api-key /v1beta/models/gemini-3.6-flash:streamGenerateContent?alt=sse",
        #[cfg(feature = "bedrock")]
        "bedrock/anthropic.claude-opus-4-8-v1:0: authorization /model/anthropic.claude-opus-4-8-v1%3A0/converse-stream",
    ];
    assert_eq!(seen, expected);
}

#[cfg(feature = "bedrock")]
#[tokio::test]
async fn bedrock_requests_are_signed_with_credentials() {
    let provider = oma_fake_provider::FakeProvider::start().await.expect("a port");
    let url = provider.url();
    let config = oma_models::Config::from_env(|name| match name {
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME" => Some(url.clone()),
        "AWS_ACCESS_KEY_ID" => Some("AKIDEXAMPLE".to_owned()),
        "AWS_SECRET_ACCESS_KEY" => Some("wJalrXUtnFEMI".to_owned()),
        "AWS_SESSION_TOKEN" => Some("session-token".to_owned()),
        "AWS_DEFAULT_REGION" => Some("eu-west-1".to_owned()),
        _ => None,
    });
    let registry = oma_models::Registry::from_config(config.expect("valid")).expect("a registry");
    let model = registry
        .resolve("bedrock/eu.anthropic.claude-opus-4-8-v1:0")
        .expect("a model");
    provider.push(Reply::new().text("ok"));
    crate::harness::collect(&*model, &request(vec![say("hi")]))
        .await
        .expect("an answer");
    let recorded = provider.requests().pop().expect("a request");
    let authorization = recorded.header("authorization").expect("a signature");
    assert!(
        authorization.contains("/eu-west-1/bedrock/aws4_request"),
        "{authorization}"
    );
    assert_eq!(recorded.header("x-amz-security-token"), Some("session-token"));
}

#[tokio::test]
async fn a_system_message_has_its_role_where_there_is_one() {
    let harness = Harness::start().await;
    let messages = || {
        vec![Message::User(vec![
            UserBlock::Content(ContentBlock::text("Hello.")),
            UserBlock::System("Be kind.".to_owned()),
        ])]
    };
    for model in MODELS.iter().chain(&["mistral/mistral-large-latest"]) {
        harness.provider.push(Reply::new().text("ok"));
        harness.ask(model, &request(messages())).await.expect(model);
        let body = harness.provider.requests().pop().expect("a request").body;
        let whole = body.to_string();
        assert!(
            whole.contains("Hello.") && whole.contains("Be kind."),
            "{model}: {whole}"
        );
        let lists = ["messages", "input", "contents"];
        let said = lists
            .iter()
            .find_map(|key| body[*key].as_array())
            .expect("messages");
        let own = said.iter().skip(1).any(|message| message["role"] == "system");
        assert!(own || whole.contains("<system-message>"), "{model}: {whole}");
        assert_eq!(own, model.starts_with("responses/"), "{model}");
    }
    harness.provider.assert_clean();
}
