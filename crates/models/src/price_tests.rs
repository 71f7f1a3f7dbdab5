//! The vendored catalogue and the arithmetic on it.

use super::*;

fn usage(input: u64, output: u64, cache_read: u64, cache_write: u64) -> Usage {
    Usage {
        input,
        output,
        cache_read,
        cache_write,
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a timestamp")
}

fn usd(provider: &str, model: &str, usage: Usage, when: &str) -> f64 {
    let prices = find(provider, model).expect("in the catalogue").prices();
    prices.cost_at(&usage, at(when)).expect("a price").amount.as_usd()
}

#[test]
fn the_vendored_catalogue_is_whole() {
    let catalogue: Catalogue =
        serde_json::from_str(include_str!("../data/prices.json")).expect("the file is valid");
    assert!(
        catalogue.source.starts_with("genai-prices "),
        "{}",
        catalogue.source
    );
    for (provider, least) in [
        ("anthropic", 20),
        ("openai", 50),
        ("google", 20),
        ("openrouter", 300),
        ("deepseek", 4),
    ] {
        assert!(catalogue.providers[provider].len() >= least, "{provider}");
    }
    for entry in catalogue.providers.values().flatten() {
        for rate in &entry.prices {
            assert!(rate.p.0 >= 0.0 && rate.p.1 >= 0.0, "{}: {rate:?}", entry.id);
            assert!(
                rate.t.is_sorted_by_key(|tier| tier.0),
                "{}: tiers in order",
                entry.id
            );
        }
    }
}

#[test]
fn a_request_costs_what_its_tokens_cost() {
    let noon = "2026-11-23T12:00:00Z";
    // Opus 4.7: 5 in, 25 out, 0.5 cache read, 6.25 cache write.
    let cost = usd(
        "anthropic",
        "claude-opus-4-7",
        usage(1_000_000, 100_000, 2_000_000, 400_000),
        noon,
    );
    assert!((cost - 11.0).abs() < 1e-9, "{cost}");
    // Haiku 5.5 has other prices above 100,000 input tokens, cached ones included.
    let small = usd(
        "anthropic",
        "claude-haiku-5-5-20261001",
        usage(50_000, 0, 50_000, 0),
        noon,
    );
    assert!((small - 0.0055).abs() < 1e-9, "{small}");
    let large = usd(
        "anthropic",
        "claude-haiku-5-5-20261001",
        usage(50_001, 0, 50_000, 0),
        noon,
    );
    assert!((large - 0.027_500_5).abs() < 1e-9, "{large}");
}

#[test]
fn a_price_may_depend_on_the_hour() {
    let cheap = usd(
        "deepseek",
        "deepseek-v4-pro",
        usage(1_000_000, 0, 0, 0),
        "2026-11-23T00:59:00Z",
    );
    let peak = usd(
        "deepseek",
        "deepseek-v4-pro",
        usage(1_000_000, 0, 0, 0),
        "2026-11-23T01:00:00Z",
    );
    assert!(
        (cheap - 0.66).abs() < 1e-9 && (peak - 1.32).abs() < 1e-9,
        "{cheap} {peak}"
    );
}

#[test]
fn the_last_rate_that_holds_counts() {
    let figures = |price| Figures(price, price, None, None);
    let rate = |from: Option<&str>, utc, price| Rate {
        from: from.map(|day| day.parse().expect("a day")),
        utc,
        p: figures(price),
        t: Vec::new(),
    };
    let prices = Prices {
        source: "test".to_owned(),
        rates: vec![
            rate(None, None, 1.0),
            rate(Some("2027-01-01"), None, 2.0),
            rate(None, Some((1380, 60)), 3.0),
        ],
    };
    for (when, expected) in [
        ("2026-12-31T12:00:00Z", 1.0),
        ("2027-01-01T12:00:00Z", 2.0),
        ("2027-01-01T23:30:00Z", 3.0),
        ("2026-01-01T00:59:00Z", 3.0),
        ("2026-01-01T01:00:00Z", 1.0),
    ] {
        let cost = prices
            .cost_at(&usage(1_000_000, 0, 0, 0), at(when))
            .expect("a price");
        assert_eq!(cost.amount, NanoUsd::from_usd(expected), "{when}");
    }
}

#[test]
fn patterns_match_as_the_script_describes_them() {
    for (rule, id, expected) in [
        (r#""=a-##""#, "a-12", true),
        (r#""=a-##""#, "a-1x", false),
        (r#""=a-##""#, "a-123", false),
        (r#""^a-#""#, "a-1-b", true),
        (r#""$-b""#, "a-1-b", true),
        (r#"["=x","*1-"]"#, "a-1-b", true),
        (r#"{"all":["^a","!1"]}"#, "a-1-b", false),
        (r#"{"all":["^a","!2"]}"#, "a-1-b", true),
    ] {
        let rule: Rule = serde_json::from_str(rule).expect("a rule");
        assert_eq!(rule.matches(id), expected, "{rule:?} {id}");
    }
}

#[test]
fn an_unknown_model_has_no_price() {
    assert!(find("anthropic", "gpt-4o").is_none());
    assert!(find("nobody", "claude-opus-4-7").is_none());
    assert_eq!(Prices::default().cost(&usage(1, 1, 0, 0)), None);
}

#[test]
fn an_operators_file_is_checked() {
    let good = Overrides::parse("[\"a/b\"]\ninput = 1\noutput = 2.5\n").expect("valid");
    let prices = good.0["a/b"].prices();
    let cost = prices
        .cost(&usage(1_000_000, 1_000_000, 1_000_000, 0))
        .expect("a price");
    assert_eq!(
        (cost.amount, cost.source.as_str()),
        (NanoUsd::from_usd(4.5), "operator")
    );
    for bad in [
        "[\"a/b\"]\ninput = 1\n",
        "[\"a/b\"]\ninput = -1\noutput = 1\n",
        "[\"a/b\"]\ninput=1\noutput=1\nouput=1\n",
    ] {
        assert!(Overrides::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_most_that_a_request_can_cost_is_no_less_than_what_it_costs() {
    for model in ["claude-sonnet-4-5", "claude-opus-4-1", "claude-haiku-4-5"] {
        let prices = find("anthropic", model).expect("known").prices();
        for total in [0, 1, 1_000, 199_999, 200_001, 900_000] {
            let most = prices.most(total).expect("priced");
            for output in [0, 1, 64_000] {
                for cached in [0, total / 2, total] {
                    let usage = Usage {
                        input: total - cached,
                        output,
                        cache_read: 0,
                        cache_write: cached,
                    };
                    let cost = prices.cost(&usage).expect("priced").amount;
                    let bound = NanoUsd(most.input.0 + most.output_token.0 * output);
                    assert!(
                        cost.0 <= bound.0 + 1,
                        "{model} {usage:?}: {cost:?} over {bound:?}"
                    );
                }
            }
        }
    }
    assert_eq!(Prices::default().most(100), None);
}
