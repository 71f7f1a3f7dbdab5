//! The providers that need no configuration but a key: their addresses, variables and peculiarities.

use serde::Deserialize;

use crate::conversation::CallIds;

/// A wire protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Anthropic's Messages API.
    Anthropic,
    /// OpenAI's Chat Completions API, which most others speak.
    OpenaiChat,
    /// OpenAI's Responses API.
    OpenaiResponses,
    /// Google's Gemini API.
    Gemini,
    /// Amazon Bedrock's ConverseStream API.
    Bedrock,
}

impl Protocol {
    /// The name under which opaque data and configuration know it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::OpenaiChat => "openai_chat",
            Self::OpenaiResponses => "openai_responses",
            Self::Gemini => "gemini",
            Self::Bedrock => "bedrock",
        }
    }
}

/// How a Chat Completions provider is told how hard to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffortStyle {
    /// `reasoning_effort`, when thinking is asked for.
    ReasoningEffort,
    /// OpenRouter's `reasoning: {effort}`.
    Reasoning,
    /// DeepSeek's `thinking: {type}` and `reasoning_effort`.
    Deepseek,
    /// Moonshot's `thinking: {type}` for the models that can be switched.
    Moonshot,
    /// DashScope's `enable_thinking` and `thinking_budget`.
    EnableThinking,
    /// Nothing: the model name decides.
    None,
}

/// What of its thoughts a Chat Completions provider wants back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasoningBack {
    /// Nothing; some refuse the field.
    Never,
    /// `reasoning_content` with each message that has it.
    Content,
    /// `reasoning_content` with each message that uses tools, even if it is empty: the request is refused
    /// otherwise.
    RequiredContent,
    /// OpenRouter's `reasoning_details`, verbatim.
    Details,
}

/// How a Chat Completions provider is asked for the usage of a streamed answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UsageStyle {
    /// `stream_options: {include_usage}`.
    StreamOptions,
    /// The same, and OpenRouter's `usage: {include}`, which adds the cost.
    WithCost,
    /// It sends it anyway, and refuses fields that it doesn't know.
    Unasked,
}

/// A provider that is known by name.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) name: &'static str,
    pub(crate) aliases: &'static [&'static str],
    pub(crate) protocol: Protocol,
    pub(crate) base_url: &'static str,
    /// Variables that hold its key, first one first.
    pub(crate) key_variables: &'static [&'static str],
    /// Variables that hold its address, first one first.
    pub(crate) url_variables: &'static [&'static str],
    /// Whether it runs on the operator's own machine: no key, no price, and slow to begin.
    pub(crate) local: bool,
    /// Its name in the price catalogue.
    pub(crate) catalogue: Option<&'static str>,
    pub(crate) effort: EffortStyle,
    pub(crate) reasoning_back: ReasoningBack,
    pub(crate) call_ids: CallIds,
    /// Whether the request may carry `prompt_cache_key`.
    pub(crate) cache_key: bool,
    pub(crate) usage: UsageStyle,
    /// The output limit where its own default is a fraction of what the models can write.
    pub(crate) max_output_tokens: Option<u32>,
}

const CHAT: Known = Known {
    name: "",
    aliases: &[],
    protocol: Protocol::OpenaiChat,
    base_url: "",
    key_variables: &[],
    url_variables: &[],
    local: false,
    catalogue: None,
    effort: EffortStyle::ReasoningEffort,
    reasoning_back: ReasoningBack::Never,
    call_ids: CallIds::Plain,
    cache_key: false,
    usage: UsageStyle::StreamOptions,
    max_output_tokens: None,
};

