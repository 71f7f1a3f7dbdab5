//! Memory stores, memories and their versions.

use std::sync::Arc;

use oma_domain::memory::{
    Content, Item, MAX_MEMORIES, Memory, MemoryStore, Operation, Path, Prefix, Sha, StoreSpec,
};
use oma_domain::page::Order;
use oma_domain::{Actor, KeyId, MemoryId, MemoryStoreId, MemoryVersionId, SessionId, Timestamp, WorkspaceId};

use super::fixtures::{NOW, collect, once};
use crate::memories::{Change, Edit, MemoryFilter, NewMemory, Outcome, Removal, VersionFilter, Written};
use crate::{Error, ListFilter, Span, Store, assert_refused};

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

/// Memories are created, read, changed and removed, each time with a version.
pub async fn changes(store: Arc<dyn Store>) {
    let (workspace, of) = stored(&store).await;
    let by = change(&of, Actor::Key(KeyId::generate()));
    let first = new("/notes/a.md", "eins");
    let mark = once("memory.create", "k");
    let made = store.create_memory(&by, &first, Some(&mark)).await.unwrap();
    assert_refused!(
        store.create_memory(&by, &first, Some(&mark)).await,
        Error::AlreadyDone(_)
    );
    assert_eq!(
        made,
        Memory {
            id: first.id.clone(),
            store: of.id.clone(),
            version: first.version.clone(),
            path: first.path.clone(),
            sha: Sha::of(b"eins"),
            size: 4,
            content: Some("eins".into()),
            created_at: NOW,
            updated_at: NOW,
        }
    );
    let read = |content| store.memory(&workspace, &of.id, &first.id, content);
    assert_eq!(read(true).await.unwrap(), Some(made.clone()));
    assert_eq!(read(false).await.unwrap().unwrap().content, None);

    // Nothing to change makes no version.
    let nothing = edit(&made);
    assert_eq!(store.update_memory(&by, &nothing).await.unwrap(), made);
    let same = Edit {
        content: Some(content("eins")),
        path: Some(first.path.clone()),
        ..edit(&made)
    };
    assert_eq!(store.update_memory(&by, &same).await.unwrap(), made);
    // What is expected counts, unless all is as it is to be.
    let wrong = Some(Sha::of(b"zwei"));
    let stale = Edit {
        content: Some(content("drei")),
        expected: wrong,
        ..edit(&made)
    };
    assert_refused!(store.update_memory(&by, &stale).await, Error::Unexpected);
    let repeated = Edit {
        expected: wrong,
        ..same.clone()
    };
    assert_eq!(store.update_memory(&by, &repeated).await.unwrap(), made);
    let empty = Edit {
        expected: wrong,
        ..edit(&made)
    };
    assert_refused!(store.update_memory(&by, &empty).await, Error::Unexpected);

    let later = Change {
        at: Timestamp(NOW.0 + 5),
        author: Actor::Operator,
        ..by.clone()
    };
    let moved = Edit {
        path: Some(path("/b")),
        content: Some(content("zwei")),
        expected: Some(made.sha),
        ..edit(&made)
    };
    let moved_to = store.update_memory(&later, &moved).await.unwrap();
    assert_eq!(
        (
            &moved_to.id,
            &moved_to.version,
            moved_to.path.as_str(),
            moved_to.updated_at
        ),
        (&first.id, &moved.version, "/b", later.at)
    );
    assert_eq!(moved_to.created_at, NOW);

    let gone = Removal {
        expected: wrong.map(|_| made.sha),
        ..removal(&made)
    };
    assert_refused!(store.delete_memory(&later, &gone).await, Error::Unexpected);
    let gone = Removal {
        expected: Some(moved_to.sha),
        ..removal(&made)
    };
    store.delete_memory(&later, &gone).await.unwrap();
    assert_refused!(store.delete_memory(&later, &gone).await, Error::NotFound);
    assert_refused!(store.update_memory(&later, &nothing).await, Error::NotFound);
    assert_eq!(read(true).await.unwrap(), None);

    let filter = VersionFilter {
        contents: true,
        ..VersionFilter::default()
    };
    let versions = store
        .memory_versions(&workspace, &of.id, &filter, None, 10)
        .await
        .unwrap()
        .rows;
    let told: Vec<_> = versions
        .iter()
        .map(|version| {
            let path = version.path.as_ref().map(Path::as_str);
            (
                &version.id,
                version.operation,
                path,
                version.content.as_deref(),
                &version.author,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (
                &gone.version,
                Operation::Deleted,
                Some("/b"),
                None,
                &Actor::Operator
            ),
            (
                &moved.version,
                Operation::Modified,
                Some("/b"),
                Some("zwei"),
                &Actor::Operator
            ),
            (
                &first.version,
                Operation::Created,
                Some("/notes/a.md"),
                Some("eins"),
                &by.author
            ),
        ]
    );
    assert_eq!(versions[0].digest, None);
    assert_eq!(versions[1].digest, Some((Sha::of(b"zwei"), 4)));
    assert!(versions.iter().all(|version| version.memory == first.id));
}

/// A memory is not where another one is, nor above or below it.
pub async fn obstacles(store: Arc<dyn Store>) {
    let (_, of) = stored(&store).await;
    let by = change(&of, Actor::Local);
    let deep = put(&store, &of, "/a/b/c", "").await;
    let aside = put(&store, &of, "/a/b.md", "").await;
    for taken in ["/a/b/c", "/a/b", "/a", "/a/b/c/d", "/a/b/c/d/e"] {
        let refused = store.create_memory(&by, &new(taken, ""), None).await;
        assert!(
            matches!(
                &refused,
                Err(Error::PathTaken { memory, .. })
                    if *memory == deep.id || (taken == "/a" && *memory == aside.id)
            ),
            "{taken}: {refused:?}"
        );
        if taken != "/a/b/c" {
            continue;
        }
        let onto = Edit {
            path: Some(path(taken)),
            ..edit(&aside)
        };
        assert_refused!(store.update_memory(&by, &onto).await, Error::PathTaken { .. });
    }
    // It is not in its own way.
    let down = Edit {
        path: Some(path("/a/b.md/x")),
        ..edit(&aside)
    };
    let moved = store.update_memory(&by, &down).await.unwrap();
    let up = Edit {
        path: Some(path("/a/b.md")),
        ..edit(&moved)
    };
    store.update_memory(&by, &up).await.unwrap();
    for free in ["/a/b-c", "/a/b0", "/A", "/a/bb"] {
        put(&store, &of, free, "").await;
    }
}

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

fn written(at: &str, base: Option<&str>, now: Option<&str>) -> Written {
    Written {
        id: MemoryId::generate(),
        version: MemoryVersionId::generate(),
        path: path(at),
        base: base.map(|text| Sha::of(text.as_bytes())),
        content: now.map(content),
    }
}

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
    let agent = Arc::new(super::fixtures::agent(&workspace));
    let mut session = super::fixtures::new_session(&workspace, &agent);
    session.memories = vec![oma_domain::memory::Attachment {
        store: of.id.clone(),
        access: oma_domain::memory::Access::ReadWrite,
        instructions: Some("look".into()),
        name: of.spec.name.clone(),
        description: String::new(),
        folder: "notes".into(),
    }];
    store.create_session(&session, None).await.unwrap();
    let found = store.session(&workspace, &session.id).await.unwrap().unwrap();
    assert_eq!(found.memories, session.memories);
    let other = super::fixtures::new_session(&workspace, &agent);
    store.create_session(&other, None).await.unwrap();
    for (id, count) in [(&of.id, 1), (&MemoryStoreId::generate(), 0)] {
        let filter = crate::SessionFilter {
            memory_store: Some(id.clone()),
            ..crate::SessionFilter::default()
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
