//! Each provider's spelling of each failure.

use reqwest::header::HeaderValue;

use super::*;

#[test]
fn each_spelling_has_its_kind() {
    use FailureKind::{
        Billing, ContextOverflow, ModelAuthentication, ModelOverloaded, ModelRateLimited, ModelRequestFailed,
        ModelUnavailable,
    };
    let cases: &[(u16, &str, FailureKind, bool, &str)] = &[
        // Anthropic
        (
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}}"#,
            ContextOverflow,
            false,
            "prompt is too long: 210000 tokens > 200000 maximum",
        ),
        (
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API."}}"#,
            Billing,
            false,
            "Your credit balance is too low to access the Anthropic API.",
        ),
        (
            529,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
            ModelOverloaded,
            true,
            "Overloaded",
        ),
        (
            413,
            r#"{"type":"error","error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}"#,
            ContextOverflow,
            false,
            "Request exceeds the maximum size",
        ),
        (
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"messages: roles must alternate"}}"#,
            ModelRequestFailed,
            false,
            "messages: roles must alternate",
        ),
        // OpenAI
        (
            429,
            r#"{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#,
            Billing,
            false,
            "You exceeded your current quota, please check your plan and billing details.",
        ),
        (
            400,
            r#"{"error":{"message":"This model's maximum context length is 128000 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#,
            ContextOverflow,
            false,
            "This model's maximum context length is 128000 tokens.",
        ),
        (
            401,
            r#"{"error":{"message":"Incorrect API key provided","code":"invalid_api_key"}}"#,
            ModelAuthentication,
            false,
            "Incorrect API key provided",
        ),
        (
            404,
            r#"{"error":{"message":"The model `gpt-9` does not exist","code":"model_not_found"}}"#,
            ModelUnavailable,
            false,
            "The model `gpt-9` does not exist",
        ),
        // Gemini: the same words as OpenAI's empty account, but a rate limit.
        (
            429,
            r#"[{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details.","status":"RESOURCE_EXHAUSTED"}}]"#,
            ModelRateLimited,
            true,
            "You exceeded your current quota, please check your plan and billing details.",
        ),
        (
            400,
            r#"{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}"#,
            ModelAuthentication,
            false,
            "API key not valid. Please pass a valid API key.",
        ),
        (
            400,
            r#"{"error":{"code":400,"message":"The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).","status":"INVALID_ARGUMENT"}}"#,
            ContextOverflow,
            false,
            "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        ),
        // Moonshot, DeepSeek, DashScope, xAI, Groq, Mistral
        (
            400,
            r#"{"error":{"message":"Invalid request: Your request exceeded model token limit: 262144","type":"invalid_request_error"}}"#,
            ContextOverflow,
            false,
            "Invalid request: Your request exceeded model token limit: 262144",
        ),
        (
            429,
            r#"{"error":{"message":"Your account is suspended, please check your plan","type":"exceeded_current_quota_error"}}"#,
            Billing,
            false,
            "Your account is suspended, please check your plan",
        ),
        (
            402,
            r#"{"error":{"message":"Insufficient Balance","type":"unknown_error"}}"#,
            Billing,
            false,
            "Insufficient Balance",
        ),
        (
            400,
            r#"{"code":"Arrearage","message":"Access denied, please make sure your account is in good standing."}"#,
            Billing,
            false,
            "Access denied, please make sure your account is in good standing.",
        ),
        (
            400,
            r#"{"error":{"message":"Range of input length should be [1, 129024]","code":"invalid_parameter_error"}}"#,
            ContextOverflow,
            false,
            "Range of input length should be [1, 129024]",
        ),
        (
            400,
            r#"{"code":"invalid-argument","error":"This model's maximum prompt length is 131072 but the request contains 537812 tokens."}"#,
            ContextOverflow,
            false,
            "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
        ),
        (
            413,
            r#"{"error":{"message":"Request too large on tokens per minute (TPM)","type":"tokens","code":"rate_limit_exceeded"}}"#,
            ModelRateLimited,
            true,
            "Request too large on tokens per minute (TPM)",
        ),
        (
            422,
            r#"{"detail":[{"loc":["body","messages"],"msg":"Field required"}]}"#,
            ModelRequestFailed,
            false,
            "Field required",
        ),
        // OpenRouter wraps the upstream error.
        (
            400,
            r#"{"error":{"message":"Provider returned error","code":400,"metadata":{"raw":"{\"error\":{\"message\":\"thinking is enabled but reasoning_content is missing\"}}"}}}"#,
            ModelRequestFailed,
            false,
            "Provider returned error: thinking is enabled but reasoning_content is missing",
        ),
        // Bedrock
        (
            400,
            r#"{"message":"Input is too long for requested model."}"#,
            ContextOverflow,
            false,
            "Input is too long for requested model.",
        ),
        // No JSON at all
        (
            503,
            "upstream connect error",
            ModelOverloaded,
            true,
            "upstream connect error",
        ),
        (
            502,
            "<html>bad gateway</html>",
            ModelOverloaded,
            true,
            "the provider answered with status 502 and no message",
        ),
        (
            301,
            "",
            ModelRequestFailed,
            false,
            "the provider answered with status 301 and no message",
        ),
    ];
    for (status, body, kind, retryable, message) in cases {
        let error = from_response(*status, &HeaderMap::new(), body.as_bytes());
        assert_eq!(
            (
                error.failure.kind,
                error.retryable,
                error.failure.message.as_str(),
                error.status
            ),
            (*kind, *retryable, *message, Some(*status)),
            "{body}"
        );
    }
}

