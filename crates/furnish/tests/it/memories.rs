//! Copies of memory stores: brought, compared, taken back, also by a server that was started anew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use oma_domain::memory::{Access, Attachment, Content, Item, MemoryStore, Path, StoreSpec};
use oma_domain::{Actor, MemoryId, MemoryStoreId, MemoryVersionId, SessionId, Timestamp, WorkspaceId};
use oma_furnish::Memories;
use oma_sandbox::files::{Entry, Error as FileError, Workspace};
use oma_sandbox::mounts::{Furnish as _, Place};
use oma_sandbox::{Attached, Error, Provider, Spec};
use oma_store::Store;
use oma_store::contract::fixtures::{NOW, agent, new_session};
use oma_store::memories::{Change, Edit, MemoryFilter, NewMemory, Removal, VersionFilter};
use oma_store::sqlite::{Options, Sqlite};
use tempfile::TempDir;

/// Files with the times of their last changes, and the newest of these.
type Files = (BTreeMap<String, (Bytes, f64)>, f64);

/// Files in memory, each with a time that only grows.
#[derive(Default)]
pub(crate) struct Folder(Mutex<Files>);

impl Folder {
    fn put(&self, path: &str, text: impl Into<Bytes>) {
        let mut held = self.0.lock().unwrap();
        held.1 += 1.0;
        let at = held.1;
        held.0.insert(path.to_owned(), (text.into(), at));
    }

    fn text(&self, path: &str) -> Option<String> {
        let held = self.0.lock().unwrap();
        let found = held.0.get(path);
        found.map(|(bytes, _)| String::from_utf8_lossy(bytes).into_owned())
    }

    fn take(&self, path: &str) {
        self.0.lock().unwrap().0.remove(path);
    }
}

#[async_trait]
impl Workspace for Folder {
    async fn list(&self, path: &str, limit: usize) -> Result<Vec<Entry>, FileError> {
        let held = self.0.lock().unwrap();
        let prefix = if path.is_empty() {
            String::new()
        } else {
            format!("{path}/")
        };
        let mut found: BTreeMap<String, Entry> = BTreeMap::new();
        for (full, (bytes, at)) in &held.0 {
            let Some(rest) = full.strip_prefix(&prefix) else {
                continue;
            };
            let (name, is_dir) = match rest.split_once('/') {
                Some((name, _)) => (name, true),
                None => (rest, false),
            };
            let entry = Entry {
                name: name.to_owned(),
                path: format!("{prefix}{name}"),
                is_dir,
                size: bytes.len() as u64,
                mtime_ms: *at,
            };
            found.entry(name.to_owned()).or_insert(entry);
        }
        Ok(found.into_values().take(limit).collect())
    }

    async fn read(&self, path: &str, max: u64) -> Result<Bytes, FileError> {
        let held = self.0.lock().unwrap();
        let (bytes, _) = held.0.get(path).ok_or(FileError::NotFound)?;
        if bytes.len() as u64 > max {
            return Err(FileError::TooLarge(max));
        }
        Ok(bytes.clone())
    }

    async fn write(&self, path: &str, bytes: Bytes) -> Result<(), FileError> {
        self.put(path, bytes);
        Ok(())
    }

    async fn write_program(&self, path: &str, bytes: Bytes) -> Result<(), FileError> {
        self.write(path, bytes).await
    }

    async fn open(&self, _: &str) -> Result<std::fs::File, FileError> {
        Err(FileError::NotFound)
    }

    async fn place(&self, _: &str, _: std::fs::File) -> Result<(), FileError> {
        Err(FileError::NotFound)
    }

    async fn remove(&self, path: &str) -> Result<(), FileError> {
        self.take(path);
        Ok(())
    }
}

/// A backend that has nothing but the one folder.
pub(crate) struct Backend(pub(crate) Arc<Folder>);

#[async_trait]
impl Provider for Backend {
    fn name(&self) -> &'static str {
        "test"
    }

    async fn attach_fitted(
        &self,
        _: &Spec,
        _: Arc<dyn oma_sandbox::fittings::Fit>,
    ) -> Result<Attached, Error> {
        Err(Error::Refused("no sandboxes".into()))
    }

    async fn reattach(&self, _: &SessionId) -> Result<Option<Attached>, Error> {
        Ok(None)
    }

    fn survivors(&self) -> Vec<SessionId> {
        Vec::new()
    }

    async fn stop(&self, _: &SessionId) -> Result<(), Error> {
        Ok(())
    }

    async fn retire(&self, _: &SessionId) -> Result<bool, Error> {
        Ok(true)
    }

    async fn destroy(&self, _: &SessionId) -> Result<(), Error> {
        Ok(())
    }

    async fn inventory(&self) -> Result<Vec<SessionId>, Error> {
        Ok(Vec::new())
    }

    async fn workspace(&self, _: &SessionId) -> Result<Arc<dyn Workspace>, Error> {
        Ok(Arc::clone(&self.0) as Arc<dyn Workspace>)
    }

    async fn mount(&self, _: &SessionId, place: &Place) -> Result<Arc<dyn Workspace>, Error> {
        assert!(matches!(place, Place::Memory { slug, .. } if slug.as_str() == "notes"));
        Ok(Arc::clone(&self.0) as Arc<dyn Workspace>)
    }
}

