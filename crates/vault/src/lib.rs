//! The secrets that agents' MCP servers are called with, and those that programs in sandboxes use: sealed at rest,
//! matched to URLs, refreshed in time.
//!
//! A vault has a data key, random and its own, which seals its credentials' secrets ([`seal`]). The data key is
//! itself sealed under the operator's master key ([`master`]), which is never in the database; so changing the
//! master key ([`rekey()`]) rewrites a few bytes of each vault. Which credential a URL gets is decided by
//! [`rule`], an OAuth credential is refreshed by [`refresh`], and [`Vaults`] is what callers see.
//!
//! Invariants kept here:
//! - plaintext exists in `secrecy` and zeroizing types only, and neither `Debug` nor an error shows any of it (I9);
//! - a ciphertext opens only where it was written: it is bound to workspace, vault, credential, field, version of
//!   the data key, and to the URLs that its secret may be sent to;
//! - a token goes to the scheme, host, port and path that it was given for, and to no other;
//! - a refreshed token is durable before it is used, and one credential has one refresh under way at most.
//!
//! Where it sits: above the store and the dial guard; the engine and the MCP client use it.

mod change;
pub mod error;
pub mod key_file;
mod lookup;
pub mod master;
mod new;
mod oauth;
pub mod probe;
mod refresh;
pub mod rekey;
pub mod rule;
pub mod seal;
mod server;
mod variables;
mod vaults;

pub use change::{CredentialChange, Expiry, InjectionChange, MetadataChange};
pub use error::{Error, RefreshFailure, Result};
pub use lookup::Bearer;
pub use master::MasterKey;
pub use new::{ClientSecret, NewCredential, NewRefresh, NewSecret, NewVault};
pub use oma_store::{Admission, VaultFilter};
pub use rekey::rekey;
pub use variables::Variable;
pub use vaults::Vaults;