#[test]
fn errors_inside_a_stream_are_classified_too() {
    for (json, kind, retryable) in [
        (
            r#"{"type":"overloaded_error","message":"Overloaded"}"#,
            FailureKind::ModelOverloaded,
            true,
        ),
        (
            r#"{"error":{"code":502,"message":"Provider disconnected"}}"#,
            FailureKind::ModelOverloaded,
            true,
        ),
        (
            r#"{"code":"rate_limit_exceeded","message":"slow down"}"#,
            FailureKind::ModelRateLimited,
            true,
        ),
        (
            r#"{"code":"invalid_prompt","message":"no"}"#,
            FailureKind::ModelRequestFailed,
            false,
        ),
        (
            r#"{"code":"context_length_exceeded","message":"too long"}"#,
            FailureKind::ContextOverflow,
            false,
        ),
    ] {
        let error = in_stream(&Report::from_json(&serde_json::from_str(json).expect("json")));
        assert_eq!((error.failure.kind, error.retryable), (kind, retryable), "{json}");
    }
}

#[test]
fn the_wait_is_read_from_every_spelling() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for (name, value, expected) in [
        ("retry-after", "7", Some(Duration::from_secs(7))),
        ("retry-after", "0.5", Some(Duration::from_millis(500))),
        ("retry-after-ms", "1250", Some(Duration::from_millis(1250))),
        (
            "retry-after",
            "Sun, 09 Sep 2001 01:47:10 GMT",
            Some(Duration::from_secs(30)),
        ),
        (
            "retry-after",
            "Sun, 09 Sep 2001 01:46:00 GMT",
            Some(Duration::ZERO),
        ),
        ("retry-after", "soon", None),
        ("retry-after", "-3", None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        assert_eq!(retry_after(&headers, now), expected, "{name}: {value}");
    }
    let body = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"m","details":[{"@type":"x.RetryInfo","retryDelay":"34.5s"}]}}"#;
    let error = from_response(429, &HeaderMap::new(), body.as_bytes());
    assert_eq!(error.retry_after, Some(Duration::from_millis(34_500)));
}

#[test]
fn the_provider_can_forbid_or_allow_a_retry() {
    let mut headers = HeaderMap::new();
    headers.insert("x-should-retry", HeaderValue::from_static("false"));
    assert!(!from_response(500, &headers, b"{}").retryable);
    headers.insert("x-should-retry", HeaderValue::from_static("true"));
    assert!(from_response(400, &headers, b"{}").retryable);
}

#[test]
fn a_quoted_key_is_removed() {
    let secret = SecretString::from("sk-very-secret-key".to_owned());
    let error = Error::fatal(
        FailureKind::ModelAuthentication,
        "bad key sk-very-secret-key given",
    );
    assert_eq!(
        redacted(error, &[secret]).failure.message,
        "bad key [redacted] given"
    );
}

#[test]
fn a_long_message_is_cut_at_a_character() {
    let body = "é".repeat(3_000);
    let report = Report::from_body(body.as_bytes());
    assert!(report.message.len() <= MAX_MESSAGE + '…'.len_utf8());
    assert!(report.message.ends_with('…'));
}
