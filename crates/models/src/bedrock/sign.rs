//! Signing requests with AWS credentials (Signature Version 4).

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret;

use crate::config::AwsCredentials;

/// The name that requests to the runtime are signed for.
const SERVICE: &str = "bedrock";

/// The headers that a signature consists of.
pub(super) fn headers(
    aws: &AwsCredentials,
    url: &str,
    body: &[u8],
    now: SystemTime,
) -> Result<HeaderMap, String> {
    let failed = |error: &dyn std::fmt::Display| format!("the request can't be signed: {error}");
    let token = aws
        .session_token
        .as_ref()
        .map(|token| token.expose_secret().to_owned());
    let credentials = Credentials::new(
        &aws.access_key_id,
        aws.secret_access_key.expose_secret(),
        token,
        None,
        "configuration",
    );
    let identity = credentials.into();
    let params = SigningParams::builder()
        .identity(&identity)
        .region(&aws.region)
        .name(SERVICE)
        .time(now)
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| failed(&error))?;
    let content_type = [("content-type", "application/json")];
    let request = SignableRequest::new("POST", url, content_type.into_iter(), SignableBody::Bytes(body))
        .map_err(|error| failed(&error))?;
    let (instructions, _) = sign(request, &params.into())
        .map_err(|error| failed(&error))?
        .into_parts();
    let mut headers = HeaderMap::new();
    for (name, value) in instructions.headers() {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| failed(&error))?;
        let mut value = HeaderValue::from_str(value).map_err(|error| failed(&error))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use secrecy::SecretString;

    use super::*;

    #[test]
    fn a_signature_depends_on_key_time_and_body() {
        let credentials = |secret: &str| AwsCredentials {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: SecretString::from(secret.to_owned()),
            session_token: Some(SecretString::from("token".to_owned())),
            region: "eu-west-1".to_owned(),
        };
        let signed = |secret: &str, seconds: u64, body: &[u8]| {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let url = "https://bedrock-runtime.eu-west-1.amazonaws.com/model/a%3A0/converse-stream";
            let headers = headers(&credentials(secret), url, body, at).expect("signed");
            assert_eq!(headers["x-amz-security-token"], "token");
            headers["authorization"].to_str().expect("text").to_owned()
        };
        let first = signed("secret", 1_700_000_000, b"{}");
        let prefix = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20231114/eu-west-1/bedrock/aws4_request, \
                      SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, Signature=";
        assert!(first.starts_with(prefix), "{first}");
        assert_eq!(first, signed("secret", 1_700_000_000, b"{}"));
        for other in [
            signed("other", 1_700_000_000, b"{}"),
            signed("secret", 1_700_000_001, b"{}"),
            signed("secret", 1_700_000_000, b"[]"),
        ] {
            assert_ne!(first, other);
        }
    }
}
