//! Memory stores, memories and their versions.

mod changes;
mod copies;
mod lists;
mod stores;
mod versions;

use std::sync::Arc;

pub use changes::{changes, obstacles};
pub use copies::{copies, write_back};
pub use lists::{bound, lists};
pub use stores::{archived, isolation, stores};
pub use versions::versions;

use oma_domain::memory::{Content, Item, Memory, MemoryStore, Path, Sha, StoreSpec};
use oma_domain::{Actor, MemoryId, MemoryStoreId, MemoryVersionId, WorkspaceId};

use super::fixtures::{NOW, collect};
use crate::Store;
use crate::memories::{Change, Edit, MemoryFilter, NewMemory, Removal, Written};

fn memory_store(workspace: &WorkspaceId) -> MemoryStore {
    MemoryStore {
        id: MemoryStoreId::generate(),
        workspace: workspace.clone(),
        spec: StoreSpec {
            name: "Ёлка's".into(),
            description: "what \"we\" know".into(),
            metadata: [("a".to_owned(), "ü".to_owned())].into(),
        },
        created_at: NOW,
        updated_at: NOW,
        archived_at: None,
    }
}

async fn stored(store: &Arc<dyn Store>) -> (WorkspaceId, MemoryStore) {
    let workspace = WorkspaceId::generate();
    let made = memory_store(&workspace);
    store.create_memory_store(&made, 100, None).await.unwrap();
    (workspace, made)
}

fn change(store: &MemoryStore, author: Actor) -> Change {
    Change {
        workspace: store.workspace.clone(),
        store: store.id.clone(),
        author,
        at: NOW,
    }
}

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn content(text: &str) -> Content {
    Content::new(text.to_owned()).unwrap()
}

fn new(at: &str, text: &str) -> NewMemory {
    NewMemory {
        id: MemoryId::generate(),
        version: MemoryVersionId::generate(),
        path: path(at),
        content: content(text),
    }
}

fn edit(memory: &Memory) -> Edit {
    Edit {
        id: memory.id.clone(),
        version: MemoryVersionId::generate(),
        path: None,
        content: None,
        expected: None,
    }
}

fn removal(memory: &Memory) -> Removal {
    Removal {
        id: memory.id.clone(),
        version: MemoryVersionId::generate(),
        expected: None,
    }
}

async fn put(store: &Arc<dyn Store>, of: &MemoryStore, at: &str, text: &str) -> Memory {
    store
        .create_memory(&change(of, Actor::Local), &new(at, text), None)
        .await
        .unwrap()
}

async fn items(store: &Arc<dyn Store>, of: &MemoryStore, filter: &MemoryFilter, limit: u32) -> Vec<Item> {
    collect(|after: Option<String>| async move {
        store
            .memories(&of.workspace, &of.id, filter, after.as_deref(), limit)
            .await
    })
    .await
}

fn written(at: &str, base: Option<&str>, now: Option<&str>) -> Written {
    Written {
        id: MemoryId::generate(),
        version: MemoryVersionId::generate(),
        path: path(at),
        base: base.map(|text| Sha::of(text.as_bytes())),
        content: now.map(content),
    }
}
