//! Variables and the configuration file.

use secrecy::ExposeSecret;

use super::*;

fn from(variables: &[(&str, &str)]) -> Config {
    let variables: HashMap<String, String> = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Config::from_env(|name| variables.get(name).cloned()).expect("a valid environment")
}

#[test]
fn the_usual_variables_are_known() {
    let config = from(&[
        ("ANTHROPIC_API_KEY", "a"),
        ("OPENAI_API_KEY", "b"),
        ("GOOGLE_API_KEY", "c"),
        ("MOONSHOT_API_KEY", "d"),
        ("DASHSCOPE_API_KEY", "e"),
        ("GROQ_API_KEY", "  "),
        ("OLLAMA_HOST", "0.0.0.0"),
        ("VLLM_BASE_URL", "http://gpu:8000/"),
        ("AWS_BEARER_TOKEN_BEDROCK", "f"),
        ("AWS_REGION", "eu-west-1"),
    ]);
    let seen: Vec<(&str, &str, Option<&str>)> = config
        .providers
        .iter()
        .map(|(name, provider)| {
            (
                name.as_str(),
                provider.base_url.as_str(),
                provider.api_key.as_ref().map(ExposeSecret::expose_secret),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("anthropic", "https://api.anthropic.com", Some("a")),
            (
                "bedrock",
                "https://bedrock-runtime.eu-west-1.amazonaws.com",
                Some("f")
            ),
            (
                "gemini",
                "https://generativelanguage.googleapis.com/v1beta",
                Some("c")
            ),
            ("moonshot", "https://api.moonshot.ai/v1", Some("d")),
            ("ollama", "http://127.0.0.1:11434/v1", None),
            ("openai", "https://api.openai.com/v1", Some("b")),
            (
                "qwen",
                "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
                Some("e")
            ),
            ("vllm", "http://gpu:8000/v1", None),
        ]
    );
}

#[test]
fn openai_speaks_responses_only_to_openai() {
    for (url, protocol) in [
        ("https://api.openai.com/v1", Protocol::OpenaiResponses),
        ("https://gateway.example/v1/", Protocol::OpenaiChat),
        ("http://localhost:9000", Protocol::OpenaiChat),
    ] {
        let config = from(&[("OPENAI_BASE_URL", url)]);
        assert_eq!(config.providers["openai"].protocol, protocol, "{url}");
    }
}

#[test]
fn bad_addresses_are_refused() {
    for url in [
        "ftp://x",
        "http://user:pw@host/v1",
        "http://host/v1?key=x",
        "http://",
    ] {
        let error = Config::from_env(|name| (name == "MISTRAL_BASE_URL").then(|| url.to_owned())).err();
        assert_eq!(
            error.map(|error| error.provider),
            Some("mistral".to_owned()),
            "{url}"
        );
    }
}

#[test]
fn the_file_goes_over_the_environment() {
    let mut config = from(&[("ANTHROPIC_API_KEY", "from-env"), ("GATEWAY_KEY", "k")]);
    let section: Section = toml::from_str(
        r#"
        stall_timeout_secs = 30
        [prices."anthropic/claude-x"]
        input = 1
        output = 2
        [providers.anthropic]
        base_url = "https://proxy.example"
        headers = { "X-Team" = "blue" }
        [providers.kimi]
        max_output_tokens = 1000
        [providers.my-gateway]
        protocol = "openai_chat"
        base_url = "http://127.0.0.1:4000/v1"
        api_key_env = "GATEWAY_KEY"
        reasoning_back = "content"
        models = [{ id = "big", context_window = 64000, input_modalities = ["image"] }]
        "#,
    )
    .expect("a valid section");
    config
        .apply(section, |name| (name == "GATEWAY_KEY").then(|| "k".to_owned()))
        .expect("a valid configuration");
    assert_eq!(config.stall_timeout, Duration::from_secs(30));
    let anthropic = &config.providers["anthropic"];
    assert_eq!(anthropic.base_url, "https://proxy.example");
    assert_eq!(
        anthropic.api_key.as_ref().map(ExposeSecret::expose_secret),
        Some("from-env")
    );
    assert!(anthropic.headers.contains_key("x-team"));
    assert_eq!(
        config.providers["moonshot"].max_output_tokens,
        Some(1000),
        "an alias means the provider"
    );
    let gateway = &config.providers["my-gateway"];
    assert_eq!(
        (gateway.protocol, gateway.reasoning_back),
        (Protocol::OpenaiChat, ReasoningBack::Content)
    );
    assert_eq!(gateway.models[0].context_window, Some(64_000));
    assert_eq!(
        gateway.catalogue, None,
        "an unknown provider's prices are unknown"
    );
    let debug = format!("{config:?}");
    assert!(
        !debug.contains("from-env") && !debug.contains("blue"),
        "secrets are not shown: {debug}"
    );
}

#[test]
fn mistakes_in_the_file_are_named() {
    for (text, message) in [
        (
            "[providers.mine]\nbase_url = \"http://x\"",
            "needs `protocol` and `base_url`",
        ),
        (
            "[providers.openai]\ncatalogue = \"opnai\"",
            "the price catalogue has no provider `opnai`",
        ),
        (
            "[providers.Mine]\nbase_url = \"http://x\"\nprotocol = \"anthropic\"",
            "lower-case letters",
        ),
        (
            "[providers.scripted]\nbase_url = \"http://x\"\nprotocol = \"anthropic\"",
            "not `scripted`",
        ),
        ("[providers.groq]\napi_key_env = \"NOT_SET\"", "NOT_SET"),
    ] {
        let section: Section = toml::from_str(text).expect("a section");
        let error = Config::default().apply(section, |_| None).expect_err(text);
        assert!(error.to_string().contains(message), "{error}");
    }
    assert!(
        toml::from_str::<Section>("[providers.groq]\nbase_ulr = \"x\"").is_err(),
        "unknown fields"
    );
}
