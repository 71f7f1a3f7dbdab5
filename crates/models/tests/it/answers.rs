//! Whole answers of every kind, from every protocol.

use futures_util::StreamExt;
use oma_domain::ContentBlock;
use oma_domain::content::Source;
use oma_domain::session::ReplyStop;
use oma_domain::usage::NanoUsd;
use oma_fake_provider::{Gate, Reply, Step, Stop, Usage};
use oma_models::{AssistantBlock, Chunk, Message, UserBlock};
use serde_json::json;

use crate::harness::{Harness, MODELS, request, results, say};

#[tokio::test]
async fn text_streams_in_order() {
    let harness = Harness::start().await;
    for model in MODELS {
        harness
            .provider
            .push(Reply::new().text("Grüße, wie geht's? 你好 👋").chunk(3));
        let answered = harness.ask(model, &request(vec![say("hi")])).await.expect(model);
        let texts: Vec<&str> = answered
            .completion
            .blocks
            .iter()
            .map(|block| match block {
                AssistantBlock::Text { text, .. } => text.as_str(),
                other => panic!("{model}: {other:?}"),
            })
            .collect();
        assert_eq!(texts, ["Grüße, wie geht's? 你好 👋"], "{model}");
        assert!(answered.chunks.len() > 5, "{model}: it came in pieces");
        assert_eq!(answered.completion.stop, ReplyStop::Done, "{model}");
    }
    harness.provider.assert_clean();
}

#[tokio::test]
async fn a_piece_arrives_before_the_next_is_made() {
    let harness = Harness::start().await;
    for model in MODELS {
        let gate = Gate::new();
        harness
            .provider
            .push(Reply::new().text("first").gate(&gate).text("second").chunk(100));
        let request = request(vec![say("hi")]);
        let mut stream = harness.model(model).stream(&request).await.expect(model);
        let first = stream.next().await.expect("a piece").expect(model);
        assert_eq!(
            first,
            Chunk::Text {
                index: 0,
                text: "first".to_owned()
            },
            "{model}"
        );
        gate.reached().await;
        gate.open();
        let rest: Vec<_> = stream.collect().await;
        assert!(
            matches!(rest.last(), Some(Ok(Chunk::Done(_)))),
            "{model}: {rest:?}"
        );
    }
}

#[tokio::test]
async fn thoughts_and_parallel_tools_go_round_and_come_back() {
    let harness = Harness::start().await;
    for model in MODELS {
        let reply = Reply::new()
            .thinking("The user wants two things.")
            .text("Let me look.")
            .tool(
                "bash",
                json!({"command": "ls", "nested": {"deep": [1, 2, {"x": "ü"}]}}),
            )
            .tool("bash", json!({"command": "pwd"}));
        harness.provider.push(reply);
        let mut messages = vec![say("hi")];
        let first = harness
            .ask(model, &request(messages.clone()))
            .await
            .expect(model)
            .completion;
        let kinds: Vec<&str> = first
            .blocks
            .iter()
            .map(|block| match block {
                AssistantBlock::Text { .. } => "text",
                AssistantBlock::Thinking { .. } => "thinking",
                AssistantBlock::ToolUse { .. } => "tool",
            })
            .collect();
        assert_eq!(kinds, ["thinking", "text", "tool", "tool"], "{model}");
        let inputs: Vec<_> = first
            .blocks
            .iter()
            .filter_map(|block| match block {
                AssistantBlock::ToolUse { input, .. } => Some(input.clone()),
                _ => None,
            })
            .collect();
        let expected = [
            json!({"command": "ls", "nested": {"deep": [1, 2, {"x": "ü"}]}}),
            json!({"command": "pwd"}),
        ];
        assert_eq!(inputs, expected, "{model}");

        // The second request carries the thoughts back, in a second tool loop as well.
        messages.push(Message::Assistant(first.blocks.clone()));
        messages.push(results(&first));
        harness.provider.push(
            Reply::new()
                .thinking("And now?")
                .tool("bash", json!({"command": "true"})),
        );
        let second = harness
            .ask(model, &request(messages.clone()))
            .await
            .expect(model)
            .completion;
        messages.push(Message::Assistant(second.blocks.clone()));
        messages.push(results(&second));
        harness.provider.push(Reply::new().text("Done."));
        harness.ask(model, &request(messages)).await.expect(model);
        let violations = harness.provider.take_violations();
        assert!(violations.is_empty(), "{model}: {violations:#?}");
    }
}

