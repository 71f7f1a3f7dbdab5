//! Sealing: XChaCha20-Poly1305 with a random nonce, and associated data that binds a ciphertext to its place.
//!
//! A sealed text is `1.` and the base64url of nonce, ciphertext and tag. The associated data is not stored: it
//! is made from the row that the text was found in, so a text that was moved to another row does not open.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::{Hmac, KeyInit as _, Mac as _};
use oma_domain::vault::{CredentialNetworking, DataKey, Field, Kind, MasterKeyId, Sealed, Spec};
use oma_domain::{CredentialId, VaultId, WorkspaceId};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use sha2::Sha256;

use crate::master::{KEY_BYTES, MasterKey, NoRandomness, random};

const PREFIX: &str = "1.";
const NONCE_BYTES: usize = 24;

/// A sealed text did not open: it was damaged, moved, or sealed under another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ciphertext does not open here")]
pub struct Unreadable;

/// Associated data: each part with its length, so that no two lists of parts read the same.
fn bind(parts: &[&[u8]]) -> Vec<u8> {
    let mut bound = Vec::new();
    for part in parts {
        bound.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bound.extend_from_slice(part);
    }
    bound
}

fn seal(key: &[u8; KEY_BYTES], bound: &[u8], plain: &[u8]) -> Result<Sealed, NoRandomness> {
    let mut nonce = [0; NONCE_BYTES];
    random(&mut nonce)?;
    let payload = Payload {
        msg: plain,
        aad: bound,
    };
    let sealed = XChaCha20Poly1305::new(key.into())
        .encrypt(&XNonce::from(nonce), payload)
        // Only a text of more than 256 GiB can't be sealed.
        .map_err(|error| NoRandomness(error.to_string()))?;
    let mut bytes = nonce.to_vec();
    bytes.extend_from_slice(&sealed);
    Ok(Sealed::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
}

fn open(key: &[u8; KEY_BYTES], bound: &[u8], sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, Unreadable> {
    let text = sealed.as_str().strip_prefix(PREFIX).ok_or(Unreadable)?;
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Unreadable)?;
    let (nonce, sealed) = bytes.split_at_checked(NONCE_BYTES).ok_or(Unreadable)?;
    let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|_| Unreadable)?;
    let payload = Payload {
        msg: sealed,
        aad: bound,
    };
    XChaCha20Poly1305::new(key.into())
        .decrypt(&XNonce::from(nonce), payload)
        .map(Zeroizing::new)
        .map_err(|_| Unreadable)
}

/// A vault, with its data key opened.
pub struct Chamber {
    workspace: WorkspaceId,
    vault: VaultId,
    version: u32,
    key: SecretBox<[u8; KEY_BYTES]>,
}

impl std::fmt::Debug for Chamber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Chamber({}, version {})", self.vault, self.version)
    }
}

