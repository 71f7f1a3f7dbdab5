//! The operator's master key.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use oma_domain::vault::MasterKeyId;
use rand::TryRngCore as _;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use sha2::{Digest as _, Sha256};

/// The length of every key here, in bytes.
pub const KEY_BYTES: usize = 32;

/// How many bytes of the digest make a key's id.
const ID_BYTES: usize = 16;

/// Why a text is no master key. It does not repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it must be {KEY_BYTES} bytes, as 64 hexadecimal digits, base64 or base64url")]
pub struct InvalidKey;

/// The machine gave no random bytes.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the machine gives no random bytes: {0}")]
pub struct NoRandomness(pub(crate) String);

/// The key under which every data key is sealed.
pub struct MasterKey {
    bytes: SecretBox<[u8; KEY_BYTES]>,
    id: MasterKeyId,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id)
    }
}

impl MasterKey {
    /// Reads a key: 64 hexadecimal digits, base64 or base64url of 32 bytes, with white space around it or not.
    ///
    /// # Errors
    /// [`InvalidKey`].
    pub fn parse(text: &SecretString) -> Result<Self, InvalidKey> {
        let text = text.expose_secret().trim();
        let decoded = if text.len() == 2 * KEY_BYTES {
            hex::decode(text).ok()
        } else {
            let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
            [STANDARD, URL_SAFE]
                .iter()
                .find_map(|alphabet| GeneralPurpose::new(alphabet, config).decode(text).ok())
        };
        let decoded = Zeroizing::new(decoded.ok_or(InvalidKey)?);
        let bytes: [u8; KEY_BYTES] = decoded.as_slice().try_into().map_err(|_| InvalidKey)?;
        Ok(Self::of(bytes))
    }

    /// A new key.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut bytes = [0; KEY_BYTES];
        random(&mut bytes)?;
        Ok(Self::of(bytes))
    }

    fn of(mut bytes: [u8; KEY_BYTES]) -> Self {
        let boxed = SecretBox::init_with_mut(|inner: &mut [u8; KEY_BYTES]| inner.copy_from_slice(&bytes));
        secrecy::zeroize::Zeroize::zeroize(&mut bytes);
        let mut digest = Sha256::new();
        digest.update(b"oma vault master key id 1\0");
        digest.update(boxed.expose_secret());
        let id = hex::encode(&digest.finalize()[..ID_BYTES]);
        Self {
            bytes: boxed,
            id: MasterKeyId::new(id),
        }
    }

    /// The key as text, for its file.
    #[must_use]
    pub fn to_text(&self) -> SecretString {
        SecretString::from(hex::encode(self.bytes.expose_secret()))
    }

    /// What names it without telling anything of it.
    #[must_use]
    pub fn id(&self) -> &MasterKeyId {
        &self.id
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
        self.bytes.expose_secret()
    }

    /// A digest that only whoever has this key can make, so that it gives nothing away about a short `text`.
    #[must_use]
    pub fn digest(&self, text: &str) -> String {
        let mut inner = Sha256::new();
        inner.update(b"oma vault digest 1\0");
        inner.update(self.bytes());
        inner.update(text.as_bytes());
        // Hashed again, so that nobody can lengthen what was digested.
        let mut outer = Sha256::new();
        outer.update(self.bytes());
        outer.update(inner.finalize());
        hex::encode(outer.finalize())
    }
}

/// Fills `bytes` from the operating system.
pub(crate) fn random(bytes: &mut [u8]) -> Result<(), NoRandomness> {
    rand::rngs::OsRng
        .try_fill_bytes(bytes)
        .map_err(|error| NoRandomness(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notations_of_a_key() {
        let bytes: Vec<u8> = (0..32)
            .map(|n: u8| n.wrapping_mul(61).wrapping_add(251))
            .collect();
        let hex = hex::encode(&bytes);
        let expected = MasterKey::parse(&SecretString::from(hex.clone())).unwrap();
        let standard = base64::engine::general_purpose::STANDARD.encode(&bytes);
        let url = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&bytes);
        assert_ne!(standard.trim_end_matches('='), url, "the alphabets differ here");
        for text in [
            hex.to_uppercase(),
            format!("  {hex}\n"),
            standard.trim_end_matches('=').to_owned(),
            standard,
            format!("{url}="),
            url,
        ] {
            let key = MasterKey::parse(&SecretString::from(text.clone())).unwrap();
            assert_eq!(key.bytes(), expected.bytes(), "{text}");
            assert_eq!(key.id(), expected.id());
        }
        assert_eq!(
            MasterKey::parse(&expected.to_text()).unwrap().bytes(),
            expected.bytes()
        );
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "secret",
            &"a".repeat(63),
            &"g".repeat(64),
            &"a".repeat(65),
            &base64::engine::general_purpose::STANDARD.encode([1; 31]),
            &base64::engine::general_purpose::STANDARD.encode([1; 33]),
            &format!("{} {}", "a".repeat(32), "a".repeat(31)),
        ] {
            let refused = MasterKey::parse(&SecretString::from(text.to_owned()));
            assert_eq!(refused.map(|_| ()), Err(InvalidKey), "{text}");
        }
    }

    #[test]
    fn a_key_shows_its_id_only() {
        let key = MasterKey::generate().unwrap();
        assert_eq!(format!("{key:?}"), format!("MasterKey({})", key.id()));
        assert!(!key.to_text().expose_secret().contains(key.id().as_str()));
        assert_ne!(MasterKey::generate().unwrap().id(), key.id());
        assert_ne!(key.digest("a"), key.digest("b"));
        assert_eq!(key.digest("a"), key.digest("a"));
    }
}
