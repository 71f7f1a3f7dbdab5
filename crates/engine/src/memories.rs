//! Memory stores, their memories and the versions of those.

use std::time::Duration;

use oma_domain::memory::{
    Access, Attachment, Content, Item, Memory, MemoryStore, Path, Sha, StoreSpec, Version, folder,
};
use oma_domain::page::{Order, Page};
use oma_domain::{Actor, MemoryId, MemoryStoreId, MemoryVersionId, WorkspaceId};
use oma_store::memories::{Change, Edit, NewMemory, Removal};
pub use oma_store::memories::{MemoryFilter, VersionFilter};
use oma_store::{Error as Store, ListFilter};
use serde_json::{Value, json};

use crate::agents::not_found;
use crate::error::{Error, Result};
use crate::{Engine, IdempotencyKey, now, once};

const SCOPE: &str = "memory_store.create";
/// How often a change is tried again when others change the same store.
const CHANGE_ATTEMPTS: usize = 10;
/// How long a version is kept after the memory stands at another one, or is gone.
pub(crate) const VERSIONS_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// What can go wrong with memories. The API maps each to a status and a code of its dialect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// No such store in this workspace.
    #[error("no memory store has this id")]
    StoreNotFound,
    /// The store is archived: its memories can be read and removed, nothing else.
    #[error("the memory store is archived")]
    StoreArchived,
    /// No such memory in this store.
    #[error("no memory of this store has this id")]
    NotFound,
    /// No such version in this store.
    #[error("no memory version of this store has this id")]
    VersionNotFound,
    /// Another memory is in the way.
    #[error("the path can't be used: the memory {memory} is at {path}")]
    PathConflict {
        /// That memory.
        memory: MemoryId,
        /// Where it is.
        path: Path,
    },
    /// The content is not what the client expects.
    #[error("the memory's content does not have the expected content_sha256")]
    PreconditionFailed,
    /// The store has as many memories as it may have.
    #[error("the store has {0} memories, the most that it may have")]
    TooMany(u32),
    /// The workspace has as many stores as it may have.
    #[error("a workspace may have {0} memory stores, archived ones included; delete some first")]
    TooManyStores(u32),
    /// The version is the one that its memory stands at.
    #[error("the memory stands at this version; change or delete the memory first")]
    VersionInUse,
}

/// A memory store that a session is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachMemory {
    /// The store.
    pub store: MemoryStoreId,
    /// What the session may do with it.
    pub access: Access,
    /// How to use it in this session.
    pub instructions: Option<String>,
}

/// What to make of a memory. What is absent stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemoryEdit {
    /// Where it goes.
    pub path: Option<Path>,
    /// What it says from now on.
    pub content: Option<Content>,
    /// What its content must be beforehand.
    pub expected: Option<Sha>,
}

impl Engine {
    /// Creates a memory store.
    ///
    /// # Errors
    /// [`MemoryError::TooManyStores`], [`Error::KeyReused`].
    pub async fn create_memory_store(
        &self,
        workspace: &WorkspaceId,
        spec: StoreSpec,
        key: Option<IdempotencyKey>,
    ) -> Result<MemoryStore> {
        let store = &*self.inner.store;
        if let Some(receipt) = once::lookup(store, workspace, SCOPE, key.as_ref()).await? {
            return self.replayed_memory_store(workspace, &receipt).await;
        }
        let at = now();
        let made = MemoryStore {
            id: MemoryStoreId::generate(),
            workspace: workspace.clone(),
            spec,
            created_at: at,
            updated_at: at,
            archived_at: None,
        };
        let record = once::record(SCOPE, key.as_ref(), json!(made.id));
        let most = self.inner.config.max_memory_stores;
        let created = store.create_memory_store(&made, most, record.as_ref());
        match (created.await, key) {
            (Ok(()), _) => Ok(made),
            (Err(Store::AlreadyDone(record)), Some(key)) => {
                self.replayed_memory_store(workspace, &once::replay(record, &key)?)
                    .await
            }
            (Err(Store::TooMany(most)), _) => Err(MemoryError::TooManyStores(most).into()),
            (Err(error), _) => Err(error.into()),
        }
    }

