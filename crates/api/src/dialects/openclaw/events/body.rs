//! What clients post to a session.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oma_domain::content::{ContentBlock, Source};
use oma_domain::thinking::ThinkingLevel;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::dialects::openclaw::agents::body::{Level, thinking_level};
use crate::limits;
use crate::validate::checks::{discriminator, list, model, one_of, text, type_name, url};
use crate::validate::{Body, Object, Tree};

/// The kinds of picture that models take.
pub(crate) const IMAGE_TYPES: &[&str] = &["image/jpeg", "image/png", "image/gif", "image/webp"];

const MESSAGE: &str = "user.message";
const CONFIRMATION: &str = "user.tool_confirmation";

/// An event to post: a message (the default) or a confirmation, told apart by `type`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = PostEvent)]
pub enum Incoming {
    /// A message.
    Message(UserMessage),
    /// An answer to a tool use that asks.
    Confirmation(Confirmation),
}

/// The type of a message.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub enum MessageType {
    /// The only one.
    #[default]
    #[serde(rename = "user.message")]
    UserMessage,
}

/// The type of a confirmation.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub enum ConfirmationType {
    /// The only one.
    #[default]
    #[serde(rename = "user.tool_confirmation")]
    UserToolConfirmation,
}

/// A message for the agent.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserMessage {
    /// What is meant without a type.
    #[schema(required = false)]
    r#type: MessageType,
    /// What it says: a text, or a list of `text`, `image` and `document` blocks.
    #[schema(value_type = MessageContent)]
    pub content: Content,
    /// A model for this and later turns, `provider/model`.
    #[schema(min_length = 3, max_length = 256, nullable = false)]
    pub model: Option<String>,
    /// A thinking level for this and later turns.
    #[schema(value_type = Option<Level>, nullable = false)]
    pub thinking_level: Option<ThinkingLevel>,
}

/// An answer to a tool use that asks.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Confirmation {
    /// Always there.
    r#type: ConfirmationType,
    /// The `approval_id` of the `agent.tool_confirmation_request`.
    #[schema(min_length = 1, max_length = 256)]
    pub tool_use_id: String,
    /// Whether the tool may run.
    pub result: Verdict,
    /// What the model is told when it may not.
    #[schema(max_length = 10_000, nullable = false)]
    pub deny_message: Option<String>,
}

/// Whether a tool may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

impl Verdict {
    /// Whether the tool may run.
    #[must_use]
    pub fn allows(self) -> bool {
        self == Self::Allow
    }
}

/// What a message says.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Content(Vec<ContentBlock>);

impl Content {
    /// As the domain's blocks; never empty.
    #[must_use]
    pub fn into_blocks(self) -> Vec<ContentBlock> {
        self.0
    }
}

/// What a message says: a text of 1 to 4,000,000 characters, or a list of blocks.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum MessageContent {
    /// A text.
    Text(String),
    /// 1 to 256 blocks.
    Blocks(Vec<MessageBlock>),
}

/// A piece of a message, as the API document describes it.
#[derive(Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum MessageBlock {
    /// A text.
    Text {
        /// What it says.
        #[schema(min_length = 1, max_length = 4_000_000)]
        text: String,
    },
    /// A picture.
    Image {
        /// Where it is.
        source: ImageSource,
    },
    /// A document.
    Document {
        /// Where it is.
        source: DocumentSource,
        /// What it is called.
        #[schema(max_length = 256, nullable = false)]
        title: Option<String>,
        /// What the model should know about it.
        #[schema(max_length = 4_000_000, nullable = false)]
        context: Option<String>,
    },
}

/// Where a picture is.
#[derive(Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ImageSource {
    /// In the message.
    Base64 {
        /// `image/jpeg`, `image/png`, `image/gif` or `image/webp`.
        #[schema(example = "image/png")]
        media_type: String,
        /// Standard base64 with padding.
        data: String,
    },
    /// In the web, from where the model's provider fetches it.
    Url {
        /// `http` or `https`.
        #[schema(max_length = 8192)]
        url: String,
    },
}

/// Where a document is.
#[derive(Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum DocumentSource {
    /// A PDF in the message.
    Base64 {
        /// `application/pdf`.
        #[schema(example = "application/pdf")]
        media_type: String,
        /// Standard base64 with padding.
        data: String,
    },
    /// A text.
    Text {
        /// The text.
        #[schema(min_length = 1, max_length = 4_000_000)]
        data: String,
    },
    /// In the web, from where the model's provider fetches it.
    Url {
        /// `http` or `https`.
        #[schema(max_length = 8192)]
        url: String,
    },
}

