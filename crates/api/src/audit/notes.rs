//! What is noted about a call while it is under way: by authentication who calls, by the handler what it is about.

use std::sync::{Arc, Mutex, PoisonError};

use oma_domain::{Actor, WorkspaceId};
use serde_json::{Map, Value};

/// What is known of a call.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) caller: Option<(WorkspaceId, Actor)>,
    pub(super) target: Option<String>,
    pub(super) metadata: Map<String, Value>,
}

/// The notes of one call, shared by those who handle it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Known>>);

impl Notes {
    /// This is who calls.
    pub(crate) fn caller(&self, workspace: &WorkspaceId, actor: &Actor) {
        self.change(|known| known.caller = Some((workspace.clone(), actor.clone())));
    }

    /// This is what the call made, or is about.
    pub(crate) fn target(&self, id: String) {
        self.change(|known| known.target = Some(id));
    }

    /// A fact about the call.
    pub(crate) fn fact(&self, name: &str, value: Value) {
        self.change(|known| {
            known.metadata.insert(name.to_owned(), value);
        });
    }

    pub(super) fn known(&self) -> Known {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