    async fn replayed_memory_store(&self, workspace: &WorkspaceId, receipt: &Value) -> Result<MemoryStore> {
        let id = receipt.as_str().and_then(|id| MemoryStoreId::parse(id).ok());
        self.memory_store(workspace, &id.ok_or(MemoryError::StoreNotFound)?)
            .await
    }

    /// A memory store.
    ///
    /// # Errors
    /// [`MemoryError::StoreNotFound`].
    pub async fn memory_store(&self, workspace: &WorkspaceId, id: &MemoryStoreId) -> Result<MemoryStore> {
        let found = self.inner.store.memory_store(workspace, id).await?;
        Ok(found.ok_or(MemoryError::StoreNotFound)?)
    }

    /// Memory stores by creation.
    ///
    /// # Errors
    /// [`MemoryError::StoreNotFound`] when the cursor is unknown.
    pub async fn memory_stores(
        &self,
        workspace: &WorkspaceId,
        filter: &ListFilter,
        order: Order,
        after: Option<&MemoryStoreId>,
        limit: u32,
    ) -> Result<Page<MemoryStore, MemoryStoreId>> {
        let store = &self.inner.store;
        let page = store.memory_stores(workspace, filter, order, after, limit).await;
        page.map_err(|error| not_found(error, MemoryError::StoreNotFound.into()))
    }

    /// Changes a store by what `change` makes of its present definition. An equal definition changes nothing.
    ///
    /// # Errors
    /// [`MemoryError::StoreNotFound`], [`MemoryError::StoreArchived`].
    pub async fn update_memory_store(
        &self,
        workspace: &WorkspaceId,
        id: &MemoryStoreId,
        change: impl Fn(StoreSpec) -> StoreSpec,
    ) -> Result<MemoryStore> {
        self.change_memory_store(workspace, id, |current| {
            if current.archived_at.is_some() {
                return Err(MemoryError::StoreArchived.into());
            }
            let spec = change(current.spec.clone());
            Ok((spec != current.spec).then(|| MemoryStore {
                spec,
                updated_at: now(),
                ..current.clone()
            }))
        })
        .await
    }

    /// Archives a store. Archiving again keeps the first time.
    ///
    /// # Errors
    /// [`MemoryError::StoreNotFound`].
    pub async fn archive_memory_store(
        &self,
        workspace: &WorkspaceId,
        id: &MemoryStoreId,
    ) -> Result<MemoryStore> {
        self.change_memory_store(workspace, id, |current| {
            let at = now();
            Ok(current.archived_at.is_none().then(|| MemoryStore {
                archived_at: Some(at),
                updated_at: at,
                ..current.clone()
            }))
        })
        .await
    }

    async fn change_memory_store(
        &self,
        workspace: &WorkspaceId,
        id: &MemoryStoreId,
        change: impl Fn(&MemoryStore) -> Result<Option<MemoryStore>>,
    ) -> Result<MemoryStore> {
        for _ in 0..CHANGE_ATTEMPTS {
            let current = self.memory_store(workspace, id).await?;
            let Some(next) = change(&current)? else {
                return Ok(current);
            };
            match self.inner.store.update_memory_store(&current, &next).await {
                Ok(()) => return Ok(next),
                // Somebody was faster: the change is made to what is there now.
                Err(Store::Conflict) => {}
                Err(error) => return Err(not_found(error, MemoryError::StoreNotFound.into())),
            }
        }
        Err(Error::Unavailable(
            "the memory store changes all the time".to_owned(),
        ))
    }

    /// Removes a store with its memories and their versions.
    ///
    /// # Errors
    /// [`MemoryError::StoreNotFound`].
    pub async fn delete_memory_store(&self, workspace: &WorkspaceId, id: &MemoryStoreId) -> Result<()> {
        match self.inner.store.delete_memory_store(workspace, id).await? {
            true => Ok(()),
            false => Err(MemoryError::StoreNotFound.into()),
        }
    }