impl Body for Incoming {
    fn read(object: &mut Object<'_>) -> Option<Self> {
        match object.peek("type") {
            None => UserMessage::read(object).map(Self::Message),
            Some(Value::String(kind)) if kind == MESSAGE => UserMessage::read(object).map(Self::Message),
            Some(Value::String(kind)) if kind == CONFIRMATION => {
                Confirmation::read(object).map(Self::Confirmation)
            }
            Some(_) => {
                let issues = object.issues().at("type");
                issues.push(format!("Invalid literal value, expected \"{MESSAGE}\""));
                issues.push(format!("Invalid literal value, expected \"{CONFIRMATION}\""));
                None
            }
        }
    }
}

impl Body for UserMessage {
    fn read(object: &mut Object<'_>) -> Option<Self> {
        let content = object.required("content", content);
        let model = object.optional("model", model);
        let thinking_level = object.optional("thinkingLevel", thinking_level);
        Some(Self {
            r#type: MessageType::default(),
            content: content?,
            model: model?,
            thinking_level: thinking_level?,
        })
    }
}

impl Body for Confirmation {
    fn read(object: &mut Object<'_>) -> Option<Self> {
        let tool_use_id = object.required("toolUseId", text(1, limits::NAME));
        let result = object.required("result", |value, issues| {
            let name = one_of(&["allow", "deny"])(value, issues)?;
            Some(if name == "allow" {
                Verdict::Allow
            } else {
                Verdict::Deny
            })
        });
        let deny_message = object.optional("denyMessage", text(0, limits::DENY_MESSAGE));
        Some(Self {
            r#type: ConfirmationType::default(),
            tool_use_id: tool_use_id?,
            result: result?,
            deny_message: deny_message?,
        })
    }
}

fn content(value: &Value, issues: &mut Tree) -> Option<Content> {
    match value {
        Value::Array(_) => list(1, limits::BLOCKS, block)(value, issues).map(Content),
        Value::String(_) => {
            text(1, limits::MESSAGE)(value, issues).map(|text| Content(vec![ContentBlock::text(text)]))
        }
        other => {
            issues.push(format!("Expected string, received {}", type_name(other)));
            None
        }
    }
}

/// A block of a message.
pub(crate) fn block(value: &Value, issues: &mut Tree) -> Option<ContentBlock> {
    let mut object = Object::of(value, issues)?;
    match discriminator(&mut object, &["text", "image", "document"])? {
        "text" => object
            .required("text", text(1, limits::MESSAGE))
            .map(ContentBlock::text),
        "image" => object
            .required("source", image_source)
            .map(|source| ContentBlock::Image { source }),
        _ => {
            let source = object.required("source", document_source);
            let title = object.optional("title", text(0, limits::NAME));
            let context = object.optional("context", text(0, limits::MESSAGE));
            Some(ContentBlock::Document {
                source: source?,
                title: title?,
                context: context?,
            })
        }
    }
}

fn image_source(value: &Value, issues: &mut Tree) -> Option<Source> {
    let mut object = Object::of(value, issues)?;
    match discriminator(&mut object, &["base64", "url"])? {
        "base64" => encoded(&mut object, IMAGE_TYPES),
        _ => object
            .required("url", url(limits::URL))
            .map(|url| Source::Url { url }),
    }
}

fn document_source(value: &Value, issues: &mut Tree) -> Option<Source> {
    let mut object = Object::of(value, issues)?;
    match discriminator(&mut object, &["base64", "text", "url"])? {
        "base64" => encoded(&mut object, &["application/pdf"]),
        "text" => object
            .required("data", text(1, limits::MESSAGE))
            .map(|data| Source::Text { data }),
        _ => object
            .required("url", url(limits::URL))
            .map(|url| Source::Url { url }),
    }
}

fn encoded(object: &mut Object<'_>, types: &'static [&'static str]) -> Option<Source> {
    let media_type = object.required("media_type", one_of(types));
    let data = object.required("data", base64_text);
    Some(Source::Base64 {
        media_type: media_type?.to_owned(),
        data: data?,
    })
}

/// Standard base64 with padding, of at least one byte. The body's limit bounds its length.
pub(crate) fn base64_text(value: &Value, issues: &mut Tree) -> Option<String> {
    let data = text(1, usize::MAX)(value, issues)?;
    if STANDARD.decode(&data).is_ok() {
        return Some(data);
    }
    issues.push("Invalid base64");
    None
}