impl Chamber {
    /// A new vault's, with its data key sealed for the store.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn create(
        master: &MasterKey,
        workspace: &WorkspaceId,
        vault: &VaultId,
    ) -> Result<(Self, DataKey), NoRandomness> {
        let mut drawn = Ok(());
        let key = SecretBox::init_with_mut(|key: &mut [u8; KEY_BYTES]| drawn = random(key));
        drawn?;
        let chamber = Self {
            workspace: workspace.clone(),
            vault: vault.clone(),
            version: 1,
            key,
        };
        let sealed = chamber.wrap(master)?;
        Ok((chamber, sealed))
    }

    /// Opens a stored data key.
    ///
    /// # Errors
    /// [`Unreadable`] when it was sealed under another master key, or for another vault.
    pub fn open(
        master: &MasterKey,
        workspace: &WorkspaceId,
        vault: &VaultId,
        key: &DataKey,
    ) -> Result<Self, Unreadable> {
        let bound = key_bound(workspace, vault, key.version, master.id());
        let plain = open(master.bytes(), &bound, &key.sealed)?;
        if plain.len() != KEY_BYTES {
            return Err(Unreadable);
        }
        Ok(Self {
            workspace: workspace.clone(),
            vault: vault.clone(),
            version: key.version,
            key: SecretBox::init_with_mut(|key: &mut [u8; KEY_BYTES]| key.copy_from_slice(&plain)),
        })
    }

    /// The data key, sealed under a master key.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn wrap(&self, master: &MasterKey) -> Result<DataKey, NoRandomness> {
        let bound = key_bound(&self.workspace, &self.vault, self.version, master.id());
        Ok(DataKey {
            version: self.version,
            master: master.id().clone(),
            sealed: seal(master.bytes(), &bound, self.key.expose_secret())?,
        })
    }

    /// Seals a secret of a credential.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn seal(
        &self,
        credential: &CredentialId,
        spec: &Spec,
        field: Field,
        secret: &SecretString,
    ) -> Result<Sealed, NoRandomness> {
        let bound = self.secret_bound(credential, spec, field);
        seal(
            self.key.expose_secret(),
            &bound,
            secret.expose_secret().as_bytes(),
        )
    }

    /// Opens a secret of a credential.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn open_secret(
        &self,
        credential: &CredentialId,
        spec: &Spec,
        field: Field,
        sealed: &Sealed,
    ) -> Result<SecretString, Unreadable> {
        let bound = self.secret_bound(credential, spec, field);
        let plain = open(self.key.expose_secret(), &bound, sealed)?;
        let text = std::str::from_utf8(&plain).map_err(|_| Unreadable)?;
        Ok(SecretString::from(text))
    }

    /// Seals a secret of the server's own for a place.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub(crate) fn seal_own(&self, place: &[&str], secret: &SecretString) -> Result<Sealed, NoRandomness> {
        let bound = self.own_bound(place);
        seal(
            self.key.expose_secret(),
            &bound,
            secret.expose_secret().as_bytes(),
        )
    }

    /// Opens a secret of the server's own.
    ///
    /// # Errors
    /// [`Unreadable`], also when it was sealed for another place.
    pub(crate) fn open_own(&self, place: &[&str], sealed: &Sealed) -> Result<SecretString, Unreadable> {
        let plain = open(self.key.expose_secret(), &self.own_bound(place), sealed)?;
        let text = std::str::from_utf8(&plain).map_err(|_| Unreadable)?;
        Ok(SecretString::from(text))
    }

    /// Bytes for a place that nobody can tell without the data key, and that are the same each time.
    pub(crate) fn derive(&self, place: &[&str]) -> Zeroizing<[u8; KEY_BYTES]> {
        let mut parts: Vec<&[u8]> = vec![b"oma server derivation 1"];
        parts.extend(place.iter().map(|part| part.as_bytes()));
        // A short key is filled up with zeros to the block of the digest (RFC 2104); done here, nothing can fail.
        let mut block = Zeroizing::new([0; 64]);
        block[..KEY_BYTES].copy_from_slice(self.key.expose_secret());
        let mut mac = Hmac::<Sha256>::new((&*block).into());
        mac.update(&bind(&parts));
        Zeroizing::new(mac.finalize().into_bytes().into())
    }

    fn own_bound(&self, place: &[&str]) -> Vec<u8> {
        let version = self.version.to_be_bytes();
        let mut parts: Vec<&[u8]> = vec![b"oma server secret 1", &version];
        parts.extend(place.iter().map(|part| part.as_bytes()));
        bind(&parts)
    }

    fn secret_bound(&self, credential: &CredentialId, spec: &Spec, field: Field) -> Vec<u8> {
        // Where a secret may be sent is bound as well: otherwise whoever can write to the database, and has no
        // key, could have it sent to themselves.
        let endpoint = match &spec.kind {
            Kind::McpOauth {
                refresh: Some(refresh),
                ..
            } => refresh.token_endpoint.as_str(),
            Kind::McpOauth { refresh: None, .. } | Kind::StaticBearer | Kind::EnvironmentVariable { .. } => {
                ""
            }
        };
        let version = self.version.to_be_bytes();
        let mut parts: Vec<&[u8]> = vec![
            b"oma vault secret 1",
            self.workspace.as_str().as_bytes(),
            self.vault.as_str().as_bytes(),
            credential.as_str().as_bytes(),
            field.name().as_bytes(),
            &version,
            spec.kind.name().as_bytes(),
            spec.match_url.as_bytes(),
            endpoint.as_bytes(),
        ];
        let places;
        if let Kind::EnvironmentVariable {
            secret_name,
            networking,
            injection,
        } = &spec.kind
        {
            places = [injection.header, injection.query, injection.body].map(u8::from);
            parts.push(secret_name.as_bytes());
            parts.push(&places);
            match networking {
                CredentialNetworking::Unrestricted => parts.push(b"unrestricted"),
                CredentialNetworking::Limited { allowed_hosts } => {
                    parts.push(b"limited");
                    parts.extend(allowed_hosts.iter().map(|host| host.as_bytes()));
                }
            }
        }
        bind(&parts)
    }
}

fn key_bound(workspace: &WorkspaceId, vault: &VaultId, version: u32, master: &MasterKeyId) -> Vec<u8> {
    bind(&[
        b"oma vault data key 1",
        workspace.as_str().as_bytes(),
        vault.as_str().as_bytes(),
        &version.to_be_bytes(),
        master.as_str().as_bytes(),
    ])
}

#[cfg(test)]
mod tests {
    use oma_domain::Timestamp;
    use oma_domain::vault::{ClientAuth, Refresh};

    use super::*;

    fn spec(match_url: &str, endpoint: &str) -> Spec {
        Spec {
            name: "n".into(),
            match_url: match_url.into(),
            kind: Kind::McpOauth {
                expires_at: Some(Timestamp(1)),
                refresh: Some(Refresh {
                    resource: None,
                    token_endpoint: endpoint.into(),
                    client_id: "c".into(),
                    client_auth: ClientAuth::ClientSecretPost,
                    scopes: None,
                }),
            },
        }
    }

