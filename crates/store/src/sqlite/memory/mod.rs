//! Memory stores. A memory's content is in the version that it stands at.

mod changes;
mod copies;
mod memories;
mod versions;

use async_trait::async_trait;
use oma_domain::memory::{Item, Memory, MemoryStore, Path, Sha, StoreSpec, Version};
use oma_domain::page::{Order, Page};
use oma_domain::webhook::Topic;
use oma_domain::{MemoryId, MemoryStoreId, MemoryVersionId, SessionId, Timestamp, WorkspaceId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::Sqlite;
use super::failure::{Failure, from_json, to_json};
use super::once::{self, Mark};
use super::rows::{List, id, text, unknown_cursor};
use super::webhooks;
use crate::memories::{
    Change, Edit, Memories, MemoryFilter, NewMemory, Outcome, Removal, VersionFilter, Written,
};
use crate::{Error, ListFilter, Once, Result as StoreResult};

/// How many keys of removed stores and how many old versions are removed in one transaction.
const PIECE: i64 = 1000;

/// A store, ready to be stored.
struct StoreRow {
    store: MemoryStore,
    metadata: String,
}

impl StoreRow {
    fn new(store: &MemoryStore) -> StoreResult<Self> {
        Ok(Self {
            store: store.clone(),
            metadata: to_json("metadata", &store.spec.metadata)?,
        })
    }
}

fn create(conn: &Connection, row: &StoreRow, most: u32, once: Option<&Mark>) -> Result<(), Failure> {
    let store = &row.store;
    once::check(conn, once)?;
    let stores: u32 = conn
        .prepare_cached("SELECT count(*) FROM memory_stores WHERE workspace = ?")?
        .query_row([store.workspace.as_str()], |row| row.get(0))?;
    if stores >= most {
        return Err(Error::TooMany(most).into());
    }
    if conn
        .prepare_cached("SELECT 1 FROM memory_stores WHERE id = ?")?
        .exists([store.id.as_str()])?
    {
        return Err(Error::Conflict.into());
    }
    conn.prepare_cached(
        "INSERT INTO memory_stores (workspace, id, name, description, metadata, created_at, updated_at, archived_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        store.workspace.as_str(),
        store.id.as_str(),
        store.spec.name,
        store.spec.description,
        row.metadata,
        store.created_at.as_millis(),
        store.updated_at.as_millis(),
        store.archived_at.map(Timestamp::as_millis),
    ])?;
    webhooks::tell(
        conn,
        &store.workspace,
        &[Topic::MemoryStoreCreated],
        store.id.as_str(),
    )?;
    once::remember(conn, once)
}

const WHOLE: &str =
    "SELECT s.id, s.name, s.description, s.metadata, s.created_at, s.updated_at, s.archived_at
     FROM memory_stores s";

fn find(
    conn: &Connection,
    workspace: &WorkspaceId,
    id: &MemoryStoreId,
) -> Result<Option<MemoryStore>, Failure> {
    let mut statement = conn.prepare_cached(&format!("{WHOLE} WHERE s.workspace = ? AND s.id = ?"))?;
    let mut rows = statement.query(params![workspace.as_str(), id.as_str()])?;
    rows.next()?
        .map(|row| read(row, workspace).map(|(store, _)| store))
        .transpose()
}

/// Reads a store, and its size.
fn read(row: &Row<'_>, workspace: &WorkspaceId) -> Result<(MemoryStore, usize), Failure> {
    let metadata = text(row, "metadata")?;
    let store = MemoryStore {
        id: id(row, "id", MemoryStoreId::parse)?,
        workspace: workspace.clone(),
        spec: StoreSpec {
            name: text(row, "name")?.to_owned(),
            description: text(row, "description")?.to_owned(),
            metadata: from_json("metadata", metadata)?,
        },
        created_at: Timestamp(row.get("created_at")?),
        updated_at: Timestamp(row.get("updated_at")?),
        archived_at: row.get::<_, Option<i64>>("archived_at")?.map(Timestamp),
    };
    let size = metadata.len() + store.spec.name.len() + store.spec.description.len();
    Ok((store, size))
}

fn list(
    conn: &Connection,
    workspace: &WorkspaceId,
    filter: &ListFilter,
    order: Order,
    after: Option<&MemoryStoreId>,
    limit: u32,
) -> Result<Page<MemoryStore, MemoryStoreId>, Failure> {
    let after = match after {
        Some(id) => Some(place(conn, workspace, id)?.ok_or_else(unknown_cursor)?.key),
        None => None,
    };
    let list = List {
        select: WHOLE,
        table: "s",
        workspace,
        filter,
        order,
        after,
        limit,
    };
    list.page(conn, read, |store| store.id.clone())
}

