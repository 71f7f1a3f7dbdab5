//! A fake provider, a registry that knows it under every protocol, and a way to ask.

#![expect(clippy::expect_used, reason = "a failure is to end the test")]

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use oma_domain::ContentBlock;
use oma_domain::thinking::ThinkingLevel;
use oma_fake_provider::FakeProvider;
use oma_models::config::Section;
use oma_models::{
    AssistantBlock, Chunk, Completion, Config, Error, Message, Model, Registry, Request, ToolChoice,
    ToolSpec, UserBlock,
};
use serde_json::json;

/// One model of each protocol.
pub(crate) const MODELS: &[&str] = &[
    "anthropic/claude-opus-4-8",
    "deepseek/deepseek-v4-pro",
    "responses/gpt-6-sol",
    "gemini/gemini-3.6-flash",
    #[cfg(feature = "bedrock")]
    "bedrock/anthropic.claude-opus-4-8-v1:0",
];

/// The key that all providers are given; it must not appear in any error.
pub(crate) const KEY: &str = "sk-test-0123456789";

pub(crate) struct Harness {
    pub(crate) provider: FakeProvider,
    pub(crate) registry: Registry,
}

impl Harness {
    pub(crate) async fn start() -> Self {
        Self::with_stall(Duration::from_secs(30)).await
    }

    pub(crate) async fn with_stall(stall: Duration) -> Self {
        let provider = FakeProvider::start().await.expect("a port");
        let (url, openai) = (provider.url(), provider.openai_url());
        let lookup = |name: &str| match name {
            "ANTHROPIC_BASE_URL" | "GEMINI_BASE_URL" | "AWS_ENDPOINT_URL_BEDROCK_RUNTIME" => {
                Some(url.clone())
            }
            "AWS_REGION" => Some("eu-west-1".to_owned()),
            "AWS_BEARER_TOKEN_BEDROCK" => Some(KEY.to_owned()),
            _ if name.ends_with("_API_KEY") => Some(KEY.to_owned()),
            _ if name.ends_with("_BASE_URL") => Some(openai.clone()),
            _ => None,
        };
        let mut config = Config::from_env(lookup).expect("a valid environment");
        let section: Section = toml::from_str(&format!(
            "[providers.responses]\nprotocol = \"openai_responses\"\nbase_url = \"{openai}\"\napi_key = \"{KEY}\"\n\
             catalogue = \"openai\"\n[providers.anthropic]\ncatalogue = \"anthropic\"\n\
             [providers.gemini]\ncatalogue = \"google\"\n[providers.deepseek]\ncatalogue = \"deepseek\"\n\
             [providers.bedrock]\ncatalogue = \"aws\"\n"
        ))
        .expect("a valid section");
        config.apply(section, lookup).expect("a valid configuration");
        config.stall_timeout = stall;
        Self {
            provider,
            registry: Registry::from_config(config).expect("a registry"),
        }
    }

    pub(crate) fn model(&self, name: &str) -> Arc<dyn Model> {
        self.registry.resolve(name).expect("a model")
    }

    /// Asks and collects the whole answer.
    pub(crate) async fn ask(&self, name: &str, request: &Request) -> Result<Answered, Error> {
        collect(&*self.model(name), request).await
    }
}

/// An answer and the pieces that it came in.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) chunks: Vec<Chunk>,
    pub(crate) completion: Completion,
}

/// Collects an answer and checks what holds of every answer: indexes never go back, the pieces of an index
/// joined are that block's text, tool uses are announced where they stand, and the end is the end.
pub(crate) async fn collect(model: &dyn Model, request: &Request) -> Result<Answered, Error> {
    let mut stream = model.stream(request).await?;
    let mut chunks = Vec::new();
    let mut joined: Vec<String> = Vec::new();
    let mut newest = 0;
    loop {
        let chunk = match stream.next().await.expect("an end or an error") {
            Ok(chunk) => chunk,
            Err(error) => {
                assert!(stream.next().await.is_none(), "an error is the last item");
                return Err(error);
            }
        };
        chunks.push(chunk.clone());
        let (index, text) = match chunk {
            Chunk::Text { index, text } | Chunk::Thinking { index, text } => (index, text),
            Chunk::ToolUse { index, name } => (index, format!("tool:{name}")),
            Chunk::Done(completion) => {
                assert!(stream.next().await.is_none(), "the end is the last item");
                let blocks = completion.blocks.iter().map(|block| match block {
                    AssistantBlock::Text { text, .. } | AssistantBlock::Thinking { text, .. } => text.clone(),
                    AssistantBlock::ToolUse { name, .. } => format!("tool:{name}"),
                });
                joined.resize(completion.blocks.len(), String::new());
                assert_eq!(joined, blocks.collect::<Vec<_>>(), "pieces joined are the blocks");
                return Ok(Answered {
                    chunks,
                    completion: *completion,
                });
            }
        };
        assert!(index >= newest, "indexes never go back");
        newest = index;
        joined.resize(joined.len().max(index + 1), String::new());
        joined[index].push_str(&text);
    }
}

pub(crate) fn say(text: &str) -> Message {
    Message::User(vec![UserBlock::Content(ContentBlock::text(text))])
}

/// One result for each tool use of an answer.
pub(crate) fn results(completion: &Completion) -> Message {
    let results = completion.blocks.iter().filter_map(|block| match block {
        AssistantBlock::ToolUse { call_id, name, .. } => Some(UserBlock::ToolResult {
            call_id: call_id.clone(),
            name: name.clone(),
            content: vec![ContentBlock::text(format!("result of {call_id}"))],
            is_error: false,
        }),
        _ => None,
    });
    Message::User(results.collect())
}

pub(crate) fn bash() -> ToolSpec {
    ToolSpec {
        name: "bash".to_owned(),
        description: "Runs a command.".to_owned(),
        input_schema: json!({
            "type": "object",
            "properties": {"command": {"type": "string"}},
            "required": ["command"],
        }),
    }
}

pub(crate) fn request(messages: Vec<Message>) -> Request {
    Request {
        system: "Be brief.".to_owned(),
        messages,
        tools: vec![bash()],
        tool_choice: ToolChoice::Auto,
        thinking: ThinkingLevel::Medium,
        max_tokens: None,
        cache_key: "session-1".to_owned(),
    }
}