#[tokio::test]
async fn hidden_thoughts_go_round() {
    let harness = Harness::start().await;
    for model in MODELS {
        let reply = Reply::new()
            .step(Step::Redacted("red-abc".to_owned()))
            .tool("bash", json!({}));
        harness.provider.push(reply);
        let first = harness
            .ask(model, &request(vec![say("hi")]))
            .await
            .expect(model)
            .completion;
        let has_thought = first
            .blocks
            .iter()
            .any(|block| matches!(block, AssistantBlock::Thinking { .. }));
        let protocol_hides = !model.starts_with("deepseek") && !model.starts_with("gemini");
        assert_eq!(has_thought, protocol_hides, "{model}");
        let messages = vec![
            say("hi"),
            Message::Assistant(first.blocks.clone()),
            results(&first),
        ];
        harness.ask(model, &request(messages)).await.expect(model);
        if protocol_hides {
            let body = harness
                .provider
                .requests()
                .pop()
                .expect("a request")
                .body
                .to_string();
            assert!(body.contains("red-abc"), "{model}: {body}");
        }
        let violations = harness.provider.take_violations();
        // Where thoughts can't be hidden, the tool use's mark for them has nothing to refer to.
        assert!(violations.is_empty(), "{model}: {violations:#?}");
    }
}

#[tokio::test]
async fn a_conversation_can_change_its_model() {
    let harness = Harness::start().await;
    let mut messages = vec![say("hi")];
    // Each model continues what the ones before it began, tool loops included.
    for model in MODELS.iter().chain(MODELS) {
        harness
            .provider
            .push(Reply::new().thinking("hm").tool("bash", json!({"command": "ls"})));
        let answer = harness
            .ask(model, &request(messages.clone()))
            .await
            .expect(model)
            .completion;
        messages.push(Message::Assistant(answer.blocks.clone()));
        messages.push(results(&answer));
        messages.push(say("go on"));
        let violations = harness.provider.take_violations();
        assert!(violations.is_empty(), "{model}: {violations:#?}");
    }
}

#[tokio::test]
async fn images_and_documents_are_sent() {
    let harness = Harness::start().await;
    let image = ContentBlock::Image {
        source: Source::Base64 {
            media_type: "image/png".to_owned(),
            data: "iVBORw0KGgo=".to_owned(),
        },
    };
    let document = ContentBlock::Document {
        source: Source::Base64 {
            media_type: "application/pdf".to_owned(),
            data: "JVBERi0=".to_owned(),
        },
        title: Some("Report".to_owned()),
        context: None,
    };
    for model in MODELS {
        harness
            .provider
            .push(Reply::new().tool("bash", json!({"command": "shot"})));
        let user = Message::User(vec![
            UserBlock::Content(ContentBlock::text("look")),
            UserBlock::Content(image.clone()),
            UserBlock::Content(document.clone()),
        ]);
        let first = harness
            .ask(model, &request(vec![user.clone()]))
            .await
            .expect(model)
            .completion;
        let body = harness
            .provider
            .requests()
            .pop()
            .expect("a request")
            .body
            .to_string();
        assert!(
            body.contains("iVBORw0KGgo=") && body.contains("JVBERi0="),
            "{model}: {body}"
        );
        let Message::User(mut blocks) = results(&first) else {
            unreachable!()
        };
        if let Some(UserBlock::ToolResult { content, .. }) = blocks.first_mut() {
            *content = vec![ContentBlock::text("a picture"), image.clone()];
        }
        harness.provider.push(Reply::new().text("I see."));
        let messages = vec![user, Message::Assistant(first.blocks), Message::User(blocks)];
        harness.ask(model, &request(messages)).await.expect(model);
        let violations = harness.provider.take_violations();
        assert!(violations.is_empty(), "{model}: {violations:#?}");
    }
}