fn update(conn: &Connection, before: &MemoryStore, after: &StoreRow) -> Result<(), Failure> {
    let current = find(conn, &before.workspace, &before.id)?.ok_or(Error::NotFound)?;
    if current != *before {
        return Err(Error::Conflict.into());
    }
    let next = &after.store;
    conn.prepare_cached(
        "UPDATE memory_stores SET name = ?, description = ?, metadata = ?, updated_at = ?, archived_at = ?
         WHERE workspace = ? AND id = ?",
    )?
    .execute(params![
        next.spec.name,
        next.spec.description,
        after.metadata,
        next.updated_at.as_millis(),
        next.archived_at.map(Timestamp::as_millis),
        before.workspace.as_str(),
        before.id.as_str(),
    ])?;
    if next.archived_at == before.archived_at {
        return Ok(());
    }
    let topics = [Topic::MemoryStoreArchived];
    webhooks::tell(conn, &before.workspace, &topics, before.id.as_str())
}

fn delete(conn: &Connection, workspace: &WorkspaceId, id: &MemoryStoreId) -> Result<bool, Failure> {
    let Some(Place { key, .. }) = place(conn, workspace, id)? else {
        return Ok(false);
    };
    for table in ["memory_copies", "memories", "memory_versions"] {
        conn.prepare_cached(&format!("DELETE FROM {table} WHERE store = ?"))?
            .execute([key])?;
    }
    conn.prepare_cached("DELETE FROM once WHERE workspace = ? AND subject = ?")?
        .execute(params![workspace.as_str(), id.as_str()])?;
    conn.prepare_cached("DELETE FROM memory_stores WHERE key = ?")?
        .execute([key])?;
    webhooks::tell(conn, workspace, &[Topic::MemoryStoreDeleted], id.as_str())?;
    Ok(true)
}

/// Where a store is.
struct Place {
    /// The row's key, by which memories refer to it.
    key: i64,
    archived: bool,
}

fn place(conn: &Connection, workspace: &WorkspaceId, id: &MemoryStoreId) -> Result<Option<Place>, Failure> {
    let sql = "SELECT key, archived_at IS NOT NULL FROM memory_stores WHERE workspace = ? AND id = ?";
    let found = conn
        .prepare_cached(sql)?
        .query_row(params![workspace.as_str(), id.as_str()], |row| {
            Ok(Place {
                key: row.get(0)?,
                archived: row.get(1)?,
            })
        });
    Ok(found.optional()?)
}

/// Notes that a session has a store.
pub(super) fn attach(
    conn: &Connection,
    workspace: &WorkspaceId,
    session: i64,
    store: &MemoryStoreId,
) -> Result<(), Failure> {
    conn.prepare_cached("INSERT INTO session_memories (workspace, store, session) VALUES (?, ?, ?)")?
        .execute(params![workspace.as_str(), store.as_str(), session])?;
    Ok(())
}

/// Forgets what a session that is removed has of stores.
pub(super) fn detach(conn: &Connection, session: i64) -> Result<(), Failure> {
    for table in ["session_memories", "memory_copies"] {
        conn.prepare_cached(&format!("DELETE FROM {table} WHERE session = ?"))?
            .execute([session])?;
    }
    Ok(())
}

/// Refuses a store that a new session can't have.
pub(super) fn attachable(
    conn: &Connection,
    workspace: &WorkspaceId,
    id: &MemoryStoreId,
) -> Result<(), Failure> {
    match place(conn, workspace, id)? {
        Some(place) if !place.archived => Ok(()),
        _ => Err(Error::MemoryStoreGone.into()),
    }
}

#[async_trait]
impl Memories for Sqlite {
    async fn create_memory_store(
        &self,
        store: &MemoryStore,
        most: u32,
        once: Option<&Once>,
    ) -> StoreResult<()> {
        let row = StoreRow::new(store)?;
        let once = Mark::of(&store.workspace, once)?;
        self.writer
            .run(move |conn| create(conn, &row, most, once.as_ref()))
            .await
    }

