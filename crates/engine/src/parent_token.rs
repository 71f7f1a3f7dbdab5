//! Parent tokens: whoever holds one may have other agents work on a session's behalf, and nothing else.
//!
//! A token is `base64url(payload) "." base64url(HMAC-SHA256(payload))`, where the payload is the JSON of [`Claims`]. The
//! secret is 256 random bits that the store keeps, so tokens outlive a restart of the server.
//!
//! Invariant: nothing in a payload is looked at before its signature has been found to be right, in constant time.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use oma_domain::{AgentId, SessionId, Timestamp, WorkspaceId};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// How long a token works, in milliseconds: a day.
pub const LIFETIME_MS: u64 = 24 * 3600 * 1000;
/// The longest token, in bytes. The agents that it lists make it long.
pub const MAX_LEN: usize = 48 << 10;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Claims {
    /// The session on whose behalf others are opened.
    pub parent_session_id: SessionId,
    /// Its agent.
    pub parent_agent_id: AgentId,
    /// The workspace of both.
    pub workspace_id: WorkspaceId,
    /// The agents that may be called.
    pub allowlist: Vec<AgentId>,
    /// How deep tasks may still be passed on.
    pub remaining_depth: u32,
    /// When it stops working.
    pub expires_at: Timestamp,
}

/// What tokens are signed with.
pub struct Secret(SecretBox<[u8; 32]>);

