//! Names, keys and the list of models.

use super::*;

fn registry(variables: &[(&str, &str)]) -> Registry {
    let config = Config::from_env(|name| {
        variables
            .iter()
            .find(|(variable, _)| *variable == name)
            .map(|(_, value)| (*value).to_owned())
    });
    Registry::from_config(config.expect("a valid environment")).expect("a registry")
}

fn refusal(registry: &Registry, name: &str) -> String {
    let error = registry.resolve(name).err().expect("refused");
    assert_eq!(error.failure.kind, FailureKind::ModelUnavailable, "{name}");
    assert!(!error.retryable);
    error.failure.message
}

#[test]
fn a_model_is_resolved_once() {
    let registry = registry(&[("ANTHROPIC_API_KEY", "key"), ("OPENROUTER_API_KEY", "key")]);
    let first = registry.resolve("anthropic/claude-opus-4-7").expect("resolved");
    assert_eq!(
        (first.name(), first.context_window()),
        ("anthropic/claude-opus-4-7", 1_000_000)
    );
    let again = registry.resolve("anthropic/claude-opus-4-7").expect("resolved");
    assert!(Arc::ptr_eq(&first, &again));
    let nested = registry
        .resolve("openrouter/anthropic/claude-opus-4.7")
        .expect("resolved");
    assert_eq!(nested.name(), "openrouter/anthropic/claude-opus-4.7");
}

#[test]
fn local_servers_need_no_key() {
    let model = registry(&[]).resolve("ollama/qwen3:8b").expect("resolved");
    assert_eq!(model.context_window(), 32_768);
}

#[test]
fn what_is_missing_is_named_and_no_key_is_shown() {
    let registry = registry(&[("ANTHROPIC_API_KEY", "sk-ant-secret")]);
    for (name, part) in [
        ("openai/gpt-6-sol", "OPENAI_API_KEY"),
        ("google/gemini-3.6-flash", "GEMINI_API_KEY or GOOGLE_API_KEY"),
        ("bedrock/anthropic.claude-opus-4-7", "AWS_REGION"),
        ("nobody/x", "there is no provider `nobody`"),
        ("claude", "write provider/model"),
        ("anthropic/", "write provider/model"),
        ("anthropic/a b", "is no model name"),
        ("", "write provider/model"),
    ] {
        let message = refusal(&registry, name);
        assert!(message.contains(part), "{name}: {message}");
        assert!(!message.contains("sk-ant-secret"));
    }
    assert!(!format!("{registry:?}").contains("sk-ant-secret"));
}

#[test]
fn a_key_that_no_header_can_hold_is_a_configuration_error() {
    let config = Config::from_env(|name| (name == "GROQ_API_KEY").then(|| "a\nb".to_owned())).expect("read");
    let error = Registry::from_config(config).expect_err("refused");
    assert_eq!(error.provider, "groq");
    assert!(!error.message.contains("a\nb"));
}

#[test]
fn the_list_marks_what_can_be_used() {
    let models = registry(&[("ANTHROPIC_API_KEY", "key")]).models();
    let find = |id: &str| models.iter().find(|model| model.id == id).expect(id);
    let claude = find("anthropic/claude-opus-4-7");
    assert!(claude.configured);
    assert_eq!(claude.context_window, Some(1_000_000));
    assert_eq!(claude.input_modalities, ["text", "image", "document"]);
    assert!(
        !models
            .iter()
            .any(|model| model.provider == "openai" && model.configured)
    );
    assert!(find("scripted/echo").configured);
    let mut ids: Vec<&str> = models.iter().map(|model| model.id.as_str()).collect();
    ids.sort_unstable();
    let all = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), all, "no id twice");
}

#[test]
fn prices_are_the_providers_own_or_the_operators() {
    let price = |config: Config, name: &str| {
        let registry = Registry::from_config(config).expect("a registry");
        let (provider, model) = name.split_once('/').expect("a name");
        let known = provider::known(provider).unwrap_or(&provider::UNKNOWN);
        let config = Arc::clone(&registry.providers[known.name]);
        let target = registry
            .target(name, known.name, model, config, known)
            .expect("a target");
        let usage = oma_domain::usage::Usage {
            input: 1_000_000,
            ..Default::default()
        };
        target
            .prices
            .cost(&usage)
            .map(|cost| (cost.amount.as_usd(), cost.source))
    };
    let config = |base: Option<&str>| {
        Config::from_env(|name| match name {
            "ANTHROPIC_API_KEY" => Some("key".to_owned()),
            "ANTHROPIC_BASE_URL" => base.map(str::to_owned),
            _ => None,
        })
        .expect("a valid environment")
    };
    let name = "anthropic/claude-opus-4-7";
    let (usd, source) = price(config(None), name).expect("a price");
    assert!(
        (usd - 5.0).abs() < 1e-9 && source.starts_with("genai-prices "),
        "{usd} {source}"
    );
    assert_eq!(
        price(config(Some("https://elsewhere.example")), name),
        None,
        "another server, other prices"
    );
    let mut own = config(Some("https://elsewhere.example"));
    own.prices =
        price::Overrides::parse("[\"anthropic/claude-opus-4-7\"]\ninput = 3\noutput = 4").expect("valid");
    assert_eq!(price(own, name), Some((3.0, "operator".to_owned())));
}

#[test]
fn the_documentation_has_every_provider() {
    let document = include_str!("../../../docs/models.md");
    for known in provider::KNOWN {
        let start = format!("| `{}` |", known.name);
        let row = document
            .lines()
            .find(|line| line.starts_with(&start))
            .unwrap_or_else(|| panic!("{start}"));
        for word in known
            .aliases
            .iter()
            .chain(known.key_variables)
            .chain(known.url_variables)
        {
            assert!(row.contains(&format!("`{word}`")), "{word} is missing in: {row}");
        }
    }
}
