//! Idempotency keys: a call that was carried out is not carried out again, also not after a restart.

use oma_domain::WorkspaceId;
use oma_store::{Once, OnceRecord, Store};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::{IdempotencyKey, now};

/// Looks a key up before the call is carried out.
pub(crate) async fn lookup(
    store: &dyn Store,
    workspace: &WorkspaceId,
    scope: &str,
    key: Option<&IdempotencyKey>,
) -> Result<Option<Value>> {
    let Some(key) = key else { return Ok(None) };
    match store.done(workspace, scope, &key.key).await? {
        Some(record) => Ok(Some(replay(record, key)?)),
        None => Ok(None),
    }
}

/// The remembered answer, if it belongs to the same request.
pub(crate) fn replay(record: OnceRecord, key: &IdempotencyKey) -> Result<Value> {
    if record.fingerprint == key.fingerprint {
        Ok(record.receipt)
    } else {
        Err(Error::KeyReused)
    }
}

/// What to remember with the call.
pub(crate) fn record(scope: &str, key: Option<&IdempotencyKey>, receipt: Value) -> Option<Once> {
    key.map(|key| Once {
        scope: scope.to_owned(),
        key: key.key.clone(),
        fingerprint: key.fingerprint.clone(),
        receipt,
        at: now(),
    })
}
