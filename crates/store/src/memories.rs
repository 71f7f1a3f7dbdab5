//! Memory stores in the durable record.

use async_trait::async_trait;
use oma_domain::memory::{Content, Item, Memory, MemoryStore, Operation, Path, Prefix, Sha, Version};
use oma_domain::page::{Order, Page};
use oma_domain::{Actor, MemoryId, MemoryStoreId, MemoryVersionId, SessionId, Timestamp, WorkspaceId};

use crate::{ListFilter, Once, Result, Span};

/// Who changes a memory of which store, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Whose the store is.
    pub workspace: WorkspaceId,
    /// The store.
    pub store: MemoryStoreId,
    /// Who does it.
    pub author: Actor,
    /// Now.
    pub at: Timestamp,
}

/// A memory to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMemory {
    /// Its id.
    pub id: MemoryId,
    /// The id of its first version.
    pub version: MemoryVersionId,
    /// Where.
    pub path: Path,
    /// What it says.
    pub content: Content,
}

/// What to make of a memory. What is absent stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The memory.
    pub id: MemoryId,
    /// The id of the version that the change becomes.
    pub version: MemoryVersionId,
    /// Where it goes.
    pub path: Option<Path>,
    /// What it says from now on.
    pub content: Option<Content>,
    /// What its content must be beforehand.
    pub expected: Option<Sha>,
}

/// A memory to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// The memory.
    pub id: MemoryId,
    /// The id of the version that says so.
    pub version: MemoryVersionId,
    /// What its content must be beforehand.
    pub expected: Option<Sha>,
}

/// What a session made of a path in its copy of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The id of the memory, should there be none at the path yet.
    pub id: MemoryId,
    /// The id of the version that it becomes.
    pub version: MemoryVersionId,
    /// Where.
    pub path: Path,
    /// What the session knew to be there; `None` for nothing.
    pub base: Option<Sha>,
    /// What is there now; `None` when it was removed.
    pub content: Option<Content>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The store says the same now.
    Stored,
    /// The store says the same now. Somebody else had written this version since the session looked.
    Replaced(MemoryVersionId),
    /// It was removed, but somebody else has changed it since the session looked: it stays.
    Kept,
    /// Something else is at the path, or a folder of it.
    PathTaken(Path),
    /// There are as many memories as there may be.
    TooMany(u32),
}

/// Which memories to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemoryFilter {
    /// Only those below this folder.
    pub prefix: Prefix,
    /// Whether those in deeper folders are rolled up into these.
    pub rolled_up: bool,
    /// Whether with their contents.
    pub contents: bool,
}

/// Which versions to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VersionFilter {
    /// Only those of this memory.
    pub memory: Option<MemoryId>,
    /// Only those of this operation.
    pub operation: Option<Operation>,
    /// Only those by one of them, as [`Actor`] words it.
    pub author: Option<String>,
    /// Only those made then.
    pub created: Span,
    /// Whether with their contents.
    pub contents: bool,
}

