//! What clients send to chat completions.

use oma_domain::content::{ContentBlock, Source};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::dialects::openclaw::events::body::{IMAGE_TYPES, base64_text};
use crate::limits;
use crate::validate::checks::{boolean, discriminator, list, text, type_name};
use crate::validate::{Body, Object, Tree};

/// A chat completion request. Further fields are ignored: the agent has its own model, tools and settings.
#[derive(Debug, ToSchema)]
pub struct ChatRequest {
    /// The last user message with content is what the agent gets; its session has the history.
    #[schema(min_items = 1, max_items = 10_000, value_type = Vec<ChatMessage>)]
    pub messages: Vec<Spoken>,
    /// Ignored: the agent has its own.
    #[schema(nullable = false)]
    pub model: Option<String>,
    /// Whether the answer is streamed.
    #[schema(required = false)]
    pub stream: bool,
    /// The key of a session to go on with, unless a header names one.
    #[schema(pattern = "^[a-zA-Z0-9_-]{1,128}$", nullable = false)]
    pub user: Option<String>,
    /// How the answer is streamed.
    #[schema(value_type = Option<StreamOptions>)]
    pub stream_options: StreamOptions,
}

/// How an answer is streamed.
#[derive(Debug, Default, ToSchema)]
pub struct StreamOptions {
    /// Whether a last chunk tells the usage.
    #[schema(required = false)]
    pub include_usage: bool,
}

/// A message as clients send it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the message in the API document")]
pub struct ChatMessage {
    /// Only `user` counts.
    role: String,
    /// A text, or a list of parts.
    content: Option<ChatContent>,
}

/// What a message says: a text, or a list of parts.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum ChatContent {
    /// A text.
    Text(String),
    /// Parts.
    Parts(Vec<ChatPart>),
}

/// A part of a message.
#[derive(Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ChatPart {
    /// A text.
    Text {
        /// What it says.
        text: String,
    },
    /// A picture.
    ImageUrl {
        /// Where it is.
        image_url: ChatImage,
    },
}

/// A picture.
#[derive(Serialize, ToSchema)]
pub struct ChatImage {
    /// An `http` or `https` address, or the picture itself as a `data:` URL with base64.
    pub url: String,
}

/// A message that was read. Only user messages with content have blocks.
#[derive(Debug, Default)]
pub struct Spoken {
    blocks: Vec<ContentBlock>,
}

impl Body for ChatRequest {
    fn read(object: &mut Object<'_>) -> Option<Self> {
        let messages = object.required("messages", list(1, limits::CHAT_MESSAGES, message));
        let model = or_null(object, "model", text(0, limits::NAME));
        let stream = or_null(object, "stream", boolean);
        let user = or_null(object, "user", text(0, limits::MESSAGE));
        let stream_options = or_null(object, "stream_options", |value, issues| {
            let mut options = Object::of(value, issues)?;
            let include_usage = or_null(&mut options, "include_usage", boolean)?;
            Some(StreamOptions {
                include_usage: include_usage.unwrap_or_default(),
            })
        });
        Some(Self {
            messages: messages?,
            model: model?,
            stream: stream?.unwrap_or_default(),
            user: user?,
            stream_options: stream_options?.unwrap_or_default(),
        })
    }
}

/// OpenAI's clients send null for what is not given.
fn or_null<T>(
    object: &mut Object<'_>,
    name: &str,
    check: impl FnOnce(&Value, &mut Tree) -> Option<T>,
) -> Option<Option<T>> {
    if object.peek(name) == Some(&Value::Null) {
        Some(None)
    } else {
        object.optional(name, check)
    }
}

impl ChatRequest {
    /// What the agent gets: the last user message that says something.
    #[must_use]
    pub fn last_user_message(self) -> Option<(Vec<ContentBlock>, bool, bool)> {
        let blocks = self
            .messages
            .into_iter()
            .rev()
            .map(|message| message.blocks)
            .find(|blocks| !blocks.is_empty())?;
        Some((blocks, self.stream, self.stream_options.include_usage))
    }
}

fn message(value: &Value, issues: &mut Tree) -> Option<Spoken> {
    let mut object = Object::of(value, issues)?;
    let role = object.required("role", text(1, limits::NAME))?;
    if role != "user" {
        // Assistant and tool messages come in many shapes; none of them is used.
        return Some(Spoken::default());
    }
    let blocks = match object.peek("content") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(said)) if said.is_empty() => Vec::new(),
        Some(Value::String(_)) => {
            vec![ContentBlock::text(
                object.required("content", text(1, limits::MESSAGE))?,
            )]
        }
        Some(Value::Array(_)) => object
            .required("content", list(0, limits::BLOCKS, part))?
            .into_iter()
            .flatten()
            .collect(),
        Some(other) => {
            let problem = format!("Expected string, received {}", type_name(other));
            object.issues().at("content").push(problem);
            return None;
        }
    };
    Some(Spoken { blocks })
}

/// One part of a message; an empty text says nothing.
fn part(value: &Value, issues: &mut Tree) -> Option<Option<ContentBlock>> {
    let mut object = Object::of(value, issues)?;
    if discriminator(&mut object, &["text", "image_url"])? == "text" {
        let said = object.required("text", text(0, limits::MESSAGE))?;
        return Some((!said.is_empty()).then(|| ContentBlock::text(said)));
    }
    let source = object.required("image_url", |value, issues| {
        let mut image = Object::of(value, issues)?;
        image.required("url", image_url)
    })?;
    Some(Some(ContentBlock::Image { source }))
}

/// An address, or the picture itself as a `data:` URL.
fn image_url(value: &Value, issues: &mut Tree) -> Option<Source> {
    let Some(embedded) = value.as_str().and_then(|address| address.strip_prefix("data:")) else {
        return crate::validate::checks::url(limits::URL)(value, issues).map(|url| Source::Url { url });
    };
    let Some((media_type, data)) = embedded.split_once(";base64,") else {
        issues.push("Expected a data URL with base64");
        return None;
    };
    if !IMAGE_TYPES.contains(&media_type) {
        issues.push(format!("Expected one of the types {}", IMAGE_TYPES.join(", ")));
        return None;
    }
    let data = base64_text(&Value::from(data), issues)?;
    Some(Source::Base64 {
        media_type: media_type.to_owned(),
        data,
    })
}
