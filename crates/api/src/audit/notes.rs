//! What is noted about a call while it is under way: by authentication who calls, by the handler what it is about.

use std::sync::{Arc, Mutex, PoisonError};

use oma_domain::audit::Entry;
use oma_domain::{Actor, AuditId, WorkspaceId};
use serde_json::{Map, Value};

use super::actions::Action;

/// The outcome of a call that succeeds.
pub(super) const SUCCESS: &str = "ok";

/// What a call says of itself before anybody has looked into it.
#[derive(Debug)]
pub(super) struct About {
    /// What its entry and the note of its beginning are called.
    pub(super) id: AuditId,
    pub(super) action: Action,
    pub(super) request_id: String,
    /// Where it comes from, as entries word it.
    pub(super) address: String,
    /// What its path names.
    pub(super) target: Option<String>,
}

impl About {
    /// The entry of the call, from what is known of it by now.
    pub(super) fn entry(&self, known: Known, outcome: &str) -> Entry {
        let (workspace, actor) = match known.caller {
            Some((workspace, actor)) => (workspace, actor.to_string()),
            None => (WorkspaceId::default_workspace(), self.address.clone()),
        };
        Entry {
            id: self.id.clone(),
            workspace,
            at: oma_engine::now(),
            request_id: Some(self.request_id.clone()),
            actor,
            action: self.action.name.to_owned(),
            target: known.target.or_else(|| self.target.clone()),
            outcome: outcome.to_owned(),
            metadata: (!known.metadata.is_empty()).then_some(known.metadata),
        }
    }
}

/// What is known of a call.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) caller: Option<(WorkspaceId, Actor)>,
    pub(super) target: Option<String>,
    pub(super) metadata: Map<String, Value>,
    /// The entry of its success stands in the trail.
    pub(super) recorded: bool,
    /// The store knows that the call is under way.
    pub(super) has_begun: bool,
    /// What it is; nothing where calls are not recorded.
    about: Option<Arc<About>>,
}

/// The notes of one call, shared by those who handle it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Known>>);

impl Notes {
    pub(super) fn of(about: Arc<About>) -> Self {
        let known = Known {
            about: Some(about),
            ..Known::default()
        };
        Self(Arc::new(Mutex::new(known)))
    }

    /// The entry that the call gets if it succeeds, for whoever can write it together with what the call does. They
    /// say so by [`Self::recorded`]. `None` where calls are not recorded.
    pub(crate) fn success(&self) -> Option<Entry> {
        let known = self.known();
        let about = known.about.clone()?;
        Some(about.entry(known, SUCCESS))
    }

    /// What is known by now, to be added to for an entry of something that may yet be refused.
    pub(crate) fn detached(&self) -> Self {
        Self(Arc::new(Mutex::new(self.known())))
    }

    /// What is known of the call before it is carried out, when somebody known makes it.
    pub(super) fn beginning(&self) -> Option<Entry> {
        let known = self.known();
        let about = known.about.clone().filter(|_| known.caller.is_some())?;
        Some(about.entry(known, ""))
    }

    /// Whether the call's entry comes with what it does.
    pub(super) fn is_atomic(&self) -> bool {
        self.known().about.is_some_and(|about| about.action.is_atomic())
    }

    /// Whether the call may change something elsewhere than in the store.
    pub(super) fn reaches_out(&self) -> bool {
        self.known().about.is_some_and(|about| about.action.reaches_out())
    }

    /// The store knows that the call is under way.
    pub(super) fn begun(&self) {
        self.change(|known| known.has_begun = true);
    }

    /// That entry has been written.
    pub(crate) fn recorded(&self) {
        self.change(|known| known.recorded = true);
    }

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