impl Secret {
    /// From 32 random bytes; `None` when there are more or fewer.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; 32] = bytes.try_into().ok()?;
        Some(Self(SecretBox::new(Box::new(bytes))))
    }

    fn mac(&self, payload: &[u8]) -> Hmac<Sha256> {
        // HMAC fills a key up with zeros to the length of a block.
        let mut block = [0; 64];
        let (key, _) = block.split_at_mut(32);
        key.copy_from_slice(self.0.expose_secret());
        let mut mac = Hmac::<Sha256>::new(&block.into());
        mac.update(payload);
        mac
    }

    /// Makes a token.
    ///
    /// # Errors
    /// That the claims are too long for one, or can't be written as JSON.
    pub fn sign(&self, claims: &Claims) -> Result<SecretString, String> {
        let payload = serde_json::to_vec(claims).map_err(|error| error.to_string())?;
        let token = self.seal(&payload);
        if token.len() > MAX_LEN {
            return Err(format!("a token of {} bytes would be too long", token.len()));
        }
        Ok(SecretString::from(token))
    }

    /// Signs other claims. Each kind refuses fields that it does not know, so that none passes for another.
    pub(crate) fn seal_json(&self, claims: &impl Serialize) -> Result<String, String> {
        let payload = serde_json::to_vec(claims).map_err(|error| error.to_string())?;
        Ok(self.seal(&payload))
    }

    fn seal(&self, payload: &[u8]) -> String {
        let signature = self.mac(payload).finalize().into_bytes();
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        format!("{}.{}", encode(payload), encode(&signature))
    }

    /// Signs whatever it is given.
    #[cfg(any(test, fuzzing))]
    #[must_use]
    pub fn sign_bytes(&self, payload: &[u8]) -> String {
        self.seal(payload)
    }

    /// Reads a token; `None` when it is not one of ours or has expired.
    #[must_use]
    pub fn verify(&self, token: &[u8], now: Timestamp) -> Option<Claims> {
        let claims: Claims = self.open_json(token)?;
        (now < claims.expires_at).then_some(claims)
    }

    /// Reads claims of a kind; `None` when they are not ours or of another kind.
    pub(crate) fn open_json<T: DeserializeOwned>(&self, token: &[u8]) -> Option<T> {
        if token.len() > MAX_LEN {
            return None;
        }
        let dot = token.iter().position(|byte| *byte == b'.')?;
        let (payload, signature) = (token.get(..dot)?, token.get(dot + 1..)?);
        let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        self.mac(&payload).verify_slice(&signature).ok()?;
        serde_json::from_slice(&payload).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000);

    fn secret(byte: u8) -> Secret {
        Secret::new(&[byte; 32]).unwrap()
    }

    fn claims() -> Claims {
        Claims {
            parent_session_id: SessionId::parse("ses_p").unwrap(),
            parent_agent_id: AgentId::parse("agt_p").unwrap(),
            workspace_id: WorkspaceId::default_workspace(),
            allowlist: vec![AgentId::parse("agt_c").unwrap()],
            remaining_depth: 2,
            expires_at: Timestamp(2_000),
        }
    }

    fn signed(secret: &Secret, payload: &[u8]) -> String {
        secret.sign_bytes(payload)
    }

    #[test]
    fn a_token_has_the_documented_form() {
        let token = secret(1).sign(&claims()).unwrap();
        let (payload, signature) = token.expose_secret().split_once('.').unwrap();
        let payload: serde_json::Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
        assert_eq!(
            payload,
            serde_json::json!({
                "parentSessionId": "ses_p", "parentAgentId": "agt_p", "workspaceId": "wrk_default",
                "allowlist": ["agt_c"], "remainingDepth": 2, "expiresAt": 2000,
            })
        );
        assert_eq!(URL_SAFE_NO_PAD.decode(signature).unwrap().len(), 32);
        assert_eq!(
            secret(1).verify(token.expose_secret().as_bytes(), NOW),
            Some(claims())
        );
    }

    #[test]
    fn forged_foreign_and_expired_tokens_are_nothing() {
        let good = secret(1).sign(&claims()).unwrap().expose_secret().to_owned();
        let (payload, signature) = good.split_once('.').unwrap();
        let more = serde_json::to_vec(&Claims {
            remaining_depth: 9,
            ..claims()
        })
        .unwrap();
        let more = URL_SAFE_NO_PAD.encode(more);
        let odd = signed(&secret(1), br#"{"parentSessionId":"ses_p"}"#);
        let extra = serde_json::to_string(&claims())
            .unwrap()
            .replacen('{', r#"{"admin":true,"#, 1);
        let extra = signed(&secret(1), extra.as_bytes());
        let no_id = serde_json::to_string(&claims()).unwrap().replace("ses_p", "../p");
        let no_id = signed(&secret(1), no_id.as_bytes());
        for bad in [
            "",
            ".",
            "..",
            payload,
            signature,
            &format!("{payload}."),
            &format!(".{signature}"),
            &format!("{more}.{signature}"),
            &format!("{payload}=.{signature}"),
            &format!("{payload}.{signature}=="),
            &format!("{payload}.{signature}.{signature}"),
            &format!("{payload}.{}", &signature[..signature.len() - 4]),
            &odd,
            &extra,
            &no_id,
            &"a".repeat(MAX_LEN + 1),
        ] {
            assert_eq!(secret(1).verify(bad.as_bytes(), NOW), None, "{bad}");
        }
        assert_eq!(secret(2).verify(good.as_bytes(), NOW), None, "another server's");
        assert!(secret(1).verify(good.as_bytes(), Timestamp(1_999)).is_some());
        assert_eq!(
            secret(1).verify(good.as_bytes(), Timestamp(2_000)),
            None,
            "expired"
        );
    }

    #[test]
    fn a_token_that_could_not_be_presented_is_not_made() {
        let ids = (0..2_000).map(|number| AgentId::parse(&format!("agt_{number:026}")).unwrap());
        let long = Claims {
            allowlist: ids.collect(),
            ..claims()
        };
        assert!(secret(1).sign(&long).is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_presented_only_what_was_signed_passes(token in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(secret(1).verify(&token, NOW), None);
        }

        #[test]
        fn a_token_with_any_byte_changed_is_nothing(at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let mut token = secret(1).sign(&claims()).unwrap().expose_secret().as_bytes().to_vec();
            let at = at.index(token.len());
            prop_assume!(token[at] != to);
            token[at] = to;
            prop_assert_eq!(secret(1).verify(&token, NOW), None);
        }

        #[test]
        fn signed_json_of_another_shape_is_nothing(payload in "[ -~]{0,200}") {
            prop_assert_eq!(secret(1).verify(signed(&secret(1), payload.as_bytes()).as_bytes(), NOW), None);
        }
    }
}
