//! Lists of memories, and how many a store takes.

use std::sync::Arc;

use oma_domain::memory::{Item, MAX_MEMORIES, Prefix};
use oma_domain::{Actor, SessionId};

use super::{change, items, new, put, stored, written};
use crate::memories::{MemoryFilter, Outcome, Written};
use crate::{Error, Store, assert_refused};

/// Lists by path, below a folder, as a whole or rolled up, at every size of page.
pub async fn lists(store: Arc<dyn Store>) {
    let (_, of) = stored(&store).await;
    let paths = ["/a-b", "/a/b", "/a/c/d", "/a/c/e", "/a0", "/b", "/c/x", "/ü/y"];
    for text in paths {
        put(&store, &of, text, text).await;
    }
    for limit in [1, 2, 3, 100] {
        let list = async |prefix: &str, rolled_up| {
            let filter = MemoryFilter {
                prefix: Prefix::parse(prefix).unwrap(),
                rolled_up,
                contents: false,
            };
            let found = items(&store, &of, &filter, limit).await;
            found
                .iter()
                .map(|item| item.path().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(list("/", false).await, paths);
        assert_eq!(list("/", true).await, ["/a-b", "/a/", "/a0", "/b", "/c/", "/ü/"]);
        assert_eq!(list("/a/", false).await, ["/a/b", "/a/c/d", "/a/c/e"]);
        assert_eq!(list("/a/", true).await, ["/a/b", "/a/c/"]);
        assert!(list("/b/", true).await.is_empty());
    }
    let filter = MemoryFilter {
        contents: true,
        ..MemoryFilter::default()
    };
    let found = items(&store, &of, &filter, 3).await;
    assert!(found.iter().all(
        |item| matches!(item, Item::Memory(memory) if memory.content.as_deref() == Some(memory.path.as_str()))
    ));
}

/// A store takes so many memories.
pub async fn bound(store: Arc<dyn Store>) {
    let (_, of) = stored(&store).await;
    let by = change(&of, Actor::Session(SessionId::generate()));
    let written: Vec<Written> = (0..=MAX_MEMORIES)
        .map(|number| written(&format!("/{number}"), None, Some("x")))
        .collect();
    let outcomes = store.write_back(&by, &written).await.unwrap();
    assert_eq!(outcomes.last(), Some(&Outcome::TooMany(MAX_MEMORIES)));
    assert!(
        outcomes[..MAX_MEMORIES as usize]
            .iter()
            .all(|outcome| *outcome == Outcome::Stored)
    );
    assert_refused!(
        store.create_memory(&by, &new("/more", ""), None).await,
        Error::TooMany(MAX_MEMORIES)
    );
}