struct Test {
    store: Arc<dyn Store>,
    folder: Arc<Folder>,
    memories: Memories,
    spec: Spec,
    of: MemoryStore,
    attached: Vec<Attachment>,
    _data: TempDir,
}

impl Test {
    async fn start(access: Access) -> Self {
        let data = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(Sqlite::open(data.path(), &Options::default()).unwrap());
        let workspace = WorkspaceId::generate();
        let of = MemoryStore {
            id: MemoryStoreId::generate(),
            workspace: workspace.clone(),
            spec: StoreSpec {
                name: "notes".into(),
                description: String::new(),
                metadata: BTreeMap::new(),
            },
            created_at: NOW,
            updated_at: NOW,
            archived_at: None,
        };
        store.create_memory_store(&of, 100, None).await.unwrap();
        let attached = vec![Attachment {
            store: of.id.clone(),
            access,
            instructions: None,
            name: "notes".into(),
            description: String::new(),
            folder: "notes".into(),
        }];
        let agent = Arc::new(agent(&workspace));
        let mut session = new_session(&workspace, &agent);
        session.memories = attached.clone();
        store.create_session(&session, None).await.unwrap();
        let folder = Arc::new(Folder::default());
        Self {
            memories: Memories::new(Arc::clone(&store), Arc::new(Backend(Arc::clone(&folder)))),
            store,
            folder,
            spec: Spec {
                session: session.id,
                workspace,
            },
            of,
            attached,
            _data: data,
        }
    }

    /// Another server over the same data.
    fn restart(&mut self) {
        self.memories = Memories::new(
            Arc::clone(&self.store),
            Arc::new(Backend(Arc::clone(&self.folder))),
        );
    }

    async fn furnish(&self) {
        self.memories.furnish(&self.spec).await.unwrap();
    }

    async fn collect(&self) -> Vec<String> {
        self.memories.collect(&self.spec, &self.attached).await
    }

    fn change(&self) -> Change {
        Change {
            workspace: self.spec.workspace.clone(),
            store: self.of.id.clone(),
            author: Actor::Local,
            at: Timestamp(NOW.0 + 1),
        }
    }

    /// Somebody else creates or changes a memory.
    async fn theirs(&self, path: &str, text: &str) {
        let path = Path::parse(path).unwrap();
        let content = Content::new(text.into()).unwrap();
        match self.find(path.as_str()).await {
            Some(id) => {
                let edit = Edit {
                    id,
                    version: MemoryVersionId::generate(),
                    path: None,
                    content: Some(content),
                    expected: None,
                };
                self.store.update_memory(&self.change(), &edit).await.unwrap();
            }
            None => {
                let new = NewMemory {
                    id: MemoryId::generate(),
                    version: MemoryVersionId::generate(),
                    path,
                    content,
                };
                self.store
                    .create_memory(&self.change(), &new, None)
                    .await
                    .unwrap();
            }
        }
    }

    async fn remove(&self, path: &str) {
        let removal = Removal {
            id: self.find(path).await.unwrap(),
            version: MemoryVersionId::generate(),
            expected: None,
        };
        self.store.delete_memory(&self.change(), &removal).await.unwrap();
    }

    async fn find(&self, path: &str) -> Option<MemoryId> {
        self.items().await.into_iter().find_map(|item| match item {
            Item::Memory(memory) if memory.path.as_str() == path => Some(memory.id),
            _ => None,
        })
    }

    async fn items(&self) -> Vec<Item> {
        let filter = MemoryFilter {
            contents: true,
            ..MemoryFilter::default()
        };
        let page = self
            .store
            .memories(&self.spec.workspace, &self.of.id, &filter, None, 1000);
        page.await.unwrap().rows
    }

    async fn stored(&self) -> Vec<(String, String)> {
        let texts = self.items().await.into_iter().filter_map(|item| match item {
            Item::Memory(memory) => Some((memory.path.to_string(), memory.content?)),
            Item::Folder(_) => None,
        });
        texts.collect()
    }

    /// How many versions the session has made.
    async fn versions(&self) -> usize {
        let filter = VersionFilter {
            author: Some(format!("session:{}", self.spec.session)),
            ..VersionFilter::default()
        };
        let page = self
            .store
            .memory_versions(&self.spec.workspace, &self.of.id, &filter, None, 1000);
        page.await.unwrap().rows.len()
    }
}

fn texts(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
    pairs.iter().map(owned).collect()
}

