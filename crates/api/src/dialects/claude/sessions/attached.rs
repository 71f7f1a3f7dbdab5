//! The memory stores of a session. They are named at its creation and stay.

use oma_domain::MemoryStoreId;
use oma_domain::memory::{Access, Attachment, MAX_SESSION_STORES};
use oma_engine::AttachMemory;
use serde_json::{Value, json};

use crate::dialects::claude::body::{nullable, only};
use crate::limits;
use crate::validate::checks::{one_of, text};
use crate::validate::{Object, Tree};

/// The longest instructions, in characters.
const INSTRUCTIONS: usize = 4_096;

/// Reads a resource that is a memory store; its type has been looked at.
pub(super) fn memory_store(object: &mut Object<'_>) -> Option<AttachMemory> {
    only(object, &["type", "memory_store_id", "access", "instructions"]);
    let store = object.required("memory_store_id", |value, issues| {
        let id = text(1, limits::NAME)(value, issues)?;
        let id = MemoryStoreId::parse(&id).ok();
        if id.is_none() {
            issues.push("No memory store has this id");
        }
        id
    });
    let access = nullable(object, "access", one_of(&["read_write", "read_only"]));
    let instructions = nullable(object, "instructions", text(0, INSTRUCTIONS));
    Some(AttachMemory {
        store: store?,
        access: match access? {
            Some("read_only") => Access::ReadOnly,
            _ => Access::ReadWrite,
        },
        instructions: instructions?.filter(|text| !text.is_empty()),
    })
}

/// Refuses too many stores, and one that is named twice.
pub(super) fn check(stores: &[&AttachMemory], issues: &mut Tree) -> Option<()> {
    if stores.len() > MAX_SESSION_STORES {
        issues.push(format!("There may be at most {MAX_SESSION_STORES} memory stores"));
        return None;
    }
    for (index, one) in stores.iter().enumerate() {
        if stores.iter().take(index).any(|other| other.store == one.store) {
            issues.push(format!("The memory store {} is named twice", one.store));
            return None;
        }
    }
    Some(())
}

/// A store of a session as clients read it.
pub(super) fn view(attached: &Attachment) -> Value {
    json!({
        "type": "memory_store",
        "memory_store_id": attached.store.as_str(),
        "access": attached.access.as_str(),
        "instructions": attached.instructions,
        "name": attached.name,
        "description": attached.description,
        "mount_path": attached.mount_path(),
    })
}
