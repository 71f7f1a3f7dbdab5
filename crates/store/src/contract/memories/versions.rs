//! Versions of memories.

use std::sync::Arc;

use oma_domain::memory::Operation;
use oma_domain::{Actor, KeyId, MemoryVersionId, Timestamp};

use super::{change, content, edit, new, put, removal, stored};
use crate::contract::fixtures::{NOW, collect};
use crate::memories::{Change, Edit, VersionFilter};
use crate::{Error, Span, Store, assert_refused};

/// Versions are found by what they are about, redacted, and forgotten some time after they were superseded.
pub async fn versions(store: Arc<dyn Store>) {
    let (workspace, of) = stored(&store).await;
    let key = KeyId::generate();
    let by_key = change(&of, Actor::Key(key.clone()));
    let first = store.create_memory(&by_key, &new("/a", "1"), None).await.unwrap();
    let other = put(&store, &of, "/b", "2").await;
    let later = Change {
        at: Timestamp(NOW.0 + 10),
        ..by_key.clone()
    };
    let edited = Edit {
        content: Some(content("3")),
        ..edit(&first)
    };
    store.update_memory(&later, &edited).await.unwrap();
    let removed = removal(&other);
    store.delete_memory(&later, &removed).await.unwrap();

    let list = async |filter: VersionFilter| {
        let all = collect(|after: Option<MemoryVersionId>| {
            let (store, workspace, of, filter) = (&store, &workspace, &of, filter.clone());
            async move {
                store
                    .memory_versions(workspace, &of.id, &filter, after.as_ref(), 1)
                    .await
            }
        });
        all.await
            .into_iter()
            .map(|version| version.id)
            .collect::<Vec<_>>()
    };
    let all = VersionFilter::default;
    let (v1, v2, v3, v4) = (&first.version, &other.version, &edited.version, &removed.version);
    for (filter, expected) in [
        (all(), vec![v4, v3, v2, v1]),
        (
            VersionFilter {
                memory: Some(first.id.clone()),
                ..all()
            },
            vec![v3, v1],
        ),
        (
            VersionFilter {
                operation: Some(Operation::Created),
                ..all()
            },
            vec![v2, v1],
        ),
        (
            VersionFilter {
                author: Some(by_key.author.to_string()),
                ..all()
            },
            vec![v4, v3, v1],
        ),
        (
            VersionFilter {
                memory: Some(other.id.clone()),
                author: Some("local".into()),
                operation: Some(Operation::Created),
                ..all()
            },
            vec![v2],
        ),
        (
            VersionFilter {
                created: Span {
                    from: Some(later.at),
                    until: None,
                },
                ..all()
            },
            vec![v4, v3],
        ),
        (
            VersionFilter {
                author: Some("key:nobody".into()),
                ..all()
            },
            vec![],
        ),
    ] {
        assert_eq!(
            list(filter.clone()).await,
            expected.into_iter().cloned().collect::<Vec<_>>(),
            "{filter:?}"
        );
    }

    assert_refused!(store.redact_memory_version(&later, v3).await, Error::Conflict);
    let redacted = store.redact_memory_version(&later, v1).await.unwrap();
    assert_eq!(
        (redacted.path.as_ref(), redacted.digest, redacted.content.as_ref()),
        (None, None, None)
    );
    assert_eq!(redacted.redacted, Some((later.at, by_key.author.clone())));
    let again = Change {
        at: Timestamp(NOW.0 + 99),
        author: Actor::Operator,
        ..later.clone()
    };
    assert_eq!(store.redact_memory_version(&again, v1).await.unwrap(), redacted);
    assert_refused!(
        store
            .redact_memory_version(&later, &MemoryVersionId::generate())
            .await,
        Error::NotFound
    );

    // Other cases share this store, and all of them write at about the same time.
    store.forget_memory_versions(NOW).await.unwrap();
    assert_eq!(list(all()).await.len(), 4);
    assert!(store.forget_memory_versions(Timestamp(NOW.0 + 11)).await.unwrap() >= 3);
    assert_eq!(list(all()).await, std::slice::from_ref(v3));
}
