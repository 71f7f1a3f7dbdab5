//! What can go wrong. No message contains a secret, or anything that a token endpoint said in its own words.

use oma_domain::{CredentialId, VaultId};
use oma_store::OnceRecord;

/// What can go wrong with vaults.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No such vault in this workspace.
    #[error("no vault has this id")]
    VaultNotFound,
    /// No such credential in this vault.
    #[error("no credential of this vault has this id")]
    CredentialNotFound,
    /// What the client gave can't be used.
    #[error("{field}: {message}")]
    Invalid {
        /// The request field.
        field: &'static str,
        /// What is wrong with it, without repeating it.
        message: String,
    },
    /// The vault is archived.
    #[error("the vault is archived")]
    VaultArchived,
    /// The credential is archived, its secrets are gone.
    #[error("the credential is archived")]
    CredentialArchived,
    /// Another credential of the vault is for the same place.
    #[error("the vault has a credential for this URL already")]
    CredentialExists,
    /// The vault is full.
    #[error("the vault has {0} credentials already, which is the most")]
    TooManyCredentials(u32),
    /// The credential is being changed by others all the time.
    #[error("the credential has changed meanwhile")]
    Conflict,
    /// The idempotency key has been used.
    #[error("the idempotency key has been used")]
    AlreadyDone(OnceRecord),
    /// An access token could not be refreshed.
    #[error("the access token of credential {credential} in vault {vault} could not be refreshed: {reason}")]
    Refresh {
        /// The vault.
        vault: VaultId,
        /// The credential.
        credential: CredentialId,
        /// Why.
        reason: Box<RefreshFailure>,
    },
    /// A stored secret does not open: the row was tampered with or damaged.
    #[error("a secret of vault {0} can't be opened: its row is damaged or was moved")]
    Unreadable(VaultId),
    /// The store failed.
    #[error(transparent)]
    Store(oma_store::Error),
}

/// Why an access token could not be refreshed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RefreshFailure {
    /// It has expired, and the credential has no refresh token.
    #[error("it has expired, and there is no refresh token")]
    NoRefreshToken,
    /// The token endpoint could not be asked.
    #[error("the token endpoint could not be asked: {0}")]
    Unreachable(#[from] oma_egress::Error),
    /// The token endpoint refused.
    #[error("the token endpoint answered {status}{}", .code.map(|code| format!(" ({code})")).unwrap_or_default())]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The error code, if it is one that OAuth defines.
        code: Option<&'static str>,
        /// The media type of its answer, if it is a common one; empty otherwise.
        media_type: &'static str,
    },
    /// What the token endpoint answered is no token.
    #[error("the token endpoint's answer can't be used: {0}")]
    BadAnswer(&'static str),
    /// The new tokens could not be stored. Whether the old refresh token still works is up to the issuer.
    #[error("the new tokens could not be stored: {0}")]
    NotKept(oma_store::Error),
    /// The server is about to stop, and begins no refresh any more.
    #[error("the server is stopping")]
    Stopping,
    /// The refresh broke down.
    #[error("the refresh was cut off")]
    CutOff,
}

/// The result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<oma_store::Error> for Error {
    fn from(error: oma_store::Error) -> Self {
        match error {
            oma_store::Error::AlreadyDone(record) => Self::AlreadyDone(record),
            oma_store::Error::TooMany(most) => Self::TooManyCredentials(most),
            oma_store::Error::VaultArchived => Self::VaultArchived,
            oma_store::Error::NameTaken => Self::CredentialExists,
            error => Self::Store(error),
        }
    }
}
