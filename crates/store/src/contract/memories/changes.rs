//! Changes of memories, and where they may be.

use std::sync::Arc;

use oma_domain::memory::{Memory, Operation, Path, Sha};
use oma_domain::{Actor, KeyId, Timestamp};

use super::{change, content, edit, new, path, put, removal, stored};
use crate::contract::fixtures::{NOW, once};
use crate::memories::{Change, Edit, Removal, VersionFilter};
use crate::{Error, Store, assert_refused};

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
