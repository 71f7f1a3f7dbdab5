//! What a provider answers instead of an answer: the status, `Retry-After` (the first line) and the body.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oma_models::fuzzing;

/// The longest message of an error: what a provider says is cut.
const MAX_MESSAGE: usize = 8_000;

fuzz_target!(|data: &[u8]| {
    let [high, low, rest @ ..] = data else { return };
    let status = 300 + u16::from_be_bytes([*high, *low]) % 300;
    let mut parts = rest.splitn(2, |byte| *byte == b'\n');
    let (retry_after, body) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let error = fuzzing::refusal(status, retry_after, body);
    assert_eq!(error.status, Some(status));
    assert!(!error.failure.message.is_empty());
    assert!(error.failure.message.len() <= MAX_MESSAGE);
});
