//! The keys that work, in memory: authentication looks here and nowhere else.
//!
//! Invariant: an entry is changed in the order in which the store changed its row (see [`super`]), so that what
//! is here is what a restarted server would load.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use oma_domain::{EnvironmentId, KeyId, Scope, Timestamp, WorkspaceId};
use oma_store::{KeyDigest, StoredKey};

/// What a valid key entitles its holder to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The key.
    pub key: KeyId,
    /// The workspace that it opens.
    pub workspace: WorkspaceId,
    /// What it may do there.
    pub scope: Scope,
    /// The environment for whose workers alone it is.
    pub environment: Option<EnvironmentId>,
}

/// The time of a key that nobody has used yet.
const NEVER: i64 = i64::MIN;

#[derive(Debug)]
struct Entry {
    credential: Credential,
    digest: KeyDigest,
    /// The secret before a rotation, and until when it works.
    previous: Option<(KeyDigest, Timestamp)>,
    expires_at: Option<Timestamp>,
    /// When it was last used, in milliseconds, and which time of that the store knows.
    used: AtomicI64,
    noted: AtomicI64,
}

impl Entry {
    fn opens(&self, digest: &KeyDigest, now: Timestamp) -> bool {
        if self.expires_at.is_some_and(|end| now >= end) {
            return false;
        }
        self.digest == *digest
            || self
                .previous
                .is_some_and(|(previous, until)| previous == *digest && now < until)
    }

    fn digests(&self) -> impl Iterator<Item = KeyDigest> {
        [Some(self.digest), self.previous.map(|(digest, _)| digest)]
            .into_iter()
            .flatten()
    }
}

#[derive(Debug, Default)]
struct Table {
    by_digest: HashMap<KeyDigest, Arc<Entry>>,
    by_id: HashMap<KeyId, Arc<Entry>>,
}

impl Table {
    fn remove(&mut self, id: &KeyId) -> Option<Arc<Entry>> {
        let entry = self.by_id.remove(id)?;
        for digest in entry.digests() {
            self.by_digest.remove(&digest);
        }
        Some(entry)
    }

    fn put(&mut self, stored: &StoredKey) {
        let key = &stored.key;
        let before = self.remove(&key.id);
        let noted = key.last_used_at.map_or(NEVER, Timestamp::as_millis);
        let used = before.map_or(noted, |entry| entry.used.load(Ordering::Relaxed).max(noted));
        let entry = Arc::new(Entry {
            credential: Credential {
                key: key.id.clone(),
                workspace: key.workspace.clone(),
                scope: key.scope,
                environment: key.environment.clone(),
            },
            digest: stored.digest,
            previous: stored.previous.zip(key.previous_until),
            expires_at: key.expires_at,
            used: AtomicI64::new(used),
            noted: AtomicI64::new(noted),
        });
        for digest in entry.digests() {
            self.by_digest.insert(digest, Arc::clone(&entry));
        }
        self.by_id.insert(key.id.clone(), entry);
    }
}

/// The keys that work.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Empty until the keys were loaded: before that nobody can say that a key is wrong.
    table: RwLock<Option<Table>>,
}

impl Index {
    /// Takes over what a starting server has read.
    pub(crate) fn fill(&self, keys: &[StoredKey]) {
        let mut table = Table::default();
        keys.iter().for_each(|key| table.put(key));
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Some(table);
    }

