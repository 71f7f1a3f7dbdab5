//! Copies of memories in sessions, and what they write back.

use std::sync::Arc;

use oma_domain::memory::{Access, Attachment, Item, Sha};
use oma_domain::page::Order;
use oma_domain::{Actor, MemoryStoreId, SessionId, WorkspaceId};

use super::{change, items, path, put, stored, written};
use crate::contract::fixtures::{self, NOW};
use crate::memories::{MemoryFilter, Outcome, VersionFilter};
use crate::{Error, SessionFilter, Store, assert_refused};

/// What a session made of its copy is taken over, and doing it again changes nothing.
pub async fn write_back(store: Arc<dyn Store>) {
    let (workspace, of) = stored(&store).await;
    let by = change(&of, Actor::Session(SessionId::generate()));
    for (at, text) in [
        ("/same", "s"),
        ("/mine", "m"),
        ("/theirs", "t2"),
        ("/gone", "g"),
        ("/kept", "k2"),
        ("/dir", "d"),
    ] {
        put(&store, &of, at, text).await;
    }
    let theirs = items(&store, &of, &MemoryFilter::default(), 100).await;
    let version_of = |at: &str| {
        theirs.iter().find_map(|item| match item {
            Item::Memory(memory) if memory.path.as_str() == at => Some(memory.version.clone()),
            _ => None,
        })
    };
    let batch = [
        written("/dir/inside", None, Some("i")),
        written("/same", Some("old"), Some("s")),
        written("/mine", Some("m"), Some("m2")),
        written("/theirs", Some("t"), Some("t3")),
        written("/gone", Some("g"), None),
        written("/never", Some("n"), None),
        written("/kept", Some("k"), None),
        written("/dir", Some("d"), None),
        written("/mine/below", None, Some("x")),
    ];
    let outcomes = store.write_back(&by, &batch).await.unwrap();
    assert_eq!(
        outcomes,
        [
            Outcome::Stored,
            Outcome::Stored,
            Outcome::Stored,
            Outcome::Replaced(version_of("/theirs").unwrap()),
            Outcome::Stored,
            Outcome::Stored,
            Outcome::Kept,
            Outcome::Stored,
            Outcome::PathTaken(path("/mine")),
        ]
    );
    let filter = MemoryFilter {
        contents: true,
        ..MemoryFilter::default()
    };
    let now = items(&store, &of, &filter, 100).await;
    let told: Vec<_> = now
        .iter()
        .filter_map(|item| match item {
            Item::Memory(memory) => Some((memory.path.as_str(), memory.content.as_deref())),
            Item::Folder(_) => None,
        })
        .collect();
    assert_eq!(
        told,
        [
            ("/dir/inside", Some("i")),
            ("/kept", Some("k2")),
            ("/mine", Some("m2")),
            ("/same", Some("s")),
            ("/theirs", Some("t3")),
        ]
    );
    let by_it = VersionFilter {
        author: Some(by.author.to_string()),
        ..VersionFilter::default()
    };
    let count = async || {
        let page = store.memory_versions(&workspace, &of.id, &by_it, None, 100).await;
        page.unwrap().rows.len()
    };
    assert_eq!(count().await, 5);
    // A crash may have lost the answer.
    let again = store.write_back(&by, &batch[..6]).await.unwrap();
    assert!(
        again.iter().all(|outcome| *outcome == Outcome::Stored),
        "{again:?}"
    );
    assert_eq!(count().await, 5);
}

/// A session's copy is remembered, follows what it writes back, and goes with it or with the store.
pub async fn copies(store: Arc<dyn Store>) {
    let (workspace, of) = stored(&store).await;
    let agent = Arc::new(fixtures::agent(&workspace));
    let mut session = fixtures::new_session(&workspace, &agent);
    session.memories = vec![Attachment {
        store: of.id.clone(),
        access: Access::ReadWrite,
        instructions: Some("look".into()),
        name: of.spec.name.clone(),
        description: String::new(),
        folder: "notes".into(),
    }];
    store.create_session(&session, None).await.unwrap();
    let found = store.session(&workspace, &session.id).await.unwrap().unwrap();
    assert_eq!(found.memories, session.memories);
    let other = fixtures::new_session(&workspace, &agent);
    store.create_session(&other, None).await.unwrap();
    for (id, count) in [(&of.id, 1), (&MemoryStoreId::generate(), 0)] {
        let filter = SessionFilter {
            memory_store: Some(id.clone()),
            ..SessionFilter::default()
        };
        for order in [Order::Ascending, Order::Descending] {
            let page = store
                .sessions(&workspace, &filter, order, None, 10)
                .await
                .unwrap();
            assert_eq!(page.rows.len(), count);
        }
    }

    let revision = || store.memory_revision(&workspace, &of.id);
    let before = revision().await.unwrap();
    put(&store, &of, "/a", "1").await;
    assert!(revision().await.unwrap() > before);
    let elsewhere = store.memory_revision(&WorkspaceId::generate(), &of.id).await;
    assert_eq!(elsewhere.unwrap(), None);

    let copy = || store.memory_copy(&workspace, &session.id, &of.id);
    let one = Sha::of(b"1");
    let copied = [
        (path("/a"), Some(one)),
        (path("/b"), Some(one)),
        (path("/c"), None),
    ];
    store
        .copied_memories(&workspace, &session.id, &of.id, &copied)
        .await
        .unwrap();
    assert_eq!(copy().await.unwrap(), [(path("/a"), one), (path("/b"), one)]);
    let stranger = WorkspaceId::generate();
    assert_refused!(
        store
            .copied_memories(&stranger, &session.id, &of.id, &copied)
            .await,
        Error::NotFound
    );
    let by = change(&of, Actor::Session(session.id.clone()));
    let batch = [
        written("/a", Some("1"), Some("2")),
        written("/b", Some("1"), None),
        written("/a/x", None, Some("3")),
    ];
    store.write_back(&by, &batch).await.unwrap();
    assert_eq!(copy().await.unwrap(), [(path("/a"), Sha::of(b"2"))]);
    // What was taken away, and kept, is not in the copy any more.
    let batch = [written("/a", Some("1"), None)];
    assert_eq!(store.write_back(&by, &batch).await.unwrap(), [Outcome::Kept]);
    assert!(copy().await.unwrap().is_empty());

    store
        .copied_memories(&workspace, &session.id, &of.id, &copied)
        .await
        .unwrap();
    store.delete_session(&workspace, &session.id).await.unwrap();
    assert!(copy().await.unwrap().is_empty());

    // Neither an archived store nor one that is gone can be had by a new session.
    let mut archived = of.clone();
    archived.archived_at = Some(NOW);
    store.update_memory_store(&of, &archived).await.unwrap();
    session.id = SessionId::generate();
    assert_refused!(store.create_session(&session, None).await, Error::MemoryStoreGone);
    store.delete_memory_store(&workspace, &of.id).await.unwrap();
    assert_refused!(store.create_session(&session, None).await, Error::MemoryStoreGone);
}