    /// Creates a memory. It is returned with its content.
    ///
    /// # Errors
    /// [`MemoryError`], [`Error::KeyReused`].
    pub async fn create_memory(
        &self,
        workspace: &WorkspaceId,
        id: &MemoryStoreId,
        author: Actor,
        path: Path,
        content: Content,
        key: Option<IdempotencyKey>,
    ) -> Result<Memory> {
        let store = &*self.inner.store;
        let scope = format!("memory.create:{id}");
        if let Some(receipt) = once::lookup(store, workspace, &scope, key.as_ref()).await? {
            return self.replayed_memory(workspace, id, &receipt).await;
        }
        let new = NewMemory {
            id: MemoryId::generate(),
            version: MemoryVersionId::generate(),
            path,
            content,
        };
        let record = once::record(&scope, key.as_ref(), json!(new.id));
        let change = by(workspace, id, author);
        match (store.create_memory(&change, &new, record.as_ref()).await, key) {
            (Err(Store::AlreadyDone(record)), Some(key)) => {
                self.replayed_memory(workspace, id, &once::replay(record, &key)?)
                    .await
            }
            (made, _) => made.map_err(|error| refused(error, MemoryError::StoreNotFound)),
        }
    }

    async fn replayed_memory(
        &self,
        workspace: &WorkspaceId,
        store: &MemoryStoreId,
        receipt: &Value,
    ) -> Result<Memory> {
        let id = receipt.as_str().and_then(|id| MemoryId::parse(id).ok());
        self.memory(workspace, store, &id.ok_or(MemoryError::NotFound)?, true)
            .await
    }

    /// A memory, with its content if that is asked for.
    ///
    /// # Errors
    /// [`MemoryError::StoreNotFound`], [`MemoryError::NotFound`].
    pub async fn memory(
        &self,
        workspace: &WorkspaceId,
        store: &MemoryStoreId,
        id: &MemoryId,
        content: bool,
    ) -> Result<Memory> {
        match self.inner.store.memory(workspace, store, id, content).await? {
            Some(found) => Ok(found),
            None => Err(self.missing(workspace, store, MemoryError::NotFound).await),
        }
    }

    /// Memories by their paths.
    ///
    /// # Errors
    /// [`MemoryError::StoreNotFound`].
    pub async fn memories(
        &self,
        workspace: &WorkspaceId,
        id: &MemoryStoreId,
        filter: &MemoryFilter,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<Item, String>> {
        let store = &self.inner.store;
        let page = store.memories(workspace, id, filter, after, limit).await?;
        if page.rows.is_empty() {
            self.memory_store(workspace, id).await?;
        }
        Ok(page)
    }

    /// Changes a memory. It is returned with its content.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub async fn update_memory(
        &self,
        workspace: &WorkspaceId,
        store: &MemoryStoreId,
        id: &MemoryId,
        author: Actor,
        edit: MemoryEdit,
    ) -> Result<Memory> {
        let edit = Edit {
            id: id.clone(),
            version: MemoryVersionId::generate(),
            path: edit.path,
            content: edit.content,
            expected: edit.expected,
        };
        let change = by(workspace, store, author);
        match self.inner.store.update_memory(&change, &edit).await {
            Err(Store::NotFound) => Err(self.missing(workspace, store, MemoryError::NotFound).await),
            updated => updated.map_err(|error| refused(error, MemoryError::NotFound)),
        }
    }