    /// Adds a key or replaces what is known of it.
    pub(crate) fn put(&self, stored: &StoredKey) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.get_or_insert_default().put(stored);
    }

    /// From here on the key opens nothing.
    pub(crate) fn remove(&self, id: &KeyId) {
        if let Some(table) = &mut *self.table.write().unwrap_or_else(PoisonError::into_inner) {
            table.remove(id);
        }
    }

    /// What a secret opens at `now`; `Err` while the keys are not loaded.
    pub(crate) fn find(&self, digest: &KeyDigest, now: Timestamp) -> Result<Option<Credential>, NotLoaded> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let table = table.as_ref().ok_or(NotLoaded)?;
        let Some(entry) = table
            .by_digest
            .get(digest)
            .filter(|entry| entry.opens(digest, now))
        else {
            return Ok(None);
        };
        entry.used.fetch_max(now.as_millis(), Ordering::Relaxed);
        Ok(Some(entry.credential.clone()))
    }

    /// When a key was last used, as far as this process knows.
    pub(crate) fn last_used(&self, id: &KeyId) -> Option<Timestamp> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let used = table.as_ref()?.by_id.get(id)?.used.load(Ordering::Relaxed);
        (used != NEVER).then_some(Timestamp(used))
    }

    /// The uses that the store does not know yet.
    pub(crate) fn unnoted(&self) -> Vec<(KeyId, Timestamp)> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let entries = table.iter().flat_map(|table| table.by_id.values());
        entries
            .filter_map(|entry| {
                let used = entry.used.load(Ordering::Relaxed);
                (used > entry.noted.load(Ordering::Relaxed))
                    .then(|| (entry.credential.key.clone(), Timestamp(used)))
            })
            .collect()
    }

    /// The store knows these now.
    pub(crate) fn noted(&self, uses: &[(KeyId, Timestamp)]) {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let Some(table) = table.as_ref() else { return };
        for (id, at) in uses {
            if let Some(entry) = table.by_id.get(id) {
                entry.noted.fetch_max(at.as_millis(), Ordering::Relaxed);
            }
        }
    }
}

/// The keys have not been loaded yet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotLoaded;

#[cfg(test)]
mod tests {
    use oma_domain::ApiKey;

    use super::*;

    const A: KeyDigest = KeyDigest([1; 32]);
    const B: KeyDigest = KeyDigest([2; 32]);

    fn stored(digest: KeyDigest, previous: Option<(KeyDigest, i64)>, expires_at: Option<i64>) -> StoredKey {
        StoredKey {
            key: ApiKey {
                id: KeyId::parse("key_1").expect("an id"),
                workspace: WorkspaceId::default_workspace(),
                name: "ci".into(),
                scope: Scope::Write,
                environment: None,
                budget: oma_domain::quota::Monthly::default(),
                created_at: Timestamp(0),
                rotated_at: None,
                previous_until: previous.map(|(_, until)| Timestamp(until)),
                expires_at: expires_at.map(Timestamp),
                revoked_at: None,
                last_used_at: None,
            },
            digest,
            previous: previous.map(|(digest, _)| digest),
        }
    }

    fn opens(index: &Index, digest: KeyDigest, now: i64) -> bool {
        index.find(&digest, Timestamp(now)).expect("loaded").is_some()
    }

    #[test]
    fn nobody_is_refused_before_the_keys_are_loaded() {
        let index = Index::default();
        assert_eq!(index.find(&A, Timestamp(0)), Err(NotLoaded));
        index.fill(&[]);
        assert_eq!(index.find(&A, Timestamp(0)), Ok(None));
    }

    #[test]
    fn expiry_rotation_and_revocation() {
        let index = Index::default();
        index.fill(&[stored(A, None, Some(10))]);
        assert!(opens(&index, A, 9) && !opens(&index, A, 10) && !opens(&index, B, 0));
        index.put(&stored(B, Some((A, 5)), Some(10)));
        assert!(opens(&index, A, 4) && !opens(&index, A, 5));
        assert!(opens(&index, B, 9) && !opens(&index, B, 10));
        index.put(&stored(A, None, None));
        assert!(
            !opens(&index, B, 0),
            "the secret before the last rotation is gone"
        );
        index.remove(&KeyId::parse("key_1").expect("an id"));
        assert!(!opens(&index, A, 0));
    }

    #[test]
    fn uses_are_noted_once() {
        let index = Index::default();
        index.fill(&[stored(A, None, None)]);
        assert!(index.unnoted().is_empty());
        assert!(opens(&index, A, 7));
        let uses = index.unnoted();
        assert_eq!(uses.len(), 1);
        index.noted(&uses);
        assert!(index.unnoted().is_empty());
        assert!(opens(&index, A, 8));
        index.put(&stored(B, None, None));
        assert_eq!(index.unnoted()[0].1, Timestamp(8), "a rotation forgets no use");
    }
}
