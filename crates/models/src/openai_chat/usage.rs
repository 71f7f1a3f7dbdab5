//! Usage and cost as the Chat Completions providers spell them.

use oma_domain::usage::Usage;
use serde_json::Value;

/// xAI counts money in ten-billionths of a dollar.
const TICKS_PER_USD: f64 = 1e10;

/// The counts, with cached input told apart from the rest.
pub(super) fn counts(usage: &Value) -> Option<Usage> {
    let count = |pointers: &[&str]| pointers.iter().find_map(|at| usage.pointer(at)?.as_u64());
    let prompt = count(&["/prompt_tokens", "/input_tokens"])?;
    let completion = count(&["/completion_tokens", "/output_tokens"]).unwrap_or_default();
    let cache_read = count(&[
        "/prompt_tokens_details/cached_tokens",
        "/input_tokens_details/cached_tokens",
        "/cached_tokens",
        "/prompt_cache_hit_tokens",
        "/cache_read_input_tokens",
    ])
    .unwrap_or_default()
    .min(prompt);
    let cache_write = count(&[
        "/prompt_tokens_details/cache_write_tokens",
        "/prompt_tokens_details/cache_creation_tokens",
        "/prompt_tokens_details/cache_creation_input_tokens",
        "/cache_creation_input_tokens",
    ])
    .unwrap_or_default()
    .min(prompt - cache_read);
    // xAI leaves thoughts out of the completion; its total gives that away.
    let thoughts = count(&["/completion_tokens_details/reasoning_tokens"]).unwrap_or_default();
    let total = count(&["/total_tokens"]).unwrap_or_default();
    let with_thoughts = completion.saturating_add(thoughts);
    let left_out = thoughts > 0 && total == prompt.saturating_add(with_thoughts);
    let output = if left_out { with_thoughts } else { completion };
    Some(Usage {
        input: prompt - cache_read - cache_write,
        output,
        cache_read,
        cache_write,
    })
}

/// What the provider says that the request cost, in dollars.
pub(super) fn cost(usage: &Value) -> Option<f64> {
    if let Some(ticks) = usage["cost_in_usd_ticks"].as_f64() {
        return Some(ticks / TICKS_PER_USD);
    }
    let cost = usage["cost"]
        .as_f64()
        .or_else(|| usage["estimated_cost"].as_f64())?;
    // With a key of one's own at the upstream provider, the figure is only the router's fee.
    let upstream = usage["is_byok"].as_bool().unwrap_or_default();
    let upstream = upstream
        .then(|| usage.pointer("/cost_details/upstream_inference_cost")?.as_f64())
        .flatten();
    Some(cost + upstream.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_spelling_of_cached_tokens_is_read() {
        let usage = |input, output, cache_read, cache_write| {
            Some(Usage {
                input,
                output,
                cache_read,
                cache_write,
            })
        };
        for (wire, expected) in [
            (
                json!({"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}),
                usage(100, 7, 0, 0),
            ),
            (
                json!({"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30}}),
                usage(10, 7, 60, 30),
            ),
            (
                json!({"prompt_tokens": 100, "completion_tokens": 7, "cached_tokens": 60}),
                usage(40, 7, 60, 0),
            ),
            (
                json!({"prompt_tokens": 100, "completion_tokens": 7, "prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36}),
                usage(36, 7, 64, 0),
            ),
            (
                json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 35, "completion_tokens_details": {"reasoning_tokens": 20}}),
                usage(10, 25, 0, 0),
            ),
            (
                json!({"prompt_tokens": 10, "completion_tokens": 25, "total_tokens": 35, "completion_tokens_details": {"reasoning_tokens": 20}}),
                usage(10, 25, 0, 0),
            ),
            (
                json!({"prompt_tokens": 5, "completion_tokens": 1, "cached_tokens": 9}),
                usage(0, 1, 5, 0),
            ),
            (json!({}), None),
        ] {
            assert_eq!(counts(&wire), expected, "{wire}");
        }
    }

    #[test]
    fn stated_costs_are_read() {
        for (wire, expected) in [
            (json!({"cost": 0.25}), Some(0.25)),
            (
                json!({"cost": 0.0125, "is_byok": true, "cost_details": {"upstream_inference_cost": 0.25}}),
                Some(0.2625),
            ),
            (json!({"cost_in_usd_ticks": 5_000_000_000_u64}), Some(0.5)),
            (json!({"prompt_tokens": 1}), None),
        ] {
            assert_eq!(cost(&wire), expected, "{wire}");
        }
    }
}
