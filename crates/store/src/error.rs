//! What can go wrong in a store.

use oma_domain::MemoryId;
use oma_domain::memory::Path;

use crate::records::OnceRecord;

/// What can go wrong in a store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// There is no such row in this workspace.
    #[error("not found")]
    NotFound,
    /// The agent that the commit needs has been deleted.
    #[error("the agent is gone")]
    AgentGone,
    /// A vault that the session names has been deleted.
    #[error("the vault is gone")]
    VaultGone,
    /// A memory store that the session names has been deleted or archived.
    #[error("the memory store is gone")]
    MemoryStoreGone,
    /// The vault is archived.
    #[error("the vault is archived")]
    VaultArchived,
    /// There are as many as there may be.
    #[error("there are {0} already, which is the most")]
    TooMany(u32),
    /// The name is another one's already.
    #[error("the name is taken")]
    NameTaken,
    /// It is archived and can't be changed.
    #[error("it is archived")]
    Archived,
    /// Another memory is at the path, at a folder of it, or below it.
    #[error("the memory {memory} is at {path}")]
    PathTaken {
        /// That memory.
        memory: MemoryId,
        /// Where it is.
        path: Path,
    },
    /// The content is not what the caller expects.
    #[error("the content is another one")]
    Unexpected,
    /// Somebody else has written meanwhile.
    #[error("the row has changed meanwhile")]
    Conflict,
    /// Other rows refer to it.
    #[error("{0} sessions refer to it")]
    InUse(u64),
    /// There may not be more of them.
    #[error("there are {0} already")]
    Limit(u32),
    /// The workspace has as many sessions as it may have.
    #[error("the workspace has {0} sessions already, which is the most")]
    TooManySessions(u32),
    /// The files of the workspace would have more bytes than they may.
    #[error("the files of the workspace may have {0} bytes in all")]
    NoRoom(u64),
    /// This idempotency key has been used.
    #[error("the idempotency key has been used")]
    AlreadyDone(OnceRecord),
    /// The disk is full.
    #[error("the disk is full")]
    Full,
    /// The data folder can't be written.
    #[error("the store is read-only: {0}")]
    ReadOnly(String),
    /// The store is closing or overloaded.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// A stored row can't be read back, or the database failed.
    #[error("store failure: {0}")]
    Internal(String),
}
