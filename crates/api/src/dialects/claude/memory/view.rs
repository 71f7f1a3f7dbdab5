//! Memory stores, memories and versions as clients read them.

use oma_domain::Actor;
use oma_domain::memory::{Item, Memory, MemoryStore, StoreSpec, Version};
use serde_json::{Value, json};

use crate::dialects::claude::time;

/// A store.
pub(super) fn store(store: &MemoryStore) -> Value {
    let StoreSpec {
        name,
        description,
        metadata,
    } = &store.spec;
    json!({
        "id": store.id.as_str(),
        "type": "memory_store",
        "name": name,
        "description": description,
        "metadata": metadata,
        "created_at": time::value(store.created_at),
        "updated_at": time::value(store.updated_at),
        "archived_at": time::optional(store.archived_at),
    })
}

/// A memory, with its content or null in its place.
pub(super) fn memory(memory: &Memory, whole: bool) -> Value {
    json!({
        "id": memory.id.as_str(),
        "type": "memory",
        "memory_store_id": memory.store.as_str(),
        "memory_version_id": memory.version.as_str(),
        "path": memory.path.as_str(),
        "content": memory.content.as_ref().filter(|_| whole),
        "content_sha256": memory.sha.to_string(),
        "content_size_bytes": memory.size,
        "created_at": time::value(memory.created_at),
        "updated_at": time::value(memory.updated_at),
    })
}

/// An item of a list of memories.
pub(super) fn item(item: &Item) -> Value {
    match item {
        Item::Memory(found) => memory(found, true),
        Item::Folder(prefix) => json!({"type": "memory_prefix", "path": prefix}),
    }
}

/// A version, with its content or null in its place.
pub(super) fn version(version: &Version) -> Value {
    let (sha, size) = version.digest.unzip();
    let mut view = json!({
        "id": version.id.as_str(),
        "type": "memory_version",
        "memory_store_id": version.store.as_str(),
        "memory_id": version.memory.as_str(),
        "operation": version.operation.as_str(),
        "path": version.path.as_ref().map(oma_domain::memory::Path::as_str),
        "content": version.content,
        "content_sha256": sha.map(|sha| sha.to_string()),
        "content_size_bytes": size,
        "created_by": actor(&version.author),
        "created_at": time::value(version.created_at),
        "redacted_at": null,
    });
    if let Some((at, by)) = &version.redacted {
        view["redacted_at"] = time::value(*at);
        view["redacted_by"] = actor(by);
    }
    view
}

/// Who did something. The server's own token, and callers of a server that asks for no key, count as keys.
fn actor(actor: &Actor) -> Value {
    match actor {
        Actor::Session(id) => json!({"type": "session_actor", "session_id": id.as_str()}),
        Actor::Key(id) => json!({"type": "api_actor", "api_key_id": id.as_str()}),
        Actor::Operator | Actor::Local => json!({"type": "api_actor", "api_key_id": actor.to_string()}),
    }
}
