//! What clients send about vaults and new credentials. Secrets are taken into types that don't show them; no problem
//! that is reported repeats a value.

use oma_vault::{MetadataChange, NewCredential, NewVault};
use serde_json::Value;

use super::auth;
use crate::dialects::claude::body::{metadata, metadata_changes, nullable, parse};
use crate::fault::Result;
use crate::validate::checks::text;
use crate::validate::{Change, Object};

/// The longest name of a vault or a credential, in characters.
pub(super) const DISPLAY_NAME: usize = 255;

/// Reads a vault to create.
pub(super) fn create(value: &Value) -> Result<NewVault> {
    parse(value, &["display_name", "metadata"], |object| {
        let name = object.required("display_name", text(1, DISPLAY_NAME));
        let metadata = nullable(object, "metadata", metadata);
        Some(NewVault {
            user: None,
            name: name?,
            metadata: metadata?.unwrap_or_default(),
        })
    })
}

/// What changes about a vault.
pub(super) struct UpdateVault {
    pub(super) name: Option<String>,
    pub(super) metadata: MetadataChange,
}

/// Reads an update of a vault. A vault always has a name: null leaves it as it is.
pub(super) fn update(value: &Value) -> Result<UpdateVault> {
    parse(value, &["display_name", "metadata"], |object| {
        let name = nullable(object, "display_name", text(1, DISPLAY_NAME));
        let metadata = changed_metadata(object);
        Some(UpdateVault {
            name: name?,
            metadata: metadata?,
        })
    })
}

/// Reads what becomes of metadata.
pub(super) fn changed_metadata(object: &mut Object<'_>) -> Option<MetadataChange> {
    let change = object.change("metadata", metadata_changes)?;
    Some(match change {
        Change::Keep => MetadataChange::Keep,
        Change::Clear => MetadataChange::Clear,
        Change::Set(pairs) => MetadataChange::Merge(pairs),
    })
}

/// Reads a credential to add.
pub(super) fn create_credential(value: &Value) -> Result<NewCredential> {
    parse(value, &["auth", "display_name", "metadata"], |object| {
        let auth = object.required("auth", auth::create);
        let name = nullable(object, "display_name", text(0, DISPLAY_NAME));
        let metadata = nullable(object, "metadata", metadata);
        let (match_url, secret) = auth?;
        Some(NewCredential {
            name: name?.unwrap_or_default(),
            match_url,
            secret,
            metadata: metadata?.unwrap_or_default(),
        })
    })
}