#[tokio::test]
async fn what_each_side_changes_reaches_the_other() {
    let test = Test::start(Access::ReadWrite).await;
    test.theirs("/a/b", "1").await;
    test.theirs("/gone", "1").await;
    test.furnish().await;
    assert_eq!(test.folder.text("a/b").as_deref(), Some("1"));
    assert!(test.collect().await.is_empty());
    assert_eq!(test.versions().await, 0);

    test.folder.put("a/b", "2");
    test.folder.put("new", "n");
    test.folder.take("gone");
    assert!(test.collect().await.is_empty());
    assert_eq!(test.stored().await, texts(&[("/a/b", "2"), ("/new", "n")]));
    assert_eq!(test.versions().await, 3);
    assert!(test.collect().await.is_empty());
    assert_eq!(test.versions().await, 3, "nothing is taken back twice");

    test.theirs("/a/b", "3").await;
    test.remove("/new").await;
    test.furnish().await;
    assert_eq!(
        (test.folder.text("a/b").as_deref(), test.folder.text("new")),
        (Some("3"), None)
    );
    assert!(test.collect().await.is_empty());
    assert_eq!(test.versions().await, 3, "what others did is not the session's");
}

#[tokio::test]
async fn conflicts_are_told() {
    let test = Test::start(Access::ReadWrite).await;
    test.theirs("/both", "1").await;
    test.theirs("/kept", "1").await;
    test.furnish().await;
    test.theirs("/both", "theirs").await;
    test.theirs("/kept", "theirs").await;
    test.folder.put("both", "ours");
    test.folder.take("kept");
    test.folder.put("large", vec![b'x'; 102_401]);
    test.folder.put("binary", vec![0xff, 0xfe]);
    test.folder.put("bad\u{200b}name", "x");
    let told = test.collect().await;
    for (path, problem) in [
        ("/mnt/memory/notes/both ", "Your text is the one"),
        ("/mnt/memory/notes/kept ", "was not removed"),
        ("/mnt/memory/notes/large ", "more than 102400 bytes"),
        ("/mnt/memory/notes/binary ", "UTF-8"),
        ("/mnt/memory/notes/bad", "its path must have no"),
    ] {
        assert!(
            told.iter()
                .any(|note| note.starts_with(path) && note.contains(problem)),
            "{path}: {told:?}"
        );
    }
    assert_eq!(told.len(), 5);
    assert_eq!(
        test.stored().await,
        texts(&[("/both", "ours"), ("/kept", "theirs")])
    );
    assert!(test.collect().await.is_empty(), "it is told once");
    test.furnish().await;
    assert_eq!(test.folder.text("kept").as_deref(), Some("theirs"));
    // What was refused stays where it is, until it can be taken.
    assert!(test.folder.text("large").is_some());
    test.folder.put("large", "short");
    assert!(test.collect().await.is_empty());
    assert!(test.find("/large").await.is_some());
}

#[tokio::test]
async fn a_restart_finds_what_was_written_before() {
    let mut test = Test::start(Access::ReadWrite).await;
    test.theirs("/changed", "1").await;
    test.theirs("/removed", "1").await;
    test.theirs("/same", "1").await;
    test.furnish().await;
    test.folder.put("changed", "2");
    test.folder.put("made", "m");
    test.folder.take("removed");
    // Nobody has collected it when the server dies, and others go on.
    test.theirs("/same", "theirs").await;
    test.restart();
    test.furnish().await;
    let now = texts(&[("/changed", "2"), ("/made", "m"), ("/same", "theirs")]);
    assert_eq!(test.stored().await, now);
    assert_eq!(test.folder.text("same").as_deref(), Some("theirs"));
    assert_eq!(test.versions().await, 3);
    test.restart();
    test.furnish().await;
    assert!(test.collect().await.is_empty());
    assert_eq!((test.stored().await, test.versions().await), (now, 3));
}

#[tokio::test]
async fn a_store_that_is_gone_is_told_once() {
    let test = Test::start(Access::ReadWrite).await;
    test.furnish().await;
    let mut archived = test.of.clone();
    archived.archived_at = Some(NOW);
    test.store.update_memory_store(&test.of, &archived).await.unwrap();
    test.folder.put("a", "1");
    assert_eq!(
        test.collect().await,
        ["/mnt/memory/notes is archived: changes to it are not kept."]
    );
    test.furnish().await;
    test.folder.put("b", "1");
    assert!(test.collect().await.is_empty());
    let (workspace, id) = (&test.spec.workspace, &test.of.id);
    test.store.delete_memory_store(workspace, id).await.unwrap();
    test.furnish().await;
    test.folder.put("c", "1");
    assert_eq!(
        test.collect().await,
        ["/mnt/memory/notes was deleted: changes to it are not kept."]
    );
}

#[tokio::test]
async fn what_may_only_be_read_is_never_taken_back() {
    let test = Test::start(Access::ReadOnly).await;
    test.theirs("/a", "1").await;
    test.furnish().await;
    test.folder.put("a", "2");
    test.folder.put("b", "1");
    assert!(test.collect().await.is_empty());
    assert_eq!(test.stored().await, texts(&[("/a", "1")]));
}
