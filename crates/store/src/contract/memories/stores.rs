//! Memory stores: their life, the archive, and who sees them.

use std::sync::Arc;

use oma_domain::page::Order;
use oma_domain::{Actor, Timestamp, WorkspaceId};

use super::{change, edit, memory_store, new, put, removal, stored, written};
use crate::contract::fixtures::{NOW, once};
use crate::memories::{Change, MemoryFilter, VersionFilter};
use crate::{Error, ListFilter, Store, assert_refused};

/// Stores are written, listed, changed from what they were, and go with everything in them.
pub async fn stores(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let first = memory_store(&workspace);
    let mark = once("memory_store.create", "k");
    store.create_memory_store(&first, 100, Some(&mark)).await.unwrap();
    assert_refused!(
        store.create_memory_store(&first, 100, Some(&mark)).await,
        Error::AlreadyDone(_)
    );
    assert_refused!(
        store.create_memory_store(&first, 100, None).await,
        Error::Conflict
    );
    assert_eq!(
        store.memory_store(&workspace, &first.id).await.unwrap(),
        Some(first.clone())
    );
    let second = memory_store(&workspace);
    assert_refused!(
        store.create_memory_store(&second, 1, None).await,
        Error::TooMany(1)
    );
    store.create_memory_store(&second, 2, None).await.unwrap();

    let mut archived = first.clone();
    archived.spec.name = "other".into();
    archived.updated_at = Timestamp(NOW.0 + 1);
    archived.archived_at = Some(Timestamp(NOW.0 + 1));
    store.update_memory_store(&first, &archived).await.unwrap();
    assert_refused!(
        store.update_memory_store(&first, &archived).await,
        Error::Conflict
    );
    let gone = memory_store(&workspace);
    assert_refused!(store.update_memory_store(&gone, &gone).await, Error::NotFound);
    let list = async |filter: ListFilter, order| {
        let page = store.memory_stores(&workspace, &filter, order, None, 10).await;
        page.unwrap().rows
    };
    let active = ListFilter {
        only_active: true,
        ..ListFilter::default()
    };
    assert_eq!(
        list(active, Order::Descending).await,
        std::slice::from_ref(&second)
    );
    let all = ListFilter::default();
    assert_eq!(
        list(all, Order::Descending).await,
        [second.clone(), archived.clone()]
    );
    assert_refused!(
        store
            .memory_stores(&workspace, &all, Order::Ascending, Some(&gone.id), 10)
            .await,
        Error::NotFound
    );

    let memory = put(&store, &second, "/a", "b").await;
    assert!(store.delete_memory_store(&workspace, &second.id).await.unwrap());
    assert!(!store.delete_memory_store(&workspace, &second.id).await.unwrap());
    assert_eq!(store.memory_store(&workspace, &second.id).await.unwrap(), None);
    let found = store.memory(&workspace, &second.id, &memory.id, true).await;
    assert_eq!(found.unwrap(), None);
    let found = store
        .memory_version(&workspace, &second.id, &memory.version, true)
        .await;
    assert_eq!(found.unwrap(), None);
}

/// An archived store can be read, and memories can be taken out of it.
pub async fn archived(store: Arc<dyn Store>) {
    let (workspace, of) = stored(&store).await;
    let by = change(&of, Actor::Local);
    let memory = put(&store, &of, "/a", "1").await;
    let mut after = of.clone();
    after.archived_at = Some(NOW);
    store.update_memory_store(&of, &after).await.unwrap();
    assert_refused!(
        store.create_memory(&by, &new("/b", ""), None).await,
        Error::Archived
    );
    assert_refused!(store.update_memory(&by, &edit(&memory)).await, Error::Archived);
    assert_refused!(store.write_back(&by, &[]).await, Error::Archived);
    let found = store.memory(&workspace, &of.id, &memory.id, true).await;
    assert_eq!(found.unwrap(), Some(memory.clone()));
    store.delete_memory(&by, &removal(&memory)).await.unwrap();
    store.redact_memory_version(&by, &memory.version).await.unwrap();
}

/// Nothing of a workspace's stores is visible from another, or can be changed from there.
pub async fn isolation(store: Arc<dyn Store>) {
    let (workspace, of) = stored(&store).await;
    let memory = put(&store, &of, "/a", "1").await;
    let ours = WorkspaceId::generate();
    assert_eq!(store.memory_store(&ours, &of.id).await.unwrap(), None);
    assert!(!store.delete_memory_store(&ours, &of.id).await.unwrap());
    let found = store.memory(&ours, &of.id, &memory.id, true).await;
    assert_eq!(found.unwrap(), None);
    let found = store.memory_version(&ours, &of.id, &memory.version, true).await;
    assert_eq!(found.unwrap(), None);
    let all = MemoryFilter::default();
    let page = store.memories(&ours, &of.id, &all, None, 10).await.unwrap();
    assert!(page.rows.is_empty());
    let page = store
        .memory_versions(&ours, &of.id, &VersionFilter::default(), None, 10)
        .await
        .unwrap();
    assert!(page.rows.is_empty());
    let by = Change {
        workspace: ours.clone(),
        ..change(&of, Actor::Local)
    };
    assert_refused!(
        store.create_memory(&by, &new("/b", ""), None).await,
        Error::NotFound
    );
    assert_refused!(store.update_memory(&by, &edit(&memory)).await, Error::NotFound);
    assert_refused!(store.delete_memory(&by, &removal(&memory)).await, Error::NotFound);
    assert_refused!(
        store.write_back(&by, &[written("/a", Some("1"), None)]).await,
        Error::NotFound
    );
    assert_refused!(
        store.redact_memory_version(&by, &memory.version).await,
        Error::NotFound
    );
    // Nor through another store of the same workspace.
    let other = memory_store(&workspace);
    store.create_memory_store(&other, 100, None).await.unwrap();
    let found = store.memory(&workspace, &other.id, &memory.id, true).await;
    assert_eq!(found.unwrap(), None);
    let by = change(&other, Actor::Local);
    assert_refused!(store.update_memory(&by, &edit(&memory)).await, Error::NotFound);
    assert_refused!(store.delete_memory(&by, &removal(&memory)).await, Error::NotFound);
    assert_refused!(
        store.redact_memory_version(&by, &memory.version).await,
        Error::NotFound
    );
}