    /// Removes a memory, if its content is what is expected. Its versions stay.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub async fn delete_memory(
        &self,
        workspace: &WorkspaceId,
        store: &MemoryStoreId,
        id: &MemoryId,
        author: Actor,
        expected: Option<Sha>,
    ) -> Result<()> {
        let removal = Removal {
            id: id.clone(),
            version: MemoryVersionId::generate(),
            expected,
        };
        let change = by(workspace, store, author);
        match self.inner.store.delete_memory(&change, &removal).await {
            Err(Store::NotFound) => Err(self.missing(workspace, store, MemoryError::NotFound).await),
            removed => removed.map_err(|error| refused(error, MemoryError::NotFound)),
        }
    }

    /// A version of a memory, with its content if that is asked for.
    ///
    /// # Errors
    /// [`MemoryError::StoreNotFound`], [`MemoryError::VersionNotFound`].
    pub async fn memory_version(
        &self,
        workspace: &WorkspaceId,
        store: &MemoryStoreId,
        id: &MemoryVersionId,
        content: bool,
    ) -> Result<Version> {
        let found = self.inner.store.memory_version(workspace, store, id, content);
        match found.await? {
            Some(found) => Ok(found),
            None => Err(self.missing(workspace, store, MemoryError::VersionNotFound).await),
        }
    }

    /// Versions of a store's memories, newest first.
    ///
    /// # Errors
    /// [`MemoryError::StoreNotFound`]; [`MemoryError::VersionNotFound`] when the cursor is unknown.
    pub async fn memory_versions(
        &self,
        workspace: &WorkspaceId,
        id: &MemoryStoreId,
        filter: &VersionFilter,
        after: Option<&MemoryVersionId>,
        limit: u32,
    ) -> Result<Page<Version, MemoryVersionId>> {
        let store = &self.inner.store;
        let page = store.memory_versions(workspace, id, filter, after, limit).await;
        let page = page.map_err(|error| not_found(error, MemoryError::VersionNotFound.into()))?;
        if page.rows.is_empty() {
            self.memory_store(workspace, id).await?;
        }
        Ok(page)
    }

    /// Takes what a version says out of it, for good.
    ///
    /// # Errors
    /// [`MemoryError::StoreNotFound`], [`MemoryError::VersionNotFound`], [`MemoryError::VersionInUse`].
    pub async fn redact_memory_version(
        &self,
        workspace: &WorkspaceId,
        store: &MemoryStoreId,
        id: &MemoryVersionId,
        author: Actor,
    ) -> Result<Version> {
        let change = by(workspace, store, author);
        match self.inner.store.redact_memory_version(&change, id).await {
            Ok(redacted) => Ok(redacted),
            Err(Store::NotFound) => Err(self.missing(workspace, store, MemoryError::VersionNotFound).await),
            Err(Store::Conflict) => Err(MemoryError::VersionInUse.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// The stores that a session gets, each with a folder of its own.
    ///
    /// # Errors
    /// [`MemoryError::StoreNotFound`], [`MemoryError::StoreArchived`].
    pub(crate) async fn attach_memories(
        &self,
        workspace: &WorkspaceId,
        wanted: Vec<AttachMemory>,
    ) -> Result<Vec<Attachment>> {
        let mut attached = Vec::with_capacity(wanted.len());
        for AttachMemory {
            store,
            access,
            instructions,
        } in wanted
        {
            let found = self.memory_store(workspace, &store).await?;
            if found.archived_at.is_some() {
                return Err(MemoryError::StoreArchived.into());
            }
            let folder = folder(&found.spec.name, &attached);
            attached.push(Attachment {
                store,
                access,
                instructions,
                name: found.spec.name,
                description: found.spec.description,
                folder,
            });
        }
        Ok(attached)
    }

    /// What is missing: the store, or something in it.
    async fn missing(&self, workspace: &WorkspaceId, store: &MemoryStoreId, inside: MemoryError) -> Error {
        match self.memory_store(workspace, store).await {
            Ok(_) => inside.into(),
            Err(error) => error,
        }
    }
}

fn by(workspace: &WorkspaceId, store: &MemoryStoreId, author: Actor) -> Change {
    Change {
        workspace: workspace.clone(),
        store: store.clone(),
        author,
        at: now(),
    }
}

/// Why a change was refused; `missing` is what the store does not have when it does not have something.
fn refused(error: Store, missing: MemoryError) -> Error {
    match error {
        Store::NotFound => missing.into(),
        Store::Archived => MemoryError::StoreArchived.into(),
        Store::PathTaken { memory, path } => MemoryError::PathConflict { memory, path }.into(),
        Store::Unexpected => MemoryError::PreconditionFailed.into(),
        Store::TooMany(most) => MemoryError::TooMany(most).into(),
        error => error.into(),
    }
}