    #[test]
    fn a_secret_opens_where_it_was_sealed_and_nowhere_else() {
        let master = MasterKey::generate().unwrap();
        let (workspace, vault) = (WorkspaceId::generate(), VaultId::generate());
        let (chamber, key) = Chamber::create(&master, &workspace, &vault).unwrap();
        let id = CredentialId::generate();
        let here = spec("https://a.example/", "https://id.example/token");
        let secret = SecretString::from("tok-canary-ü");
        let sealed = chamber.seal(&id, &here, Field::Token, &secret).unwrap();
        assert!(!sealed.as_str().contains("canary"));
        assert_eq!(format!("{sealed:?}"), "[sealed]");

        let again = Chamber::open(&master, &workspace, &vault, &key).unwrap();
        let opened = again.open_secret(&id, &here, Field::Token, &sealed).unwrap();
        assert_eq!(opened.expose_secret(), "tok-canary-ü");
        // What may be shown may change.
        let mut renamed = here.clone();
        renamed.name = "m".into();
        assert!(again.open_secret(&id, &renamed, Field::Token, &sealed).is_ok());

        let other = CredentialId::generate();
        let static_kind = Spec {
            kind: Kind::StaticBearer,
            ..here.clone()
        };
        for (what, result) in [
            (
                "credential",
                again.open_secret(&other, &here, Field::Token, &sealed),
            ),
            (
                "field",
                again.open_secret(&id, &here, Field::RefreshToken, &sealed),
            ),
            (
                "match URL",
                again.open_secret(
                    &id,
                    &spec("https://evil.example/", "https://id.example/token"),
                    Field::Token,
                    &sealed,
                ),
            ),
            (
                "token endpoint",
                again.open_secret(
                    &id,
                    &spec("https://a.example/", "https://evil.example/"),
                    Field::Token,
                    &sealed,
                ),
            ),
            (
                "kind",
                again.open_secret(&id, &static_kind, Field::Token, &sealed),
            ),
        ] {
            assert_eq!(result.map(|_| ()), Err(Unreadable), "{what}");
        }
        let moved = Chamber {
            workspace: WorkspaceId::generate(),
            ..Chamber::open(&master, &workspace, &vault, &key).unwrap()
        };
        assert!(moved.open_secret(&id, &here, Field::Token, &sealed).is_err());
        let moved = Chamber {
            vault: VaultId::generate(),
            ..Chamber::open(&master, &workspace, &vault, &key).unwrap()
        };
        assert!(moved.open_secret(&id, &here, Field::Token, &sealed).is_err());
        let older = Chamber {
            version: 2,
            ..Chamber::open(&master, &workspace, &vault, &key).unwrap()
        };
        assert!(older.open_secret(&id, &here, Field::Token, &sealed).is_err());
    }

    #[test]
    fn a_data_key_is_bound_to_its_vault_and_master_key() {
        let (master, other) = (MasterKey::generate().unwrap(), MasterKey::generate().unwrap());
        let (workspace, vault) = (WorkspaceId::generate(), VaultId::generate());
        let (chamber, key) = Chamber::create(&master, &workspace, &vault).unwrap();
        assert!(Chamber::open(&other, &workspace, &vault, &key).is_err());
        assert!(Chamber::open(&master, &WorkspaceId::generate(), &vault, &key).is_err());
        assert!(Chamber::open(&master, &workspace, &VaultId::generate(), &key).is_err());
        let newer = DataKey {
            version: 2,
            ..key.clone()
        };
        assert!(Chamber::open(&master, &workspace, &vault, &newer).is_err());
        let rewrapped = chamber.wrap(&other).unwrap();
        assert_ne!(rewrapped.sealed, key.sealed);
        let again = Chamber::open(&other, &workspace, &vault, &rewrapped).unwrap();
        assert_eq!(again.key.expose_secret(), chamber.key.expose_secret());
    }

    #[test]
    fn damage_is_noticed() {
        let master = MasterKey::generate().unwrap();
        let (workspace, vault) = (WorkspaceId::generate(), VaultId::generate());
        let (_, key) = Chamber::create(&master, &workspace, &vault).unwrap();
        let text = key.sealed.as_str();
        let mut texts = vec![String::new(), "1.".into(), "2.AAAA".into(), format!("{text}A")];
        for at in 0..text.len() {
            let mut damaged = text.as_bytes().to_vec();
            damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
            texts.push(String::from_utf8(damaged).unwrap());
            texts.push(text[..at].to_owned());
        }
        for text in texts {
            let damaged = DataKey {
                sealed: Sealed::new(text.clone()),
                ..key.clone()
            };
            let opened = Chamber::open(&master, &workspace, &vault, &damaged);
            assert_eq!(opened.map(|_| ()), Err(Unreadable), "{text}");
        }
    }

    #[test]
    fn no_two_lists_of_parts_are_bound_alike() {
        assert_ne!(bind(&[b"ab", b"c"]), bind(&[b"a", b"bc"]));
        assert_ne!(bind(&[b"a", b""]), bind(&[b"a"]));
    }
}