/// Memory stores in the durable record. A store that is missing is [`Error::NotFound`](crate::Error::NotFound) wherever
/// something is written.
#[async_trait]
pub trait Memories: Send + Sync + 'static {
    /// Adds a store, as long as its workspace has less than `most`, archived ones included.
    ///
    /// # Errors
    /// [`Error::AlreadyDone`](crate::Error::AlreadyDone) when the key is taken;
    /// [`Error::Conflict`](crate::Error::Conflict) when the id is; [`Error::TooMany`](crate::Error::TooMany).
    async fn create_memory_store(&self, store: &MemoryStore, most: u32, once: Option<&Once>) -> Result<()>;
    /// A store.
    async fn memory_store(&self, workspace: &WorkspaceId, id: &MemoryStoreId) -> Result<Option<MemoryStore>>;
    /// Stores by creation.
    async fn memory_stores(
        &self,
        workspace: &WorkspaceId,
        filter: &ListFilter,
        order: Order,
        after: Option<&MemoryStoreId>,
        limit: u32,
    ) -> Result<Page<MemoryStore, MemoryStoreId>>;
    /// Puts a store in the place of `before`, which must be what is stored.
    ///
    /// # Errors
    /// [`Error::Conflict`](crate::Error::Conflict) when something else is stored by now.
    async fn update_memory_store(&self, before: &MemoryStore, after: &MemoryStore) -> Result<()>;
    /// Removes a store with its memories and their versions. Returns whether it was there.
    async fn delete_memory_store(&self, workspace: &WorkspaceId, id: &MemoryStoreId) -> Result<bool>;

    /// Adds a memory. It is returned with its content.
    ///
    /// # Errors
    /// [`Error::AlreadyDone`](crate::Error::AlreadyDone) when the key is taken;
    /// [`Error::Archived`](crate::Error::Archived); [`Error::PathTaken`](crate::Error::PathTaken);
    /// [`Error::TooMany`](crate::Error::TooMany).
    async fn create_memory(&self, change: &Change, new: &NewMemory, once: Option<&Once>) -> Result<Memory>;
    /// A memory.
    async fn memory(
        &self,
        workspace: &WorkspaceId,
        store: &MemoryStoreId,
        id: &MemoryId,
        content: bool,
    ) -> Result<Option<Memory>>;
    /// Memories by their paths, as bytes order them; `after` is a path of the page before, or what a folder's begin
    /// with. Empty when there is no such store.
    async fn memories(
        &self,
        workspace: &WorkspaceId,
        store: &MemoryStoreId,
        filter: &MemoryFilter,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<Item, String>>;
    /// Changes a memory. Nothing to change makes no version. It is returned with its content.
    ///
    /// # Errors
    /// [`Error::Archived`](crate::Error::Archived); [`Error::NotFound`](crate::Error::NotFound), also for the memory;
    /// [`Error::Unexpected`](crate::Error::Unexpected) when its content is not what it must be, unless it is just what
    /// it is to become; [`Error::PathTaken`](crate::Error::PathTaken).
    async fn update_memory(&self, change: &Change, edit: &Edit) -> Result<Memory>;
    /// Removes a memory; its versions stay. Archived stores allow that, too.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound), also for the memory;
    /// [`Error::Unexpected`](crate::Error::Unexpected).
    async fn delete_memory(&self, change: &Change, removal: &Removal) -> Result<()>;
    /// Takes over what a session made of its copy, all in one transaction: removals first, then the rest in order.
    /// The outcomes come in the order of `written`. If the author is a session, what its copy was counts as what it
    /// is now wherever the store says the same.
    ///
    /// # Errors
    /// [`Error::Archived`](crate::Error::Archived).
    async fn write_back(&self, change: &Change, written: &[Written]) -> Result<Vec<Outcome>>;

    /// Where a store stands: a number that grows with each change of a memory. `None` when there is no such store.
    async fn memory_revision(&self, workspace: &WorkspaceId, store: &MemoryStoreId) -> Result<Option<i64>>;
    /// What a session's copy of a store was when the two were last the same.
    async fn memory_copy(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        store: &MemoryStoreId,
    ) -> Result<Vec<(Path, Sha)>>;
    /// A session's copy has become like the store at these paths; where there is nothing, without a digest.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound), also for the session.
    async fn copied_memories(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        store: &MemoryStoreId,
        paths: &[(Path, Option<Sha>)],
    ) -> Result<()>;

    /// A version.
    async fn memory_version(
        &self,
        workspace: &WorkspaceId,
        store: &MemoryStoreId,
        id: &MemoryVersionId,
        content: bool,
    ) -> Result<Option<Version>>;
    /// Versions, newest first. Empty when there is no such store.
    async fn memory_versions(
        &self,
        workspace: &WorkspaceId,
        store: &MemoryStoreId,
        filter: &VersionFilter,
        after: Option<&MemoryVersionId>,
        limit: u32,
    ) -> Result<Page<Version, MemoryVersionId>>;
    /// Takes the content, its digest and the path out of a version, for good. Doing it again keeps the first time.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound), also for the version; [`Error::Conflict`](crate::Error::Conflict)
    /// when its memory stands at it.
    async fn redact_memory_version(&self, change: &Change, id: &MemoryVersionId) -> Result<Version>;
    /// Forgets versions, of all workspaces, that were superseded before `before`. Returns how many.
    async fn forget_memory_versions(&self, before: Timestamp) -> Result<u64>;
}
