//! The words that settings may be chosen from.

use crate::config::value::choices;

choices! {
    /// How resource limits of a sandbox are enforced.
    Enforcement: "`auto`, `cgroup` or `rlimit`" {
        /// Control groups as root, rlimits otherwise.
        Auto = "auto",
        /// Control groups; sandboxes are refused where that is impossible.
        Cgroup = "cgroup",
        /// Resource limits of processes and a watch over their sum.
        Rlimit = "rlimit",
    }
}

choices! {
    /// How the server talks to what runs in its containers.
    Transport: "`auto`, `socket` or `exec`" {
        /// As the runtime needs it, where that is known.
        Auto = "auto",
        /// Over a socket of the host.
        Socket = "socket",
        /// Through the container engine.
        Exec = "exec",
    }
}

choices! {
    /// What sandboxes are made of.
    Backend: "`local` or `docker`" {
        /// This machine's own namespaces and programs; no daemon, no image.
        Local = "local",
        /// Containers of an image, by a container engine.
        Docker = "docker",
    }
}

choices! {
    /// A wire protocol of model providers.
    Protocol: "`anthropic`, `openai_chat`, `openai_responses`, `gemini` or `bedrock`" {
        /// Anthropic's Messages API.
        Anthropic = "anthropic",
        /// OpenAI's Chat Completions API, which most others speak as well.
        OpenaiChat = "openai_chat",
        /// OpenAI's Responses API.
        OpenaiResponses = "openai_responses",
        /// Google's Gemini API.
        Gemini = "gemini",
        /// Amazon Bedrock's ConverseStream API.
        Bedrock = "bedrock",
    }
}

choices! {
    /// How a Chat Completions provider is told how hard to think.
    EffortForm: "`reasoning_effort`, `reasoning`, `deepseek`, `moonshot`, `enable_thinking` or `none`" {
        /// A field `reasoning_effort`.
        ReasoningEffort = "reasoning_effort",
        /// A field `reasoning` with an `effort`, as OpenRouter has it.
        Reasoning = "reasoning",
        /// Fields `thinking` and `reasoning_effort`, as DeepSeek has them.
        Deepseek = "deepseek",
        /// A field `thinking` for the models that can be switched, as Moonshot has it.
        Moonshot = "moonshot",
        /// Fields `enable_thinking` and `thinking_budget`, as DashScope has them.
        EnableThinking = "enable_thinking",
        /// Nothing.
        None = "none",
    }
}

choices! {
    /// What of its models' thoughts a Chat Completions provider wants back.
    Thoughts: "`never`, `content`, `required_content` or `details`" {
        /// Nothing.
        Never = "never",
        /// `reasoning_content` where there is any.
        Content = "content",
        /// `reasoning_content` with each message that uses tools, even if it is empty.
        Always = "required_content",
        /// `reasoning_details`, as OpenRouter has it.
        Details = "details",
    }
}

choices! {
    /// What a model takes besides text.
    Input: "`image` or `document`" {
        /// Pictures.
        Image = "image",
        /// Documents.
        Document = "document",
    }
}

choices! {
    /// A provider of web search.
    SearchProvider: "`brave`, `tavily` or `searxng`" {
        /// Brave Search.
        Brave = "brave",
        /// Tavily.
        Tavily = "tavily",
        /// A SearXNG instance.
        Searxng = "searxng",
    }
}

choices! {
    /// How log lines look.
    LogFormat: "`auto`, `json` or `text`" {
        /// Text on a terminal, JSON elsewhere.
        Auto = "auto",
        /// A JSON object per line.
        Json = "json",
        /// For people.
        Text = "text",
    }
}