/// All of them.
pub(crate) static KNOWN: &[Known] = &[
    Known {
        name: "anthropic",
        protocol: Protocol::Anthropic,
        base_url: "https://api.anthropic.com",
        key_variables: &["ANTHROPIC_API_KEY"],
        url_variables: &["ANTHROPIC_BASE_URL"],
        catalogue: Some("anthropic"),
        ..CHAT
    },
    Known {
        name: "openai",
        protocol: Protocol::OpenaiResponses,
        base_url: "https://api.openai.com/v1",
        key_variables: &["OPENAI_API_KEY"],
        url_variables: &["OPENAI_BASE_URL"],
        catalogue: Some("openai"),
        cache_key: true,
        ..CHAT
    },
    Known {
        name: "gemini",
        aliases: &["google"],
        protocol: Protocol::Gemini,
        base_url: "https://generativelanguage.googleapis.com/v1beta",
        key_variables: &["GEMINI_API_KEY", "GOOGLE_API_KEY"],
        url_variables: &["GEMINI_BASE_URL", "GOOGLE_BASE_URL"],
        catalogue: Some("google"),
        ..CHAT
    },
    Known {
        name: "bedrock",
        aliases: &["amazon-bedrock"],
        protocol: Protocol::Bedrock,
        base_url: "",
        key_variables: &["AWS_BEARER_TOKEN_BEDROCK"],
        url_variables: &["AWS_ENDPOINT_URL_BEDROCK_RUNTIME"],
        catalogue: Some("aws"),
        ..CHAT
    },
    Known {
        name: "moonshot",
        aliases: &["moonshotai", "kimi"],
        base_url: "https://api.moonshot.ai/v1",
        key_variables: &["MOONSHOT_API_KEY"],
        url_variables: &["MOONSHOT_BASE_URL"],
        catalogue: Some("moonshotai"),
        effort: EffortStyle::Moonshot,
        reasoning_back: ReasoningBack::RequiredContent,
        cache_key: true,
        max_output_tokens: Some(32_768),
        ..CHAT
    },
    Known {
        name: "deepseek",
        base_url: "https://api.deepseek.com/v1",
        key_variables: &["DEEPSEEK_API_KEY"],
        url_variables: &["DEEPSEEK_BASE_URL"],
        catalogue: Some("deepseek"),
        effort: EffortStyle::Deepseek,
        reasoning_back: ReasoningBack::RequiredContent,
        ..CHAT
    },
    Known {
        name: "mistral",
        aliases: &["mistralai"],
        base_url: "https://api.mistral.ai/v1",
        key_variables: &["MISTRAL_API_KEY"],
        url_variables: &["MISTRAL_BASE_URL"],
        catalogue: Some("mistral"),
        effort: EffortStyle::None,
        call_ids: CallIds::Nine,
        usage: UsageStyle::Unasked,
        ..CHAT
    },
    Known {
        name: "xai",
        aliases: &["x-ai"],
        base_url: "https://api.x.ai/v1",
        key_variables: &["XAI_API_KEY"],
        url_variables: &["XAI_BASE_URL"],
        catalogue: Some("x-ai"),
        ..CHAT
    },
    Known {
        name: "groq",
        base_url: "https://api.groq.com/openai/v1",
        key_variables: &["GROQ_API_KEY"],
        url_variables: &["GROQ_BASE_URL"],
        catalogue: Some("groq"),
        ..CHAT
    },
    Known {
        name: "together",
        base_url: "https://api.together.xyz/v1",
        key_variables: &["TOGETHER_API_KEY"],
        url_variables: &["TOGETHER_BASE_URL"],
        catalogue: Some("together"),
        ..CHAT
    },
    Known {
        name: "fireworks",
        base_url: "https://api.fireworks.ai/inference/v1",
        key_variables: &["FIREWORKS_API_KEY"],
        url_variables: &["FIREWORKS_BASE_URL"],
        catalogue: Some("fireworks"),
        max_output_tokens: Some(32_768),
        reasoning_back: ReasoningBack::Content,
        ..CHAT
    },
    Known {
        name: "cerebras",
        base_url: "https://api.cerebras.ai/v1",
        key_variables: &["CEREBRAS_API_KEY"],
        url_variables: &["CEREBRAS_BASE_URL"],
        catalogue: Some("cerebras"),
        ..CHAT
    },
    Known {
        name: "openrouter",
        base_url: "https://openrouter.ai/api/v1",
        key_variables: &["OPENROUTER_API_KEY"],
        url_variables: &["OPENROUTER_BASE_URL"],
        catalogue: Some("openrouter"),
        usage: UsageStyle::WithCost,
        effort: EffortStyle::Reasoning,
        reasoning_back: ReasoningBack::Details,
        ..CHAT
    },
    Known {
        name: "zenmux",
        base_url: "https://zenmux.ai/api/v1",
        key_variables: &["ZENMUX_API_KEY"],
        url_variables: &["ZENMUX_BASE_URL"],
        effort: EffortStyle::Reasoning,
        reasoning_back: ReasoningBack::Details,
        ..CHAT
    },
    Known {
        name: "qwen",
        aliases: &["dashscope"],
        base_url: "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        key_variables: &["DASHSCOPE_API_KEY", "QWEN_API_KEY"],
        url_variables: &["DASHSCOPE_BASE_URL", "QWEN_BASE_URL"],
        effort: EffortStyle::EnableThinking,
        reasoning_back: ReasoningBack::Content,
        ..CHAT
    },
    Known {
        name: "ollama",
        base_url: "http://127.0.0.1:11434/v1",
        key_variables: &["OLLAMA_API_KEY"],
        url_variables: &["OLLAMA_BASE_URL", "OLLAMA_HOST"],
        local: true,
        ..CHAT
    },
    Known {
        name: "vllm",
        base_url: "http://127.0.0.1:8000/v1",
        key_variables: &["VLLM_API_KEY"],
        url_variables: &["VLLM_BASE_URL"],
        local: true,
        reasoning_back: ReasoningBack::Content,
        ..CHAT
    },
    Known {
        name: "lmstudio",
        base_url: "http://127.0.0.1:1234/v1",
        key_variables: &["LMSTUDIO_API_KEY"],
        url_variables: &["LMSTUDIO_BASE_URL"],
        local: true,
        ..CHAT
    },
];

/// A provider by its name or an alias.
pub(crate) fn known(name: &str) -> Option<&'static Known> {
    KNOWN
        .iter()
        .find(|known| known.name == name || known.aliases.contains(&name))
}

/// What is assumed of a provider that only the configuration knows.
pub(crate) static UNKNOWN: Known = CHAT;
