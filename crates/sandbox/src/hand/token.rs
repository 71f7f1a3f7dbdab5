//! What tells the server from others that can connect to a hand. Whoever has it can tell that hand what to do, and
//! nothing else.

#[cfg(any(feature = "docker", test))]
use std::{fs::File, io, io::Read as _};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// What tells the server from others.
#[derive(Clone, Debug)]
pub(crate) struct Token(SecretString);

impl Token {
    /// How long it is as it is said, in bytes.
    pub(crate) const LENGTH: usize = 64;

    /// One that nobody can guess.
    ///
    /// # Errors
    /// When the kernel gives no random numbers.
    #[cfg(any(feature = "docker", test))]
    pub(crate) fn generate() -> io::Result<Self> {
        let mut bytes = [0; Self::LENGTH / 2];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Self(hex::encode(bytes).into()))
    }

    /// The one that was said, whatever it is.
    #[cfg(any(feature = "docker", test))]
    pub(crate) fn said(words: &[u8; Self::LENGTH]) -> Option<Self> {
        let words = std::str::from_utf8(words).ok()?;
        Some(Self(words.into()))
    }

    /// As it is said.
    pub(crate) fn words(&self) -> [u8; Self::LENGTH] {
        let mut words = [0; Self::LENGTH];
        let own = self.0.expose_secret().as_bytes();
        let length = own.len().min(Self::LENGTH);
        words[..length].copy_from_slice(&own[..length]);
        words
    }

    /// Whether this was said. How long the answer takes tells nothing.
    pub(crate) fn is(&self, words: &[u8; Self::LENGTH]) -> bool {
        Sha256::digest(words) == Sha256::digest(self.words())
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.is(&other.words())
    }
}

impl Eq for Token {}

// For the record of a sandbox, in a folder of the server's own.
impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose_secret())
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.len() {
            Self::LENGTH => Ok(Self(text.into())),
            other => Err(serde::de::Error::invalid_length(other, &"64 characters")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_itself_and_is_not_shown() {
        let (one, other) = (Token::generate().unwrap(), Token::generate().unwrap());
        assert!(one.is(&one.words()) && !one.is(&other.words()));
        assert_eq!(Token::said(&one.words()), Some(one.clone()));
        let text = String::from_utf8(one.words().to_vec()).unwrap();
        assert!(!format!("{one:?}").contains(&text));
        let json = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Token>(&json).unwrap(), one);
        assert!(serde_json::from_str::<Token>("\"short\"").is_err());
    }
}