#[tokio::test]
async fn usage_is_counted_and_priced() {
    let harness = Harness::start().await;
    let usage = Usage {
        input: 1_000,
        output: 200,
        cache_read: 5_000,
        cache_write: 0,
        thinking: 50,
    };
    for model in MODELS {
        harness.provider.push(Reply::new().text("x").usage(Some(usage)));
        let completion = harness
            .ask(model, &request(vec![say("hi")]))
            .await
            .expect(model)
            .completion;
        let counted = completion.usage;
        assert_eq!(
            (counted.input, counted.output, counted.cache_read),
            (1_000, 200, 5_000),
            "{model}"
        );
        let cost = completion.cost.unwrap_or_else(|| panic!("{model}: no cost"));
        assert!(
            cost.source.starts_with("genai-prices "),
            "{model}: {}",
            cost.source
        );
        assert!(cost.amount > NanoUsd(0), "{model}");
        if *model == "anthropic/claude-opus-4-8" {
            // 1,000 at $5, 5,000 at $0.5 and 200 at $25 per million.
            assert_eq!(cost.amount, NanoUsd(12_500_000));
        }
    }
}

#[tokio::test]
async fn unknown_usage_is_no_free_answer() {
    let harness = Harness::start().await;
    // Gemini's fake sends counts with each piece, as the real one does.
    for model in MODELS.iter().filter(|model| !model.starts_with("gemini")) {
        harness.provider.push(Reply::new().text("x").usage(None));
        let completion = harness
            .ask(model, &request(vec![say("hi")]))
            .await
            .expect(model)
            .completion;
        assert_eq!((completion.usage.total(), completion.cost), (0, None), "{model}");
    }
}

#[tokio::test]
async fn the_providers_own_figure_goes_first() {
    let harness = Harness::start().await;
    harness.provider.push(Reply::new().text("x").cost(0.0123));
    let completion = harness
        .ask("openrouter/moonshotai/kimi-k2.6", &request(vec![say("hi")]))
        .await
        .expect("ok");
    let cost = completion.completion.cost.expect("a cost");
    assert_eq!(
        (cost.amount, cost.source.as_str()),
        (NanoUsd(12_300_000), "provider")
    );
}

#[tokio::test]
async fn local_servers_have_no_price() {
    let harness = Harness::start().await;
    harness.provider.push(Reply::new().text("x"));
    let completion = harness
        .ask("ollama/qwen3:8b", &request(vec![say("hi")]))
        .await
        .expect("ok")
        .completion;
    assert_eq!((completion.usage.input, completion.cost), (100, None));
}

#[tokio::test]
async fn ends_are_told_apart() {
    let harness = Harness::start().await;
    for model in MODELS {
        harness
            .provider
            .push(Reply::new().text("half").stop(Stop::MaxTokens));
        let cut = harness
            .ask(model, &request(vec![say("hi")]))
            .await
            .expect(model)
            .completion;
        assert_eq!(cut.stop, ReplyStop::MaxTokens, "{model}");
        harness
            .provider
            .push(Reply::new().stop(Stop::Refusal("not this".to_owned())));
        let refused = harness
            .ask(model, &request(vec![say("hi")]))
            .await
            .expect(model)
            .completion;
        let ReplyStop::Refusal { explanation } = refused.stop else {
            panic!("{model}: {:?}", refused.stop)
        };
        let explanation = explanation.unwrap_or_default();
        assert!(
            explanation.contains("not this") || explanation.contains("content_filtered"),
            "{model}: {explanation}"
        );
    }
}