    async fn memory_store(
        &self,
        workspace: &WorkspaceId,
        id: &MemoryStoreId,
    ) -> StoreResult<Option<MemoryStore>> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.readers.run(move |conn| find(conn, &workspace, &id)).await
    }

    async fn memory_stores(
        &self,
        workspace: &WorkspaceId,
        filter: &ListFilter,
        order: Order,
        after: Option<&MemoryStoreId>,
        limit: u32,
    ) -> StoreResult<Page<MemoryStore, MemoryStoreId>> {
        let (workspace, filter, after) = (workspace.clone(), *filter, after.cloned());
        self.readers
            .run(move |conn| list(conn, &workspace, &filter, order, after.as_ref(), limit))
            .await
    }

    async fn update_memory_store(&self, before: &MemoryStore, after: &MemoryStore) -> StoreResult<()> {
        let (before, after) = (before.clone(), StoreRow::new(after)?);
        self.writer.run(move |conn| update(conn, &before, &after)).await
    }

    async fn delete_memory_store(&self, workspace: &WorkspaceId, id: &MemoryStoreId) -> StoreResult<bool> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.writer.run(move |conn| delete(conn, &workspace, &id)).await
    }

    async fn create_memory(
        &self,
        change: &Change,
        new: &NewMemory,
        once: Option<&Once>,
    ) -> StoreResult<Memory> {
        let once = Mark::of(&change.workspace, once)?;
        let (change, new) = (change.clone(), new.clone());
        self.writer
            .run(move |conn| changes::create(conn, &change, &new, once.as_ref()))
            .await
    }

    async fn memory(
        &self,
        workspace: &WorkspaceId,
        store: &MemoryStoreId,
        id: &MemoryId,
        content: bool,
    ) -> StoreResult<Option<Memory>> {
        let (workspace, store, id) = (workspace.clone(), store.clone(), id.clone());
        self.readers
            .run(move |conn| match place(conn, &workspace, &store)? {
                Some(place) => memories::find(conn, &store, place.key, &id, content),
                None => Ok(None),
            })
            .await
    }

    async fn memories(
        &self,
        workspace: &WorkspaceId,
        store: &MemoryStoreId,
        filter: &MemoryFilter,
        after: Option<&str>,
        limit: u32,
    ) -> StoreResult<Page<Item, String>> {
        let (workspace, store, filter) = (workspace.clone(), store.clone(), filter.clone());
        let after = after.map(str::to_owned);
        self.readers
            .run(move |conn| match place(conn, &workspace, &store)? {
                Some(place) => memories::list(conn, &store, place.key, &filter, after.as_deref(), limit),
                None => Ok(Page {
                    rows: Vec::new(),
                    next: None,
                }),
            })
            .await
    }

    async fn update_memory(&self, change: &Change, edit: &Edit) -> StoreResult<Memory> {
        let (change, edit) = (change.clone(), edit.clone());
        self.writer
            .run(move |conn| changes::update(conn, &change, &edit))
            .await
    }

    async fn delete_memory(&self, change: &Change, removal: &Removal) -> StoreResult<()> {
        let (change, removal) = (change.clone(), removal.clone());
        self.writer
            .run(move |conn| changes::delete(conn, &change, &removal))
            .await
    }

    async fn write_back(&self, change: &Change, written: &[Written]) -> StoreResult<Vec<Outcome>> {
        let (change, written) = (change.clone(), written.to_vec());
        self.writer
            .run(move |conn| changes::write_back(conn, &change, &written))
            .await
    }

    async fn memory_revision(
        &self,
        workspace: &WorkspaceId,
        store: &MemoryStoreId,
    ) -> StoreResult<Option<i64>> {
        let (workspace, store) = (workspace.clone(), store.clone());
        self.readers
            .run(move |conn| match place(conn, &workspace, &store)? {
                Some(place) => versions::revision(conn, place.key).map(Some),
                None => Ok(None),
            })
            .await
    }

    async fn memory_copy(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        store: &MemoryStoreId,
    ) -> StoreResult<Vec<(Path, Sha)>> {
        let (workspace, session, store) = (workspace.clone(), session.clone(), store.clone());
        self.readers
            .run(move |conn| copies::list(conn, &workspace, &session, &store))
            .await
    }

    async fn copied_memories(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        store: &MemoryStoreId,
        paths: &[(Path, Option<Sha>)],
    ) -> StoreResult<()> {
        let (workspace, session, store) = (workspace.clone(), session.clone(), store.clone());
        let paths = paths.to_vec();
        self.writer
            .run(move |conn| copies::set(conn, &workspace, &session, &store, &paths))
            .await
    }

    async fn memory_version(
        &self,
        workspace: &WorkspaceId,
        store: &MemoryStoreId,
        id: &MemoryVersionId,
        content: bool,
    ) -> StoreResult<Option<Version>> {
        let (workspace, store, id) = (workspace.clone(), store.clone(), id.clone());
        self.readers
            .run(move |conn| match place(conn, &workspace, &store)? {
                Some(place) => versions::find(conn, &store, place.key, &id, content),
                None => Ok(None),
            })
            .await
    }

    async fn memory_versions(
        &self,
        workspace: &WorkspaceId,
        store: &MemoryStoreId,
        filter: &VersionFilter,
        after: Option<&MemoryVersionId>,
        limit: u32,
    ) -> StoreResult<Page<Version, MemoryVersionId>> {
        let (workspace, store) = (workspace.clone(), store.clone());
        let (filter, after) = (filter.clone(), after.cloned());
        self.readers
            .run(move |conn| match place(conn, &workspace, &store)? {
                Some(place) => versions::list(conn, &store, place.key, &filter, after.as_ref(), limit),
                None => Ok(Page {
                    rows: Vec::new(),
                    next: None,
                }),
            })
            .await
    }

    async fn redact_memory_version(&self, change: &Change, id: &MemoryVersionId) -> StoreResult<Version> {
        let (change, id) = (change.clone(), id.clone());
        self.writer
            .run(move |conn| versions::redact(conn, &change, &id))
            .await
    }

    async fn forget_memory_versions(&self, before: Timestamp) -> StoreResult<u64> {
        let mut forgotten = 0;
        loop {
            let count = self
                .writer
                .run(move |conn| versions::forget(conn, before, PIECE))
                .await?;
            forgotten += count;
            if count < PIECE.unsigned_abs() {
                return Ok(forgotten);
            }
        }
    }
}
